"""A wish to stop is obeyed before the network's next evaluation, in every phase, and nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from d3po_core.app.runs import NewRun, begin_run, model_facts, sample_settings
from d3po_core.app.sampling import draw_before_after, sample_groups
from d3po_core.app.training import Next, PicksRequest, RewardRequest, settle_round
from d3po_core.errors import check_stop, interruptible
from d3po_core.evaluation import effect
from d3po_core.evaluation.evaluate import evaluate
from d3po_core.lora import import_lora
from d3po_core.models import DiffusersModel
from d3po_core.picks import Pick
from d3po_core.rewards import get_reward
from d3po_core.rewards.description import note_network
from d3po_core.run import Run
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings
from tests.tiny_pipelines import tiny_sd

PROMPTS = ("a fox", "a hen")
SAMPLE = SampleSettings(groups=10, candidates=2, steps=3, guidance_scale=2.0, batch=4, held_out=0.2)
LORA = LoraSettings(rank=2, alpha=2.0)
REWARD = RewardSettings(updates=4, batch=2, watch=2, warmup=0, drift_limit=0.0)
Work = Callable[[Run, DiffusersModel], object]


class Stop(Exception):
    """What this front end raises."""


@contextmanager
def evaluations(model: DiffusersModel, last: int | None = None) -> Iterator[list[int]]:
    """Count evaluations of the network; while the last one that is named is under way, somebody asks to stop."""
    counted = [0]

    def count(*_: object) -> None:
        counted[0] += 1

    def check() -> None:
        if last is not None and counted[0] >= last:
            raise Stop

    handle = model.denoiser.module.register_forward_hook(count)
    try:
        with interruptible(check):
            yield counted
    finally:
        handle.remove()
        check_stop()  # outside nobody can stop anything any more


def draw(run: Run, model: DiffusersModel) -> None:
    list(sample_groups(run, model, SAMPLE, list(PROMPTS)))


def teach(run: Run, model: DiffusersModel) -> None:
    """Everything behind Teach: noting, training, measuring, drift, strip and blind check."""
    settings = TrainSettings(epochs=2, trained_steps=0, warmup=0, batch=4, micro_batch=4, judge=False)
    saved = PicksRequest(settings, LORA).train(run, model, "peft", lambda report: Next.CONTINUE)
    assert saved is not None
    settle_round(run, model, saved, sample_settings(run), "peft", lambda done, total: None)


def look(run: Run, model: DiffusersModel) -> None:
    """What a judge asks for before Teach: what the network sees in the pictures."""
    note_network(run, model.denoiser)


def draft(run: Run, model: DiffusersModel) -> None:
    request = RewardRequest(REWARD, LORA, SAMPLE, get_reward("warmth")).prepared(run, model)
    saved = request.train(run, model, "peft", lambda report: Next.CONTINUE)
    assert saved is not None
    settle_round(run, model, saved, sample_settings(run), "peft", lambda done, total: None)


def compare(run: Run, model: DiffusersModel) -> None:
    lora = import_lora(lora_file(run), model.denoiser.module)
    draw_before_after(model, lora, list(PROMPTS), 2, SAMPLE, "peft", lambda done, total: None)


def judge(run: Run, model: DiffusersModel) -> None:
    evaluate(model, lora_file(run), list(PROMPTS), 2, SAMPLE, get_reward("warmth"), None)


def lora_file(run: Run) -> Path:
    path = run.rounds.lora(run.rounds.current_policy())
    assert path is not None
    return path


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return DiffusersModel(tiny_sd())


@pytest.fixture(autouse=True)
def _fewer_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect, "CHECK_PAIRS", 2)
    monkeypatch.setattr(effect, "STRIP_IMAGES", 1)


def begun(folder: Path, model: DiffusersModel, work: Work) -> Run:
    """A run in which the work can be done."""
    run = begin_run(folder, NewRun("taste", model_facts(model, "tiny"), SAMPLE, prompts=PROMPTS), model)
    if work is not draw:
        draw(run, model)
        for group in run.groups.select():
            run.picks.add(group.id, Pick("favourite", (group.number % 2,)))
    if work in (compare, judge):
        teach(run, model)
    return run


@pytest.mark.parametrize("work", [draw, look, teach, draft, compare, judge])
def test_nothing_is_evaluated_after_a_wish_to_stop(tmp_path: Path, model: DiffusersModel, work: Work) -> None:
    begun(tmp_path / "begun", model, work)

    def copied(name: str) -> Run:
        return Run.open(shutil.copytree(tmp_path / "begun", tmp_path / name))

    with evaluations(model) as counted:
        work(copied("whole"), model)
    total = counted[0]
    assert total >= 6
    for last in sorted({1, total // 3, 2 * total // 3, total - 1}):
        run = copied(str(last))
        before = len(run.groups.select())
        with evaluations(model, last) as counted, pytest.raises(Stop):
            work(run, model)
        assert counted[0] == last
        whole_and_goes_on(Run.open(run.folder), model, work, before)


def whole_and_goes_on(run: Run, model: DiffusersModel, work: Work, groups: int) -> None:
    for group in run.groups.select():
        assert len(run.groups.trajectory(group.id)["latents"]) == SAMPLE.candidates
        assert all(run.groups.image_path(group.id, c).is_file() for c in range(SAMPLE.candidates))
    assert len(run.groups.select()) >= groups
    if work in (teach, draft):
        finished = [round.number for round in run.rounds.all() if round.finished]
        if not finished:  # else it was stopped in the pictures of before and after
            work(run, model)
        (round,) = run.rounds.all()
        assert round.number == 1 and round.finished and run.rounds.lost() is None
