#!/usr/bin/env python3
"""Writes the embedded model `tiny`: four components in small dimensions, a tokenizer, a sample image.

    python models/tiny/make_tiny.py [--out models/tiny]

The weights are random, drawn tensor by tensor from generators seeded with the tensor's name, so adding
or removing one tensor leaves the others alone. The scales are chosen so that the whole pipeline works
on healthy activations (see README.md). Needs torch, diffusers, transformers, safetensors,
sentencepiece, tokenizers and pillow; tests/golden/README.md names the versions.
"""

import argparse
import json
import math
import sys
import zlib
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "golden"))
import reference  # noqa: E402
from draw_sample import make_sample  # noqa: E402
from train_tokenizer import make_tokenizer  # noqa: E402

SEED = 20250225

DIT = dict(model_type="i2v", dim=128, ffn_dim=512, freq_dim=256, in_dim=36, out_dim=16, num_heads=2, num_layers=2,
           text_dim=64, text_len=512, image_dim=64, eps=1e-6)
VAE = dict(base_dim=12, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
           temporal_downsample=[False, True, True])
UMT5 = dict(vocab_size=0, dim=64, dim_attn=64, dim_ffn=128, num_heads=2, num_layers=2, num_buckets=32)
CLIP = dict(image_size=224, patch_size=14, dim=64, mlp_ratio=4, num_heads=2, num_layers=3)


def generator(name):
    return torch.Generator().manual_seed(SEED ^ zlib.crc32(name.encode()))


def normal(name, shape, std=1.0, mean=0.0):
    return torch.randn(shape, generator=generator(name)) * std + mean


def shapes(component, config):
    """Tensor names (original naming) and shapes, from the reference module on the meta device."""
    with torch.device("meta"):
        state = reference.hub_state(component, reference.build(component, config))
    return {k: tuple(v.shape) for k, v in reference.to_original(component, state, config).items()}


def fan_in(shape):
    return math.prod(shape[1:])


# ---------------------------------------------------------------------------------------------------
# DiT


def is_fp8(name):
    """The weights that Kijai's fp8_e4m3fn file of the 14B model holds in FP8."""
    if not name.endswith("weight") or "norm" in name:
        return False
    return name.startswith(("blocks.", "text_embedding."))


# Residual channels of the DiT. The first three groups are wires that the blocks read but do not write,
# except that self-attention of block 0 copies IMAGE from the given frame to all others.
NOISE = slice(0, 64)  # the noisy latent patch, in the head's order (py, px, channel)
IMAGE = slice(64, 80)  # mean of the image latent over the patch
MASK = 80  # 8 where the frame is given
LEVEL = 81  # constant, so that LayerNorm's gain hardly depends on the noise level
FREE = slice(82, 128)  # what the blocks make of noise, text and image

STREAM_RMS = 1.75  # of the residual stream with LEVEL_VALUE, measured
LEVEL_VALUE = 16.0
PULL = 2.5  # velocity = PULL * (latent - target)


def make_dit(config):
    """Random, with wires laid on purpose: the velocity is the noisy latent minus a target, so that the
    sampler removes the noise, and the target is the image plus a random, smooth function of everything."""
    d = config["dim"]
    out = {}
    for name, shape in shapes("dit", config).items():
        leaf = name.rsplit(".", 1)[-1]
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm_k_img.weight")):
            t = normal(name, shape, 0.25, 1.8 if "self_attn" in name else 1.5)
        elif "norm3" in name or name in ("img_emb.proj.0.weight", "img_emb.proj.4.weight"):
            t = normal(name, shape, 0.1, 1.0 if leaf == "weight" else 0.0)
        elif name.endswith("modulation"):
            t = normal(name, shape, 0.3)
        elif name == "time_projection.1.weight":
            t = normal(name, shape, 0.3 / math.sqrt(d))
        elif leaf == "bias":
            t = normal(name, shape, 0.02)
        else:
            t = normal(name, shape, 1 / math.sqrt(fan_in(shape)))
        out[name] = t

    lay_patch_wires(config, out)
    for n in range(config["num_layers"]):
        lay_block_wires(config, out, n)
    lay_head_wires(config, out)
    return {k: v.to(torch.float8_e4m3fn) if is_fp8(k) else v for k, v in out.items()}


def lay_patch_wires(config, out):
    channels = config["out_dim"]
    w, b = out["patch_embedding.weight"], out["patch_embedding.bias"]
    w[: FREE.start], b[: FREE.start] = 0, 0
    for c in range(channels):
        for py in range(2):
            for px in range(2):
                w[(py * 2 + px) * channels + c, c, 0, py, px] = 1.0
        w[IMAGE.start + c, channels + 4 + c] = 0.25
    w[MASK, channels : channels + 4] = 0.5
    b[LEVEL] = LEVEL_VALUE
    w[FREE, :channels] *= 0.3  # little of each token's own noise: smooth content comes from attention


