"""Prompts are read from what A1111, Forge and ComfyUI wrote into pictures."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from d3po_core.errors import D3POError
from d3po_core.importing import read_source
from d3po_core.importing.captions import Noticed, read_prompts
from d3po_core.importing.graphs import parse_graph
from d3po_core.importing.metadata import parse_parameters

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"
HIRES = 'Steps: 30, Sampler: DPM++ 2M, CFG scale: 5, Hires prompt: "a fox,\\nin snow", Lora hashes: "ink: 2f1a"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red fox", ("a red fox", "")),
        (f"a red fox\n{SETTINGS}", ("a red fox", "")),
        (f"a red fox\nNegative prompt: blurry\n{SETTINGS}", ("a red fox", "blurry")),
        (
            f"a fox,\nin snow\n\nat dawn\nNegative prompt: dull,\nugly\n{HIRES}",
            ("a fox,\nin snow\n\nat dawn", "dull,\nugly"),
        ),
        (f"a fox\r\nNegative prompt: dull\r\n{SETTINGS}", ("a fox", "dull")),
        (f"Negative prompt: blurry\n{SETTINGS}", ("", "blurry")),
        (SETTINGS, ("", "")),
        (f"(a fox:1.2), [day:night:8] BREAK <lora:ink_v2:0.8>\n{SETTINGS}", ("(a fox:1.2), [day:night:8] BREAK", "")),
        (f"<lora:ink:1:lbw=0,1> a fox <hypernet:x:0.5> sits\n{SETTINGS}", ("a fox  sits", "")),
        (f"a fox, Steps: 20, not settings\n{SETTINGS}", ("a fox, Steps: 20, not settings", "")),
        (f"Steps: 9, leading up to a temple\n{SETTINGS}", ("Steps: 9, leading up to a temple", "")),
        (f"a fox\nNegative prompt: blurry\n{SETTINGS}\nTemplate: a {{fox|cat}}", ("a fox", "blurry")),
        ("a sign that says Negative prompt: none", ("a sign that says Negative prompt: none", "")),
        ("", ("", "")),
    ],
)
def test_parameters(text: str, expected: tuple[str, str]) -> None:
    assert parse_parameters(text) == expected


def lines() -> st.SearchStrategy[str]:
    """A prompt of one or more lines that nobody could take for something else."""
    line = st.text(st.characters(exclude_characters="\r\n<>", exclude_categories=["Cs"]), max_size=30)
    plain = line.filter(lambda text: not text.strip().startswith(("Negative prompt:", "Steps:")))
    return st.lists(plain, max_size=4).map("\n".join)


@given(lines(), lines(), st.sampled_from([SETTINGS, HIRES]))
def test_parameters_give_back_what_was_written(prompt: str, negative: str, settings: str) -> None:
    text = prompt + (f"\nNegative prompt: {negative}" if negative else "") + f"\n{settings}"
    assert parse_parameters(text.strip()) == (prompt.strip(), negative.strip())


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"inputs": inputs, "class_type": kind, "_meta": {"title": kind}}


def graph(**changes: dict[str, Any] | None) -> dict[str, Any]:
    """ComfyUI's default graph, as its API has it; `_6=` replaces node 6."""
    default = {
        "3": node("KSampler", seed=1, steps=20, cfg=8.0, sampler_name="euler", scheduler="normal", denoise=1.0)
        | {"is_changed": [float("nan")]},
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=512, batch_size=1),
        "6": node("CLIPTextEncode", text="a glass bottle", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="watermark", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }
    default["3"]["inputs"] |= {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    found = {**default, **{name.strip("_").replace("_", ":"): value for name, value in changes.items()}}
    return {name: value for name, value in found.items() if value is not None}


def sampler(**inputs: Any) -> dict[str, Any]:
    return node("KSampler", seed=2, model=["4", 0], latent_image=["5", 0], **inputs)


def encode(text: Any) -> dict[str, Any]:
    return node("CLIPTextEncode", text=text, clip=["4", 1])


def sdxl(**texts: Any) -> dict[str, Any]:
    return node("CLIPTextEncodeSDXL", width=1024, height=1024, crop_w=0, clip=["4", 1], **texts)


def controlled(positive: str, negative: str) -> dict[str, Any]:
    return node("ControlNetApplyAdvanced", positive=[positive, 0], negative=[negative, 0], image=["5", 0], strength=0.8)


FLUX = {
    "6": node("CLIPTextEncode", text="a cat", clip=["11", 0]),
    "8": node("VAEDecode", samples=["13", 0], vae=["10", 0]),
    "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    "10": node("VAELoader", vae_name="ae.safetensors"),
    "11": node("DualCLIPLoader", clip_name1="t5xxl_fp16.safetensors", clip_name2="clip_l.safetensors", type="flux"),
    "12": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
    "13": node("SamplerCustomAdvanced", noise=["25", 0], guider=["22", 0], sampler=["16", 0], latent_image=["27", 0]),
    "16": node("KSamplerSelect", sampler_name="euler"),
    "22": node("BasicGuider", model=["12", 0], conditioning=["26", 0]),
    "25": node("RandomNoise", noise_seed=1),
    "26": node("FluxGuidance", guidance=3.5, conditioning=["6", 0]),
    "27": node("EmptySD3LatentImage", width=1024, height=1024, batch_size=1),
}
FLUX_ENCODER = node("CLIPTextEncodeFlux", clip=["11", 0], clip_l="cat", t5xxl="a cat on a mat", guidance=3.5)

GRAPHS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "default": (graph(), ("a glass bottle", "watermark")),
    "text by a primitive": (
        graph(_6=encode(["10", 0]), _10=node("PrimitiveStringMultiline", value="a linked\nbottle")),
        ("a linked\nbottle", "watermark"),
    ),
    "texts put together": (
        graph(
            _6=encode(["10", 0]),
            _10=node("StringConcatenate", string_a=["11", 0], string_b="in snow", delimiter=", "),
            _11=node("String Literal", string="a fox"),
        ),
        ("a fox, in snow", "watermark"),
    ),
    "a wildcard that says what came out": (
        graph(
            _6=encode(["10", 0]),
            _10=node("ImpactWildcardProcessor", wildcard_text="a {fox|cat}", populated_text="a cat", mode="populate"),
        ),
        ("a cat", "watermark"),
    ),
    "a node that shows what came through": (
        graph(
            _6=encode(["10", 0]),
            _10=node("ShowText|pysssss", text=["11", 0], text_0="a made-up fox"),
            _11=node("OllamaGenerate", prompt="write a prompt about foxes", model="x"),
        ),
        ("", "watermark"),  # what it shows was there before the image
    ),
    "through a control net": (
        graph(_3=sampler(positive=["10", 0], negative=["10", 1]), _10=controlled("6", "7")),
        ("a glass bottle", "watermark"),
    ),
    "through other conditioning": (
        graph(
            _3=sampler(positive=["10", 0], negative=["12", 0]),
            _10=node("ConditioningSetArea", conditioning=["11", 0], width=64, height=64),
            _11=node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["13", 0]),
            _12=node("ConditioningZeroOut", conditioning=["6", 0]),
            _13=encode("a hand"),
        ),
        ("a glass bottle, a hand", ""),
    ),
    "a reroute": (
        graph(
            _3=sampler(positive=["10", 0], negative=["7", 0]), _10={"inputs": {"": ["6", 0]}, "class_type": "Reroute"}
        ),
        ("a glass bottle", "watermark"),
    ),
    "SDXL": (
        graph(_6=sdxl(text_g="a fox", text_l="a fox, in deep snow"), _7=sdxl(text_g="dull", text_l="dull")),
        ("a fox, in deep snow", "dull"),
    ),
    "a second pass with its own prompt": (
        graph(
            _10=node("LatentUpscaleBy", samples=["3", 0], scale_by=1.5),
            _11=sampler(positive=["12", 0], negative=["7", 0]) | {"class_type": "KSamplerAdvanced"},
            _12=encode("a sharp glass bottle"),
            _8=node("VAEDecode", samples=["11", 0], vae=["4", 2]),
        ),
        ("a sharp glass bottle", "watermark"),
    ),
    "a sampler that saves nothing": (
        graph(
            _1=sampler(positive=["2", 0], negative=["2", 0]),
            _2=encode("never saved"),
            _0=node("VAEDecode", samples=["1", 0], vae=["4", 2]),
        ),
        ("a glass bottle", "watermark"),
    ),
    "a loader with texts": (
        graph(
            _3=node("KSampler (Efficient)", seed=1, model=["10", 0], positive=["10", 1], negative=["10", 2]),
            _10=node("Efficient Loader", ckpt_name="x.safetensors", positive="1boy, mask", negative="lowres"),
        ),
        ("1boy, mask", "lowres"),
    ),
    "Flux": (FLUX, ("a cat", "")),
    "Flux's encoder": ({**FLUX, "6": FLUX_ENCODER}, ("a cat on a mat", "")),
    "Flux with a guider of two prompts": (
        {
            **FLUX,
            "22": node("CFGGuider", model=["12", 0], positive=["26", 0], negative=["28", 0], cfg=3.0),
            "28": node("CLIPTextEncode", text="dog", clip=["11", 0]),
        },
        ("a cat", "dog"),
    ),
    "a subgraph's names": (
        graph(_3=sampler(positive=["30:6", 0], negative=["7", 0]), _30_6=encode("inside a subgraph")),
        ("inside a subgraph", "watermark"),
    ),
    "only a preview": (graph(_9=node("PreviewImage", images=["8", 0])), ("a glass bottle", "watermark")),
    "a text that only a program knows": (
        graph(_6=encode(["10", 0]), _10=node("Florence2Run", image=["5", 0], model=["4", 0])),
        ("", "watermark"),
    ),
    "a circle": (graph(_6=encode(["6", 0])), ("", "watermark")),
    "a link to nowhere": (graph(_6=None), ("", "watermark")),
    "no sampler": ({"1": node("LoadImage", image="x.png"), "2": node("SaveImage", images=["1", 0])}, ("", "")),
    "nothing": ({}, ("", "")),
}


