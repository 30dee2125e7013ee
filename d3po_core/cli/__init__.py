"""The `d3po` command: one file per subcommand, loaded only when it is asked for.

A subcommand's file has a docstring (its help), EXAMPLE, OUT_OF_MEMORY (what to lower when memory runs out),
`add_arguments` and `run`. What goes wrong becomes one sentence on stderr and exit status 2; Ctrl+C becomes 130.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib import import_module
from types import FrameType, ModuleType

from .. import __version__
from ..app.cost import within_memory
from ..errors import D3POError, interruptible, is_unbroken
from ..processes import ALONE, number_from, together
from .flags import make_parser

COMMANDS = {
    "plan": "say how much memory and time a model takes, before anything is loaded",
    "sample": "draw groups of images to choose from",
    "annotate": "let a scorer pick in a person's place, or import and export picks",
    "import": "bring in pictures that exist already, with which of them were preferred",
    "train": "turn picks into a LoRA",
    "reward": "fit a reward to picks: a program that likes what you like",
    "draft": "turn a differentiable reward into a LoRA, without picks",
    "evaluate": "compare before and after on prompts and seeds that training never saw",
    "export": "copy a round's LoRA to where you need it",
    "serve": "let yourself, or people whom you invited, pick in a browser",
    "invite": "give people links to pick with, and see how far they are",
    "info": "tell what is in a run, and free space",
    "demo": "the whole loop on the embedded model, explained",
}
TOGETHER = ("sample", "train", "draft", "evaluate")
"""Commands that several processes do together."""
OVERVIEW = """usage: d3po COMMAND [options]

Teach an image model your taste by picking the pictures you like.

{commands}

One taste is one folder, called a run; every command takes it as --run FOLDER.
The loop, with the embedded model and a scorer in place of a person:

    d3po sample   --run my-taste --model garden --groups 64
    d3po annotate --run my-taste --scorer garden-size
    d3po train    --run my-taste
    d3po evaluate --run my-taste --scorer garden-size
    d3po export   --run my-taste --to my-taste.safetensors

`d3po COMMAND --help` explains one command, --help-advanced shows all its settings.
Stop anything with Ctrl+C: what was done is kept, and the same command goes on.

Several graphics cards: torchrun --nproc_per_node=2 -m d3po_core -- train --run my-taste
(or: accelerate launch --num_processes 2 -m d3po_core train --run my-taste). The same
goes for sample, draft and evaluate. Other computers can help: they need the model alone.
A network that is larger than one card: --device cuda:0,cuda:1"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command, and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    ctrl_c = CtrlC()
    try:
        with ctrl_c.obeyed():
            status = _start(arguments[0] if arguments else "--help", arguments[1:])
        sys.stdout.flush()
        return STOPPED if ctrl_c.pressed else status
    except KeyboardInterrupt:
        print("\nStopped. What was done before is kept.", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # `d3po info | head`: whoever listened has gone, and Python must not try again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


STOPPED = 130
"""Exit status after Ctrl+C."""


class CtrlC:
    """Ctrl+C, answered at once and obeyed at once, but for what must be done as a whole (`errors.unbroken`).

    From the second press on the system obeys: the next one kills the process, also where something hangs. What is on
    the disk survives that.

    Attributes:
        pressed: it was. The network is not evaluated from then on, also where a library swallowed the exception.
    """

    def __init__(self) -> None:
        self.pressed = False

    @contextmanager
    def obeyed(self) -> Iterator[None]:
        """Handle Ctrl+C so while a command runs; threads other than the main one cannot, and leave it as it is."""
        try:
            before = signal.signal(signal.SIGINT, self._hear)
        except ValueError:
            yield
            return
        try:
            with interruptible(self._check):
                yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.pressed = self.pressed, True  # before anybody reads that it was heard, and presses again
        if again:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        said = "Once more ends it at once, without saving." if again else "Stopping…"
        os.write(2, f"\n{said}\n".encode(sys.stderr.encoding or "utf-8", "replace"))  # print may be in use
        if not is_unbroken():
            raise KeyboardInterrupt

    def _check(self) -> None:
        if self.pressed:
            raise KeyboardInterrupt


def _start(name: str, arguments: list[str]) -> int:
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print(OVERVIEW.format(commands="\n".join(f"    {name:{width}}  {what}" for name, what in COMMANDS.items())))
        return 0
    if name == "--version":
        print(f"d3po {__version__}")
        return 0
    if name not in COMMANDS:
        return _fail(D3POError(f"There is no command '{name}'.", f"Use one of {', '.join(COMMANDS)}."))
    return _run(name, import_module(f".{name}", __package__), arguments)


def _run(name: str, command: ModuleType, arguments: list[str]) -> int:
    parser, options = make_parser(name, command, advanced="--help-advanced" in arguments), Namespace()
    try:
        check_text(arguments)
        options = parser.parse_args(arguments)
        if name not in TOGETHER and number_from("WORLD_SIZE", 1) > 1 and number_from("RANK", 0):
            return 0  # the first one does all of it
        with together() if name in TOGETHER else nullcontext(ALONE) as options.processes:
            with quiet(not options.processes.first):
                status = within_memory(
                    lambda: command.run(options), command.OUT_OF_MEMORY, "What was done before is kept."
                )
            return status if options.processes.first else 0
    except D3POError as error:
        return _fail(_with_way_on(error, options))
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(of_file(error))


@contextmanager
def quiet(on: bool) -> Iterator[None]:
    """Print nothing inside: of several processes one speaks. Errors are printed by all."""
    if not on:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def of_file(error: OSError) -> D3POError:
    """Return what went wrong with a file as a person reads it."""
    return D3POError(f"{error.filename or 'A file'}: {error.strerror or error}.", "Check the path and its rights.")


def _with_way_on(error: D3POError, options: Namespace) -> D3POError:
    """Return an error with the command that lets a run go on without a LoRA file; others as they are."""
    from ..app.loras import way_on
    from ..run import LostLora, Run
    from .common import go_on

    if not isinstance(error, LostLora) or error.back_to is None:
        return error
    way = way_on(Run.open(options.run))
    return D3POError(error.what, go_on(way, options.run), error.safe) if way else error


def check_text(arguments: list[str]) -> None:
    """Check that all arguments are text; Python keeps bytes of another encoding as half letters, which nothing takes.

    Raises:
        D3POError: one isn't.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            shown = argument.encode(errors="replace").decode()
            raise D3POError(f"'{shown}' is not valid UTF-8.", "Set the terminal to UTF-8.") from error


def _fail(error: D3POError) -> int:
    print(f"d3po: {error}", file=sys.stderr)
    return 2
