"""The Studio's worker: it draws ahead, teaches while pictures run out, stops, and tells what went wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from d3po_core.errors import D3POError
from d3po_core.evaluation.compare import STRENGTHS
from d3po_core.gallery.state import state
from d3po_core.lora import load_lora
from d3po_core.models import DiffusersModel
from d3po_core.picks import Pick
from d3po_core.run import Run
from d3po_core.run.blind_checks import strip_side
from d3po_core.run.run import RunLibrary
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from d3po_panels import drawing, tastes, training
from d3po_panels.drawing import AHEAD
from d3po_panels.host import Stopped
from d3po_panels.report import report
from d3po_panels.worker import Worker
from d3po_studio.host import StudioHost
from tests.garden_taste import OneModel
from tests.tiny_pipelines import tiny_sd

SAMPLE = SampleSettings(candidates=2, steps=4, guidance_scale=2.0, batch=4)
TRAIN = TrainSettings(epochs=1, warmup=0, judge=False)  # whatever is picked, something is learnt
LORA = LoraSettings(rank=2, alpha=2.0)


@pytest.fixture(scope="module")
def models() -> OneModel:
    return OneModel(DiffusersModel(tiny_sd()))


@pytest.fixture
def worker(host: StudioHost) -> Iterator[Worker]:
    worker = Worker(host).start()
    yield worker
    worker.close()


@pytest.fixture
def run(tmp_path: Path, models: OneModel) -> Run:
    prompts = ("a fox", "a hen", "an owl")
    tastes.begin(RunLibrary(tmp_path), models.model, "tiny", "Foxes", prompts, SAMPLE, TRAIN, LORA)
    return RunLibrary(tmp_path).runs()[0]


def ups(run: Run, file: str) -> float:
    """How large a LoRA file's up matrices are."""
    tensors, _ = load_lora(run.folder / file)
    return sum(float(value.norm()) for key, value in tensors.items() if "lora_up" in key)


