"""What ComfyUI, its registry and its page read beside the code: metadata, words, help pages, workflows and subgraph."""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3po_core.rewards import REWARDS
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings

from .test_checkout import HOST_PACKAGES, ROOT, pyproject

LANGUAGES = ("en", "zh")
NODES = {
    "D3PO_PairedTrajectorySampler",
    "D3PO_PreferenceCollector",
    "D3PO_LoraTrainer",
    "D3PO_LoadTasteLora",
    "D3PO_LoadPreferenceRun",
    "D3PO_PreferenceCompare",
    "D3PO_AutoPick",
    "D3PO_DraftLoraTrainer",
    "D3PO_Reward",
    "D3PO_RewardFromPicks",
    "D3PO_PreferencePairsFromImages",
}
"""Ids that workflows name, and that therefore never change."""
SETTINGS = {
    "D3PO_PairedTrajectorySampler": (SampleSettings,),
    "D3PO_LoraTrainer": (TrainSettings, LoraSettings),
    "D3PO_DraftLoraTrainer": (SampleSettings, RewardSettings, LoraSettings),
}
"""What widgets are made from. Where two have a name, the node's is the later one."""
OF_THE_NODE = {"negative", "schedule"}
"""Inputs that are called like a setting and are something else."""
WORKFLOWS = {"quick_start", "teach_my_taste", "sdxl", "flow", "continue_a_taste", "auto_pick", "draft"}
OF_THE_HOST = {
    *("CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "EmptySD3LatentImage", "KSampler", "VAEDecode"),
    *("PreviewImage", "MarkdownNote"),
}


def words(language: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8")))


def workflow(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "example_workflows" / f"{name}.json").read_text("utf-8")))


def subgraph() -> dict[str, Any]:
    """Return the blueprint that is in everybody's menu."""
    return dict(json.loads((ROOT / "subgraphs" / "Teach My Taste.json").read_text("utf-8")))


def keys(tree: Any, at: str = "") -> Iterator[str]:
    if not isinstance(tree, dict):
        yield at
        return
    for name, value in tree.items():
        yield from keys(value, f"{at}.{name}")


def shipped(pattern: str = "*.py") -> list[Path]:
    """The registry's archive, as far as it matches."""
    left_out = [line for line in (ROOT / ".comfyignore").read_text().splitlines() if line and not line.startswith("#")]
    listed = subprocess.run(
        ["git", "ls-files", "-co", "-z", "--exclude-standard", pattern], cwd=ROOT, stdout=subprocess.PIPE
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [path for path in listed.stdout.decode().split("\0") if path and (ROOT / path).exists()]
    return [ROOT / path for path in files if not any(fnmatch.fnmatch(path, f"{rule}*") for rule in left_out)]


def test_requirements_are_lower_bounds_on_what_every_host_has():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z]+>=[\d.]+", line) for line in lines)
    assert {line.partition(">")[0] for line in lines} == HOST_PACKAGES


def test_the_registry_finds_what_it_needs():
    project, comfy = pyproject()["project"], pyproject()["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9._-]{1,98}", project["name"]) and "comfyui" not in project["name"]
    assert comfy["PublisherId"] and comfy["DisplayName"] and (ROOT / comfy["Icon"]).exists()
    assert comfy["requires-comfyui"] == ">=0.19.0"
    assert "web" not in comfy  # the host would load its scripts twice
    version = re.search(r'^__version__ = "(\d+\.\d+\.\d+)"$', (ROOT / comfy["version"]["path"]).read_text(), re.M)
    assert project["dynamic"] == ["version"] and version


def test_the_pack_runs_no_text_as_code_and_starts_no_program():
    """The registry forbids eval, exec, and installing packages at run time."""
    files = shipped()
    assert ROOT / "nodes" / "pick.py" in files and ROOT / "quickstart.py" not in files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id in ("eval", "exec", "compile")), path
            assert not (isinstance(called, ast.Attribute) and ast.unparse(called) == "os.system"), path
            imported = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            imported += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {"subprocess", "pip", "pty"} & {name.partition(".")[0] for name in imported}, path


