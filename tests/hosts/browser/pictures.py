"""Small landscapes that differ by seed, so that a person who looks at the tests' pages has something to choose from."""

from __future__ import annotations

import colorsys
import math
import random
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFilter


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)


@lru_cache(maxsize=256)
def landscape(seed: int, width: int = 512, height: int = 512) -> Image.Image:
    """Draw a sky, a sun and hills."""
    rng = random.Random(seed)
    hue = rng.random()
    top, bottom = _colour(hue, 0.5, 0.55 + 0.3 * rng.random()), _colour(hue + 0.08, 0.25, 0.96)
    sky = Image.new("RGB", (1, height))
    for y in range(height):
        share = y / height
        sky.putpixel((0, y), tuple(int(a + (b - a) * share) for a, b in zip(top, bottom, strict=True)))
    image = sky.resize((width, height))
    _sun(image, rng, hue)
    draw = ImageDraw.Draw(image)
    layers = rng.randint(3, 5)
    for layer in range(layers):
        depth = (layer + 1) / layers
        _hill(
            draw, rng, width, height, depth, _colour(hue + 0.45 + 0.05 * layer, 0.25 + 0.4 * depth, 0.75 - 0.5 * depth)
        )
    return image


def _sun(image: Image.Image, rng: random.Random, hue: float) -> None:
    width, height = image.size
    size = int(width * (0.06 + 0.08 * rng.random()))
    x, y = int(width * rng.uniform(0.15, 0.85)), int(height * rng.uniform(0.12, 0.45))
    glow = Image.new("L", image.size, 0)
    ImageDraw.Draw(glow).ellipse((x - 2 * size, y - 2 * size, x + 2 * size, y + 2 * size), fill=90)
    ImageDraw.Draw(glow).ellipse((x - size, y - size, x + size, y + size), fill=255)
    image.paste(
        Image.new("RGB", image.size, _colour(hue + 0.1, 0.12, 1)), mask=glow.filter(ImageFilter.GaussianBlur(3))
    )


def _hill(
    draw: ImageDraw.ImageDraw, rng: random.Random, width: int, height: int, depth: float, colour: tuple[int, int, int]
) -> None:
    base, swing = height * (0.42 + 0.42 * depth), height * (0.04 + 0.07 * rng.random())
    waves = [(rng.uniform(1, 5), rng.uniform(0, 6.3), rng.uniform(0.3, 1)) for _ in range(3)]
    ridge = [
        (x, base + swing * sum(a * math.sin(f * x / width * 2 + p) for f, p, a in waves))
        for x in range(0, width + 8, 8)
    ]
    draw.polygon([(0, height), *ridge, (width, height)], fill=colour)
