"""A zip that is uploaded: what of it is unpacked, and what is refused."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from d3po_core.errors import D3POError
from d3po_panels import zips
from d3po_panels.zips import unpacked

from .test_import_panel import PAIR, packed


def test_only_pictures_and_texts_come_out_of_a_zip(tmp_path: Path) -> None:
    more = {
        "mine/run.sh": "echo",
        "mine/model.pt": b"\x80",
        "mine/page.html": "x",
        "__MACOSX/mine/winners/._a.png": b"x",
    }
    with unpacked(packed(tmp_path / "a.zip", {**PAIR, **more})) as folder:
        found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert found == ["losers/a.png", "winners/a.png", "winners/a.txt"]
    assert not folder.exists()
    with unpacked(packed(tmp_path / "b.zip", {"x/pairs.jsonl": "{}", "x/a.png": b""})) as lines:
        assert lines.name == "pairs.jsonl"


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "mine/../../a.txt", "C:/a.png", "..\\a.png", "\\\\host\\a.png"])
def test_a_zip_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = packed(tmp_path / "in" / "a.zip", {**PAIR, name: b""})
    with pytest.raises(D3POError, match="outside of its own folder"), unpacked(path):
        pass
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a.zip", "in"]


def test_a_damaged_zip_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("winners/a.png", random.Random(0).randbytes(500) + bytes(5000))
    damaged = bytearray(path.read_bytes())
    damaged[60:300] = bytes(each ^ 0xFF for each in damaged[60:300])
    path.write_bytes(damaged)
    with pytest.raises(D3POError, match=r"a.zip cannot be unpacked"), unpacked(path):
        pass


@pytest.mark.parametrize("names", [["x" * 300 + ".png"], ["a.png", "a.png/b.png"], ["a.png/b.png", "a.png"]])
def test_names_that_a_disk_cannot_have_are_the_zips_fault(tmp_path: Path, names: list[str]) -> None:
    path = packed(tmp_path / "a.zip", dict.fromkeys(names, b"x"))
    with pytest.raises(D3POError, match=r"a.zip has a file whose name this disk cannot take"), unpacked(path):
        pass


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[int]]:
    """How many bytes came out of each zip; in the end none is left."""
    found: list[int] = []

    class Watched(tempfile.TemporaryDirectory):  # type: ignore[type-arg]
        def cleanup(self) -> None:
            found.append(sum(path.stat().st_size for path in Path(self.name).rglob("*") if path.is_file()))
            super().cleanup()

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "TemporaryDirectory", Watched)
    yield found
    assert found and not list((tmp_path / "temporary").iterdir())


def declared(path: Path, size: int) -> Path:
    """A zip that says of all its files that they are so large."""
    data = bytearray(path.read_bytes())
    for entry in re.finditer(b"PK\x01\x02", bytes(data)):
        data[entry.start() + 24 : entry.start() + 28] = size.to_bytes(4, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_more_comes_out_than_a_zip_declares(tmp_path: Path, written: list[int], how: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("winners/a.png", bytes(2**22))
    with pytest.raises(D3POError, match=r"a.zip cannot be unpacked"), unpacked(declared(path, 100)):
        pass
    assert written[0] <= 100


def test_a_zip_that_declares_too_much_is_refused_before_it_is_unpacked(tmp_path: Path, written: list[int]) -> None:
    path = packed(tmp_path / "a.zip", {f"winners/{number}.png": b"" for number in range(5)})
    with pytest.raises(D3POError, match=r"a.zip holds more than 16 GiB"), unpacked(declared(path, 2**32 - 2)):
        pass
    assert written == [0]


@pytest.mark.parametrize(
    ("limit", "value", "sentence"),
    [
        ("MAX_FILES", 2, r"a.zip holds 3 files, more than 2. Split it"),
        ("MAX_TEXT_BYTES", 2**20, r"a.zip holds more than 1 MiB of texts. Split it"),
        ("MAX_DEPTH", 1, r"a.zip has more than 1 folders within each other"),
    ],
)
def test_what_comes_out_of_a_zip_is_bounded(
    tmp_path: Path, written: list[int], monkeypatch: pytest.MonkeyPatch, limit: str, value: int, sentence: str
) -> None:
    path = packed(tmp_path / "a.zip", {**PAIR, "mine/winners/a.txt": "a" * (2**20 + 1)})
    with unpacked(path):
        pass
    monkeypatch.setattr(zips, limit, value)
    with pytest.raises(D3POError, match=sentence), unpacked(path):
        pass
    assert written[0] > 2**20 and written[1] == 0


def test_a_zip_leaves_half_of_the_disk_free(
    tmp_path: Path, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "a.zip", {"winners/a.png": bytes(1000)})
    for free, fits in ((2000, True), (1999, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with (
            nullcontext() if fits else pytest.raises(D3POError, match="more than half of what is free"),
            unpacked(path),
        ):
            pass
    assert written == [1000, 0]


def test_folders_within_each_other_end(tmp_path: Path, written: list[int]) -> None:
    for deep in (1500, 20_000):
        path = packed(tmp_path / "deep.zip", {"a/" * deep + "x.png": b"x"})
        with pytest.raises(D3POError, match=r"deep.zip has more than 64 folders within each other"), unpacked(path):
            pass
    with unpacked(packed(tmp_path / "deep.zip", {"a/" * 60 + "x.png": b"x"})) as folder:
        assert [file.name for file in folder.iterdir()] == ["x.png"]
    assert written == [0, 0, 1]


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_what_can_be_unpacked_a_little_at_a_time_is(tmp_path: Path, written: list[int], how: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("winners/a.png", bytes(1000))
    with pytest.raises(D3POError, match=r"a.zip cannot be unpacked: it is not packed by deflate"), unpacked(path):
        pass
    assert written == [0]
