"""Beside packs that many people have: complaints with and without ours, keys, pauses, and wherever nodes live.

COMFYUI_PACKS names a folder that holds other packs' folders, each as its people get it. They are copied into a base
folder, as some write into their own. COMFYUI_PACKS_PYTHONPATH names a folder of what they import and COMFYUI_PYTHON
lacks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .conftest import HOST, PYTHON
from .graphs import Graph, node, plain, taste
from .host import ROOT, Host
from .page import Page
from .test_browser import complete_graph, picture, sampled

PACKS = os.environ.get("COMFYUI_PACKS")
pytestmark = pytest.mark.skipif(
    PACKS is None, reason="no other packs: name a folder that holds some with COMFYUI_PACKS"
)

FOLDERS = ("custom_nodes", "models/loras", "input", "output", "temp", "user", "home")
COMPLAINT = re.compile(r"warn|error|fail|exception|traceback|deprecat", re.IGNORECASE)
OURS = re.compile(r"d3po", re.IGNORECASE)
USUAL = {"Comfy.VueNodes.Enabled": False, "Comfy.Locale": "en", "Comfy.ColorPalette": "dark"}
BOTH = pytest.mark.parametrize("new_nodes", [False, True], ids=["canvas", "Nodes 2.0"])

LISTENERS = """(() => {
    // Notes which packs' listeners hear keys.
    window.heard = [];
    Error.stackTraceLimit = 50;
    const { addEventListener: add, removeEventListener: remove } = EventTarget.prototype;
    const noted = new WeakMap();
    EventTarget.prototype.addEventListener = function (type, listener, ...options) {
        const pack = /^key|^paste|^copy|^cut/.test(type) && /\\/extensions\\/([^/]+)\\//.exec(new Error().stack)?.[1];
        if (!pack || !listener || pack === "comfyui-d3po" || pack === "core") {
            return add.call(this ?? window, type, listener, ...options);
        }
        if (!noted.has(listener)) {
            noted.set(listener, function (event) {
                window.heard.push(`${pack} ${event.type} ${event.key}`);
                return typeof listener === "function" ? listener.call(this, event) : listener.handleEvent(event);
            });
        }
        return add.call(this ?? window, type, noted.get(listener), ...options);
    };
    EventTarget.prototype.removeEventListener = function (type, listener, ...options) {
        return remove.call(this ?? window, type, noted.get(listener) ?? listener, ...options);
    };
})();"""

STANDS = """() => [window.app.rootGraph.nodes.length, window.app.canvas.ds.scale, ...window.app.canvas.ds.offset,
    window.app.rootGraph.nodes.map(({ id, mode, flags, pos }) => [id, mode, flags.collapsed, ...pos].join()).sort(),
    document.querySelectorAll(".p-dialog, .comfy-modal, .litegraph.graphdialog").length]"""
"""What other people's shortcuts change."""

OUR_KEYS = [
    *("2", "Shift+1", "ArrowRight", "Space", "Escape", "Shift+?", "Escape", "f", "f", "Escape"),
    *("Enter", "t", "x", "s", "d", "u", "z", "Control+z"),
]
THEIR_KEYS = [
    *("1", "Delete", "Backspace", "Control+a", "Control+c", "Control+v", "Control+b", "Control+m", "Control+g"),
    *("Control+Enter", "Control+s", "Alt+c", "Alt+1", "Shift+d", "Shift+f", "c", "g", "q", "r", "w", ".", "`"),
]


class Complaints(NamedTuple):
    """What a page and a server complain of, without what changes from start to start."""

    console: set[str]
    log: set[str]


def packs() -> list[Path]:
    return sorted(path for path in Path(str(PACKS)).iterdir() if (path / "__init__.py").is_file())


