"""Picks through Label Studio's pairwise template and through Hugging Face's data sets, and back."""

from __future__ import annotations

import base64
import io
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from d3po_core.errors import D3POError
from d3po_core.exchange import label_studio
from d3po_core.exchange.label_studio import export_tasks, import_tasks
from d3po_core.exchange.lines import export_dataset, import_file, pick_lines
from d3po_core.importing.levels import pick_of_pairs
from d3po_core.picks import Pick, pairs
from d3po_core.run import Run
from tests.run_helpers import make_run, put_group

C = 4
Wins = set[tuple[int, int]]


def copied(run: Run, folder: Path) -> Run:
    """Return a copy of a run from before anybody picked."""
    shutil.copytree(run.folder, folder)
    return Run.open(folder)


def exported(run: Run, folder: Path) -> list[dict[str, Any]]:
    export_tasks(run, folder, pick_lines(run))
    return [task for file in sorted(folder.glob("tasks-*.json")) for task in json.loads(file.read_text("utf-8"))]


def wins(run: Run) -> dict[tuple[str, str], Wins]:
    """Return which candidates each person prefers to which, by group; nobody who prefers none."""
    found = {
        (one.who, one.group_id): {(p.winner, p.loser) for p in pairs(one.pick, C, one.shown_order, one.flagged)}
        for one in run.picks.judgements()
    }
    return {key: of for key, of in found.items() if of}


PICKS = st.one_of(
    st.integers(0, C - 1).map(lambda c: Pick("favourite", (c,))),
    st.permutations(range(C)).flatmap(lambda order: st.integers(1, C).map(lambda n: Pick("ranking", tuple(order[:n])))),
    st.tuples(*[st.sampled_from((-1, 0, 1))] * C).map(lambda scores: Pick("scores", scores=scores)),
    st.sampled_from([Pick("tie"), Pick("all_bad"), Pick("skipped")]),
)


