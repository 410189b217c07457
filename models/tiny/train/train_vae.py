#!/usr/bin/env python3
"""First stage: the causal VAE learns to draw the world.

    python train_vae.py --run DIR [--steps 1500] [--decoder-steps 900] [--batch 4] [--size 64] [--device cuda]

Begins with the weights of colour_wires.py, which carry the mean colour of each block. L1 and squared error
between video and reconstruction, and a small KL term. Then each latent channel's mean and deviation are measured and
folded into the two 1x1x1 convolutions, so that the exported VAE has the latent statistics that Wan2.1 states as
constants; from there on the encoder stays as it is, so the next stage can begin, and the decoder alone goes on, at lower
rates and on what moves fast: a latent frame stands for four.
Resumes from DIR/vae.pt.
"""

import argparse
import random
import time
from pathlib import Path

import torch
import world
from colour_wires import make_vae
from models import VAE, Log, build, channels_last, half_precision, reference, resume, save
from muon import Optimiser

# Frames of a training clip, drawn by weight: most of what there is to learn shows in three latent frames.
FRAMES, WEIGHTS = [1, 9, 17], [3, 7, 1]

# The decoder's own stage: what moves fast within a latent frame, and how much more that counts.
FAST, FAST_SHARE, FAST_FRAMES, FAST_WEIGHT = ("bounces", "spins"), 0.5, 17, 3.0

# Added to latents in training, in their own units (deviations near 1): what the transformer leaves over must not show.
NOISE = 0.05


def clips(rng, count, size, device, frames=None, fast=0.0):
    """[count, 3, T, size, size], windows of clips at random times; at least a share of `fast` shows fast motion.

    They show clips of twice the size through a window, so that edges are as sharp as in whole pictures.
    """
    frames = frames or rng.choices(FRAMES, WEIGHTS)[0]
    action = lambda: rng.choice(FAST) if fast and rng.random() < fast else None
    scenes = [world.Scene.sample(rng, 2 * size, 2 * size, action=action()) for _ in range(count)]
    start = rng.randrange(0, world.FRAMES - frames + 1)
    windows = []
    for scene in scenes:
        top, left = around(rng, scene, size)
        windows.append(world.render([scene], range(start, start + frames), device)[..., top : top + size, left : left + size])
    return torch.cat(windows).contiguous(memory_format=torch.channels_last_3d)


