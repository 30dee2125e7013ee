"""Tournaments of pictures that exist: who meets whom, what is kept, and that methods of pictures learn from it."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from d3po_core.app.swiss import MAX_PLAYED, Table
from d3po_core.app.tournament import call_up, progress, standings
from d3po_core.importing import import_pictures, read_source
from d3po_core.rewards import get_reward
from d3po_core.rewards.auto_pick import auto_pick
from d3po_core.rewards.judge import pair_data, preferences, related_groups
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary
from d3po_core.training.preferences import GroupLoader, collect_preferences
from tests.gallery.asking import Page

SIDE = 64


class Encoder:
    """Takes a picture's brightness for its latents, so that whose they are can be seen."""

    unit = 8

    def encode(self, prompts: list[str], negative: str = "") -> list[dict[str, torch.Tensor]]:
        return [{"cond": torch.full((1, 2), float(len(prompt)))} for prompt in prompts]

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3), keepdim=True).expand(-1, 4, 2, 2).contiguous()

    def plain_words(self, texts: object, names: object = ()) -> str:
        return ""


def picture(path: Path, level: float, prompt: str, size: int = SIDE) -> Path:
    """A picture of noise whose mean is `level` of 255, with its prompt as A1111 writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    if prompt:
        info.add_text("parameters", f"{prompt}\nNegative prompt: dull\nSteps: 20, Sampler: Euler a, Seed: 1")
    noise = np.random.default_rng(int(level * 1000)).normal(0, 20, (size, size, 3))
    Image.fromarray((noise - noise.mean() + level).clip(0, 255).astype(np.uint8)).save(path, pnginfo=info)
    return path


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Five pictures of a lake and three of a hill; the number in a name is how bright it is."""
    folder = tmp_path / "outputs"
    for level in (60, 90, 120, 150, 180):
        picture(folder / "2026-11-30" / f"{level}.png", level, "a lake")
    for level in (70, 110, 160):
        picture(folder / "2026-12-01" / f"{level}.png", level, "a hill")
    return folder


def begun(folder: Path, source: Path) -> Run:
    run = Run.create(folder, name="t", model={"family": "sd15", "name": "m"}, settings={})
    for _ in import_pictures(run, source, Encoder()):  # type: ignore[arg-type]
        pass
    return run


def brightness(run: Run, group_id: str, candidate: int) -> float:
    with Image.open(run.groups.image_path(group_id, candidate)) as image:
        return float(np.asarray(image).mean())


def play(page: Page, most: int = 1000) -> int:
    """Pick the brighter of two until there is nothing more, and return how many matches that were, without repeats."""
    played = 0
    while played < most and (cards := page.next()):
        (card,) = cards
        played += card["reason"] != "repeat"
        shown = [image["candidate"] for image in card["images"]]
        page.pick(card, order=[max(shown, key=lambda each: brightness(page.run, card["group_id"], each))])
    return played


def page_of(run: Run, who: str = "") -> Page:
    return Page(RunLibrary(run.folder.parent), run, who)


@pytest.mark.parametrize("players", [2, 3, 5, 6, 7, 8, 13, 40])
def test_everybody_plays_as_often_and_nobody_twice_against_the_same(players: int) -> None:
    table, rng = Table(players), random.Random(players)
    strength = [rng.random() for _ in range(players)]
    played: list[tuple[int, int]] = []
    first = table.to_come()
    while made := table.call_up(3, rng):
        assert len({player for pair in made for player in pair}) == 2 * len(made)  # nobody sits at two boards
        for a, b in made:
            played.append((min(a, b), max(a, b)))
            table.wins.append((a, b) if strength[a] > strength[b] else (b, a))
        table.busy.clear()
    counts = [sum(player in pair for pair in played) for player in range(players)]
    assert len(set(played)) == len(played)
    assert set(counts) <= {min(MAX_PLAYED, players - 1), min(MAX_PLAYED, players - 1) + 1}
    assert first <= len(played) <= first + 2
    assert len(played) <= 3 * players + 1


