"""A round by a reward as somebody asks for it: a new one, one that was stopped and goes on, or one to be finished."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..errors import D3POError
from ..rewards import Reward, get_reward, require_differentiable
from ..rewards.judge import fit_judge, load_judge_reward, save_judge
from ..rewards.spec import canonical
from ..run import Round, Run
from ..settings import RewardSettings, from_stored

OWN_PICKS = "picks"
"""Names, in a reward as it is written, the judge that is fitted to the run's own picks."""
JUDGE_NAME = "what your picks say"
"""What people read for that."""
JUDGE_FILE = "reward-from-picks.safetensors"
"""That judge in the run's folder, as it was when the round was begun: later picks do not change it in between."""


@dataclass(frozen=True)
class RewardRequest:
    """What a round by a reward is trained with.

    Attributes:
        reward: differentiable; None to make a LoRA of what a stopped round has learnt.
        settings: how. A stopped round takes only its settings of memory from here.
    """

    reward: Reward | None
    settings: RewardSettings


def request_reward(run: Run, written: str, settings: RewardSettings) -> RewardRequest:
    """Return the request for a new round, or for the stopped one if that learns from the same reward.

    Every new round has a seed of its own, so that it draws other images.

    Args:
        run: the run.
        written: the reward, as `get_reward` reads it; `OWN_PICKS` stands for the run's own picks.
        settings: how.

    Raises:
        D3POError: another round was stopped in the middle; or the reward is unknown, is not differentiable, or would be
            fitted to picks that are too few or contradict each other.
    """
    if not written.strip():
        raise D3POError("No reward is named.", "Choose one, or write one.")
    stopped = run.rounds.stopped()
    if stopped is not None:
        if canonical(_written(stopped)) != canonical(written):
            raise D3POError(
                f"Round {stopped.number} of this taste was stopped while it learnt from "
                f"{stopped.settings.get('reward_name', 'picks')}.",
                "Let it go on with Teach in the gallery, or finish it as it is, first.",
                "What it has learnt is saved.",
            )
        return RewardRequest(_load(run, written), settings)
    seed = (int(run.run_id[:8], 16) + len(run.rounds.all())) % 2**32
    return RewardRequest(_load(run, written, fit_anew=True), dataclasses.replace(settings, seed=seed))


def resume_reward(run: Run, stopped: Round) -> RewardRequest:
    """Return the request with which a stopped round was begun.

    Raises:
        D3POError: its reward cannot be loaded any more.
    """
    try:
        return RewardRequest(_load(run, _written(stopped)), _settings(stopped))
    except D3POError as error:
        raise D3POError(
            f"Round {stopped.number} cannot go on. {error.what}",
            f"{error.do} Or finish it as it is, under Other ways to teach: that takes no reward.",
            "What it has learnt is saved.",
        ) from error


def finish_reward(stopped: Round) -> RewardRequest:
    """Return the request that ends a stopped round as it is; it needs no reward, which may be gone."""
    return RewardRequest(None, _settings(stopped))


def stopped_by_reward(run: Run) -> Round | None:
    """Return the round that was stopped while it learnt from a reward; None if there is none.

    A round that failed before it had learnt anything does not count, so that a reward that cannot be followed keeps
    nobody from training by picks.
    """
    stopped = run.rounds.stopped()
    return stopped if stopped is not None and "reward" in stopped.settings else None


def _settings(stopped: Round) -> RewardSettings:
    return from_stored(RewardSettings, stopped.settings["reward"])


def _written(stopped: Round) -> str:
    """Return the reward that a stopped round learns from; its name where only its own program can load it."""
    return str(stopped.settings.get("written") or stopped.settings.get("reward_name", ""))


def _load(run: Run, written: str, fit_anew: bool = False) -> Reward:
    """Load a reward, fitting the judge of the run's own picks if it is part of it and is to be fitted anew."""

    def own_picks() -> Reward:
        if fit_anew:
            save_judge(fit_judge(run), run.folder / JUDGE_FILE)
        return dataclasses.replace(load_judge_reward(str(run.folder / JUDGE_FILE)), name=JUDGE_NAME)

    return require_differentiable(get_reward(written, {OWN_PICKS: own_picks}))
