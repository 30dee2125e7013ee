"""Bringing pictures into a taste: what a zip may hold, and what of it comes in."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from d3po_core.errors import D3POError
from d3po_core.run import Run
from d3po_core.settings import TrainSettings
from d3po_core.training.trainer import Trainer
from d3po_studio.bring import brought
from d3po_studio.models import Models
from d3po_studio.other_ways import kept
from d3po_studio.run_settings import texts, train_settings
from d3po_studio.worker import Worker
from d3po_studio.zips import unpacked

from .test_worker import Shared

pytest.importorskip("gradio", reason="gradio comes with the standalone extra")


@pytest.fixture
def worker(models: Models) -> Iterator[Worker]:
    found = Worker(models).start()
    yield found
    found.close()


def picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "PNG")
    return file.getvalue()


def packed(path: Path, files: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


PAIR = {
    **{"mine/winners/a.png": picture("red"), "mine/losers/a.png": picture("blue")},
    "mine/winners/a.txt": "a red tulip by day",
}


def test_imported_pictures_teach_by_another_method(worker: Worker, run: Run, tmp_path: Path) -> None:
    files = dict(PAIR)
    for number in range(3):
        files[f"mine/winners/{number}.png"] = picture("red")
        files[f"mine/winners/{number}.txt"] = f"a snowdrop\nNegative prompt: rain {number}\nSteps: 20"
    said = brought(run, worker, packed(tmp_path / "mine.zip", files), "anna")
    assert "Imported 4 groups" in said and "d3po cannot learn from them" in said
    assert {pick.who for pick in run.pick_history()} == {"anna"}
    assert "a snowdrop" not in texts(run)  # nobody asked for pictures of it
    with pytest.raises(D3POError, match="imported pictures"):
        Trainer(run, worker.models.of(run).denoiser, *train_settings(run))
    assert "diffusion-nft" in kept(run, "diffusion-nft")
    trainer = Trainer(run, worker.models.of(run).denoiser, *train_settings(run))
    assert trainer.settings.method == "diffusion-nft"


def test_others_have_their_turn_while_pictures_come_in(models: Models, run: Run, tmp_path: Path) -> None:
    files = dict(PAIR)
    for number in range(3):
        files[f"mine/winners/{number}.png"] = picture("red")
        files[f"mine/winners/{number}.txt"] = f"a snowdrop {number}"
    worker = Shared(models).start()
    try:
        said = brought(run, worker, packed(tmp_path / "mine.zip", files), "anna")
        assert "Imported 4 groups" in said and worker.turns == 4
        assert "4 were there already" in brought(run, worker, tmp_path / "mine.zip", "anna") and worker.turns == 8
    finally:
        worker.close()


def test_another_method_has_its_own_numbers_and_an_open_round_its_own_method(run: Run) -> None:
    run.change_settings("train", {"beta": 205.0, "epochs": 7})
    assert train_settings(run)[0].beta == 205
    kept(run, "d3po")
    assert train_settings(run)[0].beta == 205  # nothing was changed
    kept(run, "ddpo")
    assert train_settings(Run.open(run.folder))[0] == TrainSettings(method="ddpo", epochs=7)
    assert run.manifest()["settings"]["train"]["method"] == "ddpo"
    run.save_state(run.begin_round({"train": {"method": "ddpo"}}), {}, {})
    assert "Round 1, which is not finished, goes on as it was begun." in kept(run, "dpok")
    assert run.open_round().settings["train"]["method"] == "ddpo"


def test_back_at_the_first_method_the_preset_holds_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "published", model={}, settings={"preset": "published"})
    before = train_settings(run)[0]
    assert before.beta != TrainSettings().beta
    kept(run, "ddpo")
    kept(run, "d3po")
    assert train_settings(run)[0] == before


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


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_is_told_however_it_was_packed(tmp_path: Path, how: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("winners/a.png", random.Random(0).randbytes(500) + bytes(5000))
    damaged = bytearray(path.read_bytes())
    damaged[60:300] = bytes(each ^ 0xFF for each in damaged[60:300])
    path.write_bytes(damaged)
    with pytest.raises(D3POError, match=r"a.zip cannot be unpacked"), unpacked(path):
        pass


def test_what_is_no_zip_or_names_others_files_is_told(worker: Worker, run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(D3POError, match=r"broken.zip cannot be unpacked"):
        brought(run, worker, broken, "me")
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture("red"))
    line = json.dumps({"prompt": "a lake", "winner": str(secret), "loser": "b.png"})
    for content in (line, line.replace(str(secret), "../" * 12 + str(secret)[1:])):
        path = packed(tmp_path / "pairs.zip", {"pairs.jsonl": content, "b.png": picture("blue")})
        with pytest.raises(D3POError, match="names a picture that is not in the zip"):
            brought(run, worker, path, "me")
    empty = packed(tmp_path / "empty.zip", {"a.png": picture("red")})
    with pytest.raises(D3POError, match=r"The folder empty.zip holds neither"):
        brought(run, worker, empty, "me")
    with pytest.raises(D3POError, match="no file or folder"):
        brought(run, worker, tmp_path / "missing.zip", "me")
    assert run.groups(recorded=False) == []
