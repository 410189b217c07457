#!/usr/bin/env python3
"""The sample image: a scene of the world that `tiny` is trained on, four times as large.

    python models/tiny/draw_sample.py
"""

import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "train"))
from world import Scene, Thing, render  # noqa: E402


def make_sample(size=512):
    """A red circle and a blue star before a grey-green gradient."""
    circle = Thing("red", "circle", 0.15, 0.26, 0.40, 0.0)
    star = Thing("blue", "star", 0.13, 0.74, 0.76, 0.3)
    background = dict(kind="gradient", low=[0.70, 0.74, 0.68], high=[0.84, 0.84, 0.78], angle=0.9)
    frame = render([Scene(size, size, size, [circle, star], background)], [0])[0, :, 0]
    return Image.fromarray(((frame + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


if __name__ == "__main__":
    make_sample().save(HERE / "sample.png", optimize=True)
