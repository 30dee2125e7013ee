"""Teaching by a reward: it learns, it can be stopped and gone on with, and bad rewards are told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from d3po_core.app.sampling import sample_groups
from d3po_core.diffusion.rollout import CandidateNoise, make_plan
from d3po_core.errors import D3POError
from d3po_core.lora.attachment import applied
from d3po_core.picks import Pick
from d3po_core.rewards import REWARDS, Reward
from d3po_core.run import RoundSummary, Run
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings
from d3po_core.training import reward_gradient
from d3po_core.training.reward_gradient import PromptSample, RewardGradient
from d3po_core.training.reward_trainer import RewardTrainer
from d3po_core.training.trainer import Trainer
from tests.toy import SHAPE, ToyModel
from tests.training.rounds import train_some, train_to_end

SAMPLE = SampleSettings(steps=8, window_sigma=4.0, guidance_scale=3.0)
PROMPTS = ["a hill", "a lake", "a tree"]
REDNESS = Reward("redness", "red", lambda images, prompts: (images[:, 0] - images[:, 1]).mean((1, 2)), True)


def run_of(folder: Path, model: ToyModel) -> Run:
    run = Run.create(folder, name="toy", model={"identity": model.identity}, settings={})
    for prompt, conditioning in zip(PROMPTS, model.encode(PROMPTS), strict=True):
        run.prompts.save_conditioning(run.prompts.add(prompt, ""), conditioning)
    return run


def trainer(run: Run, model: ToyModel, reward: Reward = REDNESS, **changes: object) -> RewardTrainer:
    settings = RewardSettings(**{"updates": 30, "drift_limit": 0.0, "learning_rate": 0.01, **changes})  # type: ignore[arg-type]
    return RewardTrainer.open(run, model, reward, settings, LoraSettings(rank=2), SAMPLE)


def made(function: object, name: str = "made", differentiable: bool = True) -> Reward:
    return Reward(name, "nothing", function, differentiable)  # type: ignore[arg-type]


def rewards_on_other_noise(model: ToyModel, weights: object) -> Tensor:
    """Of a policy on noises that training does not use."""
    noises = [CandidateNoise(99, i, 0, SHAPE, "same") for i in range(24)]
    rows = [model.encode([PROMPTS[i % 3]])[0] for i in range(24)]
    with applied(model.denoiser, weights), torch.no_grad():  # type: ignore[arg-type]
        images = model.decode(model.sample(make_plan(model.denoiser, SAMPLE), noises, rows, 3.0).latents)
    return REDNESS(images, [""] * 24)


def test_a_reward_teaches_attention_layers_unless_others_are_asked_for(tmp_path: Path) -> None:
    model = ToyModel()
    with trainer(run_of(tmp_path / "run", model), model) as teaching:
        assert LoraSettings().targets == "auto"
        assert teaching.lora_settings.targets == "attention"


@pytest.mark.parametrize("variant", ["draft-lv", "draft-k", "draft", "refl"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_variant_raises_the_reward_on_other_noise(tmp_path: Path, variant: str, seed: int) -> None:
    model = ToyModel()
    before = model.denoiser.module.attn1["to_q"].weight.clone()
    teaching = trainer(run_of(tmp_path / "run", model), model, variant=variant, last=2, seed=seed)
    reports = train_to_end(teaching)
    result = teaching.result()
    assert len(reports) == 30 and reports[-1].watched is not None
    assert reports[-1].watched == result.figures["reward"] > result.figures["reward_before"]
    untaught, taught = (rewards_on_other_noise(model, w) for w in (None, result.weights))
    assert (taught - untaught).mean() > 3 * (taught - untaught).std() / 24**0.5
    assert torch.equal(model.denoiser.module.attn1["to_q"].weight, before)
    assert [part for part, _ in result.strength_scan] == [1.0, 0.85, 0.7, 0.55, 0.4, 0.25]
    assert result.strength_scan[0][1] > result.strength_scan[2][1] > 0


def test_a_stopped_round_goes_on_to_the_same_end(tmp_path: Path) -> None:
    model = ToyModel()
    whole = trainer(run_of(tmp_path / "a", model), model, updates=12)
    train_to_end(whole)
    run = run_of(tmp_path / "b", model)
    train_some(trainer(run, model, updates=12), 5)
    again = trainer(run, model, updates=99)  # the settings that it was begun with count
    assert again.resumed
    assert [report.update for report in again.steps()] == list(range(6, 13))
    for path, expected in whole.result().weights.items():
        assert torch.equal(again.result().weights[path].up, expected.up)


def test_a_stopped_round_is_finished_without_its_reward(tmp_path: Path) -> None:
    model = ToyModel()
    empty = Run.create(tmp_path / "empty", name="empty", model={}, settings={})
    for run in (empty, run_of(tmp_path / "new", model)):
        with pytest.raises(D3POError, match="No round of this taste was stopped"):
            RewardTrainer.open_stopped(run, model, RewardSettings())
    five = trainer(run_of(tmp_path / "five", model), model, updates=5, warmup=0)
    train_to_end(five)
    run = run_of(tmp_path / "run", model)
    train_some(trainer(run, model, updates=12, warmup=0), 5)
    stopped = RewardTrainer.open_stopped(run, model, RewardSettings(micro_batch=1))
    assert train_to_end(stopped) == []
    result = stopped.result()
    assert stopped.reward_name == "redness" and result.round == 1 and result.reason == "Stopped before the end."
    for path, expected in five.result().weights.items():
        assert torch.equal(result.weights[path].up, expected.up) and bool(expected.up.any())
    assert [drift for _, drift in result.strength_scan] == pytest.approx(
        [drift for _, drift in five.result().strength_scan]
    )


def test_it_is_kept_as_a_round_and_the_next_goes_on_from_it(tmp_path: Path) -> None:
    model = ToyModel()
    run = run_of(tmp_path / "run", model)
    first = trainer(run, model, updates=8, watch=4)
    train_to_end(first)
    (tmp_path / "run" / "one.safetensors").touch()
    run.rounds.finish(first.round, "one.safetensors", "one", RoundSummary())
    assert run.rounds.open() is None and run.rounds.current_policy() == "one"


@pytest.mark.parametrize("eta", [1.0, 0.1])
def test_drift_is_measured_on_the_late_steps_too(tmp_path: Path, eta: float) -> None:
    """Against the closed form of two Gaussians' KL for Euler ancestral steps (eta 1), from 8 down to the last with
    noise, however little the run's own pictures have; picks are about those down to 4 (`SAMPLE.window_sigma`)."""
    model = ToyModel()
    settings = RewardSettings(updates=10, drift_limit=0.0, learning_rate=0.01)
    run, sample = run_of(tmp_path / "run", model), dataclasses.replace(SAMPLE, eta=eta)
    teaching = RewardTrainer.open(run, model, REDNESS, settings, LoraSettings(rank=2), sample)
    train_to_end(teaching)
    watched = teaching._watched
    groups = watched.groups(watched.draw(4))
    ((strength, drift), *_), found = teaching.result().strength_scan, []
    for group in groups:
        for k, now in enumerate(range(8, 1, -1)):
            then = now - 1
            std = (then**2 * (now**2 - then**2) / now**2) ** 0.5
            gain = 1 - (then**2 - std**2) ** 0.5 / now  # of the next mean, by the denoised picture
            args = group.x[:, k], torch.full((1,), float(now)), group.conditioning, group.guidance_scale
            base = model.denoiser(*args).guided
            with applied(model.denoiser, teaching.result().weights):
                apart = (model.denoiser(*args).guided - base).square().sum()
            found.append(float(gain**2 * apart.detach() / (2 * std**2)))
    assert strength == 1 and len(found) == 7 * len(groups)
    assert drift == pytest.approx(sum(found) / len(groups) / 18, rel=1e-3)


