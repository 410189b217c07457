"""Context windows: which frames each window has, and the order of the shuffled noise.

The windows come from the functions of a checkout of https://github.com/kijai/ComfyUI-WanVideoWrapper.
"""

import importlib.util
import json
import logging
import sys
import types

import torch

# schedule, latent frames, and in frames of the video: window, stride, overlap
SETTINGS = [(f, c, s, o) for f in (21, 22, 30, 41, 61) for c, s, o in ((81, 4, 16), (33, 4, 8), (49, 8, 16), (17, 16, 4))]
STEPS = (0, 1, 2, 5)


def functions(repo):
    """The module of the schedules, without the node pack around it, which needs ComfyUI."""
    path = next(p for p in (repo / "context_windows" / "context.py", repo / "context.py") if p.is_file())
    names = ["wrapper", "wrapper.context_windows"]
    for name in names:
        module = sys.modules[name] = types.ModuleType(name)
        module.__path__ = []
    utils = sys.modules["wrapper.utils"] = types.ModuleType("wrapper.utils")
    utils.log = logging.getLogger("wrapper")
    spec = importlib.util.spec_from_file_location("wrapper.context_windows.context", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_windows(root, repo):
    reference = functions(repo)
    folder = root / "windows"
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for name in ("uniform_standard", "static_standard"):
        schedule = reference.get_context_scheduler(name)
        for frames, window, stride, overlap in SETTINGS:
            for step in STEPS if name == "uniform_standard" else STEPS[:1]:
                # as WanVideoSampler calls it
                windows = schedule(step, 30, frames, (window - 1) // 4 + 1, stride // 4, overlap // 4)
                if {int(i) for w in windows for i in w} != set(range(frames)):
                    continue  # frames that there are not, or some left out: its own sampler fails on these
                cases.append(
                    dict(
                        schedule=name,
                        latent_frames=frames,
                        context_frames=window,
                        context_stride=stride,
                        context_overlap=overlap,
                        step=step,
                        windows=[[int(i) for i in w] for w in windows],
                    )
                )
    write(folder / "schedule.json", cases)
    write(folder / "noise.json", [noise_case(*case) for case in ((41, 81, 16, 1), (61, 33, 8, 42), (23, 81, 32, 7), (21, 81, 16, 3))])


def write(path, cases):
    path.write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


def noise_case(frames, window, overlap, seed):
    """For each frame the one whose noise it has after FreeNoise; every frame's noise is its number."""
    size, common = (window - 1) // 4 + 1, overlap // 4
    generator = torch.Generator().manual_seed(seed)
    torch.randn(16, frames, 2, 2, generator=generator)
    noise, step = torch.arange(frames), size - common
    for start in range(0, frames - size, step):
        place = start + size
        count = min(step, frames - place)
        order = torch.randperm(count, generator=generator)
        noise[place : place + count] = noise[start : start + count][order]
    return dict(latent_frames=frames, context_frames=window, context_overlap=overlap, seed=seed, order=noise.tolist())
