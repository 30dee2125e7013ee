"""Rounds that go on: stopped, killed, refused, damaged, or begun from an earlier round's LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d3po_core.app.sampling import sample_groups
from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.run import RoundSummary, Run, policy_id
from d3po_core.settings import replace
from d3po_core.training import round_trainer
from d3po_core.training.preference_optimizer import PreferenceOptimizer
from d3po_core.training.round_trainer import save_round
from d3po_core.training.trainer import Trainer
from tests.run_helpers import undo
from tests.toy import ToyModel
from tests.training.picked import LORA, PROMPTS, SAMPLE, TRAIN, copied, evidence, flat, picked_run, trainer
from tests.training.rounds import train_some, train_to_end


def test_picks_teach_all_layers_and_a_stopped_round_keeps_its_own(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    assert LORA.targets == "auto"
    with trainer(run, model) as work:
        assert work.lora_settings.targets == "all"
    few = picked_run(tmp_path / "few", model)
    attention = replace(LORA, {"targets": "attention"})
    with Trainer.open(few, model.denoiser, TRAIN, attention, attachment="hooks") as work:
        train_some(work, 2)
    with trainer(few, model) as work:  # goes on
        assert work.lora_settings.targets == "attention"


@pytest.mark.parametrize("stop_after", [1, 11, 21, 62])
def test_a_stopped_round_goes_on_to_the_same_end(tmp_path: Path, stop_after: int) -> None:
    model = ToyModel()
    picked = picked_run(tmp_path / "a", model)
    run = copied(picked, tmp_path / "b")
    straight = trainer(picked, model)
    train_to_end(straight)

    first = trainer(run, model)
    train_some(first, stop_after)
    assert flat(first.result().weights).isfinite().all()
    assert first.result().reason == "Stopped before the end."

    run.close()
    run = Run.open(tmp_path / "b")
    second = trainer(run, model, epochs=1, judge=False)  # a round goes on with the settings it began with
    reports = train_to_end(second)
    assert second.resumed and second.settings.epochs == 3
    assert [r.update for r in reports] == list(range(stop_after + 1, 64))
    assert torch.allclose(flat(second.result().weights), flat(straight.result().weights), atol=1e-6)
    said, expected = second.result(), straight.result()
    assert (said.z, said.guessed, said.reason) == (expected.z, expected.guessed, expected.reason)
    assert said.figures == pytest.approx(expected.figures, rel=1e-4)


def test_a_round_of_before_the_judge_is_begun_anew(tmp_path: Path) -> None:
    """Its state counted the updates of one of its phases, and its tensors may be a check's."""
    model = ToyModel()
    picked = picked_run(tmp_path / "a", model)
    run = copied(picked, tmp_path / "b")
    straight = trainer(picked, model)
    train_to_end(straight)
    first = trainer(run, model)
    train_some(first, 30)
    stored = run.rounds.load_state(first.round)
    assert stored is not None and stored[1]["done"] == 30
    tensors, info = stored
    run.rounds.save_state(first.round, tensors, {**info, "phase": 1, "hits": [[[1.0]]], "held_out": [], "done": 7})
    second = trainer(run, model)
    assert [r.update for r in train_to_end(second)] == list(range(1, 64))
    assert torch.allclose(flat(second.result().weights), flat(straight.result().weights), atol=1e-6)


def test_a_round_that_was_killed_after_its_last_step_is_not_trained_again(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    first = trainer(run, model)
    train_to_end(first)
    again = trainer(run, model)
    assert train_to_end(again) == []
    assert torch.equal(flat(again.result().weights), flat(first.result().weights))
    assert again.result().strength_scan == first.result().strength_scan
    assert again.result().figures == first.result().figures


def test_a_round_that_learnt_nothing_takes_new_picks_and_settings(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    with pytest.raises(D3POError, match="another base model"):
        trainer(run, ToyModel(seed=1))
    for sampled in sample_groups(run, model, replace(SAMPLE, {"groups": 8}), PROMPTS):
        run.picks.add(sampled.group_id, Pick("favourite", (0,)))
    again = trainer(run, model, epochs=2, judge=False)
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


def test_picks_made_meanwhile_are_for_the_next_round(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    first = trainer(run, model)
    train_some(first, 1)
    undo(run)
    second = trainer(run, model)
    assert second.resumed
    train_to_end(second)
    assert second.trained_on == first.trained_on and second.result().z == first.result().z


def test_an_interruption_while_hidden_picks_are_measured_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ToyModel()
    picked = picked_run(tmp_path / "a", model)
    run = copied(picked, tmp_path / "b")
    straight = trainer(picked, model)
    train_to_end(straight)
    with monkeypatch.context() as patched:
        patched.setattr(PreferenceOptimizer, "measure", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_to_end(trainer(run, model))
    second = trainer(run, model)
    reports = train_to_end(second)
    assert [report.update for report in reports] == [63]  # the last update alone is repeated
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


def test_a_later_round_goes_on_from_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its LoRA remembers every pick; how sure the evidence is does not come from that."""
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    first = trainer(run, model, epochs=10, trained_steps=0)
    with first:
        assert abs(first._fit.measure(first.trained_on).margin) < 1e-2
        list(first.steps())
    lora = tmp_path / "run" / "one.safetensors"
    lora.write_bytes(b"one")
    run.rounds.finish(first.round, lora, policy_id(lora), RoundSummary())
    monkeypatch.setattr(round_trainer, "import_lora", lambda path, network: first.result().weights)
    second = trainer(run, model)
    assert torch.allclose(flat(second.result().weights), flat(first.result().weights), atol=1e-6)
    with second:
        assert second._fit.measure(second.trained_on).accuracy > 0.75
        assert second.result().z == first.result().z


def test_without_evidence_a_later_round_leaves_the_last_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    first = trainer(run, model)
    train_to_end(first)
    lora = tmp_path / "run" / "one.safetensors"
    lora.write_bytes(b"one")
    run.rounds.finish(first.round, lora, policy_id(lora), RoundSummary())
    monkeypatch.setattr(round_trainer, "import_lora", lambda path, network: first.result().weights)
    evidence(monkeypatch, 1.75)
    second = trainer(run, model)
    assert train_to_end(second) == [] and second.trained_on == []
    assert torch.equal(flat(second.result().weights), flat(first.result().weights))
    assert not second.result().changed  # by this round
