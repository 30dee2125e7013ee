"""Models whose numbers overflow in half precision, on the command line and in the Studio: the part and a way out are
named, no picture of them is kept or shown, and those that were drawn before stay."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from d3po_core.cli import main
from d3po_core.gallery.state import state
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from d3po_panels import tastes
from d3po_panels.worker import Worker
from d3po_studio.host import LoadedModels, StudioHost
from tests.tiny_pipelines import tiny_sd

LARGE = 1e6
"""More than float16 holds; the network's weights that are multiplied by it fit into float32."""
SENTENCE = "The numbers of the model's {part} overflowed, and no picture came out. What was drawn before is kept. "
WAY_OUT = (
    "Let it compute in bfloat16 or float32 (--dtype on the command line): float16 ends at 65,504. If that does not "
    "help, get the model's file anew."
)


def saved(folder: Path, part: str = "") -> str:
    """Write a pipeline of which a part overflows: the network in float16, the VAE (always in float32) in any case."""
    pipeline = tiny_sd()
    with torch.no_grad():
        if part == "network":
            pipeline.unet.conv_out.weight *= LARGE / pipeline.unet.conv_out.weight.abs().max()
        if part == "VAE":
            pipeline.vae.decoder.conv_out.weight.fill_(3e38)
    pipeline.save_pretrained(folder)
    return str(folder)


def files(run: Run) -> dict[str, bytes]:
    """Return all that a run's folder of groups holds."""
    return {str(path): path.read_bytes() for path in (run.folder / "groups").rglob("*") if path.is_file()}


@pytest.mark.parametrize(("part", "dtype"), [("network", "float16"), ("VAE", "float32")])
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, dtype: str) -> None:
    model, run = saved(tmp_path / "model"), tmp_path / "run"
    how = ["sample", "--run", str(run), "--groups", "2", "--candidates", "2", "--steps", "4"]
    assert main([*how, "--model", model, "--prompt", "a fox"]) == 0
    before = files(Run.open(run))
    saved(tmp_path / "model", part)
    capsys.readouterr()
    assert main([*how, "--dtype", dtype]) == 2
    assert f"d3po: {SENTENCE.format(part=part)}{WAY_OUT}\n" in capsys.readouterr().err.replace("\r", "\n")
    assert len(before) == 6 and files(Run.open(run)) == before
    assert main([*how, "--dtype", "float32"]) == (0 if part == "network" else 2)  # it does help


@pytest.mark.parametrize("part", ["network", "VAE"])
def test_the_studio(tmp_path: Path, part: str) -> None:
    """What the gallery shows is the run's state: the sentence, and the groups of before."""
    source, models = saved(tmp_path / "model"), LoadedModels()
    run = tastes.begin(
        RunLibrary(tmp_path / "tastes"),
        *(models.get(source), source, "Foxes", ("a fox",)),
        *(SampleSettings(candidates=2, steps=4, batch=2), TrainSettings(), LoraSettings()),
    )
    run.model["dtype"] = "float16" if part == "network" else "float32"
    worker = Worker(StudioHost(models)).start()
    try:
        worker.draw(run, 2)
        shown = when_idle(run, worker)
        assert shown["problem"] is None and shown["groups"]["drawn"] == 2
        before = files(run)

        saved(tmp_path / "model", part)
        models._model = None  # as after a start of the program
        worker.draw(run, 2)
        shown = when_idle(run, worker)
        told = shown["problem"]
        assert SENTENCE.format(part=part) + WAY_OUT == " ".join(told[each] for each in ("what", "safe", "do"))
        assert shown["groups"]["drawn"] == 2 and files(run) == before
        worker.seen(run)
        time.sleep(1)
        assert not worker.queue.is_busy(run)  # it does not try on and on for whoever looks
    finally:
        worker.close()


def when_idle(run: Run, worker: Worker) -> dict[str, Any]:
    """Return what the gallery shows once the worker has nothing left to do."""
    done = worker.queue.call(lambda: None)
    done.result(60)
    return dict(state(run, worker, ""))
