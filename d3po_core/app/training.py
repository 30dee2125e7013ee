"""Train a round: why it cannot begin, the loop that every front end runs, and the sentences that say what came out."""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

from ..evaluation.compare import drift_word, recommended_strength
from ..gallery.actions import MIN_PICKS
from ..run import Run
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
