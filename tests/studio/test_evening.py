"""A full evening in the Studio: real server, real model, real browser, and everything that can happen in between."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from d3po_core.embedded import GARDEN_FOLDER, split_prompts
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from tests.lora_networks import to_load

pytest.importorskip("gradio", reason="gradio comes with the standalone extra")
ROOT = Path(__file__).parents[2]
SAMPLE = SampleSettings(candidates=2, steps=5, guidance_scale=2.5, batch=8)
TRAIN = TrainSettings(epochs=1, judge=False)  # whatever is picked, something is learnt


class Studio:
    """A Studio process."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "d3po_studio", "--folder", str(self.folder), "--port", str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen([*command, "--no-browser"], env=environment, stdout=subprocess.DEVNULL)
        until(self.up, 120)

    def up(self) -> bool:
        try:
            return self.ask("tastes") is not None
        except (OSError, http.client.HTTPException):
            return False

    def kill(self) -> None:
        self.process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        self.process.wait()

    def ask(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", f"/d3po/{path}")
        return json.loads(connection.getresponse().read())


def until(what: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
    return found


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    from d3po_core.models import load_model
    from d3po_panels import tastes

    settings = (SAMPLE, TRAIN, LoraSettings(rank=4, alpha=4.0))
    prompts, library = tuple(split_prompts()[0]), RunLibrary(tmp_path / "tastes")
    tastes.begin(library, load_model("garden"), "garden", "Evening", prompts, *settings).close()
    found = Studio(tmp_path / "tastes")
    yield found
    found.kill()


class Tab:
    """One tab of the browser, on the Studio's page."""

    def __init__(self, context: Any, studio: Studio, acknowledged: set[str]) -> None:
        self.page = context.new_page()
        self.page.on("response", lambda response: _note(response, acknowledged))
        self.address = f"http://127.0.0.1:{studio.port}/"
        self.open()

    def open(self) -> None:
        self.page.goto(self.address)
        self.ready()

    def ready(self) -> None:
        """Wait for a group, and give the gallery the keyboard."""
        self.page.wait_for_function(SHOWN, timeout=120_000)
        self.page.evaluate("document.querySelector('d3po-gallery').focus()")

    def press(self, key: str) -> None:
        """A key, once the group before it has been there long enough to be seen."""
        self.page.bring_to_front()  # a tab behind another one paints nothing
        self.ready()
        self.page.wait_for_timeout(220)
        self.page.keyboard.press(key)

    def click(self, name: str) -> None:
        self.page.locator("d3po-gallery").get_by_role("button", name=name, exact=True).first.click(timeout=120_000)


SHOWN = """() => {
  const root = document.querySelector("d3po-gallery")?.shadowRoot;
  const images = [...(root?.querySelectorAll("img") ?? [])].filter((image) => image.offsetParent);
  return images.length > 1 && images.every((image) => image.complete && image.naturalWidth);
}"""


def _note(response: Any, acknowledged: set[str]) -> None:
    if response.url.endswith("/pick") and response.status == 200:
        acknowledged.add(json.loads(response.request.post_data)["pick_id"])


@pytest.mark.skipif(not (GARDEN_FOLDER / "unet").exists(), reason="the embedded model is not there")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_full_evening(browser: Any, studio: Studio, tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    context = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    run = Run.open(next((tmp_path / "tastes").iterdir()))
    first = Tab(context, studio, acknowledged)

    def judged() -> int:
        return run.picks.counts("").picks

    def pick_to(count: int, *picking: tuple[Tab, str]) -> None:
        """Groups that came back to see how consistent one is do not count, so more picks may be needed."""
        turn = 0
        while judged() < count:
            tab, key = picking[turn % len(picking)]
            before, turn = len(run.picks.history()), turn + 1
            tab.press(key)
            until(lambda before=before: len(run.picks.history()) > before)

    pick_to(20, (first, "1"), (first, "2"), (first, "Numpad1"))
    for _ in range(5):
        first.press("z")
    until(lambda: sum(pick.undone is not None for pick in run.picks.history()) == 5)

    first.open()  # a reload in the middle
    pick_to(25, (first, "ArrowRight"), (first, "ArrowLeft"))

    studio.kill()
    first.press("1")  # what is decoded already can be picked; it waits in the page
    studio.start()
    until(lambda: judged() == 26)

    second = Tab(context, studio, acknowledged)
    pick_to(60, (first, "1"), (second, "Numpad2"))

    first.page.bring_to_front()
    first.page.locator("d3po-gallery [data-view=teach]").click()
    first.page.locator("d3po-gallery").get_by_role("button", name="Teach", exact=True).last.click()
    check = until(run.blind_checks.last, 600)
    until(lambda: studio.ask(f"taste/{run.run_id}/state")["work"] is None)
    first.click("Start the blind check")
    for n in range(len(check.pairs)):
        first.press("1" if n % 2 else "2")
        until(lambda n=n: sum(pair.answer is not None for pair in run.blind_checks.last().pairs) == n + 1)
    verdict = first.page.locator("d3po-gallery").get_by_role("heading", name="You preferred the taught model in")
    verdict.wait_for(timeout=20_000)
    first.click("Keep")
    until(lambda: run.blind_checks.last().decision == "keep")
    context.close()

    history = run.picks.history()
    assert len({pick.pick_id for pick in history}) == len(history)
    assert acknowledged <= {pick.pick_id for pick in history}
    assert sum(pick.undone is None and pick.reason != "repeat" for pick in history) == 60
    one_each = [pick.group_id for pick in run.picks.standing()]
    assert len(set(one_each)) == len(one_each)  # the two tabs never had the same group
    _loads_in_diffusers(run, tmp_path)


def _loads_in_diffusers(run: Run, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    from d3po_core.cli.export import export

    pipeline = StableDiffusionPipeline.from_pretrained(GARDEN_FOLDER)
    pipeline.load_lora_weights(**to_load(export(run, tmp_path / "out")))
    assert pipeline.get_active_adapters()
