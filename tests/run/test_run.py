"""A run keeps what it is given, wherever its folder goes."""

from __future__ import annotations

import json
import re
import shutil
import threading

import pytest
import torch
from PIL import Image

from d3po_core import run as run_package
from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.run import RoundSummary, Run, policy_id
from d3po_core.run.database import IMPORTED
from tests.run_helpers import MODEL, create_unless_there, make_run, picture, processes, put_group, trajectory, undo


def test_a_run_is_found_again_as_it_was(tmp_path):
    made = Run.create(tmp_path / "taste", name="warm", model=MODEL, settings={"seed": 3})
    opened = Run.open(tmp_path / "taste")
    assert re.fullmatch("[0-9a-f]{32}", opened.run_id)
    assert (opened.run_id, opened.name, opened.model, opened.settings) == (made.run_id, "warm", MODEL, {"seed": 3})


def test_create_refuses_a_folder_with_a_run(tmp_path):
    made = make_run(tmp_path / "run")
    with pytest.raises(D3POError, match="already"):
        make_run(tmp_path / "run")
    assert Run.open(tmp_path / "run").run_id == made.run_id


def test_processes_that_create_at_once_share_one_run(tmp_path):
    context = processes()
    started = [context.Process(target=create_unless_there, args=(tmp_path / "run",)) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert [path.name for path in (tmp_path / "run").glob("*.tmp*")] == []


def test_the_same_prompt_has_the_same_id(tmp_path):
    run = make_run(tmp_path)
    ids = [run.prompts.add("a"), run.prompts.add("b"), run.prompts.add("a", "ugly"), run.prompts.add("a")]
    assert ids[0] == ids[3]
    assert len(set(ids)) == 3
    assert [(prompt.text, prompt.negative) for prompt in run.prompts.all()] == [("a", ""), ("b", ""), ("a", "ugly")]


def test_conditioning_is_kept_once(tmp_path):
    run = make_run(tmp_path)
    prompt = run.prompts.add("a")
    with pytest.raises(D3POError, match=r"encoded prompt 'a' is missing"):
        run.prompts.conditioning(prompt)
    tensors = {"text": torch.randn(1, 7, 4, dtype=torch.float16), "ids": torch.arange(5)}
    run.prompts.save_conditioning(prompt, tensors)
    run.prompts.save_conditioning(prompt, {"text": torch.zeros(1)})
    _same(run.prompts.conditioning(prompt), tensors)
    path = next((tmp_path / "conditioning").iterdir())
    path.write_bytes(path.read_bytes()[:-3])
    run.prompts.save_conditioning(prompt, tensors)
    _same(run.prompts.conditioning(prompt), tensors)


def test_a_group_comes_back_as_it_was_added(tmp_path):
    run = make_run(tmp_path)
    shared = torch.randn(3, 4).to(torch.bfloat16)
    odd = {"cond": shared, "guided": shared, "view": torch.arange(12).reshape(3, 4).T, "none": torch.zeros(0, 2)}
    with torch.inference_mode():
        odd["inference"] = torch.ones(2) * 2
    number = run.groups.next_number()
    group_id = run.groups.add(
        prompt_id=run.prompts.add("a flower", "grey"),
        number=number,
        seed=2**64 - 1,
        candidates=3,
        policy="hash",
        round=2,
        settings={"steps": 4},
        held_out=True,
        tensors=odd,
        images=[picture(9, candidate) for candidate in range(3)],
    )
    run = Run.open(tmp_path)
    group = run.groups.get(group_id)
    assert (group.id, group.number, group.prompt, group.negative) == (group_id, number, "a flower", "grey")
    assert (group.seed, group.candidates, group.policy, group.round) == (2**64 - 1, 3, "hash", 2)
    assert (group.settings, group.held_out, group.freed) == ({"steps": 4}, True, False)
    _same(run.groups.trajectory(group_id), odd)
    with Image.open(run.groups.image_path(group_id, 2)) as image:
        assert image.format == "PNG"
        assert image.getpixel((0, 0)) == (9, 2, 77)


def test_unknown_things_are_refused_in_words(tmp_path):
    run = make_run(tmp_path, groups=1)
    (group,) = run.groups.select()
    for call, what in [
        (lambda: run.groups.get("../../etc"), "no group with the id '../../etc'"),
        (lambda: run.groups.trajectory("x"), "no group"),
        (lambda: run.groups.image_path(group.id, 2), "no candidate 2"),
        (lambda: run.groups.image_path(group.id, -1), "no candidate -1"),
        (lambda: run.picks.add("x", Pick("tie")), "no group"),
        (lambda: run.picks.add(group.id, Pick("favourite", (2,))), "does not have"),
        (lambda: run.prompts.conditioning(77), "no prompt"),
        (lambda: put_group(run, prompt_id=77), "no prompt"),
        (lambda: run.rounds.finish(3, "x", "y", RoundSummary()), "no unfinished round 3"),
        (lambda: run.rounds.lora("y"), "policy 'y'"),
    ]:
        with pytest.raises(D3POError, match=re.escape(what)):
            call()
    assert len(run.groups.select()) == 1
    assert len(list((tmp_path / "groups").iterdir())) == 1


def test_filters_choose_groups(tmp_path):
    run = make_run(tmp_path)
    a = put_group(run)
    b = put_group(run)
    c = put_group(run, policy=IMPORTED)
    run.picks.add(b, Pick("skipped"), who="x")
    run.picks.add(c, Pick("favourite", (1,)), who="y")
    undo(run, "y")
    run.flags.add(c, 0, "unsafe")

    def chosen(**filters):
        return [group.id for group in run.groups.select(**filters)]

    assert chosen() == [a, b, c]
    assert chosen(picked=True) == [b] and chosen(picked=False) == [a, c]
    assert chosen(recorded=True) == [a, b] and chosen(recorded=False) == [c]
    assert chosen(recorded=True, picked=False) == [a]
    assert chosen(freed=False) == [a, b, c] and chosen(freed=True) == []


def test_a_number_is_never_given_twice(tmp_path):
    run = make_run(tmp_path)
    assert [run.groups.next_number(), run.groups.next_number()] == [0, 1]
    put_group(run, number=7)
    assert run.groups.next_number() == 8
    with pytest.raises(D3POError, match="number 7 already"):
        put_group(run, number=7)
    assert [group.number for group in run.groups.select()] == [7]
    assert len(list((tmp_path / "groups").iterdir())) == 1


def test_held_out_never_changes(tmp_path):
    run = make_run(tmp_path, groups=1)
    with pytest.raises(D3POError, match="held_out never changes"), run._database.write() as connection:
        connection.execute("UPDATE groups SET held_out = 1")
    assert not run.groups.select()[0].held_out


def test_a_moved_or_copied_folder_is_the_same_run(tmp_path):
    run = make_run(tmp_path / "here", groups=1)
    (group,) = run.groups.select()
    run.picks.add(group.id, Pick("favourite", (1,)))
    number = run.rounds.begin({})
    lora = run.rounds.folder_of(number) / "x.safetensors"
    lora.write_bytes(b"lora")
    policy = policy_id(lora)
    run.rounds.finish(number, lora, policy, RoundSummary())
    run.close()
    shutil.copytree(tmp_path / "here", tmp_path / "copy")
    (tmp_path / "else").mkdir()
    shutil.move(tmp_path / "here", tmp_path / "else" / "where")
    for folder in (tmp_path / "copy", tmp_path / "else" / "where"):
        moved = Run.open(folder)
        assert moved.run_id == run.run_id
        assert [stored.pick for stored in moved.picks.standing()] == [Pick("favourite", (1,))]
        _same(moved.groups.trajectory(group.id), trajectory(0))
        assert moved.groups.image_path(group.id, 0).is_relative_to(folder)
        assert moved.rounds.lora(policy) == folder / "rounds" / "0001" / "x.safetensors"
    files = [path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert not any(str(tmp_path).encode() in data for data in files)


def test_any_thread_may_use_a_run(tmp_path):
    run = make_run(tmp_path, groups=1)
    (group,) = run.groups.select()
    wrong = []

    def work(who: str) -> None:
        try:
            for _ in range(5):
                run.picks.add(group.id, Pick("tie"), who=who)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(str(index),)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(run.picks.history()) == 20
    run.close()
    assert len(run.picks.standing()) == 4


def test_metrics_are_appended_and_a_torn_line_is_passed_over(tmp_path):
    run = make_run(tmp_path)
    assert run.metrics.read() == []
    run.metrics.append({"step": 1, "loss": float("nan"), "of": {"train": [float("inf"), 0.5]}})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2, "lo')
    assert [each["step"] for each in run.metrics.read()] == [1]
    run.metrics.append({"step": 3})
    assert run.metrics.read() == [{"step": 1, "loss": None, "of": {"train": [None, 0.5]}}, {"step": 3}]


def test_an_update_done_again_after_a_kill_counts_once(tmp_path):
    run = make_run(tmp_path)
    for update, loss in [(1, 0.7), (2, 0.6), (2, 0.5), (3, 0.4)]:
        run.metrics.append({"round": 1, "phase": "teach", "update": update, "loss": loss})
    run.metrics.append({"round": 2, "phase": "teach", "update": 2, "loss": 0.9})
    assert [each["loss"] for each in run.metrics.read()] == [0.7, 0.5, 0.4, 0.9]


def test_the_manifest_says_what_the_run_was_made_with(tmp_path):
    run = make_run(tmp_path)
    run.write_manifest(device=run_package.device_name("cpu"), seeds=[1, 2])
    run.write_manifest(settings={"steps": 4})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["run_id"] == run.run_id
    assert manifest["model"] == MODEL
    assert manifest["seeds"] == [1, 2]
    assert manifest["settings"] == {"steps": 4}
    assert "cores" in manifest["device"]
    assert torch.__version__.startswith(manifest["versions"]["torch"])  # the build, +cu130, may be missing there
    (tmp_path / "manifest.json").write_text("{")
    assert run.manifest() == {}


def test_size_counts_every_file_once(tmp_path):
    run = make_run(tmp_path, groups=2)
    run.prompts.save_conditioning(run.prompts.add("a"), {"text": torch.zeros(10)})
    run.rounds.save_state(run.rounds.begin({}), {"w": torch.zeros(10)}, {})
    (run.rounds.folder_of(1) / "lora.safetensors").write_bytes(b"12345")
    run.metrics.append({"a": 1})
    size = run.space.size()
    assert size["loras"] == 5
    assert size["images"] == sum(path.stat().st_size for path in tmp_path.rglob("*.png"))
    assert size["tensors"] + 5 == sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert size["total"] == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size["total"] == sum(size[kind] for kind in ("tensors", "images", "loras", "database", "other"))


def _same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_closing_waits_for_a_thread_that_is_reading(tmp_path):
    """SQLite would crash the whole process."""
    run = make_run(tmp_path / "run")
    reading, may_end, closed = threading.Event(), threading.Event(), threading.Event()
    rows = []

    def read():
        with run._database.read() as connection:
            reading.set()
            may_end.wait(10)
            rows.extend(row[0] for row in connection.execute("SELECT COUNT(*) FROM groups"))

    def close():
        run.close()
        closed.set()

    threads = [threading.Thread(target=each) for each in (read, close)]
    threads[0].start()
    assert reading.wait(10)
    threads[1].start()
    assert not closed.wait(0.3)
    may_end.set()
    assert closed.wait(10)
    for thread in threads:
        thread.join()
    assert rows == [0]
    assert run.picks.counts("").drawn == 0  # a closed run opens again when it is used
