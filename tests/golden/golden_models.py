"""Fixtures of the four networks: random weights in both namings, inputs, expected outputs."""

import math
import zlib

import torch

import reference as ref

DIT_BASE = dict(model_type="i2v", freq_dim=256, in_dim=36, out_dim=16, text_len=512, eps=1e-6)
DIT = {
    # name: (configuration, latent grid, text tokens, image tokens, timestep)
    "i2v": (DIT_BASE | dict(dim=64, ffn_dim=160, num_heads=2, num_layers=2, text_dim=48, image_dim=40), (3, 4, 6), 20, 10, 735.0),
    "i2v_3x28": (DIT_BASE | dict(dim=84, ffn_dim=120, num_heads=3, num_layers=1, text_dim=36, image_dim=28), (3, 6, 10), 77, 17, 998.0),
    "i2v_1x128": (DIT_BASE | dict(dim=128, ffn_dim=96, freq_dim=64, num_heads=1, num_layers=1, text_dim=32, image_dim=24), (2, 8, 4), 512, 5, 41.0),
    # between two images of 7 tokens each; stored in diffusers' naming
    "flf2v": (DIT_BASE | dict(dim=64, ffn_dim=48, freq_dim=32, num_heads=1, num_layers=1, text_dim=16, image_dim=12, image_positions=14), (2, 4, 4), 9, 14, 600.0),
    "t2v": (DIT_BASE | dict(model_type="t2v", dim=96, ffn_dim=128, freq_dim=64, in_dim=16, num_heads=2, num_layers=1, text_dim=40), (5, 4, 6), 33, 0, 499.0),
}
RIFLEX_INDEX = 4

VAE = dict(base_dim=4, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[], temporal_downsample=[False, True, True])
VAE_OTHER = dict(base_dim=3, z_dim=5, dim_mult=[1, 2, 4], num_res_blocks=1, attn_scales=[], temporal_downsample=[True, False])
UMT5 = dict(vocab_size=96, dim=48, dim_attn=60, dim_ffn=80, num_heads=3, num_layers=2, num_buckets=32)
CLIP = dict(image_size=56, patch_size=14, dim=48, mlp_ratio=4, num_heads=3, num_layers=4)


def normal(seed, name, shape, std=1.0, mean=0.0):
    g = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    return torch.randn(shape, generator=g) * std + mean


def random_state(component, config, seed):
    """Random weights under original names. Default initialisation would leave attention uniform, gates
    near zero and norms at one, and would so hide errors; these scales do not."""
    with torch.device("meta"):
        state = ref.to_original(component, ref.hub_state(component, ref.build(component, config)), config)
    out = {}
    for name, tensor in state.items():
        shape, leaf = tuple(tensor.shape), name.rsplit(".", 1)[-1]
        fan_in = math.prod(shape[1:]) or 1
        std, mean = 1 / math.sqrt(fan_in), 0.0
        if leaf == "gamma" or ("norm" in name and leaf == "weight"):
            std, mean = 0.25, 1.0
            if name.endswith(("norm_q.weight", "norm_k.weight", "norm_k_img.weight")):
                mean = 1.8 if "self_attn" in name else 1.5
        elif name.startswith("img_emb.proj.") and len(shape) == 1 and leaf == "weight":
            std, mean = 0.25, 1.0
        elif leaf == "emb_pos":
            std = 0.5
        elif leaf == "bias":
            std = 0.1
        elif leaf == "modulation":
            std = 0.3
        elif name.startswith("time_projection"):
            std = 0.3 / math.sqrt(fan_in)
        elif component == "umt5" and ("pos_embedding" in name or "token_embedding" in name):
            std = 1.0
        elif component == "umt5" and name.endswith("attn.q.weight"):
            std = 1.5 / math.sqrt(fan_in * config["dim_attn"] / config["num_heads"])
        elif component == "clip" and ("cls_embedding" in name or "pos_embedding" in name):
            std = 0.5
        elif component == "vae" and name == "decoder.head.2.weight":
            std *= 0.5  # most values inside [-1, 1], some clamped
        out[name] = normal(seed, name, shape, std, mean)
    if component == "clip":
        out["visual.head"] = normal(seed, "visual.head", (config["dim"], config["dim"]), 0.1)
        out["log_scale"] = torch.tensor(2.6593)
    return out


