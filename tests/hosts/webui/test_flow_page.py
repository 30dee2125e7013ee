"""A flow model in Forge Neo's page: from txt2img to a LoRA in txt2img."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import flow_checkpoint
from .host import WebUI, apart
from .test_page import pick_brightest, tab, until, value


@pytest.fixture(scope="module")
def checkpoint(flow_folder: Path) -> Path:
    return flow_checkpoint.write(flow_folder, "flux")


@pytest.fixture
def page(browser: Any, webui: WebUI) -> Iterator[Any]:
    opened, wrong = browser.new_page(viewport={"width": 1400, "height": 1000}), []
    opened.on("console", lambda line: wrong.append(f"{line.text} {line.location}") if line.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(f"{error.message} {error.stack}"))
    opened.set_default_timeout(120_000)
    opened.goto(webui.address)
    opened.wait_for_selector("#txt2img_send_to_d3po")
    until(lambda: value(opened, "txt2img_scheduler") == "Beta")  # the preset's
    for field, number in (("steps", "4"), ("width", "64"), ("height", "64"), ("cfg_scale", "1"), ("seed", "3")):
        opened.fill(f"#txt2img_{field} input[type=number]", number)
        opened.keyboard.press("Tab")
    yield opened
    opened.close()
    assert [line for line in wrong if "d3po" in line.lower()] == []


def test_from_txt2img_to_a_lora_there(page: Any, webui: WebUI, tmp_path: Path) -> None:
    page.fill("#txt2img_prompt textarea", "a lake at dawn")
    page.fill("#txt2img_distilled_cfg_scale input[type=number]", "5")
    page.keyboard.press("Tab")
    page.click("#txt2img_send_to_d3po")
    until(lambda: value(page, "d3po_prompts"))
    assert (value(page, "d3po_flow_slider"), value(page, "d3po_flow_schedule")) == ("5", "Beta")
    assert not [line for line in page.locator("#d3po_notice li").all_inner_texts() if "schedule" in line]
    page.screenshot(path=str(tmp_path / "new.png"))
    page.locator("#d3po_more .label-wrap").click()
    page.fill("#d3po_train_epochs input", "2")
    page.keyboard.press("Tab")
    page.locator("#d3po_train_judge input").uncheck()  # a random model gives no evidence of a taste
    page.click("#d3po_begin")
    page.locator("d3po-gallery .frame img").first.wait_for()
    (taste,) = (each["id"] for each in webui.ask("/d3po/tastes")["tastes"])
    assert webui.probe("recorded_levels", taste=taste)[0] == pytest.approx(1)

    before = webui.draw("a lake at dawn", scheduler="Beta", cfg_scale=1.0, distilled_cfg_scale=5.0)
    pick_brightest(page, webui, 16)
    webui.ask(f"/d3po/taste/{taste}/teach", {})
    webui.until(taste, lambda state: state["rounds"] and state["rounds"][0]["finished"] and not state["work"])
    tab(page, "D3PO")
    until(lambda: page.locator("#d3po_use").is_enabled())
    page.click("#d3po_use")
    tag = until(lambda: value(page, "txt2img_prompt").partition("<")[2])
    taught = webui.draw(f"a lake at dawn <{tag}", scheduler="Beta", cfg_scale=1.0, distilled_cfg_scale=5.0)
    assert apart(taught, before) > 0
    again = webui.draw("a lake at dawn", scheduler="Beta", cfg_scale=1.0, distilled_cfg_scale=5.0)
    assert np.array_equal(again, before)
