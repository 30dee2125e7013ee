"""The whole loop as one node: the subgraph that the pack brings, in the page's menu, on its canvas and in the queue."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from .host import ROOT, Host
from .page import Page

NAME = "Teach My Taste"
FILE = ROOT / "subgraphs" / f"{NAME}.json"
LOOP = ("D3PO_PairedTrajectorySampler", "D3PO_PreferenceCollector", "D3PO_LoraTrainer")
SAMPLER, COLLECTOR, TRAINER = LOOP
SMALL = {"candidates": 2, "groups": 9, "steps": 4, "guidance_scale": 3}

WIRE = """([values, checkpoint]) => {
    const graph = window.app.rootGraph, node = window.hosts().at(-1), { subgraph } = node;
    const set = (one, name, value) => { one.widgets.find((widget) => widget.name === name).value = value; };
    const add = (type, row, values) => {
        const made = window.LiteGraph.createNode(type);
        made.pos = [-800, 200 * row];
        graph.add(made);
        for (const [name, value] of Object.entries(values)) set(made, name, value);
        return made;
    };
    const connect = (from, output, to, name) =>
        from.connect(output, to, to.inputs.findIndex((one) => one.name === name));
    const load = add("CheckpointLoaderSimple", 0, { ckpt_name: checkpoint });
    const model = add("ModelSamplingDiscrete", 1, { sampling: "v_prediction" });
    const positive = add("CLIPTextEncode", 2, { text: "a lake at dawn" });
    const negative = add("CLIPTextEncode", 3, { text: "blurry" });
    const latent = add("EmptyLatentImage", 4, { width: 64, height: 64 });
    connect(load, 0, model, "model");
    for (const text of [positive, negative]) connect(load, 1, text, "clip");
    connect(model, 0, node, "model");
    connect(positive, 0, node, "positive");
    connect(negative, 0, node, "negative");
    connect(latent, 0, node, "latent");
    connect(load, 2, node, "vae");
    for (const [name, value] of Object.entries(values)) set(node, name, value);
    const trainer = subgraph.nodes.find((one) => one.type === "D3PO_LoraTrainer");
    set(trainer, "judge", false);
    set(trainer, "epochs", 1);
    const { canvas } = window.app;
    canvas.ds.scale = 0.9;
    canvas.ds.offset = [400 - node.pos[0], 90 - node.pos[1]];
    canvas.setDirty(true, true);
}"""
"""What the node needs, on the tiny checkpoint."""


def insert(page: Page, taste: str, x: int = 700) -> None:
    """Take the subgraph from the menu as a person does, and wire it."""
    count = page.run("() => window.hosts().length")
    page.page.mouse.dblclick(x, 200)
    page.page.keyboard.type(NAME)
    page.page.get_by_text("Blueprint", exact=True).first.wait_for()
    page.page.keyboard.press("Enter")
    page.until("(n) => window.hosts().length === n + 1", count)
    while page.run("() => window.hosts().at(-1).flags.ghost"):  # it hangs on the mouse until it is put down
        page.page.mouse.click(x, 300)
        page.page.wait_for_timeout(200)
    page.run(WIRE, [{"taste": taste, **SMALL}, "tiny.safetensors"])


@pytest.fixture
def empty(opened: Callable[..., Page]) -> Callable[..., Page]:
    """Open the page on an empty graph."""

    def open_it(new_nodes: bool = False) -> Page:
        page = opened(settings={"Comfy.VueNodes.Enabled": new_nodes})
        page.page.keyboard.press("Escape")
        page.run("() => { window.app.rootGraph.clear(); }")
        return page

    return open_it


def prompt(page: Page) -> dict[str, Any]:
    return dict(page.run("async () => (await window.app.graphToPrompt()).output"))


def test_the_host_lists_it(host: Host) -> None:
    (key,) = [key for key, one in host.get("/global_subgraphs").items() if one["name"] == NAME]
    entry = host.get(f"/global_subgraphs/{key}")
    assert entry["info"]["node_pack"] == "custom_nodes.comfyui-d3po"
    assert json.loads(entry["data"]) == json.loads(FILE.read_text("utf-8"))


def test_its_widgets_are_the_nodes_own(host: Host) -> None:
    """As the host's schemas have them today: names, order and values."""
    known = host.get("/object_info")
    (definition,) = json.loads(FILE.read_text("utf-8"))["definitions"]["subgraphs"]
    assert {each["type"] for each in definition["nodes"]} == set(LOOP)
    for each in definition["nodes"]:
        inputs = {**known[each["type"]]["input"]["required"], **known[each["type"]]["input"].get("optional", {})}
        defaults = [facts["default"] for _, facts in inputs.values() if "default" in facts]
        assert each["widgets_values"] == defaults
        assert [slot["name"] for slot in each["inputs"] if slot["type"] != "D3PO_GALLERY"] == sort_as_page(inputs)


def sort_as_page(inputs: dict[str, Any]) -> list[str]:
    """Names in the page's order: what is only connected stands before the widgets."""
    return sorted(inputs, key=lambda name: "default" in inputs[name][1])


