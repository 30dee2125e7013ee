"""The web UI's VAE, such that a gradient passes through it.

The host's own way in and out moves models, works in inference mode or without gradient, and may be in half precision,
in which the gradients of single pixels vanish. Here the same network is called in float32, beside the one that is
taught, and left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from d3po_core.diffusion.trainable import trainable_tensors

from . import host
from .checkpointing import checkpointed, decoder_layers


class Vae:
    """Called while it is `held`.

    Args:
        model: the host's.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.network = model, host.vae(model)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to images (B, 3, H, W) in [0, 1], float32, where the network computes; without a
        gradient one after the other, as that needs the least memory."""
        if torch.is_grad_enabled() and latents.requires_grad:
            return self._images(latents)
        return torch.cat([self._images(one) for one in latents.split(1)])

    def _images(self, latents: Tensor) -> Tensor:
        latents = host.to_vae(self.model, latents.to(host.device(), torch.float32))
        # The class's: on the object itself --medvram has put one that moves models.
        decoded = type(self.network).decode(self.network, latents)  # type: ignore[attr-defined]
        return (decoded / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to latents (B, C, h, w), float32, on the CPU: the mean of the posterior, so
        that a picture always has the same latents."""
        found = []
        for image in images.split(1):
            moments = self.network.encoder(image.to(host.device(), torch.float32) * 2 - 1)  # type: ignore[operator]
            if getattr(self.network, "quant_conv", None) is not None:
                moments = self.network.quant_conv(moments)  # type: ignore[operator]
            found.append(host.from_vae(self.model, moments[:, : host.LATENT_CHANNELS]).cpu())
        return torch.cat(found)


@contextmanager
def held(model: Any, again: bool) -> Iterator[Vae]:
    """The VAE, for a while; `host.to_device` has brought it. Its weights are the host's own again in the end.

    Args:
        model: the host's.
        again: keep little in memory, and compute the decoder again in the backward pass.
    """
    found = Vae(model)
    layers = decoder_layers(found.network.decoder) if again else []  # type: ignore[arg-type]
    with host.vae_at_hand(model), trainable_tensors([found.network]), _in_float32(found.network), checkpointed(layers):
        yield found


@contextmanager
def _in_float32(network: nn.Module) -> Iterator[None]:
    """Let a network compute in float32; weights in another precision are put aside, and put back."""
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in network.modules():
            for store in (module._parameters, module._buffers):
                for name, value in store.items():
                    if value is not None and value.is_floating_point() and value.dtype != torch.float32:
                        before.append((store, name, value))
                        whole = value.detach().float()
                        store[name] = nn.Parameter(whole, False) if isinstance(value, nn.Parameter) else whole
        yield
    finally:
        for store, name, value in before:
            store[name] = value
