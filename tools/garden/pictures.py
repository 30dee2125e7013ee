"""Garden pictures, drawn by rule: the training data of the embedded model.

A picture shows one flower in front of a sky. Its caption names the flower's kind, its colour and the sky. The rest
(bloom size, lean of the stem, height of the grass, place of sun or moon, sometimes a butterfly or a firefly) does not
depend on the caption and is mostly continuous, so that a person can have a taste in it that no prompt expresses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from d3po_core.embedded import ATTRIBUTES, parse

SIDE = 64
SCALE = 4  # supersampling
SMALLEST, SIZE_FACTOR, LEAN_REACH = 6.4, 2.2, 13.0  # bloom radius and sideways reach, in pixels of 64
SIZE_STD, LEAN_STD = math.sqrt(1 / 12), math.sqrt(1 / 3)  # of uniform [0, 1] and uniform [-1, 1]

RGB = tuple[int, int, int]
Points = list[tuple[float, float]]
PETAL: dict[str, RGB] = {
    "red": (222, 32, 44),
    "yellow": (255, 218, 32),
    "blue": (48, 92, 232),
    "white": (250, 248, 244),
    "purple": (148, 52, 196),
}
SKY: dict[str, tuple[RGB, RGB]] = {  # zenith, horizon
    "by day": ((112, 186, 240), (206, 236, 250)),
    "at sunset": ((226, 104, 116), (255, 190, 136)),
    "at night": ((10, 14, 44), (44, 54, 108)),
}
LIGHT: dict[str, RGB] = {"by day": (255, 246, 190), "at sunset": (255, 232, 170), "at night": (240, 240, 222)}
GRASS: dict[str, RGB] = {"by day": (92, 172, 66), "at sunset": (112, 132, 58), "at night": (26, 74, 60)}
_ROW, _COLUMN = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + 0.5


@dataclass(frozen=True)
class Scene:
    """What a picture shows. The caption has the first three, the rest is free."""

    kind: str
    colour: str
    sky: str
    size: float = 0.5  # 0..1, logarithmic in the bloom's radius
    lean: float = 0.0  # -1 (left) .. 1 (right)
    grass: float = 0.5  # 0..1
    light_x: float = 0.8  # 0..1, place of sun or moon
    light_y: float = 0.5  # 0..1
    extra: float = 0.0  # > 0.7: a butterfly (a firefly at night)
    extra_x: float = 0.5
    extra_y: float = 0.5
    detail: int = 0  # seed of blades, stars and clouds


def random_scene(rng: np.random.Generator, prompt: str | None = None) -> Scene:
    """Draw a scene of a prompt, or of any; its free variables do not depend on the caption's attributes."""
    named = parse(prompt) if prompt else {}
    names = {name: named.get(name) or values[int(rng.integers(len(values)))] for name, values in ATTRIBUTES.items()}
    free = rng.random(7)
    return Scene(
        **names,
        size=float(free[0]),
        lean=float(2 * free[1] - 1),
        grass=float(free[2]),
        light_x=float(free[3]),
        light_y=float(free[4]),
        extra=float(rng.random()),
        extra_x=float(free[5]),
        extra_y=float(free[6]),
        detail=int(rng.integers(2**31)),
    )


def caption(scene: Scene) -> str:
    """Return the canonical caption."""
    return f"a {scene.colour} {scene.kind} {scene.sky}"


def radius(scene: Scene) -> float:
    """Return the bloom's radius, in pixels of a 64-pixel picture."""
    return SMALLEST * SIZE_FACTOR**scene.size


def centre(scene: Scene) -> tuple[float, float]:
    """Return the bloom's centre, in pixels of a 64-pixel picture."""
    return 32 + LEAN_REACH * scene.lean, 24 + 2.5 * scene.lean**2


