#!/usr/bin/env python3
"""First stage: the causal VAE learns to draw the world.

    python train_vae.py --run DIR [--steps 4000] [--batch 4] [--size 64] [--device cuda]

L1 and squared error between video and reconstruction, and a small KL term. Ends by measuring each latent channel's
mean and deviation and folding them into the two 1x1x1 convolutions, so that the exported VAE has the latent
statistics that Wan2.1 states as constants. Resumes from DIR/vae.pt.
"""

import argparse
import random
import time
from pathlib import Path

import torch
import world
from models import VAE, Log, build, channels_last, half_precision, reference, resume, save

# Frames of a training clip, drawn by weight: most of what there is to learn shows in three latent frames.
FRAMES, WEIGHTS = [1, 9, 17], [1, 8, 2]

# Added to latents in training, in their own units (deviations near 1): what the transformer leaves over must not show.
NOISE = 0.05


def clips(rng, count, size, device):
    """[count, 3, T, size, size], windows of clips at random times.

    They show clips of twice the size through a window, so that edges are as sharp as in whole pictures.
    """
    frames = rng.choices(FRAMES, WEIGHTS)[0]
    scenes = [world.Scene.sample(rng, 2 * size, 2 * size) for _ in range(count)]
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--kl", type=float, default=1e-4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long, to be resumed")
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    log, began = Log(args.run / "vae.jsonl"), time.time()
    vae = channels_last(build("vae", VAE, seed=1).to(args.device))
    optimiser = torch.optim.AdamW(vae.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.0)
    warm = max(1, min(200, args.steps // 10))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [
        torch.optim.lr_scheduler.LinearLR(optimiser, 0.01, 1, warm),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, args.steps - warm, args.rate / 50),
    ], [warm])
    first = 0
    if state := resume(args.run / "vae.pt"):
        vae.load_state_dict(state["vae"])
        if state["done"]:
            return
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    keep = lambda step, done=False: save(args.run / "vae.pt", vae=vae.state_dict(), optimiser=optimiser.state_dict(),
                                         schedule=schedule.state_dict(), step=step, done=done)
    for step in range(first, args.steps):
        rng = random.Random(f"vae {step}")
        vae.train()
        with half_precision(args.device):
            loss, error = loss_of(vae, clips(rng, args.batch, args.size, args.device), args.kl)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        late = time.time() - began > args.minutes * 60
        if step % 50 == 0 or late:
            psnr = -10 * torch.log10(error.detach().square().mean() / 4).item()
            log(step=step, loss=loss.item(), psnr=psnr, seconds=time.time() - began)
        if (step + 1) % 50 == 0 or late:
            keep(step + 1)
        if late:
            return
    vae.eval()
    mean, std = statistics(vae, random.Random("vae statistics"), args.size, args.device)
    fold_statistics(vae, mean, std)
    keep(args.steps, done=True)
    log(done=True, mean=mean.abs().max().item(), std=std.mean().item(), seconds=time.time() - began)


if __name__ == "__main__":
    main()
