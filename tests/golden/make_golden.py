#!/usr/bin/env python3
"""Writes the fixtures of tests/golden. README.md beside this file says what is in them.

    python tests/golden/make_golden.py [--out DIR] [--only PART ...] [--wan-repo DIR]

The part `scheduler` also needs a checkout of https://github.com/Wan-Video/Wan2.1 for its solvers.
"""

import argparse
import time
from pathlib import Path

import torch

import golden_e2e
import golden_image
import golden_models
import golden_solvers
import golden_text

HERE = Path(__file__).resolve().parent


def main():
    parts = {
        "dit": golden_models.make_dit,
        "vae": golden_models.make_vae,
        "umt5": golden_models.make_umt5,
        "clip": golden_models.make_clip,
        "noise": golden_solvers.make_noise,
        "scheduler": golden_solvers.make_scheduler,
        "image": golden_image.make_image,
        "text": golden_text.make_text,
        "e2e": golden_e2e.make_e2e,
    }
    needs_wan = ("scheduler", "e2e")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--wan-repo", type=Path, help="checkout of Wan-Video/Wan2.1, for the reference solvers")
    args = parser.parse_args()
    torch.set_num_threads(2)
    for name in args.only:
        if name in needs_wan and args.wan_repo is None:
            parser.error(f"{name} needs --wan-repo")
        began = time.time()
        parts[name](args.out, args.wan_repo) if name in needs_wan else parts[name](args.out)
        print(f"{name}: {time.time() - began:.1f} s")


if __name__ == "__main__":
    main()