EFFICIENT = node("Efficient Loader", ckpt_name="x", positive="a fox", negative="dull")
PIPE = node("ToBasicPipe", model=["4", 0], clip=["4", 1], vae=["4", 2], positive=["6", 0], negative=["7", 0])
INSTANT = node("ApplyInstantID", model=["4", 0], positive=["6", 0], negative=["7", 0], image=["5", 0], weight=0.8)
GRAPHS |= {
    "a node that begins with its model": (
        graph(_3=sampler(positive=["10", 1], negative=["10", 2]), _10=INSTANT),
        ("a glass bottle", "watermark"),
    ),
    "a node of both sides that nobody knows, with a model": (
        graph(_3=sampler(positive=["10", 1], negative=["10", 2]), _10={**INSTANT, "class_type": "ApplyOther"}),
        ("", ""),
    ),
    "a pipe": (
        graph(
            _3=sampler(positive=["11", 3], negative=["11", 4]),
            _10=PIPE,
            _11=node("FromBasicPipe", basic_pipe=["10", 0]),
        ),
        ("a glass bottle", "watermark"),
    ),
    "a pipe into a sampler, one side changed": (
        graph(
            _3=node("ImpactKSamplerBasicPipe", basic_pipe=["11", 0], seed=1, steps=4, latent_image=["5", 0]),
            _10=PIPE,
            _11=node("EditBasicPipe", basic_pipe=["10", 0], positive=["12", 0]),
            _12=encode("a fox"),
        ),
        ("a fox", "watermark"),
    ),
    "a context, one side changed": (
        graph(
            _3=sampler(positive=["11", 4], negative=["11", 5]),
            _10=node("Context (rgthree)", positive=["6", 0], negative=["7", 0]),
            _11=node("Context (rgthree)", base_ctx=["10", 0], negative=["12", 0]),
            _12=encode("dull"),
        ),
        ("a glass bottle", "dull"),
    ),
    "a detailer with a prompt of its own": (
        graph(
            _9=node("SaveImage", filename_prefix="x", images=["10", 0]),
            _10=node("FaceDetailer", image=["8", 0], positive=["11", 0], negative=["7", 0], seed=1, steps=9, cfg=7.0),
            _11=encode("a detailed face"),
        ),
        ("a glass bottle", "watermark"),
    ),
    "an upscaler with a prompt of its own": (
        graph(
            _9=node("SaveImage", filename_prefix="x", images=["10", 0]),
            _10=node(
                "UltimateSDUpscaleNoUpscale", upscaled_image=["8", 0], positive=["11", 0], negative=["7", 0], seed=1
            ),
            _11=encode("details"),
        ),
        ("a glass bottle", "watermark"),
    ),
    "a service that draws from a picture": (
        graph(
            _9=node("SaveImage", filename_prefix="x", images=["10", 0]),
            _10=node("GeminiImage", prompt="make it a fox", images=["8", 0], seed=1),
        ),
        ("", ""),
    ),
    "two texts of which one is old": (
        graph(_6=node("smZ CLIPTextEncode", text="a fox", with_SDXL=False, text_g="old and long", clip=["4", 1])),
        ("a fox", "watermark"),
    ),
    "a switch by a node that turns an answer round": (
        graph(
            _3=sampler(positive=["10", 0], negative=["7", 0]),
            _10=node("ComfySwitchNode", switch=["11", 0], on_true=["6", 0], on_false=["7", 0]),
            _11=node("ComfyNotNode", value=True),
        ),
        ("", "watermark"),
    ),
    "texts joined by a pack, in the order of their names": (
        graph(_6=encode(["10", 0]), _10=node("Text Concatenate", delimiter=", ", text_b="in snow", text_a="a fox")),
        ("a fox, in snow", "watermark"),
    ),
}
BY_OTHERS = {
    "Text Multiline": {"text": "a fox"},
    "CR Text": {"text": "a fox"},
    "ttN text": {"text": "a fox"},
    "StringConstantMultiline": {"string": "a fox"},
    "Power Prompt (rgthree)": {"prompt": "a fox <lora:ink:0.8>"},
}
MAKES_ANOTHER = {
    **{
        kind: {"text": "a fox"}
        for kind in ("FooocusPromptExpansion", "DeepTranslatorTextNode", "PromptEnhancer", "MagicPrompt")
    },
    "OllamaGenerateV2": {"system": "You write prompts", "prompt": "a fox"},
    "DPRandomGenerator": {"text": "a {red|blue} fox", "seed": 3},
    "easy promptLine": {"prompt": "a fox\na cat", "start_index": 1, "max_rows": 1},
    "CR Text Replace": {"text": "a cat", "find1": "cat", "replace1": "fox"},
    "SDXLPromptStyler": {"text_positive": "a fox", "text_negative": "", "style": "photo"},
    "StringFunction|pysssss": {"action": "append", "text_a": "a fox", "text_b": "in snow"},
    "Moondream": {"prompt": "what is it", "image": ["5", 0]},
}