def test_drift_ends_it(tmp_path: Path) -> None:
    model = ToyModel()
    teaching = trainer(run_of(tmp_path / "run", model), model, drift_limit=1e-4, watch=2, updates=100)
    reports = train_to_end(teaching)
    assert len(reports) < 100 and reports[-1].kl_base is not None and reports[-1].kl_base > 1e-4 * 18
    said = teaching.result().reason
    assert f"drift from the base reached {reports[-1].kl_base / 18:.3g}, over its limit of 0.0001" in said
    teaching.watch_drift(float("nan"), 1e-4)
    assert "cannot be measured any more" in teaching.result().reason


def test_prompts_of_different_sizes_are_taught_together_and_only_those_that_are_named(tmp_path: Path) -> None:
    model = ToyModel()
    run = run_of(tmp_path / "run", model)
    longer = {name: torch.cat([value, value], -1) for name, value in run.prompts.conditioning(1).items()}
    run.prompts.save_conditioning(run.prompts.add("a longer one", ""), longer)
    seen: list[set[object]] = []
    plain = type(model.denoiser).__call__

    class Cutting(type(model.denoiser)):  # type: ignore[misc]
        """A network that takes both, as a host's does."""

        def __call__(self, x, sigma, conditioning, guidance_scale, guided=True):  # type: ignore[no-untyped-def]
            sizes = {name: value.shape[-1] for name, value in conditioning.items()}
            seen.append({tuple(sizes.values())})
            width = {name: model.encode(["a hill"])[0][name].shape[-1] for name in sizes}
            cut = {name: value[..., : width[name]] for name, value in conditioning.items()}
            return plain(self, x, sigma, cut, guidance_scale, guided)

    model.denoiser.__class__ = Cutting
    settings = RewardSettings(updates=4, batch=3, drift_limit=0.0)
    teaching = RewardTrainer.open(run, model, REDNESS, settings, LoraSettings(rank=2), SAMPLE, prompts=[2, 4])
    assert [prompt.text for prompt in teaching.prompts] == ["a lake", "a longer one"]
    assert len(train_to_end(teaching)) == 4
    assert len(set().union(*seen)) == 2
    again = RewardTrainer.open(run, model, REDNESS, settings, LoraSettings(rank=2), SAMPLE, prompts=[1])
    assert again.resumed and [prompt.id for prompt in again.prompts] == [2, 4]  # those that it was begun with


