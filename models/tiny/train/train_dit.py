#!/usr/bin/env python3
"""Third stage: the transformer learns to move what the sentence names.

    python train_dit.py --run DIR --steps 9000 --sizes 128x128,160x96 [--batch 16] [--frames 7] [--device cuda]

Flow matching: x = (1 - sigma) clip + sigma noise, the model predicts noise - clip. Sigma is drawn as the sampler's
grid is spaced (flow shift). Begins where wires.py lays it. Of each clip only --frames latent frames are taken, the first
among them. The last part runs with the block matrices rounded to e4m3, straight through, so that what is exported is
what was trained. Keeps a moving average of the weights. Resumes from DIR/dit.pt. The clips are those that encode.py has
put into DIR/clips, and may become more.
"""

import argparse
import copy
import random
import time
from pathlib import Path

import torch
import wires
from data import EMPTY_SHARE, Folder, Sentences, with_mask
from forward import Forward, padding_bias, stand_in
from models import CLIP, DIT, UMT5, Log, build, half_precision, resume, save
from muon import Optimiser

SHIFT = 5.0
AVERAGE = 0.998
TEXT_ROWS = 24  # of the longest sentence and one that stands for the padding


class Model(torch.nn.Module):
    """Transformer and vision tower, which are trained here, and the text encoder, which is finished."""

    def __init__(self, vocabulary, run=None):
        super().__init__()
        self.dit = build("dit", DIT, seed=2)
        wires.lay(self.dit)
        self.umt5 = build("umt5", UMT5 | {"vocab_size": vocabulary}, seed=3)
        self.clip = build("clip", CLIP, seed=4)
        for tower in (self.umt5, self.clip):
            tower.requires_grad_(False)
        if run:
            self.umt5.load_state_dict(resume(run / "umt5.pt")["umt5"])
        self.forward_of = Forward(self.dit)

    @torch.no_grad()
    def text(self, ids, mask):
        """(embeddings [B, L, text_dim], zero behind each sentence, and what makes up for the rows left out)"""
        embeds = self.umt5(input_ids=ids, attention_mask=mask).last_hidden_state
        return embeds * mask.unsqueeze(-1), padding_bias(mask, DIT["text_len"])

    def image(self, pixels):
        return self.clip(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]

    def velocity(self, x, condition, sigma, text, image, frames=None, frame_bias=None):
        if frames is None:
            frames = torch.arange(x.shape[2], device=x.device)
        return self.forward_of(torch.cat([x, condition], 1), sigma * 1000, *text, image, frames, frame_bias)


def batch_loss(model, velocity, clips, sentences, rng, count, taken, pure, device):
    chosen = [rng.randrange(len(clips)) for _ in range(count)]
    texts = ["" if rng.random() < EMPTY_SHARE else clips.scenes[i].sentence(rng) for i in chosen]
    total = clips.latents.shape[2]
    frames = torch.tensor([0, *sorted(rng.sample(range(1, total), taken - 1))] if taken < total else range(total), device=device)
    latents, condition = clips.latents[chosen][:, :, frames].float(), with_mask(clips.conditions[chosen].float())[:, :, frames]
    draw = torch.Generator().manual_seed(rng.getrandbits(63))
    sigma = sigmas(count, pure, draw).to(device)
    noise = torch.randn(latents.shape, generator=draw).to(device)
    s = sigma.view(-1, 1, 1, 1, 1)
    weight = activity(clips.latents[chosen].float())
    with half_precision(device):
        text = model.text(*sentences.ids(texts, device, TEXT_ROWS))
        image = model.image(clips.images[chosen].float()) if model.forward_of.image else None
        seen = velocity((1 - s) * latents + s * noise, condition, sigma, text, image, frames, stand_in(frames, total).to(device))
    error = (seen.float() - (noise - latents)).square()
    return (error * weight).mean(), error.detach().mean()


def sigmas(count, pure, draw):
    """Noise levels as the sampler's grid has them; a share of `pure` where x tells next to nothing and the sentence all."""
    u, level = torch.rand(2, count, generator=draw)
    return torch.where(torch.rand(count, generator=draw) < pure, 1 - 0.06 * level, SHIFT * u / (1 + (SHIFT - 1) * u))


