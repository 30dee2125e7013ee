"""Prompts are read from ComfyUI's graphs, of its own nodes and of packs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from d3po_core.importing.graphs import parse_graph


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