def position_bias(config, name, strength, time=()):
    """A query or key bias that RoPE turns into a function of the distance in rows and columns, and in frames
    for `time`: pair j adds its value times cos(distance * frequency j)."""
    head = config["dim"] // config["num_heads"]
    side = 2 * (head // 6)
    bias = normal(name, (head,), 0.1)
    for j, value in enumerate(time):
        bias[2 * j] = math.sqrt(value)
    for start in (head - 2 * side, head - side):
        for j, value in enumerate(strength):
            bias[start + 2 * j] = math.sqrt(value)
    return bias


def lay_block_wires(config, out, n):
    d, head = config["dim"], config["dim"] // config["num_heads"]
    block = f"blocks.{n}."
    wires = slice(0, FREE.start)
    for part in ("self_attn.o", "cross_attn.o", "ffn.2"):
        out[block + part + ".weight"][wires] = 0
        out[block + part + ".bias"][wires] = 0
    for part in ("self_attn.q", "self_attn.k", "self_attn.v", "cross_attn.q", "ffn.0"):
        out[block + part + ".weight"][:, LEVEL] = 0
    out[block + "ffn.0.weight"][:, NOISE] *= 0.4
    out[block + "cross_attn.q.weight"][:, NOISE] *= 0.4
    out[block + "cross_attn.o.weight"] *= 1.5
    out[block + "modulation"][:, :, wires] *= 0.1
    six = out["time_projection.1.weight"].view(6, d, d)
    six[:, wires] *= 0.1

    # every head looks around its own place; the values it averages are mostly noise, hence the gain
    for h in range(config["num_heads"]):
        rows = slice(h * head, (h + 1) * head)
        for qk in "qk":
            out[f"{block}self_attn.{qk}.weight"][rows] *= 0.35
            out[f"{block}self_attn.{qk}.bias"][rows] = position_bias(config, f"{block}position.{h}", (0.5, 1.5, 1.5), (1.0, 2.0, 1.0))
    out[f"{block}self_attn.v.weight"][:, NOISE] *= 24.0

    if n == 0:  # head 0 copies the given frame's IMAGE at the same place
        rows = slice(0, head)
        for qk in "qk":
            out[f"{block}self_attn.{qk}.weight"][rows] = 0
            out[f"{block}self_attn.{qk}.bias"][rows] = position_bias(config, f"{block}copy", (4.0, 4.0, 4.0, 2.0, 1.0))
        still = head - 4 * (head // 6) - 2  # the slowest temporal pair
        out[f"{block}self_attn.q.bias"][still] = 4.0
        out[f"{block}self_attn.k.weight"][still, MASK] = 1.0
        v, o = out[f"{block}self_attn.v.weight"], out[f"{block}self_attn.o.weight"]
        size = IMAGE.stop - IMAGE.start
        v[:size] = 0
        out[f"{block}self_attn.v.bias"][:size] = 0
        v[:size, IMAGE] = torch.eye(size) * STREAM_RMS
        o[IMAGE, :size] = torch.eye(size)
        out[block + "modulation"][0, 2, IMAGE] += 2.0  # the gate


def lay_head_wires(config, out):
    channels, gain = config["out_dim"], PULL * STREAM_RMS
    head = torch.zeros(4 * channels, config["dim"])
    head[:, NOISE] = torch.eye(4 * channels)
    smooth = normal("head.smooth", (1, channels, FREE.stop - FREE.start))
    detail = normal("head.detail", (4, channels, FREE.stop - FREE.start))
    head[:, FREE] = -(smooth + 0.05 * detail).reshape(4 * channels, -1) * 0.35 / math.sqrt(FREE.stop - FREE.start)
    for pixel in range(4):
        head[pixel * channels : (pixel + 1) * channels, IMAGE] = -0.4 * torch.eye(channels)
    out["head.head.weight"] = head * gain
    out["head.head.bias"] *= 0
    out["head.modulation"] *= 0.1
    # time reaches the head unprojected, as shift and as scale: keep it small
    out["time_embedding.2.weight"] *= 0.3


# ---------------------------------------------------------------------------------------------------
# VAE, UMT5, CLIP


# Feature channels 0..6 of the VAE carry red, green, blue, their negatives and a constant through every
# level, unchanged but for pooling and interpolation. The last norm divides by a length that the constant
# dominates, and silu(x) - silu(-x) = x, so that the heads can read the colours back.
COLOURS = 7
CONSTANT = 6.0
COLOUR_GAIN = 2.0


def smooth_kernel(name, shape):
    """Random mixing of channels with one smooth profile in space and time, plus some free detail."""
    profile = torch.ones(shape[2:])
    for axis, size in enumerate(shape[2:]):
        if size == 3:
            taps = torch.tensor([0.3, 0.6, 1.0]) if axis == 0 and len(shape) == 5 else torch.tensor([0.5, 1.0, 0.5])
            profile = profile * taps.view([-1 if a == axis else 1 for a in range(len(shape) - 2)])
    mixing = normal(name, (*shape[:2], *[1] * (len(shape) - 2))) / math.sqrt(shape[1])
    return mixing * profile / profile.sum() + normal(name + ".detail", shape) * 0.3 / math.sqrt(fan_in(shape))


def make_vae(config):
    out = {}
    for name, shape in shapes("vae", config).items():
        if name.endswith("gamma"):
            out[name] = normal(name, shape, 0.1, 1.0)
        elif name.endswith("bias"):
            out[name] = normal(name, shape, 0.05)
        else:
            out[name] = smooth_kernel(name, shape)
    for name in list(out):
        lay_colour_wires(name, out)
    calibrate_vae(config, out)
    return out


def lay_colour_wires(name, out):
    w = slice(0, COLOURS)
    t = out[name]
    if name.endswith((".residual.6.weight", ".residual.6.bias", ".proj.weight", ".proj.bias")):
        t[w] = 0
        if name.endswith("weight"):
            t *= 0.4
    elif name.endswith((".shortcut.weight", ".resample.1.weight", ".time_conv.weight")):
        copies = t.shape[0] // t.shape[1] if name.startswith("decoder") and "time_conv" in name else 1
        taps = torch.zeros(t.shape[2:])
        if name.endswith("shortcut.weight"):
            taps[:] = 1
        elif "time_conv" in name:  # both frames of a pair; the mean of two going down
            taps[1:] = torch.tensor([0.5, 0.5]).view(2, 1, 1)
        elif name.startswith("encoder"):
            taps[:2, :2] = 0.25
        else:
            taps[:] = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25]))
        for copy in range(copies):
            rows = slice(copy * t.shape[1], copy * t.shape[1] + COLOURS)
            t[rows] = torch.eye(COLOURS, t.shape[1]).view(COLOURS, t.shape[1], *[1] * taps.dim()) * taps
            out[name.removesuffix("weight") + "bias"][rows] = 0
        if copies == 2:  # the earlier frame of a pair lies half-way to the past, the later one is now
            t[t.shape[1] :][w, :, 1] *= 0
            t[t.shape[1] :][w, :, 2] *= 2
    elif name == "encoder.conv1.weight":
        t *= 0.7
        t[w] = 0
        for c in range(3):
            t[c, c, -1, 1, 1], t[c + 3, c, -1, 1, 1] = COLOUR_GAIN, -COLOUR_GAIN
        out["encoder.conv1.bias"][w] = torch.tensor([0.0] * 6 + [CONSTANT])
    elif name == "decoder.conv1.weight":
        t *= 0.35
        t[w] = 0
        out["decoder.conv1.bias"][w] = torch.tensor([0.0] * 6 + [CONSTANT])
    elif name in ("conv1.weight", "conv2.weight"):
        t[:] = torch.eye(t.shape[0]).view(t.shape)
        out[name.replace("weight", "bias")][:] = 0
    elif name.endswith("head.0.gamma"):
        t[w] = 1.0


