"""Where the VAE's training begins: weights that carry each block's mean colour through all levels.

The rest is smooth noise, drawn tensor by tensor from generators seeded with the tensor's name.
"""

import math
import zlib

import torch
from models import reference

SEED = 20250225

# Feature channels 0..6 of the VAE carry red, green, blue, their negatives and a constant through every
# level, unchanged but for pooling and interpolation. The last norm divides by a length that the constant
# dominates, and silu(x) - silu(-x) = x, so that the heads can read the colours back.
COLOURS = 7
CONSTANT = 6.0
COLOUR_GAIN = 2.0


def normal(name, shape, std=1.0, mean=0.0):
    generator = torch.Generator().manual_seed(SEED ^ zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator) * std + mean


def shapes(config):
    """Tensor names (original naming) and shapes, from the reference module on the meta device."""
    with torch.device("meta"):
        state = reference.hub_state("vae", reference.build("vae", config))
    return {k: tuple(v.shape) for k, v in reference.to_original("vae", state, config).items()}


def smooth_kernel(name, shape):
    """Random mixing of channels with one smooth profile in space and time, plus some free detail."""
    profile = torch.ones(shape[2:])
    for axis, size in enumerate(shape[2:]):
        if size == 3:
            taps = torch.tensor([0.3, 0.6, 1.0]) if axis == 0 and len(shape) == 5 else torch.tensor([0.5, 1.0, 0.5])
            profile = profile * taps.view([-1 if a == axis else 1 for a in range(len(shape) - 2)])
    mixing = normal(name, (*shape[:2], *[1] * (len(shape) - 2))) / math.sqrt(shape[1])
    return mixing * profile / profile.sum() + normal(name + ".detail", shape) * 0.3 / math.sqrt(math.prod(shape[1:]))


def make_vae(config):
    """Weights of a VAE of `config`, original naming."""
    out = {}
    for name, shape in shapes(config).items():
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
