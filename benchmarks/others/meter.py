"""Measures a training loop from inside. Needs nothing of this project: other programs' interpreters import it, too."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.memory_use import peak_resident, resident


class Meter:
    """Takes the processor time between one training step and the next, and ends the process after enough of them.

    Args:
        intervals: between steps, after those that are left out.
        left_out: intervals at the beginning: what is slow only the first time.
        rows: (image, denoising step) pairs that one training step trains.
    """

    def __init__(self, intervals: int, left_out: int, rows: int) -> None:
        self._intervals, self._left_out, self._rows = intervals, left_out, rows
        self._baseline, self._times = 0, list[float]()

    def begin(self) -> None:
        """Note the memory that is resident now: libraries and the model, before anything is trained."""
        self._baseline = resident()

    def tick(self, *_: Any, **__: Any) -> None:
        """Note the end of a training step. After the last one, print the figures and end the process at once."""
        self._times.append(time.process_time())
        if len(self._times) <= self._left_out + self._intervals:
            return
        times = self._times[self._left_out :]
        seconds = [(end - begin) / self._rows for begin, end in pairwise(times)]
        print(json.dumps({"seconds": seconds, "bytes": peak_resident() - self._baseline}), flush=True)
        os._exit(0)  # what comes after the step is not measured: saving, showing, further epochs

    def watch(self, owner: Any, name: str, before: bool = False) -> None:
        """Let a function of another program begin this meter when it has returned, or tick.

        Args:
            owner: class or module.
            name: of the function in it.
            before: it loads the model: begin. Else it ends a training step: tick.
        """
        original, then = getattr(owner, name), self.begin if before else self.tick

        def watched(*arguments: Any, **named: Any) -> Any:
            result = original(*arguments, **named)
            then()
            return result

        setattr(owner, name, watched)


def options(description: str | None) -> argparse.Namespace:
    """Read what every worker is called with, and let torch use one thread."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("way", help="what to run")
    parser.add_argument("--pipeline", type=Path, required=True, help="folder of the model")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for whatever is written")
    parser.add_argument("--program", type=Path, help="folder of the other program")
    parser.add_argument("--steps", type=int, required=True, help="denoising steps")
    parser.add_argument("--guidance", type=float, required=True)
    parser.add_argument("--followed", type=int, required=True, help="last steps that a reward is followed through")
    parser.add_argument("--intervals", type=int, required=True)
    import torch

    torch.set_num_threads(1)
    return parser.parse_args()


def only(folder: Path) -> None:
    """Take this project out of the places that are imported from, and put another program's folder there."""
    root = Path(__file__).resolve().parents[2]
    sys.path[:] = [str(folder), *(each for each in sys.path if each and Path(each).resolve() != root)]
    os.chdir(folder)
