"""The world of `tiny`: flat shapes on quiet backgrounds that do what a sentence says.

`Scene.sample` draws everything that a clip consists of from a generator; `render` turns a batch of scenes into
video; `sentence` says in English or Chinese what happens. One object acts, a second one of another colour may
stand by. Nothing here is learned.
"""

import dataclasses
import math
import random

import torch

COLOURS = {
    "red": ("红色", (222, 45, 45)),
    "green": ("绿色", (45, 165, 75)),
    "blue": ("蓝色", (50, 95, 225)),
    "yellow": ("黄色", (240, 210, 55)),
    "purple": ("紫色", (150, 65, 190)),
    "orange": ("橙色", (245, 140, 35)),
}
SHAPES = {"circle": "圆形", "square": "方形", "triangle": "三角形", "star": "星形"}

# What an object can do, and how one says so after "the red circle" or 红色圆形.
ACTIONS = {
    "right": (["moves right", "moves to the right", "slides right"], ["向右移动", "往右移动", "向右滑动"]),
    "left": (["moves left", "moves to the left", "slides left"], ["向左移动", "往左移动", "向左滑动"]),
    "up": (["moves up", "rises", "moves upwards"], ["向上移动", "往上移动", "上升"]),
    "down": (["moves down", "sinks", "moves downwards"], ["向下移动", "往下移动", "下降"]),
    "grows": (["grows", "gets bigger", "becomes larger"], ["变大", "逐渐变大", "越来越大"]),
    "shrinks": (["shrinks", "gets smaller", "becomes smaller"], ["变小", "逐渐变小", "越来越小"]),
    "spins": (["spins", "rotates", "turns around"], ["旋转", "转动", "不停旋转"]),
    "fades": (["fades away", "fades", "slowly disappears"], ["淡出", "逐渐消失", "慢慢变透明"]),
    "bounces": (["bounces", "bounces up and down", "jumps up and down"], ["弹跳", "上下弹跳", "跳动"]),
    "still": (["stays still", "does not move", "is static", "stands motionless"], ["保持静止", "不动", "静止", "原地不动"]),
}
ACTS_ON_CIRCLE = [action for action in ACTIONS if action != "spins"]  # nobody sees a circle spin

FRAMES = 81
MARGIN = 0.02  # of the shorter side, between an object and the border


def held_out(colour, shape, action):
    """Combinations that no training clip shows, a tenth of all."""
    index = list(COLOURS).index(colour) + 3 * list(SHAPES).index(shape) + 7 * list(ACTIONS).index(action)
    return index % 10 == 0


@dataclasses.dataclass
class Thing:
    """An object. Lengths are in units of the scene's, y downwards, angles in radians."""

    colour: str
    shape: str
    radius: float
    x: float
    y: float
    angle: float
    action: str = "still"
    amount: float = 0.0  # distance, final scale, turn, final opacity or height of a bounce, by action

    def at(self, u):
        """(x, y, radius, angle, opacity) at `u` in [0, 1], the part of the clip that has passed."""
        x, y, radius, angle, opacity = self.x, self.y, self.radius, self.angle, 1.0
        match self.action:
            case "right":
                x = x + self.amount * u
            case "left":
                x = x - self.amount * u
            case "down":
                y = y + self.amount * u
            case "up":
                y = y - self.amount * u
            case "grows" | "shrinks":
                radius = radius * (1 + (self.amount - 1) * u)
            case "spins":
                angle = angle + self.amount * u
            case "fades":
                opacity = 1 + (self.amount - 1) * u
            case "bounces":
                y = y - self.amount * abs(math.sin(2 * math.pi * u))
        return x, y, radius, angle, opacity

    def reach(self):
        """(left, top, right, bottom) of everything the object ever covers."""
        places = [self.at(i / 16) for i in range(17)]
        return (min(p[0] - p[2] for p in places), min(p[1] - p[2] for p in places),
                max(p[0] + p[2] for p in places), max(p[1] + p[2] for p in places))


@dataclasses.dataclass
class Scene:
    """A clip before it is drawn: who acts, who stands by, and the background."""

    width: int
    height: int
    unit: int  # pixels of a length of 1
    things: list  # the first one acts
    background: dict

    @staticmethod
    def sample(rng, width=128, height=128, action=None, allowed=lambda *combination: not held_out(*combination), unit=None):
        """A scene from `rng` (`random.Random`) whose combination of colour, shape and action is `allowed`.

        A length of 1 is `unit` pixels, by default the shorter side."""
        unit = unit or min(width, height)
        size = (width / unit, height / unit)
        while True:
            colour, shape = rng.choice(list(COLOURS)), rng.choice(list(SHAPES))
            act = action or rng.choice(list(ACTIONS) if shape != "circle" else ACTS_ON_CIRCLE)
            if not allowed(colour, shape, act) or (shape == "circle" and act == "spins"):
                continue
            actor = Thing(colour, shape, rng.uniform(0.10, 0.17), 0, 0, rng.uniform(-math.pi, math.pi), act, AMOUNTS[act])
            if not place(rng, actor, size):
                continue
            things = [actor]
            if rng.random() < 0.4:
                other = rng.choice([name for name in COLOURS if name != colour])
                bystander = Thing(other, rng.choice(list(SHAPES)), rng.uniform(0.08, 0.14), 0, 0, rng.uniform(-math.pi, math.pi))
                if any(place(rng, bystander, size) and apart(actor, bystander) for _ in range(12)):
                    things.append(bystander)
            return Scene(width, height, unit, things, background(rng))

    def sentence(self, rng, language=None):
        """What happens, in `language` ("en" or "zh"), in one of the grammar's forms."""
        actor = self.things[0]
        english, chinese = ACTIONS[actor.action]
        if (language or rng.choice(["en", "zh"])) == "en":
            article = rng.choice(["the", "The", "an" if actor.colour == "orange" else "a"])
            return f"{article} {actor.colour} {actor.shape} {rng.choice(english)}{rng.choice(['', '.'])}"
        return f"{COLOURS[actor.colour][0]}{rng.choice(['', '的'])}{SHAPES[actor.shape]}{rng.choice(chinese)}{rng.choice(['', '。'])}"


