"""Which group to show next: least sure first, to be measured against the order in which they were drawn.

A person's next pick is foretold by a small preference model, fitted anew after every pick to those before it: a linear
score of an image's latent (averaged in 4x4 blocks, and the spread of each channel), softmax over a group's candidates
(Bradley and Terry 1952; Plackett 1975), with a ridge. The group whose foretold pick has the most entropy is shown next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

FIRST = 8
"""So many picks are taken as drawn before a model is asked."""
RANDOM_SHARE = 0.25
"""Of the picks after that, this share is taken as drawn."""
RIDGE = 1.0


def features(latents: Tensor) -> Tensor:
    """What the preference model sees of latents (B, C, H, W), as (B, F)."""
    coarse = torch.nn.functional.adaptive_avg_pool2d(latents.float(), 4).flatten(1)
    return torch.cat([coarse, latents.float().flatten(2).std(2)], 1)


def fitted(groups: list[Tensor], winners: list[int]) -> Tensor:
    """Weights (F,) of the score, from groups (N, F) of candidates and which of them won."""
    weights = torch.zeros(groups[0].shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        surprise = [-(g @ weights).log_softmax(0)[w] for g, w in zip(groups, winners, strict=True)]
        total = torch.stack(surprise).sum() + RIDGE / 2 * weights.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return weights.detach()


def entropy(scores: Tensor) -> float:
    """Nats of the pick that these scores of a group's candidates foretell."""
    return float(torch.distributions.Categorical(logits=scores).entropy())


def least_sure_first(
    groups: list[Any], latents: Callable[[str], Tensor], winner: Callable[[str], int], chance: torch.Generator
) -> Iterator[Any]:
    """Groups in the order in which to show them.

    Held-out groups keep their place in the order drawn: they measure, so nothing may choose among them.

    Args:
        groups: all there are, as drawn.
        latents: final latents of a group, by id.
        winner: what the person picked in a group that was shown.
        chance: for the share at random.
    """
    raw = {group.id: features(latents(group.id)) for group in groups}
    everything = torch.cat(list(raw.values()))
    mean, std = everything.mean(0), everything.std(0)
    known = {name: (values - mean) / std for name, values in raw.items()}
    left, shown = [group for group in groups if not group.held_out], list[Any]()
    for place in groups:
        if place.held_out:
            yield place
            continue
        group = left[0]
        if len(shown) >= FIRST and torch.rand((), generator=chance) >= RANDOM_SHARE:
            weights = fitted([known[g] for g in shown], [winner(g) for g in shown])
            group = max(left, key=lambda g: entropy(known[g.id] @ weights))
        left.remove(group)
        yield group
        shown.append(group.id)
