#!/usr/bin/env python3
"""Generates clips of unseen scenes with the trained model and counts how many do what their sentence says.

    python sample.py --run DIR [--count 60] [--cfg 6] [--steps 10] [--negative "static"] [--sheet FILE.png]

Euler steps over the shifted grid; the Rust test measures the same through the program itself.
"""

import argparse
import collections
import json
import random
from pathlib import Path

import measure
import torch
import world
from data import Sentences, clip_pixels, encode, with_mask
from models import half_precision, reference, resume
from train_dit import Model
from train_vae import load_vae

SHIFT = 5.0


def sigmas(steps):
    u = torch.linspace(1, 0, steps + 1)
    return SHIFT * u / (1 + (SHIFT - 1) * u)


@torch.no_grad()
def generate(model, vae, images, texts, negative, steps, cfg, sentences):
    """Videos [B, 3, 81, H, W] that begin with `images` [B, 3, H, W]."""
    device = images.device
    given = torch.zeros(*images.shape[:2], world.FRAMES, *images.shape[2:], device=device)
    given[:, :, 0] = images
    with half_precision(device):
        condition = with_mask(encode(vae, given))
        image = model.image(clip_pixels(images)) if model.forward_of.image else None
        text = model.text(*sentences.ids(texts, device))
        none = model.text(*sentences.ids([negative] * len(texts), device))
        x = torch.randn(condition[:, 4:].shape, generator=torch.Generator().manual_seed(7)).to(device)
        grid = sigmas(steps).to(device)
        for now, then in zip(grid, grid[1:]):
            sigma = now.expand(len(texts))
            velocity = model.velocity(x, condition, sigma, text, image).float()
            if cfg != 1:
                rest = model.velocity(x, condition, sigma, none, image).float()
                velocity = rest + cfg * (velocity - rest)
            x = x + (then - now) * velocity
        mean, std = (t.to(device) for t in reference.latent_constants(vae))
        return vae.decode(x * std + mean).sample.float()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--cfg", type=float, default=6.0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--negative", default="")
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--unit", type=int, help="pixels of a length of 1; the shorter side by default")
    parser.add_argument("--exact", action="store_true", help="weights as they are, not rounded to e4m3")
    parser.add_argument("--no-image", action="store_true", help="without the vision tower, as in the first part of training")
    parser.add_argument("--sheet")
    args = parser.parse_args()
    vae, sentences = load_vae(args.run, args.device), Sentences()
    model = Model(sentences.rows, args.run).to(args.device).eval()
    model.dit.load_state_dict(resume(args.run / "dit.pt")["average"])
    model.forward_of.rounding, model.forward_of.image = not args.exact, not args.no_image
    right, asked, rows, first_frame = collections.Counter(), collections.Counter(), [], []
    width, height = map(int, args.size.split("x"))
    for start in range(0, args.count, args.batch):
        rng = random.Random(f"unseen {start}")
        scenes = [world.Scene.sample(rng, width, height, unit=args.unit) for _ in range(min(args.batch, args.count - start))]
        texts = [scene.sentence(rng) for scene in scenes]
        images = world.render(scenes, [0], args.device)[:, :, 0]
        videos = generate(model, vae, images, texts, args.negative, args.steps, args.cfg, sentences).cpu()
        for scene, video, text in zip(scenes, videos, texts):
            actor = scene.things[0]
            found = measure.features(video, actor.colour)
            asked[actor.action] += 1
            right[actor.action] += measure.obeys(found, actor.action)
            truth = world.render([scene], [0])[0, :, 0]
            first_frame.append(-10 * torch.log10((video[:, 0] - truth).square().mean() / 4).item())
            rows.append(torch.cat([truth, *video[:, ::16].unbind(1)], 2))
    share = sum(right.values()) / sum(asked.values())
    print(json.dumps(dict(obeys=share, first_frame_psnr=sorted(first_frame)[len(first_frame) // 2],
                          by_action={a: f"{right[a]}/{asked[a]}" for a in asked})))
    if args.sheet:
        from PIL import Image

        sheet = ((torch.cat(rows[:20], 1) + 1) * 127.5).clamp(0, 255).byte()
        Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(args.sheet)


if __name__ == "__main__":
    main()
