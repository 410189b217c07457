"""Whether a video shows what its sentence says, told from pixels alone.

The actor is found by its colour: how close each pixel is to it, from 0 to 1. Place, size and strength of what is
found, over time, decide. The same rules are in the Rust test, in tests/meaning.
"""

import torch
import world

REACH = 0.30  # distance in RGB (each 0 to 1) at which a pixel no longer counts as the colour


def presence(video, colour):
    """[T, H, W] in [0, 1] from a video [3, T, H, W] in [-1, 1]"""
    target = torch.tensor(world.COLOURS[colour][1]).view(3, 1, 1, 1) / 255
    return (1 - ((video + 1) / 2 - target).square().sum(0).sqrt() / REACH).clamp(0, 1)


def features(video, colour):
    """Motion in units of the shorter side; ratios of the last frames to the first."""
    seen = presence(video, colour)
    t, h, w = seen.shape
    unit = min(h, w)
    mass = seen.flatten(1).sum(1).clamp(min=1e-3)
    ys, xs = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    x, y = ((seen * axis).flatten(1).sum(1) / mass / unit for axis in (xs, ys))
    strength = seen.flatten(1).topk(max(8, h * w // 800), dim=1).values.mean(1)
    # Change over an eighth of the clip, of what was there: turning changes the outline, standing does not.
    lag = t // 8
    change = (seen[lag:] - seen[:-lag]).abs().flatten(1).sum(1) / mass[:-lag]
    present = strength > 0.3
    last = int(present.nonzero().max()) if present.any() else 0
    return dict(dx=(x[last] - x[0]).item(), dy=(y[last] - y[0]).item(), rise=(y[0] - y[: last + 1].min()).item(),
                size=(mass[-3:].mean() / mass[:3].mean()).item(), strength=(strength[-3:].mean() / strength[:3].mean().clamp(min=1e-3)).item(),
                change=change.median().item())


def obeys(f, action):
    """Whether features `f` are those of `action`."""
    stays = abs(f["dx"]) < 0.08 and abs(f["dy"]) < 0.08
    same_size = 0.7 < f["size"] < 1.4
    match action:
        case "right":
            return f["dx"] > 0.12 and abs(f["dy"]) < 0.08
        case "left":
            return f["dx"] < -0.12 and abs(f["dy"]) < 0.08
        case "down":
            return f["dy"] > 0.12 and abs(f["dx"]) < 0.08
        case "up":
            return f["dy"] < -0.12 and abs(f["dx"]) < 0.08
        case "grows":
            return stays and f["size"] > 1.4
        case "shrinks":
            return stays and f["size"] < 0.7 and f["strength"] > 0.6
        case "fades":
            return stays and f["strength"] < 0.6
        case "bounces":
            return f["rise"] > 0.10 and stays and same_size
        case "spins":
            return stays and f["rise"] < 0.10 and same_size and f["change"] > 0.12
        case "still":
            return stays and f["rise"] < 0.06 and same_size and f["change"] < 0.12
    raise ValueError(action)
