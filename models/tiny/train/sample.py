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
from data import Clips, Sentences, with_mask
from models import reference, resume
from train_dit import Model, load_vae

SHIFT = 5.0


def sigmas(steps):
    u = torch.linspace(1, 0, steps + 1)
    return SHIFT * u / (1 + (SHIFT - 1) * u)


@torch.no_grad()
def generate(model, vae, clips, texts, negative, steps, cfg, sentences, device):
    """Videos [B, 3, T, H, W] of the clips' first frames."""
    condition, image = with_mask(clips.conditions.float()), model.image(clips.images.float())
    text = model.text(*sentences.ids(texts, device))
    none = model.text(*sentences.ids([negative] * len(texts), device))
    x = torch.randn(clips.latents.shape, generator=torch.Generator().manual_seed(7)).to(device)
    grid = sigmas(steps).to(device)
    for now, then in zip(grid, grid[1:]):
        sigma = now.expand(len(texts))
        velocity = model.velocity(x, condition, sigma, text, image)
        if cfg != 1:
            rest = model.velocity(x, condition, sigma, none, image)
            velocity = rest + cfg * (velocity - rest)
        x = x + (then - now) * velocity
    mean, std = (t.to(device) for t in reference.latent_constants(vae))
    return vae.decode(x * std + mean).sample


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--cfg", type=float, default=6.0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--negative", default="")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sheet")
    args = parser.parse_args()
    vae, sentences = load_vae(args.run, args.device), Sentences()
    model = Model(sentences.rows).to(args.device).eval()
    model.load_state_dict(resume(args.run / "dit.pt")["average"])
    right, asked, rows, first_frame = collections.Counter(), collections.Counter(), [], []
    for start in range(0, args.count, args.batch):
        clips = Clips(vae, f"unseen {start}", min(args.batch, args.count - start), 128, 128, args.device)
        rng = random.Random(f"sentences {start}")
        texts = [scene.sentence(rng) for scene in clips.scenes]
        videos = generate(model, vae, clips, texts, args.negative, args.steps, args.cfg, sentences, args.device).float().cpu()
        for scene, video, text in zip(clips.scenes, videos, texts):
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
