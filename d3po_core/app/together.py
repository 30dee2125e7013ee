"""Draw groups by several processes: the first deals them out and writes them, all draw.

The first has the run; the others see no folder of it, so they may be on other computers. What is drawn is what one
process draws, bit by bit, on the same kind of device with as many threads: a picture's noise depends on seed, group and
candidate alone, and the same groups are drawn at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping

from torch import Tensor

from ..diffusion.denoiser import Conditioning
from ..diffusion.image_model import ImageModel
from ..lora import LoraWeights
from ..lora.attachment import applied
from ..lora.weights import LayerWeights
from ..processes import Message, Processes
from ..run import Run
from ..run.records import JsonObject
from ..settings import SampleSettings, from_stored
from .sampling import DrawnGroup, GroupDrawing, SampledGroup, add_prompts, deal, decoded

Batch = tuple[list[int], list[int]]
"""Numbers of groups that are drawn at once, and the ids of their prompts."""


def sample_together(
    processes: Processes,
    run: Run,
    model: ImageModel,
    settings: SampleSettings,
    prompts: list[str],
    lora: LoraWeights | None,
    policy: str = "base",
    round: int = 0,
) -> Generator[SampledGroup, None, None]:
    """Draw groups as `sample_groups` does, by all processes; the first calls this, the others `help_sampling`.

    Args:
        processes: of which this is the first.
        run, model, settings, prompts, policy, round: see `sample_groups`.
        lora: the policy's, which is applied here.
    """
    facts = {"settings": dataclasses.asdict(settings), "policy": policy, "round": round}
    processes.share(Message({**facts, "alphas": _alphas(lora)}, _lora_tensors(lora)))
    done, batches = 0, list[Batch]()
    with applied(model.denoiser, lora):
        drawing = GroupDrawing.begin(model, settings, policy, round, None)
        dealt = deal(run, settings, add_prompts(run, model, prompts, settings.negative))
        while batches := [batch for _, batch in zip(range(processes.size), dealt, strict=False)]:
            ids = {each for _, chosen in batches for each in chosen}
            rows = {each: run.prompts.conditioning(each) for each in ids}
            processes.share(Message(batches, _named_rows(rows)))
            added = []  # all that was handed in, before anybody may stop this
            for message in processes.hand_in(_drawn(drawing, batches[0], rows)):
                for group, images in _read(message):
                    done += 1
                    group_id = group.add_to(run, images)
                    added.append(SampledGroup(group_id, done, settings.groups, images, group.latents))
            yield from added
    processes.share(Message([]))


def help_sampling(processes: Processes, model: ImageModel) -> None:
    """Draw what the first process deals out, until it is done.

    Args:
        processes: of which this is not the first.
        model: the base model.
    """
    order = processes.share()
    facts: JsonObject = order.facts  # type: ignore[assignment]
    with applied(model.denoiser, _lora_of(facts["alphas"], order.tensors)):
        drawing = GroupDrawing.begin(
            model, from_stored(SampleSettings, facts["settings"]), facts["policy"], facts["round"], None
        )
        while batches := (turn := processes.share()).facts:
            ours = batches[processes.rank] if processes.rank < len(batches) else None  # type: ignore[arg-type, index]
            processes.hand_in(_drawn(drawing, ours, _rows_of(turn.tensors)))


def _drawn(drawing: GroupDrawing, batch: Batch | None, conditioning: Mapping[int, Conditioning]) -> Message:
    """Draw and decode a batch, and return it as a message; an empty one without a batch."""
    if batch is None:
        return Message([])
    groups = drawing.draw(*batch, conditioning)
    images = decoded(drawing.model, groups).split(drawing.settings.candidates)
    tensors: dict[str, Tensor] = {}
    for i, (group, part) in enumerate(zip(groups, images, strict=True)):
        tensors |= {f"{i}/tensors/{name}": value for name, value in group.tensors.items()}
        tensors |= {f"{i}/latents": group.latents, f"{i}/images": part}
    return Message([group.about for group in groups], tensors)


def _read(message: Message) -> list[tuple[DrawnGroup, Tensor]]:
    """Return the groups and images of what `_drawn` made."""
    found, tensors = [], message.tensors
    for i, about in enumerate(message.facts):  # type: ignore[arg-type, var-annotated]
        start = f"{i}/tensors/"
        own = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
        found.append((DrawnGroup(tensors[f"{i}/latents"], own, about), tensors[f"{i}/images"]))
    return found


def _named_rows(rows: Mapping[int, Conditioning]) -> dict[str, Tensor]:
    return {f"{prompt}/{name}": value for prompt, row in rows.items() for name, value in row.items()}


def _rows_of(tensors: Mapping[str, Tensor]) -> dict[int, Conditioning]:
    rows: dict[int, Conditioning] = {}
    for key, value in tensors.items():
        prompt, _, name = key.partition("/")
        rows.setdefault(int(prompt), {})[name] = value
    return rows


def _alphas(lora: LoraWeights | None) -> dict[str, float]:
    return {path: layer.alpha for path, layer in (lora or {}).items()}


def _lora_tensors(lora: LoraWeights | None) -> dict[str, Tensor]:
    return {f"{path}/{side}": getattr(layer, side) for path, layer in (lora or {}).items() for side in ("down", "up")}


def _lora_of(alphas: Mapping[str, float], tensors: Mapping[str, Tensor]) -> LoraWeights | None:
    return {
        path: LayerWeights(tensors[f"{path}/down"], tensors[f"{path}/up"], alpha) for path, alpha in alphas.items()
    } or None
