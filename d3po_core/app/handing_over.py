"""Open one run in several processes, also where they have no disk in common.

A run's database is SQLite in WAL mode, which no network's disk carries. So the first process alone opens the run for
work. Those on its computer read the same folder, and every other computer gets a copy of the files that are needed, for
as long as the work takes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ..errors import D3POError
from ..processes import ALONE, Message, Processes
from ..run import Run, files
from ..run.database import CONDITIONING, DATABASE, GROUPS, TRAJECTORY
from .loras import lora_of

CHUNK = 2**26
"""Bytes of files that are sent at once."""
PREFIX = "d3po-run-"
"""How the names of copies begin, in the folder for temporary files."""
_USER = ".user"
"""Ending of the mark that a process leaves in a copy while it uses it; before it is the process's number."""


def files_to_draft(run: Run) -> list[Path]:
    """Return what other processes read while a reward is followed: prompts, and the LoRA that training departs from."""
    lora = run.rounds.lora(run.rounds.needed())
    return [*sorted((run.folder / CONDITIONING).glob("*.safetensors")), *([lora] if lora else [])]


def files_to_train(run: Run) -> list[Path]:
    """Return what other processes read while a round learns from picks: beside that, the recorded steps."""
    groups = [run.folder / GROUPS / group.id / TRAJECTORY for group in run.groups.select(freed=False)]
    return [*filter(Path.is_file, groups), *files_to_draft(run)]


def files_to_evaluate(run: Run, round: int | str = 0) -> list[Path]:
    """Return what other processes read while a round's LoRA is evaluated; 0 is the present one."""
    return [lora_of(run, round)]


@contextmanager
def opened(folder: str | Path, needed: Callable[[Run], Sequence[Path]], processes: Processes = ALONE) -> Iterator[Run]:
    """Open a run in all processes until the context ends.

    Args:
        folder: of the run; where other computers have none, or another one, a copy of it is used.
        needed: returns the files in the run's folder that other processes read; the first one calls it.
        processes: all of them call this.

    Raises:
        D3POError: the run cannot be opened by the first process, or its copy cannot be written.
    """
    if processes.size == 1:
        with _closing(Run.open(folder)) as run:
            yield run
        return
    first = Run.open(folder) if processes.first else None
    run_id = processes.share_facts(first.run_id if first else "")
    own = first or (_same_run(Path(folder), run_id) if processes.computer == 0 else None)
    needing = [bool(each.facts) for each in processes.gather(Message(own is None))]
    copy = _copied(processes, first, needed(first) if first else (), needing) if any(needing) else None
    if own:
        with _closing(own) as run:
            yield run
    elif copy:
        try:
            with _closing(Run.open(copy)) as run:
                yield run
        finally:
            _leave(copy)


def _same_run(folder: Path, run_id: str) -> Run | None:
    """Return the run of the first process, if it is in this folder."""
    if not (folder / DATABASE).is_file():
        return None
    run = Run.open(folder)
    if run.run_id == run_id:
        return run
    run.close()
    return None


def _copied(processes: Processes, run: Run | None, needed: Sequence[Path], needing: Sequence[bool]) -> Path | None:
    """Copy a run to every computer that needs it, by one process of each, and return where this one's copy is.

    Args:
        processes: all of them call this.
        run: of the first process.
        needed: files in its folder.
        needing: whether a process needs a copy, by rank.
    """
    computers = [int(str(each.facts)) for each in processes.gather(Message(processes.computer))]
    writers = {computer: rank for rank, computer in reversed(list(enumerate(computers))) if needing[rank]}
    folder = _new_folder() if writers.get(processes.computer) == processes.rank else None
    try:
        parts = _parts(run, needed) if run else None
        while names := (part := processes.share(next(parts, Message([])) if parts else None)).facts:
            if folder:
                _write(folder, names, part)  # type: ignore[arg-type]
        folders = [each.facts for each in processes.gather(Message(str(folder) if folder else None))]
        own = Path(str(folders[writers[processes.computer]])) if needing[processes.rank] else None
        if own:
            _mark(own).touch()
        processes.gather(Message())  # before anybody leaves it, all have marked that they use it
        return own
    except BaseException:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _new_folder() -> Path:
    """Make a folder for a copy, once those are deleted whose users were all killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not any(_is_alive(int(mark.stem)) for mark in path.glob(f"*{_USER}")):
            shutil.rmtree(path, ignore_errors=True)
    half = Path(tempfile.mkdtemp(prefix="d3po-"))
    _mark(half).touch()
    folder = half.with_name(f"{PREFIX}{half.name.removeprefix('d3po-')}")
    half.rename(folder)
    return folder


def _is_alive(process: int) -> bool:
    import psutil

    return psutil.pid_exists(process)


def _mark(copy: Path) -> Path:
    return copy / f"{os.getpid()}{_USER}"


def _leave(copy: Path) -> None:
    """Delete a copy once the last process of its computer has finished with it."""
    _mark(copy).unlink(missing_ok=True)
    if not any(copy.glob(f"*{_USER}")):
        shutil.rmtree(copy, ignore_errors=True)


def _parts(run: Run, needed: Sequence[Path]) -> Iterator[Message]:
    """Yield a run's database and files of its folder, several in one message; facts are their names."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / DATABASE
        run.copy_database(database)
        names, contents, size = [DATABASE], [database.read_bytes()], database.stat().st_size
        for path in needed:
            if size > CHUNK:
                yield _message(names, contents)
                names, contents, size = [], [], 0
            names.append(path.relative_to(run.folder).as_posix())
            contents.append(path.read_bytes())
            size += len(contents[-1])
        yield _message(names, contents)


def _message(names: list[str], contents: list[bytes]) -> Message:
    tensors = {str(i): torch.frombuffer(bytearray(data), dtype=torch.uint8) for i, data in enumerate(contents) if data}
    return Message(names, tensors)


def _write(folder: Path, names: Sequence[str], part: Message) -> None:
    """Write the files of a message; nothing is written outside the folder.

    Raises:
        D3POError: the disk is full, or a name leads out of the folder.
    """
    for i, name in enumerate(names):
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise D3POError(f"'{name}' is no file of a run.")
        with files.writing(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(part.tensors[str(i)].numpy().tobytes() if str(i) in part.tensors else b"")


@contextmanager
def _closing(run: Run) -> Iterator[Run]:
    try:
        yield run
    finally:
        run.close()
