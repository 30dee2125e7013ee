"""A zip that somebody brings: its pictures and texts in a folder of their own, for a while."""

from __future__ import annotations

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
BESIDE = "__MACOSX"
"""What one system puts into its zips besides."""


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The folder in which a zip's pictures and texts lie, or the only .jsonl in it; all of it is gone afterwards.

    Nothing but pictures, .txt, .json and .jsonl comes out. Folders around everything are passed by. A mistake that is
    told inside calls the folder by the zip's name.

    Raises:
        D3POError: it is no zip, damaged, locked, too large for the disk, or names a file outside of its own folder.
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
    from d3po_core.imported.picture import SUFFIXES

    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            outside = next((entry.filename for entry in entries if _leads_out(entry.filename)), None)
            if outside is not None:
                raise D3POError(f"{path.name} names a file outside of its own folder: {outside}.", "Pack it anew.")
            wanted = [entry for entry in entries if Path(entry.filename).suffix.lower() in (*SUFFIXES, *TEXTS)]
            _check_room(sum(entry.file_size for entry in wanted), folder, path.name)
            for entry in wanted:
                if not entry.filename.startswith(f"{BESIDE}/"):
                    archive.extract(entry, folder)
    except D3POError:
        raise
    except Exception as error:  # zipfile lets through what every decompressor raises of its own
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; bz2's have no number
            raise
        raise D3POError(
            f"{path.name} cannot be unpacked ({error}).", "Choose a zip that is whole and has no password."
        ) from error


def _leads_out(name: str) -> bool:
    parts = re.split(r"[\\/]", name)
    return ".." in parts or parts[0] == "" or ":" in parts[0]


def _check_room(size: int, folder: Path, name: str) -> None:
    if size > shutil.disk_usage(folder).free:
        raise D3POError(f"{name} is larger than what is free on the disk.", "Make room, or unpack it elsewhere.")


def _source(folder: Path) -> Path:
    """What `imported.read_source` is to read."""
    found = sorted(folder.iterdir())
    if len(found) == 1 and found[0].is_dir() and found[0].name not in ("winners", "losers"):
        return _source(found[0])
    lines = [path for path in found if path.suffix.lower() == LINES]
    return lines[0] if len(lines) == 1 and not any(path.name in ("winners", "losers") for path in found) else folder
