"""Text files as people have them: UTF-8, with a byte order mark or without, UTF-16, or Windows' cp1252."""

from __future__ import annotations

import codecs
from pathlib import Path

from .errors import D3POError

MOST_ACCENTS = 0.25
"""Share of letters beyond ASCII in a text of Latin letters, at most."""
MARKS = (
    *((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)


def decode(data: bytes) -> str:
    """Return the text of a file.

    A byte order mark tells the encoding. Without one it is UTF-8; UTF-16 if every other byte is often 0, as in
    Latin letters; else cp1252, which has no zeros, in which some bytes mean nothing, and most letters are ASCII.

    Raises:
        UnicodeDecodeError: it is text of no encoding that is known here.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return data.decode(encoding)
    zeros = [data[start::2].count(0) for start in (0, 1)]
    if max(zeros) > len(data) // 4 and min(zeros) == 0:
        return data.decode("utf-16-be" if zeros[0] else "utf-16-le")
    if any(zeros):
        raise UnicodeDecodeError("utf-8", data, data.index(0), data.index(0) + 1, "there are zeros in it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        text = data.decode("cp1252")
        if sum(letter > "\x7f" for letter in text) > len(text) * MOST_ACCENTS:  # Chinese or Russian of another encoding
            raise error
        return text


def read_text(path: Path) -> str:
    """Return the text of a file, see `decode`, with \\n at the ends of lines.

    Raises:
        D3POError: it cannot be read, or is no text.
    """
    try:
        return decode(path.read_bytes()).replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise D3POError(f"There is no file {path}.", "Check the path.") from error
    except OSError as error:
        raise D3POError(f"{path} cannot be read ({error.strerror}).", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise D3POError(f"{path.name} cannot be read as text.", "Save it as UTF-8.") from error
