# ruff: noqa: E402 - the host's modules can be imported only once its folder is known
"""Later models inside the host's own process: `python inside_later.py NAME` prints JSON.

A tiny random network of the architecture, which the host knows by its state dict as it would a real file. A LoRA by our
hooks is saved, loaded by the host's own loader, and the two predictions compared; pictures are drawn by our recording
and by the host's sampler on the same noise.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, os.environ["COMFYUI_DIR"])
name = sys.argv.pop()

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.model_detection
import comfy.ops
import comfy.samplers
import comfy.sd
import comfy.utils
import torch
from comfy.k_diffusion import sampling as k_diffusion
from torch import Tensor

ROOT = Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
assert spec and spec.loader
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)

from pack.d3po_core.diffusion.denoiser import stack
from pack.d3po_core.diffusion.rollout import CandidateNoise, make_plan
from pack.d3po_core.lora import LayerWeights, attach, import_lora, model_family, save_lora
from pack.d3po_core.settings import LoraSettings, SampleSettings
from pack.nodes.host.memory import checkpointed, large_blocks
from pack.nodes.host.model import HostModel
from pack.nodes.host.sampling import host_sampling

CANDIDATES, STEPS, SCALE = 2, 4, 3.0


class Later(NamedTuple):
    """A tiny network.

    Attributes:
        network: the host's class.
        config: its sizes.
        latent: (C, h, w) or (C, frames, h, w).
        context: width of the text's tokens.
        assumed: sizes that the host takes for granted and does not read from the file.
    """

    network: str
    config: dict[str, Any]
    latent: tuple[int, ...]
    context: int
    assumed: tuple[str, ...] = ()


def without(config: dict[str, Any], entry: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != entry}


FLUX = {
    **{"in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 64, "hidden_size": 128},
    **{
        "mlp_ratio": 4.0,
        "num_heads": 1,
        "depth": 1,
        "depth_single_blocks": 2,
        "axes_dim": [16, 56, 56],
        "theta": 10000,
    },
    **{"patch_size": 2, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": []},
}
FLUX2 = {
    **{"in_channels": 128, "out_channels": 128, "vec_in_dim": None, "axes_dim": [32] * 4, "mlp_ratio": 3.0},
    **{"global_modulation": True, "mlp_silu_act": True, "ops_bias": False, "qkv_bias": False, "patch_size": 1},
    **{"txt_ids_dims": [3]},
}
CHROMA = {
    **{"in_channels": 64, "out_channels": 64, "vec_in_dim": None, "in_dim": 64, "out_dim": 128, "hidden_dim": 64},
    **{"n_layers": 5},
}
HUNYUAN = {
    **{"in_channels": 64, "out_channels": 64, "vec_in_dim": None, "axes_dim": [64, 64], "theta": 256},
    **{"patch_size": [1, 1], "guidance_embed": False, "byt5": False, "meanflow": False},
    **{"use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False},
}
NEXTDIT = {
    **{"in_channels": 16, "dim": 256, "n_layers": 2, "n_refiner_layers": 2, "n_heads": 2, "n_kv_heads": 2},
    **{"axes_dims": [32, 48, 48], "axes_lens": [300, 64, 64], "cap_feat_dim": 64, "qk_norm": True},
}
COSMOS = {
    **{"max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16, "out_channels": 16},
    **{"patch_spatial": 2, "patch_temporal": 1, "model_channels": 256, "num_blocks": 2, "num_heads": 2},
    **{"crossattn_emb_channels": 1024, "use_adaln_lora": True, "adaln_lora_dim": 256, "pos_emb_cls": "rope3d"},
    "extra_per_block_abs_pos_emb": False,
}
AURA = {"n_layers": 3, "n_double_layers": 1, "dim": 128, "n_heads": 2, "global_conddim": 128, "max_seq": 64}
QWEN = {
    **{"num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": 64},
    "axes_dims_rope": (8, 12, 12),
}
ERNIE = {"hidden_size": 256, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 512, "text_in_dim": 64}
WAN = {"dim": 128, "ffn_dim": 256, "num_heads": 1, "num_layers": 2}
LATER = {
    "Flux.1": Later("flux.model.Flux", FLUX, (16, 8, 8), 64),
    "Flux.2": Later("flux.model.Flux", FLUX | FLUX2, (128, 4, 4), 64),
    "Chroma": Later(
        "chroma.model.Chroma", without(FLUX | CHROMA, "guidance_embed"), (16, 8, 8), 64, ("out_dim", "hidden_dim")
    ),
    "HunyuanImage": Later("hunyuan_video.model.HunyuanVideo", without(FLUX | HUNYUAN, "txt_ids_dims"), (64, 4, 4), 64),
    "Qwen-Image": Later(
        "qwen_image.model.QwenImageTransformer2DModel",
        QWEN,
        (16, 1, 8, 8),
        64,
        ("attention_head_dim", "num_attention_heads", "joint_attention_dim", "axes_dims_rope"),
    ),
    "Lumina 2": Later(
        "lumina.model.NextDiT", NEXTDIT, (16, 8, 8), 64, ("n_heads", "n_kv_heads", "axes_dims", "axes_lens")
    ),
    "Z-Image": Later(
        "lumina.model.NextDiT",
        NEXTDIT | {"z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32},
        (16, 8, 8),
        64,
        (
            *("n_heads", "n_kv_heads", "axes_dims", "axes_lens"),
            *("z_image_modulation", "time_scale", "pad_tokens_multiple"),
        ),
    ),
    "Cosmos-Predict2": Later("cosmos.predict2.MiniTrainDIT", COSMOS, (16, 1, 8, 8), 1024, ("num_heads",)),
    "Ernie": Later("ernie.model.ErnieImageModel", ERNIE, (128, 4, 4), 64, tuple(ERNIE)),
    "Wan": Later("wan.model.WanModel", WAN, (16, 1, 8, 8), 4096),
    "AuraFlow": Later("aura.mmdit.MMDiT", AURA, (4, 8, 8), 2048, ("dim", "n_heads", "global_conddim")),
}
later = LATER[name]
measures: dict[str, Any] = {}


def random_weights() -> dict[str, Tensor]:
    """Normal with variance 1 / fan-in, so that nothing overflows; norms are as at the start of a training."""
    module, _, kind = f"comfy.ldm.{later.network}".rpartition(".")
    operations, rng = comfy.ops.disable_weight_init, torch.Generator().manual_seed(0)
    network = getattr(importlib.import_module(module), kind)
    made = network(**later.config, dtype=torch.float32, device="meta", operations=operations)
    weights = {}
    for key, value in made.state_dict().items():
        if value.dim() > 1:
            weights[key] = torch.randn(value.shape, generator=rng) / math.sqrt(math.prod(value.shape[1:]))
        else:
            weights[key] = torch.zeros(value.shape) if key.endswith("bias") else torch.ones(value.shape)
    return weights


def loaded() -> Any:
    """The network as a MODEL, by the host's own loader."""
    detect = comfy.model_detection.detect_unet_config
    assumed = {key: later.config[key] for key in later.assumed}
    comfy.model_detection.detect_unet_config = lambda *values, **named: detect(*values, **named) | assumed
    return comfy.sd.load_diffusion_model_state_dict(random_weights(), model_options={"dtype": torch.float32})


