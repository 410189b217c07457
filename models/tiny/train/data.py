"""Clips as the transformer sees them: latents, conditions, first frames, and the sentences that fit."""

import random

import torch
import world
from models import TINY, half_precision, reference, resume, save
from tokenizers import Tokenizer

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EMPTY_SHARE = 0.1  # of sentences left out, so that there is something to guide away from


class Clips:
    """`count` encoded clips of one size, kept as half precision on `device`, and in the folder `cache` if there is one."""

    def __init__(self, vae, seed, count, width, height, device, batch=16, frames=world.FRAMES, cache=None):
        rng = random.Random(f"clips {seed}")
        self.scenes = [world.Scene.sample(rng, width, height) for _ in range(count)]
        parts = []
        for start in range(0, count, batch):
            scenes = self.scenes[start : start + batch]
            file = cache and cache / f"{width}x{height}x{frames} {start}+{len(scenes)}.pt"
            part = resume(file) if file else None
            if not part:
                part = encode_clips(vae, world.render(scenes, range(frames), device))
                if file:
                    cache.mkdir(exist_ok=True)
                    save(file, **part)
            parts.append(part)
        self.latents, self.conditions, self.images = (
            torch.cat([part[what] for part in parts]).to(device) for what in ("latents", "conditions", "images"))

    def __len__(self):
        return len(self.scenes)


def encode_clips(vae, video):
    """What is kept of clips [B, 3, T, H, W]."""
    given = video.clone()
    given[:, :, 1:] = 0
    return dict(latents=encode(vae, video).half(), conditions=encode(vae, given).half(), images=clip_pixels(video[:, :, 0]).half())


@torch.no_grad()
def encode(vae, video):
    """Normalised latents of a video on any device."""
    mean, std = (t.to(video.device) for t in reference.latent_constants(vae))
    with half_precision(video.device):
        return (vae.encode(video).latent_dist.mode().float() - mean) / std


def clip_pixels(image):
    """[B, 3, 224, 224] for the vision tower, from [B, 3, H, W] in [-1, 1]"""
    mean, std = (torch.tensor(v, device=image.device).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    resized = torch.nn.functional.interpolate(image, (224, 224), mode="bicubic", antialias=True, align_corners=False)
    return ((resized.clamp(-1, 1) + 1) / 2 - mean) / std


def with_mask(latents):
    """The 20 condition channels: 4 that mark the given frame, and the latents."""
    mask = torch.zeros_like(latents[:, :4])
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], 1)


class Sentences:
    """Token ids of sentences, padded to one more than the longest of a batch."""

    def __init__(self):
        self.tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
        self.rows = -(-self.tokenizer.get_vocab_size() // 64) * 64

    def ids(self, texts, device):
        rows = [self.tokenizer.encode(text).ids for text in texts]
        width = max(map(len, rows)) + 1
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        return ids, (ids != 0).long()
