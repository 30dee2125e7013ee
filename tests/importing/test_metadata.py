"""Prompts that other programs write, in the forms in which their sources or files have them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from d3po_core.errors import D3POError
from d3po_core.importing.captions import read_prompts
from d3po_core.importing.metadata import parse_parameters


def image(path: Path, **chunks: str) -> Path:
    info = PngInfo()
    for name, text in chunks.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def said(**values: Any) -> str:
    return json.dumps(values)


WRITTEN: dict[str, tuple[dict[str, str], tuple[str, str]]] = {
    "SwarmUI": (
        {"parameters": said(sui_image_params={"prompt": "a fox <lora:x>", "negativeprompt": "dull", "steps": 20})},
        ("a fox", "dull"),
    ),
    "Fooocus": (
        {
            "parameters": said(prompt="a fox", negative_prompt="dull", full_prompt=["a fox, sharp"]),
            "fooocus_scheme": "fooocus",
        },
        ("a fox", "dull"),
    ),
    "InvokeAI": ({"invokeai_metadata": said(positive_prompt="a fox", negative_prompt="dull")}, ("a fox", "dull")),
    "InvokeAI 2": (
        {"sd-metadata": said(model="x", image={"prompt": [{"prompt": "a fox", "weight": 1.0}]})},
        ("a fox", ""),
    ),
    "NovelAI": (
        {"Software": "NovelAI", "Description": "a fox", "Comment": said(prompt="a fox", uc="dull", steps=28)},
        ("a fox", "dull"),
    ),
    "Draw Things": (
        {
            "XML:com.adobe.xmp": "<rdf:Description><exif:UserComment><rdf:Alt><rdf:li xml:lang='x-default'>"
            "{&quot;c&quot;:&quot;a fox &amp;amp; a cat&quot;,&quot;uc&quot;:&quot;dull&quot;}"
            "</rdf:li></rdf:Alt></exif:UserComment></rdf:Description>"
        },
        ("a fox &amp; a cat", "dull"),
    ),
    "Easy Diffusion": ({"prompt": "a fox", "negative_prompt": "dull", "seed": "3"}, ("a fox", "dull")),
    "JSON of nobody knows whom": ({"parameters": said(steps=20, model="x")}, ("", "")),
    "a list of numbers": ({"parameters": "[1, 2]"}, ("", "")),
    "cut JSON": ({"parameters": '{"prompt": "a fox", "neg'}, ("", "")),
    "a comment of another program": ({"Comment": said(prompt="a fox")}, ("", "")),
    "a graph for prompt, and no sampler": ({"prompt": said(a={"inputs": {}})}, ("", "")),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_programs(tmp_path: Path, name: str) -> None:
    chunks, expected = WRITTEN[name]
    assert read_prompts(image(tmp_path / "a.png", **chunks)) == expected


@pytest.mark.parametrize(
    "text",
    ["{'prompt': 'a fox', 'steps': 20}", '{prompt: "a fox"}', '\ufeff{"steps": 3', "{ // a comment", "[1, 2", '["a"'],
)
def test_what_looks_like_json_is_no_prompt(text: str) -> None:
    assert parse_parameters(text) == ("", "")


def test_json_within_json_is_no_prompt() -> None:
    assert parse_parameters(said(prompt='{"3": {"class_type": "KSampler"}}')) == ("", "")


def test_settings_in_another_order_are_no_words() -> None:
    """The web UI takes a last line of three settings for them."""
    text = "a fox\nNegative prompt: dull\nSize: 512x512, Seed: 3, Model: x"
    assert parse_parameters(text) == parse_parameters(text.replace("\n", "\r")) == ("a fox", "dull")


@pytest.mark.parametrize(
    "comment", [b"ASCII\0\0\0Screenshot", b"ASCII\0\0\0Created with GIMP", b"a holiday in the snow"]
)
def test_comments_of_cameras_and_people_are_no_prompts(tmp_path: Path, comment: bytes) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_prompts(tmp_path / "a.jpg") == ("", "")


@pytest.mark.parametrize("text", ["{red|blue} fox", "[a:b:0.5]", "[a fox]", "(a fox:1.2), {x}", "[[a:b:0.5]:c:0.8]"])
def test_brackets_are_words(text: str) -> None:
    assert parse_parameters(text) == (text, "")


def beside(tmp_path: Path, **captions: str | bytes) -> Path:
    for suffix, text in captions.items():
        (tmp_path / f"a.{suffix}").write_bytes(text.encode() if isinstance(text, str) else text)
    return image(tmp_path / "a.png", parameters="written inside")


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        ({"txt": "a fox"}, "a fox"),
        ({"TXT": "a fox"}, "a fox"),
        ({"caption": "a fox"}, "a fox"),
        ({"json": said(caption="a fox")}, "a fox"),
        ({"json": said(prompt=["a fox", "a cat"])}, "a fox"),
        ({"json": said(tags=3)}, "written inside"),
        ({"txt": "a fox", "caption": "a cat"}, "a fox"),
        ({"txt": " \n", "caption": "a cat"}, "a cat"),
        ({"txt": ""}, "written inside"),
        ({}, "written inside"),
        ({"txt": "a fox".encode("utf-16")}, "a fox"),
        ({"txt": "a fox".encode("utf-16-le")}, "a fox"),
        ({"txt": b"\xef\xbb\xbfa fox"}, "a fox"),
        ({"txt": "un café".encode("cp1252")}, "un café"),
    ],
)
def test_captions_beside_an_image(tmp_path: Path, captions: dict[str, str | bytes], expected: str) -> None:
    assert read_prompts(beside(tmp_path, **captions))[0] == expected


@pytest.mark.parametrize("captions", [{"txt": b"\0\1\2\3\0\0"}, {"txt": b"\x81\x8d"}])
def test_captions_that_are_no_text(tmp_path: Path, captions: dict[str, str | bytes]) -> None:
    with pytest.raises(D3POError, match=r"a\.txt cannot be read as text"):
        read_prompts(beside(tmp_path, **captions))


def test_another_images_caption_is_not_taken(tmp_path: Path) -> None:
    """Whose name begins in the same way; and one whose letters are written in another way is this one's."""
    (tmp_path / "a.v2.txt").write_text("a cat")
    assert read_prompts(image(tmp_path / "a.png"))[0] == ""
    (tmp_path / unicodedata.normalize("NFD", "é.txt")).write_text("a fox")
    assert read_prompts(image(tmp_path / "é.png"))[0] == "a fox"


def test_a_name_with_brackets_finds_its_caption(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("a fox")
    (tmp_path / "a1.txt").write_text("another")
    assert read_prompts(image(tmp_path / "a[1].png"))[0] == "a fox"