class Complaints(logging.Handler):
    """What the host warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


complaints = Complaints()
logging.getLogger().addHandler(complaints)
with torch.inference_mode():
    patcher = loaded()
    rng = torch.Generator().manual_seed(1)
    positive, negative = (
        [[torch.randn(1, 5, later.context, generator=rng), {"pooled_output": torch.randn(1, 768, generator=rng)}]]
        for _ in range(2)
    )
    latent = {"samples": torch.zeros(1, *later.latent)}
measures["host"] = type(patcher.model).__name__
measures["loading"], complaints.messages = complaints.messages, []
network = patcher.model.diffusion_model
measures["base"] = model_family(network)


def noises(model: HostModel) -> list[CandidateNoise]:
    return [CandidateNoise(0, 0, c, model.latent_shape(), "same") for c in range(CANDIDATES)]


def by_the_host(model: HostModel, patcher: Any, function: Any, sigmas: Tensor) -> Tensor:
    """The host's own sampling with the noise that ours takes."""
    drawn = noises(model)
    start = torch.stack([noise.start() for noise in drawn])
    guider = comfy.samplers.CFGGuider(patcher.clone())
    guider.set_conds(positive, negative)
    guider.set_cfg(SCALE)
    fresh = {"noise_sampler": lambda sigma, sigma_next: torch.stack([noise.step() for noise in drawn])}
    sampler = comfy.samplers.KSAMPLER(function, extra_options=fresh)
    return guider.sample(start, torch.zeros_like(start), sampler, sigmas.float(), seed=0)


