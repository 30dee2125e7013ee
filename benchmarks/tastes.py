"""Tastes to learn, plain functions of the pixels; the learning benchmarks and the command line take them by name.

d3po annotate --run my-taste --scorer benchmarks/tastes.py:saturated
"""

from __future__ import annotations

import torch
from torch import Tensor

from d3po_core.rewards import REWARDS, Reward, reward_of


def saturation(images: Tensor) -> Tensor:
    """Return each pixel's greatest minus its least channel, (B, H, W), of images (B, 3, H, W)."""
    return images.amax(1) - images.amin(1)


def saturated(images: Tensor, prompts: list[str]) -> Tensor:
    """Saturated colours: mean of the greatest minus the least channel."""
    return saturation(images).mean((1, 2))


def symmetric(images: Tensor, prompts: list[str]) -> Tensor:
    """Left like right: minus the mean difference from the mirrored image."""
    return -(images - images.flip(-1)).abs().mean((1, 2, 3))


def low(images: Tensor, prompts: list[str]) -> Tensor:
    """Colour far down: the height of the centre of saturation, 0 at the top and 1 at the bottom."""
    weight = saturation(images).sum(2)
    place = torch.linspace(0, 1, weight.shape[1], device=weight.device, dtype=weight.dtype)
    return (weight * place).sum(1) / weight.sum(1).clamp(min=1e-6)


def small(images: Tensor, prompts: list[str]) -> Tensor:
    """Small blooms: less than `garden-size` likes."""
    return -REWARDS["garden-size"](images, prompts)


def dark(images: Tensor, prompts: list[str]) -> Tensor:
    """Darkness: minus the mean."""
    return -images.mean((1, 2, 3))


def grey(images: Tensor, prompts: list[str]) -> Tensor:
    """Little colour: minus `saturated`."""
    return -saturated(images, prompts)


def grain(images: Tensor, prompts: list[str]) -> Tensor:
    """Fine texture: share of the luminance's power above a fifth of the sampling rate."""
    light = images.mean(1)
    power = torch.fft.rfft2(light - light.mean((1, 2), keepdim=True)).abs().square()
    rows, columns = torch.fft.fftfreq(light.shape[1]), torch.fft.rfftfreq(light.shape[2])
    fine = ((rows[:, None].square() + columns.square()).sqrt() > 0.2).to(power)
    return (power * fine).sum((1, 2)) / power.sum((1, 2)).clamp(min=1e-9)


def sky(images: Tensor) -> Tensor:
    """Return the upper third of images (B, 3, H, W) as (B, H, W) of bool."""
    height, width = images.shape[-2:]
    return (torch.arange(height) * 3 < height)[:, None].expand(len(images), height, width)


def left(images: Tensor) -> Tensor:
    """Return the left half of images (B, 3, H, W) as (B, H, W) of bool."""
    height, width = images.shape[-2:]
    return (torch.arange(width) * 2 < width).expand(len(images), height, width)


def colourful(images: Tensor) -> Tensor:
    """Return where images (B, 3, H, W) are more colourful than in the mean, (B, H, W) of bool."""
    colour = saturation(images)
    return colour > colour.mean((1, 2), keepdim=True)


def mean_in(part: Tensor, values: Tensor) -> Tensor:
    """Return the mean of values (B, H, W) over a part of the same shape, (B,)."""
    return (values * part).sum((1, 2)) / part.sum((1, 2)).clamp(min=1)


def warm_sky(images: Tensor, prompts: list[str]) -> Tensor:
    """Warm colours in the upper third: red less blue."""
    return mean_in(sky(images), images[:, 0] - images[:, 2])


def bright_left(images: Tensor, prompts: list[str]) -> Tensor:
    """Light in the left half."""
    return mean_in(left(images), images.mean(1))


def dark_blooms(images: Tensor, prompts: list[str]) -> Tensor:
    """Dark where it is colourful."""
    return -mean_in(colourful(images), images.mean(1))


TASTES: dict[str, Reward] = {
    "large blooms": REWARDS["garden-size"],
    "leans right": REWARDS["garden-lean"],
    "warmth": REWARDS["warmth"],
    "saturated": reward_of(saturated),
    "symmetric": reward_of(symmetric),
    "low": reward_of(low),
    "compressibility": REWARDS["compressibility"],
    "incompressibility": REWARDS["incompressibility"],
}

CONTRARY: dict[str, Reward] = {each.__name__: reward_of(each) for each in (small, dark, grey, grain)}
"""Tastes that cost what a prompt says, to see whether that is noticed; recipes are not chosen by them."""

LOCAL: dict[str, Reward] = {
    "warm sky": reward_of(warm_sky),
    "bright left": reward_of(bright_left),
    "dark blooms": reward_of(dark_blooms),
}
"""Tastes about a part of the picture, to see what painting over it is worth."""
PARTS = {"warm sky": sky, "bright left": left, "dark blooms": colourful, "large blooms": colourful}
"""The part that a taste is about, of images (B, 3, H, W) to (B, H, W) of bool."""
