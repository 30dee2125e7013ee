"""What a run says of itself: the prompts to draw, how they are drawn, and how it is taught."""

from __future__ import annotations

from d3po_core.run import Run
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings, preset_values


def texts(run: Run) -> list[str]:
    """A run's prompts, each once, without those that only came with imported pictures."""
    return list(dict.fromkeys(prompt.text for prompt in run.prompts.all() if prompt.asked))


def sample_settings(run: Run) -> SampleSettings:
    """How a run's pictures are drawn."""
    return SampleSettings(**run.settings.get("sample", {}))


def train_settings(run: Run) -> tuple[TrainSettings, LoraSettings]:
    """How a run is taught."""
    method = run.settings.get("train", {}).get("method", TrainSettings.method)
    preset = preset_values(run.settings.get("preset", "taste"), method)  # runs of the command line keep it alone
    train, lora = ({**preset.get(name, {}), **run.settings.get(name, {})} for name in ("train", "lora"))
    return TrainSettings(**train), LoraSettings(**lora)
