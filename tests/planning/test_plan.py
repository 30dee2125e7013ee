"""Plans: what is counted of each kind of work, the settings that fit, and the command."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from d3po_core.cli import main
from d3po_core.errors import D3POError
from d3po_core.models.model import DiffusersModel
from d3po_core.planning import phases
from d3po_core.planning.counting import counted
from d3po_core.planning.fitting import card_for, fit, memory_for
from d3po_core.planning.networks import blank_conditioning, parts, unloaded_model
from d3po_core.planning.planner import ALLOWANCE, GIB, Planner
from d3po_core.planning.words import fitting_lines, plan_lines, short_plan, training_rows
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings
from tests.tiny_pipelines import tiny_sd

SAMPLE, TRAIN, LORA = SampleSettings(), TrainSettings(), LoraSettings()


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_sd().save_pretrained(folder)
    return Planner(str(folder))


def test_a_weight_on_another_device_is_noticed(planner: Planner) -> None:
    """The same run that counts shows that nothing is left on a wrong device: tensors of two do not mix."""
    model = unloaded_model(planner.source)
    place = next(module for module in model.denoiser.module.modules() if isinstance(module, torch.nn.Conv2d))
    place.weight = torch.nn.Parameter(torch.zeros(place.weight.shape), requires_grad=False)
    with pytest.raises(RuntimeError):
        phases.drawing(model, blank_conditioning(model), SAMPLE, list(parts(model.pipeline).values()))


def test_only_small_things_are_made_outside_the_device(planner: Planner) -> None:
    """Teaching makes nothing on the CPU but recorded latents, noise levels and coefficients."""
    model: DiffusersModel = planner.model
    with counted([], torch.device("cpu")) as elsewhere:
        planner._teaching(SAMPLE, TRAIN, LORA)
    recorded = 4 * torch.Size(model.latent_shape()).numel() * (3 * SAMPLE.steps + 2) * SAMPLE.candidates
    assert 0 < elsewhere.peak < 4 * recorded


def test_more_takes_more_memory(planner: Planner) -> None:
    """Weights are the least; more rows, guidance, and a larger size take more; checkpointing and fewer layers less."""
    weights = sum(planner.weights.values())

    def teach(train: TrainSettings = TRAIN, lora: LoraSettings = LORA, sample: SampleSettings = SAMPLE) -> int:
        return planner.teaching(sample, train, lora).peak

    assert weights < planner.encoding() < planner.drawing(replace(SAMPLE, batch=1))[0] < planner.drawing(SAMPLE)[0]
    assert weights < teach(replace(TRAIN, checkpointing=True)) < teach() < teach(replace(TRAIN, guided_loss=True))
    assert teach(lora=LoraSettings(targets="attention")) < teach() < teach(lora=LoraSettings(rank=64))
    assert teach() < teach(replace(TRAIN, micro_batch=2)) < teach(replace(TRAIN, micro_batch=4))
    assert teach() < teach(sample=replace(SAMPLE, width=32, height=32))
    one = RewardSettings(micro_batch=1)
    assert planner.by_reward(SAMPLE, one, LORA).peak < planner.by_reward(SAMPLE, RewardSettings(), LORA).peak
    through = [planner.by_reward(SAMPLE, replace(one, variant="draft-k", last=k), LORA).peak for k in (1, 2, 4)]
    assert through == sorted(through)


def test_rows_of_an_update_come_in_as_many_passes_as_memory_asks(planner: Planner) -> None:
    """The trainer's own rule: half of what is free, in rows."""
    kept = planner.teaching(SAMPLE, TRAIN, LORA, ALLOWANCE + 1).kept
    held = planner.held

    def rows(free: float) -> int:
        size = planner.teaching(SAMPLE, TRAIN, LORA, ALLOWANCE + 1).lora
        return planner.teaching(SAMPLE, TRAIN, LORA, ALLOWANCE + (held + size + free) / GIB).rows

    assert [rows(2 * n * kept + 1000) for n in (1, 2, 3, 4, 9)] == [1, 2, 3, 4, 4]


MIB = (0.3, 0.6, 1, 2, 8)
"""Of cards as small as this model."""