def render(scene: Scene) -> np.ndarray:
    """Draw the picture of a scene, uint8 (64, 64, 3); the same scene always gives the same picture."""
    rng = np.random.default_rng(scene.detail)
    side = SIDE * SCALE
    picture = _sky(scene, rng).resize((side, side), Image.Resampling.BICUBIC)
    _hills(ImageDraw.Draw(picture), scene, rng)
    if scene.extra > 0.7:
        _visitor(_Pen(picture), scene)
    plant = Image.new("RGBA", (side, side), (*_stem_colour(scene), 0))
    _plant(_Pen(plant), scene)
    plant = _shade(plant, scene)
    picture.paste(plant, (0, 0), plant)
    _grass(_Pen(picture), scene, rng)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.uint8)


class _Pen:
    """Draws in pixels of 64 on the supersampled canvas."""

    def __init__(self, canvas: Image.Image) -> None:
        self.draw = ImageDraw.Draw(canvas)

    def shape(self, points: Sequence[tuple[float, float]], colour: RGB) -> None:
        self.draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: RGB) -> None:
        self.draw.ellipse([(x - rx) * SCALE, (y - ry) * SCALE, (x + rx) * SCALE, (y + ry) * SCALE], fill=colour)

    def line(self, points: Sequence[tuple[float, float]], width: float, colour: RGB) -> None:
        flat = [(x * SCALE, y * SCALE) for x, y in points]
        self.draw.line(flat, fill=colour, width=round(width * SCALE), joint="curve")


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    """Mix colour `a` with `share` of colour `b`."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def _dim(scene: Scene, colour: RGB) -> RGB:
    """Tint a colour by the light of the scene's sky."""
    if scene.sky == "at night":
        return _mix(colour, (30, 40, 110), 0.07)
    return _mix(colour, (255, 150, 90), 0.07) if scene.sky == "at sunset" else colour


def _stem_colour(scene: Scene) -> RGB:
    return _mix(GRASS[scene.sky], (20, 90, 40), 0.45) if scene.sky != "at night" else (36, 104, 74)


