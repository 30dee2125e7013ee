"""Judged pictures in a run: whole groups or none, once each, and nobody stumbles over their having no trajectory."""

from __future__ import annotations

import errno
import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from d3po_core.app.sampling import add_prompts
from d3po_core.cli import main
from d3po_core.cli.sample import usual_prompts
from d3po_core.embedded import GARDEN_FOLDER
from d3po_core.errors import D3POError
from d3po_core.exchange.lines import export_dataset
from d3po_core.gallery.actions import Actions
from d3po_core.gallery.answers import Asked, history
from d3po_core.gallery.state import state
from d3po_core.importing import Imported, import_pictures
from d3po_core.picks import Pick, pairs
from d3po_core.rewards import get_reward
from d3po_core.run import RoundSummary, Run, files
from d3po_core.run.picks import Picks
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings
from d3po_core.training.preferences import collect_preferences
from d3po_core.training.reward_trainer import RewardTrainer
from d3po_core.training.trainer import Trainer
from tests.importing.test_sources import pair, picture, thumbs, written
from tests.run_helpers import make_run, put_group
from tests.toy import ToyDenoiser, ToyModel


class Halving:
    """An encoder whose latents are every other pixel's red, and which reads prompts of at most 20 letters."""

    unit = 2

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def encode(self, prompts: list[str], negative: str = "") -> list[dict[str, torch.Tensor]]:
        for text in (*prompts, negative):
            if len(text) > 20:
                raise D3POError(f"The prompt '{text}' is too long.", "Shorten it.")
        return [{"text": torch.tensor([[len(prompt), len(negative)]])} for prompt in prompts]

    def plain_words(self, prompts: Iterable[str], embeddings: Sequence[str] = ()) -> str:
        return "AND is a word here" if any("AND" in prompt for prompt in prompts) else ""

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return images[:, :1, ::2, ::2]


def last(reports: Iterator[Imported]) -> Imported:
    *_, said = reports
    return said


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    ranking = {"prompt": "a hill", "images": ["4.png", "5.png", "6.png"], "ranking": [1, 2, 0], "who": "Anna"}
    return written(folder, pair("1", "2", negative_prompt="dull"), ranking, {**pair("7", "8"), "loser": "nowhere.png"})


def test_groups_have_pictures_prompt_pick_and_latents(run: Run, source: Path) -> None:
    reports = list(import_pictures(run, source, Halving()))
    assert [(said.done, said.total, said.added) for said in reports] == [(1, 2, 1), (2, 2, 2)]
    assert [str(each) for each in reports[-1].left_out] == [
        f"Line 3 of pairs.jsonl: There is no file nowhere.png. Paths are looked up from {source.parent}."
    ]
    one, other = run.groups.select()
    assert (one.prompt, one.negative, other.prompt, one.candidates, other.candidates) == (
        "a lake",
        "dull",
        "a hill",
        2,
        3,
    )
    assert not one.recorded and not one.held_out and run.groups.select(recorded=False) == [one, other]
    assert [(stored.group_id, stored.who, stored.pick) for stored in run.picks.standing()] == [
        (one.id, "imported", Pick("favourite", (0,))),
        (other.id, "Anna", Pick("ranking", (1, 2, 0))),
    ]
    for group, names in ((one, "12"), (other, "456")):
        tensors = run.groups.trajectory(group.id)
        assert tensors.keys() == {"latents"} and tensors["latents"].dtype == torch.float16
        for candidate, name in enumerate(names):
            with (
                Image.open(source.parent / f"{name}.png") as image,
                Image.open(run.groups.image_path(group.id, candidate)) as kept,
            ):
                pixels = np.asarray(image)
                assert np.array_equal(pixels, np.asarray(kept))
            expected = torch.from_numpy(pixels[::2, ::2, 0] / 255).half()
            assert torch.equal(tensors["latents"][candidate, 0], expected)
    assert run.prompts.conditioning(one.prompt_id)["text"].tolist() == [[6, 4]]


def test_what_the_encoder_reads_as_words_is_noted(run: Run, tmp_path: Path) -> None:
    source = written(tmp_path, pair("1", "2", prompt="cat AND dog"))
    assert last(import_pictures(run, source, Halving())).notes == ("AND is a word here.",)


