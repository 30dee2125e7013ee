"""Teaching by a reward in a real web UI: gradients through its own VAE, and a round begun in the tab. It is left as it
was, weight by weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .host import WebUI, apart, pixels
from .test_host import PROMPTS, SAMPLE


@pytest.mark.parametrize("reward", ["warmth", "2*contrast + 0.5*warmth"])
def test_a_rewards_gradient_reaches_every_matrix(webui: WebUI, reward: str) -> None:
    picture, weights = webui.draw("a lake"), webui.probe("weights")
    slopes = webui.probe("reward_gradient", prompt="a lake", reward=reward)
    print(f"{reward}: {slopes}")
    assert slopes["reached"] == slopes["of"] > 10
    assert slopes["autograd"] == pytest.approx(slopes["differences"], rel=0.02)
    assert webui.probe("weights") == weights
    assert np.array_equal(webui.draw("a lake"), picture)


def test_saving_memory_changes_no_gradient(webui: WebUI) -> None:
    picture = webui.draw("a lake")
    slopes = [
        webui.probe("reward_gradient", prompt="a lake", reward="warmth", checkpointing=on)["autograd"]
        for on in (False, True)
    ]
    assert slopes[1] == pytest.approx(slopes[0], rel=1e-4)
    assert np.array_equal(webui.draw("a lake"), picture)


def test_pictures_go_in_and_out_as_in_the_host(webui: WebUI) -> None:
    found = webui.probe("coded", seed=3)
    assert found["picture"] < 1e-3
    assert found["off"] < 0.5 * found["noise"] + 1e-4  # the mean of 32 draws; their own mean is off by .14


@pytest.fixture
def page(browser: Any) -> Any:
    found = browser.new_page(viewport={"width": 1400, "height": 1000})
    yield found
    found.close()


def test_a_round_is_begun_in_the_tab(webui: WebUI, page: Any) -> None:
    before, network, weights = webui.draw("a lake"), webui.probe("network"), webui.probe("weights")
    taste = webui.probe("begin", prompts=PROMPTS, sample=SAMPLE)
    page.goto(webui.address)
    page.wait_for_selector("#txt2img_prompt textarea", timeout=60_000)
    page.locator("#tabs > .tab-nav > button", has_text="D3PO").click()
    page.locator("#tab_d3po .tab-nav button", has_text="Other ways to teach").click()
    page.locator("#d3po_reward_ready label", has_text="Warm colours").click()
    page.wait_for_function("document.querySelector('#d3po_reward').querySelector('input, textarea').value === 'warmth'")
    page.fill("#d3po_reward_updates input", "3")
    page.keyboard.press("Tab")
    page.click("#d3po_reward_begin")
    page.locator("#d3po_reward_open", has_text="It has begun").first.wait_for(timeout=60_000)
    page.close()

    told = webui.until(taste, lambda state: any(round["finished"] for round in state["rounds"]), 500)
    webui.ask(f"/d3po/taste/{taste}/stop", {})  # pictures of before and after would take long
    webui.until(taste, lambda state: not state["work"])
    assert told["rounds"][0]["reward"] == "warmth" and told["rounds"][0]["details"]["reward"] is not None
    assert np.array_equal(webui.draw("a lake"), before)
    assert (webui.probe("network"), webui.probe("weights")) == (network, weights)
    (lora,) = (webui.data / "models" / "Lora" / "d3po").glob("*.safetensors")
    with_it = webui.draw(f"a lake <lora:{lora.stem}:1>")
    assert apart(with_it, pixels(webui.probe("picture", prompt="a lake", seed=3, steps=6, lora=str(lora)))) <= 1
    assert np.array_equal(webui.draw("a lake"), before)
