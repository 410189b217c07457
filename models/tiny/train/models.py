"""The four components in the dimensions of `tiny`, and the checkpoints of their training."""

import json
import os
import sys
from pathlib import Path

import torch

TINY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TINY.parents[1] / "tests" / "golden"))
import reference  # noqa: E402

DIT = dict(model_type="i2v", dim=192, ffn_dim=768, freq_dim=256, in_dim=36, out_dim=16, num_heads=3, num_layers=4,
           text_dim=128, text_len=512, image_dim=64, eps=1e-6)
VAE = dict(base_dim=16, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1, attn_scales=[],
           temporal_downsample=[False, True, True])
UMT5 = dict(vocab_size=0, dim=128, dim_attn=128, dim_ffn=256, num_heads=2, num_layers=2, num_buckets=32)
CLIP = dict(image_size=224, patch_size=14, dim=64, mlp_ratio=4, num_heads=2, num_layers=3)


def build(component, config, seed):
    torch.manual_seed(seed)
    return reference.build(component, config)


def half_precision(device):
    """Matrix products in bf16 where that is fast: on GPUs, and on processors with AMX tiles."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu" or torch.cpu._is_amx_tile_supported())


def channels_last(vae):
    """The same module with its weights laid out as the fast convolutions of CPUs and GPUs want them."""
    for parameter in vae.parameters():
        if parameter.dim() in (4, 5):
            layout = torch.channels_last if parameter.dim() == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return vae


def save(path, **state):
    """A checkpoint, whole or not at all."""
    part = Path(f"{path}.part")
    torch.save(state, part)
    os.replace(part, path)


def resume(path):
    """The checkpoint at `path`, or nothing."""
    return torch.load(path, map_location="cpu", weights_only=True) if Path(path).exists() else None


class Log:
    """One JSON line a report, to the terminal and to a file beside the checkpoint."""

    def __init__(self, path):
        self.file = open(path, "a", buffering=1)

    def __call__(self, **figures):
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in figures.items()})
        print(line, flush=True)
        self.file.write(line + "\n")
