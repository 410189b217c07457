"""Fixtures of the sampler: reference solvers run on random model outputs, and torch's CPU noise."""

import hashlib
import json
import sys

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import reference as ref

CASES = [  # steps, shift, denoise strength
    (1, 5.0, 1.0),
    (2, 5.0, 1.0),
    (4, 5.0, 1.0),
    (10, 5.0, 1.0),
    (10, 5.0, 0.6),
    (17, 3.0, 1.0),
    (20, 8.0, 0.8),
    (30, 1.0, 1.0),
]

NOISE = [  # seed, shape
    (42, (10,)),
    (42, (16,)),
    (42, (20,)),
    (42, (64,)),
    (0, (3, 5)),
    (7, (1, 31)),
    (2**32 + 42, (64,)),
    (2**63 + 12345, (4, 9, 7)),
    (18446744073709551615, (16, 3, 4, 6)),
    (1234567890, (16, 2, 5, 6)),
]
NOISE_BY_HASH = [(42, (16, 21, 64, 64)), (42, (16, 21, 60, 104)), (3, (16, 5, 64, 64))]


def solver(name, shift, wan_repo):
    """Wan2.1's own solvers, and diffusers' Euler, each on the shifted flow grid of wan-run's default."""
    if name == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=shift)
    dpm, unipc = wan_solvers(wan_repo)
    if name == "unipc":
        return unipc(num_train_timesteps=1000, shift=shift, use_dynamic_shifting=False)
    algorithm = {"dpm++": "dpmsolver++", "dpm++_sde": "sde-dpmsolver++"}[name]
    return dpm(num_train_timesteps=1000, shift=shift, use_dynamic_shifting=False, algorithm_type=algorithm)


def wan_solvers(wan_repo):
    """Imports the two solver files alone: the package around them needs a GPU build of flash attention."""
    folder = str(wan_repo / "wan" / "utils")
    sys.path.insert(0, folder)
    try:
        from fm_solvers import FlowDPMSolverMultistepScheduler
        from fm_solvers_unipc import FlowUniPCMultistepScheduler
    finally:
        sys.path.remove(folder)
    return FlowDPMSolverMultistepScheduler, FlowUniPCMultistepScheduler


def prepare(name, steps, shift, strength, wan_repo):
    """(scheduler, sigmas of the steps run and the last, their timesteps). Below strength 1 the grid has
    int(steps/strength) steps, of which the last int(that*strength)+1 are run."""
    scheduler = solver(name, shift, wan_repo)
    total = steps if strength == 1 else int(steps / strength)
    if name == "euler":
        scheduler.set_timesteps(total)
    else:
        scheduler.set_timesteps(total, device="cpu", shift=shift)
    run = total if strength == 1 else int(total * strength) + 1
    return scheduler, scheduler.sigmas[total - run :].float(), scheduler.timesteps[total - run :]


def make_scheduler(root, wan_repo):
    for name in ("dpm++", "dpm++_sde", "unipc", "euler"):
        for steps, shift, strength in CASES:
            scheduler, sigmas, timesteps = prepare(name, steps, shift, strength, wan_repo)
            n = len(timesteps)
            assert len(sigmas) == n + 1
            g = torch.Generator().manual_seed(1000 * steps + int(shift))
            shape = (1, 3, 2, 3, 5)
            sample = torch.randn(shape, generator=g)
            outputs = torch.randn((n, *shape), generator=g)
            noise = torch.randn((n, *shape), generator=g)
            x, samples = sample, []
            for i, t in enumerate(timesteps):
                extra = {"variance_noise": noise[i]} if name == "dpm++_sde" else {}
                x = scheduler.step(outputs[i], t, x, return_dict=False, **extra)[0]
                assert torch.isfinite(x).all(), (name, steps, i)
                samples.append(x)
            io = {
                "sample": sample,
                "model_outputs": outputs,
                "options.steps": torch.tensor([steps]),
                "options.shift": torch.tensor([shift], dtype=torch.float64),
                "options.denoise_strength": torch.tensor([strength], dtype=torch.float64),
                "expected.sigmas": sigmas,
                "expected.timesteps": timesteps.float(),
                "expected.samples": torch.stack(samples),
            }
            if name == "dpm++_sde":
                io["noise"] = noise
            case = f"{name}_n{steps}_s{shift:g}" + ("" if strength == 1 else f"_d{strength:g}")
            ref.save_tensors(root / "scheduler" / f"{case}.io.safetensors", io, {"scheduler": name})


def sha256(tensor):
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()  # little-endian float32


def make_noise(root):
    """noise.io.safetensors holds `expected.0`, `expected.1`, ...; cases.json their seeds and shapes, then
    cases with a SHA-256 alone."""
    tensors, cases = {}, []
    for seed, shape in NOISE + NOISE_BY_HASH:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        case = {"seed": seed, "shape": list(shape), "sha256": sha256(noise), "last": noise.flatten()[-1].item()}
        if (seed, shape) in NOISE:
            name = f"expected.{len(tensors)}"
            tensors[name] = noise
            case["tensor"] = name
        cases.append(case)
    ref.save_tensors(root / "noise" / "noise.io.safetensors", tensors)
    (root / "noise" / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