def activity(latents):
    """[B, 1, 1, H, W]: more than 1 where a clip is not still, so that what moves counts for more than its share."""
    moving = (latents[:, :, 4:].std(2).mean(1) > 0.15).float()
    return (1 + 3 * moving)[:, None, None]


def sizes(text):
    """`WIDTHxHEIGHT[/UNIT][:SHARE],...` as [((width, height, unit), share)]"""
    parsed = []
    for one in text.split(","):
        one, _, share = one.partition(":")
        size, _, unit = one.partition("/")
        width, height = map(int, size.split("x"))
        parsed.append(((width, height, int(unit or min(width, height))), float(share or 1)))
    return parsed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--frames", type=int, default=7, help="latent frames of a clip that are taken")
    parser.add_argument("--sizes", type=sizes, default="128x128:3,160x96:1", help="WIDTHxHEIGHT[/UNIT][:SHARE],...")
    parser.add_argument("--rate", type=float, default=3e-3, help="of the matrices")
    parser.add_argument("--adam-rate", type=float, default=2e-3, help="of the rest")
    parser.add_argument("--rounding", type=float, default=0.8, help="part of the steps from which matrices are rounded")
    parser.add_argument("--image", type=float, default=0.6, help="part of the steps from which the vision tower is used")
    parser.add_argument("--decay-from", type=float, default=0.6, help="part of the steps from which the rates fall")
    parser.add_argument("--pure", type=float, default=0.0, help="share of clips that are nearly all noise")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long, to be resumed")
    args = parser.parse_args()
    log, began, device = Log(args.run / "dit.jsonl"), time.time(), args.device
    sentences = Sentences()
    folders = [Folder(args.clips or args.run / "clips", *size) for size, _ in args.sizes]

    model = Model(sentences.rows, args.run).to(device)
    average = copy.deepcopy(model.dit)
    optimiser = Optimiser(model.dit, args.rate, args.adam_rate, decay=0.01)
    first = 0
    if state := resume(args.run / "dit.pt"):
        model.dit.load_state_dict(state["dit"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    keep = lambda step: save(args.run / "dit.pt", dit=model.dit.state_dict(), average=average.state_dict(),
                             optimiser=optimiser.state_dict(), step=step)
    torch._dynamo.config.recompile_limit = 64  # sizes, and with or without vision tower and rounding
    velocity = torch.compile(model.velocity, dynamic=False) if args.compile else model.velocity
    mean_loss, mean_error = None, None
    for step in range(first, args.steps):
        model.forward_of.rounding = step >= args.rounding * args.steps
        model.forward_of.image = step >= args.image * args.steps
        if (step - first) % 100 == 0:
            for folder in folders:
                folder.refresh(device)
            log(step=step, clips=[len(folder.clips) for folder in folders])
        rng = random.Random(f"dit {step}")
        clips = rng.choices(folders, [share * bool(len(f.clips)) for f, (_, share) in zip(folders, args.sizes)])[0].clips
        optimiser.set(rate(step, args.steps, args.decay_from))
        optimiser.zero_grad()
        loss, error = batch_loss(model, velocity, clips, sentences, rng, args.batch, args.frames, args.pure, device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.dit.parameters(), 1.0)
        optimiser.step()
        average_in(average, model.dit, step)
        late = time.time() - began > args.minutes * 60
        mean_loss = loss.item() if mean_loss is None else 0.96 * mean_loss + 0.04 * loss.item()
        mean_error = error.item() if mean_error is None else 0.96 * mean_error + 0.04 * error.item()
        if step % 25 == 0 or late:
            log(step=step, mean_loss=mean_loss, mean_error=mean_error, seconds=time.time() - began)
        if (step + 1) % 100 == 0 or late or step + 1 == args.steps:
            keep(step + 1)
        if late:
            return


def rate(step, steps, decay_from):
    """The part of the full rate: a warm-up, level, and down to nearly nothing."""
    return min((step + 1) / 50, 1.0) * min(1.0, max(0.02, (steps - step) / ((1 - decay_from) * steps)))


def average_in(average, dit, step):
    """One step of the moving average; short memory at first."""
    keep = min(AVERAGE, (step + 1) / (step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(dit.parameters()), 1 - keep)


if __name__ == "__main__":
    main()
