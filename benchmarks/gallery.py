"""How quick picking is, and how many can pick at once: `python -m benchmarks.gallery`.

A run of synthetic pictures (512x512, two a group), the gallery's API behind uvicorn, and headless Chromium.

    key to next group   from the key event until the browser has presented a frame with the next group, 200 picks
    opening             from navigation until the first group is painted, with 10 and with 10,000 groups, 5 times each
    many people         8 clients together, 50 picks a second for 10 seconds: all stored, each once
    the Studio          with --studio: from `python quickstart.py`, installed before, until its first group is painted

Needs `playwright` and a Chromium (found on the path, or named by the environment variable CHROMIUM).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
SIDE = 512
SERVER = """
import sys, uvicorn
from pathlib import Path
from d3po_core.gallery import Actions
from d3po_core.gallery.requests import GalleryApp
from d3po_core.run.run import RunLibrary
app = GalleryApp(RunLibrary(sys.argv[1]), Actions(), Path(sys.argv[3]))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""
PAGE = '<!doctype html><meta charset="utf-8"><style>html,body,d3po-gallery{display:block;height:100%;margin:0}</style>'
# before the gallery, which keeps keys that it takes to itself
PAGE += '<script>addEventListener("keydown", (event) => { window.began = event.timeStamp; }, true);</script>'
PAGE += '<script type="module" src="/web/gallery.mjs"></script><d3po-gallery base="" taste="TASTE" lang="en">'
WATCH = """() => {
  // A group is on screen two frames after its pictures came into the page: the first begins to draw it, in the second
  // it has been presented.
  window.times = [];
  const gallery = document.querySelector("d3po-gallery");
  const stage = gallery.shadowRoot.querySelector(".pick:not(.asking) .stage");
  new MutationObserver(() => {
    if (!window.began || !stage.querySelector("img")) return;
    const from = window.began;
    window.began = 0;
    requestAnimationFrame(() => requestAnimationFrame(() => times.push(performance.now() - from)));
  }).observe(stage, { childList: true });
}"""
SHOWN = """() => {
  const images = [...(document.querySelector("d3po-gallery")?.shadowRoot?.querySelectorAll(".stage img") ?? [])];
  return images.length > 1 && images.every((image) => image.complete && image.naturalWidth);
}"""


def make_run(folder: Path, pictured: int, groups: int) -> str:
    """Make a run of `groups` groups, of which the first `pictured` have images and no pick; return its id."""
    import torch
    from PIL import Image

    from d3po_core.run import Run

    run = Run.create(folder, name="Benchmark", model={"identity": "none"}, settings={})
    rng = torch.Generator().manual_seed(0)
    prompt = run.prompts.add("a quiet valley at dawn")
    for number in range(pictured):
        coarse = torch.rand(2, 3, 16, 16, generator=rng)
        fine = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
        images = [Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()) for image in fine]
        fields: dict[str, Any] = {"policy": "base", "round": 1, "settings": {}, "held_out": False}
        run.groups.add(
            prompt_id=prompt, number=number, seed=number, candidates=2, tensors={"x": coarse}, images=images, **fields
        )
    with run._database.write() as connection:
        columns = "prompt_id, seed, candidates, policy, round, settings, held_out, created"
        for number in range(pictured, groups):
            copied = f"SELECT ?, ?, 3, 1, {columns} FROM groups WHERE number = 0"
            values = (f"{number:06}-00000000", number)
            connection.execute(f"INSERT INTO groups (id, number, judged, judges, {columns}) {copied}", values)
            connection.execute(
                """INSERT INTO picks (pick_id, group_id, who, kind, chosen, scores, shown_order, reason, created)
                VALUES (?, ?, 'someone', 'favourite', '[0]', '[]', '[0, 1]', 'random', 0)""",
                (f"{number:032x}", f"{number:06}-00000000"),
            )
    run.close()
    return run.run_id


class Server:
    """The gallery's API on a folder, with one page in front."""

    def __init__(self, folder: Path, taste: str) -> None:
        self.port, self.taste = free_port(), taste
        command = [sys.executable, "-c", SERVER, str(folder), str(self.port), str(ROOT / "web")]
        self.process = subprocess.Popen(command, cwd=ROOT)
        wait_for(self.port)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def open_page(context: Any, server: Server) -> Any:
    page = context.new_page()
    address = f"http://127.0.0.1:{server.port}/"
    page.route(address, lambda route: route.fulfill(body=PAGE.replace("TASTE", server.taste), content_type="text/html"))
    page.goto(address)
    page.wait_for_function(SHOWN, timeout=60_000)
    return page


def key_to_next_group(context: Any, server: Server, picks: int) -> list[float]:
    """Measure the milliseconds from the key event to the next group, of each pick."""
    page = open_page(context, server)
    page.evaluate("document.querySelector('d3po-gallery').focus()")
    page.evaluate(WATCH)
    for n in range(picks):
        page.wait_for_timeout(400)  # a person looks; the page fetches ahead
        page.keyboard.press("Digit1")
        page.wait_for_function(f"times.length > {n}", timeout=20_000)
    milliseconds: list[float] = page.evaluate("times")
    page.close()
    return milliseconds


