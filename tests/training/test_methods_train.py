"""Every method learns what was liked, through the whole trainer, and predicts judgements that it has not seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from d3po_core.app.sampling import sample_groups
from d3po_core.errors import D3POError
from d3po_core.lora.attachment import applied
from d3po_core.picks import Pick
from d3po_core.rewards import Reward
from d3po_core.run import Run, policy_id
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings, fill_in
from d3po_core.training import round_trainer
from d3po_core.training.methods import METHODS
from d3po_core.training.preferences import score_preferences
from d3po_core.training.round_trainer import save_round
from d3po_core.training.trainer import Trainer
from tests.toy import ToyModel, toy_group
from tests.training.rounds import train_some, train_to_end

SAMPLE = SampleSettings(groups=24, candidates=4, steps=8, window_sigma=4.0, guidance_scale=3.0, held_out=0.0)
PROMPTS = ["a hill", "a lake", "a tree", "a road"]


def picked(folder: Path, model: ToyModel, pick_of: object, what: str, sample: SampleSettings = SAMPLE) -> Run:
    """A run in which a large first latent channel was liked: of what the noisy steps came to, or of the end."""
    run = Run.create(folder, name="toy", model={"identity": model.identity}, settings={})
    for found in list(sample_groups(run, model, sample, PROMPTS)):
        seen = found.latents if what == "images" else run.groups.trajectory(found.group_id)["x"][:, -1].float()
        best = seen[:, 0].mean((1, 2)).argsort(descending=True).tolist()
        run.picks.add(found.group_id, pick_of(best))  # type: ignore[operator]
    return run


def favourite(best: list[int]) -> Pick:
    return Pick("favourite", (best[0],))


def thumbs(best: list[int]) -> Pick:
    return Pick("scores", scores=tuple(1 if place in best[:2] else -1 for place in range(4)))


@pytest.mark.parametrize(
    ("method", "pick_of"),
    [
        *((method, favourite) for method in ("ddpo", "dpok", "diffusion-dpo", "diffusion-nft")),
        ("diffusion-kto", thumbs),
        ("ddpo", thumbs),
    ],
)
def test_a_method_learns_what_was_liked(tmp_path: Path, method: str, pick_of: object) -> None:
    model = ToyModel()
    sample = dataclasses.replace(SAMPLE, groups=48, held_out=0.5)
    run = picked(tmp_path / "run", model, pick_of, METHODS[method].rows, sample)
    settings = TrainSettings(
        **{"method": method, "epochs": 6, "batch": 4, "learning_rate": 1e-2, "lowest_sigma": 4.0},
        **{"judge": False, "drift_limit": 0.0, "trained_steps": 0},
    )
    trainer = Trainer.open(run, model.denoiser, settings, LoraSettings(rank=2))
    reports = train_to_end(trainer)
    result = trainer.result()
    assert reports[-1].hidden is not None and len(reports[-1].hidden.hits) == 24
    assert reports[-1].hidden.accuracy > 0.6
    assert result.strength_scan and result.strength_scan[0][1] > 0
    assert max(float(weights.up.abs().max()) for weights in result.weights.values()) > 0


@pytest.mark.parametrize("method", ["diffusion-kto", "diffusion-nft"])
def test_thumbs_that_are_all_alike_in_a_group_teach_too(tmp_path: Path, method: str) -> None:
    """Single pictures, each liked or disliked, make no pair."""
    model = ToyModel()
    run = Run.create(tmp_path / "run", name="toy", model={"identity": model.identity}, settings={})
    for number, found in enumerate(list(sample_groups(run, model, SAMPLE, PROMPTS))):
        liked = 1 if number % 2 else -1
        run.picks.add(found.group_id, Pick("scores", scores=(liked,) * 4))
    trainer = Trainer.open(run, model.denoiser, TrainSettings(method=method, epochs=2), LoraSettings(rank=2))
    assert len(train_to_end(trainer)) == 2 * 24
    assert (trainer.result().z, trainer.result().guessed_of, trainer.result().strength) == (None, 0, 1.0)
    assert any(bool(torch.any(weights.up != 0)) for weights in trainer.result().weights.values())


def test_a_reward_stands_for_picks(tmp_path: Path) -> None:
    """A method that sees the reward itself needs no pick, and follows the reward's order."""
    model = ToyModel()
    run = Run.create(tmp_path / "run", name="toy", model={"identity": model.identity}, settings={})
    groups = [found.group_id for found in sample_groups(run, model, SAMPLE, PROMPTS)]
    redness = Reward("redness", "red", lambda images, prompts: (images[:, 0] - images[:, 1]).mean((1, 2)), False)
    lesson = score_preferences(run, redness, "ddpo")
    assert lesson.training.keys() == set(groups)
    for group, pairs in lesson.training.items():
        scores = lesson.scores[group]
        assert all(scores[pair.winner] > scores[pair.loser] for pair in pairs) and len(pairs) == 6
    trainer = Trainer.open(run, model.denoiser, TrainSettings(method="ddpo"), LoraSettings(rank=2), reward=redness)
    assert len(train_to_end(trainer)) > 10
    constant = Reward("same", "all", lambda images, prompts: images.mean((1, 2, 3)) * 0, True)
    with pytest.raises(D3POError, match="same score"):
        score_preferences(run, constant, "ddpo")


