"""A newcomer in ComfyUI's own page: sample, pick, teach, use the LoRA; and the gallery as a good guest there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .graphs import Graph, node, plain, taste
from .host import ROOT, Host
from .page import ORDER, Page

GROUPS = 6
QUICK = {"judge": False, "epochs": 1}
SAMPLER = ["taste", "candidates", "groups", "steps", "guidance_scale"]
TRAINER = ["taste", "train", "teaching"]


def complete_graph(name: str = "auto", **changes: Any) -> Graph:
    """The three nodes on a model, all wired."""
    graph = taste(**{"taste": name, "groups": GROUPS, "batch": 2, **changes})
    graph["collector"]["inputs"]["taste"] = name
    graph["trainer"]["inputs"] |= {"taste": name, "trajectories": ["collector", 0], **QUICK}
    return graph


def picture(host: Host, outputs: dict[str, Any]) -> np.ndarray[Any, Any]:
    (file,) = outputs["save"]["images"]
    with Image.open(host.base / "output" / file["subfolder"] / file["filename"]) as image:
        return np.asarray(image, dtype=np.int16)


def drawn(host: Host, name: str = "tiny") -> int:
    return next((taste["groups"] for taste in host.get("/d3po/tastes")["tastes"] if taste["name"] == name), 0)


def sampled(host: Host, name: str) -> str:
    """A taste with a few groups, drawn without a page; its id."""
    outputs = host.run(complete_graph(name, groups=4), only=["collector"])
    return str(outputs["collector"]["d3po_taste"][0])


def quick_start() -> dict[str, Any]:
    """The example for newcomers, made small, on the tiny checkpoint."""
    workflow = dict(json.loads((ROOT / "example_workflows" / "quick_start.json").read_text(encoding="utf-8")))
    small = {
        **{"ckpt_name": "tiny.safetensors", "width": 64, "height": 64},
        **{"candidates": 2, "groups": GROUPS, "steps": 4, "guidance_scale": 3.0, "batch": 2, **QUICK},
    }
    for each in workflow["nodes"]:
        ours = each["type"] != "D3PO_LoraTrainer"  # whose batch is another thing
        named = {
            name: small.get(name, value) if ours or name in QUICK else value
            for name, value in each["widgets_values_named"].items()
        }
        each |= {"widgets_values": list(named.values()), "widgets_values_named": named}
    return workflow


V_PREDICTION = """() => {
    const { rootGraph } = window.app;
    const find = (type) => rootGraph.nodes.find((node) => node.type === type);
    const between = window.LiteGraph.createNode("ModelSamplingDiscrete");
    rootGraph.add(between);
    between.widgets.find((widget) => widget.name === "sampling").value = "v_prediction";
    find("CheckpointLoaderSimple").connect(0, between, 0);
    for (const type of ["D3PO_PairedTrajectorySampler", "D3PO_LoraTrainer"]) between.connect(0, find(type), 0);
}"""
"""What the tiny checkpoint needs."""


def test_a_newcomer(opened: Callable[..., Page], own: Host) -> None:
    page = opened()
    workflow = quick_start()
    trainer = next(str(each["id"]) for each in workflow["nodes"] if each["type"] == "D3PO_LoraTrainer")
    page.run("async (workflow) => { await window.app.loadGraphData(workflow); }", workflow)
    page.run(V_PREDICTION)
    page.look_at("PreferenceCollector")
    page.run(ORDER)
    first = page.queue()
    page.wait_for_group("node")
    own.wait(first)
    order = page.run("() => window.order")
    assert order[:3] == ["drawn", "seen", "drawn"]  # it was on screen before the second was drawn
    for _ in range(2):  # with no picks
        outputs = own.wait(page.queue())
        assert outputs[trainer]["text"] == ["Waiting for picks: 0 of 16"]
    page.page.get_by_text("Waiting for picks: 0 of 16").wait_for()  # it says so where one looks
    assert drawn(own) == 3 * GROUPS

    for i in range(9):
        page.pick("node", "mouse" if i % 2 else "key")
    page.open()  # reloaded: the node shows its taste again, with nothing queued
    page.look_at("PreferenceCollector")
    page.wait_for_group("node")
    assert page.picks("node") == 9
    page.open_sidebar()
    for i in range(7):
        page.pick("sidebar", "mouse" if i % 2 else "key")
    page.toggle_sidebar()

    page.wait_for_group("node")
    prompt, only = page.teach("node")
    outputs = own.wait(prompt)
    assert only == [trainer] and set(outputs) == {trainer}
    assert outputs[trainer]["text"][0].startswith("Taught") and drawn(own) == 3 * GROUPS
    (lora,) = (own.base / "models" / "loras" / "d3po").iterdir()
    assert f"d3po/{lora.name}" in page.toast("Your model has learnt")
    assert page.red() == []

    page.open_sidebar()  # and once more, from there
    page.pick("sidebar", "key")
    prompt, only = page.teach("sidebar")
    assert only == [trainer] and own.wait(prompt)[trainer]["text"][0].startswith("Taught")
    page.toast("Your model has learnt")
    page.toggle_sidebar()
    assert drawn(own) == 3 * GROUPS and page.red() == []
    use_the_lora(page, own)


def use_the_lora(page: Page, own: Host) -> None:
    """The new LoRA is in the list of a loader that was on the graph before it was made; what it draws."""
    newest = max((own.base / "models" / "loras" / "d3po").iterdir(), key=lambda path: path.stat().st_mtime)
    ending = {name: step for name, step in plain().items() if name in ("sample", "decode", "save")}
    graph = {**complete_graph(), **ending}
    graph["sample"]["inputs"]["model"] = ["trainer", 0]
    page.load(graph)
    only = "() => window.app.queuePrompt(0, 1, ['save'])"
    own_output = picture(own, own.wait(page.queued_by(lambda: page.run(only))[0]))
    page.load(plain())
    base = picture(own, own.wait(page.queue()))
    page.load(plain(f"d3po/{newest.name}"))
    listed = page.run(
        """() => {
            const [loader] = window.app.rootGraph.nodes.filter((node) => node.type === "LoraLoaderModelOnly");
            return loader.widgets[0].options.values;
        }"""
    )
    assert f"d3po/{newest.name}" in listed
    with_lora = picture(own, own.wait(page.queue()))
    assert np.abs(with_lora - own_output).max() <= 1 and np.abs(with_lora - base).max() > 1
    assert page.red() == []


def test_lists_know_a_new_lora(opened: Callable[..., Page], own: Host) -> None:
    page = opened()
    page.load(plain("another.safetensors"))
    (own.base / "models" / "loras" / "fresh.safetensors").write_bytes(b"")
    event = {"taste": "0" * 32, "lora": "fresh.safetensors"}
    page.run("(event) => window.comfyAPI.api.api.dispatchCustomEvent('d3po.taught', event)", event)
    page.until(
        """() => window.app.rootGraph.nodes.find((node) => node.type === "LoraLoaderModelOnly")
            .widgets[0].options.values.includes("fresh.safetensors")"""
    )
    assert "fresh.safetensors" in page.toast("Your model has learnt")


@pytest.mark.parametrize("where", ["node", "sidebar"])
def test_the_gallerys_modules_come_when_a_gallery_is_first_seen(opened: Callable[..., Page], where: str) -> None:
    page = opened()
    page.page.get_by_test_id("queue-button").wait_for()  # the page is complete
    page.page.wait_for_timeout(500)
    assert sorted(page.modules) == ["comfyui.js", "comfyui_node.mjs", "comfyui_words.mjs", "text.mjs", "wall.mjs"]
    if where == "node":
        page.load(complete_graph("guest"))
    else:
        page.toggle_sidebar()
    page.until("(where) => window.shown(where)?.shadowRoot", where)
    assert {"comfyui_gallery.mjs", "gallery.mjs", "session.mjs", "pick_view.mjs"} <= set(page.modules)
    assert len(page.modules) == len(set(page.modules))  # each once, by one address


VISIBLE = """(kind) => window.kind(kind)[0].widgets
    .filter((widget) => window.kind(kind)[0].isWidgetVisible(widget)).map((widget) => widget.name)"""


def test_rare_settings_are_folded_away(opened: Callable[..., Page]) -> None:
    page = opened()
    page.load(complete_graph(eta=0.75))
    assert page.run(VISIBLE, "PairedTrajectorySampler") == [*SAMPLER, "d3po_more"]
    assert page.run(VISIBLE, "LoraTrainer") == [*TRAINER, "d3po_more"]
    sizes = "() => window.kind('LoraTrainer')[0].size[1]"
    folded = page.run(sizes)
    page.run("() => window.kind('LoraTrainer')[0].widgets.find((widget) => widget.name === 'd3po_more').callback()")
    shown = page.run(VISIBLE, "LoraTrainer")
    assert {"learning_rate", "rank"} <= set(shown) and page.run(sizes) > folded
    inputs = page.run("async () => (await window.app.graphToPrompt()).output.sampler.inputs")
    assert inputs["eta"] == 0.75 and "d3po_more" not in inputs  # folded, and sent all the same
    page.run("async () => { await window.app.loadGraphData(window.app.rootGraph.serialize()); }")
    assert page.run(VISIBLE, "LoraTrainer") == shown  # a workflow keeps what is open and every value
    assert page.run(VISIBLE, "PairedTrajectorySampler") == [*SAMPLER, "d3po_more"]
    assert page.run("async () => (await window.app.graphToPrompt()).output.sampler.inputs.eta") == 0.75
    menu = "() => window.app.canvas.getNodeMenuOptions(window.kind('LoraTrainer')[0]).map((one) => one?.content)"
    assert "Fewer settings" in page.run(menu)


@pytest.mark.parametrize("new_nodes", [False, True], ids=["canvas", "Nodes 2.0"])
def test_keys_and_wheel_stay_in_the_gallery(opened: Callable[..., Page], own: Host, new_nodes: bool) -> None:
    sampled(own, "guest")
    page = opened(settings={"Comfy.VueNodes.Enabled": new_nodes})
    page.load(complete_graph("guest"))
    page.run("(id) => window.shown('node').setAttribute('taste', id)", sampled(own, "guest"))
    page.wait_for_group("node")
    stands = """() => [window.app.rootGraph.nodes.length, window.app.canvas.ds.scale, ...window.app.canvas.ds.offset,
        window.app.rootGraph.nodes.map((node) => node.mode + ":" + node.flags.collapsed).join(),
        getSelection().toString()]"""
    before = page.run(stands)
    page.gallery("node").query_selector(".prompt").hover()
    for delta in (300, -300):
        page.page.mouse.wheel(0, delta)
    page.page.keyboard.down("Control")
    page.page.mouse.wheel(0, 300)
    page.page.keyboard.up("Control")
    page.gallery("node").query_selector(".prompt").click()
    for key in ("Delete", "Backspace", "Control+a", "Control+c", "Control+v", "Control+b", "Control+m", "Alt+c", "."):
        page.page.keyboard.press(key)
    prompts: list[Any] = []
    page.page.on("request", lambda asked: prompts.append(asked.url) if asked.url.endswith("/prompt") else None)
    page.page.keyboard.press("Control+Enter")
    page.pick("node", "key")  # the gallery still has the keys
    assert page.run(stands) == before and page.red() == []
    assert page.run("() => window.app.canvas.ds.scale") == before[1] and prompts == []


def test_full_screen_is_over_everything(opened: Callable[..., Page], own: Host) -> None:
    page = opened()
    page.load(complete_graph("guest"))
    page.run("(id) => window.shown('node').setAttribute('taste', id)", sampled(own, "guest"))
    page.wait_for_group("node")
    page.gallery("node").query_selector(".prompt").click()
    page.page.keyboard.press("f")
    page.until("() => document.fullscreenElement === window.shown('node')")
    page.until("() => window.shown('node').getBoundingClientRect().width === innerWidth")
    corners = """() => [[9, 9], [9, innerHeight - 9], [innerWidth - 9, 9]]
        .map(([x, y]) => document.elementFromPoint(x, y).localName)"""
    assert page.run(corners) == ["d3po-gallery"] * 3
    page.pick("node", "mouse")
    page.page.keyboard.press("f")
    page.until("() => !document.fullscreenElement")


def test_one_gallery_at_a_time_holds_the_groups(opened: Callable[..., Page], own: Host) -> None:
    """The node, the sidebar and a copy of the node show the same taste: none keeps pictures from another."""
    taste_id = sampled(own, "places")
    page = opened()
    page.load(complete_graph("places"))
    page.run("(id) => window.shown('node').setAttribute('taste', id)", taste_id)
    page.wait_for_group("node")
    has_all = "(where) => window.shown(where).session?.current && window.shown(where).session.ahead.length === 3"
    page.until(has_all, "node")
    page.open_sidebar()
    page.until(has_all, "sidebar")
    assert page.run("() => window.shown('node').session") is None
    page.gallery("node").query_selector("button.main").click()  # Pick here
    page.until(has_all, "node")
    assert page.run("() => window.shown('sidebar').session") is None
    page.toggle_sidebar()
    page.run("() => { const [node] = window.kind('PreferenceCollector'); window.app.canvas.selectNode(node); }")
    page.run("() => { window.app.canvas.copyToClipboard(); window.app.canvas.pasteFromClipboard(); }")
    page.until("() => window.kind('PreferenceCollector').length === 2")
    known = "() => window.kind('PreferenceCollector').map((node) => node.properties.d3po_taste)"
    assert page.run(known) == [taste_id, taste_id]
    page.run("() => { window.app.rootGraph.remove(window.kind('PreferenceCollector')[0]); }")
    # The copy takes over once it is seen: it was put where the mouse is, which may be out of sight.
    page.run("() => window.app.canvas.centerOnNode(window.kind('PreferenceCollector')[0])")
    page.until(has_all, "node")


def test_a_removed_node_is_silent(opened: Callable[..., Page], own: Host) -> None:
    page = opened()
    page.load(complete_graph("guest"))
    page.run("(id) => window.shown('node').setAttribute('taste', id)", sampled(own, "guest"))
    page.wait_for_group("node")
    page.run("() => { window.gone = window.shown('node').session; window.kind('PreferenceCollector')[0].collapse(); }")
    page.run("() => window.kind('PreferenceCollector')[0].collapse()")
    page.wait_for_group("node")
    page.run("() => { window.app.rootGraph.remove(window.kind('PreferenceCollector')[0]); }")
    page.until("() => window.gone.stopped && window.gone.outbox.stopped")


def test_teach_queues_the_trainers_of_its_taste(opened: Callable[..., Page], own: Host) -> None:
    taste_id = sampled(own, "mine")
    page = opened()
    asked: list[Any] = []

    def take(route: Any) -> None:
        if route.request.method == "POST":
            asked.append(route.request.post_data_json)
            route.fulfill(json={"prompt_id": "00", "number": 0, "node_errors": {}})
        else:
            route.continue_()

    page.page.route("**/prompt", take)

    def press(trainers: dict[str, str]) -> list[str] | None:
        """Teach on a graph with trainers of these tastes; the nodes queued."""
        graph = complete_graph("mine")
        trainer = graph.pop("trainer")
        for name, its in trainers.items():
            graph[name] = node("D3PO_LoraTrainer", **{**trainer["inputs"], "taste": its})
        page.load(graph)
        page.run("(id) => window.shown('node').setAttribute('taste', id)", taste_id)
        page.wait_for_group("node")
        return teach()

    def teach() -> list[str] | None:
        asked.clear()
        page.run("() => window.shown('node').shell.asked('teach')")
        page.until("() => !window.app.processingQueue")
        page.page.wait_for_timeout(50)
        assert len(asked) <= 1
        return asked[0]["partial_execution_targets"] if asked else None

    assert press({"ours": "mine", "other": "another", "any": "auto"}) == ["ours"]
    assert asked[0]["front"] is True  # before what is still to be drawn
    assert press({"any": "auto", "other": "another"}) == ["any"]
    assert press({"other": "another"}) is None
    page.toast("another taste than “mine”")
    assert press({}) is None
    page.toast("There is no D3PO LoRA Trainer")
    assert press({"ours": "mine"}) == ["ours"]
    for mode in (2, 4):  # muted, bypassed
        page.run("(mode) => { window.kind('LoraTrainer')[0].mode = mode; }", mode)
        assert teach() is None
        page.toast("switched off")
    page.run("() => { window.kind('LoraTrainer')[0].mode = 0; }")
    page.run("() => { window.app.rootGraph.convertToSubgraph(new Set(window.kind('LoraTrainer'))); }")
    (inside,) = teach() or [""]
    assert ":" in inside  # as the server names nodes in subgraphs


def test_language_and_theme_follow_the_page(opened: Callable[..., Page], own: Host) -> None:
    page = opened()
    page.load(complete_graph("guest"))
    page.run("(id) => window.shown('node').setAttribute('taste', id)", sampled(own, "guest"))
    page.wait_for_group("node")
    tabs = "() => [...window.shown('node').shadowRoot.querySelectorAll('.tabs button')].map((tab) => tab.textContent)"
    assert page.run(tabs)[0] == "Pick" and page.run("() => window.shown('node').getAttribute('theme')") == "dark"
    page.run("() => window.app.extensionManager.setting.set('Comfy.ColorPalette', 'light')")
    page.until("() => window.shown('node').getAttribute('theme') === 'light'")
    page.run("() => window.app.extensionManager.setting.set('Comfy.Locale', 'zh')")
    page.until("() => window.shown('node').shadowRoot.querySelector('.tabs button')?.textContent === '挑选'")
    label = "() => window.kind('LoraTrainer')[0].widgets.find((widget) => widget.name === 'd3po_more').label"
    assert "项设置" in page.run(label)


TRAINERS_OWN = """() => Object.fromEntries(window.kind("LoraTrainer")[0].widgets
    .filter(({ name }) => ["beta", "clip", "learning_rate", "epochs", "method"].includes(name))
    .map(({ name, value }) => [name, value]))"""


def test_a_workflow_keeps_the_values_that_somebody_wrote(opened: Callable[..., Page]) -> None:
    """Also those that were defaults once; 0 stands for the method's own."""
    page = opened()
    workflow = quick_start()
    (trainer,) = [each for each in workflow["nodes"] if each["type"] == "D3PO_LoraTrainer"]
    values = {**trainer.pop("widgets_values_named"), "beta": 205.0, "learning_rate": 0.001, "epochs": 7}
    trainer["widgets_values"] = list(values.values())
    page.run("async (workflow) => { await window.app.loadGraphData(workflow); }", workflow)
    kept = {"beta": 205, "learning_rate": 0.001, "clip": 0, "epochs": 7, "method": "d3po"}
    assert page.run(TRAINERS_OWN) == kept


@pytest.mark.parametrize("path", sorted((ROOT / "example_workflows").glob("*.json")), ids=lambda path: path.stem)
def test_examples_open(opened: Callable[..., Page], path: Path) -> None:
    """Every node is known, and every widget has the value that the file means for it."""
    page = opened()
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.run("async (workflow) => { await window.app.loadGraphData(workflow); }", workflow)
    page.until("(n) => window.app.rootGraph.nodes.length === n", len(workflow["nodes"]))
    wrong = page.run(
        """() => window.app.rootGraph.nodes.flatMap((node) => [
            ...(window.LiteGraph.registered_node_types[node.type] ? [] : [node.type]),
            ...(node.widgets ?? []).filter(({ name, type, value, options }) =>
                (type === "combo" && !/_name$/.test(name) && !options.values.includes(value)) ||
                (type === "number" && typeof value !== "number") || (type === "toggle" && typeof value !== "boolean")
            ).map(({ name, value }) => `${node.type}.${name} = ${value}`),
        ])"""
    )
    assert wrong == []
    if page.run("() => window.kind('PairedTrajectorySampler').length"):
        assert page.run(VISIBLE, "PairedTrajectorySampler") == [*SAMPLER, "d3po_more"]