def until(what: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def pick_all(run: Run) -> None:
    for group in run.groups.select(picked=False):
        run.picks.add(group.id, Pick("favourite", (group.number % 2,)))


def test_it_draws_ahead_of_whoever_looks_and_no_further(worker: Worker, run: Run) -> None:
    time.sleep(0.1)
    assert run.groups.select() == []  # nobody looks
    worker.seen(run)
    until(lambda: len(run.groups.select()) == AHEAD and worker.work(run) is None)
    pick_all(run)
    worker.seen(run)
    until(lambda: len(run.groups.select()) == 2 * AHEAD)
    assert worker.problem(run) is None


def test_a_whole_round_with_strip_and_blind_check(worker: Worker, run: Run) -> None:
    worker.draw(run, 18)
    until(lambda: len(run.groups.select()) == 18 and worker.work(run) is None)
    assert "teach" not in worker.can(run)
    pick_all(run)
    assert "teach" in worker.can(run)
    worker.teach(run)
    seen = set()
    until(lambda: (seen.add((worker.work(run) or {"kind": None})["kind"]), run.blind_checks.last())[1])
    assert {"checking", "teaching", "blind"} <= seen | {"teaching"}
    until(lambda: worker.work(run) is None)
    (round,) = run.rounds.all()
    assert round.lora_file and run.rounds.current_policy() == round.lora_hash
    assert len(run.previews.prompts(1)) == 4 and len(run.blind_checks.last().pairs) == 12
    strengths, drifts = zip(*round.summary.strength_scan, strict=True)
    assert strengths == STRENGTHS
    # predictions move in proportion to a small LoRA, and KL with their square
    assert [drift / drifts[0] for drift in drifts] == pytest.approx([s**2 for s in strengths], rel=0.25)
    looks = {strength: run.previews.image(1, 0, strip_side(strength)).read_bytes() for strength in strengths}
    assert len({*looks.values(), run.previews.image(1, 0, "before").read_bytes()}) == 1 + len(STRENGTHS)
    assert "teach" not in worker.can(run)  # nothing new to teach from

    worker.decide(run, 1, "gentler", 0.4)
    until(lambda: run.rounds.all()[0].lora_hash != round.lora_hash)
    assert run.rounds.current_policy() == run.rounds.all()[0].lora_hash
    assert run.rounds.all()[0].summary.lora_strength == 0.4
    weaker = run.rounds.all()[0].lora_hash
    worker.decide(run, 1, "gentler", 0.4)  # once more: still 0.4 of what was taught, not 0.16
    until(lambda: run.rounds.all()[0].lora_file.endswith("40-2.safetensors"))
    assert (
        run.rounds.all()[0].lora_hash != round.lora_hash
        and run.rounds.current_policy() == run.rounds.all()[0].lora_hash
    )
    assert ups(run, run.rounds.all()[0].lora_file) == pytest.approx(0.4 * ups(run, round.lora_file), rel=1e-5)
    assert weaker
    with pytest.raises(D3POError, match="no LoRA of a round '99'"):
        worker.decide(run, 99, "back", 1.0)
    worker.decide(run, 0, "back", 1.0)
    assert run.rounds.current_policy() == "base"
    worker.draw(run, 1)
    until(lambda: len(run.groups.select()) == 19)
    assert run.groups.select()[-1].policy == "base"


def test_teaching_makes_room_for_drawing_when_pictures_run_out(worker: Worker, run: Run) -> None:
    worker.draw(run, 16)
    until(lambda: len(run.groups.select()) == 16 and worker.work(run) is None)
    pick_all(run)
    worker.teach(run)
    until(lambda: worker.work(run) is not None)
    worker.seen(run)
    until(lambda: run.blind_checks.last() is not None)
    assert len(run.groups.select()) >= 16 + AHEAD // 2
    assert worker.problem(run) is None and run.rounds.all()[0].finished


def test_stop_keeps_what_was_done_and_teach_goes_on(worker: Worker, run: Run) -> None:
    worker.draw(run, 1000)
    until(lambda: len(run.groups.select()) >= 16)
    worker.stop(run)
    until(lambda: worker.work(run) is None)
    count = len(run.groups.select())
    worker.seen(run)
    time.sleep(0.2)
    assert len(run.groups.select()) == count < 1000  # stopped means stopped, until something is asked for
    pick_all(run)
    worker.teach(run)
    until(lambda: (worker.work(run) or {"done": 0})["done"] > 0)
    worker.stop(run)
    until(lambda: worker.work(run) is None)
    assert run.rounds.open() is not None and "teach" in worker.can(run)
    worker.teach(run)
    until(lambda: run.blind_checks.last() is not None)
    assert run.rounds.open() is None


def test_a_taste_deleted_under_the_pages_eyes_does_not_end_the_worker(worker: Worker, run: Run) -> None:
    worker.seen(run)
    until(lambda: len(run.groups.select()) == AHEAD and worker.work(run) is None)
    worker.seen(run)
    tastes.delete(run, worker)
    assert not run.folder.exists()
    time.sleep(1.2)
    assert worker.queue.call(lambda: 7).result(timeout=10) == 7


def test_what_goes_wrong_is_told_and_ends_when_something_works(worker: Worker, run: Run, tmp_path: Path) -> None:
    run.model["identity"] = "another"
    worker.draw(run, 1)
    until(lambda: worker.problem(run) is not None)
    assert "not the one" in worker.problem(run).what
    run.model["identity"] = worker.host.models.get("tiny").identity
    worker.draw(run, 1)
    until(lambda: len(run.groups.select()) == 1)
    assert worker.problem(run) is None


def test_a_mistake_of_ours_is_told_without_its_traceback_which_the_report_has(
    worker: Worker, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a secret prompt")

    monkeypatch.setattr(drawing, "sample_groups", broken)
    worker.draw(run, 1)
    until(lambda: worker.problem(run) is not None)
    told = report(run, "cpu", worker.queue.log)
    assert "secret" not in worker.problem(run).what + told and "ZeroDivisionError at" in told
    assert "torch" in told and str(run.folder.parent) not in told and "a fox" not in told


def test_a_taste_that_cannot_be_drawn_is_not_begun(tmp_path: Path, models: OneModel) -> None:
    for prompts, sample in ((("",), SAMPLE), (("a fox",), SampleSettings(width=71))):
        with pytest.raises(D3POError):
            tastes.begin(RunLibrary(tmp_path / "tastes"), models.model, "tiny", "x", prompts, sample, TRAIN, LORA)
    assert RunLibrary(tmp_path / "tastes").runs() == []
    with pytest.raises(D3POError, match="no prompt"):
        tastes.prompts_of(" \n ")


def test_stop_is_obeyed_in_the_middle_of_a_group(
    worker: Worker, run: Run, models: OneModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every evaluation waits until the test lets it go on: one is under way when Stop is pressed, and is the last."""
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def wait(*_: Any) -> None:
        begun.release()
        assert go_on.acquire(timeout=60)

    handle = models.model.denoiser.module.register_forward_pre_hook(wait)
    try:
        worker.draw(run, 4)
        assert begun.acquire(timeout=60)
        worker.stop(run)
        assert worker.work(run)["kind"] == "stopping"  # type: ignore[index]
        go_on.release(100)
        until(lambda: worker.work(run) is None)
        assert not begun.acquire(blocking=False) and run.groups.select() == []
    finally:
        handle.remove()
    worker.draw(run, 1)
    until(lambda: len(run.groups.select()) == 1)


def test_stop_is_obeyed_while_a_model_is_loaded(run: Run, models: OneModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on being loaded, and the next press has it."""
    loaded, calls = threading.Event(), []

    def slowly(*key: Any) -> Any:
        calls.append(key)
        assert loaded.wait(60)
        return models.model

    monkeypatch.setattr("d3po_studio.host._load", slowly)
    worker = Worker(StudioHost()).start()
    try:
        worker.draw(run, 1)
        until(lambda: calls and (worker.work(run) or {}).get("kind") == "loading")
        worker.stop(run)
        until(lambda: worker.work(run) is None, 2)
        worker.draw(run, 1)
        loaded.set()
        until(lambda: len(run.groups.select()) == 1)
        assert len(calls) == 1 and worker.problem(run) is None
    finally:
        loaded.set()
        worker.close()


def test_a_model_that_cannot_be_loaded_is_tried_again(
    run: Run, models: OneModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [D3POError("The model is damaged."), models.model]

    def load(*key: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("d3po_studio.host._load", load)
    worker = Worker(StudioHost()).start()
    try:
        worker.draw(run, 1)
        until(lambda: worker.problem(run))
        assert "damaged" in worker.problem(run).what and worker.host.models.device == "cpu"  # type: ignore[union-attr]
        worker.draw(run, 1)
        until(lambda: len(run.groups.select()) == 1)
    finally:
        worker.close()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no LoRA")])
def test_a_taste_goes_on_without_its_lora(worker: Worker, run: Run, damage: Callable[[Path], Any]) -> None:
    worker.draw(run, 16)
    until(lambda: len(run.groups.select()) == 16 and worker.work(run) is None)
    pick_all(run)
    worker.teach(run)
    until(lambda: run.rounds.all() and run.rounds.all()[0].finished and worker.work(run) is None)
    path = run.rounds.lora("1")
    assert path is not None and state(run, worker, "")["lost"] is None
    damage(path)
    worker.draw(run, 1)
    until(lambda: worker.problem(run))
    assert "The LoRA of round 1 is" in worker.problem(run).what  # type: ignore[union-attr]
    for group in run.groups.select():
        run.picks.add(group.id, Pick("favourite", (0,)), who="another")
    worker.teach(run)
    until(lambda: worker.problem(run) and not worker.is_training(run))
    assert len(run.rounds.all()) == 1  # none was begun in vain
    shown = state(run, worker, "")
    assert shown["problem"] is None and shown["lost"] is not None and shown["lost"]["to"] == 0

    worker.go_on(run)
    shown = state(run, worker, "")
    assert shown["lost"] is None and shown["problem"] is None and run.rounds.current_policy() == "base"
    worker.draw(run, 1)
    until(lambda: len(run.groups.select()) == 17 and worker.work(run) is None)
    assert run.groups.select()[-1].policy == "base"
    worker.teach(run)
    until(lambda: len(run.rounds.all()) == 2 and run.rounds.all()[1].finished, 240)
    assert run.rounds.all()[1].reference == "base" and worker.problem(run) is None


class SharedHost(StudioHost):
    """One whose other work always waits; it counts its turns."""

    def __init__(self, models: OneModel) -> None:
        super().__init__(models)
        self.turns = 0

    def turn(self) -> AbstractContextManager[object]:
        self.turns += 1
        return nullcontext()

    def should_yield(self) -> bool:
        return True


def test_others_have_their_turn_while_it_draws_and_teaches(
    models: OneModel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "TURN_SECONDS", 0.0)
    host = SharedHost(models)
    worker = Worker(host).start()
    try:
        worker.draw(run, 16)
        until(lambda: len(run.groups.select()) == 16)
        assert host.turns >= 8  # two groups at a time
        pick_all(run)
        before = host.turns
        worker.teach(run)
        until(lambda: run.rounds.all() and run.rounds.all()[0].lora_file and not worker.work(run))
        updates = run.metrics.read()
        assert host.turns - before >= len({each["update"] for each in updates}) > 1
        assert [each["update"] for each in updates] == list(range(1, len(updates) + 1))
    finally:
        worker.close()


class HostWithoutModel(StudioHost):
    """One whose turns cannot begin."""

    def turn(self) -> AbstractContextManager[object]:
        raise D3POError("No checkpoint is loaded.")


def test_whoever_waits_for_an_outcome_is_told_why_there_is_none(models: OneModel, run: Run) -> None:
    worker = Worker(HostWithoutModel(models)).start()
    try:
        with pytest.raises(D3POError, match="No checkpoint is loaded"):
            worker.queue.call(lambda: 1, run).result(timeout=10)
        assert worker.problem(run) is None  # it was told to whoever asked
        assert worker.queue.call(lambda: 1, run, needs_model=False).result(timeout=10) == 1
        worker.draw(run, 1)
        until(lambda: worker.problem(run))
    finally:
        worker.close()


def test_a_taste_whose_model_could_not_be_had_can_be_taught_again(models: OneModel, run: Run) -> None:
    worker = Worker(HostWithoutModel(models)).start()
    worker.teach(run)
    until(lambda: worker.problem(run))
    assert not worker.is_training(run)
    worker.close()


@pytest.mark.parametrize(("kind", "offered"), [("train", True), ("reward", False)])
def test_a_round_that_failed_at_once_can_be_begun_again_if_it_is_by_picks(
    host: StudioHost, run: Run, kind: str, offered: bool
) -> None:
    """Its picks count as taught, so without that they would be lost; a reward that failed locks nobody out."""
    run.rounds.begin({kind: {}}, by_picks=kind == "train")
    assert ("teach" in Worker(host).can(run)) is offered


def test_what_is_stopped_has_an_outcome(worker: Worker, run: Run) -> None:
    def endless() -> None:
        while True:
            worker.queue.check()

    outcome = worker.queue.call(endless, run)
    until(lambda: "stop" in worker.can(run))
    worker.stop(run)
    with pytest.raises(D3POError, match="It was stopped"):
        outcome.result(timeout=10)


def test_a_taste_for_which_nobody_asked_for_pictures_is_not_drawn_for(
    worker: Worker, run: Run, host: StudioHost
) -> None:
    """As one is that only holds imported pictures: looking at it, or teaching it, is no reason to draw."""
    idle = Worker(host)
    idle.seen(run)
    assert idle.drawing.next_job() is not None
    with run._database.write() as connection:
        connection.execute("UPDATE prompts SET asked = 0")
    assert idle.drawing.next_job() is None
    worker.draw(run, 1)
    until(lambda: worker.problem(run) is not None)
    assert "Nobody has asked for pictures" in worker.problem(run).what and not run.groups.select()


def test_a_press_of_teach_after_stop_is_its_own(host: StudioHost, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stopped job ends only later. If it took the new press's mark with it, Teach would be offered again."""
    idle = Worker(host)  # its thread is not started: its jobs are done here, one by one

    def stopped_and_pressed(*_: Any) -> bool:
        idle.stop(run)
        idle.teach(run)
        raise Stopped

    monkeypatch.setattr("d3po_panels.worker.train_in_turns", stopped_and_pressed)
    idle.teach(run)
    idle.queue._do(idle.queue._jobs.popleft())
    assert idle.is_training(run) and len(idle.queue._jobs) == 1
    monkeypatch.setattr("d3po_panels.worker.train_in_turns", lambda *_: True)
    idle.queue._do(idle.queue._jobs.popleft())
    assert not idle.is_training(run) and not idle.queue._jobs


def test_a_turn_that_was_stopped_at_its_end_is_not_followed_by_another(
    host: StudioHost, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = Worker(host)

    def stopped_as_others_wait(*_: Any) -> bool:
        idle.stop(run)
        return False

    monkeypatch.setattr("d3po_panels.worker.train_in_turns", stopped_as_others_wait)
    idle.teach(run)
    idle.queue._do(idle.queue._jobs.popleft())
    assert not idle.is_training(run) and not idle.queue._jobs