@pytest.mark.parametrize("new_nodes", [False, True], ids=["canvas", "Nodes 2.0"])
def test_all_in_one_node(empty: Callable[..., Page], own: Host, new_nodes: bool) -> None:
    """From the menu; draw, pick in its gallery, teach; the LoRA is there, and after a reload the gallery is."""
    name = f"one {uuid.uuid4().hex[:8]}"
    page = empty(new_nodes)
    insert(page, name)
    graph = prompt(page)
    ids = {kind: key for key, node in graph.items() if (kind := node["class_type"]) in LOOP}
    assert len(ids) == 3 and all(graph[key]["inputs"]["taste"] == name for key in ids.values())
    assert {key: graph[ids[SAMPLER]]["inputs"][key] for key in SMALL} == SMALL
    first = page.queue()
    page.wait_for_group("subgraph")  # while more is drawn
    assert own.wait(first)[ids[TRAINER]]["text"] == ["Waiting for picks: 0 of 16"]
    own.wait(page.queue())
    for i in range(16):
        page.pick("subgraph", "mouse" if i % 2 else "key")
    queued, only = page.teach("subgraph")
    outputs = own.wait(queued)
    assert only == [ids[TRAINER]] and set(outputs) == {ids[TRAINER]}
    assert outputs[ids[TRAINER]]["text"][0].startswith("Taught")
    (lora,) = (own.base / "models" / "loras" / "d3po").glob(f"{name.replace(' ', '-')}*")
    assert f"d3po/{lora.name}" in page.toast("Your model has learnt")
    assert page.red() == []
    taste = page.run("() => window.shown('subgraph').getAttribute('taste')")
    page.page.wait_for_timeout(1500)  # until the page has kept its workflow
    page.open()
    page.until("(id) => window.shown('subgraph')?.getAttribute('taste') === id", taste)


def test_the_graph_runs_without_a_page(empty: Callable[..., Page], own: Host) -> None:
    page = empty()
    insert(page, "by the API")
    graph = prompt(page)
    page.run("() => { window.app.rootGraph.clear(); }")
    outputs = own.run(graph)
    assert [text for each in outputs.values() for text in each.get("text", [])] == ["Waiting for picks: 0 of 16"]
    (found,) = [each for each in own.get("/d3po/tastes")["tastes"] if each["name"] == "by the API"]
    assert found["groups"] == SMALL["groups"]


def test_teach_finds_its_trainer_in_subgraphs(empty: Callable[..., Page], own: Host) -> None:
    """The one of its taste, nested or not, unless it or what it is in is muted or bypassed."""
    page = empty()
    insert(page, "first")
    insert(page, "second", 1300)
    graph = prompt(page)
    first, second = (
        {node["class_type"]: key for key, node in graph.items() if node["inputs"].get("taste") == name}
        for name in ("first", "second")
    )
    outputs = own.run(graph, only=[first[COLLECTOR]])
    taste = outputs[first[COLLECTOR]]["d3po_taste"][0]
    page.run("(id) => window.shown('subgraph').setAttribute('taste', id)", taste)
    page.wait_for_group("subgraph")
    asked: list[Any] = []

    def take(route: Any) -> None:
        if route.request.method == "POST":
            asked.append(route.request.post_data_json["partial_execution_targets"])
            route.fulfill(json={"prompt_id": "00", "number": 0, "node_errors": {}})
        else:
            route.continue_()

    page.page.route("**/prompt", take)

    def teach() -> list[str] | None:
        asked.clear()
        page.run("() => window.gallery(window.hosts()[0]).shell.asked('teach')")
        page.until("() => !window.app.processingQueue")
        page.page.wait_for_timeout(50)
        return asked[0] if asked else None

    assert second[TRAINER] != first[TRAINER]
    assert teach() == [first[TRAINER]]
    for mode in (2, 4):  # muted, bypassed
        page.run("(mode) => { window.hosts()[0].mode = mode; }", mode)
        assert teach() is None
        page.toast("switched off")
        page.run("() => { window.hosts()[0].mode = 0; }")
        inner = "window.hosts()[0].subgraph.nodes.find((node) => node.type === 'D3PO_LoraTrainer')"
        page.run(f"(mode) => {{ {inner}.mode = mode; }}", mode)
        assert teach() is None
        page.toast("switched off")
        page.run(f"() => {{ {inner}.mode = 0; }}")
    page.run("() => { window.app.rootGraph.convertToSubgraph(new Set([window.hosts()[0]])); }")
    nested = [key for key, node in prompt(page).items() if node["class_type"] == TRAINER and key.count(":") == 2]
    assert len(nested) == 1
    page.run("() => window.app.extensionManager.sidebarTab.toggleSidebarTab('d3po')")
    page.until("() => window.shown('sidebar')?.session")
    page.run("(id) => window.shown('sidebar').setAttribute('taste', id)", taste)
    page.until("(id) => window.shown('sidebar').session?.state?.taste.id === id", taste)
    asked.clear()
    page.run("() => window.shown('sidebar').shell.asked('teach')")
    page.until("() => !window.app.processingQueue")
    page.page.wait_for_timeout(50)
    assert asked == [nested]