def once(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, **_: Any) -> Tensor:
    """A "sampler" that gives the first prediction."""
    return model(x, sigmas[0] * x.new_ones(len(x)), **extra_args)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


model = HostModel(patcher, latent, None, {"lake": (positive, negative)})
rows = model.encode(["lake"]) * CANDIDATES
plan = make_plan(model.denoiser, SampleSettings(steps=STEPS, window="all", noise="all"))
sigmas = model.denoiser.sigmas(STEPS, "model")
with torch.inference_mode():
    ours = model.sample(plan, noises(model), rows, SCALE)
    theirs = by_the_host(model, patcher, k_diffusion.sample_euler_ancestral, sigmas)
    plain = by_the_host(model, patcher, once, sigmas[1:])
measures["sampling"] = {
    "equal": torch.equal(ours.latents, theirs),
    "finite": bool(theirs.isfinite().all()),
    "different": relative(theirs[0], theirs[1]),
}

lora = attach(network, LoraSettings(rank=4, alpha=2.0, targets="attention+feedforward"), kind="hooks")
weights = {
    path: LayerWeights(w.down, 0.3 * torch.randn(w.up.shape, generator=rng), w.alpha)
    for path, w in lora.weights().items()
}
lora.load(weights)
measures["layers"] = len(weights)


def loss() -> Tensor:
    x, sigma = ours.x[:, 1], plan.steps.sigma[1:2].expand(CANDIDATES)
    return model.denoiser(x, sigma, stack(rows), SCALE).guided.square().mean()


def train() -> None:
    """The gradient of a loss, and by how much the loss really changes along it."""
    parameters, far = lora.parameters(), 0.02
    gradient = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    measures["untaught"] = [
        path for path, up in zip(weights, gradient[1::2], strict=True) if not float(up.abs().sum()) > 0
    ]
    with checkpointed(large_blocks(network)):
        again = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    measures["computed twice"] = max(
        float((a - b).norm() / b.norm()) for a, b in zip(again, gradient, strict=True) if b.any()
    )
    length = float(torch.stack([g.square().sum() for g in gradient]).sum().sqrt())
    there = []
    with torch.no_grad():
        for way in (1, -2):
            for parameter, g in zip(parameters, gradient, strict=True):
                parameter += way * far / length * g
            there.append(float(loss()))
        lora.load(weights)
    measures["slope"] = (there[0] - there[1]) / (2 * far) / length


host_sampling(model.denoiser, model.encode(["lake"]), model.latent_shape(), train)
with torch.inference_mode():
    hooked = by_the_host(model, patcher, once, sigmas[1:])
lora.remove()

with tempfile.TemporaryDirectory() as folder:
    file = save_lora(Path(folder) / "later.safetensors", weights, network)
    back = import_lora(file, network)
    complaints.messages = []
    with torch.inference_mode():
        patched, _ = comfy.sd.load_lora_for_models(patcher, None, comfy.utils.load_torch_file(str(file)), 1.0, 0.0)
        by_host = by_the_host(model, patched, once, sigmas[1:])
measures["complaints"] = complaints.messages
measures["patches"] = len(patched.patches)
measures["read back"] = back.keys() == weights.keys() and all(
    relative(back[path].alpha / 4 * back[path].up @ back[path].down, w.alpha / 4 * w.up @ w.down) < 1e-6
    for path, w in weights.items()
)
measures["error"], measures["effect"] = relative(hooked, by_host), relative(hooked, plain)
print(json.dumps(measures))