@pytest.mark.parametrize("kind", [*BY_OTHERS, *MAKES_ANOTHER])
def test_texts_of_packs_are_believed_where_they_can_be_known(kind: str) -> None:
    """As text of an encoder, and as that of a loader that has a box for it."""
    text, expected = node(kind, **{**BY_OTHERS, **MAKES_ANOTHER}[kind]), "a fox" if kind in BY_OTHERS else ""
    encoded = graph(_6=encode(["10", 0]), _10=text)
    assert parse_graph(json.dumps(encoded)) == (expected, "watermark")
    loaded = {**EFFICIENT, "inputs": {**EFFICIENT["inputs"], "positive": ["11", 0]}}
    made = graph(_3=sampler(positive=["10", 1], negative=["10", 2]), _10=loaded, _11=text)
    assert parse_graph(json.dumps(made)) == (expected, "dull")


def test_an_encoder_that_changes_its_text_is_not_believed() -> None:
    for kind in ("GoogleTranslateCLIPTextEncodeNode", "CLIPTextEncode (NSP)", "BatchPromptSchedule"):
        made = graph(_6=node(kind, text="a __animal__", clip=["4", 1]))
        assert parse_graph(json.dumps(made)) == ("", "watermark"), kind


def test_graphs_that_would_take_for_ever_have_no_prompt() -> None:
    combined = {
        f"1{i}": node("ConditioningCombine", conditioning_1=[f"1{i + 1}", 0], conditioning_2=[f"1{i + 1}", 0])
        for i in range(60)
    }
    made = graph(_3=sampler(positive=["10", 0], negative=["7", 0])) | combined | {"160": encode("a fox")}
    assert parse_graph(json.dumps(made)) == ("a fox", "watermark")
    grown = {
        f"1{i}": node("StringConcatenate", string_a=[f"1{i + 1}", 0], string_b=[f"1{i + 1}", 0], delimiter="")
        for i in range(60)
    }
    made = graph(_6=encode(["10", 0])) | grown | {"160": node("PrimitiveString", value="a fox")}
    assert parse_graph(json.dumps(made)) == ("", "watermark")
    swollen = {f"1{i}": node("StringReplace", string=[f"1{i + 1}", 0], find="a", replace="a" * 99) for i in range(20)}
    made = graph(_6=encode(["10", 0])) | swollen | {"120": node("PrimitiveString", value="a fox")}
    assert parse_graph(json.dumps(made)) == ("", "watermark")
    assert parse_graph(json.dumps(graph(_6=encode("<lora:" * 50_000))))[1] == "watermark"
    named = graph(_9=node("SaveImage", filename_prefix="a%" + "b%a%" * 20, images=["8", 0]))
    assert parse_graph(json.dumps(named), "a" * 200)[0] == "a glass bottle"