def drawn_again(run: Run, model: ToyModel, trainer: Trainer, policy: str) -> None:
    """A round's LoRA draws as many groups again, judged as before."""
    with applied(model.denoiser, trainer.result().weights):
        for found in list(sample_groups(run, model, SAMPLE, PROMPTS, policy, 2)):
            run.picks.add(found.group_id, favourite(found.latents[:, 0].mean((1, 2)).argsort(descending=True).tolist()))


@pytest.mark.parametrize("method", ["ddpo", "dpok", "diffusion-nft"])
def test_the_second_round_departs_from_what_sampled(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever policy drew a group, its ratio to the policy in training is 1 at first; for NFT, to last round's."""
    model = ToyModel()
    monkeypatch.setattr(round_trainer, "import_lora", lambda path, network: first.result().weights)
    run = picked(tmp_path / "run", model, favourite, METHODS[method].rows)
    settings = TrainSettings(method=method, epochs=2, learning_rate=1e-2, judge=False, lowest_sigma=4.0)
    first = Trainer.open(run, model.denoiser, settings, LoraSettings(rank=2))
    with first:
        list(first.steps())
        policy = policy_id(save_round(first).path)
    drawn_again(run, model, first, policy)
    seen: list[torch.Tensor] = []
    real = METHODS[method]

    def noted(denoised: torch.Tensor, *args: object) -> torch.Tensor:
        values = real.values(denoised, *args)  # type: ignore[arg-type]
        seen.append(values.detach()[:, 0])
        return values

    monkeypatch.setitem(METHODS, method, dataclasses.replace(real, values=noted))
    second = Trainer.open(run, model.denoiser, dataclasses.replace(settings, seed=5), LoraSettings(rank=2))
    train_some(second, 1)
    policies_drawn = {run.groups.get(name).policy for name in second.trained_on}
    assert len(policies_drawn) == 2
    if method == "diffusion-nft":
        assert max(float(found.abs().max()) for found in seen) < 1e-4  # float16's rounding of what was recorded
    else:
        drawn_now = [found for found in seen if float(found.abs().max()) < 1e-4]
        assert drawn_now  # groups of the policy in training; the others' ratio is to their own sampler


def test_a_liked_picture_alone_is_liked_enough_at_some_time() -> None:
    """KTO compares with all pictures of an update, so that the gradient of a single one falls as its ratio grows."""
    group = dataclasses.replace(toy_group(ToyModel().denoiser, 1, 1, []), scores=[1.0])
    slopes = []
    for ratio in (0.0, 0.002, 0.02):
        values = torch.full((1, 1, 1), ratio, requires_grad=True)
        METHODS["diffusion-kto"].loss(values, group, fill_in(TrainSettings(method="diffusion-kto")), 0.0).backward()
        slopes.append(-float(values.grad.sum()))  # type: ignore[union-attr]
    assert slopes[0] > slopes[1] > slopes[2] and slopes[2] < 1e-3 * slopes[0]


def test_people_who_disagree_say_nothing_of_two_pictures() -> None:
    group = dataclasses.replace(toy_group(ToyModel().denoiser, 1, 2, []), scores=[0.5, 0.5])
    values = torch.zeros(2, 3, 3, requires_grad=True)
    METHODS["diffusion-kto"].loss(values, group, fill_in(TrainSettings(method="diffusion-kto")), 0.0).backward()
    assert values.grad is not None and not values.grad.any()
