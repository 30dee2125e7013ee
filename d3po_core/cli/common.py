"""What several commands share: naming a run, a model, a policy and prompts, and showing how far work has come."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tqdm import tqdm

from ..embedded import GARDEN, GARDEN_DEFAULTS
from ..errors import D3POError, interruptible
from ..processes import Processes
from ..textfiles import read_text
from .flags import run_folder

if TYPE_CHECKING:
    from ..app.loras import WayOn
    from ..models import DiffusersModel
    from ..run import BaseModelFacts, Run

SECONDS_BETWEEN_SIGNS = 1.0
"""Of work going on, where a bar has nothing new."""
SECONDS_BETWEEN_LINES = 10.0
"""Of a progress bar that goes into a file: it is written this seldom."""


class ProgressBar:
    """tqdm's bar on stderr. Before the first report, which alone says how much there is to do, it counts steps.

    Inside its context every step is a sign of life, an evaluation of the network above all (see `check_stop`): with a
    large model on a processor minutes pass between two reports.

    Args:
        label: what is being done; "" where `show` says it.
        shown: False draws nothing.
    """

    def __init__(self, label: str = "", shown: bool = True) -> None:
        self._label, self._shown = label, shown
        self._bar: tqdm[NoReturn] | None = None
        self._begun = False
        self._note, self._steps, self._drawn = "", 0, time.monotonic()
        self._listening = interruptible(self._step)

    def __enter__(self) -> ProgressBar:
        self._listening.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._listening.__exit__(*error)
        self.close()

    def _step(self) -> None:
        """Count a step since the last report, and show it from time to time."""
        self._steps += 1
        if not self._shown or time.monotonic() - self._drawn < _seconds_between():
            return
        if self._bar is None:
            self._bar = tqdm(desc=self._label or "Working", bar_format="{desc}{postfix}, {elapsed}", leave=False)
        steps = f"{self._steps} step{'s' * (self._steps > 1)}"
        self._bar.set_postfix_str(f"{self._note}, {steps}" if self._note else steps)
        self._drawn = time.monotonic()

    def comparing(self, done: int, total: int) -> None:
        """Show how many pictures before and after are drawn."""
        self.show(done, total, label="Comparing")

    def looking(self, done: int, total: int) -> None:
        """Show at how many groups of pictures the network has looked."""
        self.show(done, total, label="Looking at pictures")

    def show(self, done: int, total: int, note: str = "", label: str = "") -> None:
        """Draw the bar anew, with the time that is left; below it, where something else is being done now."""
        if label not in ("", self._label) or not self._begun:
            self.close()
            self._bar, self._label, self._begun = None, label or self._label, True
        if self._bar is None:
            self._bar = tqdm(
                desc=self._label,
                total=total,
                disable=not self._shown,
                initial=done,
                mininterval=0.1 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES,
                bar_format="{desc} [{bar:24}] {n_fmt} of {total_fmt}, {remaining} left{postfix}",
                ascii="-#",
                dynamic_ncols=True,
            )
        self._note, self._steps, self._drawn = note, 0, time.monotonic()
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Draw the bar a last time and leave its line, so that what follows begins on its own."""
        if self._bar is not None:
            self._bar.close()