def test_a_saved_preview_is_not_the_image_beside_it() -> None:
    made = graph(_1=sampler(positive=["2", 0], negative=["7", 0]), _2=encode("a draft"))
    made |= {"20": node("VAEDecode", samples=["1", 0], vae=["4", 2]), "21": node("PreviewImage", images=["20", 0])}
    assert parse_graph(json.dumps(made), "ComfyUI_temp_abcde_00001_")[0] == "a draft"
    assert parse_graph(json.dumps(made), "ComfyUI_00001_")[0] == "a glass bottle"


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name: str) -> None:
    made, expected = GRAPHS[name]
    assert parse_graph(json.dumps(made)) == expected


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", '{"3": 1}', '{"3": {"inputs": []}}', "[" * 100_000])
def test_what_is_no_graph_has_no_prompt(text: str) -> None:
    assert parse_graph(text) == ("", "")


def commented(comment: bytes) -> bytes:
    """EXIF as cameras lay it out: one entry that leads to the EXIF block, and in that one user comment."""
    pointer = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)
    block = struct.pack("<HHHIII", 1, 0x9286, 7, len(comment), 44, 0)
    return b"Exif\0\0II*\0\x08\0\0\0" + pointer + block + comment


def picture(path: Path, *, exif: Image.Exif | bytes | None = None, **chunks: str) -> Path:
    image, info = Image.new("RGB", (8, 8)), PngInfo()
    for name, text in chunks.items():
        info.add_text(name, text)
    image.save(path, **({"pnginfo": info} if chunks else {}), **({"exif": exif} if exif else {}))
    return path


