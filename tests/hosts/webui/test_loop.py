"""The whole loop in a real web UI, in its page: begin, pick, teach, use the LoRA. The first of these tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from .host import WebUI, apart, pixels


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    found = browser.new_page(viewport={"width": 1400, "height": 1000})
    yield found
    found.close()


def begun(page: Any, webui: WebUI) -> str:
    """A taste begun by hand in the tab; its id."""
    page.goto(webui.address)
    page.wait_for_selector("#txt2img_prompt textarea", timeout=60_000)
    page.locator("#tabs > .tab-nav > button", has_text="D3PO").click()
    page.locator("#tab_d3po .tab-nav button", has_text="New taste").click()
    page.fill("#d3po_prompts textarea", "a lake at dawn\na hill")
    page.fill("#d3po_sample_steps input", "4")
    page.locator("#tab_d3po .label-wrap").first.click()
    for side in ("width", "height"):
        page.fill(f"#d3po_sample_{side} input", "64")
    page.keyboard.press("Tab")
    page.click("#d3po_begin")
    page.locator("d3po-gallery").wait_for(state="attached", timeout=60_000)
    (taste,) = webui.ask("/d3po/tastes")["tastes"]
    return str(taste["id"])


def test_begin_pick_teach_and_generate(webui: WebUI, page: Any) -> None:
    before = webui.draw("a lake")
    run = begun(page, webui)

    def state() -> dict[str, Any]:
        return webui.state(run)

    page.locator("#tab_d3po .tab-nav button").first.click()
    page.locator("d3po-gallery img").first.wait_for(timeout=60_000)
    page.locator("d3po-gallery").click(position={"x": 200, "y": 20})
    deadline = time.monotonic() + 400
    while (picked := state()["picks"]["usable"]) < 20:
        assert time.monotonic() < deadline, picked
        page.keyboard.press("1")
        page.wait_for_timeout(300)
    page.close()

    webui.ask(f"/d3po/taste/{run}/teach", {})
    deadline = time.monotonic() + 600
    while not ((told := state())["rounds"] and told["rounds"][0]["finished"] and not told["work"]):
        assert time.monotonic() < deadline and not told["problem"], told
        time.sleep(0.5)
    learnt = "left as it was" not in told["rounds"][0]["reason"]  # picks by one key may say nothing
    assert not learnt or told["blind"]["of"] == 12
    assert np.array_equal(webui.draw("a lake"), before)  # the host is as it was
    (lora,) = (webui.data / "models" / "Lora" / "d3po").glob("*.safetensors")
    assert lora.with_suffix(".json").is_file()
    assert np.array_equal(webui.draw(f"a lake <lora:{lora.stem}:0>"), before)
    taught = webui.draw(f"a lake <lora:{lora.stem}:1>")
    if learnt:
        assert apart(taught, before) > 0
    assert apart(taught, pixels(webui.probe("picture", prompt="a lake", seed=3, steps=6, lora=str(lora)))) <= 1
    assert np.array_equal(webui.draw("a lake"), before)


def test_a_taste_goes_on_after_a_restart(webui: WebUI) -> None:
    (taste,) = webui.ask("/d3po/tastes")["tastes"]
    (lora,) = (webui.data / "models" / "Lora" / "d3po").glob("*.safetensors")
    before, tagged = webui.state(taste["id"]), f"a lake <lora:{lora.stem}:1>"
    taught = webui.draw(tagged)
    webui.restart()
    assert [each["id"] for each in webui.ask("/d3po/tastes")["tastes"]] == [taste["id"]]
    after = webui.state(taste["id"])
    assert after["picks"] == before["picks"] and after["rounds"] == before["rounds"]
    assert np.array_equal(webui.draw(tagged), taught)
    webui.ask(f"/d3po/taste/{taste['id']}/draw", {"groups": 1})
    drawn = before["groups"]["drawn"]
    webui.until(taste["id"], lambda state: state["groups"]["drawn"] > drawn and not state["work"])
    assert np.array_equal(webui.draw(tagged), taught)
