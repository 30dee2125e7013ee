"""Unpack a zip that somebody uploads: its images and texts, in a folder of their own, for a while."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d3po_core.errors import D3POError
from d3po_core.run.files import writing

TEXTS = (".txt", ".caption", ".json", ".jsonl")
LINES = ".jsonl"
SIDES = ("winners", "losers")
METADATA_FOLDER = "__MACOSX"
"""A folder that macOS adds to its zips."""
MAX_FILES = 50_000
"""More than anybody has judged. A zip of a few megabytes could name millions."""
MAX_BYTES = 16 * 2**30
"""Enough for thousands of large images. A packed file of a thousandth of that can become as much."""
MAX_TEXT_BYTES = 2**28
"""Texts are read into memory as a whole; those of `MAX_FILES` images fit into this."""
COMPRESSION_TYPES = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""With these, zipfile unpacks a little at a time, and never more bytes than an entry declares. With the others it
unpacks 64 KiB of the packed bytes at once, which bzip2 can turn into more than any computer's memory."""
MAX_DEPTH = 64
"""Folders within each other: Python deletes them by recursion, which ends before a thousand."""
NAME_ERRORS = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
"""Errors of a disk about a name: it is too long, or names a file and a folder at once."""
SPLIT = "Split it into several, and import them one after the other."


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the folder with a zip's images and texts, or the only .jsonl in it, and delete all of it afterwards.

    Only images, .txt, .json and .jsonl are unpacked. If a single folder holds everything, that is the folder. An error
    inside the context names the zip instead of the folder.

    Raises:
        D3POError: it is no zip; it is damaged, has a password, an unusual compression, or a name that leads out of its
            own folder; or it is too large: more than the limits of this module, or than half of what is free on disk.
    """
    with tempfile.TemporaryDirectory(prefix="d3po-") as temporary:
        folder = Path(temporary).resolve()
        with writing(folder):
            _extract(path, folder)
        try:
            yield _source(folder)
        except D3POError as error:
            sentences = (error.what, error.do, error.safe)
            raise D3POError(*(rename_folder(sentence, folder, path.name) for sentence in sentences)) from error


def rename_folder(text: str, folder: Path, name: str) -> str:
    """Return a sentence with the zip's name in place of the folder that it is unpacked in."""
    return text.replace(str(folder), name)


def _extract(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            outside = next((entry.filename for entry in entries if _leads_out(entry.filename)), None)
            if outside is not None:
                raise D3POError(f"{path.name} names a file outside of its own folder: {outside}.", "Pack it anew.")
            for entry in entries:  # .NET and old Windows programs write backslashes, against the specification
                entry.filename = entry.filename.replace("\\", "/")
            twice = [name for name, count in Counter(entry.filename for entry in entries).items() if count > 1]
            if twice:
                raise D3POError(f"{path.name} has two files that are called {twice[0]}.", "Pack it anew.")
            usable = [entry for entry in entries if _is_image_or_text(entry.filename)]
            _check_bounds(usable, folder, path.name)
            for entry in usable:
                archive.extract(entry, folder)
    except D3POError:
        raise
    except OSError as error:
        if error.errno not in NAME_ERRORS:
            raise
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


def _is_image_or_text(name: str) -> bool:
    from d3po_core.importing.pixels import SUFFIXES

    return Path(name).suffix.lower() in (*SUFFIXES, *TEXTS) and not name.startswith(f"{METADATA_FOLDER}/")


def _check_bounds(entries: list[zipfile.ZipInfo], folder: Path, name: str) -> None:
    """Refuse what is too large by the sizes that entries declare; no more comes out (see `COMPRESSION_TYPES`)."""
    if any(entry.compress_type not in COMPRESSION_TYPES for entry in entries):
        raise D3POError(f"{name} cannot be unpacked: it is not packed by deflate.", "Pack it anew, as an ordinary zip.")
    if any(entry.filename.count("/") > MAX_DEPTH for entry in entries):
        raise D3POError(f"{name} has more than {MAX_DEPTH} folders within each other.", "Pack it anew with fewer.")
    if len(entries) > MAX_FILES:
        raise D3POError(f"{name} holds {len(entries):,} files, more than {MAX_FILES:,}.", SPLIT)
    size = sum(entry.file_size for entry in entries)
    if size > MAX_BYTES:
        raise D3POError(f"{name} holds more than {MAX_BYTES // 2**30} GiB of pictures and texts.", SPLIT)
    if sum(entry.file_size for entry in entries if Path(entry.filename).suffix.lower() in TEXTS) > MAX_TEXT_BYTES:
        raise D3POError(f"{name} holds more than {MAX_TEXT_BYTES // 2**20} MiB of texts.", SPLIT)
    if size > shutil.disk_usage(folder).free // 2:  # the taste keeps its own copies of the pictures
        raise D3POError(f"{name} needs more than half of what is free on the disk.", "Make room, or import less.")


def _source(folder: Path) -> Path:
    """Return what `read_source` is to read."""
    paths = sorted(folder.iterdir())
    while len(paths) == 1 and paths[0].is_dir() and paths[0].name not in SIDES:
        folder = paths[0]
        paths = sorted(folder.iterdir())
    lines = [path for path in paths if path.suffix.lower() == LINES]
    return lines[0] if len(lines) == 1 and not any(path.name in SIDES for path in paths) else folder