@pytest.mark.parametrize("variant", ["draft-lv", "draft-k"])
def test_the_gradient_does_not_depend_on_where_a_batch_is_cut(variant: str) -> None:
    model = ToyModel()
    steps = make_plan(model.denoiser, SAMPLE).steps
    scenes = [
        PromptSample(prompt, row, n) for n, (prompt, row) in enumerate(zip(PROMPTS, model.encode(PROMPTS), strict=True))
    ]
    settings = RewardSettings(variant=variant, last=3, noises=3)
    found = []
    for at_once in (3, 2, 1):
        model.denoiser.module.zero_grad()
        RewardGradient(model, REDNESS, steps, SHAPE, 3.0, settings).backward(scenes, 4, at_once)
        found.append(torch.cat([p.grad.flatten() for p in model.denoiser.module.parameters()]))
    assert found[0].norm() > 1e-4
    assert all((other - found[0]).norm() <= 1e-5 * found[0].norm() for other in found[1:])


def test_refl_stops_at_late_steps_only() -> None:
    model = ToyModel()
    steps = make_plan(model.denoiser, SAMPLE).steps
    gradient = RewardGradient(model, REDNESS, steps, SHAPE, 3.0, RewardSettings(variant="refl"))
    stops = {gradient._extent(update) for update in range(64)}
    assert stops == {(1, 7), (1, 6)} and reward_gradient.LATE == 0.25


def test_memory_running_out_halves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ToyModel()
    real, sizes = RewardGradient.backward, []

    def scarce(self, scenes, update, at_once, *more):  # type: ignore[no-untyped-def]
        sizes.append(at_once)
        if at_once > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(self, scenes, update, at_once, *more)

    monkeypatch.setattr(RewardGradient, "backward", scarce)
    train_to_end(trainer(run_of(tmp_path / "run", model), model, updates=2))
    assert sizes == [4, 2, 1, 1]