def test_both_languages_say_the_same_things():
    english, chinese = (words(language) for language in LANGUAGES)
    assert set(english) == NODES
    assert list(keys(english)) == list(keys(chinese))


def test_the_trainer_has_a_widget_for_every_setting():
    names = {item.name for kind in (TrainSettings, LoraSettings) for item in dataclasses.fields(kind)} - {"seed"}
    assert names <= set(words("en")["D3PO_LoraTrainer"]["inputs"])


@pytest.mark.parametrize("node", sorted(SETTINGS))
def test_help_on_a_setting_is_what_the_core_says(node):
    """A test in a real host sees that the nodes say the same."""
    fields = {item.name: item for kind in SETTINGS[node] for item in dataclasses.fields(kind)}
    fields = {name: item for name, item in fields.items() if name not in OF_THE_NODE}
    helps = {name: item.metadata["help"] for name, item in fields.items()}
    helps |= {name: f"{helps[name]} Here 0 stands for empty." for name in fields if fields[name].default is None}
    inputs = words("en")[node]["inputs"]
    names = helps.keys() & inputs.keys()
    assert {name: inputs[name] for name in names} == {
        name: {"name": name.replace("_", " "), "tooltip": helps[name]} for name in names
    }


@pytest.mark.parametrize(
    ("node", "widget", "left_out"),
    [("D3PO_Reward", "reward", "garden"), ("D3PO_AutoPick", "scorer", ("garden", "smooth"))],
)
def test_help_on_rewards_is_what_the_core_says(node, widget, left_out):
    likes = "; ".join(f"{name}: {facts.likes}" for name, facts in REWARDS.items() if not name.startswith(left_out))
    assert words("en")[node]["inputs"][widget]["tooltip"] == f"What it likes: {likes}."


def test_chinese_is_chinese():
    for name, node in words("zh").items():
        texts = [node["display_name"], node["description"], *(text["tooltip"] for text in node["inputs"].values())]
        assert [text for text in texts if not re.search(r"[\u4e00-\u9fff]", text)] == [], name


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_hold_no_signs_that_the_page_takes_for_its_own(language):
    """It compiles names and descriptions as messages, in which braces, bars and @ mean something; tooltips are raw."""
    for node in words(language).values():
        slots = [*node["inputs"].values(), *node["outputs"].values()]
        for text in (node["display_name"], node["description"], *(slot["name"] for slot in slots)):
            assert not re.search(r"[{}|@]", text)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", sorted(NODES))
def test_every_node_has_a_page_of_help_that_names_its_inputs(language, name):
    docs = ROOT / "web" / "docs"
    page = docs / f"{name}.md" if language == "en" else docs / name / f"{language}.md"
    text = page.read_text("utf-8").lower()
    known = {slot["name"].lower() for slot in words(language)[name]["inputs"].values()}
    assert {word for word in known if word not in text} == set()


def test_there_is_a_picture_to_every_workflow_and_nothing_else():
    files = {path.name for path in (ROOT / "example_workflows").iterdir()}
    assert files == {f"{name}.{ending}" for name in WORKFLOWS for ending in ("json", "jpg")}
    for name in WORKFLOWS:
        with Image.open(ROOT / "example_workflows" / f"{name}.jpg") as picture:
            assert picture.width >= 1000 and picture.format == "JPEG"


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_workflows_need_no_other_pack_and_tell_nothing_of_their_maker(name):
    content = workflow(name)
    uuid.UUID(content["id"])
    subgraphs = content.get("definitions", {}).get("subgraphs", [])
    nodes = [node for graph in (content, *subgraphs) for node in graph["nodes"]]
    assert {node["type"] for node in nodes} <= NODES | OF_THE_HOST | {each["id"] for each in subgraphs}
    assert all(set(node["properties"]) <= {"Node name for S&R"} for node in nodes)
    assert not re.search(r'"(?:/|[A-Za-z]:\\|~)|\\\\', json.dumps(content))


