"""Fixtures of image preparation: Pillow's Lanczos resize, CLIP's input, the resolution rule."""

import json
import math

import numpy as np
import torch
from PIL import Image

import reference as ref

# (height, width) from, to
RESIZES = [
    ((17, 23), (32, 48)),
    ((64, 48), (24, 40)),
    ((31, 29), (31, 64)),
    ((29, 31), (58, 31)),
    ((90, 7), (16, 16)),
    ((150, 200), (21, 33)),
    ((24, 60), (48, 20)),
    ((60, 24), (20, 48)),
    ((40, 40), (40, 40)),
    ((1, 1), (16, 16)),
    ((3, 2), (1, 1)),
]

# (height, width), CLIP size
CLIP_CASES = [((100, 150), 56), ((150, 100), 56), ((56, 56), 56), ((40, 33), 56), ((57, 90), 28), ((63, 45), 28), ((112, 150), 224)]
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)


def picture(h, w, seed):
    """Half smooth, half noise, with hard edges: u8 [h, w, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w]
    phase = rng.uniform(0, 6, 3)
    smooth = np.stack([127 + 120 * np.sin(x * 0.21 + y * 0.13 * (c + 1) + phase[c]) for c in range(3)], -1)
    noise = rng.integers(0, 256, (h, w, 3))
    out = np.where((x > w // 2)[..., None], noise, smooth)
    out[h // 3 : h // 2, w // 4 : w // 2] = (255, 0, 255)
    return out.clip(0, 255).astype(np.uint8)


def clip_input(image, size):
    """ComfyUI's CLIP vision preprocessing: shorter side to `size` with antialiased bicubic, centre crop,
    rounding to 8 bits, normalisation."""
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0).float() / 255
    if x.shape[2:] != (size, size):
        scale = size / min(x.shape[2:])
        shape = (round(scale * x.shape[2]), round(scale * x.shape[3]))
        x = torch.nn.functional.interpolate(x, size=shape, mode="bicubic", antialias=True)
        top, left = (x.shape[2] - size) // 2, (x.shape[3] - size) // 2
        x = x[:, :, top : top + size, left : left + size]
    levels = torch.clip(255 * x, 0, 255).round()
    return levels, (levels / 255 - MEAN) / STD


def adjust(width, height, target_width, target_height):
    """The area of the target at the image's aspect ratio, both sides floored to 16 pixels, in f64."""
    area, aspect = target_width * target_height, height / width
    lat_h = int(math.sqrt(area * aspect)) // 8 // 2 * 2
    lat_w = int(math.sqrt(area / aspect)) // 8 // 2 * 2
    return lat_w * 8, lat_h * 8


def make_image(root):
    folder = root / "image"
    for i, ((h, w), (oh, ow)) in enumerate(RESIZES):
        image = picture(h, w, i)
        resized = np.asarray(Image.fromarray(image).resize((ow, oh), Image.LANCZOS))
        ref.save_tensors(folder / f"lanczos_{h}x{w}_{oh}x{ow}.io.safetensors", {
            "image": torch.from_numpy(image), "expected.image": torch.from_numpy(resized.copy())})
    for i, ((h, w), size) in enumerate(CLIP_CASES):
        image = picture(h, w, 100 + i)
        levels, normalised = clip_input(image, size)
        io = {"image": torch.from_numpy(image), "options.size": torch.tensor([size]), "expected.levels": levels.to(torch.uint8)}
        if size < 224:
            io["expected.pixel_values"] = normalised
        ref.save_tensors(folder / f"clip_{h}x{w}_{size}.io.safetensors", io)
    sizes = [(512, 512), (1024, 1024), (832, 480), (480, 832), (1920, 1080), (1280, 720), (1080, 1920), (1024, 768), (640, 480),
             (768, 1024), (3000, 2000), (500, 333), (1000, 700), (300, 1200), (4000, 500), (64, 64), (1, 1), (17, 9999)]
    targets = [(512, 512), (832, 480), (480, 832), (1280, 720), (64, 64)]
    rows = [{"image": s, "target": t, "result": adjust(*s, *t)} for s in sizes for t in targets]
    (folder / "resolution.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
