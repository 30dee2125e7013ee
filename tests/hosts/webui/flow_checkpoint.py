"""Random checkpoints of flow models, small ones in the layouts that Forge Neo detects: `write(folder, "flux")`.

Each is one file with network, VAE and text encoders, whose names and shapes are those of the real files. The host reads
most of a network's widths from the file, so these are tiny; what it fixes has its real size. Text encoders and VAEs are
sized by the config.json files in the host's folder of components, backend/huggingface, and large language models by
numbers in its source: `components` makes a copy of the folder, with small numbers for both, which the probe puts in
place of the host's (see D3PO_PROBE_COMPONENTS there). All else is the host's own and unpatched: detection, network,
predictor, engine, sampling, LoRA loader, tokenizers. What language models see pictures with is left out.

Some are not small, by what the host fixes. `LARGE` are those that tests draw with only when they are asked to. There is
no file of these, with the parameters that the network would have at least: Chroma (0.62 G: its guidance layer is
5 x 2 x 5120 x 5120, its blocks 3072 wide), Anima (2.0 G: 28 blocks, 2048 wide), Ernie-Image (8 G: nothing is read).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from .checkpoint import Shapes, carry_through, clip_g, clip_l, convolution, linear, random_tensor, unet, vae

TEXT = 64
"""Width of text where the network reads it from the file."""
VAE = (32, 32, 32, 32)
"""Widths of a VAE's levels: its norms have 32 groups."""


SHARES = {
    (".wo.weight", "_attn.proj.weight", ".to_out.0.weight", ".to_add_out.weight"): 8.0,
    (".attention.q_norm.weight", ".attention_norm2.weight"): 4.0,
    (".o_proj.weight", ".down_proj.weight"): 0.25,
}
"""How much some layers add beside others, by the end of their names, so that a few words change a picture.

A network's attention adds much: it is a mean over many words, of which few are the prompt's. A language model's layers
add little, lest what they add to every word alike hide the words.
"""


@dataclass(frozen=True)
class Engine:
    """A kind of model.

    Args:
        repository: the folder of its components.
        parts: for each prefix of the file, what stands there.
        configs: for each component, what is changed in its config.json.
        sizes: for each class of numbers in the host's backend/nn/llm/llama.py, what is changed there.
        finish: changes the random tensors.
    """

    repository: str
    parts: Callable[[], dict[str, Shapes]]
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    finish: Callable[[dict[str, Tensor]], None] = lambda tensors: None


