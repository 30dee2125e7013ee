"""What is counted without values, against closed forms and against the same computation with values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from d3po_core.lora import attach
from d3po_core.models.model import DiffusersModel
from d3po_core.planning.counting import META, LiveBytes, counted, fused_attention, module_bytes
from d3po_core.planning.networks import blank_conditioning
from d3po_core.planning.phases import blank_lora
from d3po_core.settings import LoraSettings
from d3po_core.training.passes import activation_bytes
from d3po_core.training.rows import Rows, jumps
from tests.tiny_pipelines import tiny_flux, tiny_sd, tiny_sd3, tiny_sdxl

ROWS, WIDTH, DEPTH = 8, 64, 5
FLOAT = 4


def chain(device: torch.device) -> nn.Sequential:
    """DEPTH linear layers without bias, a ReLU behind each."""
    with device:
        layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.ReLU()) for _ in range(DEPTH)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("device", [META, torch.device("cpu")], ids=str)
def test_a_chain_of_linear_layers(device: torch.device) -> None:
    """A linear layer keeps its input, which is what the ReLU before it keeps: its result. AdamW has two moments."""
    network, weights, activation = chain(device), DEPTH * WIDTH * WIDTH * FLOAT, ROWS * WIDTH * FLOAT
    optimizer = torch.optim.AdamW(network.parameters())
    with counted([network], device) as live:
        assert live.live == weights == module_bytes(network)
        out = network(torch.empty(ROWS, WIDTH, device=device))
        assert live.live == weights + (DEPTH + 1) * activation
        out.sum().backward()
        del out
        assert live.live == 2 * weights
        optimizer.step()
        steps = DEPTH * FLOAT if device.type == "cpu" else 0  # one number for each parameter, on the CPU
        assert live.live == 4 * weights + steps
        optimizer.zero_grad()
        assert live.live == 3 * weights + steps
    assert live.peak >= 4 * weights


def test_views_count_once_and_what_ends_does_not_count() -> None:
    live = LiveBytes()
    with live:
        x = torch.empty(10, 10, device=META)
        y = x.view(100)[3:50]
        assert live.live == 100 * FLOAT
        del x
        assert live.live == 100 * FLOAT  # y has its storage
        del y
        assert live.live == 0 and live.peak == 100 * FLOAT


@pytest.mark.parametrize("mask", [False, True])
def test_attention_keeps_what_fused_kernels_keep(mask: bool) -> None:
    """Queries, keys, values, result, and a float for each query: linear in the tokens, not their square."""

    def kept(tokens: int) -> int:
        found: dict[int, int] = {}
        q, k, v = (torch.empty(1, 2, tokens, 8, device=META, requires_grad=True) for _ in range(3))
        where = torch.ones(1, 1, 1, tokens, dtype=torch.bool, device=META) if mask else None

        def count(tensor: torch.Tensor) -> torch.Tensor:
            found[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor.detach()

        with fused_attention(), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            F.scaled_dot_product_attention(q, k, v, where)
        return sum(found.values())

    of_mask = 256 * FLOAT if mask else 0
    assert kept(256) == (4 * 2 * 256 * 8 + 2 * 256) * FLOAT + of_mask
    assert kept(512) == 2 * kept(256)


def test_attention_is_left_alone_on_other_devices() -> None:
    q = torch.randn(1, 2, 16, 8)
    before = F.scaled_dot_product_attention
    with fused_attention():
        inside = F.scaled_dot_product_attention(q, q, q)
    assert F.scaled_dot_product_attention is before and torch.equal(inside, before(q, q, q))


def rows_of(model: DiffusersModel, device: torch.device) -> Rows:
    sigma = torch.full((1,), 0.5, dtype=torch.float64)
    x = torch.zeros(1, *model.latent_shape(), device=device)
    conditioning = {name: torch.zeros(value.shape, device=device) for name, value in blank_conditioning(model).items()}
    return Rows(x, x, x, x, jumps(sigma), conditioning, 5.0, False)


@pytest.mark.parametrize("attachment", ["peft", "hooks"])
@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl, tiny_sd3, tiny_flux], ids=lambda make: make.__name__)
def test_a_row_keeps_without_values_what_it_keeps_with_them(make: Callable[[], object], attachment: str) -> None:
    """All that autograd saves in a row's forward pass, to the byte."""
    pipeline = make()
    model = DiffusersModel(pipeline)
    settings = LoraSettings(rank=2, targets="all")
    lora = attach(model.denoiser.module, settings, kind=attachment)
    real = activation_bytes(model.denoiser, rows_of(model, torch.device("cpu")))
    lora.remove()
    for part in pipeline.components.values():  # type: ignore[attr-defined]
        if isinstance(part, nn.Module):
            part.to(META)
    blank = attach(model.denoiser.module, settings, kind=attachment, start=blank_lora(model.denoiser.module, settings))
    with counted([model.denoiser.module]):
        found = activation_bytes(model.denoiser, rows_of(model, META))
    blank.remove()
    assert found == real > 0


def test_what_another_library_puts_in_place_of_attention_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", before)  # put back at the end

    def others(*tensors: torch.Tensor) -> torch.Tensor:
        return before(*tensors)

    with fused_attention():
        assert F.scaled_dot_product_attention is not before
    assert F.scaled_dot_product_attention is before
    with fused_attention():
        F.scaled_dot_product_attention = others  # type: ignore[assignment]
    assert F.scaled_dot_product_attention is others
