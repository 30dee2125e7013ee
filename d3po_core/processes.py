"""Several processes that work as one, as `torchrun` and `accelerate launch` start them.

These start the same program N times and number the copies in the environment: RANK of WORLD_SIZE, LOCAL_RANK on each
computer. The first (rank 0) owns the run: it alone decides, writes and speaks. Messages between them are JSON and
tensors, never pickled, and go over gloo, also where there are graphics cards: a LoRA's gradient is some megabytes, and
gloo notices at once if a process ends, where NCCL may wait for ever. Where one ends, the others end with a sentence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from .errors import D3POError

if TYPE_CHECKING:  # torch is imported by those that are several, not by `d3po --help`
    from torch import Tensor

T = TypeVar("T")
MEETING = timedelta(minutes=10)
"""How long the processes wait for each other at the start."""
PATIENCE = timedelta(days=2)
"""How long one waits later for another that lives: it may be fitting a judge, or drawing a large picture."""
_FACTS = "facts"


@dataclass(frozen=True)
class Message:
    """What one process hands another.

    Attributes:
        facts: JSON-able.
        tensors: by name; they arrive on the processor.
    """

    facts: object = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Serialise the message as a run's files are: safetensors with a checksum."""
        from .run.files import pack

        return pack(self.tensors, {_FACTS: json.dumps(self.facts)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Message:
        """Read what `to_bytes` wrote."""
        from .run.files import unpack

        tensors, metadata = unpack(data)
        return cls(json.loads(metadata[_FACTS]), tensors)


@dataclass(frozen=True)
class Processes:
    """The processes that work together, seen by one of them.

    Every method is called by all of them, in the same order.

    Attributes:
        rank: number of this one, from 0.
        size: how many there are.
        local_rank: number of this one on its computer.
        local_size: how many there are on its computer.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Return whether this is the process that owns the run."""
        return self.rank == 0

    @property
    def computer(self) -> int:
        """Return which computer this process is on: the number of the first process there."""
        return self.rank - self.local_rank

    def device(self, asked: str | None = None) -> str | None:
        """Return the device or devices of this process's own, separated by commas; None leaves the choice open.

        Args:
            asked: devices that somebody named, separated by commas: the processes of a computer get equal parts of
                several, and share one. Without, each gets one graphics card, if there are any.

        Raises:
            D3POError: several devices cannot be divided equally.
        """
        if self.size == 1:
            return asked
        import torch

        names = asked.split(",") if asked else [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        if not asked or len(names) == 1:
            return names[self.local_rank % len(names)] if names else None
        if len(names) % self.local_size:
            raise D3POError(
                f"{len(names)} devices cannot be divided equally among {self.local_size} processes.",
                "Name as many for each of them.",
            )
        each = len(names) // self.local_size
        return ",".join(names[self.local_rank * each : (self.local_rank + 1) * each])

    def mine(self, items: Sequence[T]) -> list[T]:
        """Return this process's part of what is dealt out in turns."""
        return list(items[self.rank :: self.size])

    def share(self, message: Message | None = None) -> Message:
        """Return the first process's message to all; the others' own is passed over."""
        if self.size == 1:
            return message or Message()
        return Message.from_bytes(self._broadcast((message or Message()).to_bytes() if self.first else b""))

    def share_facts(self, facts: T) -> T:
        """Return the first process's JSON-able value to all; lists stand for tuples then."""
        shared: T = self.share(Message(facts)).facts if self.size > 1 else facts  # type: ignore[assignment]
        return shared

    def gather(self, message: Message) -> list[Message]:
        """Return everybody's message to all, by rank."""
        if self.size == 1:
            return [message]
        data = message.to_bytes()
        return [Message.from_bytes(part) for part in self._all_gather(data, self._lengths(data))]

    def hand_in(self, message: Message) -> list[Message]:
        """Return everybody's message to the first, by rank; nothing to the others."""
        if self.size == 1:
            return [message]
        data = message.to_bytes()
        return [Message.from_bytes(part) for part in self._gather(data, self._lengths(data))]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, alike everywhere, by their sums over all processes, in one go."""
        if self.size == 1 or not tensors:
            return
        import torch

        flat = torch.cat([tensor.flatten().cpu() for tensor in tensors])
        with _ended():
            torch.distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def _all_gather(self, data: bytes, lengths: Sequence[int]) -> list[bytes]:
        import torch

        parts = [torch.empty(max(lengths), dtype=torch.uint8) for _ in lengths]
        with _ended():
            torch.distributed.all_gather(parts, _to_tensor(data.ljust(max(lengths), b"\0")))
        return [part[:length].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]

    def _gather(self, data: bytes, lengths: Sequence[int]) -> list[bytes]:
        import torch

        parts = [torch.empty(max(lengths), dtype=torch.uint8) for _ in lengths] if self.first else None
        with _ended():
            torch.distributed.gather(_to_tensor(data.ljust(max(lengths), b"\0")), parts, 0)
        return [part[:length].numpy().tobytes() for part, length in zip(parts or [], lengths, strict=self.first)]

    def _lengths(self, data: bytes) -> list[int]:
        import torch

        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _ended():
            torch.distributed.all_gather(lengths, torch.tensor([len(data)]))
        return [int(length) for length in lengths]

    def _broadcast(self, data: bytes) -> bytes:
        import torch

        with _ended():
            length = torch.tensor([len(data)])
            torch.distributed.broadcast(length, 0)
            content = _to_tensor(data) if self.first else torch.empty(int(length), dtype=torch.uint8)
            torch.distributed.broadcast(content, 0)
        return content.numpy().tobytes()


ALONE = Processes()


def _to_tensor(data: bytes) -> Tensor:
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


@contextmanager
def _ended() -> Iterator[None]:
    """Turn what a broken connection raises into a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise D3POError(
            "Another of the processes that work together has ended.",
            "See what it says, then start again with any number of processes.",
            "What was done before is kept.",
        ) from error


def number_from(name: str, usual: int) -> int:
    """Return a number of the environment; `usual` where it is unset or empty.

    Raises:
        D3POError: it is none.
    """
    text = os.environ.get(name) or str(usual)
    if not text.isdecimal():
        raise D3POError(f"The environment variable {name} is '{text}'.", "Start several processes by torchrun.")
    return int(text)


@contextmanager
def together() -> Iterator[Processes]:
    """Join the processes that were started together, until the context ends; one alone joins nobody.

    Raises:
        D3POError: the others cannot be reached, or the environment numbers them wrongly.
    """
    size = number_from("WORLD_SIZE", 1)
    if size == 1:
        yield ALONE
        return
    import torch

    rank = number_from("RANK", 0)
    if not rank < size or not torch.distributed.is_available():
        raise D3POError(f"This is process {rank} of {size}.", "Start several processes by torchrun.")
    processes = Processes(rank, size, number_from("LOCAL_RANK", rank), number_from("LOCAL_WORLD_SIZE", size))
    try:
        store, _, _ = next(torch.distributed.rendezvous("env://", rank, size, timeout=MEETING))
        store.set_timeout(PATIENCE)
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:  # of DistStoreError and DistNetworkError, too
        raise D3POError(
            f"Process {rank} of {size} cannot reach the others ({str(error).splitlines()[0]}).",
            "Start all of them by one torchrun; for one process, unset WORLD_SIZE.",
        ) from error
    try:
        yield processes
    finally:
        torch.distributed.destroy_process_group()
