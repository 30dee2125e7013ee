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
from torch.utils._pytree import tree_leaves, tree_map_only

META = torch.device("meta")
"""Where tensors have shapes and no values."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages on one device while it is active, as a context manager.

    Args:
        device: where storages are counted.

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
        compute = _shapes_of if self._type == META.type else _compute
        result = compute(operation, args, kwargs or {})
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


def _compute(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return operation(*args, **kwargs)


_known: dict[object, tuple[bool, list[tuple[Any, ...] | None]]] = {}
"""Shape, strides and dtype of results, None for what is none, by the operation and its arguments; and whether they are
several. Networks repeat themselves, and PyTorch derives most shapes in Python."""


def _shapes_of(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what an operation returns on the meta device: its result has no values, so that of another time will do.

    Views and what is changed in place are computed each time.
    """
    try:
        key = (operation, _signature(args), _signature(tuple(sorted(kwargs.items()))))
        known = _known.get(key)
    except TypeError:  # arguments that cannot be keys
        return operation(*args, **kwargs)
    if known is not None:
        made = [None if one is None else torch.empty_strided(*one[:2], dtype=one[2], device=META) for one in known[1]]
        return tuple(made) if known[0] else made[0]
    result = operation(*args, **kwargs)
    several = isinstance(result, tuple)
    results = list(result) if several else [result]
    if _is_new(operation, results, args):
        shapes = [None if one is None else (one.shape, one.stride(), one.dtype) for one in results]
        _known[key] = (several, shapes)
    return result


def _signature(value: Any) -> Any:
    """Return what decides the shapes of results in an argument."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device, value.storage_offset() == 0
    if isinstance(value, list | tuple):
        return tuple(map(_signature, value))
    return type(value), value


def _is_new(operation: Any, results: list[Any], args: tuple[Any, ...]) -> bool:
    """Return whether all results are tensors of the meta device, or None, with storage of their own."""
    tensors = [one for one in results if one is not None]
    if operation._schema.is_mutable or not all(isinstance(one, Tensor) and one.is_meta for one in tensors):
        return False
    inputs = {one.untyped_storage()._cdata for one in tree_leaves(args) if isinstance(one, Tensor)}
    own = [one.untyped_storage()._cdata for one in tensors]
    sizes = [one.untyped_storage().nbytes() for one in tensors]
    return not inputs & set(own) and len(set(own)) == len(own) and sizes == [_extent(one) for one in tensors]


def _extent(tensor: Tensor) -> int:
    """Return the bytes from a tensor's first element to its last, as `torch.empty_strided` allocates them."""
    if not tensor.numel():
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def fused_attention() -> Iterator[None]:
    """Compute attention on the meta device as the fused kernels of today's devices do, until the context ends.

    They keep queries, keys, values, the result and one number for each query and head. Left alone, tensors of the meta
    device would take the unfused way, which keeps the attention of every token to every other. Where the sizes of
    queries and values differ, or there is dropout, real devices take that way too. Tensors of other devices, in other
    threads too, are computed as ever. What another library has put in its place meanwhile stays.
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

        fused: Any = attention
        F.scaled_dot_product_attention = fused
        try:
            yield
        finally:
            if F.scaled_dot_product_attention is fused:
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
