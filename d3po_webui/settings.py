"""Our page among the host's settings, and the folder that is chosen there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from d3po_core.errors import D3POError
from d3po_core.run import files

if TYPE_CHECKING:
    from .worker import WebuiWorker

SECTION = ("d3po", "D3PO")
FOLDER = "d3po_folder"


def add(options: Any, info: Any, worker: WebuiWorker) -> None:
    """Add our page to the host's settings. Numbers have effect at once.

    Args:
        options: the host's.
        info: the host's class of one option.
        worker: what they rule.
    """
    label = "Folder of the tastes (empty: d3po in the web UI's data folder)"
    options.add_option(FOLDER, info("", label, section=SECTION).needs_reload_ui())
    for key, owner, name, most, label in (
        ("d3po_kept", worker.cards, "kept", 20, "Rounds of each taste whose LoRAs stay among the cards"),
        ("d3po_in_a_turn", worker, "in_a_turn", 12, "Groups drawn ahead before other work has its turn"),
    ):
        limits = {"minimum": 1, "maximum": most, "step": 1}
        options.add_option(key, info(getattr(owner, name), label, gr.Slider, limits, section=SECTION))

        def change(key: str = key, owner: Any = owner, name: str = name) -> None:
            setattr(owner, name, int(getattr(options, key)))

        options.onchange(key, change)


def chosen(options: Any) -> str:
    """The folder as the person wrote it."""
    return str(getattr(options, FOLDER, "") or "").strip().strip('"')


def folder(chosen: str, usual: Path) -> tuple[Path, str]:
    """Where tastes lie, and what is wrong with that, in a sentence; "" if nothing is.

    Args:
        chosen: by the person; empty for the usual one, which is made only when the first taste is begun.
        usual: beside the web UI's other folders.
    """
    if not chosen:
        return usual, ""
    try:
        found = Path(chosen).expanduser().absolute()
        with files.writing(found):
            found.mkdir(parents=True, exist_ok=True)
            files.temporary(found / "try").touch()  # permissions alone do not tell
            for left in found.glob(f"try.*{files.TEMPORARY}"):
                left.unlink()
    except D3POError as error:
        return found, f"{error.what} Choose another folder under Settings, D3PO."
    except (RuntimeError, ValueError):  # a home of nobody, a name that no system bears
        return usual, f"There is no folder {chosen!r}. Choose another one under Settings, D3PO."
    return found, ""
