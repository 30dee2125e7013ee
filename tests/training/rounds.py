"""Rounds that are trained to their end, or stopped in the middle as a person stops them."""

from __future__ import annotations

from itertools import islice

from d3po_core.training.reports import Report
from d3po_core.training.round_trainer import RoundTrainer


def train_to_end(trainer: RoundTrainer) -> list[Report]:
    """Train what is left of a round, close its trainer and return the reports; `result` can still be asked."""
    with trainer:
        return list(trainer.steps())


def train_some(trainer: RoundTrainer, updates: int) -> list[Report]:
    """Stop after a number of updates, and close the trainer."""
    with trainer:
        steps = trainer.steps()
        reports = list(islice(steps, updates))
        steps.close()
        return reports
