"""Runs small graphs in the host, with a text encoder and samplers that record, and tells which prompts images had.

Conditioning, texts, switches, latents and images pass through the host's own nodes. An image and a latent are filled
with the number of the sampler's call that made them.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import torch
from inside import host_nodes, report
from prompt_graphs import CASES

execution = importlib.import_module("execution")  # the host's, once its folder is known
Texts = list[list[str]]
ENCODED: Texts = [[]]
CALLS: list[dict[str, Texts]] = []
SAVED: dict[str, list[int]] = {}


class RecordingClip:
    """Tokens are texts, and a conditioning is filled with the number of those that it was encoded from; 0 is none."""

    def tokenize(self, text: str, **options: Any) -> dict[str, list[str]]:
        return {name: [text] for name in ("l", "g", "t5xxl", "hydit_clip", "mt5xl")}

    def encode_from_tokens_scheduled(self, tokens: dict[str, list[str]], add_dict: Any = None, **options: Any) -> Any:
        ENCODED.append(sorted({text for each in tokens.values() for text in each if text}))
        filled = torch.full((1, 1, 4), float(len(ENCODED) - 1))
        return [[filled, {"pooled_output": torch.zeros(1, 4), **(add_dict or {})}]]

    def encode_from_tokens(self, tokens: Any, return_pooled: Any = False, **options: Any) -> Any:
        return (torch.zeros(1, 1, 4), torch.zeros(1, 4)) if return_pooled else torch.zeros(1, 1, 4)


class Part:
    """A model, VAE or ControlNet, as far as nodes ask one."""

    def copy(self) -> Part:
        return self

    def set_cond_hint(self, *given: Any, **named: Any) -> Part:
        return self

    def set_previous_controlnet(self, before: object) -> None:
        """Need none."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean() * torch.ones(1, 4, 8, 8)


def made_by(number: int) -> dict[str, torch.Tensor]:
    return {"samples": torch.full((1, 4, 8, 8), float(number))}


def sampled(positive: Any, negative: Any) -> dict[str, torch.Tensor]:
    sides = {"positive": positive or [], "negative": negative or []}
    numbers = {side: [int(each) for tokens, _ in cond for each in tokens[0, :, 0]] for side, cond in sides.items()}
    CALLS.append({side: [ENCODED[number] for number in of_side] for side, of_side in numbers.items()})
    return made_by(len(CALLS) - 1)


def saved(images: torch.Tensor, filename_prefix: str = "") -> tuple[()]:
    SAVED.setdefault(filename_prefix, []).extend(sorted({round(float(image.mean())) for image in images}))
    return ()


def replaced(name: str, returns: tuple[str, ...], work: Any, output: bool = False) -> None:
    """Put a node of this name in the host's place, with the inputs of the host's own."""
    own = host_nodes.NODE_CLASS_MAPPINGS[name]

    class Node:
        INPUT_TYPES = staticmethod(own.INPUT_TYPES)
        RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = returns, "work", output, ""

        def work(self, **given: Any) -> Any:
            return work(**given)

    host_nodes.NODE_CLASS_MAPPINGS[name] = Node


NOTHING = -1


def replace_nodes() -> None:
    """Put what records in the place of what computes."""
    replaced("CheckpointLoaderSimple", ("MODEL", "CLIP", "VAE"), lambda **_: (Part(), RecordingClip(), Part()))
    replaced("ControlNetLoader", ("CONTROL_NET",), lambda **_: (Part(),))
    replaced("GLIGENLoader", ("GLIGEN",), lambda **_: (Part(),))
    replaced(
        "LoadImage", ("IMAGE", "MASK"), lambda **_: (torch.full((1, 64, 64, 3), float(NOTHING)), torch.ones(1, 64, 64))
    )
    replaced("EmptyLatentImage", ("LATENT",), lambda **_: (made_by(NOTHING),))
    replaced("VAEDecode", ("IMAGE",), lambda samples, **_: (samples["samples"].mean() * torch.ones(1, 64, 64, 3),))
    replaced("VAEEncode", ("LATENT",), lambda pixels, **_: ({"samples": pixels.mean() * torch.ones(1, 4, 8, 8)},))
    for kind in ("KSampler", "KSamplerAdvanced"):
        replaced(kind, ("LATENT",), lambda positive, negative, **_: (sampled(positive, negative),))
    replaced("CFGGuider", ("GUIDER",), lambda positive, negative, **_: ((positive, negative),))
    replaced("BasicGuider", ("GUIDER",), lambda conditioning, **_: ((conditioning, None),))
    replaced("SamplerCustomAdvanced", ("LATENT", "LATENT"), lambda guider, **_: (sampled(*guider),) * 2)
    replaced("SaveImage", (), lambda images, filename_prefix, **_: saved(images, filename_prefix), output=True)
    replaced("PreviewImage", (), lambda images, **_: (), output=True)


class Server:
    """The host's server, as far as its executor needs one."""

    client_id = last_node_id = last_prompt_id = None

    def send_sync(self, *given: Any) -> None:
        """Tell nobody."""


async def ran(graph: dict[str, Any]) -> dict[str, Any]:
    """Run a graph; return the prompts of each saved image, or what went wrong."""
    CALLS.clear()
    SAVED.clear()
    executor = execution.PromptExecutor(
        Server(), cache_type=execution.CacheType.CLASSIC, cache_args={"ram": 0, "lru": 0, "ram_inactive": 0}
    )
    ends = [name for name, node in graph.items() if node["class_type"] in ("SaveImage", "PreviewImage")]
    await executor.execute_async(graph, "x", {}, ends)
    if not executor.success:
        return {"error": str(executor.status_messages[-1][1].get("exception_message"))}
    return {prefix: [CALLS[number] if number >= 0 else None for number in numbers] for prefix, numbers in SAVED.items()}


async def main() -> None:
    await host_nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
    replace_nodes()
    report({name: await ran(graph) for name, graph in CASES.items()})


asyncio.run(main())
