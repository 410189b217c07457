#!/usr/bin/env python3
"""Writes the fixtures of tests/golden. README.md beside this file says what is in them.

    python tests/golden/make_golden.py [--out DIR] [--only PART ...] [--wan-repo DIR] [--wrapper-repo DIR]
                                         [--teacache-repo DIR] [--comfyui-repo DIR]

The parts `scheduler` and `e2e` also need a checkout of https://github.com/Wan-Video/Wan2.1 for its solvers, the parts
`windows` and `wrapper` one of https://github.com/kijai/ComfyUI-WanVideoWrapper, the part `teacache` one of
https://github.com/ali-vilab/TeaCache, the part `comfyui` one of https://github.com/comfyanonymous/ComfyUI.
"""

import argparse
import time
from pathlib import Path

import torch

import golden_comfyui
import golden_e2e
import golden_image
import golden_models
import golden_solvers
import golden_teacache
import golden_text
import golden_windows
import golden_wrapper

HERE = Path(__file__).resolve().parent


def main():
    parts = {
        "dit": golden_models.make_dit,
        "vae": golden_models.make_vae,
        "umt5": golden_models.make_umt5,
        "clip": golden_models.make_clip,
        "noise": golden_solvers.make_noise,
        "scheduler": golden_solvers.make_scheduler,
        "comfyui": golden_comfyui.make_comfyui,
        "image": golden_image.make_image,
        "text": golden_text.make_text,
        "e2e": golden_e2e.make_e2e,
        "flf2v": golden_e2e.make_flf2v,
        "windows": golden_windows.make_windows,
        "wrapper": golden_wrapper.make_wrapper,
        "teacache": golden_teacache.make_teacache,
    }
    needs = {
        "scheduler": "wan_repo",
        "e2e": "wan_repo",
        "windows": "wrapper_repo",
        "wrapper": "wrapper_repo",
        "teacache": "teacache_repo",
        "comfyui": "comfyui_repo",
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--wan-repo", type=Path, help="checkout of Wan-Video/Wan2.1, for the reference solvers")
    parser.add_argument("--wrapper-repo", type=Path, help="checkout of kijai/ComfyUI-WanVideoWrapper")
    parser.add_argument("--teacache-repo", type=Path, help="checkout of ali-vilab/TeaCache, for the steps it skips")
    parser.add_argument("--comfyui-repo", type=Path, help="checkout of comfyanonymous/ComfyUI, for its own samplers")
    args = parser.parse_args()
    torch.set_num_threads(2)
    for name in args.only:
        repo = getattr(args, needs[name]) if name in needs else None
        if name in needs and repo is None:
            parser.error(f"{name} needs --{needs[name].replace('_', '-')}")
        began = time.time()
        parts[name](args.out, repo) if name in needs else parts[name](args.out)
        print(f"{name}: {time.time() - began:.1f} s")


if __name__ == "__main__":
    main()
