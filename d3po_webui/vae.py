"""The web UI's VAE, called such that gradients pass through it.

The host's own way to encode and decode moves models, works in inference mode or without gradients, and may be in half
precision, in which the gradients of single pixels vanish. Here the same network is called in float32, beside the one
that is trained, and left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from d3po_core.diffusion.trainable import replaced_tensors, trainable_tensors

from . import host
from .checkpointing import checkpointed, decoder_layers
from .host import HostModel


class Vae:
    """The VAE of the host's model; use it while it is `held`."""

    def __init__(self, model: HostModel) -> None:
        self.model, self.network = model, host.vae(model)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (B, C, h, w) to images (B, 3, H, W) in [0, 1], float32, on the network's device.

        Without gradients they are decoded one by one, which needs the least memory.
        """
        if torch.is_grad_enabled() and latents.requires_grad:
            return self._images(latents)
        return torch.cat([self._images(one) for one in latents.split(1)])

    def _images(self, latents: Tensor) -> Tensor:
        latents = host.to_vae(self.model, latents.to(host.device(), torch.float32))
        # The class's own method: --medvram has put another one on the object, which moves models.
        decoded = type(self.network).decode(self.network, latents)  # type: ignore[attr-defined]
        return (decoded / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [0, 1] to latents (B, C, h, w), float32, on the CPU.

        They are the mean of the posterior, so that an image always has the same latents.
        """
        latents = []
        for image in images.split(1):
            moments = self.network.encoder(image.to(host.device(), torch.float32) * 2 - 1)  # type: ignore[operator]
            if getattr(self.network, "quant_conv", None) is not None:
                moments = self.network.quant_conv(moments)  # type: ignore[operator]
            latents.append(host.from_vae(self.model, moments[:, : host.LATENT_CHANNELS]).cpu())
        return torch.cat(latents)


@contextmanager
def held(model: HostModel, checkpointing: bool) -> Iterator[Vae]:
    """Hold the VAE, which `host.to_device` has brought, in float32; afterwards its weights are the host's own again.

    Args:
        model: the host's.
        checkpointing: keep little in memory, and compute the decoder again in the backward pass.
    """
    vae = Vae(model)
    layers = decoder_layers(vae.network.decoder) if checkpointing else []  # type: ignore[arg-type]
    exact = replaced_tensors(vae.network.modules(), _in_float32)
    with host.vae_at_hand(model), trainable_tensors([vae.network]), exact, checkpointed(layers):
        yield vae


def _in_float32(value: Tensor) -> Tensor | None:
    """Copy a weight in another precision to float32."""
    if not value.is_floating_point() or value.dtype == torch.float32:
        return None
    exact = value.detach().float()
    return nn.Parameter(exact, False) if isinstance(value, nn.Parameter) else exact
