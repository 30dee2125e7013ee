"""The embedded model and a taste of it, for tests that want a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d3po_core.embedded import GARDEN_FOLDER
from d3po_core.evaluation import images
from d3po_core.models import load_model
from d3po_core.run import Run
from d3po_core.run.library import RunLibrary
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from d3po_core.training import reward_trainer
from d3po_panels import tastes
from d3po_studio.models import Models

SAMPLE = SampleSettings(candidates=2, steps=3, guidance_scale=2.0, batch=8)
LORA = LoraSettings(rank=2, alpha=2.0)


class Garden(Models):
    """The embedded model, whatever is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.model = load_model("garden")

    def get(self, source: str, base_config: str | None = None, dtype: str = "float32") -> Any:
        return self.model


@pytest.fixture(scope="session")
def models() -> Garden:
    if not (GARDEN_FOLDER / "unet").exists():
        pytest.skip("the embedded model is not there")
    return Garden()


@pytest.fixture
def run(tmp_path: Path, models: Garden) -> Run:
    plan = tastes.NewRun(
        "Blooms", "garden", ("a red tulip by day", "a blue daisy at night"), SAMPLE, TrainSettings(), LORA
    )
    return tastes.begin_run(plan, models.model, RunLibrary(tmp_path))


@pytest.fixture
def fewer_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of before and after, which are shown as they are after every round."""
    monkeypatch.setattr(images, "CHECK_PAIRS", 1)
    monkeypatch.setattr(images, "STRIP_IMAGES", 1)
    monkeypatch.setattr(reward_trainer, "WATCHED", 2)
