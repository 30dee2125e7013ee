"""A round from picks to LoRA on a toy model, through a real run on disk: resumed, killed, stopped, doubted."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from d3po_core.app.sampling import sample_groups
from d3po_core.errors import D3POError
from d3po_core.lora import LayerWeights
from d3po_core.lora.weights import blend
from d3po_core.picks import Pick
from d3po_core.run import RoundSummary, Run
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings, replace
from d3po_core.training import round_trainer as module
from d3po_core.training.evidence import doubts
from d3po_core.training.preference_optimizer import PreferenceOptimizer
from d3po_core.training.round_trainer import save_round
from d3po_core.training.trainer import Trainer
from tests.run_helpers import undo
from tests.toy import ToyModel
from tests.training.rounds import train_some, train_to_end

PROMPTS = ["one", "two", "three"]
SAMPLE = SampleSettings(groups=24, steps=8, window_sigma=4.0, guidance_scale=3.0, batch=8)
TRAIN = TrainSettings(epochs=3, batch=4, learning_rate=3e-2, warmup=0, beta=20.0, drift_limit=0.0)
LORA = LoraSettings(rank=2, alpha=2.0)


def picked_run(folder: Path, model: ToyModel, picks: str = "bright", settings: SampleSettings = SAMPLE) -> Run:
    """A run judged by somebody who likes the first colour bright, or only flags the darkest, or says nothing."""
    run = Run.create(folder, model={"identity": model.identity}, settings={})
    for sampled in sample_groups(run, model, settings, PROMPTS):
        noisy = run.groups.trajectory(sampled.group_id)["x"][:, -1].float()
        best = int(noisy[:, 0].mean(dim=(1, 2)).argmax())
        pick = Pick("tie") if picks == "tie" else Pick("favourite", (best,))
        if picks == "flags":
            run.flags.add(sampled.group_id, int(noisy[:, 0].mean(dim=(1, 2)).argmin()), "defective")
        elif picks != "none":
            run.picks.add(sampled.group_id, pick)
    return run


def trainer(run: Run, model: ToyModel, **settings: object) -> Trainer:
    return Trainer.open(run, model.denoiser, replace(TRAIN, settings), LORA, attachment="hooks")


def flat(weights: dict) -> torch.Tensor:  # type: ignore[type-arg]
    return torch.cat([t.flatten() for w in weights.values() for t in (w.down, w.up)])


def test_checks_then_teaches_and_says_how_it_goes(tmp_path: Path) -> None:
    model = ToyModel()
    work = trainer(picked_run(tmp_path / "run", model), model)
    reports = train_to_end(work)
    result = work.result()
    assert [name for name, _ in itertools.groupby(r.phase for r in reports)] == ["check A", "check B", "teach"]
    assert result.guessed_of == 21  # every group that is not held out was hidden once
    taught = max(r.epoch for r in reports if r.phase == "teach")
    hidden = [r.hidden for r in reports if r.hidden and r.phase != "teach" and r.epoch == taught]
    assert result.guessed == sum(hit for measures in hidden for hit in measures.hits)
    margins = torch.tensor([m for measures in hidden for m in measures.margins]).double()
    assert result.z == pytest.approx(float(margins.mean() / (margins.std() / (21 / 2) ** 0.5)))
    last = reports[-1]
    assert last.hidden is not None and last.kl_base is not None and last.kl_base > 0
    assert last.kl_sampler == pytest.approx(last.kl_base, rel=1e-4)  # the base sampled
    assert len(work.run.metrics.read()) == len(reports)


@pytest.mark.parametrize("picks", ["bright", "flags"])
def test_learns_its_picks(tmp_path: Path, picks: str) -> None:
    model = ToyModel()
    work = trainer(picked_run(tmp_path / "run", model, picks), model, epochs=10, cross_check=False, patience=0)
    reports = train_to_end(work)
    final = [r.training.accuracy for r in reports if r.epoch == 9]
    assert sum(final) / len(final) > 0.9
    assert flat(work.result().weights).abs().max() > 0


@pytest.mark.parametrize(("share", "said"), [(0.0, "left as it was"), (0.42, "42%"), (1.0, "")])
def test_a_person_is_told_what_the_evidence_allowed(share: float, said: str) -> None:
    assert said in " ".join(doubts(share)) and bool(doubts(share)) == (share < 1)


def test_evidence_decides_how_much_is_kept() -> None:
    start = {"a": LayerWeights(torch.ones(2, 3), torch.zeros(4, 2), 2.0)}
    end = {"a": LayerWeights(torch.ones(2, 3) * 3, torch.ones(4, 2), 2.0)}
    assert torch.equal(flat(blend(start, end, 0.0)), flat(start))
    assert torch.equal(flat(blend(start, end, 1.0)), flat(end))
    assert torch.equal(blend(start, end, 0.5)["a"].up, torch.full((4, 2), 0.5))


def test_training_leaves_no_trace_in_the_network(tmp_path: Path) -> None:
    model = ToyModel()
    work = trainer(picked_run(tmp_path / "run", model), model)
    x, sigma, prompt = torch.randn(1, 2, 3, 3), torch.tensor([3.0]), model.encode(["one"])[0]
    before = model.denoiser(x, sigma, prompt, 2.0).guided
    names = list(model.denoiser.module.state_dict())
    train_to_end(work)
    assert torch.equal(model.denoiser(x, sigma, prompt, 2.0).guided, before)
    assert list(model.denoiser.module.state_dict()) == names


@pytest.mark.parametrize("stop_after", [1, 5, 11, 17])
def test_a_stopped_round_goes_on_to_the_same_end(tmp_path: Path, stop_after: int) -> None:
    model = ToyModel()
    straight = trainer(picked_run(tmp_path / "a", model), model)
    train_to_end(straight)

    run = picked_run(tmp_path / "b", model)
    first = trainer(run, model)
    train_some(first, stop_after)
    assert flat(first.result().weights).isfinite().all()
    assert first.result().reason.startswith("Stopped")

    run.close()
    second = trainer(Run.open(tmp_path / "b"), model, epochs=1)  # a round goes on with the settings it began with
    train_to_end(second)
    assert second.settings.epochs == 3
    assert torch.allclose(flat(second.result().weights), flat(straight.result().weights), atol=1e-6)
    assert second.result().guessed == straight.result().guessed


def test_a_round_that_was_killed_after_its_last_step_is_not_trained_again(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    first = trainer(run, model)
    train_to_end(first)
    again = trainer(run, model)
    assert train_to_end(again) == []
    assert torch.equal(flat(again.result().weights), flat(first.result().weights))


@pytest.mark.parametrize(("picks", "message"), [("none", "Nothing has been picked"), ("tie", "None of the 24 picks")])
def test_no_usable_pair_is_said(tmp_path: Path, picks: str, message: str) -> None:
    model = ToyModel()
    with pytest.raises(D3POError, match=message):
        trainer(picked_run(tmp_path / "run", model, picks), model)


def test_another_base_model_is_noticed(tmp_path: Path) -> None:
    run = picked_run(tmp_path / "run", ToyModel())
    other = ToyModel(seed=1)
    with pytest.raises(D3POError, match="another base model"):
        trainer(run, other)
    assert "_forward_hooks" not in other.denoiser.module.attn1["to_q"].__dict__ or not (
        other.denoiser.module.attn1["to_q"]._forward_hooks
    )


def test_pictures_of_another_model_are_noticed_wherever_they_are(tmp_path: Path) -> None:
    """A host notes what its graph was; a group of each is compared."""
    model, other = ToyModel(), ToyModel(seed=1)
    run = picked_run(tmp_path / "run", model)
    for sampled in sample_groups(run, other, replace(SAMPLE, {"groups": 2}), PROMPTS, notes={"graph": "changed"}):
        run.picks.add(sampled.group_id, Pick("favourite", (0,)))
    for each in (model, other):
        with pytest.raises(D3POError, match="another base model"):
            trainer(run, each)
    assert len(train_to_end(trainer(run, model, reevaluate_reference=True))) > 3


def test_a_round_that_learnt_nothing_takes_new_picks_and_settings(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    with pytest.raises(D3POError, match="another base model"):
        trainer(run, ToyModel(seed=1))
    for sampled in sample_groups(run, model, replace(SAMPLE, {"groups": 8}), PROMPTS):
        run.picks.add(sampled.group_id, Pick("favourite", (0,)))
    again = trainer(run, model, epochs=2)
    with again:
        list(again.steps())
        save_round(again)
    assert not again.resumed and again.settings.epochs == 2
    assert len(again.trained_on) == len([group for group in run.groups.select() if not group.held_out])
    assert run.picks.untaught() == 0 and len(run.rounds.all()) == 1


def test_two_trainers_on_one_run(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    first = trainer(run, model)
    with pytest.raises(D3POError, match=r"[Aa]nother|already"):
        trainer(Run.open(tmp_path / "run"), model)
    assert len(train_to_end(first)) > 3
    with trainer(Run.open(tmp_path / "run"), model) as second:
        assert second.resumed


def test_a_round_is_not_closed_while_another_trainer_is_at_it(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    first = trainer(run, model)
    train_some(first, 1)
    with trainer(Run.open(tmp_path / "run"), model):
        with pytest.raises(ValueError, match="before its trainer is closed"):
            save_round(first)
        assert run.rounds.open() is not None


def test_drift_limit_stops_and_says_so(tmp_path: Path) -> None:
    model = ToyModel()
    work = trainer(picked_run(tmp_path / "run", model), model, drift_limit=1e-8, cross_check=False)
    reports = train_to_end(work)
    assert reports[-1].epoch == 0
    assert "drift" in work.result().reason


def test_held_out_groups_are_never_trained_on(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    held_out = {g.id for g in run.groups.select() if g.held_out}
    work = trainer(run, model)
    train_some(work, 1)
    assert len(held_out) == 3  # one in every eight
    assert not held_out & {name for phase in work._phases for name in phase.groups}
    assert set(work._phases[-1].hidden) == held_out


def test_picks_made_meanwhile_are_for_the_next_round(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    first = trainer(run, model)
    train_some(first, 1)
    undo(run)
    second = trainer(run, model)
    assert second.resumed
    train_to_end(second)
    assert second.trained_on == first._phases[-1].groups


def test_an_interruption_while_hidden_picks_are_measured_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ToyModel()
    straight = trainer(picked_run(tmp_path / "a", model), model)
    train_to_end(straight)
    run = picked_run(tmp_path / "b", model)
    with monkeypatch.context() as patched:
        patched.setattr(PreferenceOptimizer, "measure", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_to_end(trainer(run, model))
    second = trainer(run, model)
    reports = train_to_end(second)
    (first_epoch,) = {report.update for report in reports if report.phase == "check A" and report.epoch == 0}
    assert first_epoch > 1  # the epoch's last update alone is repeated
    assert torch.allclose(flat(second.result().weights), flat(straight.result().weights), atol=1e-6)


def test_a_damaged_group_is_left_out_of_the_next_try(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    victim = [group for group in run.groups.select() if not group.held_out][5].id
    (path,) = (run.folder / "groups" / victim).glob("*.safetensors")
    path.write_bytes(b"not a tensor")
    with pytest.raises(D3POError, match="left out from now on"):
        train_to_end(trainer(run, model))
    second = trainer(run, model)
    train_to_end(second)
    assert victim not in second.trained_on and len(second.trained_on) == 20


def test_a_damaged_group_without_others_is_not_said_to_be_left_out(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model, settings=replace(SAMPLE, {"groups": 1, "held_out": 0.0}))
    (group,) = run.groups.select()
    (path,) = (run.folder / "groups" / group.id).glob("*.safetensors")
    path.write_bytes(b"not a tensor")
    with pytest.raises(D3POError, match="pick in more groups"):
        train_to_end(trainer(run, model))


def test_a_later_round_does_not_take_remembered_picks_for_predicted_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round 2 starts from a LoRA that saw every pick; its checks must not."""
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    first = trainer(run, model, epochs=10, cross_check=False, patience=0)
    train_to_end(first)
    (tmp_path / "run" / "one.safetensors").touch()
    run.rounds.finish(first.round, "one.safetensors", "one", RoundSummary())
    monkeypatch.setattr(module, "import_lora", lambda path, network: first.result().weights)
    second = trainer(run, model)
    reports = train_to_end(second)
    assert next(r for r in reports if r.phase == "check A").training.accuracy == 0.5  # it begins knowing nothing
    assert next(r for r in reports if r.phase == "teach").training.accuracy > 0.8  # this one goes on from round 1