def name_of(pack: Path) -> str:
    """Name, version and commit, as far as the pack's folder tells them."""
    about = pack / "pyproject.toml"
    version = re.search(r'^version\s*=\s*"(.+?)"', about.read_text("utf-8") if about.is_file() else "", re.MULTILINE)
    command = ["git", "-C", str(pack), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout if (pack / ".git").exists() else ""
    return " ".join([pack.name, version[1] if version else "", commit.strip()]).strip()


def prepare(folder: Path, base: Path, ours: bool) -> Host:
    """A host with all other packs, not started."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    for pack in packs():
        shutil.copytree(pack, folder / "custom_nodes" / pack.name, ignore=shutil.ignore_patterns(".git"))
    if ours:
        (folder / "custom_nodes" / "comfyui-d3po").symlink_to(ROOT)
    (folder / "models" / "checkpoints").symlink_to(base / "models" / "checkpoints")
    environment = {"HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    if "COMFYUI_PACKS_PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["COMFYUI_PACKS_PYTHONPATH"]
    return Host(Path(str(HOST)), PYTHON, folder, environment=environment)


def same(text: str, host: Host) -> str:
    """A line without addresses, folders, figures and colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(host.address, "").replace(str(host.base), "")
    return re.sub(r"\b[0-9a-f]{8,}\b|\d+", "#", text).strip()


def log_of(host: Host) -> set[str]:
    lines = host.log.read_text(errors="replace").splitlines()
    return {same(line, host) for line in lines if COMPLAINT.search(line)}


def work_in_a_page(browser: Any, host: Host) -> Complaints:
    """Open the page, draw a picture as everybody does, and hear who complains."""
    context = browser.new_context(viewport={"width": 1500, "height": 1000}, reduced_motion="reduce")
    page = Page(context, host, USUAL, others=True)
    graph = plain()
    graph["sample"]["inputs"]["model"] = ["load", 0]
    del graph["model"]  # some releases of Impact Pack let no node with a switch be loaded
    page.load(graph)
    host.wait(page.queue())
    page.page.wait_for_timeout(3000)  # some packs fetch things late
    context.close()
    assert page.errors == []
    return Complaints({same(text, host) for text in page.complaints}, log_of(host))


@pytest.fixture(scope="module")
def alone(base: Path, browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Complaints:
    """What is complained of without our pack."""
    with prepare(tmp_path_factory.mktemp("alone"), base, ours=False) as host:
        return work_in_a_page(browser, host)


@pytest.fixture(scope="module")
def beside(alone: Complaints, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with our pack beside the others; its log may complain of nothing of ours, whatever was done."""
    with prepare(tmp_path_factory.mktemp("beside"), base, ours=True) as host:
        yield host
        assert [line for line in log_of(host) if OURS.search(line)] == []
        assert "custom_nodes/comfyui-d3po/" not in host.log.read_text(errors="replace")  # as in a traceback


@pytest.fixture
def opened(browser: Any, beside: Host) -> Iterator[Callable[..., Page]]:
    """Opens the page with the others in it; nothing of ours may complain."""
    pages: list[Page] = []

    def open_it(**settings: Any) -> Page:
        context = browser.new_context(viewport={"width": 1500, "height": 1000}, reduced_motion="reduce")
        context.add_init_script(LISTENERS)
        pages.append(Page(context, beside, {**USUAL, **settings}, others=True))
        return pages[-1]

    yield open_it
    for page in pages:
        page.context.close()
        assert page.errors == []


def test_nothing_is_complained_of_that_was_not_before(alone: Complaints, beside: Host, browser: Any) -> None:
    print("\nbeside " + ", ".join(map(name_of, packs())))
    log = beside.log.read_text(errors="replace")
    loaded = [pack.name for pack in packs() if re.search(rf"seconds: .*{re.escape(pack.name)}\s", log)]
    print(f"loaded {len(loaded)} of {len(packs())}: {', '.join(loaded)}")
    assert len(loaded) >= 4 and re.search(r"seconds: .*comfyui-d3po\s", log)
    now = work_in_a_page(browser, beside)
    print(f"complaints without and with: {len(alone.console)}, {len(now.console)} in the console, ", end="")
    print(f"{len(alone.log)}, {len(now.log)} in the log; gone: {alone.console - now.console}, {alone.log - now.log}")
    assert now.console - alone.console == set() and now.log - alone.log == set()


@BOTH
def test_keys_do_not_meet(opened: Callable[..., Page], beside: Host, new_nodes: bool) -> None:
    graph = complete_graph("keys", groups=16)
    run = beside.run(graph, only=["collector"])["collector"]["d3po_taste"][0]
    page = opened(**{"Comfy.VueNodes.Enabled": new_nodes})
    page.load(graph)
    page.run(
        """() => {
            for (const type of ["Bookmark (rgthree)", "Fast Actions Button (rgthree)", "easy bookmark"]) {
                if (!window.LiteGraph.registered_node_types[type]) continue;
                const node = window.LiteGraph.createNode(type);
                node.pos = [-2000, -2000];
                window.app.rootGraph.add(node);  // its shortcut is 1
            }
        }"""
    )
    page.run("(id) => window.shown('node').setAttribute('taste', id)", run)
    page.wait_for_group("node")
    before = page.run(STANDS)
    prompts: list[str] = []
    page.page.on("request", lambda asked: prompts.append(asked.url) if asked.url.endswith("/prompt") else None)
    page.pick("node", "key")
    page.run("() => { window.heard = []; }")
    for key in [*OUR_KEYS, *THEIR_KEYS[1:]]:
        page.page.keyboard.press(key)
    page.page.keyboard.press("Escape")
    page.pick("node", "key")  # 1: also the first bookmark's key
    assert page.run("() => window.heard") == []
    assert page.run(STANDS) == before and prompts == []

    page.run("() => { window.shown('node').shell.keyDown = () => { window.oursRan = true; }; }")
    page.run("() => document.activeElement.blur()")
    done = page.picks("node")
    for key in ["Escape", "2", "t", "x", "s", "u", "z", "h", "f", "Shift+?", "1"]:
        page.page.keyboard.press(key)
    heard = page.run("() => window.heard")
    print("\nheard outside:", sorted({line.split()[0] for line in heard}))
    assert page.run("() => window.oursRan") is None and page.picks("node") == done
    assert any(line.endswith("keydown 1") for line in heard)  # theirs run there, as ever


def paused_graph(name: str) -> Graph:
    """Our three nodes, and beside them two pictures that wait for somebody to choose."""
    graph = {**complete_graph(name), **{key: each for key, each in plain().items() if key not in taste()}}
    graph["two"] = node("EmptyLatentImage", width=64, height=64, batch_size=2)
    graph["sample"]["inputs"]["latent_image"] = ["two", 0]
    extras = {"tip": "", "extra1": "", "extra2": "", "extra3": "", "pick_list_start": 0, "pick_list": ""}
    waits: dict[str, Any] = {"images": ["decode", 0], "timeout": 600, "ontimeout": "send none", "video_frames": 1}
    graph["pause"] = node("Image Filter", **waits, **extras)
    graph["save"]["inputs"]["images"] = ["pause", 0]
    return graph


CHOOSE = """(graph) => {
    const body = new FormData();
    body.append("response", JSON.stringify({ selection: ["0"], extras: ["", "", ""], graph_id: graph }));
    return window.comfyAPI.api.api.fetchApi("/cg-image-filter-message", { method: "POST", body }).then(() => {});
}"""


def test_picks_while_the_queue_waits_for_another_pack(opened: Callable[..., Page], beside: Host) -> None:
    """cg-image-filter stops the queue until one chooses there; meanwhile one picks and presses Teach here."""
    if "Image Filter" not in beside.get("/object_info"):
        pytest.skip("no pack that pauses: cg-image-filter is not among them")
    name = "paused"
    outputs = beside.run(complete_graph(name, groups=18), only=["collector"])
    run = str(outputs["collector"]["d3po_taste"][0])
    page = opened(**{"Image Filter.UI.Play Sound": False, "Image Filter.UI.Small Window": True})
    page.load(paused_graph(name))
    page.run(
        """() => {
            window.app.rootGraph.id = crypto.randomUUID();  // as a saved workflow has; theirs goes by it
            const waits = window.app.rootGraph.nodes.find((node) => node.type === "Image Filter");
            waits.widgets.find((widget) => widget.name === "graph_id").value = `${window.app.graph.id}`;
        }"""
    )
    page.run("(id) => window.shown('node').setAttribute('taste', id)", run)
    page.wait_for_group("node")
    only = "() => window.app.queuePrompt(0, 1, ['save'])"
    prompt, _ = page.queued_by(lambda: page.run(only))
    waiting = page.page.locator("cg-floater.tiny:not(.hidden)")
    waiting.wait_for(timeout=120_000)
    graph = page.run("() => window.app.rootGraph.id")

    before = page.picks("node")
    for by in ("key", "mouse", "key"):
        page.pick("node", by)
    page.open()  # reloaded in the middle of it
    page.look_at("PreferenceCollector")
    page.wait_for_group("node")
    assert page.picks("node") == before + 3 and prompt not in beside.get(f"/history/{prompt}")
    while page.picks("node") < 16:
        page.pick("node", "key")
    taught, _ = page.teach("node")
    assert prompt not in beside.get(f"/history/{prompt}")  # still theirs

    before = page.picks("node")
    page.run(CHOOSE, graph)  # by their own route: after a reload their window may stay away
    assert len(beside.wait(prompt)["save"]["images"]) == 1 and page.picks("node") == before
    assert beside.wait(taught)["trainer"]["text"][0].startswith("Taught")
    page.toast("Your model has learnt")
    assert page.red() == []


def toggle(page: Page, kinds: list[str], how: str) -> None:
    """Select our nodes of these kinds and give the page's own command for it: "Mute" or "Bypass"."""
    page.run(
        """async ([kinds, how]) => {
            const { canvas, extensionManager } = window.app;
            canvas.deselectAll();
            for (const kind of kinds) for (const node of window.kind(kind)) canvas.select(node);
            await extensionManager.command.execute(`Comfy.Canvas.ToggleSelectedNodes.${how}`);
            canvas.deselectAll();
        }""",
        [kinds, how],
    )


@BOTH
def test_our_nodes_in_a_group_switched_off_and_in_a_subgraph(
    opened: Callable[..., Page], beside: Host, new_nodes: bool
) -> None:
    name = f"places-{uuid.uuid4().hex[:6]}"  # a second try is not to find the picks of the first
    run = sampled(beside, name)
    page = opened(**{"Comfy.VueNodes.Enabled": new_nodes})
    ending = {key: each for key, each in plain().items() if key in ("sample", "decode", "save")}
    base = picture(beside, beside.run(plain()))
    page.load({**complete_graph(name), **ending})
    page.run("(id) => window.shown('node').setAttribute('taste', id)", run)
    page.wait_for_group("node")
    all_three = ["PairedTrajectorySampler", "PreferenceCollector", "LoraTrainer"]
    page.run(
        """(kinds) => {
            const group = new window.LiteGraph.LGraphGroup("ours");
            window.app.rootGraph.add(group);
            group.resizeTo(kinds.map((kind) => window.kind(kind)[0]));
            group.recomputeInsideNodes();
            const before = window.kind("LoraTrainer")[0].pos[0];
            group.move(40, 40);
            if (window.kind("LoraTrainer")[0].pos[0] === before && group.children?.size === 0) throw Error("not moved");
        }""",
        all_three,
    )
    page.pick("node", "key")
    toggle(page, all_three, "Mute")
    outputs = beside.wait(page.queue())
    assert set(outputs) == {"save"} and (picture(beside, outputs) == base).all()
    page.pick("node", "key")  # what was drawn can be picked all the same
    toggle(page, all_three, "Mute")
    toggle(page, ["PreferenceCollector"], "Bypass")
    outputs = beside.wait(page.queue())
    assert outputs["trainer"]["text"] == ["Waiting for picks: 2 of 16"] and "collector" not in outputs
    toggle(page, ["PreferenceCollector"], "Bypass")

    page.run(
        """(kinds) => {
            const { rootGraph } = window.app;
            rootGraph.convertToSubgraph(new Set(kinds.map((kind) => window.kind(kind)[0])));
            const holder = rootGraph.nodes.find((node) => node.isSubgraphNode?.());
            window.kind = (name) => holder.subgraph.nodes.filter((node) => node.type === `D3PO_${name}`);
            window.app.canvas.openSubgraph(holder.subgraph, holder);
        }""",
        all_three,
    )
    page.look_at("PreferenceCollector")
    page.pick("node", "key")
    outputs = beside.wait(page.queue())
    assert {name.rpartition(":")[2] for name in outputs if ":" in name} == {"collector", "trainer"}
    page.wait_for_group("node")
    page.pick("node", "mouse")
    assert page.red() == []
