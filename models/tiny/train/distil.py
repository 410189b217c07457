#!/usr/bin/env python3
"""A LoRA with which four steps without guidance do what many steps with guidance do.

    python distil.py --run DIR --sizes 96x96/128,128x128 [--steps 1500] [--compile] [--out FILE.safetensors]

Each of the four steps goes from one noise level of the sampler's grid to the next. What it has to arrive at is where the
model itself arrives in --substeps Euler steps with guidance: from clips with noise added, and from where the LoRA's own
steps lead. Begins at no change at all. Resumes from DIR/distil.pt. Written are the factors of the block matrices in F16,
under the names that distilled LoRAs of the 14B model have.
"""

import argparse
import copy
import random
import time
from pathlib import Path

import torch
from data import Folder, Sentences, with_mask
from forward import Forward, rounded, stand_in
from models import DIT, Log, half_precision, reference, resume, save
from sample import sigmas
from safetensors.torch import save_file
from torch.nn.functional import linear
from train_dit import TEXT_ROWS, Model, activity, rate, sizes

STEPS = 4
AVERAGE = 0.99


class WithLora(Forward):
    """The forward pass with a branch beside each matrix of a block; `parts` has (down, up) by diffusers' name."""

    def __init__(self, dit, rank):
        super().__init__(dit, rounding=True)
        self.parts, self.of = torch.nn.ParameterDict(), {}
        draw = torch.Generator().manual_seed(5)
        for name, layer in dit.named_modules():
            if name.startswith("blocks.") and isinstance(layer, torch.nn.Linear):
                rows, columns = layer.weight.shape
                down = torch.randn(rank, columns, generator=draw) * columns**-0.5
                self.of[layer] = key = name.replace(".", "/")
                self.parts[f"{key}/down"] = torch.nn.Parameter(down)
                self.parts[f"{key}/up"] = torch.nn.Parameter(torch.zeros(rows, rank))

    def linear(self, layer, x):
        y = linear(x, rounded(layer.weight), layer.bias)
        if key := self.of.get(layer):
            y = y + linear(linear(x, self.parts[f"{key}/down"]), self.parts[f"{key}/up"])
        return y


class Batch:
    """What the model is given of some clips, and a noise level for each."""

    def __init__(self, model, clips, sentences, rng, count, taken, device):
        chosen = [rng.randrange(len(clips)) for _ in range(count)]
        total = clips.latents.shape[2]
        self.frames = torch.tensor([0, *sorted(rng.sample(range(1, total), taken - 1))], device=device)
        self.bias = stand_in(self.frames, total).to(device)
        clip = clips.latents[chosen].float()
        self.latents, self.weight = clip[:, :, self.frames], activity(clip)
        self.condition = with_mask(clips.conditions[chosen].float())[:, :, self.frames]
        self.noise = torch.randn(self.latents.shape, generator=torch.Generator().manual_seed(rng.getrandbits(63))).to(device)
        with torch.no_grad():
            texts = [clips.scenes[i].sentence(rng) for i in chosen]
            self.text = model.text(*sentences.ids(texts, device, TEXT_ROWS))
            self.none = model.text(*sentences.ids([""] * count, device, TEXT_ROWS))
            self.image = model.image(clips.images[chosen].float())


def velocity(forward, batch, x, sigma, text):
    inputs = torch.cat([x, batch.condition], 1)
    return forward(inputs, sigma.expand(len(x)) * 1000, *text, batch.image, batch.frames, batch.bias).float()


@torch.no_grad()
def start(student, batch, step, grid, own):
    """Where step `step` begins: a clip with noise, or what the steps before it make of noise."""
    if not own:
        return (1 - grid[step]) * batch.latents + grid[step] * batch.noise
    x = batch.noise
    for now, then in zip(grid[:step], grid[1:]):
        x = x + (then - now) * student(batch, x, now, batch.text)
    return x


