"""Small runs to test on, and what other processes do to them. Imported by those processes too, so it stays light."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import torch
from PIL import Image

from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.run import Run, StoredFlag, StoredPick

MODEL = {"identity": "abc", "source": "somewhere/model", "family": "diffusion"}


def processes():
    """New processes that import torch once between them where the system can fork."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The last is what torch imports, slowly, with the first optimiser.
    preload = ["run_helpers", "torch", "safetensors.torch", "PIL.PngImagePlugin", "torch._dynamo"]
    context.set_forkserver_preload(preload)
    return context


def make_run(folder: Path, groups: int = 0, candidates: int = 2, **kwargs) -> Run:
    run = Run.create(folder, model=MODEL, settings={"seed": 3})
    for _ in range(groups):
        put_group(run, candidates=candidates, **kwargs)
    return run


def put_group(run: Run, *, candidates: int = 2, tensors=None, **kwargs) -> str:
    number = kwargs.pop("number", None)
    number = run.groups.next_number() if number is None else number
    values = {
        "prompt_id": run.prompts.add("a red flower"),
        "seed": 2**64 - 1 - number,
        "policy": "base",
        "round": 1,
        "settings": {"steps": 4, "eta": 1.0},
        "held_out": False,
    }
    return run.groups.add(
        number=number,
        candidates=candidates,
        tensors=trajectory(number, candidates) if tensors is None else tensors,
        images=[picture(number, candidate) for candidate in range(candidates)],
        **{**values, **kwargs},
    )


def trajectory(number: int, candidates: int = 2) -> dict[str, torch.Tensor]:
    """Tensors that tell their group's number."""
    values = torch.arange(candidates * 24, dtype=torch.float32).reshape(candidates, 3, 2, 4)
    return {"x": values + number, "sigma": torch.full((3,), float(number), dtype=torch.float64)}


def picture(number: int, candidate: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (number % 256, candidate, 77))


def acknowledge(path: Path, text: str) -> None:
    """One line that survives a SIGKILL, as soon as this returns."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, text.encode() + b"\n")
    os.close(handle)


def write_until_killed(folder: Path, log: Path) -> None:
    """Groups and picks as fast as they go, each acknowledged once the call has returned."""
    torch.set_num_threads(1)
    run = Run.open(folder)
    while True:
        group_id = put_group(run)
        acknowledge(log, f"group {group_id}")
        for _ in range(4):
            recorded = run.picks.add(group_id, Pick("favourite", (0,)), who="x")
            acknowledge(log, f"pick {recorded.pick_id}")
            flagged = run.flags.add(group_id, 1, "defective", who="x")
            acknowledge(log, f"flag {flagged.pick_id}")


def die_at(folder: Path, log: Path, call: int) -> None:
    """One group and one pick, killed at the start of the given C call, counted from the first."""
    torch.set_num_threads(1)
    run = Run.open(folder)
    left = call

    def count(frame, event, argument) -> None:
        nonlocal left
        left -= event == "c_call"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    group_id = put_group(run)
    acknowledge(log, f"group {group_id}")
    recorded = run.picks.add(group_id, Pick("favourite", (0,)))
    acknowledge(log, f"pick {recorded.pick_id}")
    sys.setprofile(None)
    acknowledge(log, f"survived {call - left}")


def pick_all(folder: Path, who: str, ids: list[str], times: int) -> None:
    """A person who judges every group some times over; each request is sent twice, as a bad network would."""
    run = Run.open(folder)
    for time in range(times):
        for group_id in ids:
            for _ in range(2):
                run.picks.add(group_id, Pick("favourite", (time % 2,)), pick_id=f"{who} {group_id} {time}", who=who)


def undo(run: Run, who: str = "") -> StoredPick | StoredFlag | None:
    """Take back a person's last pick or flag, as the page does, and return it."""
    last = run.picks.last(who)
    return last and run.picks.take_back(last.pick_id)


def add_groups(folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    run = Run.open(folder)
    for _ in range(count):
        put_group(run)


def create_unless_there(folder: Path) -> None:
    with suppress(D3POError):
        Run.create(folder, model=MODEL, settings={})
    Run.open(folder)


def hold_trainer_lock(folder: Path, ready) -> None:
    with Run.open(folder).rounds.lock():
        ready.set()
        signal.pause() if hasattr(signal, "pause") else input()
