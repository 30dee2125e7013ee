"""What the web UIs' networks predict through us and by themselves, and that they are left as they were.

The first test comes first on purpose: nobody has drawn anything, and Forge has no model yet.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from install import warning

from .host import WebUI, apart, pixels

SAMPLE = {"steps": 4, "candidates": 2, "width": 64, "height": 64, "held_out": 0.0}
PROMPTS = ["a lake at dawn", "a hill"]


@pytest.fixture(scope="module")
def loras(webui: WebUI) -> dict[str, Path]:
    """LoRAs of ours with random weights, where the host finds them, by the layers that they change."""
    folder = webui.data / "models" / "Lora"
    folder.mkdir(exist_ok=True)
    found = {}
    for targets in ("attention", "all"):
        found[targets] = folder / f"random-{targets}.safetensors"
        assert webui.probe("random_lora", file=str(found[targets]), targets=targets) > 10
    return found


def test_the_model_is_there_when_it_is_first_wanted(webui: WebUI) -> None:
    assert np.isfinite(webui.probe("prediction", prompt="a lake", sigma=3.0)).all()


@pytest.mark.parametrize("prompt", ["a lake", "a (lake:1.4) and [a hill]", "a lake, " * 30])
def test_pictures_are_the_hosts(webui: WebUI, prompt: str) -> None:
    ours = pixels(webui.probe("picture", prompt=prompt, seed=3, steps=6))
    assert apart(ours, webui.draw(prompt)) <= 1
    assert apart(ours, webui.draw("something else")) > 20


def test_the_host_has_every_function_as_we_call_it(webui: WebUI) -> None:
    assert webui.probe("differing") == []
    assert len(webui.probe("differing", more=9)) > 20  # so they are looked at
    said = webui.probe("refused", function="modules.progress:start_task")
    assert "does not know this version of the web UI: start_task changed." in said


@pytest.mark.parametrize("decodes", [False, True], ids=["picks", "reward"])
def test_the_taught_network_stays_on_a_large_card(webui: WebUI, decodes: bool) -> None:
    before = webui.draw("a lake")
    assert webui.probe("share_on_card", free=20 * 2**30, decodes=decodes) == 1
    if webui.forge:  # A1111 fetches nothing anew
        assert webui.probe("share_on_card", free=2**30, decodes=decodes) < 0.5
    assert np.array_equal(webui.draw("a lake"), before)


def test_advice_names_options_that_the_host_has(webui: WebUI) -> None:
    named = re.findall(r"--[\w-]+", " ".join([*webui.probe("advice"), warning("1.13.1")]))
    assert len(named) == 3
    assert [name for name in named if not webui.has_option(name)] == []


def test_where_there_is_no_checkpoint_that_is_said(webui: WebUI) -> None:
    assert webui.probe("without_checkpoint") in (None, "No checkpoint is loaded. Choose one at the top of the page.")


def test_an_error_in_training_leaves_the_host_as_it_was(webui: WebUI) -> None:
    before, network, weights = webui.draw("a lake"), webui.probe("network"), webui.probe("weights")
    assert webui.probe("fail_in_training") == "as planned"
    assert np.array_equal(webui.draw("a lake"), before)
    assert (webui.probe("network"), webui.probe("weights")) == (network, weights)


def test_names_in_every_folder_of_loras_are_taken(webui: WebUI, loras: dict[str, Path]) -> None:
    if not webui.has_option("--lora-dirs"):
        pytest.skip("this host has one folder of LoRAs")
    elsewhere = webui.more_loras / "elsewhere.safetensors"
    shutil.copyfile(loras["all"], elsewhere)
    assert {"elsewhere", loras["all"].stem} <= set(webui.probe("lora_names"))
    assert np.array_equal(webui.draw("a lake <lora:elsewhere:1>"), webui.draw(f"a lake <lora:{loras['all'].stem}:1>"))


def test_clip_skip_is_the_users(webui: WebUI) -> None:
    before = webui.draw("a lake")
    webui.ask("/sdapi/v1/options", {"CLIP_stop_at_last_layers": 3})
    try:
        skipped = webui.draw("a lake")
        assert apart(skipped, before) > 5
        assert apart(pixels(webui.probe("picture", prompt="a lake", seed=3, steps=6)), skipped) <= 1
    finally:
        webui.ask("/sdapi/v1/options", {"CLIP_stop_at_last_layers": 1})
    assert np.array_equal(webui.draw("a lake"), before)


def test_noise_levels_are_the_users(webui: WebUI) -> None:
    before = webui.draw("a lake")
    webui.ask("/sdapi/v1/options", {"sd_noise_schedule": "Zero Terminal SNR"})
    try:
        rescaled = webui.draw("a lake")
        assert apart(rescaled, before) > 5
        assert apart(pixels(webui.probe("picture", prompt="a lake", seed=3, steps=6)), rescaled) <= 1
    finally:
        webui.ask("/sdapi/v1/options", {"sd_noise_schedule": "Default"})
    assert apart(webui.draw("a lake"), before) <= 1  # Forge itself rounds its levels when it puts them back


def test_a_refiner_is_not_taken_for_the_model(webui: WebUI) -> None:
    before = webui.probe("prediction", prompt="a lake", sigma=3.0)
    (name,) = [found["title"] for found in webui.ask("/sdapi/v1/sd-models") if found["model_name"] == "refiner"]
    webui.draw("a lake", refiner_checkpoint=name, refiner_switch_at=0.5)
    assert webui.probe("prediction", prompt="a lake", sigma=3.0) == before
    assert webui.probe("model") == "sd15"


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_the_host_puts_on_every_layer_of_a_lora(webui: WebUI, loras: dict[str, Path], targets: str) -> None:
    lora = loras[targets]
    base, without = webui.draw("a lake"), webui.draw(f"a lake <lora:{lora.stem}:0>")
    with_it = webui.draw(f"a lake <lora:{lora.stem}:1>")
    ours = pixels(webui.probe("picture", prompt="a lake", seed=3, steps=6, lora=str(lora)))
    assert np.array_equal(base, without)
    assert apart(with_it, base) > 10
    assert apart(with_it, ours) <= 1
    assert np.array_equal(webui.draw("a lake"), base)


def test_a_users_lora_stays_out_of_ours_and_comes_back(webui: WebUI, loras: dict[str, Path]) -> None:
    tagged = f"a lake <lora:{loras['all'].stem}:1>"
    plain = webui.probe("prediction", prompt="a lake", sigma=3.0)
    with_it = webui.draw(tagged)
    assert webui.probe("prediction", prompt="a lake", sigma=3.0) == plain
    assert np.array_equal(webui.draw(tagged), with_it)
    assert webui.probe("prediction", prompt="a lake", sigma=3.0) == plain


@pytest.mark.parametrize("sigma", [8.0, 1.0])
def test_gradients_are_those_of_finite_differences(webui: WebUI, loras: dict[str, Path], sigma: float) -> None:
    webui.draw(f"a lake <lora:{loras['all'].stem}:1>")  # some hosts make their weights anew
    slopes = webui.probe("gradient", prompt="a lake", sigma=sigma)
    assert slopes["autograd"] == pytest.approx(slopes["differences"], rel=0.02)


def test_checkpointing_changes_no_gradient(webui: WebUI) -> None:
    slopes = [webui.probe("gradient", prompt="a lake", sigma=3.0, checkpointing=on) for on in (False, True)]
    assert slopes[1]["autograd"] == pytest.approx(slopes[0]["autograd"], rel=1e-5)
    assert slopes[1]["kept"] < 0.7 * slopes[0]["kept"]  # bytes that wait for the backward pass


def test_kinds_of_models_that_are_taught(webui: WebUI) -> None:
    found = webui.probe("predicted_kinds")
    known = {"noise": "epsilon", "v": "v_prediction", "edm": None, "flow": None, "discrete flow": None}
    assert found == {name: known[name] for name in found}
    assert {"noise", "v", "flow"} <= set(found) if webui.forge else not found


def teaching(state: dict[str, Any]) -> int:
    """Updates that were done, if it is being taught."""
    work = state["work"] or {}
    return int(work["done"]) if work.get("kind") == "teaching" else 0


def test_interrupt_and_go_on(webui: WebUI, loras: dict[str, Path]) -> None:
    tagged = f"a lake <lora:{loras['attention'].stem}:1>"
    with_it, network = webui.draw(tagged), webui.probe("network")
    taste = webui.probe("begin", prompts=PROMPTS, sample=SAMPLE, train={"epochs": 30, "judge": False})
    webui.ask(f"/d3po/taste/{taste}/draw", {"groups": 20})
    webui.picks(taste, 20)
    picked = webui.until(taste, lambda state: not state["work"])["picks"]
    webui.ask(f"/d3po/taste/{taste}/teach", {})
    done = teaching(webui.until(taste, lambda state: teaching(state) > 3))
    webui.ask("/sdapi/v1/interrupt", {})
    asked = time.monotonic()
    state = webui.until(taste, lambda state: not state["work"])
    took = time.monotonic() - asked
    print(f"interrupted within {took:.2f} s")
    assert took <= 3
    assert state["picks"]["usable"] == picked["usable"] >= 16 and "teach" in state["can"]
    assert np.array_equal(webui.draw(tagged), with_it)
    assert webui.probe("network") == network
    webui.ask(f"/d3po/taste/{taste}/teach", {})
    assert teaching(webui.until(taste, teaching)) >= done  # from where it was
    webui.ask(f"/d3po/taste/{taste}/stop", {})
    webui.until(taste, lambda state: not state["work"])
    assert np.array_equal(webui.draw(tagged), with_it)
    assert webui.probe("network") == network