def test_more_memory_asks_for_no_less(planner: Planner) -> None:
    """With more memory pictures are no smaller, layers no fewer, and no more is computed again."""
    found = [fit(planner, ALLOWANCE + mib / 1024, SAMPLE, TRAIN, LORA) for mib in MIB]
    assert found[0] is None and found[-1] is not None
    fitting = [each for each in found if each is not None]
    assert found == [None] * (len(found) - len(fitting)) + fitting
    rank = [
        (
            each.sample.width or 16,
            each.lora.targets == "auto",
            not each.train.checkpointing,
            each.dtype == "float32",
        )
        for each in fitting
    ]
    assert rank == sorted(rank) and len(set(rank)) > 1
    for each, mib in zip(found, MIB, strict=True):
        assert each is None or each.peak <= mib * 2**20


def test_rows_of_a_round() -> None:
    assert training_rows(SampleSettings(groups=2, candidates=4), TrainSettings(epochs=6), 4) == 4 * 2 * 4
    assert training_rows(SampleSettings(groups=2), TrainSettings(epochs=3, trained_steps=0), 5) == 3 * 2 * 4 * 5
    dpo = TrainSettings(method="diffusion-dpo", epochs=2, draws=3)
    assert training_rows(SampleSettings(groups=2), dpo, 0) == 2 * 2 * 4 * 3


def test_the_command(planner: Planner, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", planner.source, "--size", "16", "--dtype", "bfloat16"]) == 0
    printed = capsys.readouterr().out
    assert f"{planner.source}, 16 by 16 pixels, bfloat16, all parts in memory at once" in printed
    for work in ("reading a prompt", "drawing 8 at once", "decoding", "teaching (d3po)", "following a reward"):
        assert work in printed
    assert "2,560 steps of a picture, 5,120 evaluations of the network." in printed
    assert main(["plan", "--model", planner.source, "--memory", "8"]) == 0
    assert f"{planner.source} fits 8 GB with: the defaults" in capsys.readouterr().out


def test_a_card_that_is_too_small(planner: Planner, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", planner.source, "--memory", "1"]) == 0
    printed = capsys.readouterr().out
    assert (
        "Nothing fits 1 GB. At 16 by 16 it takes 1.1 GB (a card of 2 GB), with: --dtype bfloat16 --batch 1" in printed
    )


def test_a_sentence_for_the_studio(planner: Planner) -> None:
    text = short_plan(planner.source, SAMPLE, TRAIN, LORA)
    assert text.startswith("Memory: drawing 0.0") and " GB, teaching 0.0" in text


def test_a_prompt_has_to_be_read_too(monkeypatch: pytest.MonkeyPatch, planner: Planner) -> None:
    """Where only the text encoders are larger than a card, nothing fits it, and a plan says what would."""
    monkeypatch.setattr("d3po_core.planning.phases.encoding", lambda *_: 9 * GIB)
    read = Planner(planner.source)
    assert fit(read, 8, SAMPLE, TRAIN, LORA) is None
    fitting = fit(read, 12, SAMPLE, TRAIN, LORA)
    assert fitting is not None and fitting.peak == 9 * GIB
    assert "it takes 10.0 GB (a card of 12 GB)" in next(fitting_lines(read, 8, SAMPLE, TRAIN, LORA, ["float32"]))


def test_the_memory_of_a_card_is_rounded_up() -> None:
    assert [memory_for(peak * GIB) for peak in (0.001, 0.1, 1.11)] == [1.1, 1.1, 2.2]
    assert [card_for(peak * GIB) for peak in (0.001, 1.5, 4, 139.9, 141)] == [2, 4, 6, 141, None]


def test_lines_come_as_they_are_counted(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted already is shown before the next count, which may take long, is begun."""
    waiting = Planner(planner.source)
    monkeypatch.setattr(waiting, "drawing", lambda sample: pytest.fail("This was not asked for yet."))
    lines = plan_lines(waiting, SAMPLE, TRAIN, LORA, RewardSettings())
    assert "16 by 16" in next(lines)
    assert [next(lines) for _ in range(3)][-1].startswith("reading a prompt")


def test_a_model_that_was_written_anew_is_counted_anew(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_sd().save_pretrained(folder)
    short_plan(str(folder), SAMPLE, TRAIN, LORA)
    shutil.rmtree(folder)
    with pytest.raises(D3POError):
        short_plan(str(folder), SAMPLE, TRAIN, LORA)
