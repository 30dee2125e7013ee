"""Which group to show next: least sure first, to be measured against the order in which they were drawn.

A person's next pick is predicted by a small preference model, which is fitted anew after every pick: a linear score of
an image's latent (averaged in 4x4 blocks, and the spread of each channel), softmax over a group's candidates (Bradley
and Terry 1952; Plackett 1975), with a ridge. The group whose predicted pick has the most entropy is shown next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

FIRST = 8
"""Groups that are shown as drawn before the model is used."""
RANDOM_SHARE = 0.25
"""Share of the groups after that that are shown as drawn."""
RIDGE = 1.0


def features(latents: Tensor) -> Tensor:
    """Return the features (B, F) of latents (B, C, H, W)."""
    coarse = torch.nn.functional.adaptive_avg_pool2d(latents.float(), 4).flatten(1)
    return torch.cat([coarse, latents.float().flatten(2).std(2)], 1)


def fitted(groups: list[Tensor], winners: list[int]) -> Tensor:
    """Fit the weights (F,) of the score to groups of candidates, (N, F) each, and the number of each one's winner."""
    weights = torch.zeros(groups[0].shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        losses = [-(g @ weights).log_softmax(0)[w] for g, w in zip(groups, winners, strict=True)]
        total = torch.stack(losses).sum() + RIDGE / 2 * weights.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return weights.detach()


def entropy(scores: Tensor) -> float:
    """Return the entropy, in nats, of the pick that the scores of a group's candidates predict."""
    return float(torch.distributions.Categorical(logits=scores).entropy())


def least_sure_first(
    groups: list[Any], latents: Callable[[str], Tensor], winner: Callable[[str], int], rng: torch.Generator
) -> Iterator[Any]:
    """Yield groups in the order in which to show them.

    Held-out groups keep their place, so that the measurement on them does not depend on a choice.

    Args:
        groups: all groups, as drawn.
        latents: returns the final latents of a group, by id.
        winner: returns the candidate that the person picked in a group that was shown, by id.
        rng: decides which groups are shown as drawn.
    """
    raw = {group.id: features(latents(group.id)) for group in groups}
    everything = torch.cat(list(raw.values()))
    mean, std = everything.mean(0), everything.std(0)
    standardised = {name: (values - mean) / std for name, values in raw.items()}
    left, shown = [group for group in groups if not group.held_out], list[Any]()
    for place in groups:
        if place.held_out:
            yield place
            continue
        group = left[0]
        if len(shown) >= FIRST and torch.rand((), generator=rng) >= RANDOM_SHARE:
            weights = fitted([standardised[g] for g in shown], [winner(g) for g in shown])
            group = max(left, key=lambda g: entropy(standardised[g.id] @ weights))
        left.remove(group)
        yield group
        shown.append(group.id)
