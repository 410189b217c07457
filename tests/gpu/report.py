#!/usr/bin/env python3
"""One table of what tests/gpu/run.sh has found: `report.py FOLDER`. Also writes FOLDER/report.json.

Checks come first, then whole jobs and where a step's time goes, then our times beside PyTorch's on the same shapes: a ratio
below 1 means that ours is faster. What is not the same work on both sides: a step of ours has the prompt's keys and
values ready and computes the first block's self-attention once for both prompts; PyTorch's leaves out the combination of
guidance. Our encoder stops computing where the empty frames' values repeat. In default tiles diffusers computes 1.11 times the
area (28 tiles against 18). Our products take the fastest of eight algorithms that cublasLt offers, PyTorch's the first. Needs
nothing but Python. Exits with 1 if a check failed.
"""

import json
import sys
from pathlib import Path

# Our rows, and the figures of peer_torch.py that compute the same. {} stands for sizes.
PAIRS = [
    ("products/gemm bf16 {}", ["gemm bf16 {}"]),
    ("products/gemm fp8 {}", ["gemm fp8 tensor-wise fast {}", "gemm fp8 row-wise fast {}"]),
    ("products/linear fp8 {}", ["linear fp8 compiled {}", "gemm fp8 row-wise fast {}"]),
    ("attention/exact {}", ["attention cudnn {}", "attention flash {}"]),
    ("attention/cudnn {}", ["attention cudnn {}", "attention flash {}"]),
    ("attention/sage {}", ["attention cudnn {}", "attention flash {}"]),
    ("attention/cross {}", ["attention cudnn {}"]),
    ("step/bf16-exact swap 0 {}", ["dit step eager {}", "dit step eager, flash attention {}", "dit step compiled {}"]),
    ("step/bf16 swap 0 {}", ["dit step eager {}", "dit step eager, flash attention {}", "dit step compiled {}"]),
    ("step/fp8 swap 0 {}", ["dit step fp8, compiled {}", "dit step compiled {}", "dit step eager {}", "dit step eager, flash attention {}"]),
    ("step/fast swap 0 {}", ["dit step fp8, compiled {}", "dit step compiled {}", "dit step eager {}", "dit step eager, flash attention {}"]),
    *((f"convolution/{c} channels {{}}", [f"convolution {c} channels {{}}"]) for c in (384, 192, 96)),
    ("vae/decode {}", ["vae decode {}"]),
    ("vae/decode tiled {}", ["vae decode tiled {}"]),
    ("vae/encode {}", ["vae encode {}"]),
    ("copies/copy on the device", ["copy on the device"]),
    ("copies/host to device, pinned", ["host to device, pinned"]),
]


def lines(path):
    """The JSON objects of a file, one a line; a last line that was cut off is passed over."""
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def checks(rows):
    """Counts for each group, and every row that is not in order."""
    groups, bad = {}, []
    for row in rows:
        outcome = row["outcome"]
        groups.setdefault(row["group"], {}).setdefault(outcome, 0)
        groups[row["group"]][outcome] += 1
        if outcome in ("failed", "error"):
            figures = ", ".join(f"{c['what']} {c['value']} {limit(c)}".strip() for c in row["checks"])
            bad.append(f"{outcome} {row['group']}/{row['name']}: {row.get('reason') or figures}")
    return groups, bad


def limit(check):
    return " ".join(f"({kind.replace('_', ' ')} {value})" for kind, value in check.get("limit", {}).items())


def worst(rows):
    """For each op, the largest ratio of our error to that of eager arithmetic in the same dtype."""
    found = {}
    for row in rows:
        values = {check["what"]: check["value"] for check in row["checks"]}
        if row["group"] == "ops" and values.get("eager") and values.get("error") is not None:
            op = row["name"].split()[0]
            found[op] = max(found.get(op, (0.0, "")), (values["error"] / values["eager"], row["name"]))
    return found


def figure(row, what):
    return next((c["value"] for c in row["checks"] if c["what"] == what), None)