@given(
    said=st.lists(st.tuples(st.sampled_from(["Anna", "ben@example.org", ""]), st.integers(0, 2), PICKS), max_size=8),
    flag=st.none() | st.tuples(st.sampled_from(["Anna", "Cleo"]), st.integers(0, C - 1)),
)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_preferred_comes_back_through_label_studio(
    said: list[tuple[str, int, Pick]], flag: tuple[str, int] | None, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as name:
        folder = Path(name)
        run = make_run(folder / "run", groups=3, candidates=C)
        copy = copied(run, folder / "copy")
        ids = [group.id for group in run.groups.select()]
        for who, group, pick in said:
            run.picks.add(ids[group], pick, who=who)
        if flag:
            run.flags.add(ids[0], flag[1], "defective", who=flag[0])
        before = [(each.pick_id, each.pick) for each in run.picks.standing()]
        exported(run, folder / "tasks")
        assert import_tasks(copy, folder / "tasks" / "tasks-001.json").left_out == ()
        assert wins(copy) == wins(run)
        assert import_tasks(run, folder / "tasks" / "tasks-001.json").picks == 0  # it says nothing new here
        assert [(each.pick_id, each.pick) for each in run.picks.standing()] == before
        for each in (run, copy):
            each.close()


def test_what_pairs_cannot_say_is_named_and_kept_beside(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", groups=3, candidates=C)
    copy = copied(run, tmp_path / "copy")
    a, b, c = (group.id for group in run.groups.select())
    run.picks.add(a, Pick("tie"), who="Anna")
    run.picks.add(b, Pick("all_bad"), who="Ben")
    run.picks.add(c, Pick("favourite", (1,)), who="Anna", shown_order=(3, 1, 0, 2))
    run.flags.add(c, 2, "unsafe", who="Anna")
    run.masks.add(c, 1, tuple([1] * 32), who="Anna")
    found = export_tasks(run, tmp_path / "tasks", pick_lines(run))
    assert str(found) == (
        "18 tasks with 5 annotations. Label Studio's pairs cannot say: 1 tie, 1 all bad, 1 flags, 1 masks; picks.jsonl "
        "beside them does"
    )
    assert import_file(copy, tmp_path / "tasks" / "picks.jsonl") == "Imported 5 picks."
    assert pick_lines(copy) == pick_lines(run)


def test_the_pictures_and_the_interface_are_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", groups=2, candidates=3)
    put_group(run, candidates=3, near=(1,))
    tasks = exported(run, tmp_path / "tasks")
    assert len(tasks) == 2 * 3 + 1 and not any("annotations" in task for task in tasks)
    interface = ElementTree.fromstring((tmp_path / "tasks" / "config.xml").read_text("utf-8"))
    (control,) = interface.iter("Pairwise")
    images = {image.get("name"): image.get("value") for image in interface.iter("Image")}
    assert control.get("toName", "").split(",") == list(images)
    for task in tasks:
        group = run.groups.get(task["data"]["group"])
        for side, value in enumerate(images.values(), 1):
            head, _, data = task["data"][str(value).removeprefix("$")].partition(",")
            assert head == "data:image/jpeg;base64"
            with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
                path = run.groups.image_path(group.id, task["data"][f"candidate{side}"])
                assert shown.size == Image.open(path).size


def test_large_exports_come_in_files_that_label_studio_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", groups=3, candidates=3)
    whole = exported(run, tmp_path / "one")
    monkeypatch.setattr(label_studio, "MOST_BYTES", 5000)
    assert exported(run, tmp_path / "several") == whole
    files = sorted((tmp_path / "several").glob("tasks-*.json"))
    assert len(files) > 2 and all(file.stat().st_size <= 5100 for file in files)


def answered(tasks: list[dict[str, Any]], choices: dict[tuple[int, int], str], **more: object) -> list[dict[str, Any]]:
    """Return the first group's tasks as Label Studio exports them, after somebody chose in some of them."""
    group, found = tasks[0]["data"]["group"], []
    for number, task in enumerate(task for task in tasks if task["data"]["group"] == group):
        side = choices.get((task["data"]["candidate1"], task["data"]["candidate2"]))
        result = {
            "id": f"r{number}",
            "from_name": "pw",
            "to_name": "pw",
            "type": "pairwise",
            "value": {"selected": side},
        }
        annotation = {
            **{"id": number, "result": [result], "was_cancelled": False, "lead_time": 3.1, "completed_by": 7},
            **{"created_at": "2030-03-09T22:16:08.728353Z", "updated_at": "2030-03-09T22:16:09.728353Z", **more},
        }
        found.append({"id": number, "project": 3, "data": task["data"], "annotations": [annotation] if side else []})
    return found


def brought(run: Run, folder: Path, tasks: list[dict[str, Any]], who: str | None = None) -> str:
    (folder / "export.json").write_text(json.dumps(tasks), "utf-8")
    return import_file(run, folder / "export.json", who)


ALL = [*itertools.combinations(range(C), 2)]


@pytest.mark.parametrize(
    ("choices", "pick", "shown"),
    [
        ({pair: "left" for pair in ALL}, Pick("ranking", (0, 1, 2)), (0, 1, 2, 3)),
        ({pair: "right" for pair in ALL}, Pick("ranking", (3, 2, 1)), (0, 1, 2, 3)),
        ({(0, 2): "right", (1, 2): "right", (2, 3): "left"}, Pick("favourite", (2,)), (0, 1, 2, 3)),
        ({(1, 3): "right"}, Pick("favourite", (3,)), (1, 3)),
    ],
)
def test_choices_of_label_studio_become_picks(
    choices: dict[tuple[int, int], str], pick: Pick, shown: tuple[int, ...], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", groups=1, candidates=C)
    tasks = exported(run, tmp_path / "tasks")
    assert brought(run, tmp_path, answered(tasks, choices)) == "Imported 1 picks."
    (stored,) = run.picks.standing()
    assert (stored.pick, stored.shown_order, stored.who) == (pick, shown, "Label Studio 7")
    assert stored.when == pytest.approx(1899324969.728353, abs=1e-3)
    assert brought(run, tmp_path, answered(tasks, choices)) == "Imported 0 picks."
    run.picks.remove(stored.pick_id)
    assert not run.picks.standing()


@pytest.mark.parametrize(
    ("member", "name"),
    [
        ({"id": 3, "email": "anna@example.org", "first_name": "Anna"}, "anna@example.org"),
        ({"id": 3, "first_name": "Anna", "last_name": "Lee"}, "Anna Lee"),
        (None, ""),
    ],
)
def test_who_chose_is_named(member: object, name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", groups=1, candidates=C)
    tasks = answered(exported(run, tmp_path / "tasks"), {(0, 1): "left"}, completed_by=member)
    assert brought(run, tmp_path, tasks) == "Imported 1 picks." and run.history.people() == [name]
    assert brought(run, tmp_path, tasks, "Ben") == "Imported 1 picks." and "Ben" in run.history.people()


def test_a_circle_is_no_pick_and_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", groups=1, candidates=C)
    circle = {(0, 1): "left", (1, 2): "left", (0, 2): "right"}
    told = brought(run, tmp_path, answered(exported(run, tmp_path / "tasks"), circle))
    assert told.startswith("Imported 0 picks. Left out, as the choices go round in a circle") and "group 0" in told


def test_what_was_skipped_or_is_of_another_tag_is_no_choice(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", groups=1, candidates=C)
    tasks = exported(run, tmp_path / "tasks")
    assert brought(run, tmp_path, answered(tasks, {(0, 1): "left"}, was_cancelled=True)) == "Imported 0 picks."
    other = [{"id": "x", "type": "choices", "value": {"choices": ["good"]}}]
    assert brought(run, tmp_path, answered(tasks, {(0, 1): "left"}, result=other)) == "Imported 0 picks."


@pytest.mark.parametrize(
    "change",
    [
        {"group": "000009-00000000"},
        {"candidate1": 4},
        {"candidate1": True},
        {"candidate1": 1},
        {"candidate2": "1"},
    ],
)
def test_a_task_of_another_run_keeps_all_out(change: dict[str, object], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", groups=1, candidates=C)
    tasks = answered(exported(run, tmp_path / "tasks"), {pair: "left" for pair in ALL})
    tasks[0] = {**tasks[0], "data": {**tasks[0]["data"], **change}}
    with pytest.raises(D3POError, match=r"Task 1 of export.json does not fit this taste's pictures") as caught:
        brought(run, tmp_path, tasks)
    assert caught.value.safe == "Nothing was imported." and not run.picks.history()


def test_several_people_cannot_be_given_one_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", groups=1, candidates=C)
    tasks = exported(run, tmp_path / "tasks")
    two = [*answered(tasks, {(0, 1): "left"}), *answered(tasks, {(0, 1): "right"}, completed_by=8)]
    with pytest.raises(D3POError, match="2 people chose"):
        brought(run, tmp_path, two, "Anna")
    assert brought(run, tmp_path, two) == "Imported 2 picks."


@given(st.sets(st.sampled_from([(a, b) for a in range(C) for b in range(C) if a != b]), min_size=1))
def test_a_pick_of_pairs_implies_these_pairs_and_no_others(chosen: Wins) -> None:
    """Whether any pick does is found by trying all there are."""
    seen = sorted({each for pair in chosen for each in pair})
    orders = [Pick("ranking", order) for n in range(1, C) for order in itertools.permutations(seen, n)]
    every = [*orders, *(Pick("scores", scores=scores) for scores in itertools.product((-1, 0, 1), repeat=C))]
    possible = any({(p.winner, p.loser) for p in pairs(pick, C, seen)} == chosen for pick in every)
    found = pick_of_pairs(chosen)
    assert (found is not None) == possible
    if found:
        pick, shown = found
        full = Pick(pick.kind, pick.order, (*pick.scores, *[0] * (C - len(pick.scores)))) if pick.scores else pick
        assert {(p.winner, p.loser) for p in pairs(full, C, shown)} == chosen


def test_a_data_set_opens_in_datasets_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    run = make_run(tmp_path / "run", groups=4, candidates=C)
    copy = copied(run, tmp_path / "copy")
    a, b, c, d = (group.id for group in run.groups.select())
    run.picks.add(a, Pick("favourite", (1,)), who="Anna", shown_order=(3, 1, 0, 2))
    run.picks.add(a, Pick("ranking", (2, 0)), who="Ben")
    run.picks.add(b, Pick("tie"), who="Anna")
    run.picks.add(c, Pick("scores", scores=(1, 0, -1, 0)), who="Ben")
    run.flags.add(d, 1, "unsafe", who="Anna")
    run.masks.add(c, 1, tuple([2**32 - 1] * 32), who="Ben")
    folder = tmp_path / "data"
    assert export_dataset(run, folder) == 4 * C
    cache = str(tmp_path / "cache")
    pictures = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=cache)
    assert pictures.num_rows == 4 * C and pictures[0]["image"].size == Image.open(run.groups.image_path(a, 0)).size
    assert {row["seed"] for row in pictures} == {str(group.seed) for group in run.groups.select()}
    judged = datasets.load_dataset("json", data_files=str(folder / "judgements.jsonl"), split="train", cache_dir=cache)
    assert {"prompt", "images", "best", "who"} <= set(judged.column_names)
    rows = [(row["who"], row["kind"], row["best"], row["prompt"]) for row in judged]
    assert rows[:3] == [
        ("Anna", "favourite", 1, "a red flower"),
        ("Ben", "ranking", 2, "a red flower"),
        ("Anna", "tie", None, "a red flower"),
    ]
    assert all((folder / name).is_file() for row in judged for name in row["images"]) and len(judged[0]["images"]) == C
    with_pictures = judged.map(lambda row: {"images": [str(folder / name) for name in row["images"]]})
    with_pictures = with_pictures.cast_column("images", datasets.Sequence(datasets.Image()))
    assert with_pictures[0]["images"][3].size == (8, 8)
    for name in ("judgements.jsonl", "metadata.jsonl"):
        other = copied(copy, tmp_path / name)
        assert import_file(other, folder / name) == "Imported 6 picks."
        assert pick_lines(other) == pick_lines(run)


def test_who_changes_somebodys_choice_there_is_not_taken_for_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", groups=1, candidates=2)
    (group,) = (each.id for each in run.groups.select())
    run.picks.add(group, Pick("favourite", (0,)), who="Anna", when=1000.0)
    tasks = exported(run, tmp_path / "tasks")
    (annotation,) = tasks[0]["annotations"]
    annotation |= {"completed_by": {"email": "ben@example.org"}, "updated_at": "2026-11-01T10:00:00Z"}
    (tmp_path / "same.json").write_text(json.dumps(tasks))
    assert import_tasks(run, tmp_path / "same.json").picks == 0  # Anna's, at Anna's time, whoever looked at it
    annotation["result"][0]["value"]["selected"] = "right"
    (tmp_path / "changed.json").write_text(json.dumps(tasks))
    import_tasks(run, tmp_path / "changed.json")
    assert {one.who: one.pick.order for one in run.picks.standing()} == {"Anna": (0,), "ben@example.org": (1,)}


@pytest.mark.parametrize("changes", [{"annotations": ["x"]}, {"annotations": [{"result": [{"meta": "s"}]}]}])
def test_what_is_no_annotation_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = make_run(tmp_path / "run", groups=1, candidates=2)
    tasks = exported(run, tmp_path / "tasks")
    (tmp_path / "bad.json").write_text(json.dumps([{**tasks[0], **changes}]))
    with pytest.raises(D3POError, match=r"Task 1 of bad\.json does not fit"):
        import_tasks(run, tmp_path / "bad.json")