def test_a_small_field_meets_everybody_and_is_ranked_right(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    assert progress(run) and progress(run).of == 10 + 3
    assert play(page_of(run)) == 13
    ranked = [[(each.entrant.source, each.won, each.played) for each in pool] for pool in standings(run)]
    lake = [
        (f"2026-11-30/{level}.png", won, 4) for won, level in zip((4, 3, 2, 1, 0), (180, 150, 120, 90, 60), strict=True)
    ]
    hill = [(f"2026-12-01/{level}.png", won, 2) for won, level in zip((2, 1, 0), (160, 110, 70), strict=True)]
    assert ranked == [lake, hill]


def test_ranks_agree_with_a_hidden_scorer_in_three_matches_a_picture() -> None:
    """60 of one prompt: Kendall's tau at least 0.8, as the mean of 3 seeds; counted by its definition."""
    taus = []
    for seed in range(3):
        rng, table = random.Random(seed), Table(60)
        good = [rng.gauss(0, 1) for _ in range(60)]
        while made := table.call_up(4, rng):
            table.wins += [(a, b) if good[a] > good[b] else (b, a) for a, b in made]
            table.busy.clear()
        assert len(table.wins) <= 3 * 60 + 1
        found = table.strengths()
        signs = [(found[a] - found[b]) * (good[a] - good[b]) > 0 for a, b in itertools.combinations(range(60), 2)]
        taus.append(2 * sum(signs) / len(signs) - 1)
    assert sum(taus) / 3 >= 0.8, taus


def test_it_goes_on_after_closing_and_with_another_person(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    assert play(page_of(run, "Ada"), 5) == 5
    run.close()
    run = Run.open(tmp_path / "runs" / "t")
    done = progress(run)
    assert done and (done.done, done.of) == (5, 13)
    assert play(page_of(run, "Bo")) == 8
    assert standings(run)[0][0].entrant.source == "2026-11-30/180.png"


def test_two_pages_never_have_the_same_picture_at_once(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    cards = [card for page in (page_of(run, "Ada"), page_of(run, "Bo")) for card in page.next(2)]
    shown = [entrant for card in cards for entrant in run.groups.get(card["group_id"]).entrants]
    assert len(cards) == 3  # two of a lake and one of a hill; the others wait for the end of a match
    assert len(set(shown)) == len(shown)


def test_a_pick_that_is_taken_back_is_played_again(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    page = page_of(run)
    (card,) = page.next()
    answer = page.pick(card)
    assert answer["state"]["tournament"] == {"done": 1, "of": 13}
    page.post("undo", pick_id=answer["pick_id"])
    assert progress(run).done == 0
    assert [each["group_id"] for each in page.next()] == [card["group_id"]]


def test_a_tie_and_a_skipped_match_count_as_played(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    page = page_of(run)
    for kind in ("tie", "skipped", "all_bad"):
        page.pick(page.next()[0], kind)
    assert progress(run).done == 3
    assert play(page) == 10
    assert sum(each.played for pool in standings(run) for each in pool) == 26
    assert sum(each.won for pool in standings(run) for each in pool) == 10


def test_new_pictures_join_what_was_begun(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    play(page_of(run))
    picture(outputs / "later.png", 200, "a lake")
    for _ in import_pictures(run, outputs, Encoder()):  # type: ignore[arg-type]
        pass
    assert play(page_of(run)) == 5
    best = standings(run)[0][0]
    assert (best.entrant.source, best.won, best.played) == ("later.png", 5, 5)


def test_matches_are_pairs_with_the_pictures_own_latents(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    play(page_of(run))
    data = collect_preferences(run, "diffusion-dpo")
    load = GroupLoader(run, data)
    assert len(data.training) == 13
    for group_id in data.training:
        group = load(group_id)
        assert group.latents.shape == (2, 4, 2, 2)
        for candidate in (0, 1):
            assert float(group.latents[candidate].mean()) == pytest.approx(
                brightness(run, group_id, candidate) / 255, abs=1e-3
            )
        (pair,) = group.pairs
        assert float(group.latents[pair.winner].mean()) > float(group.latents[pair.loser].mean())


def test_what_is_noted_of_a_match_is_kept_with_its_pictures(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    call_up(run, 1, random.Random(0))
    (match,) = run.matches.all()
    run.groups.save_features(match.group_id, {"x": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})
    assert [run.groups.features(each)["x"].tolist() for each in match.entrants] == [[[1.0, 2.0]], [[3.0, 4.0]]]
    assert run.groups.features(match.group_id)["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert not (run.folder / "groups" / match.group_id).exists()


def test_pictures_that_cannot_be_compared_are_left_out_and_named(tmp_path: Path, outputs: Path) -> None:
    picture(outputs / "no-prompt.png", 30, "")
    picture(outputs / "alone.png", 40, "a wood")
    picture(outputs / "other-size.png", 50, "a lake", size=48)
    picture(outputs / "txt2img-grids" / "grid-0001.png", 55, "a lake")
    with Image.open(outputs / "2026-11-30" / "150.png") as image:  # the same again, as JPEG with the prompt beside it
        image.save(outputs / "again.jpg", quality=90)
    (outputs / "again.txt").write_text("a lake\nNegative prompt: dull")
    (outputs / "cut.png").write_bytes((outputs / "2026-11-30" / "60.png").read_bytes()[:60])
    (outputs / "notes.md").write_text("x")
    found = read_source(outputs)
    assert len(found.groups) == 8
    assert not any(group.picks for group in found.groups)
    assert sorted((each.where, each.groups) for each in found.left_out) == [
        ("alone.png, other-size.png", 2),
        ("cut.png", 1),
        ("no-prompt.png", 1),
    ]
    assert found.notes == [
        "1 picture was left out because another one looks the same.",
        "1 picture was left out because they are grids of others.",
    ]


def test_the_gallery_answers_with_the_ranking(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    page = page_of(run)
    play(page)
    status, answer = page.get("ranking")
    assert status == 200
    best: dict[str, Any] = answer["pools"][0]["pictures"][0]
    assert (best["place"], best["won"], best["played"], best["name"]) == (1, 4, 4, "2026-11-30/180.png")
    response = page.send("GET", best["image"]["url"])
    assert response.status == 200


def test_matches_of_one_prompt_are_predicted_together(tmp_path: Path) -> None:
    """Who clicks at random, but always ranks the same, must not be believed for having been seen before."""
    folder = tmp_path / "outputs"
    for prompt in range(12):
        for level in (60, 110, 160):
            picture(folder / f"{prompt}-{level}.png", level + prompt / 100, f"prompt {prompt}")
    run = begun(tmp_path / "runs" / "t", folder)
    play(page_of(run))
    training, _ = preferences(run)
    related = related_groups(run, training)
    assert related is not None
    data = pair_data(training, {name: torch.rand(2, 3).double() for name in training}, torch.ones(3).double(), related)
    prompts = [run.groups.get(name).prompt for name in training]
    for count in (2, 5):
        fold = dict(zip(prompts, data.folds(count).tolist(), strict=True))
        assert [fold[prompt] for prompt in prompts] == data.folds(count).tolist()
        assert set(fold.values()) == set(range(count))
    assert data[data.folds(5) != 0].folds(3).unique().tolist() == [0, 1, 2]


def test_a_program_picks_the_whole_tournament(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    *_, last = auto_pick(run, get_reward("contrast"), "program", call_up=call_up)
    assert (last.done, last.total) == (13, 13)
    assert progress(run).done == 13
