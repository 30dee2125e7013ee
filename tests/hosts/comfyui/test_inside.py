"""The adapter against the host's own functions, inside the host's process: each script `inside_*.py` measures."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from d3po_core.importing.graphs import OUTPUTS, SIDES, parse_graph
from d3po_core.lora import load_lora
from tests.lora_networks import load_with_diffusers, warnings_of_diffusers

from .conftest import HOST, PYTHON
from .prompt_graphs import CASES

Found = dict[str, Any]


@pytest.fixture(scope="module")
def measured(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Found]:
    """What a script prints; each runs once."""
    folder = tmp_path_factory.mktemp("loras")

    @cache
    def run(name: str) -> Found:
        values = [str(folder)] if name == "lora" else []
        command = [PYTHON, str(Path(__file__).parent / f"inside_{name}.py"), *values, str(base / "models")]
        environment = {**os.environ, "COMFYUI_DIR": str(HOST), "OMP_WAIT_POLICY": "passive"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-4000:]
        return dict(json.loads(done.stdout.splitlines()[-1]))

    return run


def of(name: str, measures: Found) -> dict[str, Any]:
    """All cases' values of that name."""
    return {case: values[name] for case, values in measures.items()}


def of_first(refusals: dict[str, list[str]]) -> list[str]:
    """What was wrong, of each."""
    return [what for what, _ in refusals.values()]


def test_pictures_are_bit_equal_to_the_hosts(measured: Callable[[str], Found]) -> None:
    measures = measured("sampling")
    assert len(measures) == 12  # SD 1.5 and a flow model; an empty latent, an inpainted and another; two ways
    assert all(of("equal", measures).values()) and all(of("finite", measures).values())
    assert min(of("different", measures).values()) > 0  # the candidates differ
    for case, trained in of("trained", measures).items():
        assert trained == 4 if case.endswith("everywhere") else 0 < trained < 4, case


def test_what_is_recorded_is_what_the_host_did(measured: Callable[[str], Found]) -> None:
    measures = measured("sampling")
    assert all(of("predictions", measures).values())
    assert max(of("off the steps", measures).values()) < 1e-6  # its samplers are the core's linear Gaussian steps


def test_trained_is_what_was_sampled_whatever_stands_upstream(measured: Callable[[str], Found]) -> None:
    measures = measured("upstream")
    assert all(of("equal", measures).values()) and all(of("finite", measures).values())
    assert max(*of("guided", measures).values(), *of("cond", measures).values()) <= 1e-4
    assert max(of("slope", measures).values()) <= 5e-3  # the gradient is that of two predictions nearby
    assert all(of("unharmed", measures).values())


def test_a_picture_beside_the_text_is_kept_and_taught_with(measured: Callable[[str], Found]) -> None:
    measures = measured("references")
    assert of("host", measures) == {
        **{"Flux Kontext": "Flux", "Flux Kontext, two pictures": "Flux", "Flux.2": "Flux2"},
        **{"Qwen-Image-Edit": "QwenImage", "InstructPix2Pix": "SD15_instructpix2pix", "unCLIP": "SD21UNCLIP"},
    }
    assert all(of("equal", measures).values()) and all(of("finite", measures).values())
    assert min(of("effect", measures).values()) > 0  # another picture, or none, gives others
    assert all(of("same key", measures).values())  # what a run keeps, read after a restart, is all of it
    for names in of("names", measures).values():
        assert names == ["a lake", "a lake (2)", "a lake"]  # each picture is a prompt, found again
    assert set(of("keys", measures).values()) == {2}
    assert all(of("one level", measures).values())  # bit-equal with a fresh LoRA
    assert max(of("guided", measures).values()) <= 1e-4
    assert max(of("slope", measures).values()) <= 5e-3 and all(of("no gradient", measures).values())
    assert all(of("unharmed", measures).values())


def test_every_upstream_node_has_an_effect(measured: Callable[[str], Found]) -> None:
    """Or the test above says nothing of it."""
    effects = of("effect", measured("upstream"))
    assert [case for case, effect in effects.items() if effect == 0] == ["nothing", "flow"]


def test_what_cannot_be_taught_is_told_before_any_work(measured: Callable[[str], Found]) -> None:
    measures = measured("support")
    assert len(measures["refused"]) == 15 and len(set(of_first(measures["refused"]))) >= 9
    assert all(what and do for what, do in measures["refused"].values())
    for name in ("HyperTile", "TomePatchModel"):  # refused, because the host itself does not draw the same twice
        assert name in measures["refused"] and not measures["same again"].pop(name)
    assert all(measures["same again"].values()) and set(measures["same again"]) <= set(measures["let through"])


