"""Sampling: against a loop over torch's normal distribution, alone and in company."""

from __future__ import annotations

import pytest
import torch

from d3po_core.diffusion.rollout import CandidateNoise, make_plan, sample
from d3po_core.errors import D3POError
from d3po_core.settings import SampleSettings, replace
from tests.toy import SHAPE, ToyDenoiser

PROMPT = {"prompt": torch.tensor([[0.3, -1.0, 0.5, 2.0]])}
SETTINGS = SampleSettings(steps=8, window_sigma=4.0)


def noises(count: int, start: str = "same") -> list[CandidateNoise]:
    return [CandidateNoise(7, 3, c, SHAPE, start) for c in range(count)]


def draw(count: int, settings: SampleSettings = SETTINGS, start: str = "same"):  # type: ignore[no-untyped-def]
    denoiser = ToyDenoiser()
    plan = make_plan(denoiser, settings)
    batch = {"prompt": PROMPT["prompt"].expand(count, -1)}
    return plan, sample(denoiser, plan, noises(count, start), batch, 3.0)


def test_noise_is_injected_in_the_window_alone() -> None:
    plan, _ = draw(2)
    assert plan.trained == 5  # 8, 7, 6, 5, 4
    assert (plan.steps.std[:5] > 0).all() and (plan.steps.std[5:] == 0).all()


def test_all_steps_but_the_last_can_be_trained_as_published() -> None:
    plan, _ = draw(2, replace(SETTINGS, {"window": "all", "noise": "all"}))
    assert plan.trained == 7  # a step to sigma 0 has no density


def test_a_candidate_can_be_drawn_again_alone() -> None:
    plan, together = draw(4)
    denoiser = ToyDenoiser()
    alone = sample(denoiser, plan, [CandidateNoise(7, 3, 2, SHAPE, "same")], PROMPT, 3.0)
    assert torch.allclose(alone.latents[0], together.latents[2], atol=1e-6)


@pytest.mark.parametrize("start", ["same", "related", "independent"])
def test_candidates_share_their_start_only_if_told(start: str) -> None:
    _, t = draw(3, start=start)
    assert torch.equal(t.x[0, 0], t.x[1, 0]) == (start == "same")
    assert not torch.equal(t.x[0, 1], t.x[1, 1])


@pytest.mark.parametrize(("start", "shared"), [("same", 1.0), ("related", 0.5), ("independent", 0.0)])
def test_starts_are_unit_noise_of_which_a_group_shares_a_part(start: str, shared: float) -> None:
    one, two, other = (
        CandidateNoise(7, number, candidate, (40, 50, 50), start).start().flatten().double()
        for number, candidate in ((3, 0), (3, 1), (4, 0))
    )
    assert one.std() == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(torch.stack([one, two]))[0, 1] == pytest.approx(shared, abs=0.02)
    assert torch.corrcoef(torch.stack([one, other]))[0, 1] == pytest.approx(0, abs=0.02)


def test_a_related_start_is_repeated_exactly_and_not_injected_again() -> None:
    again, noise = CandidateNoise(7, 3, 1, SHAPE, "related"), CandidateNoise(7, 3, 1, SHAPE, "related")
    start = noise.start()
    assert torch.equal(start, again.start())
    assert abs(float(torch.corrcoef(torch.stack([start.flatten(), noise.step().flatten()]))[0, 1])) < 0.5


def test_recorded_steps_follow_from_each_other() -> None:
    plan, t = draw(3)
    s = plan.steps
    for k in range(plan.trained):
        z = (t.x[:, k + 1] - s.x_coef[k] * t.x[:, k] - s.denoised_coef[k] * t.guided[:, k]) / s.std[k]
        assert z.std() == pytest.approx(1.0, abs=0.3)
    expected = ToyDenoiser()(t.x[:, 2], s.sigma[2].expand(3), {"prompt": PROMPT["prompt"].expand(3, -1)}, 3.0)
    assert torch.allclose(t.guided[:, 2], expected.guided, atol=1e-6)
    assert torch.allclose(t.cond[:, 2], expected.cond, atol=1e-6)


def test_starting_latents_have_the_first_level_of_noise() -> None:
    _, t = draw(1)
    start = CandidateNoise(7, 3, 0, SHAPE, "same").start()
    assert torch.allclose(t.x[0, 0], start * 65**0.5, rtol=1e-6)  # sqrt(1 + 8^2)


def test_one_step_leaves_nothing_to_train() -> None:
    with pytest.raises(D3POError, match="nothing to train"):
        make_plan(ToyDenoiser(), replace(SETTINGS, {"steps": 1}))
