"""Gradients through the web UI's networks: checkpointing of them, and the VAE called such that gradients pass.

Gradient checkpointing takes less memory and one more forward pass (Chen et al., arXiv 1604.06174). The host's own way
to encode and decode moves models, works in inference mode or without gradients, and may be in half precision, in which
the gradients of single pixels vanish. Here the same VAE is called in float32, beside the network that is trained, and
left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from d3po_core.diffusion.trainable import replaced_tensors, trainable_tensors

from . import host
from .host import HostModel

R = TypeVar("R")
OF_FRAMES = ("middle", "upsamples", "up_blocks")
"""Where VAEs that know moving pictures have the blocks of their decoders."""


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
        decoded: Tensor = type(self.network).decode(self.network, latents)  # type: ignore[attr-defined]
        return (decoded.flatten(1, -3) / 2 + 0.5).clamp(0, 1)  # there may be one frame

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [0, 1] to latents (B, C, h, w), float32, on the CPU.

        An image always has the same latents: the mean of the posterior or, where a VAE packs them further (Flux.2's),
        the same draw from it.
        """
        latents = []
        for image in images.split(1):
            pixels = image.to(host.device(), torch.float32) * 2 - 1
            packed = hasattr(self.network, "bn") or host.frames(self.model)
            mean = self._by_its_own(pixels) if packed else self._mean(pixels)
            latents.append(host.from_vae(self.model, mean).cpu())
        return torch.cat(latents)

    def _mean(self, pixels: Tensor) -> Tensor:
        moments = self.network.encoder(pixels)  # type: ignore[operator]
        if getattr(self.network, "quant_conv", None) is not None:
            moments = self.network.quant_conv(moments)  # type: ignore[operator]
        return cast("Tensor", moments.chunk(2, 1)[0])

    def _by_its_own(self, pixels: Tensor) -> Tensor:
        shape = (*pixels.shape[:2], *host.frames(self.model), *pixels.shape[2:])
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(0)  # the CPU's, from which the host draws
            return cast("Tensor", self.network.encode(pixels.reshape(shape)))  # type: ignore[operator]


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
    differentiable = replaced_forwards(vae.network.modules(), beneath_decorator)
    scaling = ordinary_tensors(getattr(vae.network, "latent_format", None))
    with (
        host.vae_at_hand(model),
        trainable_tensors([vae.network]),
        scaling,
        exact,
        differentiable,
        checkpointed(layers),
    ):
        yield vae


@contextmanager
def ordinary_tensors(owner: object) -> Iterator[None]:
    """Copy an object's tensors, until the context ends: Forge Neo makes those that scale latents in inference mode."""
    before = {name: value for name, value in getattr(owner, "__dict__", {}).items() if isinstance(value, Tensor)}
    try:
        for name, value in before.items():
            setattr(owner, name, value.clone())
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def _in_float32(value: Tensor) -> Tensor | None:
    """Copy a weight in another precision to float32."""
    if not value.is_floating_point() or value.dtype == torch.float32:
        return None
    exact = value.detach().float()
    return nn.Parameter(exact, False) if isinstance(value, nn.Parameter) else exact


@contextmanager
def checkpointed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Let a network keep only the inputs of these layers for the backward pass, which computes the rest again."""
    with replaced_forwards(layers, lambda layer: _checkpointing(layer.forward)):
        yield


@contextmanager
def replaced_forwards(
    layers: Iterable[nn.Module], replacement: Callable[[nn.Module], Callable[..., object] | None]
) -> Iterator[None]:
    """Replace the `forward` of layers until the context ends; of those for which it is None it stays."""
    before: list[tuple[nn.Module, object]] = []
    try:
        for layer in layers:
            if (new := replacement(layer)) is not None:
                before.append((layer, vars(layer).get("forward")))
                layer.forward = new
        yield
    finally:
        for layer, old in reversed(before):
            if old is None:
                del layer.forward  # which uncovers the class's own
            else:
                layer.forward = old  # type: ignore[assignment]


def beneath_decorator(layer: nn.Module) -> Callable[..., object] | None:
    """Return the `forward` that a layer's class has decorated; None if it has not.

    Forge Neo's VAE does so with `torch.inference_mode`, through which no gradient passes.
    """
    plain = getattr(type(layer).forward, "__wrapped__", None)
    return None if plain is None else MethodType(plain, layer)


def large_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a transformer's blocks, or the layers of a UNet's, which the Forge family calls one by one, and A1111 block
    by block."""
    if not hasattr(module, "input_blocks"):
        yield from (block for part in module.children() if isinstance(part, nn.ModuleList) for block in part)
        return
    inputs, outputs = (cast("nn.ModuleList", blocks) for blocks in (module.input_blocks, module.output_blocks))
    for block in (*inputs, cast("nn.Module", module.middle_block), *outputs):
        yield from cast("nn.Sequential", block)


def decoder_layers(decoder: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks, attention and upsampling of a VAE's decoder.

    A small one of another form (TAESD) has none to yield, and needs little memory.
    """
    if hasattr(decoder, "mid"):
        for stage in (decoder.mid, *cast("nn.ModuleList", decoder.up)):
            for part in cast("nn.Module", stage).children():
                yield from part if isinstance(part, nn.ModuleList) else [part]
    for name in OF_FRAMES:
        yield from cast("Iterable[nn.Module]", getattr(decoder, name, ()))
    if isinstance(middle := getattr(decoder, "mid_block", None), nn.Module):
        yield middle


def _checkpointing(forward: Callable[..., R]) -> Callable[..., R]:
    def call(*args: object, **kwargs: object) -> R:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(
            lambda: forward(*map(_copy, args), **{name: _copy(value) for name, value in kwargs.items()}),
            use_reentrant=False,
        )

    return call


def _copy(value: object) -> object:
    """Copy a tensor: layers may change their inputs in place, and would begin with the changed ones the second time."""
    return value.clone() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
