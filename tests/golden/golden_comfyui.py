"""Fixtures of ComfyUI's own sampling: its samplers on its scheduler `simple`, run on random model outputs, and the sigmas of
all its schedulers.

Grids, solvers and the flow model's arithmetic are the functions of a checkout of https://github.com/comfyanonymous/ComfyUI;
only what they import around them, and the model, is left out.
"""

import ast
import functools
import hashlib
import importlib.util
import logging
import math
import sys
import types
import typing

import numpy
import scipy.stats
import torch

import reference as ref

# sampler, case: steps, shift, denoise. ComfyUI's `uni_pc` does nothing in a run of one step.
CASES = [(1, 5.0, 1.0), (2, 5.0, 1.0), (3, 8.0, 1.0), (4, 5.0, 1.0), (10, 5.0, 0.6), (17, 3.0, 1.0), (30, 8.0, 1.0)]
SAMPLERS = ("euler", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc", "lcm", "res_multistep")
STOCHASTIC = ("dpmpp_2m_sde", "lcm")

SCHEDULERS = ("simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic", "kl_optimal")
# Those that need neither powers nor exponentials nor tangents of f32 values, so that libraries agree in every bit.
EXACT = ("simple", "sgm_uniform", "ddim_uniform", "beta", "normal", "linear_quadratic")
# The samplers that take sigmas each in a way of its own; the others take them as `euler` does.
GRID_SAMPLERS = ("euler", "uni_pc", "dpmpp_2m_sde")
GRIDS = [(n, shift, d) for n in (1, 2, 4, 8, 10, 17, 20, 30) for shift in (1.0, 3.0, 5.0, 8.0) for d in (1.0, 0.6)]


def stub(name, **attributes):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    module.__dict__.update(attributes)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


def load(repo, name):
    """The module `name` of the checkout."""
    path = repo / f"{name.replace('.', '/')}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, module)
    return module


def defined(node):
    """The name that a statement defines, if it is one."""
    return node.targets[0].id if isinstance(node, ast.Assign) else getattr(node, "name", None)


def comfyui(repo):
    """(model_sampling, k-diffusion's samplers, uni_pc, KSampler) without the rest of the program."""
    for name in ("comfy", "comfy.ldm", "comfy.ldm.modules", "comfy.ldm.modules.diffusionmodules", "comfy.model_patcher"):
        stub(name)
    stub("comfy.ldm.modules.diffusionmodules.util", make_beta_schedule=None)
    stub("comfy.k_diffusion")
    stub("comfy.extra_samplers")
    model_sampling = load(repo, "comfy.model_sampling")
    for name in ("utils", "deis", "sa_solver"):
        load(repo, f"comfy.k_diffusion.{name}")
    sampling, uni_pc = load(repo, "comfy.k_diffusion.sampling"), load(repo, "comfy.extra_samplers.uni_pc")
    tree = ast.parse((repo / "comfy" / "samplers.py").read_text())
    wanted = {f"{name}_scheduler" for name in ("simple", "ddim", "normal", "beta", "kl_optimal")}
    wanted |= {"linear_quadratic_schedule", "SchedulerHandler", "calculate_sigmas", "KSampler"}
    wanted |= {"SCHEDULER_HANDLERS", "SCHEDULER_NAMES"}
    tree.body = [node for node in tree.body if defined(node) in wanted]
    names = {
        **{module.__name__: module for module in (logging, math, numpy, scipy, torch)},
        "Callable": typing.Callable,
        "NamedTuple": typing.NamedTuple,
        "SAMPLER_NAMES": list(SAMPLERS),
        "k_diffusion_sampling": sampling,
        "partial": functools.partial,
    }
    exec(compile(ast.fix_missing_locations(tree), "samplers.py", "exec"), names)
    assert tuple(names["SCHEDULER_NAMES"]) == SCHEDULERS
    return model_sampling, sampling, uni_pc, names["KSampler"]


class Denoiser:
    """The model as the samplers call it: its velocities are given. Keeps what it was asked."""

    def __init__(self, model_sampling, outputs):
        self.model_sampling, self.outputs = model_sampling, outputs
        self.samples, self.sigmas = [], []
        patcher = types.SimpleNamespace(get_model_object=lambda _: model_sampling)
        self.inner_model = types.SimpleNamespace(
            model_patcher=patcher, inner_model=types.SimpleNamespace(model_sampling=model_sampling)
        )

    def __call__(self, x, sigma, **_):
        velocity = self.outputs[len(self.samples)]
        self.samples.append(x.clone())
        self.sigmas.append(sigma.flatten()[0].clone())
        return self.model_sampling.calculate_denoised(sigma, velocity, x)


def make_comfyui(root, repo):
    model_sampling, sampling, uni_pc, KSampler = comfyui(repo)

    class Flow(model_sampling.ModelSamplingDiscreteFlow, model_sampling.CONST):
        pass

    make_grids(root, Flow, sampling, KSampler)
    for sampler in SAMPLERS:
        for steps, shift, denoise in CASES:
            if sampler == "uni_pc" and steps == 1:
                continue
            flow = Flow()
            flow.set_parameters(shift=shift, multiplier=1000)
            patcher = types.SimpleNamespace(get_model_object=lambda _: flow)
            sigmas = KSampler(patcher, steps, "cpu", sampler, "simple", denoise).sigmas.clone()
            assert len(sigmas) == steps + 1
            g = torch.Generator().manual_seed(1000 * steps + int(shift))
            shape = (1, 3, 2, 3, 5)
            sample = torch.randn(shape, generator=g)
            outputs = torch.randn((steps, *shape), generator=g)
            noise = torch.randn((steps, *shape), generator=g)
            model = Denoiser(flow, outputs)
            if sampler == "uni_pc":
                last = uni_pc.sample_unipc(model, sample.clone(), sigmas, extra_args={}, disable=True)
            else:
                extra = {}
                if sampler in STOCHASTIC:
                    drawn = iter(noise)
                    extra["noise_sampler"] = lambda *_: next(drawn)
                function = getattr(sampling, f"sample_{sampler}")
                last = function(model, sample.clone(), sigmas, extra_args={}, disable=True, **extra)
            # As KSAMPLER.sample does; `uni_pc` has put 0.001 in the place of the last sigma.
            last = flow.inverse_noise_scaling(sigmas[-1], last)
            seen = torch.stack(model.sigmas)
            assert len(seen) == steps and torch.allclose(model.samples[0], sample, atol=1e-6)
            io = {
                "sample": sample,
                "model_outputs": outputs,
                "options.steps": torch.tensor([steps]),
                "options.shift": torch.tensor([shift], dtype=torch.float64),
                "options.denoise_strength": torch.tensor([denoise], dtype=torch.float64),
                "expected.sigmas": torch.cat([seen, torch.zeros(1)]),
                "expected.timesteps": flow.timestep(seen).float(),
                "expected.samples": torch.stack([*model.samples[1:], last]),
            }
            if sampler in STOCHASTIC:
                io["noise"] = noise
            case = f"{sampler}-simple_n{steps}_s{shift:g}" + ("" if denoise == 1 else f"_d{denoise:g}")
            ref.save_tensors(root / "scheduler" / f"{case}.io.safetensors", io, {"scheduler": f"{sampler}/simple"})


def make_grids(root, Flow, sampling, KSampler):
    """`<sampler>/<scheduler>`: the sigmas of all cases, one grid after another; `.len`: how many each has.
    `<scheduler>.sha256`: of the sigmas of `euler`, little-endian, at 1 to 100 steps for each of four shifts and
    at 1 to 1000 for another."""

    def grid(sampler, scheduler, steps, shift, denoise):
        flow = Flow()
        flow.set_parameters(shift=shift, multiplier=1000)
        patcher = types.SimpleNamespace(get_model_object=lambda _: flow)
        sigmas = KSampler(patcher, steps, "cpu", sampler, scheduler, denoise).sigmas
        return sampling.offset_first_sigma_for_snr(sigmas, flow) if sampler == "dpmpp_2m_sde" else sigmas

    io = {
        "steps": torch.tensor([n for n, _, _ in GRIDS], dtype=torch.float64),
        "shift": torch.tensor([shift for _, shift, _ in GRIDS], dtype=torch.float64),
        "denoise": torch.tensor([d for _, _, d in GRIDS], dtype=torch.float64),
    }
    for scheduler in SCHEDULERS:
        for sampler in GRID_SAMPLERS:
            grids = [grid(sampler, scheduler, *case) for case in GRIDS]
            io[f"{sampler}/{scheduler}"] = torch.cat(grids)
            io[f"{sampler}/{scheduler}.len"] = torch.tensor([len(sigmas) for sigmas in grids], dtype=torch.uint8)
    for scheduler in EXACT:
        digest = hashlib.sha256()
        for shift, most in ((1.0, 100), (3.0, 100), (7.3, 100), (8.0, 100), (5.0, 1000)):
            for steps in range(1, most + 1):
                digest.update(grid("euler", scheduler, steps, shift, 1.0).numpy().astype("<f4").tobytes())
        io[f"{scheduler}.sha256"] = torch.tensor(list(digest.digest()), dtype=torch.uint8)
    ref.save_tensors(root / "comfyui_sigmas" / "grids.safetensors", io)