def write(folder: Path, engine: str) -> Path:
    """Make `<engine>.safetensors` in a folder, which is made if it is missing."""
    rng, kind = torch.Generator().manual_seed(0), ENGINES[engine]
    parts = ((prefix, name, shape) for prefix, part in kind.parts().items() for name, shape in part)
    tensors = {prefix + name: _random(name, shape, rng).half() for prefix, name, shape in parts}
    kind.finish(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{engine}.safetensors"
    save_file(tensors, path)
    return path


def components(theirs: Path, folder: Path, engine: str) -> Path:
    """Copy an engine's components out of a host's folder, with small config.json files and links to all else.

    Returns:
        The folder, to be given to the probe in D3PO_PROBE_COMPONENTS.
    """
    kind = ENGINES[engine]
    repository = folder / kind.repository
    for source in sorted((theirs / kind.repository).iterdir()):
        target = repository / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.name not in kind.configs:
            target.symlink_to(source)
            continue
        target.mkdir()
        config = json.loads((source / "config.json").read_text())
        (target / "config.json").write_text(json.dumps(config | kind.configs[source.name]))
    (folder / "sizes.json").write_text(json.dumps(kind.sizes))
    return folder


def _random(name: str, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Draw a tensor that keeps a unit spread; norms do nothing."""
    if name in ("shared.weight", "model.embed_tokens.weight"):
        return words(shape, rng)
    if name.endswith((".gamma", "running_var", "_norm.scale")):
        return torch.ones(shape)
    share = next((share for ends, share in SHARES.items() if name.endswith(ends)), 1.0)
    return random_tensor(name, shape, rng) * share


def words(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Draw a text encoder's embeddings.

    They have a mean, as emphasis in a prompt divides by that of its text. The first word, which fills a text up, is
    zero: so what its places hold comes from the others, and a few words change a text of 256.
    """
    value = torch.randn(shape, generator=rng) + 0.5
    value[0] = 0
    return value


# -- Flux ------------------------------------------------------------------------------------------------------------

FLUX = 128
"""Its width: one head."""


def flux_dev() -> dict[str, Shapes]:
    """Flux.1 dev."""
    return {
        "model.diffusion_model.": flux(),
        "vae.": vae(16, VAE, quantised=False),
        "text_encoders.clip_l.transformer.text_model.": clip_l(TEXT, 1),
        "text_encoders.t5xxl.transformer.": t5(),
    }


def flux() -> Shapes:
    """A transformer with one double and one single block, which takes guidance."""
    yield from linear("img_in", 64, FLUX)
    yield from linear("txt_in", TEXT, FLUX)
    for name, into in (("time_in", 256), ("vector_in", TEXT), ("guidance_in", 256)):
        yield from linear(f"{name}.in_layer", into, FLUX)
        yield from linear(f"{name}.out_layer", FLUX, FLUX)
    for stream in ("img", "txt"):
        inside = f"double_blocks.0.{stream}"
        yield from linear(f"{inside}_mod.lin", FLUX, 6 * FLUX)
        yield from linear(f"{inside}_attn.qkv", FLUX, 3 * FLUX)
        yield from flux_norms(f"{inside}_attn.norm")
        yield from linear(f"{inside}_attn.proj", FLUX, FLUX)
        yield from linear(f"{inside}_mlp.0", FLUX, 4 * FLUX)
        yield from linear(f"{inside}_mlp.2", 4 * FLUX, FLUX)
    yield from linear("single_blocks.0.modulation.lin", FLUX, 3 * FLUX)
    yield from linear("single_blocks.0.linear1", FLUX, 7 * FLUX)
    yield from linear("single_blocks.0.linear2", 5 * FLUX, FLUX)
    yield from flux_norms("single_blocks.0.norm")
    yield from linear("final_layer.adaLN_modulation.1", FLUX, 2 * FLUX)
    yield from linear("final_layer.linear", FLUX, 64)


def flux_norms(name: str) -> Shapes:
    """The norms of queries and keys."""
    for of in ("query_norm", "key_norm"):
        yield f"{name}.{of}.scale", (128,)


# -- Krea 2 ----------------------------------------------------------------------------------------------------------

KREA = 128
"""Its width: one head."""
KREA_TEXT = 80
"""Width of its text, for 20 heads."""


def krea2() -> dict[str, Shapes]:
    """Krea 2, with all layers of the text encoder: the network reads twelve of them."""
    return {
        "model.diffusion_model.": krea(),
        "vae.": wan_vae(),
        "text_encoders.qwen3vl_4b.transformer.": llama(KREA_TEXT, 36, 128, normed=True),
    }


def krea() -> Shapes:
    """A transformer with two blocks, and what joins the layers of the text; its norms add 1 to what they hold."""
    yield from linear("first", 64, KREA)
    yield from linear("tmlp.0", 256, KREA)
    yield from linear("tmlp.2", KREA, KREA)
    yield from linear("tproj.1", KREA, 6 * KREA)
    for stage in ("layerwise", "refiner"):
        for block in range(2):
            yield from krea_block(f"txtfusion.{stage}_blocks.{block}", KREA_TEXT, KREA_TEXT // 20, 256)
    yield "txtfusion.projector.weight", (1, 12)
    yield "txtmlp.0.scale", (KREA_TEXT,)
    yield from linear("txtmlp.1", KREA_TEXT, KREA)
    yield from linear("txtmlp.3", KREA, KREA)
    for block in range(2):
        yield f"blocks.{block}.mod.lin", (6 * KREA,)
        yield from krea_block(f"blocks.{block}", KREA, KREA, 384)
    yield "last.norm.scale", (KREA,)
    yield "last.modulation.lin", (2, KREA)
    yield from linear("last.linear", KREA, 64)


def krea_block(name: str, width: int, head: int, inner: int) -> Shapes:
    """Gated attention and a gated perceptron."""
    for of in ("prenorm", "postnorm"):
        yield f"{name}.{of}.scale", (width,)
    for projection in ("wq", "wk", "wv", "gate", "wo"):
        yield f"{name}.attn.{projection}.weight", (width, width)
    for of in ("qnorm", "knorm"):
        yield f"{name}.attn.qknorm.{of}.scale", (head,)
    yield f"{name}.mlp.gate.weight", (inner, width)
    yield f"{name}.mlp.up.weight", (inner, width)
    yield f"{name}.mlp.down.weight", (width, inner)


# -- Lumina 2 and Z-Image --------------------------------------------------------------------------------------------


def lumina2() -> dict[str, Shapes]:
    """Lumina 2: its width of 2304 and its four refining blocks are fixed."""
    return {
        "model.diffusion_model.": next_dit(2304, 9216, 3840, 96, 1024, 2304),
        "vae.": vae(16, VAE, quantised=False),
        "text_encoders.gemma2_2b.transformer.": llama(TEXT, 3, 256, gemma=True),
    }


def z_image() -> dict[str, Shapes]:
    """Z-Image: its width of 3840 and its four refining blocks are fixed."""
    return {
        "model.diffusion_model.": next_dit(3840, 10240, 11520, 128, 256, 256, padded=True),
        "vae.": vae(16, VAE, quantised=False),
        "text_encoders.qwen3_4b.transformer.": llama(TEXT, 3, 128, normed=True),
    }


def next_dit(
    width: int, inner: int, projections: int, head: int, modulation: int, time: int, padded: bool = False
) -> Shapes:
    """A transformer with one block.

    Args:
        inner: width inside the perceptrons.
        projections: width of queries, keys and values together.
        head: width of one head.
        modulation: how much of the embedded time modulates.
        time: width of the embedded time.
        padded: whether text and picture are filled up with something learnt.
    """
    yield from linear("x_embedder", 64, width)
    yield from linear("t_embedder.mlp.0", 256, 1024)
    yield from linear("t_embedder.mlp.2", 1024, min(time, 1024))
    yield "cap_embedder.0.weight", (TEXT,)
    yield from linear("cap_embedder.1", TEXT, width)
    if padded:
        yield "x_pad_token", (1, width)
        yield "cap_pad_token", (1, width)
    for block in ("noise_refiner.0", "noise_refiner.1", "context_refiner.0", "context_refiner.1", "layers.0"):
        yield f"{block}.attention.qkv.weight", (projections, width)
        yield f"{block}.attention.out.weight", (width, width)
        yield f"{block}.attention.q_norm.weight", (head,)
        yield f"{block}.attention.k_norm.weight", (head,)
        yield f"{block}.feed_forward.w1.weight", (inner, width)
        yield f"{block}.feed_forward.w2.weight", (width, inner)
        yield f"{block}.feed_forward.w3.weight", (inner, width)
        for of in ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"):
            yield f"{block}.{of}.weight", (width,)
        if not block.startswith("context"):
            yield from linear(f"{block}.adaLN_modulation.{0 if padded else 1}", modulation, 4 * width)
    yield from linear("final_layer.adaLN_modulation.1", modulation, width)
    yield from linear("final_layer.linear", width, 64)


# -- Qwen-Image ------------------------------------------------------------------------------------------------------

QWEN, QWEN_TEXT = 3072, 3584
"""Its width and that of its text are fixed."""


def qwen_image() -> dict[str, Shapes]:
    """Qwen-Image."""
    return {
        "model.diffusion_model.": qwen(),
        "vae.": wan_vae(),
        "text_encoders.qwen25_7b.": llama(QWEN_TEXT, 2, 128, biased=True),
    }


def qwen() -> Shapes:
    """A transformer with one block."""
    yield "txt_norm.weight", (QWEN_TEXT,)
    yield from linear("txt_in", QWEN_TEXT, QWEN)
    yield from linear("img_in", 64, QWEN)
    yield from linear("time_text_embed.timestep_embedder.linear_1", 256, QWEN)
    yield from linear("time_text_embed.timestep_embedder.linear_2", QWEN, QWEN)
    block = "transformer_blocks.0"
    for stream in ("img", "txt"):
        yield from linear(f"{block}.{stream}_mod.1", QWEN, 6 * QWEN)
        yield from linear(f"{block}.{stream}_mlp.net.0.proj", QWEN, 4 * QWEN)
        yield from linear(f"{block}.{stream}_mlp.net.2", 4 * QWEN, QWEN)
    for projection in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
        yield from linear(f"{block}.attn.{projection}", QWEN, QWEN)
    for of in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        yield f"{block}.attn.{of}.weight", (128,)
    yield from linear("norm_out.linear", QWEN, 2 * QWEN)
    yield from linear("proj_out", QWEN, 64)


# -- Flux.2 Klein ----------------------------------------------------------------------------------------------------

KLEIN = 3072
"""Its width, by which the host knows it."""


def flux2_klein() -> dict[str, Shapes]:
    """Flux.2 Klein, with layers enough of the text encoder: the network reads the 9th, 18th and 27th."""
    return {
        "model.diffusion_model.": klein(),
        "vae.": flux2_vae(),
        "text_encoders.qwen3_4b.transformer.": llama(TEXT, 28, 128, normed=True),
    }


def klein() -> Shapes:
    """A transformer with one double and one single block; its modulations are shared, nothing has a bias."""
    yield "img_in.weight", (KLEIN, 128)
    yield "txt_in.weight", (KLEIN, 3 * TEXT)
    yield "time_in.in_layer.weight", (KLEIN, 256)
    yield "time_in.out_layer.weight", (KLEIN, KLEIN)
    yield "double_stream_modulation_img.lin.weight", (6 * KLEIN, KLEIN)
    yield "double_stream_modulation_txt.lin.weight", (6 * KLEIN, KLEIN)
    yield "single_stream_modulation.lin.weight", (3 * KLEIN, KLEIN)
    for stream in ("img", "txt"):
        inside = f"double_blocks.0.{stream}"
        yield f"{inside}_attn.qkv.weight", (3 * KLEIN, KLEIN)
        yield from flux_norms(f"{inside}_attn.norm")
        yield f"{inside}_attn.proj.weight", (KLEIN, KLEIN)
        yield f"{inside}_mlp.0.weight", (6 * KLEIN, KLEIN)
        yield f"{inside}_mlp.2.weight", (KLEIN, 3 * KLEIN)
    yield "single_blocks.0.linear1.weight", (9 * KLEIN, KLEIN)
    yield "single_blocks.0.linear2.weight", (KLEIN, 4 * KLEIN)
    yield from flux_norms("single_blocks.0.norm")
    yield "final_layer.adaLN_modulation.1.weight", (2 * KLEIN, KLEIN)
    yield "final_layer.linear.weight", (128, KLEIN)


# -- SDXL as a flow model, and Mugen, which is SDXL with Flux.2's VAE ------------------------------------------------


def mugen() -> dict[str, Shapes]:
    """Mugen."""
    return {**sdxl(32), "first_stage_model.": flux2_vae()}


def sdxl(latents: int = 4) -> dict[str, Shapes]:
    """SDXL, with text encoders of two layers: the host reads the last but one."""
    return {
        "model.diffusion_model.": unet("sdxl", latents),
        "first_stage_model.": vae(4, VAE),
        "conditioner.embedders.0.transformer.text_model.": clip_l(layers=2),
        "conditioner.embedders.1.model.": clip_g(layers=2),
    }


# -- text ------------------------------------------------------------------------------------------------------------


def t5() -> Shapes:
    """T5's encoder: two layers, as its host takes no file of 16 tensors or fewer for one."""
    yield "shared.weight", (32128, TEXT)
    yield "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 1)
    for block in range(2):
        inside = f"encoder.block.{block}.layer"
        for projection in "qkvo":
            yield f"{inside}.0.SelfAttention.{projection}.weight", (TEXT, TEXT)
        for projection in ("wi_0", "wi_1", "wo"):
            yield f"{inside}.1.DenseReluDense.{projection}.weight", (TEXT, TEXT)
        for layer in range(2):
            yield f"{inside}.{layer}.layer_norm.weight", (TEXT,)
    yield "encoder.final_layer_norm.weight", (TEXT,)


def llama(
    width: int, layers: int, head: int, normed: bool = False, biased: bool = False, gemma: bool = False
) -> Shapes:
    """A language model with one head.

    Args:
        normed: whether queries and keys are.
        biased: whether queries, keys and values are.
        gemma: whether norms follow what is added, too.
    """
    norms = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    yield "model.embed_tokens.weight", ({True: 256000, False: 152064 if biased else 151936}[gemma], width)
    for layer in range(layers):
        inside = f"model.layers.{layer}"
        for projection in "qkv":
            yield f"{inside}.self_attn.{projection}_proj.weight", (head, width)
            if biased:
                yield f"{inside}.self_attn.{projection}_proj.bias", (head,)
        yield f"{inside}.self_attn.o_proj.weight", (width, head)
        for of in ("q_norm", "k_norm") if normed else ():
            yield f"{inside}.self_attn.{of}.weight", (head,)
        yield f"{inside}.mlp.gate_proj.weight", (TEXT, width)
        yield f"{inside}.mlp.up_proj.weight", (TEXT, width)
        yield f"{inside}.mlp.down_proj.weight", (width, TEXT)
        for of in norms if gemma else norms[:2]:
            yield f"{inside}.{of}.weight", (width,)
    yield "model.norm.weight", (width,)


# -- VAEs ------------------------------------------------------------------------------------------------------------

WAN = 8
"""Width of the first level of Wan's VAE."""


def flux2_vae() -> Shapes:
    """Flux.2's VAE: 32 channels, and the statistics of them in patches of 2 x 2."""
    yield from vae(32, VAE)
    yield "bn.running_mean", (128,)
    yield "bn.running_var", (128,)


def wan_vae() -> Shapes:
    """Wan 2.1's VAE, for pictures and films."""
    yield from film("encoder.conv1", 3, WAN)
    number, into = 0, WAN
    for level, width in enumerate((WAN, 2 * WAN, 4 * WAN, 4 * WAN)):
        for _ in range(2):
            yield from wan_block(f"encoder.downsamples.{number}", into, width)
            number, into = number + 1, width
        if level < 3:
            yield from convolution(f"encoder.downsamples.{number}.resample.1", width, width)
            if level > 0:
                yield from film(f"encoder.downsamples.{number}.time_conv", width, width, (3, 1, 1))
            number += 1
    yield from wan_end("encoder", 4 * WAN, 32)
    yield from film("conv1", 32, 32, (1, 1, 1))
    yield from film("conv2", 16, 16, (1, 1, 1))
    yield from film("decoder.conv1", 16, 4 * WAN)
    number, into = 0, 4 * WAN
    for level, width in enumerate((4 * WAN, 4 * WAN, 2 * WAN, WAN)):
        for _ in range(3):
            yield from wan_block(f"decoder.upsamples.{number}", into, width)
            number, into = number + 1, width
        if level < 3:
            yield from convolution(f"decoder.upsamples.{number}.resample.1", width, width // 2)
            if level < 2:
                yield from film(f"decoder.upsamples.{number}.time_conv", width, 2 * width, (3, 1, 1))
            number, into = number + 1, width // 2
    yield from wan_end("decoder", WAN, 3)


def wan_block(name: str, into: int, out: int) -> Shapes:
    """A residual block."""
    yield f"{name}.residual.0.gamma", (into, 1, 1, 1)
    yield from film(f"{name}.residual.2", into, out)
    yield f"{name}.residual.3.gamma", (out, 1, 1, 1)
    yield from film(f"{name}.residual.6", out, out)
    if into != out:
        yield from film(f"{name}.shortcut", into, out, (1, 1, 1))


def wan_end(name: str, width: int, out: int) -> Shapes:
    """The middle of an encoder or decoder, and its output."""
    yield from wan_block(f"{name}.middle.0", 4 * WAN, 4 * WAN)
    yield f"{name}.middle.1.norm.gamma", (4 * WAN, 1, 1)
    yield from convolution(f"{name}.middle.1.to_qkv", 4 * WAN, 12 * WAN, 1)
    yield from convolution(f"{name}.middle.1.proj", 4 * WAN, 4 * WAN, 1)
    yield from wan_block(f"{name}.middle.2", 4 * WAN, 4 * WAN)
    yield f"{name}.head.0.gamma", (width, 1, 1, 1)
    yield from film(f"{name}.head.2", width, out)


def film(name: str, into: int, out: int, size: tuple[int, int, int] = (3, 3, 3)) -> Shapes:
    """A convolution over time, height and width."""
    yield f"{name}.weight", (out, into, *size)
    yield f"{name}.bias", (out,)


# -- all of them -----------------------------------------------------------------------------------------------------

SMALL_CLIP = {"hidden_size": TEXT, "intermediate_size": 4 * TEXT, "num_attention_heads": 1, "num_hidden_layers": 1}
SMALL_T5 = {"d_model": TEXT, "d_ff": TEXT, "num_heads": 1, "num_layers": 2}
SMALL_VAE = {"block_out_channels": VAE}
SMALL_WAN = {"base_dim": WAN}
SMALL_LLAMA = {"hidden_size": TEXT, "intermediate_size": TEXT, "num_attention_heads": 1, "num_key_value_heads": 1}


def without_norms(tensors: dict[str, Tensor]) -> None:
    """Let Gemma's norms hold zeros, to which they add 1."""
    for name in tensors:
        if name.startswith("text_encoders.") and name.endswith("norm.weight"):
            tensors[name] = torch.zeros_like(tensors[name])


def count_batches(tensors: dict[str, Tensor]) -> None:
    """Add how many batches there were, as Flux.2's VAE has it beside its statistics."""
    for name in [name for name in tensors if name.endswith("bn.running_var")]:
        tensors[name.replace("running_var", "num_batches_tracked")] = torch.tensor(1)


ENGINES = {
    "flux": Engine(
        "black-forest-labs/FLUX.1-dev",
        flux_dev,
        {"text_encoder": SMALL_CLIP, "text_encoder_2": SMALL_T5, "vae": SMALL_VAE},
    ),
    "rectified": Engine(
        "stabilityai/stable-diffusion-xl-base-1.0",
        sdxl,
        {"text_encoder": {"num_hidden_layers": 2}, "text_encoder_2": {"num_hidden_layers": 2}, "vae": SMALL_VAE},
        finish=lambda tensors: carry_through(tensors, "sdxl"),
    ),
    "krea2": Engine(
        "krea/Krea-2-Raw", krea2, {"vae": SMALL_WAN}, {"Qwen3VL_4BConfig": {**SMALL_LLAMA, "hidden_size": KREA_TEXT}}
    ),
    "lumina2": Engine(
        "neta-art/Neta-Lumina",
        lumina2,
        {"vae": SMALL_VAE},
        {"Gemma2_2B_Config": {**SMALL_LLAMA, "num_hidden_layers": 3}},
        finish=without_norms,
    ),
    "qwen": Engine(
        "Qwen/Qwen-Image",
        qwen_image,
        {"vae": SMALL_WAN},
        {"Qwen25_7BVLI_Config": {**SMALL_LLAMA, "hidden_size": QWEN_TEXT, "num_hidden_layers": 2}},
    ),
    "zimage": Engine(
        "Tongyi-MAI/Z-Image-Turbo",
        z_image,
        {"vae": SMALL_VAE},
        {"Qwen3_4BConfig": {**SMALL_LLAMA, "num_hidden_layers": 3}},
    ),
    "klein": Engine(
        "black-forest-labs/FLUX.2-klein-4B",
        flux2_klein,
        {"vae": SMALL_VAE},
        {"Qwen3_4BConfig": {**SMALL_LLAMA, "num_hidden_layers": 28}},
        finish=count_batches,
    ),
    "mugen": Engine(
        "CabalResearch/Mugen",
        mugen,
        {"text_encoder": {"num_hidden_layers": 2}, "text_encoder_2": {"num_hidden_layers": 2}, "vae": SMALL_VAE},
        finish=count_batches,
    ),
}
"""By the name of the file. The host takes SDXL for a flow model where its path contains "rectified"."""
LARGE = {
    "qwen": "3.7 GB: its text is 3584 wide, and its words are kept in 32 bits",
    "zimage": "3.6 GB: it is 3840 wide, and has four blocks beside its layers",
    "klein": "2.2 GB, and seconds for a step: its text is filled up to 512 words",
}
"""Engines that take much memory in 32 bits, or much time on processors."""
PRESETS = {"flux": "flux", "krea2": "krea", "rectified": "xl"}
"""The host's preset for each."""
