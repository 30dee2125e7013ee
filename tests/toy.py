"""A denoiser small enough to differentiate by hand: one linear layer over flattened latents, and a way to fill it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from d3po_core.diffusion.denoiser import Conditioning, Prediction, stack
from d3po_core.diffusion.rollout import CandidateNoise, SamplingPlan, generator, sample
from d3po_core.diffusion.steps import ancestral
from d3po_core.picks import Pair
from d3po_core.training.rows import TrainingGroup

SHAPE = (2, 3, 3)
SIGMAS = torch.tensor([8.0, 5.0, 3.0, 1.0, 0.0], dtype=torch.float64)


class ToyNetwork(nn.Module):
    """One linear layer, named like an attention projection so that a LoRA finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.attn1 = nn.ModuleDict({"to_q": nn.Linear(18 + 4, 18)})

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.attn1["to_q"](x))


class ToyDenoiser:
    """D = tanh(W [x / (1 + sigma), prompt]); guidance against a zero prompt."""

    family = "diffusion"

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.module: nn.Module = ToyNetwork()

    device = torch.device("cpu")

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        def branch(prompt: Tensor) -> Tensor:
            scaled = x.flatten(1) / (1 + sigma.to(x)[:, None])
            return self.module(torch.cat([scaled, prompt.to(x)], 1)).reshape(x.shape)

        cond = branch(conditioning["prompt"])
        if guidance_scale == 1 or not guided:
            return Prediction(cond, cond)
        uncond = branch(torch.zeros_like(conditioning["prompt"]))
        return Prediction(cond, uncond + guidance_scale * (cond - uncond), uncond)

    def clean(self, latents: Tensor) -> Tensor:
        return latents

    def finished(self, x: Tensor) -> Tensor:
        return x

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        return torch.linspace(8, 0, steps + 1, dtype=torch.float64)

    def tuned(self, seed: int = 1, size: float = 0.02) -> ToyDenoiser:
        """The same denoiser after some training."""
        other = copy.deepcopy(self)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in other.module.parameters():
                parameter += size * torch.randn_like(parameter)
        return other


class ToyModel:
    """A whole image model: prompts are encoded by their letters, latents decoded to coloured squares."""

    identity = "toy"

    def __init__(self, seed: int = 0) -> None:
        self.denoiser = ToyDenoiser(seed)

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        letters = torch.stack([torch.randn(4, generator=generator(prompt)) for prompt in prompts])
        letters[:, 0] = 2.0  # so that something can be learnt for all prompts at once
        return [{"prompt": row[None]} for row in letters]

    def sample(self, plan, noises, conditioning, guidance_scale):  # type: ignore[no-untyped-def]
        return sample(self.denoiser, plan, noises, stack(conditioning), guidance_scale)

    @torch.no_grad()
    def evaluate(self, conditioning, shape, work):  # type: ignore[no-untyped-def]
        return work()

    def decode(self, latents: Tensor) -> Tensor:
        """Blue where there is no red, so that warmth can be told."""
        return torch.cat([latents, -latents[:, :1]], 1).sigmoid()

    def latent_shape(self, height: int = 0, width: int = 0) -> tuple[int, ...]:
        return SHAPE


def toy_group(
    denoiser: ToyDenoiser, number: int, candidates: int, pairs: list[Pair], guidance_scale: float = 3.0
) -> TrainingGroup:
    """A sampled group of which 3 steps are trained."""
    plan = SamplingPlan(ancestral(SIGMAS, torch.ones(4)), 3)
    torch.manual_seed(number)
    conditioning = {"prompt": torch.randn(1, 4)}
    noises = [CandidateNoise(0, number, c, SHAPE, "same") for c in range(candidates)]
    batch = {"prompt": conditioning["prompt"].expand(candidates, -1)}
    t = sample(denoiser, plan, noises, batch, guidance_scale)
    return TrainingGroup(
        id=f"g{number}",
        pairs=pairs,
        scores=[
            sum((p.winner == c) - (p.loser == c) for p in pairs) / max(1, candidates - 1) for c in range(candidates)
        ],
        steps=plan.steps[:3],
        x=t.x,
        cond=t.cond,
        guided=t.guided,
        latents=t.latents,
        policy="base",
        conditioning=conditioning,
        guidance_scale=guidance_scale,
    )
