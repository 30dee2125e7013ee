"""Live bytes of a computation, and their peak: every storage once, from the operation that makes it to its end.

That is what an allocator without waste holds. It leaves out what kernels allocate for themselves while they run
(workspaces of convolutions and of matrix products) and what a driver and its libraries take.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

META = torch.device("meta")
"""Where tensors have shapes and no values."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages on one device while it is active, as a context manager.

    Args:
        device: whose storages are counted.

    Attributes:
        live: bytes of the storages that are alive now.
        peak: the most that were alive at once.
    """

    def __init__(self, device: torch.device = META) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._type = device.type
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def hold(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that were there before; return their bytes."""
        before = self.live
        for tensor in tensors:
            self._see(tensor)
        return self.live - before

    def __torch_dispatch__(
        self,
        operation: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._see(result)
        else:
            tree_map_only(Tensor, self._see, result)
        return result

    def _see(self, tensor: Tensor) -> None:
        if tensor.device.type != self._type:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def ended(_: object) -> None:
            del self._alive[key]
            self.live -= size

        self._alive[key] = weakref.ref(storage, ended)
        self.live += size
        self.peak = max(self.peak, self.live)


_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def fused_attention() -> Iterator[None]:
    """Compute attention on the meta device as the fused kernels of today's devices do, until the context ends.

    They keep queries, keys, values, the result and one number for each query and head. Left alone, tensors of the meta
    device would take the unfused way, which keeps the attention of every token to every other. Where the sizes of
    queries and values differ, or there is dropout, real devices take that way too. Tensors of other devices, in other
    threads too, are computed as ever.
    """
    with _ONE_AT_A_TIME:
        unfused = F.scaled_dot_product_attention

        @functools.wraps(unfused)
        def attention(
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attn_mask: Tensor | None = None,
            dropout_p: float = 0.0,
            is_causal: bool = False,
            scale: float | None = None,
            **others: Any,
        ) -> Tensor:
            alike = query.dim() == 4 and query.shape[-1] == key.shape[-1] == value.shape[-1]
            if not (query.is_meta and alike) or dropout_p or any(others.values()):
                return unfused(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **others)
            if attn_mask is not None and attn_mask.dtype == torch.bool:
                attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
            kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which knows the meta device
            result: Tensor = kernel(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]
            return result

        F.scaled_dot_product_attention = attention
        try:
            yield
        finally:
            F.scaled_dot_product_attention = unfused


@contextmanager
def counted(modules: Iterable[nn.Module], device: torch.device = META) -> Iterator[LiveBytes]:
    """Count what is alive on a device until the context ends, the weights of these modules from the beginning."""
    live = LiveBytes(device)
    for module in modules:
        live.hold([*module.parameters(), *module.buffers()])
    with fused_attention(), live:
        yield live


def module_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers, every storage once."""
    return LiveBytes(next(module.parameters()).device).hold([*module.parameters(), *module.buffers()])
