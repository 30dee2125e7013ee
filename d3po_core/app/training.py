"""A round of training in every front end: trained to its end, a pause or a stop, and said what came out.

A round by a reward is asked for here too: a new one, one that was stopped and goes on, or one to be finished as it is.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from ..errors import D3POError
from ..evaluation.compare import drift_word, recommended_strength
from ..picks import MIN_PICKS
from ..rewards import Reward, get_reward, require_differentiable
from ..rewards.judge import fit_judge, load_judge_reward, save_judge
from ..rewards.spec import canonical
from ..run import Round, Run
from ..settings import RewardSettings, from_stored
from ..training.methods import needs_recording
from ..training.reports import Report, RoundResult
from ..training.round_trainer import RoundTrainer, SavedRound, save_round

R = TypeVar("R", bound=Report)


class Next(enum.Enum):
    """What to do after an update."""

    CONTINUE = enum.auto()
    FINISH = enum.auto()
    """Save what was learnt so far, and close the round."""
    PAUSE = enum.auto()
    """Keep the state; another trainer goes on from there."""


def train_round(trainer: RoundTrainer[R], after_update: Callable[[R], Next]) -> SavedRound | None:
    """Train until the round ends or `after_update` says otherwise, then save its LoRA.

    An exception, also one of `after_update`'s, leaves the round as `Next.PAUSE` does.

    Args:
        trainer: open; it is closed afterwards.
        after_update: called with the report of every update.

    Returns:
        The saved round, or None if training was paused.
    """
    with trainer:
        with closing(trainer.steps()) as reports:
            for report in reports:
                decision = after_update(report)
                if decision is Next.PAUSE:
                    return None
                if decision is Next.FINISH:
                    break
        return save_round(trainer)


RESUMED = "It went on as it was begun: changed settings, prompts and new picks are for the next round."


def why_not_train(run: Run, method: str | None) -> str:
    """Return why there is nothing to learn from; "" if there is.

    Args:
        run: with picks.
        method: that it is trained with; None if no trainer has said so yet.
    """
    recorded = needs_recording(method)
    usable, of_all_methods = run.picks.counts("", recorded).usable, run.picks.counts("").usable
    if usable < MIN_PICKS:
        more = of_all_methods - usable
        others = f"{more} more are of imported pictures, which {method} cannot learn from, as diffusion-nft can"
        return f"{waiting_for_picks(usable)}; {others}" if more else waiting_for_picks(usable)
    return "" if run.picks.untaught(recorded) else "Nothing new to teach: pick some more."


def has_round_to_go_on_with(run: Run) -> bool:
    """Return whether Teach goes on with a round, whatever new picks there are.

    That is one that was stopped, or one by picks that failed before it had learnt anything: its picks count as taught,
    and it is begun anew.
    """
    begun = run.rounds.open()
    return begun is not None and ("train" in begun.settings or run.rounds.stopped() is not None)


def waiting_for_picks(usable: int) -> str:
    """Return how many picks there are, and are needed."""
    return f"Waiting for picks: {usable} of {MIN_PICKS}"


def understanding(result: RoundResult) -> str:
    """Return how well a taste was understood, in a sentence."""
    if not result.guessed_of:
        return "There were too few picks to hide some, so how well the taste was understood is unknown."
    share = result.guessed / result.guessed_of
    return f"Of {result.guessed_of} picks it had not seen it predicted {share:.0%} right (chance: 50%)."


def round_outcome(result: RoundResult, reward_name: str = "", resumed: bool = False) -> str:
    """Return what came out of a round, in a few sentences.

    Args:
        result: of the round.
        reward_name: what it learnt from, for people; empty for picks.
        resumed: it had been interrupted.
    """
    parts = ["Taught."]
    if not reward_name:
        parts += [understanding(result)] if result.guessed_of else []
    elif result.figures:
        before, after = result.figures["reward_before"], result.figures["reward"]
        parts.append(f"Mean {reward_name} went from {before:.4g} to {after:.4g}.")
    if reward_name and result.strength_scan:
        strength, (_, drift) = recommended_strength(result.strength_scan), result.strength_scan[0]
        weaker = "" if strength == 1 else f": use the LoRA at strength {strength:g}"
        parts.append(f"Drift from the original is {drift_word(drift)}{weaker}.")
    return " ".join([*parts, result.reason, *([RESUMED] if resumed else [])])


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
    return RewardRequest(_load(run, written, fit_anew=True), dataclasses.replace(settings, seed=reward_seed(run)))


def reward_seed(run: Run) -> int:
    """Return the seed of the next round by a reward: another for every round, and the same if it is begun again."""
    return (int(run.run_id[:8], 16) + len(run.rounds.all())) % 2**32


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
