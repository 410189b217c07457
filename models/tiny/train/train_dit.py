#!/usr/bin/env python3
"""Second stage: transformer, text encoder and vision tower learn together to move what the sentence names.

    python train_dit.py --run DIR [--steps 9000] [--batch 48] [--clips 6000] [--side 128] [--device cuda]

Flow matching: x = (1 - sigma) clip + sigma noise, the model predicts noise - clip. Sigma is drawn as the sampler's
grid is spaced (flow shift). The last quarter runs with the block matrices rounded to e4m3, straight through, so that
what is exported is what was trained. Keeps a moving average of the weights. Resumes from DIR/dit.pt; encoded clips
are kept in DIR/clips, which belong to DIR/vae.pt and go when it goes.
"""

import argparse
import copy
import random
import time
from pathlib import Path

import torch
import torch.nn.utils.parametrize as parametrize
from data import EMPTY_SHARE, Clips, Sentences, with_mask
from models import CLIP, DIT, UMT5, VAE, Log, build, channels_last, half_precision, resume, save
from text_attention import padding_bias, shorten

SHIFT = 3.0
AVERAGE = 0.999
SIZES = [((128, 128), 0.75), ((160, 96), 0.25)]  # of --side 128


class RoundE4m3(torch.nn.Module):
    """Rounds a weight to e4m3; the gradient passes unchanged."""

    def forward(self, weight):
        return weight + (weight.to(torch.float8_e4m3fn).to(weight.dtype) - weight).detach()


def fp8_layers(dit):
    """The linears that Kijai's file of the 14B model holds in FP8: those of the blocks and of the text embedding."""
    for name, module in dit.named_modules():
        if isinstance(module, torch.nn.Linear) and (name.startswith("blocks.") or "text_embedder" in name):
            yield module


class Model(torch.nn.Module):
    """What is trained together."""

    def __init__(self, vocabulary):
        super().__init__()
        self.dit = build("dit", DIT, seed=2)
        self.text_attention = shorten(self.dit)
        self.umt5 = build("umt5", UMT5 | {"vocab_size": vocabulary}, seed=3)
        self.clip = build("clip", CLIP, seed=4)

    def text(self, ids, mask):
        """(embeddings [B, L, text_dim], zero behind each sentence, and what makes up for the rows left out)"""
        embeds = self.umt5(input_ids=ids, attention_mask=mask).last_hidden_state
        return embeds * mask.unsqueeze(-1), padding_bias(mask, DIT["text_len"])

    def image(self, pixels):
        return self.clip(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]

    def velocity(self, x, condition, sigma, text, image):
        embeds, self.text_attention.bias = text
        return self.dit(torch.cat([x, condition], 1), sigma * 1000, embeds, image, return_dict=False)[0]


def batch_loss(model, clips, sentences, rng, count, device):
    chosen = [rng.randrange(len(clips)) for _ in range(count)]
    texts = ["" if rng.random() < EMPTY_SHARE else clips.scenes[i].sentence(rng) for i in chosen]
    latents, condition = clips.latents[chosen].float(), with_mask(clips.conditions[chosen].float())
    draw = torch.Generator().manual_seed(rng.getrandbits(63))
    u = torch.rand(count, generator=draw).to(device)
    sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
    noise = torch.randn(latents.shape, generator=draw).to(device)
    s = sigma.view(-1, 1, 1, 1, 1)
    with half_precision(device):
        text, image = model.text(*sentences.ids(texts, device)), model.image(clips.images[chosen].float())
        velocity = model.velocity((1 - s) * latents + s * noise, condition, sigma, text, image)
    return (velocity.float() - (noise - latents)).square().mean()


def load_vae(run, device):
    state = resume(run / "vae.pt")
    if not state or not state["done"]:
        raise SystemExit(f"{run / 'vae.pt'}: found no finished VAE, expected one; run train_vae.py first")
    vae = build("vae", VAE, seed=1)
    vae.load_state_dict(state["vae"])
    return channels_last(vae.to(device)).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--side", type=int, default=128, help="of the pictures; 64 costs a third and can come first")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long, to be resumed")
    args = parser.parse_args()
    log, began, device = Log(args.run / "dit.jsonl"), time.time(), args.device
    vae, sentences = load_vae(args.run, device), Sentences()
    sizes = [([16 * round(args.side / 128 * length / 16) for length in size], share) for size, share in SIZES]
    sets = [Clips(vae, f"train {size}", max(1, int(args.clips * share)), *size, device, cache=args.run / "clips")
            for size, share in sizes]
    log(clips=sum(map(len, sets)), seconds=time.time() - began)

    model = Model(sentences.rows).to(device)
    average = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm = max(1, min(300, args.steps // 10))
    rate = lambda step: min((step + 1) / warm, 1.0) * max(0.02, 1 - max(0, step - args.steps * 0.5) / (args.steps * 0.5))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    first = 0
    if state := resume(args.run / "dit.pt"):
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    rounding = int(args.steps * 0.75)
    keep = lambda step: save(args.run / "dit.pt", model=plain_state(model), average=average.state_dict(),
                             optimiser=optimiser.state_dict(), schedule=schedule.state_dict(), step=step)
    mean_loss = None
    for step in range(first, args.steps):
        if step >= rounding and not parametrize.is_parametrized(next(fp8_layers(model.dit))):
            for layer in fp8_layers(model.dit):
                parametrize.register_parametrization(layer, "weight", RoundE4m3())
        rng = random.Random(f"dit {step}")
        clips = rng.choices(sets, [share for _, share in sizes])[0]
        loss = batch_loss(model, clips, sentences, rng, args.batch, device)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average_in(average, model, step)
        late = time.time() - began > args.minutes * 60
        if step % 50 == 0 or late:
            mean_loss = loss.item() if mean_loss is None else 0.8 * mean_loss + 0.2 * loss.item()
            log(step=step, loss=loss.item(), mean_loss=mean_loss, seconds=time.time() - began)
        if (step + 1) % 200 == 0 or late or step + 1 == args.steps:
            keep(step + 1)
        if late:
            return


def plain_state(model):
    """The model's tensors under their own names, whether or not their layers round."""
    rename = lambda name: name.replace("parametrizations.weight.original", "weight")
    return {rename(name): tensor for name, tensor in model.state_dict().items()}


def average_in(average, model, step):
    """One step of the moving average, which has no rounding layers; short memory at first."""
    own, keep = plain_state(model), min(AVERAGE, (step + 1) / (step + 10))
    with torch.no_grad():
        for name, tensor in average.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(own[name], 1 - keep)


if __name__ == "__main__":
    main()
