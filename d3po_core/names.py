"""Names of files: as people write them, as disks keep them, and as every system takes them.

macOS writes é as e and an accent (NFD), other systems as one letter (NFC), and Windows' programs write backslashes.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in "123456789¹²³")}
"""Windows takes these for devices, whatever ending follows."""
KINDS = "LMN"
"""Unicode's categories of what a word is made of: letters, marks (vowel signs are some), and numbers."""


def composed(name: str) -> str:
    """Return a name with composed letters (NFC), so that two ways to write it are equal."""
    return unicodedata.normalize("NFC", name)


def file_stem(name: str, otherwise: str, max_bytes: int) -> str:
    """Return a name as a file or a folder can have it on every system: what is no word, dot or dash becomes a dash.

    Args:
        name: as a person wrote it.
        otherwise: what to take if nothing is left of it.
        max_bytes: length, at most, in UTF-8.
    """
    allowed = ("_", ".", "-")
    letters = (each if each in allowed or unicodedata.category(each)[0] in KINDS else " " for each in composed(name))
    stem = "-".join("".join(letters).split()).strip(".-")
    stem = stem.encode()[: max_bytes - 1].decode(errors="ignore").strip(".-") or otherwise
    first, dot, rest = stem.partition(".")
    return f"{first}_{dot}{rest}" if first.lower() in RESERVED else stem


def find_file(path: Path) -> Path:
    """Return the file that a path names, however its letters and its separators are written; the path if there is none.

    Only folders on the way are listed whose name does not exist as it is written.
    """
    if path.exists():
        return path
    found = Path(path.anchor)
    for part in str(path)[len(path.anchor) :].replace("\\", "/").split("/"):
        further = found / part
        if not further.exists() and found.is_dir():
            further = next((each for each in found.iterdir() if composed(each.name) == composed(part)), further)
        found = further
    return found if found.exists() else path
