"""What sampling into a run decides by itself: which groups are never trained on, and what is encoded when."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from d3po_core.app.sampling import is_held_out, sample_groups
from d3po_core.errors import D3POError
from d3po_core.run import Run
from d3po_core.settings import SampleSettings
from tests.toy import ToyModel


@pytest.mark.parametrize("share", [0.125, 0.2, 0.3, 0.37, 0.5])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_share_held_out_is_the_share_asked_for(share: float, seed: int) -> None:
    chosen = [number for number in range(2000) if is_held_out(number, share, seed)]
    assert abs(len(chosen) - 2000 * share) <= 1  # one in every 1 / share, so never more than one off
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert len(set(gaps)) > 1  # but nobody can tell which comes next
    assert max(gaps) <= 2 / share


def test_nothing_is_held_out_where_nothing_is_asked_for() -> None:
    assert not any(is_held_out(number, 0.0, 0) for number in range(100))


def test_a_prompt_is_encoded_once_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = ToyModel(), []
    encode = model.encode

    def counted(prompts, negative=""):  # type: ignore[no-untyped-def]
        asked.append(prompts)
        return encode(prompts, negative)

    monkeypatch.setattr(model, "encode", counted)
    run = Run.create(tmp_path / "run", name="run", model={"identity": "toy"}, settings={})
    settings = SampleSettings(groups=2, candidates=2, steps=4)
    for prompts in (["a", "b"], ["b", "a"], ["a", "c", "b"]):
        assert len(list(sample_groups(run, model, settings, prompts))) == 2  # type: ignore[arg-type]
    assert asked == [["a", "b"], ["c"]]


@pytest.mark.parametrize("part", ["text encoder", "network", "VAE"])
def test_what_overflows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """And no picture of it is kept; what was drawn before stays."""
    model = ToyModel()
    run = Run.create(tmp_path / "run", model={"identity": model.identity}, settings={})
    settings = SampleSettings(groups=1, candidates=2, steps=4, batch=2)
    list(sample_groups(run, model, settings, ["one"]))
    names = {"text encoder": "encode", "network": "sample", "VAE": "decode"}
    right = getattr(model, names[part])

    def overflowing(*given: Any) -> Any:
        made = right(*given)
        if part == "VAE":
            return made / 0 - made / 0
        if part == "network":
            return dataclasses.replace(made, latents=made.latents + float("inf"))
        return [{name: value * float("nan") for name, value in row.items()} for row in made]

    monkeypatch.setattr(model, names[part], overflowing)
    with pytest.raises(D3POError, match=f"numbers of the model's {part} overflowed"):
        list(sample_groups(run, model, settings, ["two"]))
    assert len(run.groups.select()) == 1


def test_one_broken_picture_of_a_batch_leaves_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups are decoded in one call; the last picture of the second is broken."""
    model = ToyModel()
    run = Run.create(tmp_path / "run", model={"identity": model.identity}, settings={})
    settings = SampleSettings(groups=2, candidates=2, steps=4, batch=4)
    list(sample_groups(run, model, settings, ["one"]))
    right = model.decode

    def breaking(latents: Tensor) -> Tensor:
        images = right(latents)
        assert len(images) == 4
        images[3, 1, 0, 0] = float("inf")
        return images

    monkeypatch.setattr(model, "decode", breaking)
    with pytest.raises(D3POError, match="VAE overflowed"):
        list(sample_groups(run, model, settings, ["one"]))
    assert len(run.groups.select()) == 2