# How far an action goes. The sentences do not say, so it is always the same: what is left to chance cannot be learned.
AMOUNTS = dict(right=0.32, left=0.32, up=0.32, down=0.32, grows=1.75, shrinks=0.5, spins=math.pi, fades=0.08, bounces=0.25, still=0.0)


def place(rng, thing, size):
    """Puts `thing` where all it will ever cover is inside the picture; false if there is no such place."""
    left, top, right, bottom = dataclasses.replace(thing, x=0, y=0).reach()
    low_x, high_x = MARGIN - left, size[0] - MARGIN - right
    low_y, high_y = MARGIN - top, size[1] - MARGIN - bottom
    if low_x > high_x or low_y > high_y:
        return False
    thing.x, thing.y = rng.uniform(low_x, high_x), rng.uniform(low_y, high_y)
    return True


def apart(a, b):
    """Whether the two never touch."""
    (l, t, r, d), (l2, t2, r2, d2) = a.reach(), b.reach()
    return r < l2 or r2 < l or d < t2 or d2 < t


def background(rng):
    """Muted colours, so that no background is taken for an object."""
    grey = rng.uniform(0.15, 0.9)
    tint = lambda: [min(max(grey + rng.uniform(-0.06, 0.06), 0), 1) for _ in range(3)]
    kind = rng.choice(["plain", "gradient", "texture"])
    return dict(kind=kind, low=tint(), high=[c + rng.uniform(-0.12, 0.12) for c in tint()], angle=rng.uniform(0, 2 * math.pi),
                seed=rng.getrandbits(31))


# ---------------------------------------------------------------------------------------------------
# drawing


def distance(shape, x, y, radius):
    """Signed distance from the outline, negative inside; all tensors of one shape."""
    match shape:
        case "circle":
            return torch.hypot(x, y) - radius
        case "square":
            return torch.maximum(x.abs(), y.abs()) - 0.82 * radius
        case "triangle":
            sides = [x * math.sin(a) + y * math.cos(a) for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)]
            return torch.stack(sides).amax(0) - 0.5 * radius
        case "star":
            # Folded into one tenth: the distance from the line between a tip and the notch beside it.
            angle = torch.atan2(x, -y)
            sector = 2 * math.pi / 5
            angle = (torch.remainder(angle + sector / 2, sector) - sector / 2).abs()
            length = torch.hypot(x, y)
            px, py = length * torch.sin(angle), length * torch.cos(angle)
            notch = 0.45
            nx, ny = notch * math.sin(sector / 2), notch * math.cos(sector / 2)
            edge = (nx, ny - 1.0)
            norm = math.hypot(*edge)
            return -((px * edge[1] - (py - radius) * edge[0]) / norm)
    raise ValueError(shape)


def draw_background(scene, device):
    """[3, H, W] in [0, 1]"""
    bg, (h, w) = scene.background, (scene.height, scene.width)
    low, high = (torch.tensor(bg[k], device=device).view(3, 1, 1) for k in ("low", "high"))
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, h, device=device), torch.linspace(-1, 1, w, device=device), indexing="ij")
    if bg["kind"] == "plain":
        return low.expand(3, h, w).clamp(0, 1)
    if bg["kind"] == "gradient":
        t = (xs * math.cos(bg["angle"]) + ys * math.sin(bg["angle"])) * 0.35 + 0.5
        return (low + (high - low) * t).clamp(0, 1)
    coarse = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(bg["seed"])).to(device)
    field = torch.nn.functional.interpolate(coarse, (h, w), mode="bicubic", align_corners=False)[0]
    return (low + 0.035 * field).clamp(0, 1)


def render(scenes, frames=range(FRAMES), device="cpu"):
    """Video of scenes of one size and unit: [B, 3, T, H, W] in [-1, 1], edges anti-aliased over one pixel."""
    frames = list(frames)
    h, w = scenes[0].height, scenes[0].width
    unit = scenes[0].unit
    ys, xs = torch.meshgrid((torch.arange(h, device=device) + 0.5) / unit, (torch.arange(w, device=device) + 0.5) / unit, indexing="ij")
    videos = []
    for scene in scenes:
        video = draw_background(scene, device).unsqueeze(1).repeat(1, len(frames), 1, 1)
        for thing in reversed(scene.things):
            states = torch.tensor([thing.at(f / (FRAMES - 1)) for f in frames], device=device)
            cx, cy, radius, angle, opacity = (s.view(-1, 1, 1) for s in states.float().unbind(1))
            x, y = xs - cx, ys - cy
            c, s = torch.cos(angle), torch.sin(angle)
            d = distance(thing.shape, c * x + s * y, c * y - s * x, radius)
            alpha = (0.5 - d * unit).clamp(0, 1) * opacity
            colour = torch.tensor(COLOURS[thing.colour][1], device=device).view(3, 1, 1, 1) / 255
            video = video * (1 - alpha) + colour * alpha
        videos.append(video)
    return torch.stack(videos) * 2 - 1
