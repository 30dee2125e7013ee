"""The panels of other ways to teach and of bringing pictures, in the Studio's page in a real browser."""

from __future__ import annotations

import shutil
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3po_core.app.runs import train_settings
from d3po_core.lora import load_lora
from d3po_core.run import RoundSummary, Run, policy_id
from d3po_core.run.run import RunLibrary
from d3po_panels.worker import Worker
from d3po_studio.host import StudioHost
from tests.panels.test_by_reward import taught
from tests.panels.test_worker import until

pytest.importorskip("gradio", reason="gradio comes with the standalone extra")


@pytest.fixture
def page(browser: Any, host: StudioHost, run: Run, fewer_pictures: None, tmp_path: Path) -> Iterator[Any]:
    import uvicorn

    from d3po_studio.app import make_app

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    worker = Worker(host).start()
    server = uvicorn.Server(uvicorn.Config(make_app(run.folder.parent, worker, port), "127.0.0.1", port))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    found = browser.new_page(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
    found.set_default_timeout(60_000)
    found.goto(f"http://127.0.0.1:{port}/")
    found.worker = worker
    yield found
    found.screenshot(path=str(tmp_path / "page.png"))
    found.close()
    worker.close()
    server.should_exit = True
    thread.join()


def open_tab(page: Any, name: str) -> None:
    page.locator("d3po-gallery").first.wait_for(state="attached")  # by then the list has its taste
    page.get_by_role("tab", name=name, exact=True).click()


def toast(page: Any, text: str) -> None:
    page.locator("[data-testid=toast-body]", has_text=text).first.wait_for()


def test_a_method_is_kept_and_a_reward_teaches(page: Any, run: Run, tmp_path: Path) -> None:
    open_tab(page, "Other ways to teach")
    page.locator("#d3po_method label", has_text="diffusion-nft").click()
    page.locator("#d3po_method_needs", has_text="This taste's next round is taught by diffusion-nft").wait_for()
    assert train_settings(Run.open(run.folder)).method == "diffusion-nft"

    page.locator("#d3po_reward input, #d3po_reward textarea").fill("jpeg")
    page.click("#d3po_reward_begin")
    toast(page, "There is no reward called 'jpeg'")
    page.click("#d3po_say")
    toast(page, "16 are needed")

    page.locator("#d3po_reward_ready label", has_text="Warm colours").click()
    page.wait_for_function("document.querySelector('#d3po_reward').querySelector('input, textarea').value === 'warmth'")
    page.locator("#d3po_reward_updates input").fill("2")
    page.keyboard.press("Tab")
    page.screenshot(path=str(tmp_path / "others.png"), full_page=True)
    page.click("#d3po_reward_begin")
    page.locator("#d3po_reward_open", has_text="It has begun").first.wait_for()
    until(lambda: taught(page.worker, run), 200)
    tensors, _ = load_lora(run.folder / run.rounds.all()[0].lora_file)
    assert any(value.any() for value in tensors.values()) and run.rounds.all()[0].settings["reward"]["updates"] == 2

    page.reload()
    open_tab(page, "Other ways to teach")
    page.wait_for_function("document.querySelector('#d3po_method input:checked')?.value === 'diffusion-nft'")
    assert not page.locator("#d3po_reward_finish").is_visible()


def test_a_few_step_model_is_spoken_of_when_a_taste_is_begun(page: Any, tmp_path: Path) -> None:
    open_tab(page, "New taste")
    page.locator("#d3po_model input, #d3po_model textarea").fill(str(tmp_path / "garden-turbo"))
    page.locator("#d3po_begin").click()
    toast(page, "garden-turbo looks like a few-step model")
    assert page.locator("[data-testid=toast-body]").count() == 1
    open_tab(page, "Other ways to teach")
    needs = page.locator("#d3po_method_needs")
    needs.filter(has_text="d3po needs picks").wait_for()
    page.locator("#d3po_method label", has_text="diffusion-nft").click()
    needs.filter(has_text="arXiv 2509.16117").wait_for()
    assert needs.inner_text().count("2509.16117") == 1
    page.locator("#d3po_method label", has_text="diffusion-dpo").click()
    needs.filter(has_text="This taste's next round is taught by diffusion-dpo").wait_for()
    assert "2509.16117" not in needs.inner_text()


def pictures(folder: Path) -> Path:
    for side, colour in (("winners", "red"), ("losers", "blue")):
        (folder / side).mkdir(parents=True)
        for name in ("one", "two"):
            Image.new("RGB", (64, 64), colour).save(folder / side / f"{name}.png")
        (folder / side / "one.txt").write_text("a red tulip by day")
    return folder


def test_pictures_come_from_a_folder_and_from_a_zip(page: Any, run: Run, tmp_path: Path) -> None:
    open_tab(page, "Bring pictures")
    page.click("#d3po_bring_button")
    toast(page, "No pictures are named")
    folder = pictures(tmp_path / "mine")
    page.locator("#d3po_bring_place input, #d3po_bring_place textarea").fill(str(folder))
    page.click("#d3po_bring_button")
    page.locator("#d3po_brought", has_text="Imported 1 group of pictures").wait_for()
    page.screenshot(path=str(tmp_path / "bring.png"), full_page=True)
    told = page.locator("#d3po_brought").inner_text()
    assert "d3po cannot learn from them" in told and "Left out 1:" in told and "have no prompt" in told
    (group,) = run.groups.select(recorded=False)
    assert "latents" in run.groups.trajectory(group.id) and run.picks.counts("").usable == 1

    packed = tmp_path / "mine.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, Path("mine") / file.relative_to(folder))
    page.locator("#d3po_bring_place input, #d3po_bring_place textarea").fill("")
    page.locator("#d3po_bring input[type=file]").set_input_files(packed)
    page.get_by_text("mine.zip").first.wait_for()
    page.click("#d3po_bring_button")
    page.locator("#d3po_brought", has_text="1 were there already").wait_for()
    assert len(run.groups.select(recorded=False)) == 1


def test_a_number_that_is_left_empty_is_the_methods_own(page: Any, run: Run) -> None:
    open_tab(page, "New taste")
    page.locator(".label-wrap:visible", has_text="More settings").first.click()
    rate, clip = (page.locator(f"#d3po_train_{name} :is(input, textarea)") for name in ("learning_rate", "clip"))
    assert rate.input_value() == ""
    for field, values in ((rate, ("0.01", "")), (clip, ("0.2",))):
        for value in values:
            field.fill(value)
            page.keyboard.press("Tab")
    page.get_by_role("button", name="Begin", exact=True).click()
    library = RunLibrary(run.folder.parent)
    until(lambda: len(library.runs()) == 2)
    train = library.runs()[0].settings["train"]
    assert train["learning_rate"] is None and train["beta"] is None and train["clip"] == 0.2


def test_one_press_goes_on_without_a_lora_file(page: Any, run: Run, tmp_path: Path) -> None:
    number, lora = run.rounds.begin({}), run.folder / "loras" / "taste-round1.safetensors"
    lora.parent.mkdir()
    lora.write_bytes(b"a LoRA")
    run.rounds.finish(number, lora, policy_id(lora), RoundSummary())
    lora.write_bytes(b"a")
    page.reload()
    notice = page.locator(".notice", has_text="The LoRA of round 1 is damaged")
    notice.wait_for()
    page.screenshot(path=str(tmp_path / "lost.png"))
    notice.get_by_role("button", name="Go on from the original").click()
    notice.wait_for(state="detached")
    assert run.rounds.current_policy() == "base" and lora.read_bytes() == b"a"
    until(lambda: run.groups.select())  # it draws ahead again for whoever looks
    assert run.groups.select()[0].policy == "base"


def test_stop_is_said_at_once_and_obeyed_before_the_next_step(page: Any, run: Run, models: Any, tmp_path: Path) -> None:
    """The test lets every evaluation go on: the one under way when Stop is pressed is the last."""
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def wait(*_: Any) -> None:
        begun.release()
        assert go_on.acquire(timeout=120)

    drawn = len(run.groups.select())
    handle = models.model.denoiser.module.register_forward_pre_hook(wait)
    try:
        page.worker.draw(run, 40)
        go_on.release()
        for _ in range(2):
            assert begun.acquire(timeout=60)
        page.get_by_role("button", name="Teach", exact=True).first.click()
        page.locator("[data-action=stop]").click()
        page.locator(".teaching .work", has_text="Stopping…").wait_for()
        page.screenshot(path=str(tmp_path / "stopping.png"))
        go_on.release(1000)
        until(lambda: page.worker.work(run) is None)
        assert not begun.acquire(blocking=False)
        page.locator(".teaching .work").wait_for(state="hidden")
    finally:
        go_on.release(1000)
        handle.remove()
    assert len(run.groups.select()) - drawn in (0, 12)  # and what was drawn ahead before, whole


NO_TASTE_WAS_SAID = """new MutationObserver(() => {
  window.said ||= document.body?.innerText.includes("No taste yet");
}).observe(document, { subtree: true, childList: true, characterData: true });"""


def test_a_page_that_opens_says_nothing_untrue(page: Any, run: Run) -> None:
    page.add_init_script(NO_TASTE_WAS_SAID)
    page.reload()
    page.locator("d3po-gallery").first.wait_for(state="attached")
    assert page.evaluate("window.said") is not True
    shutil.rmtree(run.folder)
    page.reload()
    page.get_by_text("No taste yet").wait_for()


def test_begin_works_once_and_shows_that_it_does(page: Any, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    open_tab(page, "New taste")
    model = page.locator("label", has_text="garden is the small embedded model").locator("input, textarea")
    model.fill(" ")
    page.click("#d3po_begin")
    toast(page, "No model is named. Write garden, or the path of a checkpoint")
    page.wait_for_function("!document.querySelector('#d3po_begin').disabled")
    assert "Traceback" not in capfd.readouterr().err

    model.fill("garden")
    page.get_by_text("More settings").locator("visible=true").click()
    page.locator("#d3po_sample_negative textarea").locator("visible=true").fill("(dull:1.4)")
    held = threading.Event()
    page.worker.queue.call(held.wait)  # as if pictures were being drawn
    press = "document.querySelector('#d3po_begin').click()"
    page.evaluate(f"{press}; for (const ms of [20, 120, 600]) setTimeout(() => {press}, ms)")
    page.wait_for_function("document.querySelector('#d3po_begin').disabled")
    page.get_by_text("The model is being loaded").wait_for()
    page.wait_for_timeout(1000)
    held.set()
    toast(page, "Read as plain words here, unlike in A1111 or ComfyUI: (dull:1.4)")
    page.wait_for_function("document.querySelector('d3po-gallery')?.offsetParent")  # the new taste is shown
    page.wait_for_timeout(1000)
    assert len(RunLibrary(run.folder.parent).runs()) == 2


def test_a_refusal_leaves_what_it_speaks_of_in_sight(page: Any, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    open_tab(page, "Files and sharing")
    page.get_by_role("button", name="Delete this taste", exact=True).click()
    toast(page, "Tick the box first")
    box = page.get_by_label("Yes, delete its pictures")
    assert box.evaluate(
        """(box) => {
          const { x, y, width, height } = box.getBoundingClientRect();
          return document.elementFromPoint(x + width / 2, y + height / 2) === box;
        }"""
    )
    assert capfd.readouterr().err.count("\n") <= 1
    box.check()
    page.get_by_role("button", name="Delete this taste", exact=True).click()
    until(lambda: not run.folder.exists())


def test_bold_words_are_of_one_font(page: Any) -> None:
    """Letters that the font lacks are drawn in the next one of the list, and are as wide as there."""
    differ = """async () => {
      await document.fonts.ready;
      const pen = document.createElement("canvas").getContext("2d");
      const families = getComputedStyle(document.querySelector("#d3po_begin")).fontFamily.split(",")[0];
      const width = (letter, next) => {
        pen.font = `600 200px ${families}, ${next}`;
        return pen.measureText(letter).width;
      };
      return [...document.querySelector("#d3po_begin").textContent.trim(), ..."aäß9?"].filter(
        (letter) => width(letter, "monospace") !== width(letter, "serif"),
      );
    }"""
    open_tab(page, "New taste")
    page.locator("#d3po_begin").wait_for()
    assert page.evaluate(differ) == []
