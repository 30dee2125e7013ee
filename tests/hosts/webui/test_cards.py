"""Taught LoRAs among a web UI's cards, without one: names, descriptions, pictures, what is kept and what goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from d3po_core.app.loras import go_on, way_on
from d3po_core.errors import D3POError
from d3po_core.lora import load_lora
from d3po_core.run import RoundSummary, Run, policy_id
from d3po_core.run.run import RunLibrary
from d3po_panels import tastes
from d3po_panels.words import WORDS
from d3po_panels.worker import Worker
from d3po_studio.host import StudioHost
from d3po_webui.cards import Cards
from d3po_webui.settings import add, chosen, folder
from d3po_webui.tab import lora_tag
from tests.run_helpers import MODEL


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "tastes" / "Night lakes", name="Night lakes", model=MODEL, settings={})


@pytest.fixture
def cards(tmp_path: Path) -> Cards:
    return Cards(tmp_path / "loras")


def taught(run: Run, drift: float = 0.0) -> Path:
    """A finished round's LoRA in the run; at full strength it drifts this far."""
    number = run.rounds.begin({})
    path = run.folder / "loras" / f"{run.name}-round{number}.safetensors"
    path.parent.mkdir(exist_ok=True)
    tensors = {"lora_unet_a.lora_down.weight": torch.ones(1, 2), "lora_unet_a.lora_up.weight": torch.ones(2, 1)}
    save_file(tensors, path, {"ss_base_model_version": "sd_v1", "ss_output_name": path.stem, "round": str(number)})
    run.rounds.finish(number, path, policy_id(path), RoundSummary(strength_scan=((1.0, drift), (0.7, 0.01))))
    return path


def files_of(cards: Cards, ending: str = "safetensors") -> list[str]:
    return sorted(path.stem for path in cards.folder.glob(f"[!.]*.{ending}"))


def card_of(path: Path) -> dict[str, object]:
    return dict(json.loads(path.with_suffix(".json").read_text()))


def test_a_card_has_what_hosts_show(run: Run, cards: Cards) -> None:
    card = cards.publish(run, taught(run, drift=0.08))
    assert card.name == "Night-lakes-round1.safetensors"
    assert card_of(card)["sd version"] == "SD1"
    assert card_of(card)["preferred weight"] == 0.7  # the greatest strength whose drift is not high
    assert "Night lakes" in str(card_of(card)["description"])
    with safe_open(card, framework="np") as file:
        assert file.metadata()["ss_output_name"] == card.stem
        assert "sshs_model_hash" in file.metadata()


@pytest.mark.parametrize("noted", ["in the file", "on the card"])
def test_a_cards_copy_brings_a_lost_lora_back(run: Run, cards: Cards, noted: str) -> None:
    """Its bytes are others, because a card's file says its own name, and its tensors are the same.

    Earlier cards' files did not name their policy; only the card did.
    """
    first, second = taught(run), taught(run)
    for lora in (first, second):
        published = cards.publish(run, lora)
        if noted == "on the card":
            save_file(load_lora(published)[0], published, {"ss_output_name": published.stem})
    cards.star(run, [published.stem])
    before = load_lora(second)[0]
    second.write_bytes(b"no LoRA")
    way = go_on(run, cards.policies(run))
    assert way is not None and way.to == 2 and way_on(run) is None
    back = run.rounds.lora("2")
    assert back is not None and back.parent == second.parent and second.read_bytes() == b"no LoRA"
    after = load_lora(back)[0]
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert cards.current(run)[0] == published.stem
    assert cards.of(run) == {published.stem: True, "Night-lakes-round1": False}  # and no second card of it
    cards.kept = 1
    cards.star(run, [])
    third = taught(run)
    run.rounds.go_back(policy_id(back))
    assert files_of(cards) == ["Night-lakes-round1", published.stem]
    newest = cards.publish(run, third)
    assert files_of(cards) == [published.stem, newest.stem]  # what samples stays


