"""Begin a run, and read what it says of itself: prompts, how it is drawn and trained, and which round comes next.

Settings that another version of this program stored are read too, see `settings.from_stored`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..diffusion.image_model import ImageModel
from ..importing import Imported
from ..run import BaseModelFacts, Run, device_name
from ..run.run import RunLibrary
from ..settings import LoraSettings, SampleSettings, Settings, TrainSettings, from_stored, preset_values
from ..training.methods import METHODS
from .sampling import check_drawable


@dataclass(frozen=True)
class NewRun:
    """A run to be begun.

    Attributes:
        name: on screen.
        model: facts about the base model that find and check it again, see `model_facts`.
        sample: how images are drawn.
        train, lora: how it is trained; None leaves that to whoever trains it.
        prompts: to draw; others may come later.
        more: further entries of the run's settings, of its host.
    """

    name: str
    model: BaseModelFacts
    sample: SampleSettings
    train: TrainSettings | None = None
    lora: LoraSettings | None = None
    prompts: tuple[str, ...] = ()
    more: Mapping[str, object] = field(default_factory=dict)


def begin_run(folder: Path, new: NewRun, model: ImageModel | None) -> Run:
    """Make a run in a folder, once it is sure that the model can draw what is wanted.

    Args:
        folder: new or empty.
        new: what it is to be.
        model: the base model; None where nothing will be drawn and no prompt is named, as images are imported.

    Raises:
        D3POError: the model cannot draw this, a prompt is empty or too long, there is a run already, or the folder
            cannot be written to.
    """
    if model is not None:
        check_drawable(model, new.sample)
        if new.prompts:
            model.encode(list(new.prompts), new.sample.negative)
    sections = {
        name: dataclasses.asdict(value) for name in ("sample", "train", "lora") if (value := getattr(new, name))
    }
    run = Run.create(folder, name=new.name, model=new.model, settings={**sections, **new.more})
    for prompt in new.prompts:
        run.prompts.add(prompt, new.sample.negative)
    device = {} if model is None else {"device": device_name(model.denoiser.device)}
    run.write_manifest(**device, seed=new.sample.seed)
    return run


def model_facts(
    model: ImageModel, source: str, base_config: str | None = None, dtype: str = "float32"
) -> BaseModelFacts:
    """Return what a run remembers of its base model.

    Args:
        model: the base model.
        source: where it is loaded from again, or the name of its file.
        base_config: a folder with the model's configuration, for a checkpoint without internet access.
        dtype: of the network.
    """
    return {
        "identity": model.identity,
        "source": source,
        "name": Path(source).stem,
        "dtype": dtype,
        "base_config": base_config,
        "family": model.denoiser.family,
        "prediction_type": getattr(model, "prediction_type", ""),
    }


def unused_name(name: str, library: RunLibrary) -> str:
    """Return a name that no run has yet: this one, or with a number behind it."""
    taken = {run.name for run in library.runs()}
    numbered = (f"{name} {number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)


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


def _brought(imported: Imported) -> str:
    if imported.entrants:
        pictures = "1 picture" if imported.added == 1 else f"{imported.added} pictures"
        return f"Imported {pictures} to be compared: the gallery shows two at a time, pick the better one."
    groups = "1 group" if imported.added == 1 else f"{imported.added} groups"
    return f"Imported {groups} of pictures."


def import_outcome(imported: Imported, method: str, at_most: int) -> tuple[str, list[str]]:
    """Return what was imported in a sentence or a few, and what was left out, a line each.

    Args:
        imported: the last report.
        method: that the run is trained with.
        at_most: lines about what was left out.
    """
    parts = [_brought(imported)]
    if imported.known:
        parts.append(f"{imported.known} were there already.")
    parts += imported.notes
    if METHODS[method].rows == "steps":
        parts.append(
            f"How they were drawn is not known, so {method} cannot learn from them; diffusion-nft, diffusion-dpo and "
            "diffusion-kto can."
        )
    lines = [str(each) for each in imported.left_out[:at_most]]
    if len(imported.left_out) > at_most:
        lines.append(f"and {len(imported.left_out) - at_most} more")
    if lines:
        parts.append(f"Left out {sum(each.groups for each in imported.left_out)}:")
    return " ".join(parts), lines
