"""Train a round: the loop that every front end runs."""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

from ..training.reports import Report
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