def calibrate_vae(config, state):
    """Sets the heads and the decoder's colour input: an image's latents have unit variance and zero mean,
    decoding them gives its colours back, and decoded noise spreads over [-1, 1]."""
    z_dim = config["z_dim"]
    vae = reference.load("vae", config, state)
    mean, std = reference.latent_constants(vae)
    mean, std = mean.flatten(), std.flatten()
    to_rgb, _ = torch.linalg.qr(normal("vae.colours", (z_dim, 3)))
    to_rgb = 0.5 * to_rgb.t()  # [3, z], of normalised latents
    from_rgb = torch.linalg.pinv(to_rgb)

    # encoder head: colours into z through from_rgb, features with what variance is left
    head = state["encoder.head.2.weight"]
    features = normal("vae.features", (z_dim, head.shape[1] - COLOURS))
    head[:z_dim] = 0
    head[:z_dim, :3, -1, 1, 1] = from_rgb
    head[:z_dim, 3:6, -1, 1, 1] = -from_rgb
    head[:z_dim, COLOURS:, -1, 1, 1] = 0.5 * features / math.sqrt(features.shape[1])
    head[:z_dim] *= std.view(-1, 1, 1, 1, 1)
    state["encoder.head.2.bias"][:z_dim] = 0
    video = torch.zeros(1, 3, 5, 96, 96)
    video[0, :, 0] = torch.stack([smooth_field(f"calibration.image.{i}", 96, 96) for i in range(3)])
    mu = reference.load("vae", config, state).encode(torch.zeros_like(video)).latent_dist.mode()
    state["encoder.head.2.bias"][:z_dim] = mean - mu.mean((0, 2, 3, 4)).detach()  # grey is the zero latent

    # decoder: z to colours, with the gain of the whole chain measured on the image
    conv = state["decoder.conv1.weight"]
    rows = COLOUR_GAIN * to_rgb / std
    conv[:3, :, -1, 1, 1], conv[3:6, :, -1, 1, 1] = rows, -rows
    state["decoder.conv1.bias"][:3] = -(rows @ mean)
    state["decoder.conv1.bias"][3:6] = rows @ mean
    head = state["decoder.head.2.weight"]
    head[:, :COLOURS] = 0
    head[:, COLOURS:] *= 0.6
    state["decoder.head.2.bias"][:] = 0
    for c in range(3):
        head[c, c, -1, 1, 1], head[c, c + 3, -1, 1, 1] = 1.0, -1.0
    vae = reference.load("vae", config, state)
    got = reference.vae_decode_unclamped(vae, reference.vae_encode(vae, video))[0, :, 0].flatten(1)
    want = video[0, :, 0].flatten(1)
    centred = lambda x: x - x.mean(1, keepdim=True)
    gain = (centred(got) * centred(want)).sum(1) / centred(want).pow(2).sum(1)
    state["decoder.head.2.weight"] /= gain.view(3, 1, 1, 1, 1)
    state["decoder.head.2.bias"] = (want.mean(1) - got.mean(1) / gain).detach()


