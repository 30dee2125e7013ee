"""Preference Compare: before and after on the same prompts and seeds, side by side."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..d3po_core.evaluation.images import deterministic, draw
from ..d3po_core.lora import import_lora
from ..d3po_core.lora.attach import applied
from ..d3po_core.lora.weights import scale_weights
from ..d3po_core.run import Run
from . import folders, upstream
from .inputs import ALIASES, taste_input
from .load_lora import taught
from .taste_model import TasteModel
from .teaching import sample_settings
from .working import Working

FIRST_SEED = 2_000_000
"""Seeds of comparisons begin here, far from those of strips and blind checks."""


class PreferenceCompare(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_PreferenceCompare",
            display_name="Preference Compare",
            category="D3PO",
            description="Draws the taste's prompts before and after teaching, on the same seeds.",
            search_aliases=[*ALIASES, "before after", "xy", "grid"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the pictures were drawn with, without the taste's LoRA."
                ),
                io.Vae.Input("vae", tooltip="Turns what is drawn into pictures."),
                taste_input(),
                io.Int.Input("round", default=0, min=0, max=10_000, tooltip="Which round; 0 is the latest."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=2.0, step=0.05, tooltip="Of the LoRA, for the pictures after."
                ),
                io.Int.Input("prompts", default=4, min=1, max=64, tooltip="How many of the taste's prompts, at most."),
                io.Int.Input("seeds", default=2, min=1, max=16, tooltip="Pictures for each prompt."),
                io.LoraModel.Input(
                    "lora",
                    optional=True,
                    tooltip="From the trainer: compare after it, in the same press of Queue.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="grid", tooltip="A row for each prompt: before left, after right."),
                io.Image.Output(display_name="before"),
                io.Image.Output(display_name="after"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> Any:
        """Changes when a round is taught."""
        return [(run.run_id, run.name, run.current_policy()) for run in folders.shelf().runs()]

    @classmethod
    def execute(
        cls, model: Any, vae: Any, taste: str, round: int, strength: float, prompts: int, seeds: int, lora: Any = None
    ) -> Any:
        carried = upstream.carried(cls.hidden.prompt, str(cls.hidden.unique_id))
        run = folders.known(taste, upstream.checkpoint_of(model, carried))
        file = taught(run, round)
        texts = sorted({prompt.text for prompt in run.prompts_to_show()})[:prompts]
        with Working(run, str(cls.hidden.unique_id), "blind") as work:
            before, after = both(run, TasteModel(model, run, vae), file, strength, texts, seeds, work)
        return io.NodeOutput(grid(before, after), *(side.flatten(0, 1).movedim(1, -1) for side in (before, after)))


def both(
    run: Run, model: TasteModel, file: Any, strength: float, texts: list[str], seeds: int, work: Working
) -> tuple[Tensor, Tensor]:
    """Pictures before and after, (prompts, seeds, 3, H, W) each."""
    settings = sample_settings(run)
    weights = scale_weights(import_lora(file, model.denoiser.module), strength)
    total = 2 * len(texts) * seeds
    sides: list[Tensor] = []
    for weight in (None, weights):
        parts: list[Tensor] = []
        plan = deterministic(model, settings)
        with applied(model.denoiser, weight, "hooks"):
            for at, images in draw(model, plan, texts, seeds, settings, first_seed=FIRST_SEED):
                parts.append(images)
                work.at(len(sides) * total // 2 + at + len(images), total, "Drawing before and after")
        sides.append(torch.cat(parts).unflatten(0, (len(texts), seeds)))
    return sides[0], sides[1]


def grid(before: Tensor, after: Tensor, gap: int = 8) -> Tensor:
    """The host's IMAGE (1, H, W, 3): a row for each prompt, before on the left, after on the right."""
    rows = []
    for prompt in range(len(before)):
        sides = [torch.cat(list(side[prompt]), -1) for side in (before, after)]
        bar = torch.ones(3, sides[0].shape[1], gap)
        rows.append(torch.cat([sides[0], bar, sides[1]], -1))
    return torch.cat(rows, 1).movedim(0, -1)[None]
