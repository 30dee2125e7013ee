"""D3PO with every recorded step credited with the finished picture, against normal densities and by what it does."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from d3po_core.run import Round, Run
from d3po_core.settings import TrainSettings, fill_in, from_stored
from d3po_core.training import trainer as module
from d3po_core.training.methods import METHODS
from d3po_core.training.passes import BatchLimits
from d3po_core.training.preference_optimizer import PreferenceOptimizer
from d3po_core.training.rows import Reference, TrainingGroup, group_rows, predict
from tests.toy import ToyDenoiser, ToyModel, toy_group
from tests.training.picked import picked_run, trainer
from tests.training.test_methods import RANKED, FlowToy, double_group, flat, in_double


class Scaled(ToyDenoiser):
    """Finished latents are in another space than x."""

    def clean(self, latents: Tensor) -> Tensor:
        return 2 * latents + 0.1


@pytest.mark.parametrize("make", [ToyDenoiser, FlowToy, Scaled])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("level", ["trajectory", "step"])
def test_loss_and_gradient_are_those_of_jumps_to_the_picture(make, guided: bool, level: str):
    base, policy = in_double(make()), in_double(make().tuned(4))
    group, how = double_group(), fill_in(TrainSettings(beta=30.0, guided_loss=guided, level=level))
    ref = group.guided if guided else group.cond
    rows = group_rows(group, ref, guided, torch.device("cpu"), clean=base.clean(group.latents))
    values = METHODS["d3po"].values(predict(policy, rows), rows, how).unflatten(0, (3, -1))
    loss = METHODS["d3po"].loss(values, group, how, 0.0)
    gradient = flat(torch.autograd.grad(loss, list(policy.module.parameters())))

    ratios = torch.empty(3, 3, dtype=torch.float64)
    for c in range(3):
        picture = base.clean(group.latents[c])
        for k in range(3):
            sigma = group.steps.sigma[k]
            found = policy(group.x[c, k][None], sigma[None], group.conditioning, 3.0)
            ours, theirs = (found.guided if guided else found.cond)[0], ref[c, k]
            ratio = Normal(ours, sigma).log_prob(picture) - Normal(theirs, sigma).log_prob(picture)
            ratios[c, k] = ratio.sum() / group.elements
    total = torch.zeros((), dtype=torch.float64)
    for pair in group.pairs:
        difference = ratios[pair.winner] - ratios[pair.loser]
        joined = difference.sum() if level == "trajectory" else difference
        total = total - pair.weight * torch.log(torch.sigmoid(30.0 * joined)).mean()
    assert float(loss) == pytest.approx(total.item(), rel=1e-9)
    expected = flat(torch.autograd.grad(total, list(policy.module.parameters())))
    assert expected.norm() > 1e-6 and (gradient - expected).norm() <= 1e-9 * expected.norm()


def optimizer(policy: ToyDenoiser, group: TrainingGroup, **how: object) -> PreferenceOptimizer:
    return PreferenceOptimizer(
        policy,
        list(policy.module.parameters()),
        {group.id: 3},
        {},
        lambda name: group,
        Reference("base", ToyDenoiser(), contextlib.nullcontext, 100),
        fill_in(TrainSettings(**{"epochs": 40, "warmup": 0, "learning_rate": 1e-3, "trained_steps": 0, **how})),
        BatchLimits(100, 100),
    )


def test_training_brings_the_prediction_nearer_to_the_picture_that_won():
    """Than to the one that lost, over what the base predicts from the same latents."""
    group = toy_group(ToyDenoiser(), 1, 3, RANKED)
    moved = {}
    for credit in ("picture", "step"):
        policy = ToyDenoiser()
        fit = optimizer(policy, group, credit=credit)
        assert fit.settings.beta == (2000 if credit == "picture" else 205)
        while fit.done < fit.total:
            fit.update()
        rows = group_rows(group, group.cond, False, torch.device("cpu"))
        with torch.no_grad():
            now = predict(policy, rows).unflatten(0, (3, 3))
        pictures = group.latents[:, None]
        nearer = (group.cond - pictures).square().mean((1, 2, 3, 4)) - (now - pictures).square().mean((1, 2, 3, 4))
        moved[credit] = float(nearer[0] - nearer[1])
    assert moved["picture"] > 0
    assert moved["picture"] > 2 * moved["step"]


def test_what_was_begun_otherwise_goes_on_so():
    assert from_stored(TrainSettings, {"epochs": 3}).credit == "picture"
    chosen = from_stored(TrainSettings, {"beta": 205.0, "epochs": 3})
    assert (chosen.credit, chosen.beta) == ("step", 205.0)
    assert from_stored(TrainSettings, {"learning_rate": 3e-3}).credit == "step"
    assert from_stored(TrainSettings, {"beta": 900.0, "credit": "picture"}).credit == "picture"
    assert fill_in(TrainSettings(credit="step")).learning_rate == 1.5e-3
    assert fill_in(TrainSettings(credit="step", method="ddpo")).learning_rate == 5e-4


def test_a_round_of_before_goes_on_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps are credited with their own noise, at a rate that does not fall."""
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    with trainer(run, model, judge=False) as first:
        next(first.steps())
        beta = first.settings.beta
    real = module.stopped_round

    def before(run: Run, kind: str) -> Round | None:
        stopped = real(run, kind)
        kept = {name: value for name, value in stopped.settings[kind].items() if name not in ("credit", "decay")}
        return dataclasses.replace(stopped, settings={**stopped.settings, kind: kept})

    monkeypatch.setattr(module, "stopped_round", before)
    with trainer(run, model) as second:
        assert second.resumed
        assert (second.settings.credit, second.settings.decay, second.settings.beta) == ("step", False, beta)
