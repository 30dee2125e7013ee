"""Picks as JSON lines go out and come back, all or none."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3po_core.errors import D3POError
from d3po_core.exchange.lines import export_dataset, import_file, import_lines, pick_lines
from d3po_core.picks import FLAGS, Pick
from d3po_core.run import Run
from tests.run_helpers import make_run, put_group

PICKS = [
    ("Anna", Pick("favourite", (2,)), (2, 0, 1)),
    ("Anna", Pick("ranking", (1, 0)), (0, 1, 2)),
    ("", Pick("tie"), ()),
    ("Ben", Pick("scores", scores=(1, 0, -1)), ()),
    ("Ben", Pick("all_bad"), (0, 1)),
]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Run, Run]:
    """A run with picks of every kind, and its copy before they were made."""
    run = make_run(tmp_path / "run", groups=5, candidates=3)
    run.close()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    run = Run.open(tmp_path / "run")
    for group, (who, pick, shown) in zip(run.groups.select(), PICKS, strict=True):
        run.picks.add(group.id, pick, who=who, shown_order=shown)
    return run, Run.open(tmp_path / "copy")


def told(run: Run) -> list[object]:
    return [(stored.group_id, stored.who, stored.pick) for stored in run.picks.standing()]


def test_all_that_was_said_comes_back_once(runs: tuple[Run, Run], tmp_path: Path) -> None:
    run, copy = runs
    file = tmp_path / "picks.jsonl"
    file.write_text(pick_lines(run), encoding="utf-8")
    assert import_lines(copy, file) == 5
    assert told(copy) == told(run)
    assert copy.picks.standing()[0].shown_order == (2, 0, 1)
    assert import_lines(copy, file) == 0 and len(copy.picks.history()) == 5


def flags(run: Run) -> list[object]:
    return [(flag.group_id, flag.who, flag.candidate, flag.kind, flag.shown_order) for flag in run.flags.standing()]


@pytest.fixture
def flagged(runs: tuple[Run, Run]) -> tuple[Run, Run]:
    """The same two, with flags in the first."""
    run, copy = runs
    first, second, third, *_ = run.groups.select()
    run.flags.add(first.id, 0, "defective", who="Anna", shown_order=(2, 0, 1))
    run.flags.add(first.id, 0, "unsafe", who="Anna")
    run.flags.add(second.id, 1, "unsafe", who="Ben")
    run.flags.add(third.id, 2, "defective")
    run.flags.add(third.id, 2, "defective", on=False)
    return run, copy


@pytest.mark.parametrize("form", ["lines", "data set"])
def test_flags_go_out_and_come_back_with_the_picks(flagged: tuple[Run, Run], tmp_path: Path, form: str) -> None:
    run, copy = flagged
    file = tmp_path / "metadata.jsonl"
    if form == "lines":
        file.write_text(pick_lines(run), encoding="utf-8")
        assert len(file.read_text("utf-8").splitlines()) == 8
    else:
        export_dataset(run, tmp_path)
    assert import_lines(copy, file) == 8
    assert flags(copy) == flags(run) and len(flags(copy)) == 3 and told(copy) == told(run)
    assert import_lines(copy, file) == 0 and len(copy.flags.history()) == 3


def test_a_data_set_names_flags_and_what_they_make_worse(flagged: tuple[Run, Run], tmp_path: Path) -> None:
    run, _ = flagged
    put_group(run, candidates=3)
    run.flags.add(run.groups.select()[-1].id, 1, "unsafe", who="Ben")
    assert export_dataset(run, tmp_path) == 18  # a group with only a flag is told of too
    lines = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()]
    said = {(line["group"], line["candidate"]): line for line in lines}
    assert [flag["kind"] for flag in said[0, 0]["flags"]] == ["defective", "unsafe"] and said[0, 1]["flags"] == []
    assert said[0, 0]["picks"][0]["worse_than"] == [1, 2] and said[0, 1]["picks"][0]["better_than"] == [0]
    assert said[5, 0]["picks"] == [] and [flag["who"] for flag in said[5, 1]["flags"]] == ["Ben"]


def test_what_was_said_of_flags_since_wins(flagged: tuple[Run, Run], tmp_path: Path) -> None:
    run, _ = flagged
    file = tmp_path / "picks.jsonl"
    file.write_text(pick_lines(run), encoding="utf-8")
    first, second, *_ = run.groups.select()
    run.flags.add(first.id, 0, "defective", on=False, who="Anna")
    run.picks.add(second.id, Pick("favourite", (1,)), who="Ben")  # prefers what he had called unsafe
    before = flags(run)
    assert import_lines(run, file) == 0 and flags(run) == before == [(first.id, "Anna", 0, "unsafe", ())]


def test_a_flag_older_than_the_favourite_that_outweighs_it_stays_outweighed(
    flagged: tuple[Run, Run], tmp_path: Path
) -> None:
    run, copy = flagged
    file = tmp_path / "picks.jsonl"
    file.write_text(pick_lines(run), encoding="utf-8")
    copy.picks.add(copy.groups.select()[1].id, Pick("favourite", (1,)), who="Ben")
    assert import_lines(copy, file) == 5 + 3 and all(who != "Ben" for _, who, *_ in flags(copy))


def test_pictures_of_another_taste_are_others_though_the_prompts_are_the_same(
    runs: tuple[Run, Run], tmp_path: Path
) -> None:
    file = tmp_path / "picks.jsonl"
    file.write_text(pick_lines(runs[0]), encoding="utf-8")
    other = make_run(tmp_path / "other", groups=5, candidates=3)
    with pytest.raises(D3POError, match="does not fit this taste's pictures"):
        import_lines(other, file)


def test_what_was_said_since_wins(runs: tuple[Run, Run], tmp_path: Path) -> None:
    run, _ = runs
    file = tmp_path / "picks.jsonl"
    file.write_text(pick_lines(run), encoding="utf-8")
    first, second, *_ = run.groups.select()
    run.picks.add(first.id, Pick("favourite", (0,)), who="Anna")  # she has changed her mind,
    run.picks.remove(
        next(stored.pick_id for stored in run.picks.standing() if stored.group_id == second.id)
    )  # and taken this back
    before = told(run)
    assert import_lines(run, file) == 0 and told(run) == before


def test_texts_may_hold_what_other_programs_take_for_the_end_of_a_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", groups=0)
    put_group(run, prompt_id=run.prompts.add("a lake\u2028at dawn\x85"))
    run.close()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    run = Run.open(tmp_path / "run")
    run.picks.add(run.groups.select()[0].id, Pick("favourite", (1,)))
    file = tmp_path / "picks.jsonl"
    file.write_text("\ufeff" + pick_lines(run), encoding="utf-8")
    assert import_lines(Run.open(tmp_path / "copy"), file) == 1


def test_a_file_is_taken_for_what_its_name_says(runs: tuple[Run, Run], tmp_path: Path) -> None:
    run, copy = runs
    lines, feedback = tmp_path / "PICKS.JSONL", tmp_path / "feedback.json"
    lines.write_text(pick_lines(run), encoding="utf-8")
    feedback.write_text(json.dumps([[1, 0, 0]]), encoding="utf-8")
    with pytest.raises(D3POError, match="says itself who picked"):
        import_file(copy, lines, "Anna")
    assert import_file(copy, lines) == "Imported 5 picks."
    assert import_file(copy, feedback, "Cleo") == "Imported 1 picks." and told(copy)[-1] == (
        copy.groups.select()[0].id,
        "Cleo",
        Pick("scores", scores=(1, 0, 0)),
    )


def test_a_data_set_brings_its_picks_back(runs: tuple[Run, Run], tmp_path: Path) -> None:
    run, copy = runs
    export_dataset(run, tmp_path / "data")
    assert import_lines(copy, tmp_path / "data" / "metadata.jsonl") == 5
    assert told(copy) == told(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "000099-1a2b3c4d"},
        {"id": ["000000"]},
        {"kind": "best"},
        {"when": "yesterday"},
        {"who": None},
        {"who": "\ud800"},
        {"who": "x" * 81},
        {"order": [7]},
        {"order": "2"},
        {"order": [True]},
        {"shown": [0, 0, 1]},
        {"shown": [0, 1]},  # the favourite was not among them
        {"scores": [5, 5, 5], "kind": "scores"},
        {"kind": "unsafe", "order": [3], "shown": []},
        {"kind": "unsafe", "order": [0, 1], "shown": []},
        {"kind": "unsafe", "order": [], "shown": []},
    ],
)
def test_a_line_that_does_not_fit_keeps_all_out(
    runs: tuple[Run, Run], tmp_path: Path, changes: dict[str, object]
) -> None:
    run, copy = runs
    first, *others = pick_lines(run).splitlines()
    file = tmp_path / "picks.jsonl"
    file.write_text("\n".join([*others, json.dumps({**json.loads(first), **changes})]), encoding="utf-8")
    with pytest.raises(D3POError, match=r"Line 5 of picks.jsonl does not fit") as caught:
        import_lines(copy, file)
    assert caught.value.safe == "Nothing was imported." and not copy.picks.standing()


@pytest.mark.parametrize("text", ["{", "[1, 2]", "7", "{}", '{"picks": [3], "id": 0}', "null", "[" * 10**5])
def test_what_is_no_pick_is_told(runs: tuple[Run, Run], tmp_path: Path, text: str) -> None:
    file = tmp_path / "picks.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(D3POError, match=r"Line 1 of picks.jsonl is not a pick"):
        import_lines(runs[1], file)
    with pytest.raises(D3POError, match="cannot be read"):
        import_lines(runs[1], tmp_path / "none.jsonl")


WHO, GROUPS, TIMES = ("Anna", "Ben"), 2, st.integers(1, 6).map(lambda n: 1.7e9 + n)
SAID = st.one_of(
    st.tuples(st.just("favourite"), st.integers(0, 2)),
    st.tuples(st.sampled_from(["defective", "unsafe"]), st.integers(0, 2)),
    st.tuples(st.just("tie"), st.none()),
)


@given(
    said=st.lists(st.tuples(st.sampled_from(WHO), st.integers(0, GROUPS - 1), TIMES, SAID), max_size=14),
    parts=st.lists(st.integers(0, 2), min_size=14, max_size=14),
    order=st.permutations(range(3)),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_of_several_clocks_give_the_same_in_any_order(
    said: list[tuple[str, int, float, tuple[str, int | None]]], parts: list[int], order: list[int], tmp_path: Path
) -> None:
    """What each person said last is worked out here from the list alone; two different things at once are left out."""
    said = list(
        {
            (who, group, when, kind in FLAGS): (who, group, when, (kind, c)) for who, group, when, (kind, c) in said
        }.values()
    )
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        run = make_run(Path(folder) / "run", groups=GROUPS, candidates=3)
        ids = [group.id for group in run.groups.select()]
        for part in [*order, order[0]]:  # the first one twice
            file = Path(folder) / "picks.jsonl"
            lines = [
                {"id": ids[group], "kind": kind, "order": [] if c is None else [c], "who": who, "when": when}
                for number, (who, group, when, (kind, c)) in enumerate(said)
                if parts[number] == part
            ]
            file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            import_lines(run, file)
        picks, marks = dict[tuple[str, str], tuple[float, Pick]](), set[tuple[str, str, int, str]]()
        for who, group, when, (kind, c) in sorted(said, key=lambda each: each[2]):
            if kind not in FLAGS:
                picks[ids[group], who] = (when, Pick(kind, () if c is None else (c,)))  # type: ignore[arg-type]
        for who, group, when, (kind, c) in said:
            pick = picks.get((ids[group], who))
            if kind in FLAGS and not (
                pick and pick[1].kind == "favourite" and pick[1].order == (c,) and pick[0] >= when
            ):
                assert c is not None
                marks.add((ids[group], who, c, kind))
        assert {(each.group_id, each.who): (each.when, each.pick) for each in run.picks.standing()} == picks
        assert {(each.group_id, each.who, each.candidate, each.kind) for each in run.flags.standing()} == marks
        run.close()


def test_a_correction_here_is_later_than_a_pick_of_a_clock_that_is_ahead(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", groups=1, candidates=3)
    (group,) = run.groups.select()
    ahead = {"id": group.id, "kind": "favourite", "order": [1], "who": "Anna", "when": 4e9}
    (tmp_path / "picks.jsonl").write_text(json.dumps(ahead) + "\n")
    assert import_lines(run, tmp_path / "picks.jsonl") == 1
    run.picks.add(group.id, Pick("favourite", (2,)), who="Anna")
    (tmp_path / "corrected.jsonl").write_text(pick_lines(run))
    assert import_lines(run, tmp_path / "picks.jsonl") == 0 and run.picks.standing()[0].pick.order == (2,)
    run.picks.take_back(run.picks.standing()[0].pick_id)
    assert run.picks.standing()[0].pick.order == (1,)  # undo brings the imported one back
    run.picks.remove(run.picks.standing()[0].pick_id)
    for name in ("picks", "corrected"):
        assert import_lines(run, tmp_path / f"{name}.jsonl") == 0 and not run.picks.standing()
