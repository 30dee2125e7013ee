"""Picks by a program, as a stand-in for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..diffusion.rollout import generator
from ..picks import Pick
from ..run import Run
from ..run.images import read_images
from .reward import Reward


@dataclass(frozen=True)
class AutoPickProgress:
    """How far picking has come, and how many picks so far were mistakes."""

    done: int
    total: int
    mistakes: int


def auto_pick(
    run: Run,
    reward: Reward | None,
    who: str,
    kind: str = "favourite",
    flip: float = 0.0,
    limit: int | None = None,
    seed: int = 0,
) -> Iterator[AutoPickProgress]:
    """Pick in every group that has no pick yet.

    Args:
        run: where.
        reward: whose taste it is; None picks at random.
        who: the name under which picks are recorded.
        kind: "favourite" or "ranking".
        flip: chance of a mistake: another favourite, or the ranking upside down.
        limit: at most so many groups.
        seed: of mistakes and chance; a group's luck does not depend on the others.
    """
    groups = run.groups.select(picked=False)[:limit]
    mistakes = 0
    for done, group in enumerate(groups, 1):
        luck = generator(seed, "annotator", group.number)
        scores = reward(read_images(run, group), [group.prompt] * group.candidates) if reward else None
        mistaken = scores is not None and bool(torch.rand((), generator=luck) < flip)
        pick = pick_of(
            scores if scores is not None else torch.rand(group.candidates, generator=luck), kind, mistaken, luck
        )
        run.picks.add(group.id, pick, who=who)
        mistakes += mistaken and pick.kind != "tie"
        yield AutoPickProgress(done, len(groups), mistakes)


def pick_of(scores: Tensor, kind: str, mistaken: bool, luck: Generator) -> Pick:
    """What scores (candidates,) say; a tie where they are all equal."""
    order = scores.argsort(descending=True, stable=True).tolist()
    if float(scores.max()) == float(scores.min()):
        return Pick("tie")
    if kind == "ranking":
        return Pick("ranking", tuple(reversed(order) if mistaken else order))
    other = 1 + int(torch.randint(len(order) - 1, (), generator=luck))
    return Pick("favourite", (order[other if mistaken else 0],))