def test_the_quick_start_has_seven_nodes_wired_as_a_loop():
    content = workflow("quick_start")
    kinds = {node["id"]: node["type"] for node in content["nodes"]}
    wires = {(kinds[link[1]], kinds[link[3]]) for link in content["links"]}
    assert len(kinds) == 7
    assert ("D3PO_PairedTrajectorySampler", "D3PO_PreferenceCollector") in wires
    assert ("D3PO_PreferenceCollector", "D3PO_LoraTrainer") in wires


GALLERY = "D3PO_GALLERY"
"""Type of the slot by which the page shows a Preference Collector's gallery on a subgraph's node."""


def test_the_subgraph_fits_the_nodes():
    """Its slots are the nodes' inputs and outputs, its values are in the schemas' places, and all wires join."""
    content = subgraph()
    (host,), (graph,) = content["nodes"], content["definitions"]["subgraphs"]
    assert host["type"] == graph["id"] and graph["name"] == host["title"] == "Teach My Taste"
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert sorted(node["type"] for node in nodes.values()) == [
        *("D3PO_LoraTrainer", "D3PO_PairedTrajectorySampler", "D3PO_PreferenceCollector")
    ]
    for node in nodes.values():
        known = words("en")[node["type"]]
        slots = [slot["name"] for slot in node["inputs"] if slot["type"] != GALLERY]
        assert sorted(slots) == sorted(known["inputs"])
        widgets = [slot["name"] for slot in node["inputs"] if "widget" in slot and slot["type"] != GALLERY]
        values = dict(zip(widgets, node["widgets_values"], strict=True))
        fields = {item.name: item for kind in SETTINGS.get(node["type"], ()) for item in dataclasses.fields(kind)}
        for name in (values.keys() & fields.keys()) - {"groups"}:
            assert values[name] == (0 if fields[name].default is None else fields[name].default), name
        assert [slot["name"] for slot in node["outputs"]] == [one["name"] for one in known["outputs"].values()]
    for link in graph["links"]:
        if link["origin_id"] == graph["inputNode"]["id"]:
            source = graph["inputs"][link["origin_slot"]]
        else:
            source = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
        if link["target_id"] == graph["outputNode"]["id"]:
            target = graph["outputs"][link["target_slot"]]
        else:
            target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
        assert source["type"] == target["type"] == link["type"]
        assert link["id"] in (target.get("linkIds") or [target["link"]])


def test_the_subgraph_shows_what_one_needs():
    (host,), (graph,) = subgraph()["nodes"], subgraph()["definitions"]["subgraphs"]
    wires, widgets = ["model", "positive", "negative", "latent", "vae"], ["taste", "candidates", "groups", "steps"]
    names = [*wires, *widgets, "guidance_scale", "gallery"]
    assert [slot["name"] for slot in host["inputs"]] == [slot["name"] for slot in graph["inputs"]] == names
    assert [slot["name"] for slot in host["inputs"] if "widget" not in slot] == wires
    assert [slot["name"] for slot in host["outputs"]] == ["model"]
    taste = next(slot for slot in graph["inputs"] if slot["name"] == "taste")
    assert len(taste["linkIds"]) == 3  # one name for all three nodes


def test_the_example_has_the_subgraph_of_the_menu():
    (graph,), (example,) = (content["definitions"]["subgraphs"] for content in (subgraph(), workflow("teach_my_taste")))
    same = ("name", "description", "nodes", "links", "inputs", "outputs")
    assert {key: graph[key] for key in same} == {key: example[key] for key in same}


def test_the_archive_has_the_subgraph():
    assert ROOT / "subgraphs" / "Teach My Taste.json" in shipped("*.json")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_gallery_calls_nodes_as_they_are_called(language: str) -> None:
    """In what it says where a graph lacks one."""
    texts = json.loads((ROOT / "web" / "text" / f"{language}.json").read_text("utf-8"))
    named = {key.removeprefix("comfyui.node."): text for key, text in texts.items() if key.startswith("comfyui.node.")}
    assert named and named == {node: words(language)[node]["display_name"] for node in named}
