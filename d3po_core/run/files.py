"""Atomic files, and clear messages when they cannot be written or read.

A file is written under a temporary name in the same folder, flushed to the disk and renamed. Tensors are safetensors
with a checksum of their data in the header, because the format itself notices a cut file but not a changed byte.
They are read into memory rather than mapped: a mapped file can be neither deleted nor replaced on Windows.

Also a lock that ends with its process, because two trainers on one run would overwrite each other's state. The
operating system holds it, so a killed process leaves none. The facts about its holder (process, computer, start) are in
a file beside it, for the message alone.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import secrets
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from ..errors import D3POError

TEMPORARY = ".tmp"
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NO_SUM = b"00000000"
_NO_TENSOR = "d3po.none"


def disk_full(folder: Path) -> D3POError:
    """Make the error for a full disk."""
    return D3POError(
        f"The disk that holds {folder} is full.",
        "Free some space, then try again.",
        "All that was saved before is kept.",
    )


def unwritable(folder: Path, reason: str) -> D3POError:
    """Make the error for a folder that cannot be written to."""
    return D3POError(
        f"{folder} cannot be written to ({reason}).",
        "Change its permissions or choose another folder.",
        "All that was saved before is kept.",
    )


def check_writable(folder: Path) -> None:
    """Check that files can be put into a folder that need not exist yet, before long work whose result goes there.

    Raises:
        D3POError: they can't.
    """
    there = next((each for each in (folder.absolute(), *folder.absolute().parents) if each.exists()), None)
    if there is None:  # a drive of Windows that is not there
        raise unwritable(folder, os.strerror(errno.ENOENT))
    if not there.is_dir():
        raise unwritable(folder, f"{there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise unwritable(folder, os.strerror(errno.EACCES))


def check_new_file(path: Path) -> None:
    """Check that a file can be written, as `check_writable` does for a folder.

    Raises:
        D3POError: it can't.
    """
    if path.is_dir():
        raise D3POError(f"{path} is a folder.", "Name a file in it.")
    check_writable(path.parent)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the failure of a write inside into a message that a person can act on.

    Raises:
        D3POError: the disk is full, or the folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(folder) from error
        raise unwritable(folder, error.strerror or str(error)) from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut. Windows does so by itself and cannot open folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, data: bytes) -> None:
    """Write and flush to the disk; not atomic by itself."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def move(source: Path, target: Path) -> None:
    """Rename a file (replacing its target) or a folder, and make it last."""
    for attempt in range(10):
        try:
            os.replace(source, target)
            break
        except PermissionError:  # on Windows virus scanners hold new files open for some milliseconds
            if os.name != "nt" or attempt == 9:
                raise
            time.sleep(0.05 * (attempt + 1))
    sync_folder(target.parent)


def temporary(path: Path) -> Path:
    """Return an unused name in the same folder, for a file that is not complete yet."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY}")


def replace(path: Path, data: bytes) -> None:
    """Write a file atomically: afterwards it is the old one or the new one.

    Raises:
        D3POError: the disk is full, or the folder cannot be written to.
    """
    half = temporary(path)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(half, data)
            move(half, path)
        except BaseException:
            with contextlib.suppress(OSError):
                half.unlink(missing_ok=True)
            raise


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Serialise tensors as safetensors, with a checksum of their data added to the metadata."""
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    plain = plain or {_NO_TENSOR: torch.zeros(1)}  # safetensors 0.4.2, which A1111 has, cannot read a file without any
    data = bytearray(safetensors.torch.save(plain, {**(metadata or {}), "crc32": _NO_SUM.decode()}))
    at = data.index(b'"crc32":"' + _NO_SUM) + len(b'"crc32":"')
    data[at : at + len(_NO_SUM)] = b"%08x" % zlib.crc32(_body(data))
    return bytes(data)


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `pack` made: tensors and metadata. Files of others, without a checksum, are read too.

    Raises:
        ValueError: the data are damaged.
    """
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    except KeyError as error:  # of the format's data types safetensors knows more than torch has
        raise ValueError(f"torch has no data type {error}") from error
    tensors.pop(_NO_TENSOR, None)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    expected = metadata.pop("crc32", None)
    if expected is not None and expected != f"{zlib.crc32(_body(data)):08x}":
        raise ValueError("the checksum does not fit")
    return tensors, metadata


def read(path: Path, what: str, do: str, safe: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a file.

    Args:
        path: the file.
        what: its content, for the error ("The trajectory of group 12").
        do, safe: as in `D3POError`, for the error.

    Raises:
        D3POError: the file is missing, damaged or cannot be read.
    """
    try:
        return unpack(path.read_bytes())
    except FileNotFoundError as error:
        raise D3POError(f"{what} is missing: {path}.", do, safe) from error
    except OSError as error:
        raise D3POError(f"{what} cannot be read ({error.strerror}): {path}.", do, safe) from error
    except ValueError as error:
        raise D3POError(f"{what} is damaged ({error}): {path}.", do, safe) from error


def png(image: Image.Image) -> bytes:
    """Encode an image as PNG, without its metadata."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _body(data: bytes | bytearray) -> memoryview:
    """Return the tensors' bytes of a safetensors file, which follow its header."""
    return memoryview(data)[8 + int.from_bytes(data[:8], "little") :]


HOLDER = ".holder.json"
"""End of the name of the file that says who holds the lock, or held it last. Some versions of filelock empty the lock
file itself."""
POLL_SECONDS = 0.02


@contextmanager
def hold(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock file while inside. It is not re-entrant, not even within one process.

    Args:
        path: the lock file; it is made when missing.
        wait: seconds to wait for another holder.

    Raises:
        D3POError: another holder has it (the message names its process, computer and start), the disk is full or the
            folder cannot be written to.
    """
    lock = FileLock(path, thread_local=False)  # a new one each time: filelock's own objects are re-entrant
    with writing(path.parent):
        path.parent.stat()  # filelock would make a missing folder again, even that of a run that was moved
        try:
            lock.acquire(timeout=wait, poll_interval=POLL_SECONDS)
        except Timeout:  # an OSError too, so it must not reach `writing`
            raise _held(path) from None
    try:
        with suppress(OSError):  # on a full disk the lock must work all the same: it guards the freeing of space
            path.with_name(path.name + HOLDER).write_text(json.dumps(_this_process()), encoding="utf-8")
        yield
    finally:
        lock.release()


def _this_process() -> dict[str, str | int]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "start": time.strftime("%Y-%m-%d %H:%M:%S")}


def _held(path: Path) -> D3POError:
    try:
        facts = json.loads(path.with_name(path.name + HOLDER).read_text(encoding="utf-8"))
        holder = f"process {facts['pid']} on {facts['host']}, since {facts['start']}"
    except (OSError, ValueError, KeyError, TypeError):  # the holder could not write it, or has not yet
        holder = "another process"
    return D3POError(
        f"The run in {path.parent} is being trained already: {holder}.",
        "Wait until it has finished, or stop it.",
        "All picks are saved.",
    )
