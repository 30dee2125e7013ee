"""What the D3PO tab does in a web UI's own page, by hand: from txt2img, and back to it. One host for all of these."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .host import WebUI, apart, pixels

PROMPT = "masterpiece, (a lake:1.2) at dawn,\n<lora:nothing:0.7> [cat:dog:0.5] mist"
QUICK = {"sample_candidates": "2", "sample_steps": "3", "sample_guidance_scale": "1", "train_epochs": "1"}
"""Settings of the taste with which some hundred pictures take a minute or two on two cores."""
BRIGHTEST = """() => {
  const gallery = document.querySelector("d3po-gallery");
  const light = (image) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [8, 8];
    const room = canvas.getContext("2d");
    room.drawImage(image, 0, 0, 8, 8);
    return room.getImageData(0, 0, 8, 8).data.reduce((sum, value) => sum + value);
  };
  const lights = [...gallery.shadowRoot.querySelectorAll(".pick:not([hidden]) .frame img")]
    .filter((image) => image.offsetParent).map(light);
  return lights.indexOf(Math.max(...lights)) + 1;
}"""
"""Which of the pictures that are shown is the brightest, counted from 1; 0 while there is none."""

PIXELS = """async (image) => {
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL();
}"""


@pytest.fixture(scope="module")
def page(browser: Any, webui: WebUI) -> Iterator[Any]:
    """The host's page, with the small pictures that all of these tests draw; in the end no mistake of ours is told."""
    found, wrong = browser.new_page(viewport={"width": 1400, "height": 1000}), []
    found.on("console", lambda said: wrong.append(f"{said.text} {said.location}") if said.type == "error" else None)
    found.on("pageerror", lambda error: wrong.append(f"{error.message} {error.stack}"))
    found.set_default_timeout(120_000)
    found.goto(webui.address)
    found.wait_for_selector("#txt2img_send_to_d3po")
    found.wait_for_timeout(1000)
    for field, value in (("steps", "4"), ("width", "64"), ("height", "64"), ("cfg_scale", "5.5"), ("seed", "3")):
        found.fill(f"#txt2img_{field} input[type=number]", value)
        found.keyboard.press("Tab")
    yield found
    found.close()
    assert [told for told in wrong if "d3po" in told.lower()] == []


