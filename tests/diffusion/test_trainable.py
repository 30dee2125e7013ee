"""Gradients through networks whose weights were made in inference mode."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from d3po_core.diffusion.trainable import trainable_tensors


def host_network() -> nn.Sequential:
    """A network as hosts load it: parameters and buffers are inference tensors."""
    torch.manual_seed(0)
    with torch.inference_mode():
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()


def test_gradients_flow_and_the_hosts_tensors_come_back() -> None:
    network, x = host_network(), torch.randn(3, 4, requires_grad=True)
    before = [*network.parameters(), *network.buffers()]
    with pytest.raises(RuntimeError, match=r"(?i)inference"):
        network(x).sum().backward()
    with trainable_tensors([network, network]):
        for alias, original in zip([*network.parameters(), *network.buffers()], before, strict=True):
            assert alias.data_ptr() == original.data_ptr() and not alias.is_inference() and not alias.requires_grad
        network(x).square().sum().backward()
    assert x.grad is not None and bool(x.grad.any())
    assert all(a is b for a, b in zip([*network.parameters(), *network.buffers()], before, strict=True))


def test_the_hosts_tensors_come_back_after_an_exception() -> None:
    network = host_network()
    weight = network[0].weight
    with pytest.raises(ZeroDivisionError), trainable_tensors([network]):
        raise ZeroDivisionError
    assert network[0].weight is weight


class Bypass:
    """Like a host's bypassing LoRA loader: replaces a layer's `forward` and keeps its tensors in an adapter."""

    def __init__(self, layer: nn.Module) -> None:
        with torch.inference_mode():
            self.adapter = SimpleNamespace(weights=(torch.eye(4), [torch.ones(4, 4)], 2.0, None))
        self.original_forward = layer.forward
        layer.forward = self.forward

    def forward(self, x: Tensor) -> Tensor:
        down, (up,), scale, _ = self.adapter.weights
        return self.original_forward(x) + scale * x @ down @ up


def test_bypassing_adapters_are_reached_through_each_other() -> None:
    network, x = host_network(), torch.randn(3, 4, requires_grad=True)
    bypasses = [Bypass(network[0]), Bypass(network[0])]
    before = [bypass.adapter.weights for bypass in bypasses]
    with trainable_tensors([network]):
        network(x).square().sum().backward()
        assert all(bypass.adapter.weights[2:] == (2.0, None) for bypass in bypasses)
    assert x.grad is not None
    assert all(bypass.adapter.weights is weights for bypass, weights in zip(bypasses, before, strict=True))
