"""The tab under the gradio versions that web UIs have, without a web UI: it opens, and the whole loop works in it.

Each version has a virtual environment of its own inside the tests' one, made when it is first needed.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d3po_core.run import Run
from tests.run_helpers import MODEL

from .gradio_venv import python_with

ROOT = Path(__file__).parents[3]
VERSIONS = {"3.41.2": "A1111, reForge and forge-classic", "4.40.0": "Forge Neo and Forge"}
CLIENT = "c" * 32
USER, PASSWORD = "anna", "secret"
HOSTS_FUNCTIONS = """
  window.onUiLoaded = (todo) => todo();
  window.onUiUpdate = (todo) =>
    new MutationObserver(todo).observe(document.body, { childList: true, subtree: true });
  window.gradioApp = () => document.querySelector("gradio-app");
  window.updateInput = (field) => field.dispatchEvent(new Event("input", { bubbles: true }));
  window.switch_to_txt2img = () => gradioApp().querySelector("#tabs > .tab-nav > button").click();
  window.requestProgress = (task, room, gallery, atEnd) => atEnd();
"""
"""What our page calls of a web UI's own."""


class Server:
    """A running gradio with the tab; another one, at `guarded`, asks for a password."""

    def __init__(self, python: Path, version: str, folder: Path) -> None:
        self.version, self.log, self.tastes = version, folder / "log", folder / "tastes"
        ports = free_ports(2)
        self.address, self.guarded = (f"http://127.0.0.1:{port}" for port in ports)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_TEMP_DIR": str(folder / "gradio")}
        environment |= {"GRADIO_ANALYTICS_ENABLED": "False", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        server = Path(__file__).with_name("gradio_server.py")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(python), str(server), str(folder), *map(str, ports), USER, PASSWORD],
                **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "env": environment},
                text=True,
            )

    def wait(self) -> None:
        """Until it says that it is ready."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line == f"gradio {self.version} is ready\n":
                return
        raise AssertionError(self.log.read_text(errors="replace")[-3000:])

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, path: str) -> Any:
        """With the API's password."""
        known = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        with urllib.request.urlopen(urllib.request.Request(self.address + path, headers=known), timeout=60) as answer:
            return json.loads(answer.read())


