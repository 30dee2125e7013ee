"""A whole round in the host beside the same round of the core with diffusers: one checkpoint, the same numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hosts.webui.checkpoint import write

from .conftest import HOST, PYTHON
from .one_round import one_round

CONFIG: dict[str, dict[str, Any]] = {
    "unet": {
        **{"_class_name": "UNet2DConditionModel", "block_out_channels": (320, 320), "layers_per_block": 2},
        **{"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 8},
        **{"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2},
    },
    "vae": {
        **{"_class_name": "AutoencoderKL", "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
        **{"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4},
        **{"latent_channels": 4, "scaling_factor": 0.18215, "sample_size": 64},
    },
    "text_encoder": {
        **{"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": "quick_gelu"},
        **{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12},
        **{"max_position_embeddings": 77, "vocab_size": 49408, "projection_dim": 768},
        **{"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407},
    },
    "scheduler": {
        **{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        **{
            "clip_sample": False,
            "set_alpha_to_one": False,
            "prediction_type": "epsilon",
            "timestep_spacing": "linspace",
        },
    },
}
PARTS = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    **{name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")},
}


def configuration(folder: Path) -> Path:
    """Write the configuration of a pipeline for the little checkpoint, with the host's own tokenizer."""
    for part, config in CONFIG.items():
        (folder / part).mkdir(parents=True)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / part / name).write_text(json.dumps(config))
    shutil.copytree(Path(str(HOST)) / "comfy" / "sd1_tokenizer", folder / "tokenizer")
    about_tokenizer = folder / "tokenizer" / "tokenizer_config.json"
    about_tokenizer.write_text(json.dumps({**json.loads(about_tokenizer.read_text()), "model_max_length": 77}))
    about = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **PARTS}
    (folder / "model_index.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of the host's round, and of the core's."""
    folder = tmp_path_factory.mktemp("round")
    checkpoint = write(folder / "models" / "checkpoints", "sd15")
    command = [PYTHON, str(Path(__file__).parent / "inside_round.py"), str(folder / "models")]
    environment = {**os.environ, "COMFYUI_DIR": str(HOST), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    from d3po_core.models import load_model

    model = load_model(checkpoint, base_config=configuration(folder / "config"))
    figures = one_round("d3po_core", model, folder / "run", lambda prompts, shape, work: work())
    return json.loads(done.stdout.splitlines()[-1]), figures


def apart(both: tuple[dict[str, Any], dict[str, Any]], name: str) -> float:
    """Return the relative difference of two lists of numbers."""
    host, core = (torch.tensor(figures[name], dtype=torch.float64) for figures in both)
    print(f"{name}: {float((host - core).norm() / core.norm()):.4f} apart")
    return float((host - core).norm() / core.norm())


def test_pictures_and_adherence_are_the_cores(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """The host takes whole time steps, diffusers' schedulers what lies between: so not bit by bit."""
    assert apart(both, "latents") < 0.02 and apart(both, "adherence") < 0.03


def test_judge_round_and_cost_are_the_cores(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    host, core = both
    for name in ("judge", "evidence", "strength", "kept", "drift", "win"):
        print(name, host[name], core[name])
    same = [a == b for a, b in zip(host["favourites"], core["favourites"], strict=True)]
    assert sum(same) >= 0.9 * len(same)
    assert host["rows"] == core["rows"] and host["strength"] == core["strength"] and host["evidence"][1] == 1
    # What the network sees is projected module by module, and the two have their modules in another order.
    assert abs(host["judge"] - core["judge"]) < 0.1 and abs(host["win"] - core["win"]) < 0.25
    assert apart(both, "kept") < 0.05 and apart(both, "drift") < 0.3 and apart(both, "lora") < 0.1


def test_the_host_is_as_it_was(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert both[0]["unharmed"]
