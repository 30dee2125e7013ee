"""SDXL in the web UIs: two text encoders, a vector of pooled text and sizes, and the sgm names of layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .host import WebUI, apart, pixels


@pytest.fixture(scope="module")
def checkpoint(sdxl: Path) -> Path:
    return sdxl


@pytest.mark.parametrize("prompt", ["a lake", "a (lake:1.4)"])
def test_pictures_are_the_hosts(webui: WebUI, prompt: str) -> None:
    ours = pixels(webui.probe("picture", prompt=prompt, seed=3, steps=4))
    assert apart(ours, webui.draw(prompt, steps=4)) <= 1
    assert apart(ours, webui.draw("something else", steps=4)) > 5


def test_the_host_puts_on_every_layer_of_a_lora(webui: WebUI) -> None:
    folder = webui.data / "models" / "Lora"
    folder.mkdir(exist_ok=True)
    base = webui.draw("a lake", steps=4)
    for targets in ("attention", "all"):
        lora = folder / f"random-{targets}.safetensors"
        webui.probe("random_lora", file=str(lora), targets=targets)
        ours = pixels(webui.probe("picture", prompt="a lake", seed=3, steps=4, lora=str(lora)))
        with_it = webui.draw(f"a lake <lora:{lora.stem}:1>", steps=4)
        assert apart(with_it, base) > 5 and apart(with_it, ours) <= 1
    assert np.array_equal(webui.draw("a lake", steps=4), base)


def test_gradients_are_those_of_finite_differences(webui: WebUI) -> None:
    slopes = webui.probe("gradient", prompt="a lake", sigma=3.0)
    assert slopes["autograd"] == pytest.approx(slopes["differences"], rel=0.02)


def test_a_taste_is_drawn_for_its_size(webui: WebUI) -> None:
    sample = {"steps": 4, "candidates": 2, "width": 64, "height": 128}
    taste = webui.probe("begin", prompts=["a lake"], sample=sample)
    webui.ask(f"/d3po/taste/{taste}/draw", {"groups": 1})
    webui.until(taste, lambda state: state["groups"]["waiting"] and not state["work"])
    told = webui.probe("recorded_with_text", taste=taste)
    assert told == webui.probe("told_with_text", prompt="a lake", width=64, height=128)
    assert told != webui.probe("told_with_text", prompt="a lake", width=1024, height=1024)
