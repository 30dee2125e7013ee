"""A whole evaluation: both samplers, before and after, as figures and as a picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..image_model import ImageModel
from ..lora import LoraWeights
from ..policies import applied
from ..run import files
from ..settings import SampleSettings
from .evaluate import Column, Drawn, Fidelity, Pictures, Scorer, column, pictures, plans
from .grid import before_after

GRID_PROMPTS, GRID_SEEDS = 6, 5


@dataclass(frozen=True)
class Report:
    """Outcome by sampler ("deterministic", "training"), and the deterministic sampler's pictures."""

    columns: dict[str, Column]
    before: Pictures
    after: Pictures

    def figures(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        return {name: dataclasses.asdict(outcome) for name, outcome in self.columns.items()}

    def save(self, folder: Path) -> Path:
        """Write evaluation.json and before-after.png; the picture's path."""
        before, after = (side.images[:GRID_PROMPTS, :GRID_SEEDS] for side in (self.before, self.after))
        path = folder / "before-after.png"
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        files.replace(path, files.png(before_after(before, after)))
        files.replace(folder / "evaluation.json", json.dumps(self.figures(), indent=2).encode())
        return path


def evaluate(
    model: ImageModel,
    lora: LoraWeights | Path,
    prompts: list[str],
    seeds: int,
    settings: SampleSettings,
    scorer: Scorer,
    fidelity: Fidelity | None = None,
    attachment: str = "peft",
) -> Iterator[Drawn | Report]:
    """Draw before and after with both samplers and compare; the last thing yielded is the `Report`.

    Args:
        model: the base model.
        lora: weights or a file, used at strength 1 in all steps.
        prompts: P prompts that were not trained on.
        seeds: S seeds, shared by the prompts.
        settings: as sampled.
        scorer, fidelity: see `pictures`.
        attachment: how a LoRA is attached to this model.
    """
    samplers = plans(model, settings)
    per_set = len(prompts) * seeds
    total, done = 2 * per_set * len(samplers), 0
    found: dict[str, list[Pictures]] = {}
    for name, plan in samplers.items():
        for weights in (None, lora):
            with applied(model.denoiser, weights, attachment):
                for step in pictures(model, plan, prompts, seeds, settings, scorer, fidelity):
                    if isinstance(step, Drawn):
                        yield Drawn(done + step.done, total)
                    else:
                        found.setdefault(name, []).append(step)
            done += per_set
    yield Report({name: column(*both) for name, both in found.items()}, *found["deterministic"])