# --- behind the flower ---------------------------------------------------------------------------------
def _sky(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw gradient, glow, sun or moon, stars or clouds, at 64 pixels, as they are smooth anyway."""
    top, low = (np.array(c, dtype=np.float32) for c in SKY[scene.sky])
    share = np.clip(_ROW / 50, 0, 1)[..., None]
    sky = top * (1 - share) + low * share
    x, y = 7 + 50 * scene.light_x, 7 + 13 * scene.light_y
    far = np.hypot(_COLUMN - x, _ROW - y)
    light = np.array(LIGHT[scene.sky], dtype=np.float32)
    night = scene.sky == "at night"
    if night:
        for _ in range(12):
            star = np.hypot(_COLUMN - 64 * rng.random(), _ROW - 40 * rng.random())
            bright = (np.exp(-((star / 0.75) ** 2)) * (0.55 + 0.45 * rng.random()))[..., None]
            sky = sky + (np.array((255, 250, 225), dtype=np.float32) - sky) * bright
    elif scene.sky == "by day":
        sky = _clouds(sky, rng)
    glow = ((0.22 if night else 0.5) * np.exp(-far / (7 if night else 9)))[..., None]
    sky = sky + (light - sky) * glow
    disc = np.clip(5.0 - far + 0.5, 0, 1)
    if night:  # a moon not quite full
        disc = disc * np.clip(np.hypot(_COLUMN - x - 2.6, _ROW - y + 1.4) - 3.9, 0, 1)
    sky = sky + (light - sky) * disc[..., None]
    return Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8))


def _clouds(sky: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add one or two flat, soft clouds."""
    cover = np.zeros((SIDE, SIDE), dtype=np.float32)
    for _ in range(int(rng.integers(1, 3))):
        x, y, wide = 64 * rng.random(), 6 + 18 * rng.random(), 6 + 4 * rng.random()
        for step, puff in ((-0.6, 0.55), (0.0, 0.85), (0.6, 0.6)):
            far = ((_COLUMN - x - step * wide) / (0.55 * wide)) ** 2 + ((_ROW - y) / (3.4 * puff)) ** 2
            cover = np.maximum(cover, np.clip(1.5 - far, 0, 1) * 0.6)
    return sky + (np.array((255, 255, 255), dtype=np.float32) - sky) * cover[..., None]


def _ground(scene: Scene) -> float:
    """Return the row at which the grass begins."""
    return 54.5 - 9 * scene.grass


def _hills(draw: ImageDraw.ImageDraw, scene: Scene, rng: np.random.Generator) -> None:
    """Draw a pale line of hills behind the meadow."""
    phase, colour = 6.28 * rng.random(), _mix(GRASS[scene.sky], SKY[scene.sky][1], 0.45)
    level = _ground(scene) - 3
    line = [(x * SCALE, (level + 1.6 * math.sin(x / 9.5 + phase)) * SCALE) for x in range(-1, 66, 2)]
    draw.polygon([*line, (66 * SCALE, 64 * SCALE), (-SCALE, 64 * SCALE)], fill=colour)


def _visitor(pen: _Pen, scene: Scene) -> None:
    """Draw a butterfly, or at night a firefly."""
    x, y = 6 + 52 * scene.extra_x, 12 + 30 * scene.extra_y
    if scene.sky == "at night":
        pen.disc(x, y, 2.0, 2.0, (120, 140, 70))
        pen.disc(x, y, 1.2, 1.2, (248, 252, 150))
        return
    for side in (-1, 1):
        pen.disc(x + side * 2.0, y - 1.2, 1.9, 2.0, (250, 140, 50))
        pen.disc(x + side * 1.6, y + 1.6, 1.4, 1.5, (255, 190, 90))
    pen.line([(x, y - 2.6), (x, y + 2.8)], 0.9, (60, 40, 30))


# --- the flower ----------------------------------------------------------------------------------------
def _plant(pen: _Pen, scene: Scene) -> None:
    """Draw stem, leaves and bloom."""
    green = _stem_colour(scene)
    stem = _stem(scene)
    pen.line(stem, 1.9, green)
    for place, side in ((0.2, -1), (0.36, 1)):
        at = stem[int(place * 20)]
        pen.shape(_leaf(at, side * (0.62 + 0.25 * side * scene.lean * 0.5), 13.5), _mix(green, (255, 255, 160), 0.16))
        pen.shape(_leaf(at, side * 0.7, 11, 0.11), _mix(green, (0, 30, 20), 0.18))
    bloom = {"tulip": _tulip, "daisy": _daisy, "poppy": _poppy, "bellflower": _bellflower}[scene.kind]
    bloom(pen, *centre(scene), radius(scene), _dim(scene, PETAL[scene.colour]), scene)


def _stem(scene: Scene) -> Points:
    """Return a curve from the ground to the bloom; a bellflower's goes round the bloom and hooks over."""
    x, y = centre(scene)
    r = radius(scene)
    start, bend = (32 - 2 * scene.lean, 65.0), (32 - 3 * scene.lean, 42.0)
    if scene.kind != "bellflower":
        return _curve(start, bend, (x, y + 0.3 * r))
    side = -1 if scene.detail % 2 else 1
    shoulder = (x + side * 1.02 * r, y - 0.45 * r)
    hook = _curve(shoulder, (x + side * 0.8 * r, y - 1.55 * r), (x, y - 0.85 * r))
    return _curve(start, (32 + side * 0.9 * r, 44.0), shoulder) + hook


def _curve(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], steps: int = 20) -> Points:
    """Return points on a quadratic Bezier curve."""
    out = []
    for t in np.linspace(0, 1, steps + 1).tolist():
        u = 1 - t
        out.append(tuple(u * u * p + 2 * u * t * q + t * t * r for p, q, r in zip(a, b, c, strict=True)))
    return out


def _leaf(at: tuple[float, float], angle: float, length: float, width: float = 0.34) -> Points:
    """Return a pointed oval that grows from `at`; angle 0 is up, positive angles are to the right."""
    return _petal(at[0], at[1], angle, length, width * length, 0.45, sharp=True)


