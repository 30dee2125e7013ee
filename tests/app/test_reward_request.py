"""Requests for a round by a reward: what cannot be followed is refused before anything is begun."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from d3po_core.app.training import JUDGE_FILE, request_reward
from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.rewards.judge import fit_judge
from d3po_core.run import Run
from d3po_core.settings import RewardSettings
from tests.run_helpers import MODEL, trajectory

FEW = RewardSettings(updates=3)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "blooms", name="Blooms", model=MODEL, settings={})
    run.prompts.add("a red tulip by day", "")
    return run


def pick_colours(run: Run, groups: int, like: str) -> None:
    """Groups of a red and a blue picture, of which one is liked: always red, or now this, now that."""
    for number in range(groups):
        sides = [(200 - number, 40, 40), (40, 40, 200 - number)]
        run.groups.add(
            **{
                "prompt_id": run.prompts.all()[0].id,
                "number": run.groups.next_number(),
                "seed": number,
                "candidates": 2,
            },
            **{"policy": "base", "round": 1, "settings": {}, "held_out": False, "tensors": trajectory(number)},
            images=[Image.new("RGB", (32, 32), colour) for colour in sides],
        )
    for number, group in enumerate(run.groups.select(picked=False)):
        run.picks.add(group.id, Pick("favourite", (0 if like == "red" else (number * number // 3) % 2,)))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", "No reward is named"),
        ("beauty", "no reward called 'beauty'. Choose one of picks, compressibility"),
        ("compressibility", "not differentiable"),
        ("x*warmth", "not a number"),
        ("clip:/nowhere/at/all", "/nowhere/at/all"),
        ("picks", "0 groups with a preference"),
        ("0.2*warmth + picks", "16 are needed"),
    ],
)
def test_what_cannot_be_followed_is_told_at_once(run: Run, written: str, told: str) -> None:
    with pytest.raises(D3POError) as error:
        request_reward(run, written, FEW)
    assert told in str(error.value)
    assert run.rounds.all() == [] and not (run.folder / JUDGE_FILE).exists()


@pytest.mark.parametrize("kept", [{"written": "2*warmth+contrast"}, {"written": ""}])
def test_a_stopped_rounds_reward_is_known_however_it_is_written(run: Run, kept: dict[str, str]) -> None:
    """Of a reward that only its own program can load, the run has nothing but the name."""
    settings = {"reward": asdict(FEW), "reward_name": "2*warmth + contrast", **kept}
    run.rounds.save_state(run.rounds.begin(settings, by_picks=False), {}, {})
    request = request_reward(run, " 2.0 * warmth + contrast", FEW)
    assert request.reward is not None and request.reward.name == settings["reward_name"]  # which the trainer compares
    with pytest.raises(D3POError, match=r"stopped while it learnt from 2\*warmth \+ contrast"):
        request_reward(run, "warmth + contrast", FEW)


def test_picks_at_random_may_be_looked_at_and_not_used(run: Run) -> None:
    pick_colours(run, 24, "both")
    assert not fit_judge(run).facts.usable
    with pytest.raises(D3POError, match="do not tell yet what you like"):
        request_reward(run, "picks", FEW)
