"""The example workflows, words and help pages, as a real host serves them and its page shows them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from .graphs import Graph
from .host import ROOT, Host
from .page import PACK, Page

WORKFLOWS = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
LANGUAGES = ("en", "zh")
FLOW = "tiny-sd3.safetensors"
TO_API = "async () => (await window.app.graphToPrompt()).output"
MISSING = "[role=dialog]:visible, [data-testid^=missing-]:visible"


def words(language: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8")))


def schema_words(host: Host) -> dict[str, Any]:
    """All that the schemas say in words, in the form of the English locale."""
    found: dict[str, Any] = {}
    for kind, node in host.get("/object_info").items():
        if not node["python_module"].endswith("comfyui-d3po"):
            continue
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        found[kind] = {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {
                name: {"name": facts.get("display_name") or name, "tooltip": facts.get("tooltip", "")}
                for name, (_, facts) in inputs.items()
            },
            "outputs": {
                str(number): {"name": name, **({"tooltip": tooltip} if tooltip else {})}
                for number, (name, tooltip) in enumerate(zip(node["output_name"], node["output_tooltips"], strict=True))
            },
        }
    return found


def tiny(name: str) -> dict[str, Any]:
    """A workflow on a tiny checkpoint of its family."""
    text = (ROOT / "example_workflows" / f"{name}.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    (loader,) = (node for node in loaded["nodes"] if node["type"] == "CheckpointLoaderSimple")
    return dict(json.loads(text.replace(loader["widgets_values"][0], FLOW if name == "flow" else "tiny.safetensors")))


@pytest.fixture(scope="module")
def page(browser: Any, host: Host) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    found = Page(context, host, {"Comfy.Locale": "en", "Comfy.VueNodes.Enabled": False})
    yield found
    context.close()
    assert found.errors == []


def opened(page: Page, name: str) -> Graph:
    """Open a workflow; the graph that the page would queue."""
    page.run("async (graph) => { await window.app.loadGraphData(graph); }", tiny(name))
    page.page.wait_for_timeout(500)
    return dict(page.run(TO_API))


def small(graph: Graph, name: str) -> Graph:
    """The same on little pictures in few steps, and a taste of its own."""
    for node in graph.values():
        inputs = node["inputs"]
        inputs |= {key: value for key, value in {"width": 64, "height": 64, "steps": 4}.items() if key in inputs}
        if "taste" in inputs:
            inputs["taste"] = name
        if node["class_type"] == "D3PO_PairedTrajectorySampler":
            inputs |= {"candidates": 2}
        if node["class_type"] == "D3PO_LoraTrainer":
            inputs["judge"] = False  # a random network's pictures teach nothing that could be trusted
    return graph


def kind(graph: Graph, name: str) -> str:
    """The id of the node of a kind."""
    (found,) = (key for key, node in graph.items() if node["class_type"] == name)
    return found


# Words


def test_english_is_what_the_schemas_say(host: Host) -> None:
    assert words("en") == schema_words(host)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_host_passes_the_words_on(host: Host, language: str) -> None:
    served = host.get("/i18n")[language]["nodeDefs"]
    assert {name: served[name] for name in words(language)} == words(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_names_and_help_in_its_language(browser: Any, host: Host, language: str) -> None:
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    page = Page(context, host, {"Comfy.Locale": language, "Comfy.VueNodes.Enabled": False})
    opened(page, "quick_start")
    for name in ("PairedTrajectorySampler", "LoraTrainer"):
        known = words(language)[f"D3PO_{name}"]
        labels = page.run(
            "(name) => window.kind(name)[0].inputs.map((one) => [one.name, one.label ?? one.localized_name])", name
        )
        assert {key: label for key, label in labels} == {key: facts["name"] for key, facts in known["inputs"].items()}
        page.run("(name) => window.app.canvas.centerOnNode(window.kind(name)[0])", name)
        page.page.wait_for_timeout(300)
        x, y = page.run(
            """(name) => {
                const { canvas } = window.app, [node] = window.kind(name), { left, top } =
                    canvas.canvas.getBoundingClientRect();
                const [x, y] = canvas.ds.convertOffsetToCanvas([node.pos[0] + 90, node.pos[1] - 15]);
                return [x + left, y + top];
            }""",
            name,
        )
        page.page.mouse.click(x, y)
        page.page.get_by_test_id("info-button").click()
        help_text = page.page.locator(".node-help-content h1")
        help_text.wait_for()
        assert help_text.inner_text() == known["display_name"]
    context.close()


@pytest.mark.parametrize("name", sorted(words("en")))
def test_help_pages_are_served(host: Host, name: str) -> None:
    for path in (f"{name}.md", f"{name}/zh.md"):
        with urllib.request.urlopen(f"{host.address}{PACK}docs/{path}", timeout=60) as answer:
            assert answer.read().decode().startswith("# ")


# Workflows


def test_the_templates_are_listed_with_pictures(host: Host) -> None:
    assert sorted(host.get("/workflow_templates")["comfyui-d3po"]) == WORKFLOWS
    for name in WORKFLOWS:
        path = f"/api/workflow_templates/comfyui-d3po/{name}.jpg"
        with urllib.request.urlopen(host.address + path, timeout=60) as answer:
            assert answer.headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_opens_without_a_complaint_and_is_valid(page: Page, host: Host, name: str) -> None:
    graph = opened(page, name)
    assert page.red() == [] and page.page.locator(MISSING).count() == 0
    subgraphs = tiny(name).get("definitions", {}).get("subgraphs", [])
    drawn = {node["type"] for graph in (tiny(name), *subgraphs) for node in graph["nodes"]}
    drawn -= {"MarkdownNote", *(each["id"] for each in subgraphs)}
    assert drawn == {node["class_type"] for node in graph.values()}
    settings = {key: facts for key, facts in host.get("/object_info").items() if key in words("en")}
    for node in graph.values():
        facts = settings.get(node["class_type"])
        inputs = {**facts["input"]["required"], **facts["input"].get("optional", {})} if facts else {}
        rare = {key: spec[1]["default"] for key, spec in inputs.items() if spec[1].get("advanced")}
        assert {key: node["inputs"][key] for key in rare} == rare, node["class_type"]  # as the nodes come
    host.queue(small(graph, "never drawn"))  # raises what is not valid
    host.post("/queue", {"clear": True})
    host.post("/interrupt", {})


def test_the_quick_start_draws_and_waits(page: Page, host: Host) -> None:
    graph = small(opened(page, "quick_start"), "quick start")
    host.run(graph)
    trainer = kind(graph, "D3PO_LoraTrainer")
    assert host.run(graph, only=[trainer])[trainer]["text"] == ["Waiting for picks: 0 of 16"]
    (found,) = [each for each in host.get("/d3po/tastes")["tastes"] if each["name"] == "quick start"]
    assert found["groups"] == 4


def test_auto_pick_does_all_in_one_press(page: Page, host: Host) -> None:
    graph = small(opened(page, "auto_pick"), "one press")
    loader, sampling = kind(graph, "CheckpointLoaderSimple"), "of the tiny network"
    for node in graph.values():
        if node["inputs"].get("model") == [loader, 0]:
            node["inputs"]["model"] = [sampling, 0]
    predicts_v = {"model": [loader, 0], "sampling": "v_prediction", "zsnr": False}
    graph[sampling] = {"class_type": "ModelSamplingDiscrete", "inputs": predicts_v}
    outputs = host.run(graph)
    assert outputs[kind(graph, "D3PO_AutoPick")]["text"] == ["Picked in 24 groups."]
    assert outputs[kind(graph, "D3PO_LoraTrainer")]["text"][0].startswith("Taught")
    (grid,) = outputs[kind(graph, "PreviewImage")]["images"]
    assert (host.base / "temp" / grid["filename"]).exists()
    graph = small(opened(page, "continue_a_taste"), "one press")
    outputs = host.run(graph)
    assert len(outputs) >= 4 and outputs[kind(graph, "D3PO_LoraTrainer")]["text"] == [
        "Nothing new to teach: pick some more."
    ]
