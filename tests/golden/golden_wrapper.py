"""Fixtures of schedulers that ComfyUI-WanVideoWrapper added to Wan2.1's, run on random model outputs.

Each is what the wrapper's own `get_scheduler` returns for the name; only its log is left out.
"""

import importlib
import sys
import types

import torch

import reference as ref

CASES = [  # steps, shift, denoise strength
    (1, 5.0, 1.0),
    (2, 5.0, 1.0),
    (4, 5.0, 1.0),
    (8, 5.0, 1.0),
    (10, 5.0, 0.6),
    (17, 3.0, 1.0),
    (30, 1.0, 1.0),
]
FOUR_STEPS = [(4, 5.0, 1.0), (4, 8.0, 1.0), (4, 1.0, 1.0), (2, 5.0, 0.5)]
SCHEDULERS = {
    "dpm++/beta": CASES,
    "dpm++_sde/beta": CASES,
    "unipc/beta": CASES,
    "euler/beta": CASES,
    "deis": CASES,
    "lcm": CASES,
    "lcm/beta": CASES,
    "res_multistep": CASES,
    "flowmatch_distill": FOUR_STEPS,
}


def wrapper_schedulers(repo):
    """The package `wanvideo.schedulers` of the checkout without the nodes around it, which need ComfyUI."""
    for name, path in [("wrapper", repo), ("wrapper.wanvideo", repo / "wanvideo")]:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(path)]
    utils = sys.modules["wrapper.utils"] = types.ModuleType("wrapper.utils")
    utils.log = None
    return importlib.import_module("wrapper.wanvideo.schedulers")


def prepare(schedulers, name, steps, shift, strength):
    """(scheduler, timesteps) of the steps run. Below strength 1 the grid has int(steps/strength) steps, of which the last
    int(that*strength)+1 are run."""
    total = steps if strength == 1 else int(steps / strength)
    start = 0 if strength == 1 else total - int(total * strength) - 1
    scheduler, timesteps, _, _ = schedulers.get_scheduler(name, total, start, -1, shift, "cpu")
    # `res_multistep` takes a further step at time 0, which leaves the sample as it is.
    return scheduler, timesteps[timesteps > 0]


def make_wrapper(root, repo):
    schedulers = wrapper_schedulers(repo)
    for name, cases in SCHEDULERS.items():
        for steps, shift, strength in cases:
            scheduler, timesteps = prepare(schedulers, name, steps, shift, strength)
            sigmas, n = scheduler.sigmas.clone(), len(timesteps)
            if name == "deis":
                sigmas[-1] = 0  # its solver alone knows of 1e-6
            assert len(sigmas) == n + 1 and sigmas[-1] == 0
            g = torch.Generator().manual_seed(1000 * steps + int(shift))
            shape = (1, 2, 2, 3, 3)
            sample = torch.randn(shape, generator=g)
            outputs = torch.randn((n, *shape), generator=g)
            seed = g.initial_seed() + 1
            again = torch.Generator().manual_seed(seed)
            noise = torch.stack([torch.randn(shape, generator=again) for _ in range(n)])
            draws = {"generator": torch.Generator().manual_seed(seed)} if stochastic(name) else {}
            x, samples = sample, []
            for i, t in enumerate(timesteps):
                x = scheduler.step(outputs[i], t, x, **draws)[0].reshape(shape)
                assert torch.isfinite(x).all(), (name, steps, i)
                samples.append(x)
            io = {
                "sample": sample,
                "model_outputs": outputs,
                "options.steps": torch.tensor([steps]),
                "options.shift": torch.tensor([shift], dtype=torch.float64),
                "options.denoise_strength": torch.tensor([strength], dtype=torch.float64),
                "expected.sigmas": sigmas.float(),
                "expected.timesteps": timesteps.float(),
                "expected.samples": torch.stack(samples),
            }
            if stochastic(name):
                io["noise"] = noise
            case = f"{name.replace('/', '-')}_n{steps}_s{shift:g}" + ("" if strength == 1 else f"_d{strength:g}")
            ref.save_tensors(root / "scheduler" / f"{case}.io.safetensors", io, {"scheduler": name})


def stochastic(name):
    return "sde" in name or "lcm" in name
