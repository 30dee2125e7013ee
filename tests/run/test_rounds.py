"""Rounds can be resumed, and space can be freed without losing picks."""

from __future__ import annotations

import json

import pytest
import torch

from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.run import RoundSummary, Run, space
from d3po_core.run.rounds import DamagedState
from tests.run_helpers import make_run, put_group


def test_an_unfinished_round_is_resumed(tmp_path):
    run = make_run(tmp_path)
    assert run.rounds.open() is None
    assert run.rounds.begin({"lr": 1}, "base") == 1
    run = Run.open(tmp_path)
    assert run.rounds.open().settings == {"lr": 1}
    assert run.rounds.begin({"lr": 2}, "base") == 1
    assert run.rounds.open().settings == {"lr": 2}
    (run.rounds.folder_of(1) / "a.safetensors").write_bytes(b"")
    empty = "e3b0c44298fc1c14"  # SHA-256 of nothing
    run.rounds.finish(1, "rounds/0001/a.safetensors", empty, RoundSummary(figures={"kl": float("nan"), "loss": 0.75}))
    assert run.rounds.open() is None
    assert run.rounds.begin({}, empty) == 2
    first, second = run.rounds.all()
    assert (first.lora_file, first.lora_hash) == ("rounds/0001/a.safetensors", empty)
    assert first.summary == RoundSummary(figures={"kl": None, "loss": 0.75})
    assert (second.reference, second.finished, second.lora_file) == (empty, None, None)
    assert run.rounds.lora("base") is None
    assert run.rounds.lora(empty) == run.rounds.lora("1") == tmp_path / "rounds" / "0001" / "a.safetensors"
    run.rounds.lora("1").unlink()
    with pytest.raises(D3POError, match="LoRA of round 1 is missing"):
        run.rounds.lora(empty)


def test_a_summary_is_stored_under_its_own_keys():
    summary = RoundSummary(guessed=7.5, guessed_of=8, strength_scan=((1.0, 0.05), (0.7, float("inf"))))
    stored = json.loads(summary.to_json())
    assert stored["sweep"] == [[1.0, 0.05], [0.7, None]] and stored["guessed"] == 7.5
    assert not {"strength_scan", "lora_strength", "gentler", "whole_file"} & stored.keys()
    assert RoundSummary.from_json(None) == RoundSummary.from_json('{"z": null, "guessed_of": null}') == RoundSummary()
    assert RoundSummary.from_json('{"newer": 1, "gentler": 0.7}') == RoundSummary(lora_strength=0.7)


def test_a_weaker_lora_stands_for_a_finished_round(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(D3POError, match="no finished round 1"):
        run.rounds.replace_lora(1, tmp_path / "a-70.safetensors", "weaker", 0.7)
    run.rounds.finish(run.rounds.begin({}), "a.safetensors", "hash", RoundSummary(guessed_of=3))
    run.rounds.replace_lora(1, tmp_path / "a-70.safetensors", "weaker", 0.7)
    run.rounds.replace_lora(1, tmp_path / "a-40.safetensors", "weakest", 0.4)
    (round,) = run.rounds.all()
    assert (round.lora_file, round.lora_hash) == ("a-40.safetensors", "weakest")
    assert round.summary == RoundSummary(guessed_of=3, lora_strength=0.4, whole_file="a.safetensors")
    assert run.rounds.current_policy() == "weakest"


def test_state_and_counters_are_one_file(tmp_path):
    run = make_run(tmp_path)
    assert run.rounds.load_state(1) is None
    info = {"step": 3, "best": float("-inf"), "order": [1, 2], "name": 'quoted "crc32":"00000000"'}
    tensors = {"w": torch.randn(3, 3), "rng": torch.get_rng_state(), "half": torch.ones(2, dtype=torch.bfloat16)}
    run.rounds.save_state(1, tensors, {"step": 2})
    run.rounds.save_state(1, tensors, info)
    found, found_info = Run.open(tmp_path).rounds.load_state(1)
    assert found_info == info
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    path = tmp_path / "rounds" / "0001" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedState):
        run.rounds.load_state(1)


def _finish(run: Run, **kwargs) -> int:
    number = run.rounds.begin({})
    run.rounds.save_state(number, {"w": torch.zeros(100)}, {})
    path = run.rounds.folder_of(number) / f"{number}.safetensors"
    path.write_bytes(b"lora")
    run.rounds.finish(number, path, f"hash{number}", RoundSummary(), **kwargs)
    return number


def test_free_space_drops_only_what_was_trained(tmp_path):
    run = make_run(tmp_path)
    assert run.space.free().startswith("There was nothing to free")
    trained, unpicked, late, both = (put_group(run) for _ in range(4))
    held = put_group(run, held_out=True)
    for group in (trained, both, held):
        run.picks.add(group, Pick("favourite", (0,)))
    number = run.rounds.begin({})
    run.picks.add(late, Pick("favourite", (1,)))
    assert _finish(run) == number
    run.picks.add(both, Pick("favourite", (1,)))
    _finish(run, groups=[both])
    before = run.space.size()

    said = run.space.free(keep_rounds=1)
    assert "1 group trained in round 1 can no longer be retrained" in said
    assert [group.id for group in run.groups.select(freed=True)] == [trained]
    freed = before["tensors"] - run.space.size()["tensors"]
    assert freed > 0
    assert f"Freed {space.readable(freed)}" in said

    assert "1 group trained in rounds 1 to 2" in run.space.free()
    assert {group.id for group in run.groups.select(freed=True)} == {trained, both}
    assert run.space.free().startswith("There was nothing to free")

    run = Run.open(tmp_path)
    with pytest.raises(D3POError, match=r"deleted to free space.* images and picks are kept"):
        run.groups.trajectory(trained)
    for group in (unpicked, late, held):
        assert run.groups.trajectory(group)
    assert len(run.picks.standing()) == 4
    assert len(list(tmp_path.rglob("*.png"))) == 10
    assert run.space.size()["loras"] == before["loras"] == 8


def test_free_space_spares_a_half_trained_round(tmp_path):
    run = make_run(tmp_path, groups=1)
    (group,) = run.groups.select()
    run.picks.add(group.id, Pick("favourite", (0,)))
    _finish(run)
    run.rounds.save_state(run.rounds.begin({}), {}, {"step": 1})
    with pytest.raises(D3POError, match="Round 2 is not finished"):
        run.space.free()
    assert run.groups.trajectory(group.id)


def test_free_space_killed_half_way_is_completed_on_opening(tmp_path):
    run = make_run(tmp_path, groups=2)
    first, second = run.groups.select()
    with run._database.write() as connection:
        connection.execute("UPDATE groups SET freed = 1 WHERE id = ?", (first.id,))
    run = Run.open(tmp_path)
    assert not (tmp_path / "groups" / first.id / "trajectory.safetensors").exists()
    assert run.groups.trajectory(second.id)


def test_sizes_are_readable():
    assert [space.readable(count) for count in (0, 999, 1500, 2_340_000, 5 * 10**9)] == [
        *("0 bytes", "999 bytes", "1.5 kB", "2.3 MB", "5.0 GB")
    ]
