#!/usr/bin/env python3
"""Between the stages: training clips as the VAE encodes them, in files of 16.

    python encode.py --run DIR [--size 128x128] [--unit 128] [--parts 0:50] [--device cuda]

Several processes may share the work, with different --parts. train_dit.py takes up what is there, new files as well.
"""

import argparse
from pathlib import Path

import torch
import world
from data import Folder, encode_clips, part_scenes
from models import save
from train_vae import load_vae


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--unit", type=int, help="pixels of a length of 1; the shorter side by default")
    parser.add_argument("--parts", default="0:50")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    unit = args.unit or min(width, height)
    vae, folder = load_vae(args.run, args.device).bfloat16(), Folder(args.run / "clips", width, height, unit)
    folder.folder.mkdir(exist_ok=True)
    for index in range(*map(int, args.parts.split(":"))):
        if folder.file(index).exists():
            continue
        scenes = part_scenes(width, height, unit, index)
        parts = [encode_clips(vae, world.render([scene], device=args.device)) for scene in scenes]
        save(folder.file(index), **{what: torch.cat([part[what] for part in parts]).cpu() for what in parts[0]})
        print(folder.file(index), flush=True)


if __name__ == "__main__":
    main()
