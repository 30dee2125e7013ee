"""Small graphs as people have them, of ComfyUI's own nodes, whose prompts are known by running them.

Nodes 4 (model, CLIP, VAE), 5 (an empty latent), 6 and 7 (two prompts), 3 (a sampler), 8 and 9 are those of the host's
default graph; each case changes some. None takes a node away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]
Graph = dict[str, Node]
LONG = "a red fox in deep snow, at dawn"


def node(kind: str, **inputs: Any) -> Node:
    return {"class_type": kind, "inputs": inputs}


def encode(text: Any) -> Node:
    return node("CLIPTextEncode", text=text, clip=["4", 1])


def sampler(positive: Any = None, negative: Any = None, latent: Any = None, **more: Any) -> Node:
    inputs = {"model": ["4", 0], "positive": positive or ["6", 0], "negative": negative or ["7", 0]}
    how = {"seed": 1, "steps": 2, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return node("KSampler", **inputs, latent_image=latent or ["5", 0], **{**how, **more})


def decode(samples: str) -> Node:
    return node("VAEDecode", samples=[samples, 0], vae=["4", 2])


def save(images: Any, prefix: str = "ComfyUI") -> Node:
    return node("SaveImage", filename_prefix=prefix, images=images)


def graph(**changes: Node | None) -> Graph:
    """The default graph; `_6` replaces or adds node 6."""
    default = {
        "4": node("CheckpointLoaderSimple", ckpt_name="x.safetensors"),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "6": encode("a red fox"),
        "7": encode("blurry, ugly"),
        "3": sampler(),
        "8": decode("3"),
        "9": save(["8", 0]),
    }
    found = {**default, **{name.strip("_").replace("_", ":"): value for name, value in changes.items()}}
    return {name: value for name, value in found.items() if value is not None}


IMAGE = node("LoadImage", image="x.png")
CONTROL = node("ControlNetLoader", control_net_name="c.safetensors")


def controlled(kind: str = "ControlNetApplyAdvanced", positive: Any = None, negative: Any = None) -> Node:
    sides = {"positive": positive or ["6", 0], "negative": negative or ["7", 0]}
    how = {"strength": 0.8, "start_percent": 0.0, "end_percent": 1.0}
    return node(kind, **sides, control_net=["11", 0], image=["12", 0], **how)


def both_sides() -> Iterator[tuple[str, Graph]]:
    """Nodes that have a positive and a negative side."""
    with_control = {"_10": controlled(), "_11": CONTROL, "_12": IMAGE}
    yield "control net", graph(_3=sampler(["10", 0], ["10", 1]), **with_control)
    yield "control net, sides exchanged", graph(_3=sampler(["10", 1], ["10", 0]), **with_control)
    yield "control net, positive side only", graph(_3=sampler(["10", 0]), **with_control)
    yield "control net, one side for both", graph(_3=sampler(["10", 0], ["10", 0]), **with_control)
    twice = {**with_control, "_13": controlled(positive=["10", 0], negative=["10", 1])}
    yield "two control nets", graph(_3=sampler(["13", 0], ["13", 1]), **twice)
    pair = node(
        "PairConditioningSetProperties",
        positive_NEW=["6", 0],
        negative_NEW=["7", 0],
        strength=1.0,
        set_cond_area="default",
    )
    yield "a pair with properties", graph(_3=sampler(["10", 0], ["10", 1]), _10=pair)
    ends = {"positive_A": ["6", 0], "negative_A": ["7", 0], "positive_B": ["11", 0], "negative_B": ["12", 0]}
    joined = {"_10": node("PairConditioningCombine", **ends), "_11": encode("in snow"), "_12": encode("dull")}
    yield "two pairs", graph(_3=sampler(["10", 0], ["10", 1]), **joined)
    yield "two pairs, exchanged", graph(_3=sampler(["10", 1], ["10", 0]), **joined)
    video = node("LTXVConditioning", positive=["6", 0], negative=["7", 0], frame_rate=25.0)
    yield "a frame rate", graph(_3=sampler(["10", 0], ["10", 1]), _10=video)
    edit = node("InstructPixToPixConditioning", positive=["6", 0], negative=["7", 0], vae=["4", 2], pixels=["12", 0])
    yield "an edit", graph(_3=sampler(["10", 0], ["10", 1], ["10", 2]), _10=edit, _12=IMAGE)


def one_side() -> Iterator[tuple[str, Graph]]:
    """Nodes that pass on, combine or empty one conditioning."""
    area = node("ConditioningSetArea", conditioning=["6", 0], width=64, height=64, x=0, y=0, strength=1.0)
    yield "an area", graph(_3=sampler(["10", 0]), _10=area)
    step = node("ConditioningSetTimestepRange", conditioning=["6", 0], start=0.0, end=0.5)
    yield "a range of steps", graph(_3=sampler(["10", 0]), _10=step)
    yield (
        "no negative prompt",
        graph(_3=sampler(None, ["10", 0]), _10=node("ConditioningZeroOut", conditioning=["7", 0])),
    )
    yield (
        "the positive one emptied",
        graph(_3=sampler(None, ["10", 0]), _10=node("ConditioningZeroOut", conditioning=["6", 0])),
    )
    for kind, ends in (
        ("ConditioningCombine", ("conditioning_1", "conditioning_2")),
        ("ConditioningConcat", ("conditioning_to", "conditioning_from")),
    ):
        two = node(kind, **{ends[0]: ["6", 0], ends[1]: ["11", 0]})
        yield kind, graph(_3=sampler(["10", 0]), _10=two, _11=encode("in snow"))
        yield f"{kind} of one text", graph(_3=sampler(["10", 0]), _10=two, _11=encode("a red fox"))
    chain = node("ConditioningCombine", conditioning_1=["10", 0], conditioning_2=["12", 0])
    first = node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["11", 0])
    texts = {"_11": encode("in snow"), "_12": encode("at dawn")}
    yield "three combined", graph(_3=sampler(["13", 0]), _10=first, _13=chain, **texts)
    mask = node("ConditioningSetMask", conditioning=["6", 0], mask=["12", 1], strength=1.0, set_cond_area="default")
    yield "a mask", graph(_3=sampler(["10", 0]), _10=mask, _12=IMAGE)
    yield "Flux's guidance", graph(_3=sampler(["10", 0]), _10=node("FluxGuidance", conditioning=["6", 0], guidance=3.5))
    box = {"conditioning_to": ["6", 0], "clip": ["4", 1], "gligen_textbox_model": ["11", 0], "text": "a hat"}
    gligen = node("GLIGENTextBoxApply", **box, width=64, height=64, x=0, y=0)
    yield "a text box", graph(_3=sampler(["10", 0]), _10=gligen, _11=node("GLIGENLoader", gligen_name="g"))


def encoders() -> Iterator[tuple[str, Graph]]:
    """Nodes that encode texts."""
    size = {
        "width": 64,
        "height": 64,
        "crop_w": 0,
        "crop_h": 0,
        "target_width": 64,
        "target_height": 64,
        "clip": ["4", 1],
    }
    yield "SDXL, one text", graph(_6=node("CLIPTextEncodeSDXL", text_g="a red fox", text_l="a red fox", **size))
    yield "SDXL, two texts", graph(_6=node("CLIPTextEncodeSDXL", text_g="a fox", text_l=LONG, **size))
    flux = {"clip": ["4", 1], "clip_l": "a fox", "t5xxl": LONG, "guidance": 3.5}
    yield "Flux's encoder", graph(_6=node("CLIPTextEncodeFlux", **flux))
    three = {
        "clip": ["4", 1],
        "clip_l": "a red fox",
        "clip_g": "a red fox",
        "t5xxl": "a red fox",
        "empty_padding": "none",
    }
    yield "SD3's encoder", graph(_6=node("CLIPTextEncodeSD3", **three))
    yield "HunyuanDiT's encoder", graph(_6=node("CLIPTextEncodeHunyuanDiT", clip=["4", 1], bert="a fox", mt5xl=LONG))
    yield (
        "PixArt's encoder",
        graph(_6=node("CLIPTextEncodePixArtAlpha", width=64, height=64, text="a red fox", clip=["4", 1])),
    )
    yield "a LoRA's tag", graph(_6=encode("a red fox <lora:ink:0.8>"))
    yield "lines and brackets", graph(_6=encode("(a red fox:1.2),\nin snow, {deep}"))


def strings() -> Iterator[tuple[str, Graph]]:
    """Nodes that hold or change texts."""
    held = node("PrimitiveStringMultiline", value="a red\nfox")
    yield "a primitive", graph(_6=encode(["10", 0]), _10=held)
    yield "one primitive for two encoders", graph(_6=encode(["10", 0]), _7=encode(["10", 0]), _10=held)
    both = node("StringConcatenate", string_a="a red fox", string_b=["11", 0], delimiter=", ")
    yield "texts joined", graph(_6=encode(["10", 0]), _10=both, _11=node("PrimitiveString", value="in snow"))
    yield (
        "an empty half",
        graph(_6=encode(["10", 0]), _10=node("StringConcatenate", string_a="", string_b="a fox", delimiter="")),
    )
    trees = {"_10": node("StringConcatenate", string_a=["11", 0], string_b=["12", 0], delimiter=" | ")}
    trees |= {"_11": both, "_12": node("PrimitiveString", value="at dawn")}
    trees["_11"] = node("StringConcatenate", string_a="a red fox", string_b="in snow", delimiter=", ")
    yield "joined twice", graph(_6=encode(["10", 0]), **trees)
    found = node("StringReplace", string="a {animal} in snow", find="{animal}", replace=["11", 0])
    yield "a text replaced", graph(_6=encode(["10", 0]), _10=found, _11=node("PrimitiveString", value="fox"))
    for mode in ("Both", "Left", "Right"):
        yield f"trimmed, {mode}", graph(_6=encode(["10", 0]), _10=node("StringTrim", string="  a fox  ", mode=mode))
    for mode in ("UPPERCASE", "lowercase", "Capitalize", "Title Case"):
        yield f"letters, {mode}", graph(_6=encode(["10", 0]), _10=node("CaseConverter", string="a Red fox", mode=mode))
    yield (
        "a part of a text",
        graph(_6=encode(["10", 0]), _10=node("StringSubstring", string="a red fox in snow", start=2, end=9)),
    )
    expression = node("RegexReplace", string="a cat", regex_pattern="c.t", replace="fox", case_insensitive=True)
    expression["inputs"] |= {"multiline": False, "dotall": False, "count": 0}
    yield "a regular expression", graph(_6=encode(["10", 0]), _10=expression)
    part = {
        "regex_pattern": "a (\\w+)",
        "mode": "First Match",
        "case_insensitive": True,
        "multiline": False,
        "dotall": False,
    }
    yield "extracted", graph(_6=encode(["10", 0]), _10=node("RegexExtract", string="a fox", group_index=1, **part))
    yield "from JSON", graph(_6=encode(["10", 0]), _10=node("JsonExtractString", json_string='{"p": "a fox"}', key="p"))
    yield "shown on the way", graph(_6=encode(["10", 0]), _10=node("PreviewAny", source=["11", 0]), _11=held)
    yield (
        "a number as text",
        graph(_6=encode(["10", 0]), _10=node("PreviewAny", source=["11", 0]), _11=node("PrimitiveInt", value=7)),
    )


def switches() -> Iterator[tuple[str, Graph]]:
    """Nodes that let one of several through."""
    for value in (True, False):
        two = {"on_true": ["6", 0], "on_false": ["11", 0]}
        yield (
            f"a switch of prompts, {value}",
            graph(_3=sampler(["10", 0]), _10=node("ComfySwitchNode", switch=value, **two), _11=encode("a blue cat")),
        )
        linked = node("ComfySwitchNode", switch=["12", 0], on_true="a red fox", on_false=["11", 0])
        yield (
            f"a switch of texts by a primitive, {value}",
            graph(
                _6=encode(["10", 0]),
                _10=linked,
                _11=node("PrimitiveString", value="a blue cat"),
                _12=node("PrimitiveBoolean", value=value),
            ),
        )
    compared = node("StringContains", string="a fox", substring="fox", case_sensitive=True)
    unknown = node("ComfySwitchNode", switch=["12", 0], on_true="a red fox", on_false="a blue cat")
    yield "a switch by a comparison", graph(_6=encode(["10", 0]), _10=unknown, _12=compared)


def samplers() -> Iterator[tuple[str, Graph]]:
    """Other samplers, and several of them."""
    how = {
        "add_noise": "enable",
        "noise_seed": 1,
        "steps": 2,
        "cfg": 8.0,
        "sampler_name": "euler",
        "scheduler": "normal",
    }
    ends = {"start_at_step": 0, "end_at_step": 9, "return_with_leftover_noise": "disable"}
    sides = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    yield "the advanced sampler", graph(_3=node("KSamplerAdvanced", **sides, **how, **ends))
    guided = {
        "noise": ["20", 0],
        "guider": ["21", 0],
        "sampler": ["22", 0],
        "sigmas": ["23", 0],
        "latent_image": ["5", 0],
    }
    custom = {
        "_3": node("SamplerCustomAdvanced", **guided),
        "_20": node("RandomNoise", noise_seed=1),
        "_22": node("KSamplerSelect", sampler_name="euler"),
        "_23": node("ManualSigmas", sigmas="14.6, 5, 0"),
    }
    yield (
        "a guider of two sides",
        graph(**custom, _21=node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=3.0)),
    )
    yield (
        "a guider of two sides, exchanged",
        graph(**custom, _21=node("CFGGuider", model=["4", 0], positive=["7", 0], negative=["6", 0], cfg=3.0)),
    )
    yield "a guider of one side", graph(**custom, _21=node("BasicGuider", model=["4", 0], conditioning=["6", 0]))
    larger = {"_20": node("LatentUpscaleBy", samples=["3", 0], upscale_method="nearest-exact", scale_by=1.5)}
    yield "a second pass", graph(**larger, _21=sampler(latent=["20", 0], denoise=0.5), _8=decode("21"))
    again = {"_20": node("VAEEncode", pixels=["24", 0], vae=["4", 2]), "_24": decode("3")}
    yield "a second pass over pixels", graph(**again, _21=sampler(latent=["20", 0], denoise=0.5), _8=decode("21"))
    yield "an image as it was loaded", graph(_9=save(["12", 0]), _12=IMAGE)
    started = {"_20": node("VAEEncode", pixels=["12", 0], vae=["4", 2]), "_12": IMAGE}
    yield "from an image", graph(_3=sampler(latent=["20", 0], denoise=0.6), **started)
    scaled = node("ImageScaleBy", image=["8", 0], upscale_method="nearest-exact", scale_by=2.0)
    yield "an image scaled", graph(_20=scaled, _9=save(["20", 0]))


def several() -> Iterator[tuple[str, Graph]]:
    """Several images of one press."""
    other = {"_13": sampler(["16", 0]), "_16": encode("a blue cat"), "_18": decode("13")}
    yield "two samplers, two names", graph(**other, _9=save(["8", 0], "A"), _19=save(["18", 0], "B"))
    yield "names of which one begins as the other", graph(**other, _9=save(["8", 0], "A"), _19=save(["18", 0], "AB"))
    yield "folders in names", graph(**other, _9=save(["8", 0], "x/A"), _19=save(["18", 0], "y/B"))
    yield "dates in names", graph(**other, _9=save(["8", 0], "A_%year%"), _19=save(["18", 0], "B_%year%"))
    yield "two samplers, one name", graph(**other, _19=save(["18", 0]))
    yield "two samplers of one prompt, one name", graph(**{**other, "_16": encode("a red fox")}, _19=save(["18", 0]))
    batch = node("ImageBatch", image1=["8", 0], image2=["18", 0])
    yield "two samplers, one batch", graph(**other, _20=batch, _9=save(["20", 0]))
    yield "a sampler that only shows", graph(**other, _19=node("PreviewImage", images=["18", 0]))
    yield "a sampler whose image leads nowhere", graph(**other)
    whole = {"destination": ["8", 0], "source": ["18", 0], "x": 0, "y": 0, "resize_source": False}
    yield "one image pasted into another", graph(**other, _20=node("ImageCompositeMasked", **whole), _9=save(["20", 0]))


FAMILIES = (both_sides, one_side, encoders, strings, switches, samplers, several)
CASES: dict[str, Graph] = {name: made for family in FAMILIES for name, made in family()}
