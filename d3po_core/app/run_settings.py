"""What a run says of itself: the prompts to draw, how they are drawn, how it is trained, and which round comes next.

Settings that another version of this program stored are read too, see `settings.from_stored`.
"""

from __future__ import annotations

from ..run import Run
from ..settings import LoraSettings, SampleSettings, Settings, TrainSettings, from_stored, preset_values


def prompts_to_draw(run: Run) -> list[str]:
    """Return a run's prompts, each once, without those that only came with imported images."""
    return list(dict.fromkeys(prompt.text for prompt in run.prompts.all() if prompt.asked))


def next_round(run: Run) -> int:
    """Return the number of the round that is drawn for now."""
    return 1 + sum(round.finished is not None for round in run.rounds.all())


def sample_settings(run: Run) -> SampleSettings:
    """Return how a run's images are drawn."""
    return _read(run, "sample", SampleSettings)


def newest_sample_settings(run: Run) -> SampleSettings:
    """Return how a run's newest images were drawn; before any were, how they would be."""
    drawn = run.groups.select(recorded=True)
    return from_stored(SampleSettings, drawn[-1].settings) if drawn else sample_settings(run)


def train_settings(run: Run) -> TrainSettings:
    """Return how a run is trained."""
    return _read(run, "train", TrainSettings)


def lora_settings(run: Run) -> LoraSettings:
    """Return what of the network a run trains."""
    return _read(run, "lora", LoraSettings)


def _read(run: Run, section: str, kind: type[Settings]) -> Settings:
    method = run.settings.get("train", {}).get("method", TrainSettings.method)
    preset = preset_values(run.settings.get("preset", "taste"), method)  # runs of the command line keep it alone
    return from_stored(kind, {**preset.get(section, {}), **run.settings.get(section, {})})