def opening(browser: Any, server: Server, folder: Path) -> float:
    """Measure the milliseconds from navigation to the first group, in a fresh profile."""
    with sqlite3.connect(folder / "run" / "run.sqlite3") as connection:
        connection.execute("DELETE FROM leases")  # what pages before this one still hold
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    begin = time.perf_counter()
    open_page(context, server)
    spent = 1000 * (time.perf_counter() - begin)
    context.close()
    return spent


def ask(server: Server, path: str, values: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", path, json.dumps(values), {"Content-Type": "application/json"})
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    return found


def one_person(server: Server, picks: int, seconds: float, sent: list[str], late: list[float]) -> None:
    """Picks at an even pace, as a page does: two groups ahead."""
    client, cards, begin = uuid.uuid4().hex, list[Any](), time.perf_counter()
    for n in range(picks):
        if not cards:
            cards = ask(server, f"/taste/{server.taste}/next", {"client": client, "want": 8})["cards"]
        card = cards.pop(0)
        time.sleep(max(0.0, begin + n * seconds / picks - time.perf_counter()))
        pick = {"client": client, "pick_id": uuid.uuid4().hex, "group_id": card["group_id"], "kind": "favourite"}
        asked = time.perf_counter()
        answer = ask(
            server,
            f"/taste/{server.taste}/pick",
            {**pick, "order": [0], "shown_order": [0, 1], "reason": card["reason"]},
        )
        late.append(1000 * (time.perf_counter() - asked))
        sent.append(answer["pick_id"])


def many_people(folder: Path, server: Server, people: int, rate: int, seconds: float) -> str:
    """Let 8 clients pick together, and describe the result in a line."""
    from d3po_core.run import Run

    sent: list[str] = []
    late: list[float] = []
    each = int(rate * seconds / people)
    before = {pick.pick_id for pick in Run.open(folder).picks.history()}
    threads = [threading.Thread(target=one_person, args=(server, each, seconds, sent, late)) for _ in range(people)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - begin
    stored = [pick.pick_id for pick in Run.open(folder).picks.history() if pick.pick_id not in before]
    lost, doubled = len(set(sent) - set(stored)), len(stored) - len(set(stored))
    return (
        f"{people} people, {len(sent)} picks in {spent:.1f} s ({len(sent) / spent:.0f} a second): {lost} lost, "
        f"{doubled} doubled; acknowledged after {statistics.median(late):.0f} ms (median), "
        f"{percentile(late, 95):.0f} ms (95 %)"
    )


def studio(browser: Any, folder: Path) -> float:
    """Measure the seconds from starting quickstart.py until the Studio's first group is on screen."""
    page, port = browser.new_page(), free_port()
    command = ["quickstart.py", "--no-browser", "--port", str(port), "--folder", str(folder)]
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(port)
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function(SHOWN, timeout=120_000)
        return time.perf_counter() - begin
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens on a port, for two minutes at most."""
    for _ in range(2400):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("The server has not started.")


def percentile(values: list[float], share: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * share // 100)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picks", type=int, default=200)
    parser.add_argument("--studio", action="store_true", help="only time the Studio's start, three times")
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        raise SystemExit("There is no chromium: install one, or name it with the environment variable CHROMIUM.")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        if options.studio:
            spent = [studio(browser, Path(temporary) / str(n)) for n in range(3)]
            print("first group of the Studio on screen after " + ", ".join(f"{each:.1f}" for each in spent) + " s")
            browser.close()
            return
        folders = [Path(temporary) / name for name in ("picks", "small", "large")]
        sizes = [(options.picks + 20, 0), (10, 10), (10, 10_000)]
        tastes = [make_run(folder / "run", *size) for folder, size in zip(folders, sizes, strict=True)]
        servers = [Server(folder, taste) for folder, taste in zip(folders, tastes, strict=True)]
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        times = key_to_next_group(context, servers[0], options.picks)
        print(f"key to next group on screen, {len(times)} picks: median {statistics.median(times):.0f} ms, ", end="")
        print(f"95 % {percentile(times, 95):.0f} ms, largest {max(times):.0f} ms")
        opened: dict[str, list[float]] = {name: [] for name in ("10", "10,000")}
        for _ in range(5):
            for name, server, folder in zip(opened, servers[1:], folders[1:], strict=True):
                opened[name].append(opening(browser, server, folder))
        for name, spent in opened.items():
            print(f"opening a taste of {name} groups: median {statistics.median(spent):.0f} ms of 5")
        browser.close()
        many = Path(temporary) / "many"
        server = Server(many, make_run(many / "run", 600, 0))
        print(many_people(many / "run", server, 8, 50, 10.0))
        for each in [*servers, server]:
            each.stop()


if __name__ == "__main__":
    main()