TOLD = f"a red fox, 赤い狐\nNegative prompt: blurry\n{SETTINGS}"


def test_a_png_of_a1111(tmp_path: Path) -> None:
    assert read_prompts(picture(tmp_path / "a.png", parameters=TOLD)) == ("a red fox, 赤い狐", "blurry")


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.png"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + TOLD.encode("utf-16-be"),
        b"UNICODE\0" + TOLD.encode("utf-16-le"),
        b"ASCII\0\0\0" + TOLD.encode(),
        bytes(8) + TOLD.encode() + b"\0",
    ],
)
def test_exif_of_a1111(tmp_path: Path, name: str, comment: bytes) -> None:
    assert read_prompts(picture(tmp_path / name, exif=commented(comment))) == ("a red fox, 赤い狐", "blurry")


def test_pictures_of_comfyui(tmp_path: Path) -> None:
    told = json.dumps(graph())
    assert read_prompts(picture(tmp_path / "a.png", prompt=told, workflow="{}")) == ("a glass bottle", "watermark")
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "workflow:{}", f"prompt:{told}"
    assert read_prompts(picture(tmp_path / "a.webp", exif=exif)) == ("a glass bottle", "watermark")


def test_parameters_come_before_the_graph_and_a_text_beside_before_both(tmp_path: Path) -> None:
    both = picture(tmp_path / "a.png", prompt=json.dumps(graph()), parameters=TOLD)
    assert read_prompts(both)[0] == "a red fox, 赤い狐"
    (tmp_path / "a.txt").write_text("\ufeffa fox of mine\n", encoding="utf-8")
    assert read_prompts(both) == ("a fox of mine", "")
    (tmp_path / "a.txt").write_text(TOLD, encoding="utf-8")  # as A1111 writes them
    assert read_prompts(both) == ("a red fox, 赤い狐", "blurry")


