"""Our page among the host's settings, and the folder that is chosen there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.run import files

if TYPE_CHECKING:
    from typing_extensions import Self

    from .queue_host import WebuiHost

SECTION = ("d3po", "D3PO")
FOLDER = "d3po_folder"


class OptionInfo(Protocol):
    """The host's description of an option."""

    def needs_reload_ui(self) -> Self:
        """Say beside the option that it has effect after a reload, and return it."""


class Options(Protocol):
    """The host's options; each is an attribute by its key."""

    def add_option(self, key: str, info: OptionInfo) -> None:
        """Add an option."""

    def onchange(self, key: str, func: Callable[[], None]) -> None:
        """Call a function now and when an option is changed."""


def add(options: Options, option_info: Callable[..., OptionInfo], host: WebuiHost) -> None:
    """Add our page to the host's settings; `option_info` is its class of one option. Numbers have effect at once."""
    label = "Folder of the tastes (empty: d3po in the web UI's data folder)"
    options.add_option(FOLDER, option_info("", label, section=SECTION).needs_reload_ui())
    numbers: tuple[tuple[str, object, str, int, str], ...] = (
        ("d3po_kept", host.cards, "kept", 20, "Rounds of each taste whose LoRAs stay among the cards"),
        ("d3po_in_a_turn", host, "groups_per_turn", 12, "Groups drawn ahead before other work has its turn"),
    )
    for key, owner, name, maximum, label in numbers:
        limits = {"minimum": 1, "maximum": maximum, "step": 1}
        options.add_option(key, option_info(getattr(owner, name), label, gr.Slider, limits, section=SECTION))

        def change(key: str = key, owner: object = owner, name: str = name) -> None:
            setattr(owner, name, int(getattr(options, key)))

        options.onchange(key, change)


def chosen(options: Options) -> str:
    """Return the folder as the person wrote it."""
    return str(getattr(options, FOLDER, "") or "").strip().strip('"')


def folder(chosen: str, usual: Path) -> tuple[Path, str]:
    """Return the folder of the tastes, and what is wrong with it, in a sentence; "" if nothing is.

    Args:
        chosen: as the person wrote it; empty for the usual one, which is made only when the first taste is begun.
        usual: beside the web UI's other folders.
    """
    if not chosen:
        return usual, ""
    try:
        path = Path(chosen).expanduser().absolute()
        with files.writing(path):
            path.mkdir(parents=True, exist_ok=True)
            files.temporary(path / "try").touch()  # permissions alone do not show whether that works
            for trial in path.glob(f"try.*{files.TEMPORARY}"):
                trial.unlink()
    except D3POError as error:
        return path, f"{error.what} Choose another folder under Settings, D3PO."
    except (RuntimeError, ValueError):  # the home of an unknown user, or a name that no system takes
        return usual, f"There is no folder {chosen!r}. Choose another one under Settings, D3PO."
    return path, ""
