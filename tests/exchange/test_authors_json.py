"""The reference repository's JSON: its authors' own example, and a reader and pairs written after their code."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3po_core.errors import D3POError
from d3po_core.exchange.authors_json import export_picks, import_picks
from d3po_core.picks import Pick, pairs
from tests.run_helpers import make_run, put_group

EXAMPLE = [[0, 0, 1, 0, 0, 1, 1], [1, 0, 0, 1, 0, 0, 0]]


def test_the_authors_example(tmp_path):
    run = make_run(tmp_path / "run", groups=3, candidates=7)
    (tmp_path / "anna.json").write_text(json.dumps(EXAMPLE))
    assert import_picks(run, tmp_path / "anna.json") == 2
    stored = run.picks.standing()
    assert [each.group_id for each in stored] == [group.id for group in run.groups.select()[:2]]
    assert {each.who for each in stored} == {"anna"}
    for each, row in zip(stored, EXAMPLE, strict=True):
        assert each.pick == Pick("scores", scores=tuple(row))
        found = {(pair.winner, pair.loser) for pair in pairs(each.pick, 7)}
        expected = set()
        for a, b in itertools.combinations(range(7), 2):  # as their trainer goes through them
            if row[a] != row[b]:
                expected.add((a, b) if row[a] > row[b] else (b, a))
        assert found == expected
    assert import_picks(run, tmp_path / "anna.json") == 0
    assert len(run.picks.history()) == 2


def test_what_is_exported_is_imported_again(tmp_path):
    run = make_run(tmp_path / "run", groups=3, candidates=7)
    (tmp_path / "a.json").write_text(json.dumps([*EXAMPLE, [0, -1, 0, 0, 1, 0, 0]]))
    import_picks(run, tmp_path, who="x")
    assert export_picks(run, tmp_path / "out" / "b.json", who="x") == 0
    rows = json.loads((tmp_path / "out" / "b.json").read_text())
    assert np.array(rows).shape == (3, 7)
    assert rows == [*EXAMPLE, [0, -1, 0, 0, 1, 0, 0]]


def test_a_folder_holds_one_file_for_each_annotator(tmp_path):
    run = make_run(tmp_path / "run", groups=2, candidates=7)
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "anna.json").write_text(json.dumps(EXAMPLE))
    (tmp_path / "json" / "bert.json").write_text(json.dumps([[0.0] * 7, [-1] + [0] * 6]))
    assert import_picks(run, tmp_path / "json") == 3
    assert [stored.who for stored in run.picks.standing()] == ["anna", "anna", "bert"]
    with pytest.raises(D3POError, match=r"no \.json file"):
        import_picks(run, tmp_path / "run" / "groups")


def test_zeros_take_back_and_are_else_left_out(tmp_path):
    run = make_run(tmp_path / "run", groups=2, candidates=2)
    first = run.groups.select()[0]
    run.picks.add(first.id, Pick("favourite", (1,)), who="x")
    (tmp_path / "x.json").write_text("[[0, 0], [0, 0]]")
    assert import_picks(run, tmp_path / "x.json") == 1
    assert [(stored.group_id, stored.pick.scores) for stored in run.picks.standing()] == [(first.id, (0, 0))]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[[1, 0", "is not JSON"),
        ('{"0": [1, 0]}', "not a list of rows"),
        ("[1, 0]", "not a list of rows"),
        ("[[1, 0], [1, 0, 0]]", "Row 1 .* not 2 numbers"),
        ("[[1, 0], [1, NaN]]", "Row 1"),
        ("[[1, 0], [true, 0]]", "Row 1"),
        ("[[1, 0], [1, null]]", "Row 1"),
        ("[[1, 0], [1, 0], [1, 0]]", "judges 3 groups; this run has 2"),
        (None, "cannot be read"),
    ],
)
def test_files_that_do_not_fit_change_nothing(tmp_path, text, what):
    run = make_run(tmp_path / "run", groups=2)
    if text is not None:
        (tmp_path / "x.json").write_text(text)
    with pytest.raises(D3POError, match=what):
        import_picks(run, tmp_path / "x.json")
    assert run.picks.history() == []


def test_levels_are_an_order(tmp_path):
    """Of any scale; those of a file that has others than -1, 0 and 1 are no thumbs, and a row of zeros is no pick."""
    run = make_run(tmp_path / "run", groups=5, candidates=4)
    rows = [[2, 0, -1, 3], [1, 1, 1, 1], [5, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(rows).encode())
    assert import_picks(run, tmp_path / "x.json") == 4
    picks = {stored.group_id: stored.pick for stored in run.picks.standing()}
    assert [picks.get(group.id) for group in run.groups.select()] == [
        Pick("ranking", (3, 0, 1)),
        Pick("tie"),
        Pick("ranking", (0,)),
        None,
        Pick("ranking", (0,)),
    ]


@pytest.mark.parametrize("row", ["[3, 2, 2, 1]", "[5, 5, 1, 1]"])
def test_levels_that_no_pick_can_express_are_an_error(tmp_path, row):
    """As thumbs the higher ones would be liked, of which nobody knows."""
    run = make_run(tmp_path / "run", groups=1, candidates=4)
    (tmp_path / "x.json").write_text(f"[{row}]")
    with pytest.raises(D3POError, match=r"Row 0 .* equal above the lowest"):
        import_picks(run, tmp_path / "x.json")


def test_every_kind_of_pick_is_exported(tmp_path):
    run = make_run(tmp_path / "run")
    said = [
        (Pick("favourite", (2,)), [0, 0, 1, 0], 0),
        (Pick("ranking", (1, 3, 0, 2)), [0, 1, -1, 0], 1),
        (Pick("ranking", (3, 1)), [-1, 0, -1, 1], 0),
        (Pick("ranking", (0,)), [1, -1, -1, -1], 0),
        (Pick("tie"), [0, 0, 0, 0], 0),
        (Pick("all_bad"), [-1, -1, -1, -1], 0),
        (Pick("skipped"), [0, 0, 0, 0], 0),
        (Pick("scores", scores=(1, 1, -1, 0)), [1, 1, -1, 0], 0),
        (None, [0, 0, 0, 0], 0),
    ]
    for pick, _, _ in said:
        group = put_group(run, candidates=4)
        if pick is not None:
            run.picks.add(group, pick)
            run.picks.add(group, Pick("tie"), who="other")
    assert export_picks(run, tmp_path / "x.json") == sum(lost for _, _, lost in said)
    assert json.loads((tmp_path / "x.json").read_text()) == [row for _, row, _ in said]
    put_group(run, candidates=3)
    with pytest.raises(D3POError, match="same number of images"):
        export_picks(run, tmp_path / "x.json")


@given(st.permutations(range(5)), st.integers(1, 5), st.sets(st.integers(0, 4), max_size=4))
def test_no_pair_is_turned_round(order, length, flagged):
    from d3po_core.exchange.authors_json import _levels

    pick = Pick("ranking", tuple(order[:length]))
    kept = {(pair.winner, pair.loser) for pair in pairs(Pick("scores", scores=tuple(_levels(pick, 5, flagged))), 5)}
    assert kept <= {(pair.winner, pair.loser) for pair in pairs(pick, 5, (), flagged)}
    assert kept


def test_flags_are_exported_as_minus_one(tmp_path):
    run = make_run(tmp_path / "run", groups=4, candidates=4)
    a, b, c, d = (group.id for group in run.groups.select())
    run.picks.add(a, Pick("favourite", (2,)))
    run.flags.add(a, 0, "defective")
    run.flags.add(b, 3, "unsafe")
    run.picks.add(c, Pick("ranking", (1, 3, 0, 2)))
    run.flags.add(c, 3, "unsafe")
    run.flags.add(d, 0, "unsafe", who="other")
    # Of the third: 1 > 0 > 2 > 3 keeps all but 0 > 2.
    assert export_picks(run, tmp_path / "x.json") == 1
    rows = json.loads((tmp_path / "x.json").read_text())
    assert rows == [[-1, 0, 1, 0], [0, 0, 0, -1], [0, 1, 0, -1], [0, 0, 0, 0]]
