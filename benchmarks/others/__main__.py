"""This project's training steps against what people would use instead: `python -m benchmarks.others`.

    python -m benchmarks.others                                  this project alone
    python -m benchmarks.others --trl-python trl/bin/python --d3po d3po --d3po-python d3po/bin/python \\
        --diffusers-examples diffusers/examples --diffusers-python trl/bin/python

What it compares with, each optional and installed or fetched apart:

    TRL 0.11             DDPO and AlignProp, in an environment with trl 0.11 (--trl-python)
    Diffusion-DPO        diffusers' research_projects/diffusion_dpo/train_diffusion_dpo.py (--diffusers-examples), in an
                         environment with diffusers, datasets and tensorboard or not (--diffusers-python)
    the D3PO authors     scripts/train.py of github.com/yk7333/d3po (--d3po), in an environment with diffusers 0.17
                         (--d3po-python)

Everybody trains the same random network (17 M parameters, latents 32 x 32) with a LoRA of rank 4 on its attentions, two
pictures at once, guidance 5, float32, one thread. Picks are trained on one step of a pair at a time, whatever their
number; a reward is followed through the last 3 of 20 steps. It is their own code that runs, see the modules beside this
one. Every line is a process of its own; the lines take turns, in reverse order every other time. Seconds are of the
processor, not of the clock, so that others at work on the computer matter less; memory is the peak of resident memory
over what libraries and model took before training. Ratios are taken within each turn.

Seeds: network 0, pictures and noises as each program has them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory_use import MIB
from benchmarks.others.pipeline import save_pipeline

ROOT = Path(__file__).resolve().parents[2]
STEPS, DRAWN, GUIDANCE, FOLLOWED = 8, 20, 5.0, 3
"""Denoising steps of what is trained on, and of a drawing that a reward is followed through."""
FULL, QUICK = ((64, 128, 256), 32, 4), ((32, 64), 8, 2)
"""Channels of the network, side of the latents, training steps that are measured."""


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        name: of the line.
        module: worker in this package.
        way: what the worker runs.
        program: whose it is: a name in `programs`, "" for this project.
        beside: this project's lines that it is compared with: with the same objective, and what it does by default.
        drawing: a training step is a whole drawing, so that fewer are measured.
    """

    name: str
    module: str
    way: str
    program: str = ""
    beside: tuple[str, ...] = ()
    drawing: bool = False


LINES = [
    Line("ours, default", "ours", "default"),
    Line("ours, published loss, guided", "ours", "published"),
    Line("ours, diffusion-dpo", "ours", "diffusion-dpo"),
    Line("ours, draft-k, last 3", "ours", "draft-k", drawing=True),
    Line("ours, draft-lv (default)", "ours", "draft-lv", drawing=True),
    Line("the authors' train.py", "authors", "d3po", "d3po", ("ours, published loss, guided", "ours, default")),
    Line("TRL DDPO", "trl_trainers", "ddpo", "trl", ("ours, published loss, guided", "ours, default")),
    Line("diffusers Diffusion-DPO", "diffusion_dpo", "pairs", "diffusers", ("ours, diffusion-dpo", "ours, default")),
    Line(
        "TRL AlignProp, last 3",
        "trl_trainers",
        "alignprop",
        "trl",
        ("ours, draft-k, last 3", "ours, draft-lv (default)"),
        True,
    ),
]


@dataclass(frozen=True)
class Program:
    """Another program: the Python that has what it needs, and its folder, if it is not installed."""

    python: str
    folder: Path | None
    needs: Sequence[str]
    file: str = ""

    def lacking(self) -> str:
        """Return what is missing, as a sentence; "" if nothing is."""
        if self.file and self.folder is None:
            return "its folder was not named."
        if self.folder is not None and not (self.folder / self.file).is_file():
            return f"there is no {self.file} in {self.folder}."
        probe = f"import importlib.util as u; print(*(n for n in {list(self.needs)!r} if u.find_spec(n) is None))"
        done = subprocess.run([self.python, "-c", probe], capture_output=True, text=True)
        absent = done.stdout.split() if done.returncode == 0 else ["Python"]
        return f"{self.python} lacks {', '.join(absent)}." if absent else ""


@dataclass(frozen=True)
class Measured:
    """One turn of a line: seconds per (image, step), the median over its training steps, and bytes over the model."""

    seconds: float
    bytes: float