def smooth_field(name, h, w):
    coarse = normal(name, (1, 1, 6, 6))
    field = torch.nn.functional.interpolate(coarse, (h, w), mode="bicubic", align_corners=False)[0, 0]
    return field.clamp(-2, 2) / 2


def make_umt5(config):
    d, head = config["dim"], config["dim_attn"] // config["num_heads"]
    out = {}
    for name, shape in shapes("umt5", config).items():
        if "norm" in name:
            out[name] = normal(name, shape, 0.1, 1.0)
        elif name == "token_embedding.weight":
            out[name] = normal(name, shape, 1.0)
        elif "pos_embedding" in name:
            out[name] = normal(name, shape, 1.0)
        elif name.endswith("attn.q.weight"):  # scores are not divided by sqrt(head_dim)
            out[name] = normal(name, shape, 1.5 / math.sqrt(d * head))
        else:
            out[name] = normal(name, shape, 1 / math.sqrt(fan_in(shape)))
    return out


def make_clip(config):
    d = config["dim"]
    out = {}
    for name, shape in shapes("clip", config).items():
        if "norm" in name:
            out[name] = normal(name, shape, 0.1, 1.0 if name.endswith("weight") else 0.0)
        elif name.endswith("bias"):
            out[name] = normal(name, shape, 0.02)
        elif "embedding" in name and "patch" not in name:
            out[name] = normal(name, shape, 0.5)
        elif "to_qkv" in name:
            out[name] = normal(name, shape, 1.5 / math.sqrt(d))
        else:
            out[name] = normal(name, shape, 1 / math.sqrt(fan_in(shape)))
    out["visual.head"] = normal("visual.head", (d, d), 1 / math.sqrt(d))
    out["log_scale"] = torch.tensor(math.log(1 / 0.07))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)

    tokenizer = make_tokenizer(HERE / "corpus.txt")
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    umt5 = UMT5 | {"vocab_size": -(-tokenizer.get_vocab_size() // 64) * 64}
    make_sample().save(out / "sample.png", optimize=True)
    for component, config, make in (("dit", DIT, make_dit), ("vae", VAE, make_vae), ("umt5", umt5, make_umt5), ("clip", CLIP, make_clip)):
        state = make(config)
        reference.load(component, config, state)  # strict
        reference.save_weights(out / f"{component}.safetensors", state, config)
        print(json.dumps({"file": f"{component}.safetensors", "tensors": len(state), "bytes": (out / f"{component}.safetensors").stat().st_size}))


if __name__ == "__main__":
    main()
