#!/usr/bin/env python3
"""Fits the 16x3 map from latents to small RGB pictures that previews use, for any Wan VAE file.

    python models/latent_rgb/fit_latent_rgb.py VAE.safetensors OUT.toml [--size 128] [--videos 12]

Short generated videos (gradients, blobs, edges, textures with a 1/f spectrum, all moving) are encoded;
the normalised latents are regressed on the mean colour of the pixels behind them, 8x8 of them in each of
1 or 4 frames, with least squares and a little ridge. Output: rgb = latent . factors + bias in [0, 1].

The file is in original naming; its configuration is read from the header's `config`, else that of Wan2.1.
Needs torch, diffusers, transformers and safetensors (versions: tests/golden/README.md).
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "golden"))
import reference  # noqa: E402

WAN21 = dict(base_dim=96, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
             temporal_downsample=[False, True, True])


def read(path):
    with safe_open(str(path), "pt") as f:
        config = json.loads((f.metadata() or {}).get("config", "null")) or WAN21
        return config, {k.removeprefix("model."): f.get_tensor(k) for k in f.keys()}


def texture(g, size, slope):
    """A random field whose amplitude falls as frequency**-slope, as in photographs for 1."""
    fy = torch.fft.fftfreq(size).view(-1, 1)
    fx = torch.fft.fftfreq(size).view(1, -1)
    amplitude = (fy**2 + fx**2).sqrt().clamp(min=1 / size) ** -slope
    field = torch.fft.ifft2(torch.fft.fft2(torch.randn(3, size, size, generator=g)) * amplitude).real
    return field / field.std()


def canvas(g, size, kind):
    """[3, size, size] in [-1, 1]"""
    uniform = lambda *shape: torch.rand(*shape, generator=g) * 2 - 1
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    base = uniform(3, 1, 1) + uniform(3, 1, 1) * x + uniform(3, 1, 1) * y
    if kind == "blobs":
        for _ in range(12):
            cx, cy, radius = uniform(1), uniform(1), 0.1 + 0.2 * uniform(1).abs()
            base = base + 1.5 * uniform(3, 1, 1) * torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
    elif kind == "edges":
        for _ in range(8):
            a, b, c = uniform(3)
            base = torch.where((a * x + b * y > c / 2).unsqueeze(0), base, uniform(3, 1, 1))
    elif kind == "texture":
        mixing = torch.eye(3) + 0.7
        base = 0.5 * base + 0.25 * torch.einsum("ij,jhw->ihw", mixing, texture(g, size, 1.0))
    return base.clamp(-1, 1)


def videos(count, size, frames=9):
    g = torch.Generator().manual_seed(7)
    for i in range(count):
        big = canvas(g, size * 2, ("gradient", "blobs", "edges", "texture")[i % 4])
        dy, dx = torch.randint(0, size // 8, (2,), generator=g).tolist()
        yield torch.stack([big[:, f * dy // 4 : f * dy // 4 + size, f * dx // 4 : f * dx // 4 + size] for f in range(frames)], 1)


def colours(video):
    """[3, F, H, W] in [-1, 1] -> [3, T, H/8, W/8] in [0, 1]: frame 0, then means of four."""
    small = torch.nn.functional.avg_pool2d(video.transpose(0, 1), 8).transpose(0, 1) / 2 + 0.5
    rest = small[:, 1:]
    rest = rest.reshape(3, rest.shape[1] // 4, 4, *rest.shape[2:]).mean(2)
    return torch.cat([small[:, :1], rest], 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vae", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vae = reference.load("vae", *read(args.vae))
    latents, rgb = [], []
    for video in videos(args.videos, args.size):
        z = reference.vae_encode(vae, video.unsqueeze(0))[0]
        latents.append(z.flatten(1).t())
        rgb.append(colours(video).flatten(1).t())
    x, y = torch.cat(latents).double(), torch.cat(rgb).double()
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    normal = design.t() @ design
    ridge = torch.diag(torch.cat([x.var(0) * len(x) * 1e-4, torch.zeros(1, dtype=x.dtype)]))
    solution = torch.linalg.solve(normal + ridge, design.t() @ y)
    residual = (design @ solution - y).pow(2).mean().sqrt().item()
    explained = 1 - residual**2 / y.var(0, unbiased=False).mean().item()
    rows = [", ".join(f"{v:.5f}" for v in row) for row in solution.tolist()]
    lines = [
        "# rgb = latent . factors + bias, in [0, 1], of normalised latents; for previews only",
        f"# fitted by models/latent_rgb/fit_latent_rgb.py on {len(x)} latents: {explained:.1%} of the variance explained",
        f"bias = [{rows[-1]}]",
        "factors = [",
        *(f"  [{row}]," for row in rows[:-1]),
        "]",
    ]
    args.out.write_text("\n".join(lines) + "\n")
    print(f"{args.out}: rms error {residual:.4f}, {explained:.1%} of the variance explained")


if __name__ == "__main__":
    main()
