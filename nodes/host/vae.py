"""The host's VAE decoding so that a gradient passes; CLIP and VAE as the core's encoder.

The VAE's own `decode` moves models, works in place and forgets what autograd would need. Here the same network and the
same last touch are called while the host believes it is sampling, with the VAE loaded beside the model (see
`sampling.host_sampling`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ...d3po_core.diffusion.denoiser import Conditioning
from ...d3po_core.errors import D3POError
from .conditioning import pack
from .types import Clip, Cond, Vae


class Decoder:
    """A VAE, called only inside `host_sampling` with `patcher` beside the model.

    Raises:
        D3POError: it cannot be held in memory as a whole.
    """

    def __init__(self, vae: Vae) -> None:
        vae.throw_exception_if_invalid()
        if vae.patcher.is_dynamic() and vae.patcher.cached_patcher_init is None:
            raise D3POError(
                "The node that loaded this VAE does not tell the host where from, so it cannot be held whole in "
                "memory.",
                "Load it with Load Checkpoint or Load VAE, or start the host with --disable-dynamic-vram.",
            )
        # Where the host moves weights to and fro while it decodes, backward would find others in their place.
        self.vae, self.patcher = vae, vae.patcher.clone(disable_dynamic=True)

    @property
    def network(self) -> torch.nn.Module:
        """Encoder and decoder."""
        return self.patcher.model

    def __call__(self, latents: Tensor) -> Tensor:
        """Decode latents as the host's LATENT has them (B, ...) to images (B, 3, H, W) in [0, 1], float32.

        Without a gradient one after the other, as that needs the least memory.
        """
        if torch.is_grad_enabled() and latents.requires_grad:
            return self._images(latents)
        return torch.cat([self._images(one) for one in latents.split(1)])

    def _images(self, latents: Tensor) -> Tensor:
        vae = self.vae
        if vae.latent_dim == 2 and latents.dim() == 5:
            latents = latents[:, :, 0]
        decoded: Tensor = self.patcher.model.decode(latents.to(vae.device, vae.vae_dtype))
        images: Tensor = vae.process_output(decoded.float().clone())  # the host's own, in place
        return images[:, :3, 0] if images.dim() == 5 else images[:, :3]


class HostEncoder:
    """CLIP and VAE as the core's `Encoder`."""

    def __init__(self, clip: Clip, vae: Vae) -> None:
        vae.throw_exception_if_invalid()
        self.clip, self.vae = clip, vae

    @property
    def unit(self) -> int:
        """Pixels that an image's height and width must be multiples of."""
        return int(self.vae.spacial_compression_encode())

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        """Return the prompts' CONDITIONING, packed, each with the negative prompt."""
        negative_cond = self._conditioning(negative) if prompts else []
        return [pack(self._conditioning(prompt), negative_cond) for prompt in prompts]

    def plain_words(self, prompts: Iterable[str], embeddings: Sequence[str] = ()) -> str:
        """Return a sentence on embeddings of A1111's, which this host has by another spelling; it obeys its own."""
        names = ", ".join(embeddings)
        return f"Read as plain words here, which A1111 takes for embeddings: {names}" if names else ""

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [0, 1] to latents (B, ...) as the host's LATENT has them, without noise."""
        latents: Tensor = self.vae.encode(images.movedim(1, -1))
        with torch.inference_mode(False):
            return latents.detach().to("cpu", torch.float32, copy=True)

    def _conditioning(self, text: str) -> Cond:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
