"""Where a pipeline's weights are: on one device, or its network's layers on several.

A network that is larger than one card is dispatched by accelerate: each device holds some of its blocks, and hooks hand
activations on. The other way, FSDP2, gathers each layer's weights from all processes, so these must call the network
equally often; here they do not, as they have different numbers of groups, and some have none. With several processes,
each has devices of its own (`Processes.device`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import D3POError
from .architectures import ARCHITECTURES, Pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence


def devices_of(names: str | None) -> list[str]:
    """Return the devices that somebody named, separated by commas; None stands for the GPU if there is one.

    Raises:
        D3POError: there is no such device, or one of several is the processor.
    """
    if not names:
        usual = ("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())
        return [next((kind for kind, there in usual if there), "cpu")]
    devices = list(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in devices:
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has one for each of its backends
            gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
            mps = ["mps"] if torch.backends.mps.is_available() else []
            raise D3POError(
                f"There is no device '{name}' on this computer.", f"Choose one of {', '.join([*gpus, *mps, 'cpu'])}."
            ) from error
    if len(devices) > 1 and "cpu" in devices:
        raise D3POError("A network's layers are shared by graphics cards alone.", "Name cards, such as cuda:0,cuda:1.")
    return devices


def place(pipeline: Pipeline, devices: Sequence[str]) -> Pipeline:
    """Move a pipeline to a device, or its network's layers to several; text encoders and VAE are on the last then.

    Raises:
        D3POError: the network's layers cannot be divided.
    """
    if len(devices) == 1:
        return pipeline.to(devices[0])
    name = ARCHITECTURES[type(pipeline).__name__].module
    others = [part for key, part in pipeline.components.items() if isinstance(part, nn.Module) and key != name]
    for part in others:
        part.to(devices[-1])
    spread(getattr(pipeline, name), devices, sum(map(_bytes, others)))
    return pipeline


def spread(network: nn.Module, devices: Sequence[str], on_last: int = 0) -> None:
    """Divide a network's blocks among devices, about equally by the weights that are on each then.

    Args:
        network: of diffusers.
        devices: first to last.
        on_last: bytes of other weights that are on the last one.

    Raises:
        D3POError: it has fewer blocks than that.
    """
    from accelerate import dispatch_model

    places = block_places(network, devices, on_last)
    if len(places) < len(devices):
        raise D3POError(f"This network cannot be divided among {len(devices)} cards.", f"Name {len(places)} at most.")
    dispatch_model(network, places, main_device=devices[0], force_hooks=True)


def block_places(network: nn.Module, devices: Sequence[str], on_last: int = 0) -> dict[str, str]:
    """Return the device of each block with weights, by its name.

    A block is what the network's own forward calls: what it passes on, accelerate's hooks move. Inside a block there
    are sums that none of them sees.

    Args:
        network, on_last: see `spread`.
        devices: get blocks one after another, in the order in which the network names them.
    """
    blocks = {
        f"{name}.{i}" if isinstance(child, nn.ModuleList) else name: block
        for name, child in network.named_children()
        for i, block in enumerate(child if isinstance(child, nn.ModuleList) else [child])
    }
    sizes = {name: size for name, block in blocks.items() if (size := _bytes(block))}
    each = (sum(sizes.values()) + on_last) / len(devices)
    ends = [each * number for number in range(1, len(devices))]  # the last device takes what is left
    if on_last > each:  # it is full already: the others share the network
        ends = [sum(sizes.values()) * number / (len(devices) - 1) for number in range(1, len(devices))]
    before, places = 0, {}
    for name, size in sizes.items():
        middle = before + size / 2
        places[name] = devices[sum(middle > end for end in ends)]
        before += size
    return places


def _bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())