def measure(line: Line, programs: dict[str, Program], pipeline: Path, options: argparse.Namespace) -> Measured | str:
    """Run a line once, in a process of its own; return the figures, or why there are none."""
    program = programs.get(line.program, Program(sys.executable, None, ()))
    intervals = (QUICK if options.quick else FULL)[2]
    with tempfile.TemporaryDirectory() as scratch:
        command = [program.python, "-m", f"benchmarks.others.{line.module}", line.way, "--pipeline", str(pipeline)]
        command += ["--scratch", scratch, "--steps", str(DRAWN if line.drawing else STEPS)]
        command += ["--guidance", str(GUIDANCE), "--followed", str(FOLLOWED)]
        command += ["--intervals", str(1 if line.drawing else intervals)]
        command += ["--program", str(program.folder.resolve())] if program.folder else []
        alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **alone})
    figures = [text for text in done.stdout.splitlines() if text.startswith('{"seconds"')]
    if done.returncode or not figures:
        return (done.stderr.strip() or "it ended without a figure").splitlines()[-1]
    found = json.loads(figures[-1])
    return Measured(statistics.median(found["seconds"]), found["bytes"])


def take_turns(
    lines: Sequence[Line], programs: dict[str, Program], pipeline: Path, options: argparse.Namespace
) -> None:
    """Run every line as often as asked for, in turn, and print the table after each turn.

    A line that fails is left out from then on, with a sentence.
    """
    found: dict[str, list[Measured]] = {line.name: [] for line in lines}
    for turn in range(options.repeats):
        for line in lines if turn % 2 == 0 else reversed(lines):
            if line.name not in found:
                continue
            result = measure(line, programs, pipeline, options)
            if isinstance(result, str):
                print(f"Left out: {line.name}: {result}", flush=True)
                del found[line.name]
                continue
            found[line.name].append(result)
            print(f"  turn {turn + 1}: {line.name}: {result.seconds:.3f} s, {result.bytes / MIB:,.0f} MiB", flush=True)
        print("\n" + table(lines, found) + "\n", flush=True)


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> str:
    """Return the median of the turns' ratios, and their range."""
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(lines: Sequence[Line], found: dict[str, list[Measured]]) -> str:
    """Return the tables: of every line, and of each other program over ours."""
    rows = [f"{'':32}{'s per (image, step)':>22}{'memory, MiB':>14}"]
    for name, turns in found.items():
        seconds, size = (statistics.median(getattr(turn, part) for turn in turns) for part in ("seconds", "bytes"))
        rows.append(f"{name:32}{seconds:>22.3f}{size / MIB:>14,.0f}")
    rows += ["", f"{'theirs over ours':60}{'seconds':>22}{'memory':>24}"]
    for line in lines:
        for other in line.beside if line.name in found else ():
            if other in found:
                parts = [[[getattr(t, p) for t in found[n]] for n in (line.name, other)] for p in ("seconds", "bytes")]
                times, sizes = (ratio(*part) for part in parts)
                rows.append(f"{line.name + ' over ' + other:60}{times:>22}{sizes:>24}")
    return "\n".join(rows)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", default=sys.executable, help="a Python that has trl 0.11")
    parser.add_argument("--diffusers-examples", type=Path, help="the folder examples of diffusers")
    parser.add_argument("--diffusers-python", default=sys.executable, help="a Python for them")
    parser.add_argument("--d3po", type=Path, help="a clone of github.com/yk7333/d3po")
    parser.add_argument("--d3po-python", default=sys.executable, help="a Python that has diffusers 0.17")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--lines", nargs="*", help="only those that have one of these words in their names")
    parser.add_argument("--quick", action="store_true", help="a tiny network and one turn, to see that it works")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    options.repeats = 1 if options.quick else options.repeats
    script = "research_projects/diffusion_dpo/train_diffusion_dpo.py"
    authors = ["diffusers", "ml_collections", "absl", "tree", "accelerate"]
    programs = {
        "trl": Program(options.trl_python, None, ["trl", "psutil"]),
        "diffusers": Program(
            options.diffusers_python, options.diffusers_examples, ["diffusers", "datasets", "psutil"], script
        ),
        "d3po": Program(options.d3po_python, options.d3po, [*authors, "psutil"], "scripts/train.py"),
    }
    lines = [line for line in LINES if not options.lines or any(word in line.name for word in options.lines)]
    lacking = {name: programs[name].lacking() for name in dict.fromkeys(line.program for line in lines) if name}
    for line in lines:
        if lacking.get(line.program):
            print(f"Left out: {line.name}: {lacking[line.program]}")
    lines = [line for line in lines if not lacking.get(line.program)]
    channels, side, _ = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        parameters = save_pipeline(Path(folder), channels, side)
        print(f"UNet of {parameters / 1e6:.1f} M parameters, latents 4x{side}x{side}\n")
        take_turns(lines, programs, Path(folder), options)


if __name__ == "__main__":
    main()
