"""What sampling into a run decides by itself: which groups are never trained on, and what is encoded when."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from d3po_core.app.sampling import is_held_out, sample_groups
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
