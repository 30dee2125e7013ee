"""Begin a run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..diffusion.image_model import ImageModel
from ..run import BaseModelFacts, Run, device_name
from ..run.run import RunLibrary
from ..settings import LoraSettings, SampleSettings, TrainSettings
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
