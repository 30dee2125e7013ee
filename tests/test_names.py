"""File names on every system, and text files in every encoding."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from d3po_core.errors import D3POError
from d3po_core.lora.file import unused_path
from d3po_core.names import composed, file_stem, find_file
from d3po_core.run.run import RunLibrary
from d3po_core.textfiles import decode, read_text


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("my taste", "my-taste"),
        ("..a/b\\c: d?", "a-b-c-d"),
        ("हिन्दी चित्र", "हिन्दी-चित्र"),  # its vowel signs are no letters, and part of the words
        ("ไทยๆ", "ไทยๆ"),
        (unicodedata.normalize("NFD", "café"), "café"),
        ("con", "con_"),
        ("NUL.txt", "NUL_.txt"),
        ("lpt1", "lpt1_"),
        ("console", "console"),
        ("***", "taste"),
        ("狐" * 60, "狐" * 39),
    ],
)
def test_stems(name: str, stem: str) -> None:
    assert file_stem(name, "taste", 120) == stem


def test_runs_and_loras_are_named_so(tmp_path: Path) -> None:
    assert RunLibrary(tmp_path).unused("aux").name == "aux_"
    assert unused_path(tmp_path, "हिन्दी").name == "हिन्दी.safetensors"


def test_files_are_found_however_they_are_written(tmp_path: Path) -> None:
    made = tmp_path / unicodedata.normalize("NFD", "été") / unicodedata.normalize("NFD", "é.png")
    made.parent.mkdir()
    made.write_bytes(b"x")
    for written in ("été/é.png", "été\\é.png", str(made.relative_to(tmp_path))):
        assert find_file(tmp_path / written).read_bytes() == b"x"
    missing = tmp_path / "été" / "e.png"
    assert find_file(missing) == missing
    assert composed(made.name) == "é.png"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(encoding: str) -> None:
    assert decode("a red fox, Füchse".encode(encoding)) == "a red fox, Füchse"


def test_windows_own_encoding() -> None:
    assert decode("“un café” on a table by the sea".encode("cp1252")) == "“un café” on a table by the sea"
    assert decode("狐 и лиса".encode()) == "狐 и лиса"


def test_what_cannot_be_decoded_is_said(tmp_path: Path) -> None:
    for data in (
        b"\x81\x8d",
        "一只狐狸在雪里".encode("gbk"),
        "лиса в снегу".encode("cp1251"),
        "雪の中の狐".encode("utf-16-le"),
    ):
        (tmp_path / "a.txt").write_bytes(data)
        with pytest.raises(D3POError, match=r"a\.txt cannot be read as text\. Save it as UTF-8"):
            read_text(tmp_path / "a.txt")
    with pytest.raises(D3POError, match="There is no file"):
        read_text(tmp_path / "b.txt")