def _petal(
    x: float, y: float, angle: float, length: float, width: float, belly: float = 0.62, sharp: bool = False
) -> Points:
    """Return a petal's outline from (x, y) outwards, widest at the share `belly` of its length."""
    ahead, across = (math.sin(angle), -math.cos(angle)), (math.cos(angle), math.sin(angle))
    out: Points = []
    ts = np.linspace(0, 1, 13).tolist()
    power = math.log(0.5) / math.log(belly)
    for side, order in ((1, ts), (-1, ts[::-1])):
        for t in order:
            half = side * 0.5 * width * math.sin(math.pi * t**power) ** (1.25 if sharp else 0.72)
            out.append((x + ahead[0] * t * length + across[0] * half, y + ahead[1] * t * length + across[1] * half))
    return out


def _tulip(pen: _Pen, x: float, y: float, r: float, colour: RGB, scene: Scene) -> None:
    """Draw an upright cup with three points."""
    dark, pale = _mix(colour, (40, 10, 60), 0.26), _mix(colour, (255, 255, 255), 0.28)
    tilt = 0.22 * scene.lean
    foot = (x - 0.95 * r * math.sin(tilt), y + 0.95 * r * math.cos(tilt))
    for spread, length, shade in ((-0.12, 1.86, dark), (0.14, 1.84, dark)):
        pen.shape(_petal(*foot, tilt + spread, r * length, r * 1.0, 0.5, True), shade)
    for side in (-1, 1):
        pen.shape(_petal(*foot, tilt + side * 0.4, r * 2.0, r * 0.98, 0.5, True), _mix(colour, dark, 0.3))
    pen.shape(_petal(*foot, tilt, r * 1.72, r * 1.3, 0.47), colour)
    pen.shape(_petal(*foot, tilt - 0.1, r * 1.3, r * 0.34, 0.5), _mix(colour, pale, 0.7))


def _daisy(pen: _Pen, x: float, y: float, r: float, colour: RGB, scene: Scene) -> None:
    """Draw ten slim petals round a golden centre (a brown one if the petals are yellow)."""
    turn = 0.5 * scene.lean
    dark = _mix(colour, (40, 10, 60), 0.2)
    for i in range(10):
        angle = turn + i * math.tau / 10
        pen.shape(_petal(x, y, angle, r * 1.08, r * 0.44, 0.7), _mix(colour, dark, 0.5 * (i % 2)))
        pen.shape(_petal(x, y, angle, r * 0.8, r * 0.1, 0.6), dark)
    heart = _dim(scene, (150, 84, 30) if scene.colour == "yellow" else (250, 190, 40))
    pen.disc(x, y, 0.34 * r, 0.34 * r, _mix(heart, (90, 40, 0), 0.35))
    pen.disc(x - 0.03 * r, y - 0.04 * r, 0.27 * r, 0.27 * r, heart)


def _poppy(pen: _Pen, x: float, y: float, r: float, colour: RGB, scene: Scene) -> None:
    """Draw four broad, overlapping, crumpled petals round a black centre."""
    dark = _mix(colour, (40, 10, 60), 0.24)
    turn = 0.3 * scene.lean
    for i, shade in ((0, dark), (2, dark), (1, colour), (3, colour)):
        angle = turn + i * math.pi / 2
        px, py = x + 0.46 * r * math.sin(angle), y - 0.46 * r * math.cos(angle)
        edge = []
        for a in np.linspace(0, math.tau, 40, endpoint=False).tolist():
            bump = 1 + 0.05 * math.cos(7 * a + i)
            u, v = 0.76 * r * bump * math.sin(a), 0.58 * r * bump * math.cos(a)
            edge.append(
                (px + u * math.cos(angle) - v * math.sin(angle), py + u * math.sin(angle) + v * math.cos(angle))
            )
        pen.shape(edge, shade)
        pen.shape(_petal(x, y, angle, 0.72 * r, 0.5 * r, 0.6), _mix(shade, dark, 0.55))
    pen.disc(x, y, 0.3 * r, 0.3 * r, (34, 24, 40))
    pen.disc(x, y, 0.13 * r, 0.13 * r, (150, 160, 90))


