"""Prompt adherence against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from d3po_core.diffusion.denoiser import Conditioning, Denoiser, Prediction
from d3po_core.evaluation.effect import ADHERENCE_RATIOS, prompt_adherence
from d3po_core.models import DiffusersModel
from tests.tiny_pipelines import tiny_sd


class Gaussian(Denoiser):
    """The exact denoiser of latents that are N(mean, 1), with means that the prompt and its negative name.

    D(x, sigma) is the posterior mean, (signal x / sigma^2 + mean) / (signal^2 / sigma^2 + 1).
    """

    def __init__(self, family: str) -> None:
        self.family = family  # type: ignore[assignment]
        self.module = torch.nn.Linear(1, 1)
        self.rows: list[int] = []

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def clean(self, latents: Tensor) -> Tensor:
        return latents / 2

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        self.rows.append(len(x))
        level = sigma.to(x)[:, None]
        signal = 1 - level if self.family == "flow" else torch.ones_like(level)
        ratio = (level / signal) ** 2
        cond, uncond = (
            (x / signal + ratio * conditioning[n][:, None]) / (1 + ratio) for n in ("mean", "negative_mean")
        )
        return Prediction(cond, uncond + guidance_scale * (cond - uncond), uncond)


@pytest.mark.parametrize("family", ["diffusion", "flow"])
def test_it_is_the_expected_difference_of_errors(family: str) -> None:
    """With r = sigma/signal: D - x0 = (r n + r^2 (m - x0)) / (1 + r^2), so that the noise cancels but for a cross term.

    The expected difference of squared errors is r^4 / (1 + r^2)^2 times that of (m - x0)^2, the same in both families.
    """
    x0 = torch.randn(3, 4000, generator=torch.Generator().manual_seed(1)) * 0.01 + torch.tensor([[0.0], [1.0], [2.0]])
    means = [{"mean": torch.tensor([2.0]), "negative_mean": torch.tensor([0.0])}] * 3
    found = prompt_adherence(Gaussian(family), 2 * x0, means, 2.5, draws=4).float()
    for of_ratio, ratio in zip(found.T, ADHERENCE_RATIOS, strict=True):
        factor = ratio**4 / (1 + ratio**2) ** 2
        expected = factor * (x0.square() - (x0 - 2).square()).mean(1)
        torch.testing.assert_close(of_ratio, expected, atol=0.06, rtol=0)
        assert of_ratio[0] < of_ratio[1] < of_ratio[2]


def test_a_picture_is_one_batch_of_its_noises() -> None:
    means = [{"mean": torch.tensor([float(each)]), "negative_mean": torch.tensor([0.0])} for each in range(5)]
    denoiser, latents = Gaussian("diffusion"), torch.randn(5, 8)
    found = prompt_adherence(denoiser, latents, means, 2.5, draws=3)
    assert denoiser.rows == [3] * 5 * len(ADHERENCE_RATIOS)
    alone = prompt_adherence(denoiser, latents[2:3], means[2:3], 2.5, draws=3)
    torch.testing.assert_close(alone[0], found[2])


def test_a_pipeline_answers_with_its_two_branches() -> None:
    model = DiffusersModel(tiny_sd())
    (row,) = model.encode(["a red fox"])
    latents = torch.randn(2, *model.latent_shape())
    found = prompt_adherence(model.denoiser, latents, [row] * 2, 3.0, draws=1)
    assert found.shape == (2, len(ADHERENCE_RATIOS)) and found.abs().max() > 0
    alike = {name: row[f"negative_{name.removeprefix('negative_')}"] for name in row}
    assert prompt_adherence(model.denoiser, latents, [alike] * 2, 3.0, draws=1).abs().max() < 1e-6
