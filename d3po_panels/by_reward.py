"""A round of teaching by a reward: what it is begun with, and with what a stopped one goes on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NoReturn

from d3po_core.errors import D3POError
from d3po_core.run import Round, Run
from d3po_core.settings import RewardSettings

if TYPE_CHECKING:
    from d3po_core.rewards import Reward
    from d3po_core.rewards.judge import Judge

OWN_PICKS = "picks"
"""Stands in a reward, as a built-in one's name does, for what the taste's own picks say."""
NAME = "what your picks say"
"""What people read for that."""
FILE = "reward-from-picks.safetensors"
"""What they said when the round was begun, in the taste's folder: picks of later change nothing in the middle of it."""


@dataclasses.dataclass(frozen=True)
class RewardRequest:
    """What a round is taught by.

    Attributes:
        reward: differentiable; None to make a LoRA of what a stopped round has learnt.
        settings: how, with a seed besides, so that every round draws other pictures. A stopped round takes no more of
            them than memory.
    """

    reward: Reward | None
    settings: RewardSettings


def begin(run: Run, written: str, settings: RewardSettings) -> RewardRequest:
    """A new round, or the stopped one, if that learns from the same.

    Raises:
        D3POError: another round was stopped in the middle, or the reward is unknown, not differentiable or, being of
            too few or too contradictory picks, of no use.
    """
    from d3po_core.rewards.spec import canonical

    if not written.strip():
        raise D3POError("No reward is named.", "Choose one, or write one.")
    left = run.rounds.stopped()
    if left is not None:
        if canonical(_written(left)) != canonical(written):  # older versions kept what was typed
            _not_yet(left)
        return RewardRequest(_loaded(run, written, False), settings)
    luck = (int(run.run_id[:8], 16) + len(run.rounds.all())) % 2**32
    return RewardRequest(_loaded(run, written, True), dataclasses.replace(settings, seed=luck))


def stopped(run: Run) -> Round | None:
    """The round that was stopped while it learnt from a reward. One that failed before it had learnt anything is none,
    so that a reward which cannot be followed keeps nobody from teaching by picks."""
    left = run.rounds.stopped()
    return left if left is not None and "reward" in left.settings else None


def go_on(run: Run, left: Round) -> RewardRequest:
    """With what a stopped round was begun.

    Raises:
        D3POError: its reward cannot be loaded any more.
    """
    try:
        return RewardRequest(_loaded(run, _written(left), False), _settings(left))
    except D3POError as error:
        raise D3POError(
            f"Round {left.number} cannot go on. {error.what}",
            f"{error.do} Or finish it as it is, under Other ways to teach: that takes no reward.",
            "What it has learnt is saved.",
        ) from error


def finishing(left: Round) -> RewardRequest:
    """Of a stopped round, to end it as it is: its reward may be gone."""
    return RewardRequest(None, _settings(left))


def fit(run: Run) -> Judge:
    """What a taste's picks say, whether it may be used or not.

    Raises:
        D3POError: there are too few.
    """
    from d3po_core.rewards.judge import fit_judge

    return fit_judge(run)


def _settings(left: Round) -> RewardSettings:
    return RewardSettings(**left.settings["reward"])


def _loaded(run: Run, written: str, anew: bool) -> Reward:
    from d3po_core.rewards import get_reward, require_differentiable
    from d3po_core.rewards.judge import load_judge_reward, save_judge

    def own() -> Reward:
        if anew:
            save_judge(fit(run), run.folder / FILE)
        return dataclasses.replace(load_judge_reward(str(run.folder / FILE)), name=NAME)

    return require_differentiable(get_reward(written, {OWN_PICKS: own}))


def _written(left: Round) -> str:
    """What a stopped round learns from; "" for picks. Of a reward that only its own program can load, the name."""
    return str(left.settings.get("written") or left.settings.get("reward_name", ""))


def _not_yet(left: Round) -> NoReturn:
    learnt_from = left.settings.get("reward_name", "picks")
    raise D3POError(
        f"Round {left.number} of this taste was stopped while it learnt from {learnt_from}.",
        "Let it go on with Teach in the gallery, or finish it as it is, first.",
        "What it has learnt is saved.",
    )