def save_both(folder, case, component, config, state):
    """The same weights in original and in hub naming, the latter with the extra tensors that the
    published files carry and nothing uses."""
    ref.save_weights(folder / f"{case}.weights.safetensors", state, config)
    hub = ref.to_hub(component, state, config)
    if component == "dit" and config["model_type"] == "i2v":
        for n in range(config["num_layers"]):
            hub[f"blocks.{n}.attn2.norm_added_q.weight"] = torch.ones(config["dim"])
    if component == "clip":
        tokens = (config["image_size"] // config["patch_size"]) ** 2 + 1
        hub["vision_model.embeddings.position_ids"] = torch.arange(tokens).unsqueeze(0)
    other = "transformers" if component in ("umt5", "clip") else "diffusers"
    ref.save_weights(folder / f"{case}_{other}.weights.safetensors", hub, config)
    return f"{case}_{other}"


def make_dit(root):
    folder = root / "dit"
    for case, (config, (f, h, w), text, image, t) in DIT.items():
        state = random_state("dit", config, case)
        if case == "i2v_1x128":  # stored in half the bytes; the reference widens them
            state = {k: v.to(torch.bfloat16) for k, v in state.items()}
        model = ref.load("dit", config, state)
        x = {
            "latents": normal(case, "latents", (1, 16, f, h, w)),
            "timestep": torch.tensor([t]),
            "text_embeds": normal(case, "text_embeds", (1, text, config["text_dim"])),
        }
        if config["model_type"] == "i2v":
            mask = torch.zeros(1, 4, f, h, w)
            mask[:, :, 0] = 1
            x["condition"] = torch.cat([mask, normal(case, "condition", (1, 16, f, h, w))], 1)
            x["image_embeds"] = normal(case, "image_embeds", (1, image, config["image_dim"]))
        both = {}
        if "image_positions" in config:  # diffusers takes two images as a batch
            both["image_embeds"] = x["image_embeds"].reshape(2, image // 2, -1)
        io = x | {"expected.velocity": ref.run_dit(model, **(x | both))}
        ref.save_tensors(folder / f"{case}.io.safetensors", io)
        if case == "i2v":
            other = save_both(folder, case, "dit", config, state)
            ref.save_tensors(folder / f"{other}.io.safetensors", io)
        else:
            named = ref.to_hub("dit", state, config) if case == "flf2v" else state
            ref.save_weights(folder / f"{case}.weights.safetensors", named, config)
        if case == "t2v":  # the same weights with one temporal frequency replaced
            set_riflex(model, RIFLEX_INDEX, f)
            changed = ref.run_dit(model, **x)
            assert (changed - io["expected.velocity"]).norm() > 1e-3 * changed.norm()
            io = x | {"options.riflex_freq_index": torch.tensor([RIFLEX_INDEX]), "expected.velocity": changed}
            ref.save_tensors(folder / "t2v_riflex.io.safetensors", io)


def set_riflex(model, index, frames):
    """RIFLEx (arXiv 2502.15894): the index-th temporal frequency, counted from 1, becomes 0.9 * 2 pi / frames."""
    angle = torch.arange(model.rope.freqs_cos.shape[0], dtype=torch.float64) * (0.9 * 2 * math.pi / frames)
    for column in (2 * (index - 1), 2 * (index - 1) + 1):
        model.rope.freqs_cos[:, column] = angle.cos().to(model.rope.freqs_cos.dtype)
        model.rope.freqs_sin[:, column] = angle.sin().to(model.rope.freqs_sin.dtype)


def video(seed, frames, h, w):
    """Smooth moving colour fields with some noise, in [-1, 1]."""
    coarse = normal(seed, "video", (1, 3, max(2, frames // 2), 4, 5))
    smooth = torch.nn.functional.interpolate(coarse, (frames, h, w), mode="trilinear", align_corners=False)
    return (0.6 * smooth + 0.1 * normal(seed, "grain", (1, 3, frames, h, w))).clamp(-1, 1)


def make_vae(root):
    folder = root / "vae"
    state = random_state("vae", VAE, "vae")
    save_both(folder, "vae", "vae", VAE, state)
    vae = ref.load("vae", VAE, state)
    for frames, h, w in ((1, 48, 32), (5, 32, 56), (9, 40, 24)):
        pixels = video(f"encode{frames}", frames, h, w)
        ref.save_tensors(folder / f"encode_t{frames}.io.safetensors", {"video": pixels, "expected.latents": ref.vae_encode(vae, pixels)})
        latents = normal(f"decode{frames}", "latents", (1, 16, (frames - 1) // 4 + 1, h // 8, w // 8))
        ref.save_tensors(folder / f"decode_t{frames}.io.safetensors", {"latents": latents, "expected.video": ref.vae_decode(vae, latents)})

    # Three levels, one residual block each, 2 frames and 4x4 pixels per latent: numbers of blocks are no constants.
    state = random_state("vae", VAE_OTHER, "vae_other")
    save_both(folder, "vae_other", "vae", VAE_OTHER, state)
    other = ref.load("vae", VAE_OTHER, state)
    pixels = video("other", 5, 28, 20)
    ref.save_tensors(folder / "encode_other.io.safetensors", {"video": pixels, "expected.latents": ref.vae_encode(other, pixels)})
    latents = normal("other", "latents", (1, 5, 3, 5, 7))
    ref.save_tensors(folder / "decode_other.io.safetensors", {"latents": latents, "expected.video": ref.vae_decode(other, latents)})

    tiles = dict(tile_height=32, tile_width=48, tile_stride_height=16, tile_stride_width=24)
    options = {f"options.{k}": torch.tensor([v]) for k, v in tiles.items()}
    pixels = video("tiled", 5, 56, 88)
    expected = tiled_encode(vae, pixels, **tiles)
    ref.save_tensors(folder / "encode_tiled.io.safetensors", {"video": pixels, **options, "expected.latents": expected})
    latents = normal("tiled", "latents", (1, 16, 2, 7, 11))
    expected = tiled_decode(vae, latents, **tiles)
    ref.save_tensors(folder / "decode_tiled.io.safetensors", {"latents": latents, **options, "expected.video": expected})


def starts(length, tile, stride):
    """Tile starts along one axis: a start is left out where the tile before it already reaches the end."""
    return [s for s in range(0, length, stride) if s == 0 or s - stride + tile < length]


def ramp(length, at_start, at_end, border):
    """1 inside; k/border, k = 1..border, over the first and last `border` samples where a neighbour overlaps."""
    weight = torch.ones(length)
    rising = torch.arange(1, border + 1) / border
    if not at_start:
        weight[:border] = rising
    if not at_end:
        weight[length - border :] = rising.flip(0)
    return weight


def blend(x, run, tile, stride, scale, border, channels):
    """Sum of weight * tile over sum of weight. `tile`, `stride` are (height, width) in units of x's own
    grid, `scale` maps that grid to the output's, `border` is in output samples."""
    h, w = x.shape[-2:]
    oh, ow = int(h * scale), int(w * scale)
    total = weights = None
    for y in starts(h, tile[0], stride[0]):
        for z in starts(w, tile[1], stride[1]):
            y1, z1 = min(y + tile[0], h), min(z + tile[1], w)
            out = run(x[..., y:y1, z:z1])
            vertical = ramp(out.shape[-2], y == 0, y1 >= h, border[0])
            horizontal = ramp(out.shape[-1], z == 0, z1 >= w, border[1])
            mask = torch.minimum(vertical[:, None], horizontal[None, :])
            if total is None:
                total = torch.zeros(1, channels, out.shape[2], oh, ow)
                weights = torch.zeros(oh, ow)
            rows = slice(int(y * scale), int(y * scale) + out.shape[-2])
            columns = slice(int(z * scale), int(z * scale) + out.shape[-1])
            total[..., rows, columns] += mask * out
            weights[rows, columns] += mask
    return total / weights


def tiled_decode(vae, latents, tile_height, tile_width, tile_stride_height, tile_stride_width):
    tile, stride = (tile_height // 8, tile_width // 8), (tile_stride_height // 8, tile_stride_width // 8)
    border = ((tile[0] - stride[0]) * 8, (tile[1] - stride[1]) * 8)
    run = lambda part: ref.vae_decode_unclamped(vae, part)
    return blend(latents, run, tile, stride, 8, border, 3).clamp(-1, 1)


def tiled_encode(vae, pixels, tile_height, tile_width, tile_stride_height, tile_stride_width):
    tile, stride = (tile_height, tile_width), (tile_stride_height, tile_stride_width)
    border = ((tile[0] - stride[0]) // 8, (tile[1] - stride[1]) // 8)
    return blend(pixels, lambda part: ref.vae_encode(vae, part), tile, stride, 1 / 8, border, 16)


def make_umt5(root):
    folder = root / "umt5"
    state = random_state("umt5", UMT5, "umt5")
    model = ref.load("umt5", UMT5, state)
    other = save_both(folder, "umt5", "umt5", UMT5, state)
    g = torch.Generator().manual_seed(5)
    for case, length, real in (("umt5", 24, 17), (other, 24, 17), ("long", 300, 300), ("one", 8, 1)):
        ids = torch.randint(4, UMT5["vocab_size"], (1, length), generator=g)
        mask = (torch.arange(length) < real).long().unsqueeze(0)
        ids[0, real - 1] = 1
        ids = ids * mask
        ref.save_tensors(folder / f"{case}.io.safetensors", {
            "input_ids": ids, "attention_mask": mask, "expected.text_embeds": ref.run_umt5(model, ids, mask)})


def make_clip(root):
    folder = root / "clip"
    state = random_state("clip", CLIP, "clip")
    model = ref.load("clip", CLIP, state)
    other = save_both(folder, "clip", "clip", CLIP, state)
    pixels = normal("clip", "pixel_values", (1, 3, CLIP["image_size"], CLIP["image_size"]))
    io = {"pixel_values": pixels, "expected.image_embeds": ref.run_clip(model, pixels)}
    for case in ("clip", other):
        ref.save_tensors(folder / f"{case}.io.safetensors", io)
