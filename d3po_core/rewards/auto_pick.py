"""Auto-pick: picks with a reward, in place of a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..diffusion.rollout import generator
from ..errors import check_stop
from ..picks import Pick
from ..run import Run
from ..run.run import read_images
from .reward import Reward


@dataclass(frozen=True)
class AutoPickProgress:
    """How many groups are picked in, of how many, and how many of those picks were made mistakes on purpose."""

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
        run: the picks are added to it.
        reward: scores the images; None picks at random.
        who: the name under which picks are recorded.
        kind: "favourite" or "ranking".
        flip: probability of a mistake: another favourite, or the ranking upside down.
        limit: largest number of groups to pick in; None for all.
        seed: of mistakes and random picks. What is drawn for one group does not depend on the others.

    Yields:
        The progress, after each group.
    """
    groups = run.groups.select(picked=False)[:limit]
    mistakes = 0
    for done, group in enumerate(groups, 1):
        check_stop()
        rng = generator(seed, "annotator", group.number)
        scores = reward(read_images(run, group), [group.prompt] * group.candidates) if reward else None
        mistaken = scores is not None and bool(torch.rand((), generator=rng) < flip)
        pick = pick_of(
            scores if scores is not None else torch.rand(group.candidates, generator=rng), kind, mistaken, rng
        )
        run.picks.add(group.id, pick, who=who)
        mistakes += mistaken and pick.kind != "tie"
        yield AutoPickProgress(done, len(groups), mistakes)


def pick_of(scores: Tensor, kind: str, mistaken: bool, rng: Generator) -> Pick:
    """Return the pick that follows from scores.

    Args:
        scores: of a group's candidates, (candidates,), two or more.
        kind: "favourite" or "ranking".
        mistaken: whether to pick another favourite than the best, drawn from `rng`, or to turn the ranking round.

    Returns:
        The pick; a tie if all scores are equal.
    """
    order = scores.argsort(descending=True, stable=True).tolist()
    if float(scores.max()) == float(scores.min()):
        return Pick("tie")
    if kind == "ranking":
        return Pick("ranking", tuple(reversed(order) if mistaken else order))
    other = 1 + int(torch.randint(len(order) - 1, (), generator=rng))
    return Pick("favourite", (order[other if mistaken else 0],))
