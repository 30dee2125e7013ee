"""Train by a reward through the job queue, on the embedded model: it stops and goes on like training by picks, and
what cannot be followed is refused before anything is begun."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from d3po_core.app import training as app_training
from d3po_core.app.training import JUDGE_FILE, JUDGE_NAME, request_reward
from d3po_core.errors import D3POError
from d3po_core.gallery.state import state
from d3po_core.lora import load_lora
from d3po_core.picks import Pick
from d3po_core.rewards.judge import fit_judge
from d3po_core.run import Run
from d3po_core.run.blind_checks import strip_side
from d3po_core.settings import RewardSettings
from d3po_panels import training
from d3po_panels.worker import Worker
from d3po_studio.host import StudioHost
from tests.app.test_reward_request import pick_colours
from tests.garden_taste import OneModel

from .test_worker import SharedHost, until

FEW = RewardSettings(updates=3, batch=2, warmup=0, watch=2, learning_rate=1e-2, drift_limit=0)
MANY = RewardSettings(updates=400, batch=2, watch=400, learning_rate=1e-5)
pytestmark = pytest.mark.usefixtures("fewer_pictures")


@pytest.fixture
def worker(host: StudioHost) -> Iterator[Worker]:
    worker = Worker(host).start()
    yield worker
    worker.close()


def taught(worker: Worker, run: Run) -> bool:
    assert worker.problem(run) is None, worker.problem(run)
    return run.rounds.open() is None and bool(run.rounds.all()) and worker.work(run) is None


def stop_in_the_middle(worker: Worker, run: Run) -> int:
    """Stop after an update or more; how many were done."""
    until(lambda: (worker.work(run) or {"kind": "", "done": 0})["kind"] == "teaching")
    until(lambda: len(run.metrics.read()) > 0)
    worker.stop(run)
    until(lambda: worker.work(run) is None)
    return int(run.metrics.read()[-1]["update"])


def test_a_round_by_a_reward_is_kept_and_shown_as_others_are(worker: Worker, run: Run) -> None:
    assert "teach" not in worker.can(run)  # no pick was made, and none is needed
    worker.teach_by_reward(run, " warmth ", FEW)
    with pytest.raises(D3POError, match="is being taught"):
        worker.teach_by_reward(run, "warmth", FEW)
    until(lambda: taught(worker, run), 120)
    (round,) = run.rounds.all()
    assert [line["update"] for line in run.metrics.read()] == [1, 2, 3]
    assert round.summary.figures["reward"] > round.summary.figures["reward_before"]  # warmer than it was
    tensors, _ = load_lora(run.folder / round.lora_file)
    assert any(value.any() for name, value in tensors.items() if "lora_up" in name)
    assert run.rounds.current_policy() == round.lora_hash and len(run.blind_checks.last().pairs) == 1
    assert run.previews.image(1, 0, "before").read_bytes() != run.previews.image(1, 0, strip_side(1.0)).read_bytes()
    assert state(run, worker, "")["rounds"][0]["reward"] == "warmth"
    assert "teach" not in worker.can(run)  # by picks, of which there are none


def test_the_gallerys_teach_lets_a_stopped_reward_go_on(
    worker: Worker, run: Run, host: StudioHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.teach_by_reward(run, "0.5*warmth + contrast", MANY)
    done = stop_in_the_middle(worker, run)
    assert run.rounds.open() is not None and "teach" in worker.can(run) and "decide" not in worker.can(run)
    with pytest.raises(D3POError, match=r"stopped while it learnt from 0.5\*warmth \+ contrast"):
        request_reward(run, "warmth", FEW)

    another = Worker(host).start()  # as after a restart: nothing is known but what lies in the run
    try:
        another.teach(run)
        until(lambda: len(run.metrics.read()) > done)
        another.stop(run)
        until(lambda: another.work(run) is None)
        found = [line["update"] for line in run.metrics.read()]
        assert found[done] in (done, done + 1)  # the state is at most one update behind
        (round,) = run.rounds.all()
        assert round.settings["reward_name"] == "0.5*warmth + contrast" and round.settings["reward"]["updates"] == 400
        again = request_reward(run, "0.5*warmth + contrast", replace(FEW, tile=64, micro_batch=1))
        assert again.settings.tile == 64 and again.settings.micro_batch == 1  # of the round's own all else stays

        def gone(*_: object) -> None:
            raise D3POError("The scorer is gone.", "Put it back.")

        monkeypatch.setattr(app_training, "_load", gone)
        another.teach(run)
        until(lambda: another.problem(run) is not None)
        assert another.problem(run).what == "Round 1 cannot go on. The scorer is gone."
        assert another.problem(run).do.startswith("Put it back. Or finish it as it is")
        another.finish(run)
        until(lambda: taught(another, run), 120)
        (finished,) = run.rounds.all()
        assert finished.summary.reason == "Stopped before the end." and len(run.metrics.read()) == len(found)
        with pytest.raises(D3POError, match="No round of this taste was stopped"):
            another.finish(run)
    finally:
        another.close()


def test_a_reward_makes_room_for_others_and_for_drawing(
    models: OneModel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "TURN_SECONDS", 0.0)
    loaded: list[str] = []
    load = app_training._load
    monkeypatch.setattr(app_training, "_load", lambda *of, **how: (loaded.append(of[1]), load(*of, **how))[1])
    host = SharedHost(models)
    worker = Worker(host).start()
    try:
        worker.seen(run)
        worker.teach_by_reward(run, "warmth", FEW)
        until(lambda: taught(worker, run), 120)
        assert host.turns >= 3 and loaded == ["warmth"]  # loaded once, however many turns it takes
        assert [line["update"] for line in run.metrics.read()] == [1, 2, 3]
        until(lambda: run.groups.select())  # for whoever looks
    finally:
        worker.close()


def test_what_picks_say_is_followed_if_it_tells_anything(worker: Worker, run: Run) -> None:
    pick_colours(run, 24, "red")
    facts = fit_judge(run).facts
    assert facts.usable and facts.accuracy == 1
    worker.teach_by_reward(run, "picks", MANY)
    done = stop_in_the_middle(worker, run)
    before = (run.folder / JUDGE_FILE).read_bytes()
    pick_colours(run, 20, "red")
    worker.teach(run)  # goes on with what the picks said when it was begun
    with pytest.raises(D3POError, match="being taught just now"):
        worker.teach_by_reward(run, "picks", FEW)
    until(lambda: len(run.metrics.read()) > done)
    worker.stop(run)
    until(lambda: worker.work(run) is None)
    assert (run.folder / JUDGE_FILE).read_bytes() == before
    assert run.rounds.all()[0].settings["reward_name"] == JUDGE_NAME
    with pytest.raises(D3POError, match="stopped while it learnt from what your picks say"):
        request_reward(run, "warmth", FEW)


def test_a_stopped_round_by_picks_is_not_run_over(worker: Worker, run: Run) -> None:
    run.change_settings("train", {"judge": False})  # whatever is picked, something is learnt
    worker.draw(run, 18)
    until(lambda: len(run.groups.select()) == 18 and worker.work(run) is None, 120)
    for group in run.groups.select(picked=False):
        run.picks.add(group.id, Pick("favourite", (group.number % 2,)))
    worker.teach(run)
    until(lambda: len(run.metrics.read()) > 0, 120)
    worker.stop(run)
    until(lambda: worker.work(run) is None)
    with pytest.raises(D3POError, match="stopped while it learnt from picks"):
        request_reward(run, "warmth", FEW)
    worker.finish(run)
    until(lambda: taught(worker, run), 120)


def test_a_reward_that_is_gone_is_told_and_nothing_is_lost(worker: Worker, run: Run) -> None:
    pick_colours(run, 24, "red")
    worker.teach_by_reward(run, "picks", MANY)
    stop_in_the_middle(worker, run)
    (run.folder / JUDGE_FILE).unlink()
    worker.teach(run)
    until(lambda: worker.problem(run) is not None)
    assert "reward from picks" in worker.problem(run).what and run.rounds.open() is not None
    time.sleep(0.1)
    assert worker.work(run) is None and "teach" in worker.can(run)


@pytest.mark.parametrize("written", ["warmth + -1*warmth", "1e39*warmth"])
def test_a_reward_that_cannot_be_followed_keeps_nobody_from_other_ways(worker: Worker, run: Run, written: str) -> None:
    """It is known only once the first pictures were judged, and a round has been opened by then."""
    worker.teach_by_reward(run, written, FEW)
    until(lambda: worker.problem(run) is not None, 120)
    assert run.rounds.open() is not None and state(run, worker, "")["rounds"][0]["reward"] is None
    with pytest.raises(D3POError, match="No round of this taste was stopped"):
        worker.finish(run)
    worker.teach(run)  # by picks, of which there are none
    until(lambda: "pick" in str(worker.problem(run)).lower(), 120)
    worker.teach_by_reward(run, "warmth", FEW)
    until(lambda: taught(worker, run), 120)
    assert run.rounds.all()[0].settings["reward_name"] == "warmth"
