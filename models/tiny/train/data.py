"""Clips as the transformer sees them: latents, conditions, first frames, and the sentences that fit."""

import random

import torch
from models import TINY, half_precision, reference, resume
from tokenizers import Tokenizer
from world import Scene

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EMPTY_SHARE = 0.1  # of sentences left out, so that there is something to guide away from


PART = 16  # clips of a file

# Latent frames after which the zeros behind a given frame are encoded alike, but for 0.03.
SETTLED = 7


class Clips:
    """Encoded clips of one size as half precision, with the scenes they show."""

    def __init__(self):
        self.scenes, self.latents, self.conditions, self.images = [], None, None, None

    def __len__(self):
        return len(self.scenes)

    def add(self, scenes, part):
        self.scenes += scenes
        for what in ("latents", "conditions", "images"):
            old = getattr(self, what)
            setattr(self, what, part[what] if old is None else torch.cat([old, part[what]]))


class Folder:
    """The clips of one size in a folder, which another process may be filling."""

    def __init__(self, folder, width, height, unit):
        self.folder, self.size, self.clips, self.seen = folder, (width, height, unit), Clips(), set()

    def file(self, index):
        return self.folder / f"{'x'.join(map(str, self.size))} {index:04}.pt"

    def refresh(self, device):
        """Takes up files that are new."""
        for index in range(10_000):
            if index in self.seen:
                continue
            part = resume(self.file(index))
            if not part:
                break
            self.seen.add(index)
            self.clips.add(part_scenes(*self.size, index), {what: tensor.to(device) for what, tensor in part.items()})


def part_scenes(width, height, unit, index):
    rng = random.Random(f"clips {width}x{height} {unit} {index}")
    return [Scene.sample(rng, width, height, unit=unit) for _ in range(PART)]


def encode_clips(vae, video):
    """What is kept of clips [B, 3, T, H, W]."""
    given = video[:, :, : 4 * SETTLED - 3].clone()
    given[:, :, 1:] = 0
    latents, conditions = encode(vae, video), encode(vae, given)
    rest = latents.shape[2] - conditions.shape[2]
    conditions = torch.cat([conditions, conditions[:, :, -1:].expand(-1, -1, max(rest, 0), -1, -1)], 2)
    return dict(latents=latents.half(), conditions=conditions.half(), images=clip_pixels(video[:, :, 0]).half())


@torch.no_grad()
def encode(vae, video):
    """Normalised latents of a video on any device."""
    mean, std = (t.to(video.device) for t in reference.latent_constants(vae))
    with half_precision(video.device):
        return (vae.encode(video.to(vae.dtype)).latent_dist.mode().float() - mean) / std


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

    def ids(self, texts, device, width=None):
        rows = [self.tokenizer.encode(text).ids for text in texts]
        width = width or max(map(len, rows)) + 1
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        return ids, (ids != 0).long()
