"""What the network itself sees in finished pictures: activations of its attention, as a short description of each.

They tell what is in a picture (Tang et al. 2023, arXiv 2306.03881), which statistics of its pixels cannot, every model
has them, and they cost one evaluation of the network for a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..diffusion.denoiser import Conditioning, Denoiser, denoise, noised, stack
from ..diffusion.rollout import generator
from ..lora.targets import layers, matching

RATIO = 1.0
"""Ratio of noise to signal at which a picture is shown to the network: where its content is seen, and fine detail is
not."""
PLACES = 8
"""Attention modules that are listened to, spread over the network."""
WIDTH = 32
"""Numbers that a module's means are projected to, and its standard deviations."""
MODULE = re.compile(r".*?(attn\d?|attention|linear1)(?=\.|$)")
"""The part of a layer's path that is its attention module's, in the namings of `lora.targets`."""


@torch.no_grad()
def describe(
    denoiser: Denoiser, latents: Tensor, conditioning: Sequence[Conditioning], guidance_scale: float, at_once: int = 1
) -> Tensor | None:
    """Describe finished pictures by what enters the network's attention modules: means and spreads over the picture.

    Both are projected by a random matrix of the module's own, the same in all runs, which nearly keeps the distances
    between pictures (Johnson and Lindenstrauss 1984).

    Args:
        denoiser: the base model, no LoRA active.
        latents: finished, (B, ...).
        conditioning: of each picture's prompt, B of one row.
        guidance_scale: as the pictures are drawn; the conditional branch alone is evaluated.
        at_once: pictures that are evaluated together, at most.

    Returns:
        (B, F), float32 on the CPU, with F at most 2 * PLACES * WIDTH; None where no attention of the network is known,
        or it could not be heard, or its numbers are not finite.
    """
    noise = torch.randn(1, *latents.shape[1:], generator=generator("adherence"))  # the one that adherence begins with
    found = []
    with _listening(denoiser.module) as heard:
        for part in _of_one_prompt(conditioning, at_once):
            x, sigma = noised(denoiser, latents[part], noise, RATIO)
            rows = {name: value.to(x.device) for name, value in stack(conditioning[part]).items()}
            heard.clear()
            denoise(denoiser, x, sigma, rows, guidance_scale, False)
            if not heard:
                return None
            found.append(torch.cat([torch.cat(heard[place]) for place in sorted(heard)], 1))
    described = torch.cat(found)
    return described if len(described) == len(latents) and bool(described.isfinite().all()) else None


def attention_inputs(network: nn.Module) -> list[str]:
    """Return the paths of at most `PLACES` layers, the first of an attention module each, spread over the network."""
    first: dict[str, str] = {}
    for path in matching(layers(network), "attention"):
        module = MODULE.match(path)
        first.setdefault(module[0] if module else path, path)
    paths = list(first.values())
    count = min(PLACES, len(paths))
    return [paths[i * (len(paths) - 1) // max(1, count - 1)] for i in range(count)]


def _of_one_prompt(conditioning: Sequence[Conditioning], at_once: int) -> Iterator[slice]:
    """Cut rows into runs of one prompt, of at most `at_once`; a host evaluates several in an order of its own."""
    first = 0
    for last in range(1, len(conditioning) + 1):
        ended = last == len(conditioning) or conditioning[last] is not conditioning[first]
        if ended or last - first == at_once:
            yield slice(first, last)
            first = last


@contextmanager
def _listening(network: nn.Module) -> Iterator[dict[int, list[Tensor]]]:
    """Collect, inside, what enters the attention modules: for each, (B, 2 * WIDTH) of every evaluation."""
    heard: dict[int, list[Tensor]] = {}
    known = layers(network)

    def listen(place: int, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        channels = 1 if hasattr(layer, "kernel_size") else -1

        def hear(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not inputs or inputs[0].dim() < 3:  # given by name, or without places
                return
            by_channel = inputs[0].detach().float().movedim(channels, 1).flatten(2)
            spread = by_channel.std(2, correction=0)
            rng = generator("activations", place)
            both = [
                numbers.cpu() @ torch.randn(numbers.shape[1], WIDTH, generator=rng) / WIDTH**0.5
                for numbers in (by_channel.mean(2), spread)
            ]
            heard.setdefault(place, []).append(torch.cat(both, 1))

        return layer.register_forward_pre_hook(hear)

    handles = [listen(place, known[path]) for place, path in enumerate(attention_inputs(network))]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