def test_a_name_is_never_used_again(run: Run, cards: Cards) -> None:
    lora = taught(run)
    first = cards.publish(run, lora)
    for path in (first, first.with_suffix(".json")):
        path.unlink()
    second = cards.publish(run, lora)
    assert second.stem == "Night-lakes-round1-2"
    with safe_open(second, framework="np") as file:
        assert file.metadata()["ss_output_name"] == second.stem  # hosts call it by this, too
    assert cards.names(run) == [first.stem, second.stem]


def test_a_name_that_is_taken_anywhere_among_the_hosts_loras_is_not_taken(run: Run, cards: Cards) -> None:
    other = cards.loras[0] / "flowers" / "night-LAKES-round1.pt"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    assert cards.publish(run, taught(run)).stem == "Night-lakes-round1-2"


def test_a_name_that_is_taken_in_another_folder_of_loras_is_not_taken(run: Run, tmp_path: Path) -> None:
    more = tmp_path / "more loras"  # --lora-dirs
    more.mkdir()
    (more / "Night-lakes-round1.safetensors").write_bytes(b"")
    card = Cards(tmp_path / "loras", more, tmp_path / "there is none").publish(run, taught(run))
    assert card == tmp_path / "loras" / "d3po" / "Night-lakes-round1-2.safetensors"


def test_the_newest_rounds_the_starred_and_the_current_stay(run: Run, cards: Cards) -> None:
    names = [cards.publish(run, taught(run)).stem for _ in range(3)]
    assert files_of(cards) == names
    cards.star(run, [names[0]])
    names += [cards.publish(run, taught(run)).stem for _ in range(2)]
    assert files_of(cards) == [names[0], *names[2:]] == files_of(cards, "json")
    assert cards.of(run) == {names[4]: False, names[3]: False, names[2]: False, names[0]: True}
    cards.star(run, [])
    run.rounds.go_back(str(run.rounds.all()[2].lora_hash))
    cards.kept = 1
    cards.publish(run, taught(run))  # a new round: it samples now
    assert files_of(cards) == ["Night-lakes-round6"]


def test_another_taste_is_left_alone(run: Run, cards: Cards, tmp_path: Path) -> None:
    other = Run.create(tmp_path / "tastes" / "other", name="other", model=MODEL, settings={})
    kept = cards.publish(other, taught(other)).stem
    for _ in range(5):
        cards.publish(run, taught(run))
    assert kept in files_of(cards) and cards.of(other) == {kept: False}


def test_a_deleted_taste_leaves_its_cards_and_says_so(run: Run, cards: Cards) -> None:
    card = cards.publish(run, taught(run))
    worker = Worker(StudioHost()).start()
    tastes.delete(run, worker)
    worker.close()
    assert not run.folder.exists() and card.is_file()
    assert "copies of LoRAs in other folders stay" in WORDS["delete_sure"]


def test_what_a_person_wrote_stays(run: Run, cards: Cards) -> None:
    card = cards.publish(run, taught(run))
    mine = {**card_of(card), "activation text": "nightlake", "notes": "for covers", "preferred weight": 0.45}
    card.with_suffix(".json").write_text(json.dumps(mine))
    cards.star(run, [card.stem])
    assert card_of(card) == {**mine, "starred": True}
    following = cards.publish(run, taught(run))
    assert card_of(card) == {**mine, "starred": True}
    assert (card_of(following)["activation text"], card_of(following)["notes"]) == ("nightlake", "for covers")
    assert card_of(following)["preferred weight"] == 1.0  # that is of the round


