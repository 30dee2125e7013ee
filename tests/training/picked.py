"""Runs on the toy model that somebody has judged, and trainers of them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from d3po_core.app.sampling import sample_groups
from d3po_core.picks import Pick
from d3po_core.run import Run
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings, replace
from d3po_core.training import trainer as module
from d3po_core.training.preferences import PreferenceData
from d3po_core.training.trainer import Trainer
from tests.toy import ToyModel

PROMPTS = ["one", "two", "three"]
SAMPLE = SampleSettings(groups=24, steps=8, window_sigma=4.0, guidance_scale=3.0, batch=8, start="same")
TRAIN = TrainSettings(epochs=3, batch=4, learning_rate=3e-2, warmup=0, beta=20.0, drift_limit=0.0)
LORA = LoraSettings(rank=2, alpha=2.0)


def picked_run(folder: Path, model: ToyModel, picks: str = "bright", settings: SampleSettings = SAMPLE) -> Run:
    """A run judged by somebody who likes the first colour bright, or only flags the darkest, or says nothing."""
    run = Run.create(folder, model={"identity": model.identity}, settings={})
    for sampled in sample_groups(run, model, settings, PROMPTS):
        noisy = run.groups.trajectory(sampled.group_id)["x"][:, -1].float()
        best = int(noisy[:, 0].mean(dim=(1, 2)).argmax())
        pick = Pick("tie") if picks == "tie" else Pick("favourite", (best,))
        if picks == "flags":
            run.flags.add(sampled.group_id, int(noisy[:, 0].mean(dim=(1, 2)).argmin()), "defective")
        elif picks != "none":
            run.picks.add(sampled.group_id, pick)
    return run


def copied(run: Run, to: Path) -> Run:
    """The same run once more: which steps an update trains hangs on the groups' ids, which no other run has."""
    run.close()
    return Run.open(shutil.copytree(run.folder, to))


def trainer(run: Run, model: ToyModel, **settings: object) -> Trainer:
    return Trainer.open(run, model.denoiser, replace(TRAIN, settings), LORA, attachment="hooks")


def flat(weights: dict) -> torch.Tensor:  # type: ignore[type-arg]
    return torch.cat([t.flatten() for w in weights.values() for t in (w.down, w.up)])


def evidence(monkeypatch: pytest.MonkeyPatch, z: float) -> None:
    """Let the judge be as sure of itself as this, whatever the picks say."""
    real = module.preference_data

    def sure(*arguments: object) -> PreferenceData:
        data = real(*arguments)  # type: ignore[arg-type]
        assert data.judge is not None
        return dataclasses.replace(data, judge=dataclasses.replace(data.judge, z=z))

    monkeypatch.setattr(module, "preference_data", sure)