def test_a_picture_that_says_nothing_and_texts_that_cannot_be_read(tmp_path: Path) -> None:
    plain = picture(tmp_path / "a.png", Comment="made with love")
    assert read_prompts(plain) == ("", "")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(D3POError, match=r"a\.txt cannot be read as text. Save it as UTF-8"):
        read_prompts(plain)


def test_an_empty_caption_hides_no_other(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "a.CAPTION").write_text("a fox in capitals")
    assert read_prompts(image) == ("a fox in capitals", "")
    (tmp_path / "a.caption").unlink(missing_ok=True)
    (tmp_path / "a.txt").write_text("a fox in small letters")
    assert read_prompts(image)[0] == "a fox in small letters"


@pytest.mark.parametrize("text", [b"{", b"[1", b"\0\1\2\3\0\0", b"[" * 100_000])
def test_a_damaged_json_leaves_no_picture_out(tmp_path: Path, text: bytes) -> None:
    for side in ("winners", "losers"):
        (tmp_path / side).mkdir()
        picture(tmp_path / side / "a.png", parameters=f"a fox of the {side}")
        (tmp_path / side / "a.json").write_bytes(text)
    judged = read_source(tmp_path)
    assert sorted(group.prompt for group in judged.groups) == ["a fox of the losers", "a fox of the winners"]
    assert not judged.left_out
    assert "Captions that could not be read as JSON were passed over: a.json." in judged.notes
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"images": ["winners/a.png"], "scores": [1]}')
    assert "a.json" in " ".join(read_source(lines).notes) and not read_source(lines).left_out


def test_a_json_that_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, noticed = picture(tmp_path / "a.png", parameters="a fox"), Noticed()
    (tmp_path / "a.json").write_text('{"prompt": "a hare"}')
    read = Path.read_bytes

    def refusing(path: Path) -> bytes:
        if path.suffix == ".json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    assert read_prompts(image, damaged) == ("a fox", "") and noticed.damaged == ["a.json"]
