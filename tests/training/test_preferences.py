"""What a round by picks learns from: the picks themselves, or the order of a judge who was fitted to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from d3po_core.picks import Pick
from d3po_core.rewards import get_reward
from d3po_core.rewards.judge import fit_judge, judge_scores, own_judge
from d3po_core.run import Group, Run
from d3po_core.run.run import read_images
from d3po_core.training.preferences import FLAGGED, PreferenceData, collect_preferences, judged_preferences
from tests.rewards.test_judge import coloured_run

PICKED = 36


def warmth(run: Run, group: Group) -> list[float]:
    return get_reward("warmth")(read_images(run, group), [""] * group.candidates).tolist()


def pick(run: Run, groups: list[Group]) -> None:
    """The warmest of each."""
    for group in groups:
        values = warmth(run, group)
        run.picks.add(group.id, Pick("favourite", (values.index(max(values)),)))


def imported(run: Run, groups: list[Group]) -> set[str]:
    """Let these groups be as ones that were imported; return their ids."""
    with run._database.write() as connection:
        for group in groups:
            connection.execute("UPDATE groups SET policy = 'imported' WHERE id = ?", (group.id,))
    assert not any(run.groups.get(group.id).recorded for group in groups)
    return {group.id for group in groups}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """48 groups of three, the last 8 held out."""
    return coloured_run(tmp_path / "run", 48, held_out=8)


def test_a_judge_orders_what_nobody_has_seen(run: Run) -> None:
    groups = run.groups.select()
    seen, unseen, held_out = groups[:30], groups[30:40], groups[40:]
    pick(run, seen)
    data = judged_preferences(run)
    assert data.training.keys() == {group.id for group in (*seen, *unseen)} and not data.held_out
    assert not data.scores.keys() & {group.id for group in held_out}
    right = []
    for group in unseen:
        values = warmth(run, group)
        made = {(pair.winner, pair.loser): pair.weight for pair in data.training[group.id]}
        assert len(made) == 3 and 0 < sum(made.values()) < 1
        right += [weight * (1 if values[a] > values[b] else -1) for (a, b), weight in made.items()]
    assert sum(right) > 0.6 * sum(map(abs, right))
    assert data.judge == fit_judge(run).facts and data.share == 1.0


def test_held_out_groups_keep_what_the_person_said(run: Run) -> None:
    groups = run.groups.select()
    pick(run, groups[:PICKED])
    run.picks.add(groups[40].id, Pick("favourite", (2,)))
    run.picks.add(groups[41].id, Pick("ranking", (1, 0, 2)))
    run.picks.add(groups[42].id, Pick("tie"))
    data = judged_preferences(run)
    assert data.held_out.keys() == {groups[40].id, groups[41].id}
    assert {(p.winner, p.loser, p.weight) for p in data.held_out[groups[40].id]} == {(2, 0, 0.5), (2, 1, 0.5)}
    assert {(p.winner, p.loser) for p in data.held_out[groups[41].id]} == {(1, 0), (1, 2), (0, 2)}
    assert data.scores[groups[40].id] == [0.0, 0.0, 1.0]
    assert not data.training.keys() & {group.id for group in groups[40:]}


@pytest.mark.parametrize("picks", [13, 14])
def test_with_fewer_picks_than_a_judge_needs_they_speak_for_themselves(run: Run, picks: int) -> None:
    groups = run.groups.select()
    pick(run, [*groups[:picks], *groups[40:42]])  # two held-out ones count too
    run.picks.add(groups[30].id, Pick("tie"))  # nor does one without a preference
    data = judged_preferences(run)
    assert (data == collect_preferences(run)) == (picks < 14)
    assert (data.judge is None) == (picks < 14) and len(data.training) == (13 if picks < 14 else 40)
    if picks < 14:
        assert data.share == 1.0


def test_imported_pictures_teach_methods_of_finished_pictures_where_they_were_picked(run: Run) -> None:
    groups = run.groups.select()
    unseen, seen = imported(run, groups[38:40]), imported(run, groups[34:36])
    pick(run, groups[:PICKED])
    drawn = {group.id for group in groups[:40]} - seen - unseen
    assert judged_preferences(run, "d3po").training.keys() == drawn
    assert judged_preferences(run, "diffusion-dpo").training.keys() == drawn | seen


def test_what_a_round_keeps_is_read_back_whole(run: Run) -> None:
    groups = run.groups.select()
    pick(run, [*groups[:PICKED], groups[41]])
    data = judged_preferences(run)
    assert PreferenceData.from_json(json.loads(json.dumps(data.to_json()))) == data
    rest = data.without(groups[0].id)
    assert rest.judge == data.judge and data.training.keys() - rest.training.keys() == {groups[0].id}
    picked = collect_preferences(run)
    stored = {name: value for name, value in picked.to_json().items() if name != "judge"}  # as before the judge
    assert PreferenceData.from_json(json.loads(json.dumps(stored))) == picked  # type: ignore[arg-type]


def test_an_order_at_random_is_given_no_share(run: Run) -> None:
    rng = torch.Generator().manual_seed(4)
    for group in run.groups.select()[:PICKED]:
        run.picks.add(group.id, Pick("favourite", (int(torch.randint(3, (), generator=rng)),)))
    data = judged_preferences(run)
    assert data.judge is not None and data.judge.z < 1.75 and data.share == 0


def test_what_is_flagged_loses_whatever_the_judge_says(run: Run) -> None:
    """Colours and edges cannot show every defect."""
    groups = run.groups.select()
    pick(run, groups[:PICKED])
    data = judged_preferences(run)
    liked = max(range(3), key=lambda candidate: data.scores[groups[0].id][candidate])
    run.flags.add(groups[0].id, liked, "defective")
    flagged = judged_preferences(run).training[groups[0].id]
    assert {(p.winner, p.loser) for p in flagged if liked in (p.winner, p.loser)} == {
        (other, liked) for other in range(3) if other != liked
    }


def test_of_several_people_each_flag_counts_once_and_one_does_not_outweigh_many(run: Run) -> None:
    groups = run.groups.select()
    pick(run, groups[:PICKED])
    group = groups[0].id
    for who in ("Ben", "Cleo"):
        run.picks.add(group, Pick("tie"), who=who)
        run.flags.add(group, 0 if who == "Ben" else 1, "defective", who=who)
    run.picks.add(group, Pick("tie"), who="Dora")
    after = judged_preferences(run).scores[group]
    base = judge_scores(own_judge(run), run, [group])[group]  # type: ignore[arg-type]
    lowest = min(base) - FLAGGED
    expected = [0.75 * base[0] + 0.25 * lowest, 0.75 * base[1] + 0.25 * lowest, base[2]]
    assert after == pytest.approx(expected)
    for who in ("", "Ben", "Cleo", "Dora"):  # all four
        run.flags.add(group, 2, "unsafe", who=who)
    assert min(range(3), key=lambda c: judged_preferences(run).scores[group][c]) == 2


@pytest.mark.parametrize("method", ["ddpo", "diffusion-kto"])
def test_methods_of_scores_learn_from_the_picks_and_the_judge_weighs_them(run: Run, method: str) -> None:
    pick(run, run.groups.select()[:PICKED])
    data = judged_preferences(run, method)
    picked = collect_preferences(run, method)
    assert (data.training, data.scores) == (picked.training, picked.scores)
    assert data.judge is not None


def test_a_picture_that_is_gone_leaves_its_group_out(run: Run) -> None:
    groups = run.groups.select()
    pick(run, groups[:PICKED])
    run.groups.image_path(groups[PICKED].id, 0).unlink()
    run.groups.image_path(groups[PICKED + 1].id, 0).write_bytes(b"no picture")
    data = judged_preferences(run)
    assert not {groups[PICKED].id, groups[PICKED + 1].id} & data.training.keys()
    assert groups[PICKED + 2].id in data.training