def _bellflower(pen: _Pen, x: float, y: float, r: float, colour: RGB, scene: Scene) -> None:
    """Draw a hanging bell with a flared, toothed lip."""
    dark, pale = _mix(colour, (40, 10, 60), 0.28), _mix(colour, (255, 255, 255), 0.3)
    green = _stem_colour(scene)
    rows = ((-0.95, 0.1), (-0.88, 0.36), (-0.68, 0.56), (-0.35, 0.66), (0.0, 0.72), (0.3, 0.84), (0.55, 1.06))
    left = [(x - half * r, y + row * r) for row, half in rows]
    right = [(x + half * r, y + row * r) for row, half in rows]
    pen.disc(x, y + 0.62 * r, 0.98 * r, 0.2 * r, dark)
    pen.disc(x, y + 0.98 * r, 0.12 * r, 0.2 * r, (250, 214, 96))
    teeth: Points = [
        (x + s * r, y + d * r)
        for s, d in ((0.86, 0.98), (0.62, 0.64), (0.34, 1.04), (0.0, 0.66), (-0.34, 1.04), (-0.62, 0.64), (-0.86, 0.98))
    ]
    pen.shape([*left, *teeth[::-1], *right[::-1]], colour)
    for s in (-0.34, 0.34):
        pen.line(
            [(x + 0.2 * s * r, y - 0.8 * r), (x + s * r, y + 0.1 * r), (x + 1.2 * s * r, y + 0.6 * r)], 0.09 * r, dark
        )
    pen.shape(_petal(x - 0.3 * r, y + 0.4 * r, -0.02, 0.95 * r, 0.22 * r), _mix(colour, pale, 0.7))
    pen.shape(_petal(x, y - 1.08 * r, math.pi - 0.7, 0.48 * r, 0.24 * r), green)
    pen.shape(_petal(x, y - 1.08 * r, math.pi + 0.7, 0.48 * r, 0.24 * r), green)


def _shade(plant: Image.Image, scene: Scene) -> Image.Image:
    """Shade the bloom softly: brighter above, darker below."""
    x, y = centre(scene)
    r = radius(scene)
    far = np.hypot(_COLUMN - x + 0.35 * r, _ROW - y + 0.5 * r) / (1.9 * r)
    light = Image.fromarray(np.clip(255 * (1.0 - 0.3 * np.clip(far, 0, 1) ** 2), 0, 255).astype(np.uint8))
    light = light.resize(plant.size, Image.Resampling.BILINEAR)
    black = Image.new("RGBA", plant.size, (20, 16, 50, 255))
    lit = Image.composite(plant, black, light)
    lit.putalpha(plant.getchannel("A"))
    return lit


# --- before the flower ---------------------------------------------------------------------------------
def _grass(pen: _Pen, scene: Scene, rng: np.random.Generator) -> None:
    """Draw the meadow in front: a base and blades in three tones."""
    base, level = GRASS[scene.sky], _ground(scene)
    light, dark = _mix(base, (255, 255, 140), 0.2), _mix(base, (0, 30, 30), 0.28)
    for depth, (tone, count, lift) in enumerate(((dark, 13, 0.0), (base, 14, 3.5), (light, 9, 7.5))):
        foot = level + 4 + lift
        if depth < 2:
            pen.shape([(-1, foot), (65, foot), (65, 65), (-1, 65)], tone)
        for i in range(count):
            x = (i + rng.random()) * 64 / count
            high, slant = (5 + 4 * rng.random()) * (0.6 + 0.7 * scene.grass), 5 * (rng.random() - 0.5)
            pen.shape([(x - 1.6, foot + 2), (x + slant, foot - high), (x + 1.6, foot + 2)], tone)
