"""Whose judgements are learnt from, and how much each counts: named in words, weighed by agreement, counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.rewards.judge import preferences
from d3po_core.run import RoundSummary, Run
from d3po_core.run.panel import EVERYBODY, Panel, check_people
from d3po_core.settings import TrainSettings, listed, names_in
from d3po_core.training.preferences import collect_preferences
from tests.run_helpers import make_run, put_group


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("", None),
        ("  ", None),
        ("Anna", {"Anna"}),
        (" Anna ,Ben,", {"Anna", "Ben"}),
        ('"Doe, Jane", Ben', {"Doe, Jane", "Ben"}),
        ('""', {""}),
        ('Anna, ""', {"Anna", ""}),
        ("Anna  Maria", {"Anna Maria"}),
        ("Anna\nMaria", {"Anna Maria"}),
        (",", None),
        ('"a, ""b"""', {'a, "b"'}),
        ('""""""', {'""'}),
    ],
)
def test_names_are_separated_by_commas(written: str, names: set[str] | None) -> None:
    assert names_in(written) == names
    if names:
        assert names_in(listed(names)) == names


def several(folder: Path, said: dict[str, list[int | None]], **kwargs: object) -> Run:
    """Return a run in which each person picked these favourites of four, group by group."""
    run = make_run(folder, groups=max(map(len, said.values())), candidates=4, **kwargs)
    for number, group in enumerate(run.groups.select()):
        for who, best in said.items():
            if number < len(best) and (choice := best[number]) is not None:
                run.picks.add(group.id, Pick("favourite", (choice,)), who=who)
    return run


def test_a_name_of_nobody_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    run = several(tmp_path, {"Anna": [0], "Doe, Jane": [1]})
    with pytest.raises(D3POError, match="There are no picks of Bea in this run") as caught:
        check_people(run, TrainSettings(people="Anna, Bea"))
    assert 'There are picks of Anna, "Doe, Jane"' in caught.value.do
    check_people(run, TrainSettings(people='"Doe, Jane"'))
    check_people(run, TrainSettings())


def test_what_is_counted_is_what_is_learnt_from(tmp_path: Path) -> None:
    run = several(tmp_path, {"Anna": [0, 1, None, 2], "Ben": [1, None, 0, 0], "Cleo": [None, None, None, 3]})
    extra = put_group(run, candidates=4)
    run.picks.add(extra, Pick("tie"), who="Anna")
    run.flags.add(extra, 2, "defective", who="Ben")
    for people in ("", "Anna", "Ben", "Anna, Cleo", "Ben, Cleo"):
        panel = Panel.of(run, TrainSettings(people=people))
        learnt = collect_preferences(run, "d3po", panel).training
        assert run.picks.counts("", False, panel.people).usable == len(learnt) == len(preferences(run, panel)[0])
        assert run.picks.untaught(False, panel.people) == len(panel.judgements(run))
        assert {judgement.who for judgement in panel.judgements(run)} == (names_in(people) or {"Anna", "Ben", "Cleo"})


def test_what_one_person_taught_leaves_the_others_picks_for_later(tmp_path: Path) -> None:
    run = several(tmp_path, {"Anna": [0, 1], "Ben": [1, 0, 2]})
    number = run.rounds.begin({"train": {"people": "Anna"}})
    assert run.picks.untaught(people={"Anna"}) == 0 and run.picks.untaught(people={"Ben"}) == 3
    assert run.picks.untaught() == 3
    run.rounds.finish(number, run.folder / "x.safetensors", "hash", RoundSummary())
    run.rounds.begin({"train": {"people": ""}}, by_picks=False)  # scores of a reward stood for picks
    assert run.picks.untaught() == 3
    run.picks.add(run.groups.select()[2].id, Pick("favourite", (1,)), who="Anna")
    assert run.picks.untaught(people={"Anna"}) == 1 and run.picks.untaught() == 4
    run.rounds.begin({"train": {"people": ""}}, anew=True)
    assert run.picks.untaught() == 0


