"""The benchmark of flags measures what it says: bars, and nothing but bars, are defects, and those are flagged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.planted_defects import Experiment, bar_rows, defective, judge, with_bar
from d3po_core.embedded import COLOURS, KINDS, SKIES
from d3po_core.run import Run
from tests.run_helpers import MODEL, trajectory
from tools.garden.pictures import Scene, render
from tools.garden.training_tools import as_tensor

LARGEST = [Scene(k, c, s, size=1.0, lean=0.3, detail=5) for k in KINDS for c in COLOURS for s in SKIES]


def test_no_flower_is_a_bar_and_every_bar_is_one():
    clean = [render(scene) for scene in LARGEST]
    assert bar_rows(as_tensor(np.stack(clean))).max() == 0  # large purple blooms among them
    assert bar_rows(as_tensor(np.stack([with_bar(picture) for picture in clean]))).unique().tolist() == [12]


@pytest.mark.parametrize(
    ("rows", "columns", "is_one"),
    [
        (3, slice(None), False),
        (4, slice(None), True),
        (12, slice(0, 20), True),
        (12, slice(30, 64), True),
        (12, slice(8, 56), False),
    ],
)
def test_a_bar_is_thick_and_reaches_an_edge(rows, columns, is_one):
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, 30 : 30 + rows, columns] = torch.tensor((148, 52, 196)).view(3, 1, 1) / 255
    assert defective(image).tolist() == [is_one]


def run_of(folder, bars: list[list[bool]]) -> Run:
    """Groups of drawings, some of which have the bar."""
    run = Run.create(folder, model=MODEL, settings={})
    for number, group in enumerate(bars):
        drawings = [render(Scene("daisy", "purple", "at night", size=c / 4, detail=c)) for c in range(len(group))]
        run.groups.add(
            prompt_id=run.prompts.add("a purple daisy at night"),
            number=number,
            seed=number,
            candidates=len(group),
            policy="base",
            round=1,
            settings={},
            held_out=False,
            tensors=trajectory(number, len(group)),
            images=[Image.fromarray(with_bar(d) if b else d) for d, b in zip(drawings, group, strict=True)],
        )
    return run


BARS = [[False, True, False, False], [True, True, True, False], [False] * 4, [True] * 4]


def test_the_person_flags_bars_and_nothing_else(tmp_path):
    run = run_of(tmp_path, BARS)
    told = judge(run, Experiment("flags"), 0)
    found = {(run.groups.get(flag.group_id).number, flag.candidate) for flag in run.flags.standing()}
    assert found == {(number, c) for number, group in enumerate(BARS) for c, bar in enumerate(group) if bar}
    assert run.picks.standing() == [] and told == {"in_groups": 0.5, "mixed_groups": 0.5}


def test_flags_by_lot_are_as_many_and_on_other_pictures(tmp_path):
    run = run_of(tmp_path, BARS)
    judge(run, Experiment("by lot", shuffled=True), 0)
    found = {(run.groups.get(flag.group_id).number, flag.candidate) for flag in run.flags.standing()}
    assert len(found) == 8 and not {(3, c) for c in range(4)} <= found


def test_a_favourite_is_never_a_flagged_picture_where_there_is_another(tmp_path):
    run = run_of(tmp_path, BARS)
    judge(run, Experiment("both", taste="garden-size"), 0)
    favourites = {run.groups.get(stored.group_id).number: stored.pick.order[0] for stored in run.picks.standing()}
    assert favourites[0] in (0, 2, 3) and favourites[1] == 3 and favourites[2] == 3  # the last bloom is the largest
    assert len(run.flags.standing()) == 8