def test_the_same_again_adds_nothing_and_keeps_what_was_said_since(run: Run, source: Path) -> None:
    last(import_pictures(run, source, Halving()))
    one, other = run.groups.select()
    run.picks.take_back(run.picks.standing()[0].pick_id)
    run.picks.add(other.id, Pick("tie"), who="Anna")
    said = last(import_pictures(run, source, Halving()))
    assert (said.added, said.known) == (0, 2) and run.groups.select()[0].settings == one.settings
    assert [(stored.group_id, stored.pick) for stored in run.picks.standing()] == [(other.id, Pick("tie"))]


def test_a_line_that_stands_twice_counts_once(run: Run, tmp_path: Path) -> None:
    said = last(import_pictures(run, written(tmp_path, pair("1", "2"), pair("1", "2"), pair("1", "2", who="Ben"))))
    assert (said.added, said.known) == (2, 1)


def test_stopped_half_way_the_same_call_goes_on(run: Run, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = import_pictures(run, source, Halving())
    next(reports)
    reports.close()  # type: ignore[attr-defined]
    assert len(run.groups.select()) == 1

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Picks, "add", killed)  # between a group and its pick
        last(import_pictures(run, source, Halving()))
    last(import_pictures(run, source, Halving()))
    assert len(run.groups.select()) == 2 and len(run.groups.select(picked=True)) == 2