def test_people_weigh_the_same_unless_asked_otherwise(tmp_path: Path) -> None:
    run = several(tmp_path, {"Anna": [0, 1, 2], "Ben": [0, 1, 3]})
    assert Panel.of(run, TrainSettings()) is EVERYBODY and Panel.of(run, None) is EVERYBODY
    assert all(Panel.of(run, TrainSettings(people="Anna")).weight(who) == (who == "Anna") for who in ("Anna", "Ben"))


def test_people_weigh_by_agreement_one_in_the_mean(tmp_path: Path) -> None:
    truth = [number * 7 % 4 for number in range(40)]
    noisy = [best if number % 3 else (best + 1 + number % 2) % 4 for number, best in enumerate(truth)]
    wrong = [(best + 2) % 4 for best in truth]
    alone = [None] * 40 + [1, 2]
    run = several(tmp_path, {"Anna": truth, "Ben": truth, "Cleo": noisy, "Dora": wrong, "Eve": alone})
    panel = Panel.of(run, TrainSettings(people_weight="agreement"))
    assert panel.weight("Anna") == pytest.approx(panel.weight("Ben"))
    assert panel.weight("Anna") > panel.weight("Cleo") > 0
    assert panel.weight("Dora") == 0 and "Dora" not in panel and panel.weight("Eve") == 1
    assert sum(panel.weight(who) for who in ("Anna", "Ben", "Cleo", "Dora")) / 4 == pytest.approx(1)
    of_group = collect_preferences(run, "d3po", panel).training[run.groups.select()[1].id]
    assert sum(pair.weight for pair in of_group) == pytest.approx(
        sum(panel.weight(who) for who in ("Anna", "Ben", "Cleo")) / 3
    )
    two = Panel.of(run, TrainSettings(people="Anna, Dora", people_weight="agreement"))
    assert two.people == {"Anna", "Dora"} and two.weight("Anna") == two.weight("Dora") == 1  # who is right?


def test_of_people_who_share_no_group_all_weigh_the_same(tmp_path: Path) -> None:
    run = several(tmp_path, {"Anna": [0, 1], "Ben": [None, None, 2]})
    panel = Panel.of(run, TrainSettings(people_weight="agreement"))
    assert panel.people is None and panel.weight("Anna") == panel.weight("Ben") == 1


def test_a_group_that_many_saw_counts_as_one(tmp_path: Path) -> None:
    run = several(tmp_path, {who: [0, 1] if who == "Anna" else [0] for who in ("Anna", "Ben", "Cleo")})
    learnt = collect_preferences(run)
    assert [sum(pair.weight for pair in pairs) for pairs in learnt.training.values()] == pytest.approx([1, 1])
    assert list(learnt.scores.values()) == [[1, 0, 0, 0], [0, 1, 0, 0]]
    run.picks.add(run.groups.select()[0].id, Pick("tie"), who="Ben")  # says that neither is better
    assert sum(pair.weight for pair in collect_preferences(run).training[run.groups.select()[0].id]) == pytest.approx(
        2 / 3
    )


@pytest.mark.parametrize("name", ['"', '""', '"a" b', 'a, "b"', '","', ","])
def test_a_listed_name_is_read_again(name: str) -> None:
    assert names_in(listed({name, "Ben"})) == {name, "Ben"}


def test_what_was_freed_is_not_counted_for_others(tmp_path: Path) -> None:
    run = several(tmp_path, {"Anna": [0], "Ben": [1]})
    number = run.rounds.begin({"train": {"people": "Anna"}})
    run.rounds.finish(number, run.folder / "x.safetensors", "hash", RoundSummary())
    with run.picks._database.write() as connection:
        connection.execute("UPDATE groups SET freed = 1")
    assert run.picks.counts("", people={"Ben"}).usable == run.picks.untaught(people={"Ben"}) == 0
    with pytest.raises(D3POError, match="freed"):
        collect_preferences(run, "d3po", Panel(frozenset({"Ben"})))


def test_people_are_weighed_once_for_the_same_picks(tmp_path: Path) -> None:
    run = several(tmp_path, {"Anna": [0, 1], "Ben": [0, 1]})
    settings = TrainSettings(people_weight="agreement")
    first = Panel.of(run, settings)
    assert Panel.of(run, settings) is first
    run.picks.add(run.groups.select()[0].id, Pick("favourite", (3,)), who="Ben")
    assert Panel.of(run, settings) is not first
