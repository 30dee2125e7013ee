"""Import images into a taste through the panel, by turns, and change the method that learns from them."""

from __future__ import annotations

import io
import json
import weakref
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3po_core.app.runs import lora_settings, prompts_to_draw, train_settings
from d3po_core.errors import D3POError
from d3po_core.importing import read_source
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary
from d3po_core.settings import TrainSettings
from d3po_core.training.trainer import Trainer
from d3po_panels import tastes
from d3po_panels.import_panel import import_path
from d3po_panels.importing import Importing
from d3po_panels.other_methods import change_method
from d3po_panels.worker import Worker
from d3po_panels.zips import unpacked
from d3po_studio.host import StudioHost
from tests.garden_taste import OneModel

from .test_worker import SharedHost

pytest.importorskip("gradio", reason="gradio comes with the standalone extra")


@pytest.fixture
def worker(host: StudioHost) -> Iterator[Worker]:
    worker = Worker(host).start()
    yield worker
    worker.close()


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
    outcome = import_path(run, worker, packed(tmp_path / "mine.zip", files), "anna")
    assert "Imported 4 groups" in outcome and "d3po cannot learn from them" in outcome
    assert {pick.who for pick in run.picks.history()} == {"anna"}
    assert "a snowdrop" not in prompts_to_draw(run)  # nobody asked for pictures of it
    with pytest.raises(D3POError, match="imported pictures"):
        Trainer.open(run, worker.host.models.of(run).denoiser, train_settings(run), lora_settings(run))
    assert "diffusion-nft" in change_method(run, "diffusion-nft")
    with Trainer.open(run, worker.host.models.of(run).denoiser, train_settings(run), lora_settings(run)) as trainer:
        assert trainer.settings.method == "diffusion-nft"


def test_others_have_their_turn_while_pictures_come_in(models: OneModel, run: Run, tmp_path: Path) -> None:
    files = dict(PAIR)
    for number in range(3):
        files[f"mine/winners/{number}.png"] = picture("red")
        files[f"mine/winners/{number}.txt"] = f"a snowdrop {number}"
    host = SharedHost(models)
    worker = Worker(host).start()
    try:
        outcome = import_path(run, worker, packed(tmp_path / "mine.zip", files), "anna")
        assert "Imported 4 groups" in outcome and host.turns == 4
        assert "4 were there already" in import_path(run, worker, tmp_path / "mine.zip", "anna") and host.turns == 8
    finally:
        worker.close()


def test_what_is_put_aside_keeps_no_model(models: OneModel, run: Run, tmp_path: Path) -> None:
    class Loaded:
        """A model as a host hands it out, in every turn anew."""

        unit, encode, encode_images = models.model.unit, models.model.encode, models.model.encode_images
        plain_words = staticmethod(models.model.plain_words)

    files = {**PAIR, "mine/winners/b.png": picture("red"), "mine/winners/b.txt": "a snowdrop"}
    with unpacked(packed(tmp_path / "mine.zip", files)) as source:
        importing = Importing(run, read_source(source), "anna")
        for turn in (1, 2):
            model = Loaded()
            alive = weakref.ref(model)
            assert [report.done for report in importing.resume(model, lambda: True)] == [turn]
            del model
            assert alive() is None and importing.done == (turn == 2)


def test_another_method_has_its_own_numbers_and_an_open_round_its_own_method(run: Run) -> None:
    run.change_settings("train", {"beta": 205.0, "epochs": 7})
    assert train_settings(run).beta == 205
    change_method(run, "d3po")
    assert train_settings(run).beta == 205  # nothing was changed
    change_method(run, "ddpo")
    assert train_settings(Run.open(run.folder)) == TrainSettings(method="ddpo", epochs=7)
    assert run.manifest()["settings"]["train"]["method"] == "ddpo"
    run.rounds.save_state(run.rounds.begin({"train": {"method": "ddpo"}}), {}, {})
    assert "Round 1, which is not finished, goes on as it was begun." in change_method(run, "dpok")
    assert run.rounds.open().settings["train"]["method"] == "ddpo"


def test_back_at_the_first_method_the_preset_holds_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "published", model={}, settings={"preset": "published"})
    before = train_settings(run)
    assert before.beta != TrainSettings().beta
    change_method(run, "ddpo")
    change_method(run, "d3po")
    assert train_settings(run) == before


def panel(of: Callable[..., Any], worker: Worker, library: RunLibrary) -> Any:
    """A panel's page."""
    import gradio as gr

    with gr.Blocks() as page:
        of(library, worker, gr.Dropdown(label="Taste", allow_custom_value=True))
    return page


def event(page: Any, name: str) -> Any:
    """What a page does, by the name of its function."""
    (found,) = (each for each in page.fns.values() if each.name == name)
    return found


def test_a_page_that_is_open_to_others_takes_only_zips(models: OneModel, run: Run, tmp_path: Path) -> None:
    import gradio as gr

    from d3po_panels.import_panel import import_panel

    library = RunLibrary(run.folder.parent)
    (taste,) = tastes.labels(library)
    host = StudioHost(models)
    worker = Worker(host).start()
    asked = {each.elem_id for each in event(panel(import_panel, worker, library), "import_images").inputs}
    assert "d3po_bring_place" in asked
    host.open_to_others = True
    page = panel(import_panel, worker, library)
    come = event(page, "import_images")
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


def test_a_page_that_is_open_to_others_takes_no_path_of_a_reward(models: OneModel, run: Run) -> None:
    import gradio as gr

    from d3po_panels.other_methods import other_ways

    library, host = RunLibrary(run.folder.parent), StudioHost(models)
    worker = Worker(host)
    (taste,) = tastes.labels(library)
    for others, sentence in ((False, "The reward from picks is missing"), (True, "cannot name a file or folder")):
        host.open_to_others = others
        teach = event(panel(other_ways, worker, library), "teach")
        values = [each.value for each in teach.inputs[2:]]
        for written in ("picks:/nowhere", "warmth + 2*picks:/nowhere"):
            with pytest.raises(gr.Error, match=sentence):
                teach.fn(taste, written, *values)


def test_what_is_no_zip_or_names_others_files_is_told(worker: Worker, run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(D3POError, match=r"broken.zip cannot be unpacked"):
        import_path(run, worker, broken, "me")
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture("red"))
    line = json.dumps({"prompt": "a lake", "winner": str(secret), "loser": "b.png"})
    for content in (line, line.replace(str(secret), "../" * 12 + str(secret)[1:]), line.replace("secret", "missing")):
        path = packed(tmp_path / "pairs.zip", {"pairs.jsonl": content, "b.png": picture("blue")})
        with pytest.raises(D3POError, match=r"It names a picture outside of pairs.zip"):
            import_path(run, worker, path, "me")
    empty = packed(tmp_path / "empty.zip", {"a.png": picture("red")})
    with pytest.raises(D3POError, match=r"Nothing in empty.zip can be used"):
        import_path(run, worker, empty, "me")
    with pytest.raises(D3POError, match="no file or folder"):
        import_path(run, worker, tmp_path / "missing.zip", "me")
    assert run.groups.select(recorded=False) == []