def free_ports(number: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    found = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return found


@pytest.fixture(scope="module", params=VERSIONS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    version = request.param
    inside = Path(sys.prefix) / "gradio-versions" if sys.prefix != sys.base_prefix else tmp_path_factory.getbasetemp()
    try:
        python = python_with(version, inside)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no environment with gradio {version}: {error.stderr.strip().splitlines()[-1:]}")
    found = Server(python, version, tmp_path_factory.mktemp("gradio"))
    try:
        found.wait()
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\nran under gradio {version}, which {VERSIONS[version]} have")
        yield found
    finally:
        found.stop()


@pytest.fixture
def unopened(browser: Any, server: Server) -> Iterator[Any]:
    """A web UI's page, on which nobody has opened the D3PO tab; in the end nothing may have gone wrong in it.

    `load_scripts` lets the page have our scripts.
    """
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
    context.set_default_timeout(60_000)
    context.add_init_script(HOSTS_FUNCTIONS)
    # gradio asks other servers for fonts
    context.route(lambda url: not url.startswith(server.address), lambda route: route.fulfill(body=""))
    found, wrong = context.new_page(), []
    found.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.goto(server.address)
    found.locator("#d3po_top").wait_for(state="attached")
    yield found
    context.close()
    assert wrong == []


@pytest.fixture
def page(unopened: Any) -> Any:
    """The D3PO tab, as a web UI shows it."""
    load_scripts(unopened)
    outer(unopened, "D3PO")
    return unopened


def load_scripts(page: Any) -> None:
    page.add_style_tag(path=str(ROOT / "style.css"))
    for script in sorted((ROOT / "javascript").glob("*.mjs")):
        page.add_script_tag(path=str(script), type="module")


def outer(page: Any, name: str) -> None:
    """Open a tab of the web UI's."""
    page.locator("#tabs > .tab-nav > button", has_text=name).click()


def inner(page: Any, name: str) -> None:
    """Open a tab inside ours."""
    page.locator("#tab_d3po .tab-nav button", has_text=name).click()


def toasts(page: Any) -> list[str]:
    """What gradio complains of."""
    return list(page.locator("[data-testid=toast-body]").all_inner_texts())


def test_every_control_is_there(server: Server) -> None:
    shown = {item["props"].get("elem_id") for item in server.ask("/config")["components"]}
    assert {"d3po_generate", "d3po_interrupt", "d3po_skip", "d3po_begin", "d3po_sample_steps"} <= shown
    assert {"d3po_method", "d3po_reward", "d3po_reward_updates", "d3po_say", "d3po_bring_place"} <= shown


def test_begin_pick_teach_and_use(server: Server, page: Any, tmp_path: Path) -> None:
    outer(page, "txt2img")
    page.fill("#txt2img_prompt textarea", "a lake at dawn")
    page.fill("#txt2img_steps input[type=number]", "9")
    page.click("#txt2img_send_to_d3po")
    page.wait_for_function("gradioApp().querySelector('#d3po_prompts textarea').value === 'a lake at dawn'")
    assert page.locator("#d3po_sample_steps input").first.input_value() == "9"
    page.screenshot(path=str(tmp_path / "new.png"))
    before = len(server.ask("/d3po/tastes")["tastes"])  # an earlier try may have left one
    page.click("#d3po_begin")
    for _ in range(300):
        if len(tastes := server.ask("/d3po/tastes")["tastes"]) > before:
            break
        page.wait_for_timeout(100)
    taste = tastes[0]
    page.locator(f"d3po-gallery[taste='{taste['id']}']").wait_for(state="attached")
    inner(page, "Pick and teach")
    for picked in range(20):
        page.locator("d3po-gallery .pick:not(.asking) .frame img").first.wait_for()
        page.wait_for_timeout(200)  # input counts a moment after a group has come
        page.locator("d3po-gallery").evaluate("element => element.focus()")
        page.keyboard.press("1")
        if picked == 0:
            page.screenshot(path=str(tmp_path / "pick.png"))

    def state() -> Any:
        return server.ask(f"/d3po/taste/{taste['id']}/state?client={CLIENT}")

    page.wait_for_timeout(500)
    assert state()["picks"]["usable"] >= 16, state()
    page.get_by_role("button", name="Teach", exact=True).first.click()  # the view
    page.get_by_role("button", name="Teach", exact=True).last.click()
    for _ in range(600):
        if (told := state())["rounds"] and told["rounds"][0]["finished"] and not told["work"]:
            break
        page.wait_for_timeout(100)
    page.screenshot(path=str(tmp_path / "taught.png"))
    assert not told["problem"] and not told["work"] and told["rounds"][0]["finished"], told

    page.click("#d3po_use")
    page.wait_for_function(
        "gradioApp().querySelector('#txt2img_prompt textarea').value.startsWith('a lake at dawn <lora:')"
    )
    page.locator("#txt2img_prompt textarea").wait_for(state="visible")
    page.screenshot(path=str(tmp_path / "used.png"))
    assert toasts(page) == []


def test_a_mistake_is_told_in_a_sentence(server: Server, page: Any, tmp_path: Path) -> None:
    inner(page, "New taste")
    page.click("#d3po_begin")
    page.get_by_text("There is no prompt yet. Write at least one, one per line.").wait_for()
    page.screenshot(path=str(tmp_path / "toast.png"))
    assert len(toasts(page)) == 1


def test_other_ways_to_teach(server: Server, page: Any, tmp_path: Path) -> None:
    run = Run.create(
        server.tastes / secrets.token_hex(4),
        name="Warmer",
        model={**MODEL, "identity": "toy"},
        settings={"sample": {"steps": 2}},
    )
    run.prompts.add("a hill", "")
    page.reload()
    load_scripts(page)
    outer(page, "D3PO")
    page.locator(f"d3po-gallery[taste='{run.run_id}']").wait_for()
    inner(page, "Other ways to teach")
    page.wait_for_timeout(1000)  # what belongs to the taste has come
    page.locator("#d3po_method label", has_text="diffusion-kto").click()
    page.locator("#d3po_method_needs", has_text="This taste's next round is taught by diffusion-kto").first.wait_for()
    assert Run.open(run.folder).settings["train"]["method"] == "diffusion-kto"
    page.locator("#d3po_reward_ready label", has_text="Warm colours").click()
    page.wait_for_function(
        "gradioApp().querySelector('#d3po_reward').querySelector('input, textarea').value === 'warmth'"
    )
    page.fill("#d3po_reward_updates input", "2")
    page.keyboard.press("Tab")
    page.screenshot(path=str(tmp_path / "others.png"), full_page=True)
    page.click("#d3po_reward_begin")
    page.locator("#d3po_reward_open", has_text="It has begun").first.wait_for()
    for _ in range(600):
        told = server.ask(f"/d3po/taste/{run.run_id}/state?client={CLIENT}")
        if told["rounds"] and told["rounds"][0]["finished"] and not told["work"]:
            break
        page.wait_for_timeout(100)
    assert not told["problem"] and told["rounds"][0]["reward"] == "warmth" and told["rounds"][0]["finished"], told
    assert toasts(page) == []
    inner(page, "Bring pictures")
    page.screenshot(path=str(tmp_path / "bring.png"), full_page=True)
    page.click("#d3po_bring_button")
    page.get_by_text("No pictures are named.").wait_for()
    run.close()


def test_nothing_is_drawn_before_the_tab_is_opened(server: Server, unopened: Any) -> None:
    run = Run.create(
        server.tastes / secrets.token_hex(4), name="Unseen", model=MODEL, settings={"sample": {"steps": 2}}
    )
    run.prompts.add("a hill", "")
    asked: list[str] = []
    unopened.on("request", lambda request: asked.append(request.url.removeprefix(server.address)))
    unopened.reload()
    unopened.locator(f"d3po-gallery[taste='{run.run_id}']").wait_for(state="attached")
    load_scripts(unopened)
    unopened.wait_for_timeout(2000)
    assert not [path for path in asked if path.startswith("/d3po/")] and run.groups.next_number() == 0
    outer(unopened, "D3PO")
    unopened.locator("d3po-gallery .pick:not(.asking) .frame img").first.wait_for()
    outer(unopened, "txt2img")
    unopened.wait_for_timeout(100)
    asked.clear()
    unopened.evaluate("gradioApp().querySelector('d3po-gallery').session.hear()")
    unopened.wait_for_timeout(1000)
    assert asked == [f"/d3po/taste/{run.run_id}/state"]  # whose page asks is not told, so it is not drawn for
    run.close()


def test_only_the_page_has_the_key(server: Server, page: Any) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(f"{server.address}/d3po/tastes")
    assert "WWW-Authenticate" not in refused.value.headers  # a browser would ask everybody for a password
    page.wait_for_function("Boolean(customElements.get('d3po-gallery'))")
    assert page.evaluate("fetch('/d3po/tastes').then((answer) => answer.status)") == 200


def test_a_hidden_tab_has_no_button(unopened: Any) -> None:
    unopened.evaluate(
        """() => {
          const tab = document.querySelector("#tab_d3po");
          for (const one of [tab, ...tab.querySelectorAll("[id]")]) one.removeAttribute("id");
        }"""
    )
    load_scripts(unopened)
    unopened.wait_for_timeout(500)
    assert unopened.locator("#txt2img_send_to_d3po").count() == 0


def test_what_is_on_is_known_in_every_language(unopened: Any) -> None:
    outer(unopened, "txt2img")
    unopened.evaluate(
        """() => {
          window.localization = { Other: "其他", Enable: "启用", Wildcards: "通配符" };
          for (const one of document.querySelectorAll("#txt2img_script_container span"))
            one.textContent = window.localization[one.textContent.trim()] ?? one.textContent;
        }"""
    )
    unopened.get_by_text("启用").wait_for()
    load_scripts(unopened)
    unopened.click("#txt2img_send_to_d3po")
    unopened.locator("#d3po_notice li").first.wait_for()
    assert "通配符" in unopened.locator("#d3po_notice li").all_inner_texts()


def logged_in(server: Server) -> urllib.request.OpenerDirector:
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    opener.open(f"{server.guarded}/login", f"username={USER}&password={PASSWORD}".encode())
    return opener


def test_a_path_cannot_even_be_sent_to_a_page_that_is_open_to_others(server: Server, tmp_path: Path) -> None:
    run = Run.create(server.tastes / secrets.token_hex(4), name="Open", model=MODEL, settings={})
    opener = logged_in(server)
    page = json.loads(opener.open(f"{server.guarded}/config").read())
    ids = {item["props"].get("elem_id"): item["id"] for item in page["components"]}
    assert "d3po_bring_button" in ids and "d3po_bring_place" not in ids
    targets = ids["d3po_bring_button"], [ids["d3po_bring_button"], "click"]  # as versions write them
    (number,) = (i for i, each in enumerate(page["dependencies"]) if any(one in each["targets"] for one in targets))
    data = [f"Open #{run.run_id[:6]}", None, "", str(tmp_path)]
    request = urllib.request.Request(
        f"{server.guarded}/run/predict",
        json.dumps({"fn_index": number, "data": data, "session_hash": "a"}).encode(),
        {"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError, match="500") as refused:
        opener.open(request)
    assert json.loads(refused.value.read())["error"].strip("'") == "No pictures are named. Upload a zip."
    run.close()


def test_the_gallery_asks_for_gradios_password(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{server.guarded}/d3po/tastes")
    opener = logged_in(server)
    assert opener.open(f"{server.guarded}/d3po/tastes").status == 200