def test_a_reward_without_gradient_is_told_before_a_model_is_touched(tmp_path: Path) -> None:
    model = ToyModel()
    run = run_of(tmp_path / "run", model)
    with pytest.raises(D3POError, match="'compressibility' is not differentiable"):
        trainer(run, model, REWARDS["compressibility"])
    assert run.rounds.all() == []


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda images, prompts: images.mean((1, 2, 3)) * float("nan"), "NaN"),
        (lambda images, prompts: images.mean(), "must return one number for each"),
        (lambda images, prompts: images.sum((1, 2, 3)) * 0 + 3, "same score"),
        (lambda images, prompts: images.mean((1, 2, 3)).detach(), "carry no gradient"),
    ],
)
def test_bad_rewards_are_told_and_leave_the_model_alone(tmp_path: Path, function: object, told: str) -> None:
    model = ToyModel()
    names = list(model.denoiser.module.state_dict())
    teaching = trainer(run_of(tmp_path / "run", model), model, made(function))
    with pytest.raises(D3POError, match=told):
        train_to_end(teaching)
    assert teaching.run.rounds.stopped() is None  # nothing was learnt: another reward, or picks, may have their turn
    assert list(model.denoiser.module.state_dict()) == names


def test_a_run_without_prompts_is_told(tmp_path: Path) -> None:
    model = ToyModel()
    run = Run.create(tmp_path / "run", name="empty", model={}, settings={})
    with pytest.raises(D3POError, match="no prompts yet"):
        trainer(run, model)


def test_a_round_of_another_kind_is_not_taken_over(tmp_path: Path) -> None:
    model = ToyModel()
    run = run_of(tmp_path / "run", model)
    train_some(trainer(run, model), 1)
    with pytest.raises(D3POError, match="learns from a reward, was stopped"):
        Trainer.open(run, model.denoiser, TrainSettings(), LoraSettings(rank=2))


def test_a_gradient_that_is_no_number_leaves_the_last_good_state(tmp_path: Path) -> None:
    """The reward itself stays finite; of its gradient autograd makes 0 * infinity."""
    model = ToyModel()
    run = run_of(tmp_path / "run", model)
    calls = 0

    def rotten(images: Tensor, prompts: list[str]) -> Tensor:
        nonlocal calls
        calls += 1
        red = (images[:, 0] - images[:, 1]).mean((1, 2))
        return red + (red * 0).sqrt() if calls > 10 else red

    with pytest.raises(D3POError, match="gradient is not a number"):
        train_to_end(trainer(run, model, made(rotten, "redness")))
    again = trainer(run, model)
    assert again.resumed
    train_to_end(again)
    assert all(bool(weights.up.isfinite().all()) for weights in again.result().weights.values())


def test_an_interrupted_round_goes_on_with_its_own_reward_only(tmp_path: Path) -> None:
    model = ToyModel()
    run = run_of(tmp_path / "run", model)
    train_some(trainer(run, model), 1)
    other = made(lambda images, prompts: images.mean((1, 2, 3)), "brightness")
    with pytest.raises(D3POError, match="middle of learning from 'redness'"):
        trainer(run, model, other)
    settings = RewardSettings(micro_batch=1, updates=3)
    again = RewardTrainer.open(run, model, REDNESS, settings, LoraSettings(rank=2), SampleSettings(steps=4))
    train_some(again, 1)
    assert again.sample == SAMPLE  # as it was begun
    assert (again.settings.updates, again.settings.micro_batch) == (30, 1)  # what only changes memory is taken anew


def test_a_measure_that_is_interrupted_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ToyModel()
    whole = trainer(run_of(tmp_path / "a", model), model, updates=12, watch=4)
    train_to_end(whole)
    run = run_of(tmp_path / "b", model)
    stopped = trainer(run, model, updates=12, watch=4)
    monkeypatch.setattr(stopped, "_measured", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_to_end(stopped)
    again = trainer(run, model, updates=12, watch=4)
    reports = train_to_end(again)
    assert [report.update for report in reports] == list(range(4, 13)) and reports[0].kl_base is not None
    for path, expected in whole.result().weights.items():
        assert torch.equal(again.result().weights[path].up, expected.up)


def test_picks_stay_untaught(tmp_path: Path) -> None:
    model = ToyModel()
    run = run_of(tmp_path / "run", model)
    for found in list(sample_groups(run, model, dataclasses.replace(SAMPLE, groups=3), PROMPTS)):
        run.picks.add(found.group_id, Pick("favourite", (0,)))
    teaching = trainer(run, model, updates=2)
    train_to_end(teaching)
    assert run.picks.untaught() == 3
