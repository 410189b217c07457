#!/usr/bin/env python3
"""One table of what tests/gpu/run.sh has found: `report.py FOLDER`. Also writes FOLDER/report.json.

Checks come first, then our times beside PyTorch's on the same shapes: a ratio below 1 means that ours is faster. Needs
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


def ratios(times, peers):
    peers = {line["name"]: line for line in peers if line.get("median_ms")}
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
                        entry["peers"][other] = {"ms": peers[other]["median_ms"], "ratio": ours / peers[other]["median_ms"]}
        table.append(entry)
    return table


def number(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def main():
    folder = Path(sys.argv[1])
    rows = list(lines(folder / "selftest.jsonl"))
    groups, bad = checks(rows)
    for group, outcomes in groups.items():
        print(f"{group:<12}", ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))
    for line in bad:
        print(line[:300])
    for op, (ratio, name) in worst(rows).items():
        print(f"error of {op} over that of eager arithmetic: {ratio:.2f} at most, in {name}")
    for row in rows:
        if row["group"] == "generate":
            print(f"{row['name']}:", ", ".join(f"{c['what']} {c['value']}" for c in row["checks"]))
    peers = list(lines(folder / "peer.jsonl"))
    table = ratios(list(lines(folder / "bench.jsonl")), peers)
    if table:
        print(f"\n{'ours':<44}{'ms':>10}{'TFLOP/s':>9}{'x floor':>8}{'GB':>7}  PyTorch, ms (ratio)")
    for entry in table:
        others = ", ".join(f"{name}: {peer['ms']:.2f} ({peer['ratio']:.2f})" for name, peer in entry["peers"].items())
        print(f"{entry['name']:<44}{entry['ms']:>10.3f}{number(entry['tflops'], 0):>9}{number(entry['floor'], 2):>8}"
              f"{number(entry['peak_gb'], 1):>7}  {others}")
    for line in peers:
        if line.get("error"):
            print(f"PyTorch {line['name']}: {line['error'][:160]}")
    (folder / "report.json").write_text(
        json.dumps({"groups": groups, "bad": bad, "times": table, "peer": peers, "rows": rows}, indent=1))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
