"""Picks by a program, as a stand-in for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from .picks import Pick
from .rewards.reward import Reward
from .rollout import generator
from .run import Group, Run


@dataclass(frozen=True)
class Judged:
    """How far picking has come, and how many picks so far were mistakes."""

    done: int
    total: int
    mistakes: int


def judge(
    run: Run,
    reward: Reward | None,
    who: str,
    kind: str = "favourite",
    flip: float = 0.0,
    limit: int | None = None,
    seed: int = 0,
) -> Iterator[Judged]:
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
    groups = run.groups(picked=False)[:limit]
    mistakes = 0
    for done, group in enumerate(groups, 1):
        luck = generator(seed, "annotator", group.number)
        scores = reward(pictures(run, group), [group.prompt] * group.candidates) if reward else None
        mistaken = scores is not None and bool(torch.rand((), generator=luck) < flip)
        pick = pick_of(
            scores if scores is not None else torch.rand(group.candidates, generator=luck), kind, mistaken, luck
        )
        run.add_pick(group.id, pick, who=who)
        mistakes += mistaken and pick.kind != "tie"
        yield Judged(done, len(groups), mistakes)


def pick_of(scores: Tensor, kind: str, mistaken: bool, luck: Generator) -> Pick:
    """What scores (candidates,) say; a tie where they are all equal."""
    order = scores.argsort(descending=True, stable=True).tolist()
    if float(scores.max()) == float(scores.min()):
        return Pick("tie")
    if kind == "ranking":
        return Pick("ranking", tuple(reversed(order) if mistaken else order))
    other = 1 + int(torch.randint(len(order) - 1, (), generator=luck))
    return Pick("favourite", (order[other if mistaken else 0],))


def pictures(run: Run, group: Group) -> Tensor:
    """A group's pictures, (candidates, 3, H, W) in [0, 1]."""
    return torch.stack([picture(run, group.id, candidate) for candidate in range(group.candidates)])


def picture(run: Run, group_id: str, candidate: int) -> Tensor:
    """One candidate's picture, (3, H, W) in [0, 1]."""
    with Image.open(run.image_path(group_id, candidate)) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)
