#!/usr/bin/env python3
"""Times PyTorch on the CPU in float32 at the sizes of benches/model.rs and benches/ops.rs.

    python benches/peer_torch.py [--threads 2] [--runs 5] [--only NAME ...]

Prints one JSON line a measurement: name, threads, runs, median, min and max in milliseconds. The modules
are diffusers' and transformers', with random weights; attention is `scaled_dot_product_attention`. Peak
memory is below 4 GB.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import diffusers
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "golden"))
import reference  # noqa: E402

DIT = dict(model_type="i2v", dim=1536, ffn_dim=8960, freq_dim=256, in_dim=36, out_dim=16, num_heads=12, num_layers=2,
           text_dim=4096, text_len=512, image_dim=1280, eps=1e-6)
VAE = dict(base_dim=96, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
           temporal_downsample=[False, True, True])
UMT5 = dict(vocab_size=1024, dim=1024, dim_attn=1024, dim_ffn=2816, num_heads=16, num_layers=4, num_buckets=32)


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def dit_forward_mid():
    """2 blocks of dim 1536 over 4x64x64 latents, 4,096 tokens."""
    model = reference.build("dit", DIT)
    inputs = dict(latents=randn(1, 16, 4, 64, 64), condition=randn(1, 20, 4, 64, 64), timestep=torch.tensor([500.0]),
                  text_embeds=randn(1, 512, 4096), image_embeds=randn(1, 257, 1280))
    return lambda: reference.run_dit(model, **inputs)


def vae_decode_mid():
    """The real dimensions, 9 frames of 128x128."""
    model, latents = reference.build("vae", VAE), randn(1, 16, 3, 16, 16)
    return lambda: reference.vae_decode(model, latents)


def vae_encode_mid():
    model, video = reference.build("vae", VAE), randn(1, 3, 9, 128, 128).clamp(-1, 1)
    return lambda: reference.vae_encode(model, video)


def umt5_mid():
    """4 layers of dim 1024, 128 tokens."""
    model = reference.build("umt5", UMT5)
    ids = (torch.arange(128) * 7 % 1024).unsqueeze(0)
    return lambda: reference.run_umt5(model, ids, torch.ones_like(ids))


def attention_mid():
    """4,096 queries and keys, 12 heads of 128."""
    q, k, v = (randn(1, 12, 4096, 128) for _ in range(3))
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)


CASES = {f.__name__: f for f in (dit_forward_mid, vae_decode_mid, vae_encode_mid, attention_mid, umt5_mid)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
    for name in args.only:
        with torch.inference_mode():
            run = CASES[name]()
            run()  # warm-up
            times = []
            for _ in range(args.runs):
                began = time.perf_counter()
                run()
                times.append((time.perf_counter() - began) * 1e3)
        row = {"name": name, "threads": args.threads, "runs": args.runs, "median_ms": round(statistics.median(times), 2),
               "min_ms": round(min(times), 2), "max_ms": round(max(times), 2), **versions}
        print(json.dumps(row), flush=True)
        del run


if __name__ == "__main__":
    main()
