#!/usr/bin/env python3
"""Writes a finished training run as the embedded model's files: original Wan2.1 names, configuration in the header.

    python export.py --run DIR [--out models/tiny]

The transformer's block matrices and text embedding are stored in F8_E4M3, its rest in F32, the others in F16.
"""

import argparse
from pathlib import Path

import torch
from data import Sentences
from models import CLIP, DIT, TINY, UMT5, VAE, reference, resume
from train_dit import Model
from train_vae import load_vae


def is_fp8(name):
    """The weights that Kijai's fp8_e4m3fn file of the 14B model holds in FP8."""
    matrix = name.endswith("weight") and "norm" not in name
    return matrix and name.startswith(("blocks.", "text_embedding."))


def write(out, component, config, module, dtype=lambda name: torch.float16):
    state = reference.to_original(component, reference.hub_state(component, module), config)
    state = {name: tensor.to(dtype(name)) for name, tensor in state.items()}
    reference.save_weights(out / f"{component}.safetensors", state, config)
    print(out / f"{component}.safetensors", (out / f"{component}.safetensors").stat().st_size)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=TINY)
    args = parser.parse_args()
    rows = Sentences().rows
    model = Model(rows, args.run)
    model.dit.load_state_dict(resume(args.run / "dit.pt")["average"])
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out, "dit", DIT, model.dit, lambda name: torch.float8_e4m3fn if is_fp8(name) else torch.float32)
    write(args.out, "umt5", UMT5 | {"vocab_size": rows}, model.umt5)
    write(args.out, "clip", CLIP, model.clip)
    write(args.out, "vae", VAE, load_vae(args.run, "cpu"))


if __name__ == "__main__":
    main()
