"""The blind check: nothing tells the sides apart, answers count once, and chance is what a coin does."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from d3po_core.app.loras import Decision, decide, scale_lora
from d3po_core.gallery import Actions
from d3po_core.gallery.state import chance_range
from d3po_core.lora import save_lora
from d3po_core.lora.weights import scale_weights
from d3po_core.run import RoundSummary, Run, policy_id
from tests.gallery.asking import Page, shelf_with
from tests.lora_networks import tiny_sd1, trained
from tests.run_helpers import picture


class Deciding(Actions):
    def can(self, run: Run) -> list[str]:
        return ["decide"]

    def decide(self, run: Run, round: int, decision: Decision, strength: float) -> None:  # type: ignore[override]
        decide(run, round, decision, strength)


def teach(run: Run) -> None:
    number, network = run.rounds.begin({}), tiny_sd1()
    weights = scale_weights(trained(network), number / 2)
    file = save_lora(run.folder / "loras" / f"round{number}.safetensors", weights, network)
    run.rounds.finish(number, file, policy_id(file), RoundSummary())


@pytest.fixture
def page(tmp_path: Path) -> Page:
    page = Page(*shelf_with(tmp_path), actions=Deciding())
    page.run.blind_checks.add(
        1, [f"p{i}" for i in range(12)], [picture(i, 0) for i in range(12)], [picture(i, 1) for i in range(12)]
    )
    return page


def test_taught_pictures_stand_on_both_sides_and_nothing_tells_which(page: Page) -> None:
    check = page.run.blind_checks.last()
    assert sorted(pair.first for pair in check.pairs) == ["before"] * 6 + ["taught"] * 6
    status, answer = page.post("blind/next", check=check.id)
    assert status == 200
    assert "taught" not in str(answer["pair"]) and "before" not in str(answer["pair"])
    images = [page.send("GET", image["url"]) for image in answer["pair"]["images"]]
    assert [image.status for image in images] == [200, 200]
    assert images[0].body.read_bytes() != images[1].body.read_bytes()


def test_a_whole_check(page: Page) -> None:
    check = page.run.blind_checks.last()
    for n in range(12):
        _, answer = page.post("blind/next", check=check.id)
        index = answer["pair"]["index"]
        taught = 0 if check.pairs[index].first == "taught" else 1
        side = None if n == 11 else taught if n < 9 else 1 - taught
        _, told = page.post("blind/answer", check=check.id, index=index, side=side, decision_ms=700)
        _, again = page.post("blind/answer", check=check.id, index=index, side=1 - taught)  # the first one counts
        assert again == told and told["blind"]["done"] == n + 1
    result = told["blind"]["result"]
    assert {name: result[name] for name in ("taught", "before", "neither")} == {"taught": 9, "before": 2, "neither": 1}
    assert (result["low"], result["high"]) == (2, 9)  # of the 11 that were told apart
    assert page.post("blind/next", check=check.id)[1]["pair"] is None
    assert page.run.picks.standing() == [] and page.get("state")[1]["blind"]["result"] == result


@pytest.mark.parametrize(
    "values", [{"index": 12, "side": 0}, {"index": 0, "side": 2}, {"index": -1, "side": 0}, {"side": 0}]
)
def test_wrong_answers_are_refused(page: Page, values: dict[str, int]) -> None:
    assert page.post("blind/answer", check=page.run.blind_checks.last().id, **values)[0] == 400
    assert page.post("blind/answer", check=uuid.uuid4().hex, index=0, side=0)[0] == 400


@pytest.mark.parametrize("n", [0, 1, 5, 11, 12, 40])
def test_chance_is_what_a_coin_does(n: int) -> None:
    low, high = chance_range(n)
    coin = torch.distributions.Binomial(n, torch.tensor(0.5, dtype=torch.float64))
    outcomes = torch.arange(n + 1, dtype=torch.float64)
    likely = coin.log_prob(outcomes).exp()
    assert float(likely[low : high + 1].sum()) >= 0.95 - 1e-12
    assert low + high == n
    if low < high:
        assert float(likely[low + 1 : high].sum()) < 0.95


def test_a_gentler_round_shows_itself_gentler(page: Page) -> None:
    run = page.run
    number = run.rounds.begin({})
    summary = RoundSummary(strength_scan=((1.0, 0.16), (0.7, 0.045), (0.4, 0.009)))
    run.rounds.finish(number, "loras/a.safetensors", "a", summary)
    sides = {"before": [picture(0, 0)], "after": [picture(0, 1)], "after-70": [picture(0, 2)]}
    run.previews.save(number, ["a lake"], sides)
    (round,) = page.get("state")[1]["rounds"]
    assert (round["drift"], round["strength"]) == ("high", 0.7)
    assert [(each["strength"], each["drift"]) for each in round["gentler"]] == [(0.7, "low"), (0.4, "low")]
    looks = [each["strip"][0]["after"] for each in (round, round["gentler"][0])]
    assert [look.rpartition("/")[2] for look in looks] == ["after", "after-70"]
    assert round["gentler"][1]["strip"] == []  # it has not been drawn
    assert all(page.send("GET", look).status == 200 for look in looks)

    run.rounds.replace_lora(number, run.folder / "loras" / "b.safetensors", "b", 0.7)
    (round,) = page.get("state")[1]["rounds"]
    assert (round["drift"], round["strength"]) == ("low", 1.0)
    assert round["strip"][0]["after"] == looks[1]


def test_the_last_answer_is_taken_back_until_all_are_given(page: Page) -> None:
    check = page.run.blind_checks.last()
    status, answer = page.post("blind/undo", check=check.id)
    assert status == 400 and "No pair of this check is answered yet" in answer["error"]["what"]
    for index in range(11):
        page.post("blind/answer", check=check.id, index=index, side=None)
    status, answer = page.post("blind/undo", check=check.id)
    assert status == 200 and answer["blind"]["done"] == 10
    assert page.post("blind/next", check=check.id)[1]["pair"]["index"] == 10
    for index in (10, 11):
        page.post("blind/answer", check=check.id, index=index, side=0)
    status, answer = page.post("blind/undo", check=check.id)
    assert status == 400 and "its result is known" in answer["error"]["what"]
    assert all(pair.answer for pair in page.run.blind_checks.last().pairs)


def test_keeping_undoes_going_back(page: Page) -> None:
    run = page.run
    for _ in range(2):
        teach(run)
    first, second = (each.lora_hash for each in run.rounds.all())
    check = run.blind_checks.add(2, ["a"], [picture(0, 0)], [picture(0, 1)])
    decide(run, 1, "back")
    run.blind_checks.decide(check.id, "back")
    assert run.rounds.current_policy() == first
    decide(run, 2, "keep")
    assert run.rounds.current_policy() == second
    run.blind_checks.decide(check.id, "keep")
    run.rounds.go_back(first)  # by another way
    decide(run, 2, "keep")
    assert run.rounds.current_policy() == first


@pytest.mark.parametrize("other", ["gentler", "back"])
def test_keeping_undoes_another_strength(page: Page, other: Decision) -> None:
    run = page.run
    for _ in range(2):
        teach(run)
    weaker = scale_lora(run, 2, 0.8)  # the strength that was checked
    check = run.blind_checks.add(2, ["a"], [picture(0, 0)], [picture(0, 1)])
    published: list[Path] = []
    for decision, round, strength in (
        ("gentler", 2, 0.4),
        ("gentler", 2, 0.7),
        (other, 1 if other == "back" else 2, 0.4),
    ):
        decide(run, round, decision, strength)
        run.blind_checks.decide(check.id, decision)
    decide(run, 2, "keep", publish=published.append)
    run.blind_checks.decide(check.id, "keep")
    now = run.rounds.all()[1]
    assert now.summary.lora_strength == 0.8 and now.lora_hash == run.rounds.current_policy()
    lora = load_file(run.folder / now.lora_file)
    assert all(torch.equal(lora[key], value) for key, value in load_file(weaker).items())
    assert published == [run.folder / now.lora_file]
    decide(run, 2, "keep", publish=published.append)  # there is nothing to undo any more
    assert len(published) == 1


def test_nothing_is_decided_once_a_later_round_is_taught(page: Page) -> None:
    run = page.run
    for _ in range(2):
        teach(run)
    check = run.blind_checks.add(2, ["a"], [picture(0, 0)], [picture(0, 1)])
    page.post("blind/answer", check=check.id, index=0, side=0)
    asked = {"check": check.id, "decision": "back", "round": 1}
    run.rounds.begin({})
    assert page.get("state")[1]["blind"]["check"] == check.id and page.post("blind/decide", **asked)[0] == 200
    teach(run)
    newest = run.rounds.current_policy()
    assert page.get("state")[1]["blind"] is None
    status, answer = page.post("blind/decide", **asked)
    assert status == 400 and "a later one has been taught since" in answer["error"]["what"]
    assert run.rounds.current_policy() == newest
