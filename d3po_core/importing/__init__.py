"""Pictures that exist already, with their prompts and who beat whom, brought into a run.

    folders        winners/ and losers/
    rows           JSON lines: pairs, rankings, scores, Pick-a-Pic's layout, and the data sets that this project exports
    caption        what a picture was drawn for: a .txt beside it, or what A1111, Forge and ComfyUI wrote into it
    contradictions a winner that is also a loser
    into_run       groups without a trajectory, for the methods that learn from pictures alone

A fault of one picture leaves out what hangs on it and is told; only what leaves nothing to import is an error.
"""

from __future__ import annotations

from .into_run import Encoder, Imported, import_pictures
from .judged import FoundImages, ImportedPick, JudgedGroup, LeftOut
from .sources import read_source

__all__ = [
    "Encoder",
    "FoundImages",
    "Imported",
    "ImportedPick",
    "JudgedGroup",
    "LeftOut",
    "import_pictures",
    "read_source",
]