def test_a_full_disk_is_told_and_keeps_what_there_is(run: Run, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = import_pictures(run, source, Halving())
    next(reports)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(D3POError, match=r"disk .* is full"):
        patch.setattr(files, "write", full)
        next(reports)
    assert len(run.groups.select(picked=True)) == 1
    assert last(import_pictures(run, source, Halving())).added == 1


def test_latents_come_later_where_there_was_no_model(run: Run, source: Path) -> None:
    last(import_pictures(run, source))
    assert [run.groups.trajectory(group.id) for group in run.groups.select()] == [{}, {}]
    assert not run.prompts.has_conditioning(run.groups.select()[0].prompt_id)
    said = last(import_pictures(run, source, Halving()))
    assert (said.added, len(run.groups.select())) == (0, 2)
    assert all(run.groups.trajectory(group.id).keys() == {"latents"} for group in run.groups.select())
    assert all(run.prompts.has_conditioning(group.prompt_id) for group in run.groups.select())


def test_sides_that_do_not_fit_are_cropped_about_the_centre(run: Run, tmp_path: Path) -> None:
    pixels = torch.randint(256, (2, 7, 9, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for name, each in zip("ab", pixels, strict=True):
        Image.fromarray(each.numpy()).save(tmp_path / f"{name}.png")
    model = Halving()
    model.unit = 4
    said = last(import_pictures(run, written(tmp_path, pair("a", "b"), pair("1", "2")), model))
    assert said.notes == ("Pictures of 1 groups were cropped by less than 4 pixels to be encoded.",)
    assert torch.equal(model.seen[0], (pixels[:, 1:5, 0:8].float() / 255).permute(0, 3, 1, 2))
    with Image.open(run.groups.image_path(run.groups.select()[0].id, 0)) as kept:
        assert kept.size == (9, 7)


def test_prompts_that_the_model_cannot_take(run: Run, tmp_path: Path) -> None:
    long = "far too long for this model"
    rows = [pair("1", "2", prompt=long), pair("3", "4", negative_prompt=long), pair("5", "6", negative_prompt="dull")]
    said = last(import_pictures(run, written(tmp_path, *rows), Halving()))
    assert [str(each) for each in said.left_out] == [
        f"Line 1 of pairs.jsonl: The prompt '{long}' is too long. Shorten it."
    ]
    assert said.notes == ("This model cannot take the negative prompts of 1 groups: they were dropped.",)
    assert [group.negative for group in run.groups.select()] == ["", "dull"] and len(run.prompts.all()) == 2
    with pytest.raises(D3POError, match=r"can take none of these pictures.*Line 1 of .* is too long"):
        last(import_pictures(run, written(tmp_path, rows[0]), Halving()))


def test_a_data_set_of_ours_comes_back(tmp_path: Path) -> None:
    """Who beat whom, by person, and both prompts, are the same in the run that it was brought into."""
    run = make_run(tmp_path / "one")
    for number, candidates in enumerate((2, 4, 3)):
        put_group(run, candidates=candidates, prompt_id=run.prompts.add(f"prompt {number}", "dull" * number))
    a, b, c = (group.id for group in run.groups.select())
    run.picks.add(a, Pick("favourite", (1,)), who="Anna", shown_order=(1, 0))
    run.picks.add(a, Pick("favourite", (0,)), who="Ben")
    run.picks.add(b, Pick("ranking", (3, 1)), who="Anna", shown_order=(3, 1, 0))
    run.picks.add(c, Pick("scores", scores=(1, 0, -1)))
    export_dataset(run, tmp_path / "data")
    copy = make_run(tmp_path / "two")
    last(import_pictures(copy, tmp_path / "data", who="me"))

    def said(run: Run) -> list[Any]:
        found = []
        for stored in run.picks.standing():
            group = run.groups.get(stored.group_id)
            beats = pairs(stored.pick, group.candidates, stored.shown_order)
            found.append((group.prompt, group.negative, stored.who or "me", stored.pick, beats))
        return sorted(found, key=repr)

    assert said(copy) == said(run) and len(said(copy)) == 4


def test_a_data_set_that_lost_a_line_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", groups=2)
    for group in run.groups.select():
        run.picks.add(group.id, Pick("favourite", (1,)))
    export_dataset(run, tmp_path / "data")
    path = tmp_path / "data" / "metadata.jsonl"
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[1:]), "utf-8")
    (left_out,) = last(import_pictures(make_run(tmp_path / "two"), path)).left_out
    assert str(left_out).startswith("Line 1 of metadata.jsonl: A picture of this group has no line")


def test_the_gallery_shows_them_in_its_history_and_asks_of_none(run: Run, tmp_path: Path) -> None:
    picture(tmp_path / "s" / "winners" / "a.png", 1, "a lake")
    picture(tmp_path / "s" / "losers" / "a.png", 2, "a lake")
    picture(tmp_path / "s" / "losers" / "b.png", 3, "a hill")
    last(import_pictures(run, tmp_path / "s"))
    assert run.leases.take("0" * 32, "", 5) == []
    shown = history(Asked(run, Actions(), {"limit": 1, "offset": 1}))
    assert (shown["total"], shown["people"], shown["rounds"]) == (2, ["imported"], [1])
    (item,) = shown["items"]
    assert (item["prompt"], item["kind"], item["scores"], len(item["images"])) == ("a lake", "scores", (1, -1), 2)
    assert [stored.pick for stored in run.picks.standing()] == [thumbs(1, -1), thumbs(-1)]


def test_d3po_learns_from_recorded_groups_only_and_says_so(run: Run, source: Path) -> None:
    last(import_pictures(run, source, Halving()))
    for teach in (collect_preferences, lambda run: Trainer.open(run, ToyDenoiser(), TrainSettings(), LoraSettings())):
        with pytest.raises(
            D3POError, match=r"of imported pictures, and d3po needs to have recorded how .* Draw groups"
        ):
            teach(run)
    drawn = put_group(run)
    run.picks.add(drawn, Pick("favourite", (1,)))
    assert collect_preferences(run).training.keys() == {drawn}


def test_picks_are_counted_that_the_method_can_use(run: Run, source: Path) -> None:
    """Two of the source's groups tell a better picture from a worse one; one more is drawn here."""
    last(import_pictures(run, source, Halving()))
    run.picks.add(put_group(run), Pick("favourite", (1,)))
    imported = run.picks.counts("").usable - 1
    assert imported == sum(group.judged == 3 for group in run.groups.select(recorded=False)) > 0
    for method, usable in (("d3po", 1), ("dpok", 1), ("diffusion-nft", 1 + imported), (None, 1 + imported)):
        known = Knowing(method)
        assert known.counts(run).usable == state(run, known, "")["picks"]["usable"] == usable
        assert known.counts(run).picks == run.picks.counts("").picks  # they were made all the same
    judged = len({pick.group_id for pick in run.picks.standing()})
    assert judged > 1 and Knowing("diffusion-nft").untaught(run) == judged and Knowing("d3po").untaught(run) == 1
    run.rounds.begin({})
    assert Knowing("diffusion-nft").untaught(run) == 0
    assert Actions().counts(run).usable == 1  # D3PO is what a run is taught with if nothing else is said


class Knowing(Actions):
    """A host that knows by which method a run is taught."""

    def __init__(self, method: str | None) -> None:
        self.named = method

    def training(self, run: Run) -> TrainSettings | None:
        return None if self.named is None else TrainSettings(method=self.named)


def test_prompts_of_imported_pictures_are_drawn_for_once_somebody_asks(run: Run, source: Path) -> None:
    last(import_pictures(run, source, Halving()))
    first = next(prompt for prompt in run.prompts.all() if not prompt.asked)
    with pytest.raises(D3POError, match="nothing to draw yet"):
        usual_prompts(Namespace(model="mine.safetensors"), run)
    with pytest.raises(D3POError, match="no prompts yet"):
        RewardTrainer.open(run, ToyModel(), get_reward("warmth"), RewardSettings(), LoraSettings(), SampleSettings())
    run.prompts.add("a drawn one")
    assert usual_prompts(Namespace(model=""), run) == ["a drawn one"]
    (wanted,) = add_prompts(run, Halving(), [first.text], first.negative)  # type: ignore[arg-type]
    assert usual_prompts(Namespace(model=""), run) == [first.text, "a drawn one"]
    taught = RewardTrainer.open(
        run, ToyModel(), get_reward("warmth"), RewardSettings(), LoraSettings(), SampleSettings()
    )
    assert [prompt.id for prompt in taught.prompts] == [wanted]  # the other was never encoded
    assert [prompt.id for prompt in run.prompts.to_show()] == [wanted]
    last(import_pictures(run, source, Halving()))
    assert [prompt.text for prompt in run.prompts.all() if prompt.asked] == [first.text, "a drawn one"]


def test_freeing_space_spares_what_is_all_there_is_to_train_on(run: Run, source: Path) -> None:
    last(import_pictures(run, source, Halving()))
    drawn = put_group(run)
    run.picks.add(drawn, Pick("favourite", (1,)))
    number = run.rounds.begin({})
    run.rounds.finish(number, run.folder / "loras" / "x.safetensors", "hash", RoundSummary())
    assert "1 group trained in round 1" in run.space.free()
    again = Run.open(run.folder)  # opening sweeps freed tensors away
    assert [(group.freed, group.recorded) for group in again.groups.select()] == [
        (False, False),
        (False, False),
        (True, True),
    ]
    assert all("latents" in again.groups.trajectory(group.id) for group in again.groups.select(recorded=False))


@pytest.mark.skipif(not (GARDEN_FOLDER / "unet").exists(), reason="the embedded model is not there")
def test_the_command_on_the_embedded_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tools.garden.measure import renderings

    images, prompts, _ = renderings(4, seed=5)
    for number, image in enumerate(images):
        side = tmp_path / "source" / ("winners", "losers")[number % 2]
        side.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(side / f"{number // 2}.png")
        (side / f"{number // 2}.txt").write_text(prompts[number // 2])
    (tmp_path / "source" / "winners" / "9.png").write_text("no picture")
    command = ["import", "--run", str(tmp_path / "run"), "--from", str(tmp_path / "source")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "Imported 2 groups of pictures." in said
    assert "Left out 1:\n  winners/9.png: 9.png is not a picture that can be read." in said
    run = Run.open(tmp_path / "run")
    assert run.model["source"] == "garden" and len(run.groups.select(picked=True)) == 2
    for group in run.groups.select():
        assert run.groups.trajectory(group.id)["latents"].shape[0] == 2 and run.prompts.has_conditioning(
            group.prompt_id
        )
    assert main(command) == 0
    assert "Imported 0 groups of pictures" in (said := capsys.readouterr().out) and "2 were there already." in said
    assert main(["info", "--run", str(run.folder)]) == 0
    assert "Groups:   2 (2 imported)" in capsys.readouterr().out
    assert main(["train", "--run", str(run.folder)]) == 2
    assert capsys.readouterr().err.startswith("d3po: All favourites so far are of imported pictures")


def test_a_bad_source_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair("1", "2")))
    assert main(["import", "--run", str(tmp_path / "run"), "--from", str(tmp_path / "pairs.jsonl")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("d3po: Nothing in ") and "There is no file 1.png." in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()
