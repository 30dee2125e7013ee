"""The embedded model and a taste of it, as fixtures for tests that want a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3po_core.diffusion.image_model import ImageModel
from d3po_core.embedded import GARDEN_FOLDER
from d3po_core.evaluation import effect
from d3po_core.models import load_model
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from d3po_core.training import reward_trainer
from d3po_panels import tastes
from d3po_studio.host import LoadedModels, StudioHost

SAMPLE = SampleSettings(candidates=2, steps=3, guidance_scale=2.0, batch=8)
LORA = LoraSettings(rank=2, alpha=2.0)


class OneModel(LoadedModels):
    """Always the same model, whatever is asked for."""

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self.model = model

    def get(self, source: str, base_config: str | None = None, dtype: str = "float32") -> ImageModel:
        return self.model


@pytest.fixture(scope="session")
def models() -> OneModel:
    if not (GARDEN_FOLDER / "unet").exists():
        pytest.skip("the embedded model is not there")
    return OneModel(load_model("garden"))


@pytest.fixture
def host(models: OneModel) -> StudioHost:
    return StudioHost(models)


@pytest.fixture
def run(tmp_path: Path, models: OneModel) -> Run:
    prompts = ("a red tulip by day", "a blue daisy at night")
    return tastes.begin(RunLibrary(tmp_path), models.model, "garden", "Blooms", prompts, SAMPLE, TrainSettings(), LORA)


@pytest.fixture
def fewer_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw fewer images before and after each round, which are shown as they are."""
    monkeypatch.setattr(effect, "CHECK_PAIRS", 1)
    monkeypatch.setattr(effect, "STRIP_IMAGES", 1)
    monkeypatch.setattr(reward_trainer, "WATCHED", 2)