def around(rng, scene, size):
    """Top left corner of a window of `size` that shows the actor, or at least some of it."""
    actor = scene.things[0]
    place = lambda middle: min(max(int(middle * 2 * size) - size // 2 + rng.randrange(-size // 2, size // 2 + 1), 0), size)
    return place(actor.y), place(actor.x)


def decode(vae, latents):
    """The decoder's values before diffusers clamps them: outside of [-1, 1] there is a gradient, too."""
    chunks = []
    hook = vae.decoder.conv_out.register_forward_hook(lambda module, args, out: chunks.append(out))
    vae.decode(latents)
    hook.remove()
    return torch.cat(chunks, 2)


def loss_of(vae, video, kl_weight):
    posterior = vae.encode(video).latent_dist
    latents = posterior.sample()
    latents = latents + NOISE * torch.randn_like(latents)
    error = decode(vae, latents).float() - video
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return error.abs().mean() + 2 * error.square().mean() + kl_weight * kl, error


def decoder_loss(vae, video):
    """The same of a VAE whose latents have their final statistics, with nothing to say about the encoder; moving pixels
    count for more than their share."""
    with torch.no_grad():
        latents = vae.encode(video).latent_dist.mode().float()
    std = reference.latent_constants(vae)[1].to(video.device)
    error = decode(vae, latents + NOISE * std * torch.randn_like(latents)).float() - video
    moving = (video.amax(2, keepdim=True) - video.amin(2, keepdim=True)).amax(1, keepdim=True) > 0.2
    weight = 1 + (FAST_WEIGHT - 1) * moving.float()
    return (weight * (error.abs() + 2 * error.square())).mean() / weight.mean(), error


def fold_statistics(vae, mean, std):
    """Makes the VAE's raw latents have Wan2.1's means and deviations instead of `mean` and `std`, each [16]."""
    want_mean, want_std = (t.flatten() for t in reference.latent_constants(vae))
    gain = want_std / std
    z = len(mean)
    with torch.no_grad():
        vae.quant_conv.weight[:z] *= gain.view(-1, 1, 1, 1, 1)
        vae.quant_conv.bias[:z] = (vae.quant_conv.bias[:z] - mean) * gain + want_mean
        weight = vae.post_quant_conv.weight
        vae.post_quant_conv.bias += weight[:, :, 0, 0, 0] @ (mean - want_mean / gain)
        weight /= gain.view(1, -1, 1, 1, 1)


@torch.no_grad()
def statistics(vae, rng, size, device):
    """Mean and deviation of each latent channel over 64 clips."""
    latents = [vae.encode(clips(rng, 4, size, device)).latent_dist.mean for _ in range(16)]
    flat = torch.cat([part.transpose(0, 1).flatten(1) for part in latents], 1)
    return flat.mean(1), flat.std(1)


def load_vae(run, device):
    """The VAE, its encoder in its final state."""
    state = resume(run / "vae.pt")
    if not state or not state["encoder_done"]:
        raise SystemExit(f"{run / 'vae.pt'}: found no VAE with a finished encoder, expected one; run train_vae.py first")
    vae = build("vae", VAE, seed=1)
    vae.load_state_dict(state["vae"])
    return channels_last(vae.to(device)).eval()


@torch.no_grad()
def psnr(vae, device):
    """Of a few unseen whole pictures in motion, in dB."""
    video = world.render([world.Scene.sample(random.Random(f"unseen {i}")) for i in range(4)], range(20, 37), device)
    with half_precision(device):
        seen = vae.decode(vae.encode(video).latent_dist.mode()).sample.float()
    return -10 * torch.log10((seen - video).square().mean() / 4).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--decoder-steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2.5e-3, help="of the convolutions")
    parser.add_argument("--adam-rate", type=float, default=1.5e-3, help="of the rest")
    parser.add_argument("--kl", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long, to be resumed")
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    log, began = Log(args.run / "vae.jsonl"), time.time()
    vae = reference.load("vae", VAE, make_vae(VAE)).to(args.device)
    state = resume(args.run / "vae.pt") or dict(vae=vae.state_dict(), optimiser=None, step=0, encoder_done=False)
    vae.load_state_dict(state["vae"])
    vae = channels_last(vae)

    def stage(name, steps, trained, rates, draw, loss_of):
        """Trains the parameters of the modules `trained` at a share `rates` of the rates; true when done, false when time
        is up."""
        for parameter in vae.parameters():
            parameter.requires_grad_(False)
        for module in trained:
            module.requires_grad_(True)
        optimiser = Optimiser(vae, rates * args.rate, rates * args.adam_rate)
        if state["optimiser"]:
            optimiser.load_state_dict(state["optimiser"])
        for step in range(state["step"], steps):
            rng = random.Random(f"vae {name} {step}")
            optimiser.set(min((step + 1) / 30, 1.0) * min(1.0, max(0.03, (steps - step) / (0.6 * steps))))
            with half_precision(args.device):
                loss, _ = loss_of(draw(rng))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in vae.parameters() if p.requires_grad], 1.0)
            optimiser.step()
            late = time.time() - began > args.minutes * 60
            if step % 50 == 0 or late:
                log(stage=name, step=step, loss=loss.item(), psnr=psnr(vae, args.device), seconds=time.time() - began)
            if (step + 1) % 50 == 0 or late:
                state.update(vae=vae.state_dict(), optimiser=optimiser.state_dict(), step=step + 1)
                save(args.run / "vae.pt", **state)
            if late:
                return False
        return True

    anything = lambda rng: clips(rng, args.batch, args.size, args.device)
    fast = lambda rng: clips(rng, args.batch, args.size, args.device, FAST_FRAMES, FAST_SHARE)
    if not state["encoder_done"]:
        if not stage("both", args.steps, [vae], 1.0, anything, lambda video: loss_of(vae, video, args.kl)):
            return
        mean, std = statistics(vae, random.Random("vae statistics"), args.size, args.device)
        fold_statistics(vae, mean, std)
        state.update(vae=vae.state_dict(), optimiser=None, step=0, encoder_done=True)
        save(args.run / "vae.pt", **state)
        log(stage="both", done=True, psnr=psnr(vae, args.device), mean=mean.abs().max().item(), std=std.mean().item())
    if stage("decoder", args.decoder_steps, [vae.decoder, vae.post_quant_conv], 0.4, fast, lambda video: decoder_loss(vae, video)):
        log(stage="decoder", done=True, psnr=psnr(vae, args.device), seconds=time.time() - began)


if __name__ == "__main__":
    main()
