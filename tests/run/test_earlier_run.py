"""A run that was made before `Run` had parts, kept under tests/data, opens with everything in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from d3po_core.picks import Pick
from d3po_core.run import RoundSummary, Run

EARLIER = Path(__file__).parents[1] / "data" / "earlier_run"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(EARLIER, tmp_path / "run"))


def test_groups_and_prompts_are_there(run: Run) -> None:
    groups = run.groups.select()
    assert [(g.number, g.prompt, g.negative, g.policy, g.held_out, g.judged, g.flagged) for g in groups] == [
        (0, "a red tulip by day", "blurry", "base", False, 3, 3),
        (1, "a red tulip by day", "blurry", "base", True, 3, 0),
        (2, "a red tulip by day", "blurry", "base", False, 3, 0),
        (3, "a lake", "", "imported", False, 0, 0),
    ]
    assert [(prompt.text, prompt.asked) for prompt in run.prompts.all()] == [
        ("a red tulip by day", True),
        ("a lake", False),
    ]
    assert run.groups.trajectory(groups[0].id)["cond"].shape == (2, 2, 1, 2, 2)
    assert all(run.groups.image_path(group.id, 1).is_file() for group in groups)


def test_picks_and_flags_stand_as_they_did(run: Run) -> None:
    stored = [(pick.who, pick.pick, pick.shown_order, pick.decision_ms) for pick in run.picks.standing()]
    assert stored == [
        ("Anna", Pick("favourite", (1,)), (1, 0), 800.0),
        ("Anna", Pick("favourite", (0,)), (0, 1), None),
        ("Ben", Pick("scores", scores=(1, -1)), (), None),
    ]
    assert [(flag.who, flag.candidate, flag.kind) for flag in run.flags.standing()] == [("Anna", 0, "defective")]
    assert len(run.picks.history()) == 4 and run.picks.revision == 6
    counts = run.picks.counts("Anna")
    assert (counts.drawn, counts.picks, counts.yours, counts.usable) == (4, 3, 2, 3)


def test_rounds_go_on_where_they_were(run: Run) -> None:
    finished, stopped = run.rounds.all()
    assert (
        finished.lora_file == "loras/Earlier-round1-70.safetensors"
        and run.rounds.current_policy() == "a1fce4363854ff88"
    )
    assert run.rounds.stopped() == stopped and run.rounds.load_state(stopped.number) is not None
    check = run.blind_checks.last()
    assert check is not None and check.decision == "gentler" and check.pairs[0].answer in ("before", "taught")
    assert run.previews.prompts(1) == ["a red tulip by day"] and run.previews.image(1, 0, "after-70").is_file()
    assert run.metrics.read()[0]["round"] == 1 and run.settings["sample"]["guidance_scale"] == 2.5


def test_the_summary_of_a_round_is_read_by_its_stored_keys(run: Run) -> None:
    finished, stopped = run.rounds.all()
    assert finished.summary == RoundSummary(
        strength=1.0,
        z=2.5,
        guessed=7.0,
        guessed_of=8,
        curve=(0.6, 0.8),
        strength_scan=((1.0, 0.06), (0.7, 0.03), (0.4, 0.01)),
        figures={"loss": 0.5, "margin": 1.0, "clip_fraction": 0.0, "kl_sampler": 1.0, "kl_base": 2.0},
        reason="Every pick was used.",
        lora_strength=0.7,
        whole_file="loras/Earlier-round1.safetensors",
    )
    assert stopped.summary == RoundSummary()


def test_what_is_stored_stays_as_it_was(run: Run) -> None:
    """The keys and values that earlier programs read."""

    def stored() -> str:
        with run._database.read() as connection:
            (text,) = connection.execute("SELECT summary FROM rounds WHERE number = 1").fetchone()
        return text

    before = json.loads(stored())
    before |= {"kept": [], "win": None, "strength_before": None}  # which it did not know
    assert json.loads(RoundSummary.from_json(stored()).to_json()) == before
    run.rounds.replace_lora(1, run.folder / "loras" / "weaker.safetensors", "f" * 16, 0.4)
    assert json.loads(stored()) == {**before, "gentler": 0.4}
    assert run.rounds.all()[0].summary.whole_file == "loras/Earlier-round1.safetensors"


def test_the_base_model_is_what_its_host_said(run: Run) -> None:
    assert run.model == {
        **{"identity": "abc", "source": "garden", "family": "diffusion", "name": "garden"},
        **{"dtype": "float32", "base_config": None, "prediction_type": "epsilon"},
    }