def test_the_host_is_as_it_was(measured: Callable[[str], Found]) -> None:
    measures = measured("unharmed")
    assert measures.pop("lengths") == [77, 154]  # prompts of different token lengths were taught from
    draws, teaches = measures.pop("evaluations")
    assert draws >= 4 and teaches >= 8 and len(measures) == 10
    ends = of("ended", measures)
    assert ends.pop("teaching") == "done"
    assert {case.split(", ")[1]: end for case, end in ends.items()} == {
        **{"a failure": "KeyError", "out of memory": "OutOfMemoryError"},
        "interrupted": "InterruptProcessingException",
    }
    assert all(of("same picture", measures).values())
    assert not any(of("changed", measures).values())  # hooks, patches, weights' kinds, modes, modules
    assert not any(of("tensors", measures).values()) and not any(of("bytes", measures).values())


def test_a_rewards_gradient_reaches_the_lora_through_the_hosts_vae(measured: Callable[[str], Found]) -> None:
    measures = measured("reward")
    assert len(measures) == 2 and all(of("reached", measures).values()) and min(of("blocks", measures).values()) > 0
    for name in ("entry", "slope", "tiles"):  # of one entry of the LoRA, along the whole gradient; decoded in tiles
        assert all(abs(value - 1) <= 0.02 for value in of(name, measures).values()), of(name, measures)
    assert max(of("computed twice", measures).values()) < 1e-4
    assert max(of("off the VAE", measures).values()) < 1e-4


def test_teaching_by_a_reward_goes_on_and_leaves_the_host_as_it_was(measured: Callable[[str], Found]) -> None:
    measures = measured("reward")
    assert all(of("interrupted", measures).values()) and max(of("gone on", measures).values()) < 1e-6
    assert all(of("same picture", measures).values()) and all(of("unharmed", measures).values())


def test_prompts_are_told_apart_by_what_cannot_be_stored_too(measured: Callable[[str], Found]) -> None:
    measures = measured("prompts")
    assert len(set(measures["keys"].values())) == 9
    for name, key in measures["again"].items():  # made anew, or used meanwhile, it is the same prompt
        assert key == measures["keys"][name.partition(",")[0]], name


def test_the_hosts_loader_takes_our_loras(measured: Callable[[str], Found]) -> None:
    measures = measured("lora")
    assert len(measures) == 6 and not any(of("complaints", measures).values()), "no key is left out"
    for case, values in measures.items():
        assert values["patches"] >= values["layers"] > 0, case  # of SD 3's joint projections each part is one
        assert values["error"] < 1e-4 and values["effect"] > 1e-2, case


UNET = {"in_channels": 4, "out_channels": 4, "sample_size": 8}
DIFFUSERS: dict[str, dict[str, Any]] = {
    "sd_v1": {
        **{"block_out_channels": (320, 320), "layers_per_block": 1, "attention_head_dim": 8},
        **{"cross_attention_dim": 768, "down_block_types": ("CrossAttnDownBlock2D",) * 2},
        **{"up_block_types": ("CrossAttnUpBlock2D",) * 2},
    },
    "sdxl": {
        **{"block_out_channels": (320, 320, 320), "attention_head_dim": 5, "cross_attention_dim": 2048},
        **{"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")},
        **{"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "use_linear_projection": True},
        **{"transformer_layers_per_block": (1, 2, 10), "reverse_transformer_layers_per_block": (1, 1, 1)},
        **{"addition_embed_type": "text_time", "addition_time_embed_dim": 256},
        **{"projection_class_embeddings_input_dim": 2816},
    },
}
"""The tiny networks as diffusers knows them (its middle block takes the last depth, the tiny one has 1)."""

diffusers_warnings = pytest.fixture(warnings_of_diffusers)


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize("family", DIFFUSERS)
def test_diffusers_takes_every_key(
    measured: Callable[[str], Found], family: str, targets: str, diffusers_warnings: list[str]
) -> None:
    from diffusers import UNet2DConditionModel

    values = measured("lora")[f"{family}, {targets}"]
    unet = UNet2DConditionModel(**UNET, **DIFFUSERS[family])
    load_with_diffusers(unet, Path(values["file"]))
    layers = [module for module in unet.modules() if hasattr(module, "lora_A") and module.lora_A]
    assert len(layers) == values["layers"] and not diffusers_warnings
    tensors, _ = load_lora(values["file"])
    sizes = sorted(float(value.norm()) for key, value in tensors.items() if "lora_up" in key)
    taken = sorted(float(parameter.detach().norm()) for layer in layers for parameter in layer.lora_B.parameters())
    assert taken == pytest.approx(sizes, rel=1e-6) and min(sizes) > 0


