"""Random checkpoints of flow models, small ones in the layouts that Forge Neo detects: `write(folder, "flux")`.

Each is one file with network, VAE and text encoders, whose names and shapes are those of the real files. The host reads
most of a network's widths from the file, so these are tiny; what it fixes has its real size. Text encoders and VAEs are
sized by the config.json files in the host's folder of components, backend/huggingface: `components` makes a copy with
small numbers in them, and the probe puts it in place of the host's (see D3PO_PROBE_COMPONENTS there). All else is the
host's own and unpatched: detection, network, predictor, engine, sampling, LoRA loader, tokenizers.
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

from .checkpoint import Shapes, carry_through, clip_g, clip_l, linear, random_tensor, unet, vae

TEXT = 64
"""Width of text where the network reads it from the file."""
VAE = (32, 32, 32, 32)
"""Widths of a VAE's levels: its norms have 32 groups."""


@dataclass(frozen=True)
class Engine:
    """A kind of model.

    Args:
        repository: the folder of its components.
        parts: for each prefix of the file, what stands there.
        configs: for each component, what is changed in its config.json.
        finish: changes the random tensors.
    """

    repository: str
    parts: Callable[[], dict[str, Shapes]]
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    finish: Callable[[dict[str, Tensor]], None] = lambda tensors: None


def write(folder: Path, engine: str) -> Path:
    """Make `<engine>.safetensors` in a folder, which is made if it is missing."""
    rng, kind = torch.Generator().manual_seed(0), ENGINES[engine]
    tensors = {
        prefix + name: _random(name, shape, rng) for prefix, part in kind.parts().items() for name, shape in part
    }
    kind.finish(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{engine}.safetensors"
    save_file({name: value.half().contiguous() for name, value in tensors.items()}, path)
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
    return folder


def _random(name: str, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Draw a tensor that keeps a unit spread."""
    if name.endswith(".scale"):
        return torch.ones(shape)
    if name == "shared.weight":
        return words(shape, rng)
    return random_tensor(name, shape, rng)


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
    """A transformer with one double and one single block, which is told the guidance."""
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


# -- SDXL as a flow model --------------------------------------------------------------------------------------------


def sdxl() -> dict[str, Shapes]:
    """SDXL, with text encoders of two layers: the host reads the last but one."""
    return {
        "model.diffusion_model.": unet("sdxl"),
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


SMALL_CLIP = {"hidden_size": TEXT, "intermediate_size": 4 * TEXT, "num_attention_heads": 1, "num_hidden_layers": 1}
SMALL_T5 = {"d_model": TEXT, "d_ff": TEXT, "num_heads": 1, "num_layers": 2}
SMALL_VAE = {"block_out_channels": VAE}

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
        lambda tensors: carry_through(tensors, "sdxl"),
    ),
}
"""By the name of the file. The host takes SDXL for a flow model where its path contains "rectified"."""
