"""Clips as the transformer sees them: latents, conditions, first frames, and the sentences that fit."""

import random

import torch
import world
from models import TINY, reference
from tokenizers import Tokenizer

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EMPTY_SHARE = 0.1  # of sentences left out, so that there is something to guide away from


class Clips:
    """`count` encoded clips of one size, kept as half precision on `device`."""

    def __init__(self, vae, seed, count, width, height, device, batch=16, frames=world.FRAMES):
        rng = random.Random(f"clips {seed}")
        self.scenes = [world.Scene.sample(rng, width, height) for _ in range(count)]
        self.latents, self.conditions, self.images = [], [], []
        for start in range(0, count, batch):
            video = world.render(self.scenes[start : start + batch], range(frames), device)
            given = video.clone()
            given[:, :, 1:] = 0
            self.latents.append(encode(vae, video).half())
            self.conditions.append(encode(vae, given).half())
            self.images.append(clip_pixels(video[:, :, 0]).half())
        self.latents, self.conditions, self.images = map(torch.cat, (self.latents, self.conditions, self.images))

    def __len__(self):
        return len(self.scenes)


@torch.no_grad()
def encode(vae, video):
    """Normalised latents of a video on any device."""
    mean, std = (t.to(video.device) for t in reference.latent_constants(vae))
    return (vae.encode(video).latent_dist.mode() - mean) / std


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
    """Token ids of sentences, padded to the longest of a batch."""

    def __init__(self):
        self.tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
        self.rows = -(-self.tokenizer.get_vocab_size() // 64) * 64

    def ids(self, texts, device):
        rows = [self.tokenizer.encode(text).ids for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        return ids, (ids != 0).long()