def test_the_hosts_clip_vision_sees_with_a_gradient(measured: Callable[[str], Found]) -> None:
    measures = measured("clip")
    assert measures["32x32"] < 1e-5  # which nothing resizes; else the host rounds what it has resized, and crops alike
    assert measures["80x48"] < 0.01 and measures["24x40"] < 0.01
    assert abs(measures["slope"] - 1) < 0.01 and measures["unharmed"]
    assert measures["noted"] < 1e-3 and measures["sees"] and measures["same name"]  # as Teach's judge sees with it
    assert (
        measures["groups"] == 24 and measures["accuracy"] > 0.7 and measures["warmer"] > 0
    )  # red was liked, blue was not


def prompts_of(recorded: list[list[str]]) -> set[str]:
    """What a prompt may be read as: one text of each encoder, without tags of LoRAs, put together once each."""
    texts = [[re.sub(r"<\w+:[^>]+>", "", text).strip() for text in each] or [""] for each in recorded]
    return {", ".join(dict.fromkeys(filter(None, one))) for one in itertools.product(*texts)}


def test_no_graph_gives_another_prompt_than_the_samplers(measured: Callable[[str], Found]) -> None:
    """Small graphs run in the host, with a text encoder and samplers that record; right, or none, and never wrong."""
    found, right, none = measured("graphs"), list[str](), list[str]()
    for name, graph in CASES.items():
        assert "error" not in found[name], (name, found[name])
        for prefix, images in found[name].items():
            last = re.split(r"[\\/]", re.sub("%.*?%", "2026", prefix))[-1]
            read = parse_graph(json.dumps(graph), f"{last}_00001_")
            called = [each for each in images if each]
            for side, text in zip(("positive", "negative"), read, strict=True):
                possible = [prompts_of(each[side]) for each in called] or [{""}]
                where = f"{name}, {prefix}, {side}"
                if text:
                    assert all(text in each for each in possible), (where, text, possible)
                (right if all(text in each for each in possible) else none).append(where)
    print(f"\n{len(CASES)} graphs: {len(right)} prompts right, {len(none)} none: {none}")
    assert len(CASES) >= 60 and len(right) >= 0.85 * (len(right) + len(none))


def test_nodes_with_two_sides_have_them_in_the_order_that_is_taken_for_granted(
    measured: Callable[[str], Found],
) -> None:
    """Of all nodes of the host, by what they name their outputs."""
    sided = measured("sides")
    assert len(sided) > 20
    for kind, names in sided.items():
        order = OUTPUTS.get(kind, dict(enumerate(SIDES)))
        assert {i: side for i, side in order.items() if names[i] != side and not names[i].startswith(side)} == {}, kind


def test_every_other_sampler_that_adds_noise_is_told_which_of_ours_is_nearest(
    measured: Callable[[str], Found],
) -> None:
    measures = measured("samplers")
    noisy = {name for name, each in measures.items() if each["noisy"]}
    assert len(noisy) >= 15 and {"euler_ancestral", "dpmpp_2s_ancestral", "er_sde", "lcm"} <= noisy
    advised = {name for name, each in measures.items() if each["advice"]}
    assert advised == noisy - {"euler_ancestral", "ddpm"}
    assert all(f"nearest to {name} here" in measures[name]["advice"] for name in advised)


def test_a_distilled_model_in_the_graph_is_spoken_of(measured: Callable[[str], Found]) -> None:
    advice = measured("few_steps")
    assert set(advice["ordinary"].values()) == {""}
    assert all(text.startswith("z_image_turbo_bf16 looks like a few-step model") for text in advice["turbo"].values())
    assert all(text.startswith("dmd2_sdxl_4step_lora looks like") for text in advice["LoRA"].values())  # of 20 steps
    assert advice["Flux dev"]["5.0"].startswith("flux1-dev-fp8 looks like a guidance-distilled model")
    assert advice["Flux dev"]["1.0"] == ""
