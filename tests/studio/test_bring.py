"""Bringing pictures into a taste: what a zip may hold, and what of it comes in."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from d3po_core.errors import D3POError
from d3po_core.importing import read_source
from d3po_core.run import Run
from d3po_core.run.library import RunLibrary
from d3po_core.settings import TrainSettings
from d3po_core.training.trainer import Trainer
from d3po_panels import zips
from d3po_panels.bring import brought
from d3po_panels.importing import Importing
from d3po_panels.other_methods import kept
from d3po_panels.run_settings import texts, train_settings
from d3po_panels.worker import Worker
from d3po_panels.zips import unpacked
from d3po_studio.models import Models

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
    assert {pick.who for pick in run.picks.history()} == {"anna"}
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


def test_what_is_put_aside_keeps_no_model(models: Models, run: Run, tmp_path: Path) -> None:
    class Loaded:
        """A model as a host hands it out, in every turn anew."""

        unit, encode, encode_images = models.model.unit, models.model.encode, models.model.encode_images

    files = {**PAIR, "mine/winners/b.png": picture("red"), "mine/winners/b.txt": "a snowdrop"}
    with unpacked(packed(tmp_path / "mine.zip", files)) as source:
        importing = Importing(run, read_source(source), "anna")
        for turn in (1, 2):
            model = Loaded()
            alive = weakref.ref(model)
            assert [said.done for said in importing.go_on(model, lambda: True)] == [turn]
            del model
            assert alive() is None and importing.done == (turn == 2)


def test_another_method_has_its_own_numbers_and_an_open_round_its_own_method(run: Run) -> None:
    run.change_settings("train", {"beta": 205.0, "epochs": 7})
    assert train_settings(run)[0].beta == 205
    kept(run, "d3po")
    assert train_settings(run)[0].beta == 205  # nothing was changed
    kept(run, "ddpo")
    assert train_settings(Run.open(run.folder))[0] == TrainSettings(method="ddpo", epochs=7)
    assert run.manifest()["settings"]["train"]["method"] == "ddpo"
    run.rounds.save_state(run.rounds.begin({"train": {"method": "ddpo"}}), {}, {})
    assert "Round 1, which is not finished, goes on as it was begun." in kept(run, "dpok")
    assert run.rounds.open().settings["train"]["method"] == "ddpo"


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
        ("MAX_OF_TEXTS", 2**20, r"a.zip holds more than 1 MiB of texts. Split it"),
        ("MAX_FOLDERS", 1, r"a.zip has more than 1 folders within each other"),
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


def panel(of: Callable[..., Any], worker: Worker, shelf: RunLibrary) -> Any:
    """A panel's page."""
    import gradio as gr

    with gr.Blocks() as page:
        of(shelf, worker, gr.Dropdown(label="Taste", allow_custom_value=True))
    return page


def event(page: Any, name: str) -> Any:
    """What a page does, by the name of its function."""
    (found,) = (each for each in page.fns.values() if each.name == name)
    return found


def test_a_page_that_is_open_to_others_takes_only_zips(models: Models, run: Run, tmp_path: Path) -> None:
    import gradio as gr

    from d3po_panels import tastes
    from d3po_panels.bring import bring

    shelf = RunLibrary(run.folder.parent)
    (taste,) = tastes.labels(shelf)
    worker = Worker(models).start()
    asked = {each.elem_id for each in event(panel(bring, worker, shelf), "come").inputs}
    assert "d3po_bring_place" in asked
    worker.open_to_others = True
    page = panel(bring, worker, shelf)
    come = event(page, "come")
    shown = {block.elem_id for block in page.blocks.values()}
    assert "d3po_bring_button" in shown and "d3po_bring_place" not in shown
    assert [type(each) for each in come.inputs] == [gr.Dropdown, gr.File, gr.Textbox]  # taste, file and who
    (tmp_path / "a.png").write_bytes(picture("red"))
    (tmp_path / "b.png").write_bytes(picture("blue"))
    lines = tmp_path / "pairs.jsonl"
    lines.write_text(json.dumps({"prompt": "a lake", "winner": str(tmp_path / "a.png"), "loser": "b.png"}))
    for file, sentence in ((lines, r"open to other computers, and pairs.jsonl could name"), (None, "Upload a zip.")):
        with pytest.raises(gr.Error, match=sentence):
            come.fn(taste, file and str(file), "")
        with pytest.raises(gr.Error, match=sentence):
            come.fn(taste, file and str(file), "", str(tmp_path))  # though no page can send it
    assert run.groups.select(recorded=False) == []
    assert "Imported 1 group" in come.fn(taste, str(packed(tmp_path / "mine.zip", PAIR)), "")
    worker.close()


def test_a_page_that_is_open_to_others_takes_no_path_of_a_reward(models: Models, run: Run) -> None:
    import gradio as gr

    from d3po_panels import tastes
    from d3po_panels.other_methods import other_ways

    shelf, worker = RunLibrary(run.folder.parent), Worker(models)
    (taste,) = tastes.labels(shelf)
    for others, sentence in ((False, "The reward from picks is missing"), (True, "cannot name a file or folder")):
        worker.open_to_others = others
        teach = event(panel(other_ways, worker, shelf), "teach")
        values = [each.value for each in teach.inputs[2:]]
        for written in ("picks:/nowhere", "warmth + 2*picks:/nowhere"):
            with pytest.raises(gr.Error, match=sentence):
                teach.fn(taste, written, *values)


def test_what_is_no_zip_or_names_others_files_is_told(worker: Worker, run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(D3POError, match=r"broken.zip cannot be unpacked"):
        brought(run, worker, broken, "me")
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture("red"))
    line = json.dumps({"prompt": "a lake", "winner": str(secret), "loser": "b.png"})
    for content in (line, line.replace(str(secret), "../" * 12 + str(secret)[1:]), line.replace("secret", "missing")):
        path = packed(tmp_path / "pairs.zip", {"pairs.jsonl": content, "b.png": picture("blue")})
        with pytest.raises(D3POError, match=r"It names a picture outside of pairs.zip"):
            brought(run, worker, path, "me")
    empty = packed(tmp_path / "empty.zip", {"a.png": picture("red")})
    with pytest.raises(D3POError, match=r"The folder empty.zip holds neither"):
        brought(run, worker, empty, "me")
    with pytest.raises(D3POError, match="no file or folder"):
        brought(run, worker, tmp_path / "missing.zip", "me")
    assert run.groups.select(recorded=False) == []
