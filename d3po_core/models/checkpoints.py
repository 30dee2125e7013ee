"""What a single-file checkpoint says of itself by its keys and metadata, before anything of it is loaded.

Programs agree on a few marks: `v_pred` (predicts v) and beside it `ztsnr` (zero terminal SNR, Lin et al. 2023, arXiv
2305.08891) are empty tensors that ComfyUI and Forge look for; kohya's trainers write the same into the metadata, and
Stability's model specification names the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import D3POError
from .architectures import ARCHITECTURES

NETWORKS = ("model.diffusion_model.",)
BARE_NETWORKS = ("input_blocks.0.0.", "down_blocks.0.", "joint_blocks.0.", "double_blocks.0.", "transformer_blocks.0.")
"""How keys of a network begin that lies in a file alone."""
VAES = ("first_stage_model.", "vae.")
TEXT_ENCODERS = ("cond_stage_model.", "conditioner.embedders.", "text_encoders.")
OTHERS = {"control_model.": "a ControlNet", "decoder.up.": "a VAE", "text_model.": "a text encoder"}
"""What else people have in such files, by how keys begin."""
REFINER, BASE = "conditioner.embedders.0.model.", "conditioner.embedders.1."
FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"
CHANNELS = 4
"""Latent channels that a UNet of a text-to-image checkpoint takes."""
WHOLE = "Give a whole checkpoint, or a pipeline folder."
PREDICTIONS = {
    **dict.fromkeys(("v", "v_prediction", "v-prediction", "v_pred"), "v_prediction"),
    **dict.fromkeys(("epsilon", "eps", "epsilon_prediction"), "epsilon"),
}
"""What `modelspec.prediction_type` says, as diffusers calls it."""
EDM = ("edm_vpred.", "edm_mean", "edm_std")


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file.

    Attributes:
        keys: names of its tensors.
        metadata: what is written beside them.
        inputs: channels that the network's first layer takes; 0 if there is none.
    """

    keys: Sequence[str]
    metadata: dict[str, str] = field(default_factory=dict)
    inputs: int = 0

    def has(self, *prefixes: str) -> bool:
        """Return whether a key begins so."""
        return any(key.startswith(prefixes) for key in self.keys)


def read_header(file: Path) -> Header:
    """Read a file's header; check the file's length against it.

    Raises:
        D3POError: the file is damaged.
    """
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as tensors:
            keys = list(tensors.keys())
            inputs = tensors.get_slice(FIRST_LAYER).get_shape()[1] if FIRST_LAYER in keys else 0
            return Header(keys, tensors.metadata() or {}, inputs)
    except Exception as error:  # safetensors has its own error class, and raises OSError too
        raise D3POError(f"'{file}' is damaged or incomplete.", "Get the file anew.") from error


def kind_of(name: str, header: Header) -> str:
    """Name the pipeline class that a checkpoint belongs to.

    Args:
        name: of the file, for people.
        header: of the file.

    Raises:
        D3POError: it is no whole text-to-image checkpoint of a known kind; it says what it is.
    """
    if any("lora_" in key for key in header.keys):
        raise D3POError(f"'{name}' is a LoRA, not a model.", "Give the model that it was made for.")
    if header.has(REFINER) and not header.has(BASE):
        raise D3POError(f"'{name}' is an SDXL refiner, which cannot be taught.", "Give the base model.")
    if not header.has(*NETWORKS):
        if header.has(*BARE_NETWORKS):
            raise D3POError(f"'{name}' holds only the image network.", WHOLE)
        other = next((what for start, what in OTHERS.items() if header.has(start)), "")
        known = f"is {other}, not a whole model." if other else "is not a model of a known kind."
        raise D3POError(f"'{name}' {known}", WHOLE)
    lacking = [part for part, prefixes in (("VAE", VAES), ("text encoder", TEXT_ENCODERS)) if not header.has(*prefixes)]
    if len(lacking) == 2:
        raise D3POError(f"'{name}' holds only the image network.", WHOLE)
    if lacking:
        raise D3POError(f"'{name}' lacks its {lacking[0]}.", WHOLE)
    if header.inputs not in (0, CHANNELS):
        raise D3POError(
            f"'{name}' draws from more than a prompt (inpainting or editing), which is not supported.",
            "Use a text-to-image model.",
        )
    for kind, architecture in ARCHITECTURES.items():
        if architecture.mark is not None and any(architecture.mark in key for key in header.keys):
            return kind
    raise D3POError(f"'{name}' is not a model of a known kind.", WHOLE)


def scheduler_settings(name: str, header: Header) -> dict[str, object]:
    """Return the settings of a diffusers scheduler that a checkpoint asks for itself; {} where it is silent.

    Args:
        name: of the file, for people.
        header: of the file.

    Raises:
        D3POError: it has the schedule of EDM (Karras et al. 2022, arXiv 2206.00364), which is not supported.
    """
    metadata = {key: value.strip().lower() for key, value in header.metadata.items()}
    named = metadata.get("modelspec.prediction_type", "")
    if header.has(*EDM) or "edm" in named:
        raise D3POError(f"'{name}' is an EDM model, whose noise schedule is not supported.", "Use another model.")
    if named and named not in PREDICTIONS:
        raise D3POError(f"'{name}' says that it predicts '{named}', which is not supported.", "Use another model.")
    if "v_pred" in header.keys or metadata.get("ss_v_parameterization") == "true":
        named = "v"
    settings: dict[str, object] = {"prediction_type": PREDICTIONS[named]} if named else {}
    if settings.get("prediction_type") != "v_prediction":  # a network that predicts noise knows nothing at SNR 0
        return settings
    if "ztsnr" in header.keys or metadata.get("ss_zero_terminal_snr") == "true":
        settings |= {
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
        }  # so that its first level is drawn
    return settings