# Our rows again, as what another one is held against: swapped blocks must cost nothing.
OWN = [("step/bf16 swap 10 {}", "step/bf16 swap 0 {}"), ("step/bf16 swap 40 {}", "step/bf16 swap 0 {}")]


def ratios(times, peers):
    peaks = {line["name"].removesuffix(" peak"): line["gb"] for line in peers if line.get("gb")}
    peers = {line["name"]: line for line in peers if line.get("median_ms")}
    own = {f"{row['group']}/{row['name']}": figure(row, "ms") for row in times}
    table = []
    for row in times:
        name, ours = f"{row['group']}/{row['name']}", figure(row, "ms")
        if ours is None:
            continue
        entry = {"name": name, "ms": ours, "tflops": figure(row, "TFLOP/s"), "floor": figure(row, "times the floor"),
                 "peak_gb": figure(row, "peak, GB"), "peers": {}}
        for pattern, others in PAIRS:
            prefix = pattern.removesuffix("{}")
            if name == pattern or ("{}" in pattern and name.startswith(prefix) and " " not in name[len(prefix):]):
                for other in others:
                    other = other.replace("{}", name[len(prefix):])
                    if other in peers:
                        entry["peers"][other] = {"ms": peers[other]["median_ms"], "ratio": ours / peers[other]["median_ms"],
                                                 "peak_gb": peaks.get(other)}
        for pattern, base in OWN:
            prefix = pattern.removesuffix("{}")
            base = base.replace("{}", name[len(prefix):])
            if name.startswith(prefix) and own.get(base):
                entry["peers"][f"our {base}"] = {"ms": own[base], "ratio": ours / own[base], "peak_gb": None}
        table.append(entry)
    return table


def number(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def figures(row):
    return ", ".join(f"{c['what']} {c['value']:.4g}" for c in row["checks"])


def peer_text(name, peer):
    peak = f", {peer['peak_gb']:.1f} GB" if peer["peak_gb"] else ""
    return f"{name}: {peer['ms']:.2f} ({peer['ratio']:.2f}{peak})"


def main():
    folder = Path(sys.argv[1])
    rows = list(lines(folder / "selftest.jsonl"))
    times = list(lines(folder / "bench.jsonl"))
    groups, bad = checks(rows)
    # A row that was taken again counts as it came out last.
    timed, untimed = checks({f"{row['group']}/{row['name']}": row for row in times}.values())
    groups |= {f"bench {group}": outcomes for group, outcomes in timed.items()}
    bad += untimed
    for group, outcomes in groups.items():
        print(f"{group:<12}", ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))
    for line in bad:
        print(line[:300])
    for op, (ratio, name) in worst(rows).items():
        print(f"error of {op} over that of eager arithmetic: {ratio:.2f} at most, in {name}")
    for row in rows:
        if row["group"] in ("generate", "model"):
            print(f"{row['group']} {row['name']}: {row['outcome']}, {figures(row)}")
    for row in times:
        if row["name"].endswith(", by kernel") and row["checks"]:
            print(f"{row['name']}: {figures(row)}")
    peers = list(lines(folder / "peer.jsonl"))
    table = ratios(times, peers)
    if table:
        print(f"\n{'ours':<44}{'ms':>10}{'TFLOP/s':>9}{'x floor':>8}{'GB':>7}  PyTorch, ms (ratio)")
    for entry in table:
        others = ", ".join(peer_text(name, peer) for name, peer in entry["peers"].items())
        print(f"{entry['name']:<44}{entry['ms']:>10.3f}{number(entry['tflops'], 0):>9}{number(entry['floor'], 2):>8}"
              f"{number(entry['peak_gb'], 1):>7}  {others}")
    for line in peers:
        if line.get("error"):
            print(f"PyTorch {line['name']}: {line['error'][:160]}")
        if line.get("backend"):
            print(f"PyTorch chooses by itself for {line['name']}: {line['backend']}")
    (folder / "report.json").write_text(
        json.dumps({"groups": groups, "bad": bad, "times": table, "peer": peers, "rows": rows}, indent=1))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