@torch.no_grad()
def arrive(teacher, batch, x, step, substeps, cfg):
    fine = sigmas(STEPS * substeps)[step * substeps : (step + 1) * substeps + 1].to(x.device)
    for now, then in zip(fine, fine[1:]):
        rest = teacher(batch, x, now, batch.none)
        x = x + (then - now) * (rest + cfg * (teacher(batch, x, now, batch.text) - rest))
    return x


def write(path, parts):
    """`parts` by diffusers' names of the matrices, to a file with the original ones."""
    tensors = {}
    for key, tensor in parts.items():
        module, which = key.replace("/", ".").rsplit(".", 1)
        name = reference._rename("dit", f"{module}.weight", DIT).removesuffix(".weight")
        tensors[f"diffusion_model.{name}.lora_{which}.weight"] = tensor.detach().half().contiguous()
    save_file(tensors, path)
    print(path, Path(path).stat().st_size)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=7, help="latent frames of a clip that are taken")
    parser.add_argument("--sizes", type=sizes, default="128x128", help="WIDTHxHEIGHT[/UNIT][:SHARE],...")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--cfg", type=float, default=6.0)
    parser.add_argument("--substeps", type=int, default=4)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long, to be resumed")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    log, began, device = Log(args.run / "distil.jsonl"), time.time(), args.device
    sentences = Sentences()
    folders = [Folder(args.clips or args.run / "clips", *size) for size, _ in args.sizes]
    for folder in folders:
        folder.refresh(device)
    model = Model(sentences.rows, args.run)
    model.dit.load_state_dict(resume(args.run / "dit.pt")["average"])
    model.to(device).requires_grad_(False)

    lora = WithLora(model.dit, args.rank)
    lora.parts.to(device)
    average = copy.deepcopy(lora.parts)
    optimiser = torch.optim.AdamW(lora.parts.parameters(), args.rate, weight_decay=0.0)
    first = 0
    if state := resume(args.run / "distil.pt"):
        lora.parts.load_state_dict(state["lora"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    torch._dynamo.config.recompile_limit = 64  # sizes
    compiled = (lambda f: torch.compile(f, dynamic=False)) if args.compile else (lambda f: f)
    teacher_pass = compiled(lambda *inputs: velocity(Forward(model.dit, rounding=True), *inputs))
    student_pass = compiled(lambda *inputs: velocity(lora, *inputs))
    grid, mean = sigmas(STEPS).to(device), [None] * STEPS
    for step in range(first, args.steps):
        rng = random.Random(f"distil {step}")
        clips = rng.choices(folders, [share for _, share in args.sizes])[0].clips
        which, own = step % STEPS, rng.random() < 0.5
        with half_precision(device):
            batch = Batch(model, clips, sentences, rng, args.batch, args.frames, device)
            x = start(student_pass, batch, which, grid, own)
            goal = arrive(teacher_pass, batch, x, which, args.substeps, args.cfg)
            found = student_pass(batch, x, grid[which], batch.text)
        error = (found - (goal - x) / (grid[which + 1] - grid[which])).square()
        for group in optimiser.param_groups:
            group["lr"] = args.rate * rate(step, args.steps, 0.4)
        optimiser.zero_grad()
        (error * batch.weight).mean().backward()
        torch.nn.utils.clip_grad_norm_(lora.parts.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(lora.parts.parameters()), 1 - min(AVERAGE, (step + 1) / (step + 10)))
        mean[which] = error.mean().item() if mean[which] is None else 0.9 * mean[which] + 0.1 * error.mean().item()
        late = time.time() - began > args.minutes * 60
        if step % 20 == 19 or late:
            log(step=step, **{f"error_{i}": m for i, m in enumerate(mean)}, seconds=time.time() - began)
        if (step + 1) % 100 == 0 or late or step + 1 == args.steps:
            save(args.run / "distil.pt", lora=lora.parts.state_dict(), average=average.state_dict(),
                 optimiser=optimiser.state_dict(), step=step + 1)
        if late:
            break
    if args.out:
        write(args.out, average)


if __name__ == "__main__":
    main()
