"""Scorers against independent computations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d3po_core import scorers
from d3po_core.embedded import JUDGE
from d3po_core.errors import D3POError

needs_judge = pytest.mark.skipif(not (JUDGE / "model.safetensors").exists(), reason="the judge is not trained yet")


def pictures(count: int = 5, side: int = 24) -> torch.Tensor:
    """Images from flat to noisy, in [0, 1]."""
    noise = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))
    return 0.5 + (noise - 0.5) * torch.linspace(0, 1, count).reshape(-1, 1, 1, 1)


def test_jpeg_size_is_that_of_a_file_on_disk(tmp_path):
    images = pictures()
    for image, size in zip(images, scorers.jpeg_size(images), strict=True):
        Image.fromarray(np.uint8(np.rint(image.numpy().transpose(1, 2, 0) * 255))).save(tmp_path / "a.jpg", quality=95)
        assert float(size) == pytest.approx((tmp_path / "a.jpg").stat().st_size / 1000)


def test_noise_is_less_compressible_than_a_flat_picture():
    sizes = scorers.get_scorer("incompressibility")(pictures(), [""] * 5)
    assert bool((sizes.diff() > 0).all())
    assert torch.equal(scorers.get_scorer("compressibility")(pictures(), [""] * 5), -sizes)


def test_values_beyond_the_range_are_clipped_not_wrapped():
    images = pictures() * 3 - 1
    assert torch.equal(scorers.jpeg_size(images), scorers.jpeg_size(images.clamp(0, 1)))


def test_warmth_is_red_minus_blue():
    colours = torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.9, 0.2], [0.0, 0.0, 1.0]])
    images = colours[:, :, None, None].expand(3, 3, 8, 8)
    assert scorers.warmth(images, [""] * 3).tolist() == pytest.approx([1.0, 0.0, -1.0])
    mixed = pictures()
    expected = [np.mean(x[0]) - np.mean(x[2]) for x in mixed.numpy().astype(np.float64)]
    assert scorers.warmth(mixed, [""] * 5).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in scorers.SCORERS if "garden" not in name])
def test_half_precision_gives_float32_scores(name):
    scores = scorers.get_scorer(name)(pictures().half(), [""] * 5)
    assert scores.shape == (5,) and scores.dtype == torch.float32 and scores.device.type == "cpu"


@needs_judge
@pytest.mark.parametrize(("name", "what"), [("garden-size", "size"), ("garden-lean", "lean")])
def test_garden_scorers_order_renderings(name, what):
    from d3po_core.embedded.pictures import Scene, render

    values = [0.05, 0.5, 0.95]
    scenes = [Scene("daisy", "red", "by day", **{what: value}) for value in values]
    images = torch.stack([torch.from_numpy(render(scene).copy()).permute(2, 0, 1) / 255 for scene in scenes])
    scores = scorers.get_scorer(name)(images, ["a red daisy by day"] * 3)
    assert bool((scores.diff() > 0).all()) and not scores.requires_grad


def test_an_unknown_scorer_names_the_known_ones():
    with pytest.raises(D3POError, match=r"no scorer called 'beauty'.*warmth"):
        scorers.get_scorer("beauty")


def test_every_scorer_says_what_it_likes():
    assert all((scorer.__doc__ or "").startswith("Likes ") for scorer in scorers.SCORERS.values())


def test_importing_scorers_loads_no_heavy_library():
    code = "import sys, d3po_core.scorers as s; print({'transformers', 'diffusers', 'peft'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert said.stdout.strip() == "set()"
