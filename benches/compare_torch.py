#!/usr/bin/env python3
"""Times the mid-size benches and the same shapes in PyTorch on the CPU, f32, same number of threads, one after the
other on the same machine, and prints the ratios (ours / PyTorch's; below 1 is faster than PyTorch).

    python benches/compare_torch.py [--threads N] [--runs N]

Needs torch, diffusers and transformers in the Python that runs it. Nothing else should be running.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
NAMES = ["dit_forward_mid", "attention_mid", "vae_decode_mid", "vae_encode_mid", "umt5_mid"]


def ours(threads):
    """Median milliseconds by name, from criterion's own files."""
    env = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    command = ["cargo", "bench", "--locked", "-q", "-p", "wan-run", "--bench", "model", "--", "_mid"]
    began = time.time()
    subprocess.run(command, cwd=HERE.parent, env=env, check=True, stdout=sys.stderr)
    metadata = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=HERE.parent,
                              check=True, capture_output=True, text=True).stdout
    target = pathlib.Path(json.loads(metadata)["target_directory"])

    def read(name):
        file = target / "criterion" / name / "new" / "estimates.json"
        if file.stat().st_mtime < began:
            sys.exit(f"{file} is older than this run")
        return json.loads(file.read_text())

    return {name: read(name)["median"]["point_estimate"] / 1e6 for name in NAMES}


def torchs(threads, runs):
    """Median milliseconds by name."""
    command = [sys.executable, str(HERE / "peer_torch.py"), "--threads", str(threads), "--runs", str(runs)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return {row["name"]: row["median_ms"] for row in map(json.loads, lines) if "name" in row}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    rust, torch = ours(args.threads), torchs(args.threads, args.runs)
    print(f"| bench | wan-run, ms | PyTorch, ms | ratio |\n|---|---|---|---|")
    for name in NAMES:
        print(f"| {name} | {rust[name]:.0f} | {torch[name]:.0f} | {rust[name] / torch[name]:.2f} |")


if __name__ == "__main__":
    main()