def _seconds_between() -> float:
    """Return how long a bar waits before it shows that work goes on."""
    return SECONDS_BETWEEN_SIGNS if sys.stderr.isatty() else SECONDS_BETWEEN_LINES


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add --run."""
    parser.add_argument(
        "--run",
        required=True,
        type=run_folder,
        metavar="FOLDER",
        help="the taste being taught; one folder holds it all",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add --model, and the flags that say how to load it."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="MODEL",
        help="a diffusers pipeline folder, a .safetensors checkpoint, or garden [the run's; at first garden, the "
        "embedded model]",
    )
    group.add_argument(
        "--base-config",
        metavar="FOLDER",
        help="for a checkpoint without internet access: a pipeline folder of the same kind, for its configuration",
    )
    group.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="of the network [the run's; float32]"
    )
    group.add_argument(
        "--device",
        help="such as cuda:1 or cpu; cuda:0,cuda:1 share the layers of a network that is larger than one card [the GPU "
        "if there is one]",
    )


def add_prompts(parser: argparse.ArgumentParser, usual: str) -> None:
    """Add --prompt and --prompts; `usual` says what is drawn without them."""
    group = parser.add_argument_group("prompts")
    group.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="a prompt; repeat for several")
    group.add_argument("--prompts", metavar="FILE", help=f"a text file with one prompt per line [{usual}]")


def add_round(parser: argparse.ArgumentParser) -> None:
    """Add --round."""
    parser.add_argument("--round", metavar="N", help="which round's LoRA [the newest]")


def add_finish(parser: argparse.ArgumentParser) -> None:
    """Add --finish."""
    parser.add_argument("--finish", action="store_true", help="make a LoRA of what a stopped round has learnt so far")


def go_on(way: WayOn, folder: str) -> str:
    """Return how a run goes on without a LoRA file, with the command to copy."""
    if way.to == way.lost.round.number:
        how = "make it anew from the stronger file that it was made from"
    else:
        how = f"go on from {place(way.to)}"
    return f"Put a copy of it back, or {how}: d3po info --run {quoted(folder)} --go-on"


def place(number: int) -> str:
    """Return what a run that stands at a round draws with; 0 is the base model."""
    return f"round {number}" if number else "the original model"


def open_if_there(folder: str) -> Run | None:
    """Return the run in a folder, None where there is none yet.

    Raises:
        D3POError: it is damaged, the folder holds something else, or none can be made there.
    """
    from ..run import Run
    from ..run.files import check_writable

    path = Path(folder)
    check_writable(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        return Run.open(path)
    return None


def read_prompts(options: argparse.Namespace) -> list[str]:
    """Return the prompts that the flags name; empty if they name none.

    Raises:
        D3POError: the file cannot be read or holds none.
    """
    prompts: list[str] = list(options.prompt)
    if options.prompts:
        lines = [line.strip() for line in read_text(Path(options.prompts)).splitlines()]
        if not any(lines):
            raise D3POError(f"There is no prompt in {options.prompts}.", "Write one per line.")
        prompts += filter(None, lines)
    return prompts


def say_plain_words(model: DiffusersModel, prompts: Iterable[str]) -> None:
    """Print once what other programs obey in these prompts and this model does not."""
    if note := model.plain_words(prompts):
        print(note)


def source_of(options: argparse.Namespace, run: Run | None) -> str:
    """Return where the model comes from: --model, else what the run remembers, else the embedded model for a new run.

    Raises:
        D3POError: the run was made by another program and remembers no path.
    """
    source: str | None = options.model or (run.model.get("source") if run else GARDEN)
    if source is None:
        raise D3POError("This run does not know where its model is.", "Name it with --model.", "Your picks are saved.")
    return source


def model_defaults(options: argparse.Namespace, run: Run | None) -> Mapping[str, object]:
    """Return the sampling settings that go with the model."""
    return GARDEN_DEFAULTS if source_of(options, run) == GARDEN else {}


def load(options: argparse.Namespace, run: Run | None) -> DiffusersModel:
    """Load the model; for a run that exists already, the one that it was begun with.

    Of several processes the first names the model, and each takes a graphics card of its own.

    Raises:
        D3POError: it cannot be loaded, or the run was begun with another one.
    """
    from ..models import load_model
    from ..models.loading import check_base_config

    if options.base_config:  # also where the model needs none, as a run remembers it
        check_base_config(options.base_config)
    be_quiet()
    remembered = run.model if run else {}
    processes: Processes = options.processes
    base, dtype = options.base_config or remembered.get("base_config"), options.dtype or remembered.get("dtype")
    how = (source_of(options, run) if processes.first else "", base, dtype or "float32")
    source, base, dtype = processes.share_facts(how)
    source = options.model or source
    if source != GARDEN and processes.first and sys.stderr.isatty():
        print(f"Loading {source}", file=sys.stderr)  # tens of seconds, for a model of several gigabytes
    model = load_model(source, base_config=base, dtype=dtype, device=processes.device(options.device))
    if processes.share_facts(model.identity) != model.identity:
        raise D3POError(f"The model '{source}' is not the one of the first process.", "Give all of them the same one.")
    if run and run.model.get("identity") != model.identity:
        raise D3POError(
            f"This run was begun with another base model ({run.model.get('source', 'of another program')}).",
            "Leave out --model, or begin a new run for this one.",
            "Your picks are saved.",
        )
    return model


def model_facts(options: argparse.Namespace, model: DiffusersModel) -> BaseModelFacts:
    """Return what a new run remembers of its model."""
    from ..app import runs

    source, base = source_of(options, None), options.base_config
    source = source if source == GARDEN else _absolute(source)
    return runs.model_facts(model, source, base and _absolute(base), options.dtype or "float32")


def check_who(run: Run, who: str | None) -> None:
    """Check that a person, if one is named, has picked in a run.

    Raises:
        D3POError: they haven't.
    """
    people = sorted({judgement.who for judgement in run.picks.judgements()})
    if who is not None and who not in people:
        known = f"There are picks of {', '.join(people)}." if people else "Pick some first."
        raise D3POError(f"There are no picks of '{who}' in this run.", known)


def quoted(path: str | Path) -> str:
    """Return a path as it stands in a command that is to be copied into a terminal."""
    text = str(path)
    if os.name != "nt":
        return shlex.quote(text)
    last = text[len(text.rstrip("\\")) :]
    return f'"{text}{last}"'  # backslashes at the end stand twice: one alone would quote the quote


def _absolute(path: str) -> str:
    return str(Path(os.path.expanduser(path)).resolve())


def be_quiet() -> None:
    """Switch off the loading bars and advice of diffusers and transformers."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
