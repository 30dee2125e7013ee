"""A zip that somebody brings: its pictures and texts in a folder of their own, for a while."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d3po_core.errors import D3POError
from d3po_core.run.files import writing

TEXTS = (".txt", ".json", ".jsonl")
LINES = ".jsonl"
SIDES = ("winners", "losers")
BESIDE = "__MACOSX"
"""What one system puts into its zips besides."""
MAX_FILES = 50_000
"""More than anybody has judged; a zip of a few megabytes could name millions."""
MAX_BYTES = 16 * 2**30
"""Room for thousands of large pictures; some thousandth of that, packed, can become as much."""
MAX_OF_TEXTS = 2**28
"""Bytes: texts are read into memory whole, and those of `MAX_FILES` pictures have room in it."""
USUAL = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of these, zipfile gives out no byte more than an entry declares, whatever it holds, and a little at a time. Of the
others it unpacks 64 KiB at once, first of all, and bzip2 can make that more than any computer's memory."""
MAX_FOLDERS = 64
"""Within each other: Python deletes folders by calling itself for each, and would not come to the end of a thousand."""
NAMES = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
"""What a disk says of names: one is too long for it, or a file's name is a folder's as well."""
SPLIT = "Split it into several, and bring them in one after the other."


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The folder in which a zip's pictures and texts lie, or the only .jsonl in it; all of it is gone afterwards.

    Nothing but pictures, .txt, .json and .jsonl comes out. Folders around everything are passed by. A mistake that is
    told inside calls the folder by the zip's name.

    Raises:
        D3POError: it is no zip, damaged, locked, packed unusually, too large (`MAX_FILES` and the others, or half of
            what is free on the disk), or names a file outside of its own folder.
    """
    with tempfile.TemporaryDirectory(prefix="d3po-") as temporary:
        folder = Path(temporary).resolve()
        with writing(folder):
            _extract(path, folder)
        try:
            yield _source(folder)
        except D3POError as error:
            raise D3POError(*(plain(text, folder, path.name) for text in (error.what, error.do, error.safe))) from error


def plain(text: str, folder: Path, name: str) -> str:
    """A sentence in which the folder that a zip is unpacked in goes by the zip's name."""
    return text.replace(str(folder), name)


def _extract(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            outside = next((entry.filename for entry in entries if _leads_out(entry.filename)), None)
            if outside is not None:
                raise D3POError(f"{path.name} names a file outside of its own folder: {outside}.", "Pack it anew.")
            wanted = [entry for entry in entries if _is_wanted(entry.filename)]
            _check_bounds(wanted, folder, path.name)
            for entry in wanted:
                archive.extract(entry, folder)
    except D3POError:
        raise
    except OSError as error:
        if error.errno not in NAMES:
            raise  # which has words of its own
        raise D3POError(
            f"{path.name} has a file whose name this disk cannot take ({error.strerror}).",
            "Give it a short name of its own, and pack it anew.",
        ) from error
    except Exception as error:  # zipfile lets through what the decompressor raises of its own
        raise D3POError(
            f"{path.name} cannot be unpacked ({error}).", "Choose a zip that is whole and has no password."
        ) from error


def _leads_out(name: str) -> bool:
    parts = re.split(r"[\\/]", name)
    return ".." in parts or parts[0] == "" or ":" in parts[0]


def _is_wanted(name: str) -> bool:
    from d3po_core.importing.captions import SUFFIXES

    return Path(name).suffix.lower() in (*SUFFIXES, *TEXTS) and not name.startswith(f"{BESIDE}/")


def _check_bounds(entries: list[zipfile.ZipInfo], folder: Path, name: str) -> None:
    """What is declared is believed: no more than that comes out (see `USUAL`)."""
    if any(entry.compress_type not in USUAL for entry in entries):
        raise D3POError(f"{name} cannot be unpacked: it is not packed by deflate.", "Pack it anew, as an ordinary zip.")
    if any(entry.filename.count("/") > MAX_FOLDERS for entry in entries):
        raise D3POError(f"{name} has more than {MAX_FOLDERS} folders within each other.", "Pack it anew with fewer.")
    if len(entries) > MAX_FILES:
        raise D3POError(f"{name} holds {len(entries):,} files, more than {MAX_FILES:,}.", SPLIT)
    size = sum(entry.file_size for entry in entries)
    if size > MAX_BYTES:
        raise D3POError(f"{name} holds more than {MAX_BYTES // 2**30} GiB of pictures and texts.", SPLIT)
    if sum(entry.file_size for entry in entries if Path(entry.filename).suffix.lower() in TEXTS) > MAX_OF_TEXTS:
        raise D3POError(f"{name} holds more than {MAX_OF_TEXTS // 2**20} MiB of texts.", SPLIT)
    if size > shutil.disk_usage(folder).free // 2:  # the taste keeps its own copies of the pictures
        raise D3POError(f"{name} needs more than half of what is free on the disk.", "Make room, or bring in less.")


def _source(folder: Path) -> Path:
    """What `imported.read_source` is to read."""
    found = sorted(folder.iterdir())
    while len(found) == 1 and found[0].is_dir() and found[0].name not in SIDES:
        folder = found[0]
        found = sorted(folder.iterdir())
    lines = [path for path in found if path.suffix.lower() == LINES]
    return lines[0] if len(lines) == 1 and not any(path.name in SIDES for path in found) else folder
