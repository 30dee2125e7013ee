"""What the command line says of a step-distilled model: how to draw with it, and what cannot teach it."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3po_core.cli import main
from tests.tiny_pipelines import tiny_sd

SAMPLE = ["--prompt", "a red fox", "--groups", "16", "--candidates", "2", "--batch", "16", "--held-out", "0"]
TRAIN = ["--method", "diffusion-nft", "--epochs", "1", "--rank", "2", "--draws", "1", "--keep-prompt", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("fox-turbo", "fox"):
        tiny_sd().save_pretrained(folder / name)
    return folder


def test_advice_comes_before_drawing_and_a_warning_before_training(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    def sampled(model: str, run: Path, *more: str) -> str:
        return said("sample", "--run", str(run), "--model", str(folder / model), *SAMPLE, *more)

    turbo, few, usual = tmp_path / "turbo", tmp_path / "few", tmp_path / "usual"
    drawn = sampled("fox-turbo", turbo, "--steps", "4", "--guidance-scale", "5")
    assert drawn.count("fox-turbo looks like a few-step model") == 1
    assert drawn.index("few-step model") < drawn.index("Drew 16 groups")
    assert "few-step" not in sampled("fox", usual, "--steps", "4", "--guidance-scale", "5")
    sampled("fox", few, "--steps", "4", "--guidance-scale", "1")
    for run, warned in ((turbo, 1), (few, 1), (usual, 0)):
        said("annotate", "--run", str(run), "--scorer", "warmth")
        taught = said("train", "--run", str(run), *TRAIN)
        assert taught.count("2509.16117") == warned and "Round 1 took" in taught
        assert not warned or taught.index("2509.16117") < taught.index("Round 1 took")