def until(true: Callable[[], Any], seconds: float = 600) -> Any:
    """What it says as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)
    return found


def tab(page: Any, name: str, inner: str = "") -> None:
    """Open a tab of the host, and one inside ours."""
    page.locator("#tabs > .tab-nav > button", has_text=name).first.click()
    if inner:
        page.locator("#tab_d3po .tab-nav button", has_text=inner).first.click()


def value(page: Any, field: str) -> str:
    return str(page.locator(f"#{field} textarea, #{field} input").first.input_value())


def taste(webui: WebUI) -> str:
    return str(webui.ask("/d3po/tastes")["tastes"][0]["id"])


def gallery_focus(page: Any) -> None:
    page.locator("d3po-gallery").evaluate("gallery => gallery.focus()")


def pick_brightest(page: Any, webui: WebUI, picks: int) -> None:
    """Until there are so many."""
    gallery_focus(page)
    run = taste(webui)

    def one() -> bool:
        if at := page.evaluate(BRIGHTEST):
            page.wait_for_timeout(200)  # input counts a moment after a group has come
            page.keyboard.press(str(at))
        return bool(webui.state(run)["picks"]["usable"] >= picks)

    until(one)


def begin_meanwhile(page: Any) -> None:
    """A new taste waits for one that is being taught, and says so at once; then that this one cannot be begun."""
    tab(page, "D3PO", "New taste")
    page.fill("#d3po_sample_width input", "65")
    page.keyboard.press("Tab")
    page.click("#d3po_begin")
    page.get_by_text("Another taste is being taught").wait_for()
    page.get_by_text("cannot be drawn. Choose multiples of 8.").wait_for(timeout=600_000)
    tab(page, "D3PO", "Pick and teach")


def teach(page: Any) -> None:
    """By the button."""
    page.locator("d3po-gallery [data-view=teach]").click()
    page.locator("d3po-gallery [data-action=teach]").click()


def taught(webui: WebUI) -> dict[str, Any]:
    """What is told when the first round is done, and its pictures are drawn."""

    def told() -> dict[str, Any] | None:
        found = webui.state(taste(webui))
        assert not found["problem"], found["problem"]
        done = found["rounds"] and found["rounds"][0]["finished"]
        return found if done and (found["work"] or {}).get("kind") in (None, "drawing") else None

    return dict(until(told))


def loras(webui: WebUI) -> list[Path]:
    """The newest first."""
    found = (webui.data / "models" / "Lora" / "d3po").glob("*.safetensors")
    return sorted(found, key=lambda path: -path.stat().st_mtime_ns)


def generated(page: Any, prompt: str) -> np.ndarray:
    """A picture's pixels, by the page's own button."""
    tab(page, "txt2img")
    page.fill("#txt2img_prompt textarea", prompt)
    image = page.locator("#txt2img_gallery img").first
    before = image.get_attribute("src") if image.count() else None
    page.click("#txt2img_generate")
    until(lambda: image.count() and image.get_attribute("src") != before)
    page.locator("#txt2img_interrupt").wait_for(state="hidden")
    return pixels(image.evaluate(PIXELS).partition(",")[2])


# These build on each other, in this order: a page is worked in as a person does.


def test_txt2img_sends_its_prompts_and_settings(page: Any, webui: WebUI) -> None:
    page.fill("#txt2img_prompt textarea", PROMPT)
    page.fill("#txt2img_neg_prompt textarea", "blurry")
    page.locator("#txt2img_hr .label-wrap").click()
    page.wait_for_timeout(300)
    page.click("#txt2img_send_to_d3po")
    until(lambda: value(page, "d3po_prompts"))
    assert page.locator("#d3po_begin").is_visible()
    assert value(page, "d3po_prompts") == "masterpiece, (a lake:1.2) at dawn, [cat:dog:0.5] mist"
    assert value(page, "d3po_sample_negative") == "blurry"
    assert value(page, "d3po_name") == "a lake at dawn"
    sizes = [value(page, f"d3po_sample_{field}") for field in ("steps", "width", "height", "guidance_scale")]
    assert sizes == ["4", "64", "64", "5.5"]
    left = page.locator("#d3po_notice li").all_inner_texts()
    assert {"<lora:nothing:0.7>", "[cat:dog:0.5] (read as plain words)", "Hires. fix", "seed"} <= set(left)
    assert not {"Refiner", "batch count", "seed variation"} & set(left)
    tab(page, "txt2img")
    page.locator("#txt2img_hr .label-wrap").click()


def test_begin_leads_to_the_pictures(page: Any, webui: WebUI) -> None:
    tab(page, "D3PO", "New taste")
    page.fill("#d3po_prompts textarea", "a lake at dawn\na hill")
    page.locator("#d3po_more .label-wrap").click()
    for field, value in QUICK.items():
        page.fill(f"#d3po_{field} input:not([type=range])", value)
        page.keyboard.press("Tab")
    page.locator("#d3po_train_judge input").uncheck()  # a random model gives no evidence of a taste
    page.click("#d3po_begin")
    page.locator("d3po-gallery .frame img").first.wait_for()
    assert [found["name"] for found in webui.ask("/d3po/tastes")["tastes"]] == ["a lake at dawn"]
    assert page.locator("#d3po_use").is_disabled()  # nothing was taught yet


def test_the_hosts_keys_work_in_the_tab(page: Any, webui: WebUI) -> None:
    run = taste(webui)
    until(lambda: not webui.state(run)["work"])
    until(lambda: not page.locator("#d3po_interrupt").is_visible())
    before = webui.state(run)["groups"]["drawn"]
    gallery_focus(page)
    page.keyboard.press("Control+Enter")
    page.locator("#d3po_interrupt").wait_for()
    page.locator("#tab_d3po .progressDiv").wait_for()  # the host's own progress bar
    page.keyboard.press("Space")  # looks closer for as long as it is held; Escape ends that and no work
    page.keyboard.down("Space")
    page.keyboard.press("Escape")
    page.keyboard.up("Space")
    page.wait_for_timeout(300)
    assert webui.state(run)["work"]
    page.locator("#d3po_top").click(position={"x": 2, "y": 2})
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Escape")
    until(lambda: not webui.state(run)["work"], 20)
    drawn = webui.state(run)["groups"]["drawn"]
    assert before <= drawn < before + 8
    page.keyboard.press("Control+Enter")
    page.locator("#d3po_skip").wait_for()
    page.keyboard.press("Alt+Enter")
    until(lambda: not webui.state(run)["work"], 20)
    assert webui.state(run)["groups"]["drawn"] < drawn + 8


def test_a_host_whose_progress_cannot_be_asked_is_not_asked_on_and_on(page: Any, webui: WebUI) -> None:
    asked: list[Any] = []
    page.route("**/internal/progress", lambda route: (asked.append(route), route.abort()))
    with page.expect_request("**/internal/progress"):
        page.click("#d3po_generate")
    page.wait_for_timeout(3000)
    assert 1 <= len(asked) <= 3
    page.unroute("**/internal/progress")


def test_picks_become_a_lora_and_a_card(page: Any, webui: WebUI) -> None:
    pick_brightest(page, webui, 20)
    teach(page)
    begin_meanwhile(page)
    assert "left as it was" not in taught(webui)["rounds"][0]["reason"]
    (lora,) = loras(webui)
    card = page.locator(f"#txt2img_lora_cards .card[data-name='{lora.stem}']")
    card.wait_for(state="attached")  # without a press on refresh
    assert card.locator("img.preview").count() == 1
    written = json.loads(lora.with_suffix(".json").read_text())
    assert written["description"].startswith("The taste a lake at dawn") and written["sd version"] == "SD1"


def test_the_blind_check_and_a_gentler_lora(page: Any, webui: WebUI) -> None:
    run = taste(webui)
    page.locator("d3po-gallery [data-action=blind]").click()
    for done in range(12):
        until(lambda done=done: webui.state(run)["blind"]["done"] == done)
        page.locator("d3po-gallery .blind .frame img").first.wait_for()
        page.wait_for_timeout(300)
        page.keyboard.press("1")
    offered = webui.state(run)["rounds"][0]["gentler"][0]["strength"]
    page.locator("d3po-gallery [data-action=gentler]").click()
    until(lambda: webui.state(run)["blind"]["decision"] == "gentler")
    newest = until(lambda: len(found := loras(webui)) == 2 and found[0])
    assert newest.stem.endswith(f"-{offered:.0%}".rstrip("%")) and newest.with_suffix(".png").is_file()
    page.locator(f"#txt2img_lora_cards .card[data-name='{newest.stem}']").wait_for(state="attached")
    tab(page, "D3PO", "Compare")
    page.fill("#d3po_compare textarea", "a lake")
    page.locator("#d3po_compare button", has_text="Draw before and after").click()
    page.locator("#d3po_compare .grid-container img, #d3po_compare .thumbnails img").nth(7).wait_for(state="attached")


def test_the_lora_goes_into_txt2img_and_draws(page: Any, webui: WebUI) -> None:
    older, newest = loras(webui)[1], loras(webui)[0]
    without = generated(page, "a lake")
    page.fill("#txt2img_prompt textarea", f"a lake <lora:{older.stem}:0.5> <lora:another:1>")
    tab(page, "D3PO")
    page.click("#d3po_use")
    until(lambda: newest.stem in value(page, "txt2img_prompt"))
    strength = webui.state(taste(webui))["rounds"][0]["strength"]
    assert value(page, "txt2img_prompt") == f"a lake <lora:{newest.stem}:{strength:g}> <lora:another:1>"
    assert page.locator("#txt2img_generate").is_visible()
    with_it = generated(page, f"a lake <lora:{newest.stem}:1>")
    assert apart(with_it, without) > 8
    assert apart(generated(page, "a lake"), without) <= 1  # Forge's own pages, without us, differ by as much


def test_starred_loras_are_kept(page: Any, webui: WebUI) -> None:
    tab(page, "D3PO", "Files")
    older = loras(webui)[1]
    page.locator("#d3po_kept label", has_text=older.stem).last.locator("input").check()
    until(lambda: json.loads(older.with_suffix(".json").read_text())["starred"])


def test_our_page_of_settings(page: Any, webui: WebUI) -> None:
    tab(page, "Settings")
    page.locator("#settings button", has_text="D3PO").first.click()
    page.fill("#setting_d3po_kept input[type=number]", "1")
    page.keyboard.press("Tab")
    page.locator("#setting_d3po_folder").wait_for()
    page.click("#settings_submit")
    kept_file = webui.data / "config.json"  # the Forge family's API tells only settings that it knew before extensions
    until(lambda: kept_file.is_file() and json.loads(kept_file.read_text() or "{}").get("d3po_kept") == 1, 60)
    gentler, starred = (lora.stem for lora in loras(webui))
    tab(page, "D3PO", "Pick and teach")
    page.locator("d3po-gallery [data-view=pick]").click()
    pick_brightest(page, webui, webui.state(taste(webui))["picks"]["usable"] + 6)
    teach(page)
    kept = until(lambda: gentler not in (names := [lora.stem for lora in loras(webui)]) and names)
    assert starred in kept and len(kept) == 2  # usually three rounds' stay
