"""The sample image of `tiny`."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def make_sample(size=512):
    """A dusk sky with a sun, three ranges of hills, a lake and a red balloon, drawn at 2x and reduced."""
    n = size * 2
    y = np.linspace(0, 1, n)[:, None, None]
    sky = np.array([[52, 92, 168], [244, 168, 112], [252, 214, 150]], float)
    t = np.clip(y / 0.66, 0, 1)
    rgb = np.where(t < 0.7, sky[0] + (sky[1] - sky[0]) * (t / 0.7) ** 1.3, sky[1] + (sky[2] - sky[1]) * (t - 0.7) / 0.3)
    rgb = np.broadcast_to(rgb, (n, n, 3)).copy()
    yy, xx = np.mgrid[0:n, 0:n] / n
    r = np.hypot(xx - 0.7, yy - 0.5)
    rgb += np.exp(-((r / 0.17) ** 2))[..., None] * np.array([60, 52, 24])
    img = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(img)
    draw.ellipse([n * 0.645, n * 0.445, n * 0.755, n * 0.555], fill=(255, 240, 200))
    x = np.linspace(0, 1, 129)
    ranges = [((96, 104, 152), 0.60, 0.05, 7.0, 0.6), ((66, 96, 108), 0.68, 0.045, 5.0, 2.1), ((44, 88, 62), 0.77, 0.05, 3.6, 4.0)]
    for colour, base, amplitude, frequency, phase in ranges:
        ridge = base + amplitude * (np.sin(frequency * x + phase) + 0.35 * np.sin(2.7 * frequency * x + 2 * phase))
        draw.polygon([(0, n), *zip(x * n, ridge * n), (n, n)], fill=colour)
    draw.ellipse([n * 0.08, n * 0.86, n * 0.62, n * 0.96], fill=(120, 158, 190))
    draw.ellipse([n * 0.12, n * 0.867, n * 0.58, n * 0.93], fill=(178, 190, 196))
    cx, cy, rad = n * 0.30, n * 0.30, n * 0.135
    draw.polygon([(cx - rad * 0.62, cy + rad * 0.78), (cx + rad * 0.62, cy + rad * 0.78), (cx + rad * 0.2, cy + rad * 1.55), (cx - rad * 0.2, cy + rad * 1.55)], fill=(176, 28, 34))
    draw.ellipse([cx - rad, cy - rad, cx + rad, cy + rad], fill=(214, 40, 44))
    draw.ellipse([cx - rad * 0.42, cy - rad, cx + rad * 0.42, cy + rad], fill=(240, 196, 72))
    draw.rectangle([cx - rad * 0.18, cy + rad * 1.7, cx + rad * 0.18, cy + rad * 1.98], fill=(104, 66, 40))
    for side in (-1, 1):
        draw.line([(cx + side * rad * 0.17, cy + rad * 1.5), (cx + side * rad * 0.16, cy + rad * 1.72)], fill=(70, 48, 32), width=5)
    shine = Image.new("L", (n, n), 0)
    ImageDraw.Draw(shine).ellipse([cx - rad * 0.7, cy - rad * 0.75, cx - rad * 0.25, cy - rad * 0.2], fill=110)
    img.paste(Image.new("RGB", (n, n), (255, 255, 255)), mask=shine.filter(ImageFilter.GaussianBlur(n // 60)))
    return img.resize((size, size), Image.LANCZOS)
