"""Auto-pick: picks with a reward, in place of a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..diffusion.rollout import generator
from ..errors import check_stop
from ..picks import Pick
from ..run import Group, Run
from ..run.run import read_images
from .reward import Reward

AT_ONCE = 8
"""Groups that are called up together."""


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
    call_up: Callable[[Run, int], int] | None = None,
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
        call_up: makes up to that number of further groups once all are picked in, and returns how many; see
            `d3po_core.app.tournament`.

    Yields:
        The progress, after each group.
    """
    groups = _open_groups(run, call_up)[:limit]
    mistakes = done = 0
    while done < len(groups):
        check_stop()
        group = groups[done]
        done += 1
        rng = generator(seed, "annotator", group.number)
        scores = reward(read_images(run, group), [group.prompt] * group.candidates) if reward else None
        mistaken = scores is not None and bool(torch.rand((), generator=rng) < flip)
        pick = pick_of(
            scores if scores is not None else torch.rand(group.candidates, generator=rng), kind, mistaken, rng
        )
        run.picks.add(group.id, pick, who=who)
        mistakes += mistaken and pick.kind != "tie"
        if done == len(groups):
            groups = (groups + _open_groups(run, call_up))[:limit]
        yield AutoPickProgress(done, len(groups), mistakes)


def _open_groups(run: Run, call_up: Callable[[Run, int], int] | None) -> list[Group]:
    """Return the groups without a pick in which there is something to choose between, more if there are none."""
    found = [group for group in run.groups.select(picked=False) if group.candidates > 1]
    return _open_groups(run, None) if not found and call_up and call_up(run, AT_ONCE) else found


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
