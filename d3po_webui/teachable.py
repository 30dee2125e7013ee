"""Which of the host's models can be taught, and why the others cannot."""

from __future__ import annotations

from torch import nn

from d3po_core.errors import D3POError

from . import host
from .host import HostModel

EDITS = "Models for inpainting or editing cannot be taught in this tab."
NOT_YET = "This kind of model cannot be taught in this tab yet."
OTHERS = "Choose a Stable Diffusion 1, 2 or XL checkpoint, or in Forge Neo a flow model such as Flux or Krea 2."
ENGINES = {
    "Wan": "Models of moving pictures cannot be taught in this tab.",
    "PiD": "Models that draw pixels instead of latents cannot be taught in this tab.",
}
"""Why not, by the names of Forge Neo's engines."""
QUANTISED = "Nothing can be taught to the quantised weights of this model's file."
IN_FULL = "Choose a file of it in 16 bits, or in float8 without scales."
UNTAUGHT_LAYERS = (
    *("MixedPrecisionOps", "ForgeOperationsFP8", "SVDQ", "Nunchaku"),
    *("ForgeOperationsGGUF", "ForgeOperationsBNB4bits", "ForgeLoader4Bit"),
)
"""In the names of the Forge family's layers that compute with quantised weights: through the first four no gradient
passes, and the others do not say how large they are."""


def teachable_model() -> HostModel:
    """Return the web UI's model, if it can be taught. It is not moved before that is known.

    Raises:
        D3POError: it cannot, or see `host.loaded_model`.
    """
    model = host.loaded_model()
    if reason := why_not(model):
        raise D3POError(reason, OTHERS)
    if is_quantised(host.network(model)):
        raise D3POError(QUANTISED, IN_FULL)
    return model


def is_quantised(network: nn.Module) -> bool:
    """Return whether a network's layers compute with quantised weights such that nothing can be taught to them."""
    kinds = {type(layer) for layer in network.modules()}
    return any(name in kind.__qualname__ for kind in kinds for name in UNTAUGHT_LAYERS)


def why_not(model: HostModel) -> str:
    """Return the reason why a kind of model cannot be taught here; "" if it can."""
    if getattr(model, "is_sd3", False):
        return "Stable Diffusion 3 cannot be taught in this tab yet."
    if host.is_flow(model):
        return _why_not_flow(model)
    if host.prediction_type(model) is None:
        return NOT_YET
    first = next((layer for layer in host.network(model).modules() if isinstance(layer, nn.Conv2d)), None)
    return "" if first is None or first.in_channels == host.latent_channels(model) else EDITS


def _why_not_flow(model: HostModel) -> str:
    if not hasattr(model, "use_shift"):  # Forge Neo has it; in Forge nothing was tried
        return NOT_YET
    network = host.network(model)
    if type(network).__name__.startswith("IntegratedFlux") and network.in_channels != network.out_channels:
        return EDITS  # Flux Fill, Depth and Canny take more than the latents
    return EDITS if getattr(model, "is_inpaint", False) else ENGINES.get(type(model).__name__, "")
