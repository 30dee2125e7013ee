"""The smooth JPEG size against closed forms, against what Pillow writes, and against finite differences."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from d3po_core.rewards import simple
from d3po_core.rewards.simple import jpeg_size
from tools.garden.pictures import Scene, render


def saved(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return Image.open(file)


def ranks(values: Tensor) -> Tensor:
    return values.argsort().argsort().double()


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def noises(count: int, side: int, seed: int) -> Tensor:
    """Noise of all grains and strengths, (count, 3, side, side)."""
    chance = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        grain = 2 ** int(torch.randint(0, 5, (), generator=chance))
        noise = torch.rand(1, 3, side // grain, side // grain, generator=chance)
        noise = torch.nn.functional.interpolate(noise, (side, side), mode="bilinear")
        strength, shift = torch.rand(2, generator=chance).tolist()
        found.append(((noise - 0.5) * 3 * strength + shift).clamp(0, 1))
    return torch.cat(found)


def renderings(count: int, seed: int) -> Tensor:
    chance = np.random.default_rng(seed)
    scenes = [
        Scene(kind, colour, sky, *chance.uniform(0, 1, 2))
        for kind, colour, sky in zip(
            chance.choice(["daisy", "tulip"], count),
            chance.choice(["red", "yellow", "blue"], count),
            chance.choice(["by day", "at night"], count),
            strict=True,
        )
    ]
    return torch.stack([torch.from_numpy(render(scene).copy()).permute(2, 0, 1) / 255 for scene in scenes])


@pytest.mark.parametrize("quality", [10, 49, 50, 75, 95, 100])
def test_the_quantisation_tables_are_those_that_pillow_writes(quality):
    written = saved(Image.new("RGB", (16, 16)), quality).quantization  # type: ignore[attr-defined]
    for number, table in enumerate((simple.LUMA_STEPS, simple.CHROMA_STEPS)):
        assert simple.steps(table, quality).flatten().tolist() == list(written[number])


def test_the_cosine_transform_is_its_definition():
    """T.81, A.3.3, summed up as it stands there."""
    plane = torch.randn(2, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = simple.coefficients(plane)
    assert found.shape == (2, 2, 3, 8, 8)
    block = plane[1, 8:16, 16:24].numpy()
    for v in range(8):
        for u in range(8):
            total = sum(
                block[y, x] * math.cos((2 * x + 1) * u * math.pi / 16) * math.cos((2 * y + 1) * v * math.pi / 16)
                for y in range(8)
                for x in range(8)
            )
            scale = (1 / math.sqrt(2) if u == 0 else 1) * (1 / math.sqrt(2) if v == 0 else 1) / 4
            assert float(found[1, 1, 2, v, u]) == pytest.approx(scale * total, abs=1e-12)


def test_the_colours_are_those_of_pillow():
    image = noises(1, 32, 5)
    pixels = (image * 255).round()
    expected = np.asarray(Image.fromarray(np.uint8(pixels[0].permute(1, 2, 0))).convert("YCbCr"), dtype=np.float64)
    luma, blue, red = (each[0].numpy() for each in simple.ycbcr(pixels))
    for found, channel in ((luma + 128, 0), (blue + 128, 1), (red + 128, 2)):
        assert np.abs(found - expected[..., channel]).max() <= 1.01  # Pillow rounds


def test_a_flat_picture_costs_its_first_mean_only():
    image = torch.full((1, 3, 32, 32), 200 / 255, dtype=torch.float64)
    coefficient = 8 * (200 - 128) / 2  # the mean of 64 pixels times 8, over a step of 2 at quality 95
    expected = math.log2(1 + 4 * coefficient**2) / 2 * 2 / 8000
    assert float(simple.smooth_jpeg_size(image)) == pytest.approx(expected, rel=1e-6)


def test_sides_that_are_no_multiples_are_continued():
    image = noises(1, 32, 6)[..., :27, :21]
    whole = torch.nn.functional.pad(image, (0, 11, 0, 5), mode="replicate")
    assert simple.smooth_jpeg_size(image).shape == (1,)
    luma = simple.coefficients(simple.ycbcr(image)[0])
    assert torch.allclose(luma, simple.coefficients(simple.ycbcr(whole)[0])[:, :, :3])


def test_gradients_are_those_of_finite_differences():
    images = noises(1, 16, 7).double()[..., :11, :10].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(simple.smooth_jpeg_size, (images,), eps=1e-5, atol=1e-7)
    flat = torch.full((1, 3, 8, 8), 0.4, dtype=torch.float64, requires_grad=True)  # |c| would have a corner here
    assert torch.autograd.gradcheck(simple.smooth_jpeg_size, (flat,), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_ranks_pictures_as_real_files_do(seed):
    for images, at_least in ((noises(60, 64, seed), 0.99), (renderings(60, seed), 0.97)):
        smooth, real = simple.smooth_jpeg_size(images), jpeg_size(images)
        assert correlation(ranks(smooth), ranks(real)) > at_least
        slope = float(((smooth - smooth.mean()) * (real - real.mean())).sum() / (smooth - smooth.mean()).square().sum())
        assert 0.8 < slope < 1.25  # it is in units of 1,000 bytes
