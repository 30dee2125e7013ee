"""Decoding in tiles: equal to undivided decoding if the decoder is local, to a blend of tiles in any case."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d3po_core.diffusion import tiled_decoding
from d3po_core.diffusion.rollout import make_plan
from d3po_core.diffusion.tiled_decoding import decode_in_tiles
from d3po_core.lora import attach
from d3po_core.models import DiffusersModel
from d3po_core.rewards import Reward
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings
from d3po_core.training.reward_gradient import PromptSample, RewardGradient
from tests.tiny_pipelines import tiny_sd, tiny_vae

FACTOR = 2


class Convolutions(nn.Module):
    """A decoder that sees `reach` latents far: `reach` 3x3 convolutions, then upsampling."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        torch.manual_seed(reach)
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1, dtype=torch.float64) for _ in range(reach)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return F.interpolate(x, scale_factor=FACTOR, mode="nearest")


def image_and_gradient(decode: Callable[[Tensor], Tensor], latents: Tensor) -> tuple[Tensor, Tensor]:
    """Decode, and differentiate a sum with different weights for all pixels."""
    leaf = latents.detach().requires_grad_()
    image = decode(leaf)
    weights = torch.randn(image.shape, dtype=image.dtype, generator=torch.Generator().manual_seed(7))
    (gradient,) = torch.autograd.grad((weights * image).sum(), leaf)
    return image.detach(), gradient


def some_latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(40, 40), (16, 45), (37, 16), (17, 64)])
def test_a_decoder_that_sees_no_further_than_the_context_decodes_as_if_whole(size: tuple[int, int]) -> None:
    """Tiles of 16 latents overlap by 4, of which 1 is context on either side."""
    decoder, latents = Convolutions(1), some_latents(2, 3, *size)
    seen: list[tuple[int, ...]] = []

    def decode(part: Tensor) -> Tensor:
        seen.append(tuple(part.shape[-2:]))
        return decoder(part)

    tiled = image_and_gradient(lambda x: decode_in_tiles(decode, x, 16 * FACTOR), latents)
    for got, expected in zip(tiled, image_and_gradient(decoder, latents), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    assert set(seen) == {(8, 8), (16, 16)} and seen.count((16, 16)) > 2


@pytest.mark.parametrize("reach", [2, 3, 4])
def test_away_from_seams_a_decoder_that_sees_less_than_the_overlap_decodes_as_if_whole(reach: int) -> None:
    """Tiles of 16 latents begin at 0 and 12 of 28: only latents 12 to 16 are in both."""
    decoder, latents = Convolutions(reach), some_latents(1, 3, 28, 28)
    with torch.no_grad():
        undivided, tiled = decoder(latents), decode_in_tiles(decoder, latents, 16 * FACTOR)
    off = (undivided - tiled).abs().amax((0, 1))
    alone = torch.ones(28 * FACTOR, dtype=torch.bool)
    alone[12 * FACTOR : 16 * FACTOR] = False
    assert off[alone][:, alone].max() < 1e-12 and 1e-9 < off.max() < 0.2


def blended(decode: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    """The same blend written out for 28 latents in tiles of 16: the second tile's share grows from 0 to 1 between the
    latents 13 and 15 of each axis."""
    places = [(pixel + 0.5) / FACTOR for pixel in range(28 * FACTOR)]
    share = torch.tensor([min(1.0, max(0.0, (place - 13) / 2)) for place in places], dtype=torch.float64)
    total = torch.zeros(())
    for top, down in ((0, 1 - share), (12, share)):
        for left, across in ((0, 1 - share), (12, share)):
            tile = decode(latents[..., top : top + 16, left : left + 16])
            room = [FACTOR * n for n in (left, 12 - left, top, 12 - top)]
            total = total + F.pad(tile, room) * (down[:, None] * across).to(tile)
    return total


def test_the_gradient_is_that_of_the_blend_whatever_the_decoder() -> None:
    """One with group normalisation and attention, and nothing computed again."""
    torch.manual_seed(0)
    vae = tiny_vae().double().eval()

    def decode(part: Tensor) -> Tensor:
        return vae.decode(part).sample

    latents = some_latents(2, 4, 28, 28)
    tiled = image_and_gradient(lambda x: decode_in_tiles(decode, x, 16 * FACTOR), latents)
    for got, expected in zip(tiled, image_and_gradient(lambda x: blended(decode, x), latents), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    undivided, _ = image_and_gradient(decode, latents)
    assert (tiled[0] - undivided).abs().max() > 1e-4  # such a decoder sees everything


def test_only_latents_are_kept_of_each_tile() -> None:
    decoder, latents = Convolutions(4), some_latents(1, 3, 40, 40).requires_grad_()

    def kept(decode: Callable[[Tensor], Tensor]) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            held = decode(latents)
        assert held.requires_grad
        return sum(storages.values())

    weights = 3 * 3 * 8 * (16 * FACTOR) ** 2  # a row and a column of tiles
    assert kept(lambda x: decode_in_tiles(decoder, x, 16 * FACTOR)) < weights + latents.nbytes * 3 < kept(decoder)


def test_an_image_that_fits_into_one_tile_is_decoded_at_once() -> None:
    decoder, latents = Convolutions(2), some_latents(1, 3, 16, 12)
    for tile in (0, 16 * FACTOR, 8192):
        assert torch.equal(decode_in_tiles(decoder, latents, tile), decoder(latents))


def test_the_smallest_tile_still_covers_the_image() -> None:
    ones = some_latents(1, 3, 11, 7) * 0 + 1

    def decode(part: Tensor) -> Tensor:
        return F.interpolate(part, scale_factor=FACTOR, mode="nearest")

    assert torch.allclose(decode_in_tiles(decode, ones, 1), decode(ones))


def test_a_round_decodes_in_tiles_and_the_gradient_reaches_the_lora(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DiffusersModel(tiny_sd())
    lora = attach(model.denoiser.module, LoraSettings(rank=2))
    sample = SampleSettings(steps=2, guidance_scale=2.0)
    reward = Reward("redness", "red", lambda images, prompts: images[:, 0].mean((1, 2)), True)
    scenes = [PromptSample("a hill", model.encode(["a hill"])[0], 0)]
    gradients, sizes = [], set()
    original = tiled_decoding.checkpoint

    def noted(decode: Callable[[Tensor], Tensor], part: Tensor, **how: bool) -> Tensor:
        sizes.add(tuple(part.shape[-2:]))
        return original(decode, part, **how)

    monkeypatch.setattr(tiled_decoding, "checkpoint", noted)
    for tile in (0, 8):
        settings = RewardSettings(tile=tile)
        steps = make_plan(model.denoiser, sample).steps
        gradient = RewardGradient(model, reward, steps, model.latent_shape(), 2.0, settings)
        for parameter in lora.parameters():
            parameter.grad = None
        gradient.backward(scenes, 0, 1)
        gradients.append(torch.cat([p.grad.flatten() for p in lora.parameters() if p.grad is not None]))
    assert sizes == {(4, 4)}
    assert F.cosine_similarity(*gradients, dim=0) > 0.5 and not torch.equal(*gradients)
