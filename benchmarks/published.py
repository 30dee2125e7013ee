"""D3PO's training as its authors' code does it (Yang et al. 2024, arXiv 2311.13231; github.com/yk7333/d3po), rewritten.

For every pair, every step and both images: one guided call of the policy and one of a deep-copied reference; log-probs
of the recorded step under both, mean over latent elements; ratios clamped; a loss and a backward pass for every step;
an optimiser step for every pair. Written in the authors' variables (variance-preserving latents, timesteps), nothing
shared with the project's own training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Recorded:
    """A group's trajectories: latents (C, K + 1, ...) of variance 1, timesteps (K,) and those after them."""

    latents: Tensor
    timesteps: list[int]
    before: list[int]
    prompt: Tensor
    negative: Tensor

    @classmethod
    def of(cls, x: Tensor, sigma: Tensor, prompt: Tensor, negative: Tensor, scheduler: Any) -> Recorded:
        """Make the record from latents in sigma space and all their K + 1 noise levels."""
        stride = 1000 // (len(sigma) - 1)
        scheduler.set_timesteps(len(sigma) - 1)
        times = scheduler.timesteps.tolist()
        scale = (1 + sigma.double() ** 2).rsqrt().reshape(-1, *[1] * (x.dim() - 2))
        return cls((x * scale).float(), times, [max(t - stride, 0) for t in times], prompt, negative)


class PublishedProcedure:
    """The authors' loop over pairs and steps.

    Args:
        policy: network with the trained LoRA.
        reference: a frozen deep copy of the network.
        parameters: what is trained.
        scheduler: a DDIMScheduler.
        guidance, eta, beta, clip: as the authors name them (guidance_scale, eta, beta, eps).
        learning_rate: of AdamW.
    """

    def __init__(
        self,
        policy: nn.Module,
        reference: nn.Module,
        parameters: list[nn.Parameter],
        scheduler: Any,
        guidance: float = 5.0,
        eta: float = 1.0,
        beta: float = 0.1,
        clip: float = 0.1,
        learning_rate: float = 3e-5,
    ) -> None:
        self.policy, self.reference, self.parameters = policy, reference, parameters
        self.alphas = scheduler.alphas_cumprod
        self.guidance, self.eta, self.beta, self.clip = guidance, eta, beta, clip
        self.optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=1e-4)

    def pair(self, group: Recorded, winner: int, loser: int) -> list[Tensor]:
        """Train on one pair; the gradient before clipping."""
        for step in range(len(group.timesteps)):
            logit = torch.zeros(())
            for candidate, sign in ((winner, 1), (loser, -1)):
                trained = self.log_prob(self.policy, group, candidate, step)
                frozen = self.log_prob(self.reference, group, candidate, step)
                ratio = torch.clamp(torch.exp(trained - frozen), 1 - self.clip, 1 + self.clip)
                logit = logit + sign * self.beta * torch.log(ratio)
            loss = -torch.log(torch.sigmoid(logit)).mean()
            (loss / len(group.timesteps)).backward()
        gradient = [p.grad.clone() for p in self.parameters if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return gradient

    def log_prob(self, network: Any, group: Recorded, candidate: int, step: int) -> Tensor:
        """Log-probability of one recorded step of DDIM (Song et al. 2021, eq. 12 and 16), mean over elements. (1,)"""
        x, x_next = group.latents[candidate, step][None], group.latents[candidate, step + 1][None]
        t = torch.tensor([group.timesteps[step]])
        output = network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([group.negative, group.prompt])).sample
        unconditional, conditional = output.chunk(2)
        v = unconditional + self.guidance * (conditional - unconditional)
        a, b = self.alphas[group.timesteps[step]], self.alphas[group.before[step]]
        original = a.sqrt() * x - (1 - a).sqrt() * v
        epsilon = a.sqrt() * v + (1 - a).sqrt() * x
        std = self.eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
        mean = b.sqrt() * original + (1 - b - std**2).sqrt() * epsilon
        log_prob = -((x_next - mean) ** 2) / (2 * std**2) - torch.log(std) - 0.5 * math.log(2 * math.pi)
        return log_prob.mean(dim=(1, 2, 3))