def test_the_tag_is_of_what_samples_and_names_all_earlier_ones(run: Run, cards: Cards, tmp_path: Path) -> None:
    library = RunLibrary(tmp_path / "tastes")
    (label,) = tastes.labels(library)
    with pytest.raises(D3POError, match="was not taught yet"):
        lora_tag(library, label, cards)
    cards.publish(run, taught(run, drift=0.08))
    cards.publish(run, taught(run))
    found = json.loads(lora_tag(library, label, cards))
    assert found["tag"] == "<lora:Night-lakes-round2:1>"
    assert found["names"] == ["Night-lakes-round1", "Night-lakes-round2"]
    run.rounds.go_back(str(run.rounds.all()[0].lora_hash))
    assert json.loads(lora_tag(library, label, cards))["tag"] == "<lora:Night-lakes-round1:0.7>"


def test_one_that_was_tidied_away_comes_back_when_it_is_wanted(run: Run, cards: Cards) -> None:
    cards.kept = 1
    for _ in range(2):
        cards.publish(run, taught(run))
    assert files_of(cards) == ["Night-lakes-round2"]
    run.rounds.go_back(str(run.rounds.all()[0].lora_hash))
    assert cards.current(run) == ("Night-lakes-round1-2", 1.0)
    assert files_of(cards) == ["Night-lakes-round1-2", "Night-lakes-round2"]


def test_a_card_gets_the_rounds_picture_and_keeps_the_persons(run: Run, cards: Cards) -> None:
    card = cards.publish(run, taught(run))
    assert not card.with_suffix(".png").exists()
    picture = Image.new("RGB", (8, 8), "teal")
    run.previews.save(1, ["a lake"], {"before": [picture], "after": [picture]})
    cards.picture(run, 1)
    with Image.open(card.with_suffix(".png")) as shown:
        assert shown.getpixel((0, 0)) == (0, 128, 128)
    card.with_suffix(".png").write_bytes(b"a person's own")
    cards.picture(run, 1)
    assert card.with_suffix(".png").read_bytes() == b"a person's own"


class Option:
    """As hosts have them."""

    def __init__(
        self, default: Any, label: str, component: Any = None, limits: Any = None, section: Any = None
    ) -> None:
        self.default, self.section = default, section

    def needs_reload_ui(self) -> Option:
        return self


class Options:
    """A host's settings, with what a person has saved."""

    def __init__(self, **saved: Any) -> None:
        self.__dict__.update(saved)
        self.changed: dict[str, Callable[[], None]] = {}

    def add_option(self, key: str, option: Option) -> None:
        assert option.section == ("d3po", "D3PO")
        self.__dict__.setdefault(key, option.default)

    def onchange(self, key: str, changed: Callable[[], None]) -> None:
        self.changed[key] = changed
        changed()


def test_settings_have_effect_at_once(cards: Cards) -> None:
    host: Any = SimpleNamespace(cards=cards, groups_per_turn=2)
    options = Options(d3po_kept=7, d3po_folder=' "/tastes" ')
    add(options, Option, host)
    assert (cards.kept, host.groups_per_turn) == (7, 2)
    options.__dict__["d3po_in_a_turn"] = 4.0  # as sliders of some hosts say it
    options.changed["d3po_in_a_turn"]()
    assert host.groups_per_turn == 4 and isinstance(host.groups_per_turn, int)
    assert chosen(options) == "/tastes"


def test_a_folder_that_cannot_be_used_is_told_in_a_sentence(tmp_path: Path) -> None:
    usual = tmp_path / "d3po"
    assert folder("", usual) == (usual, "")
    assert not usual.exists()
    assert folder(str(tmp_path / "new" / "one"), usual) == (tmp_path / "new" / "one", "")
    assert list((tmp_path / "new" / "one").iterdir()) == []
    (tmp_path / "file").write_text("")
    for wrong in (str(tmp_path / "file" / "in it"), "~nobody-of-this-name/tastes", "a\0b"):
        found, problem = folder(wrong, usual)
        assert problem.endswith("Choose another folder under Settings, D3PO.") or "Choose another one" in problem
        assert RunLibrary(found).runs() == []
