"""Tournaments of pictures that exist: who meets whom, what is kept, and that methods of pictures learn from it."""

from __future__ import annotations

import itertools
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

from d3po_core.app.swiss import MAX_PLAYED, Table
from d3po_core.app.tournament import call_up, progress, standings
from d3po_core.errors import D3POError
from d3po_core.exchange.lines import export_dataset, import_lines, pick_lines
from d3po_core.importing import import_pictures, read_source
from d3po_core.picks import Pair
from d3po_core.rewards import get_reward
from d3po_core.rewards.auto_pick import auto_pick
from d3po_core.rewards.judge import above_chance, pair_data, predicted_right, preferences, related_groups
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
    """A picture of soft spots whose mean is `level` of 255, with its prompt as A1111 writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    if prompt:
        info.add_text("parameters", f"{prompt}\nNegative prompt: dull\nSteps: 20, Sampler: Euler a, Seed: 1")
    spots = np.random.default_rng(int(level * 1000)).uniform(0, 255, (6, 6, 3)).astype(np.uint8)
    soft = np.asarray(Image.fromarray(spots).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    Image.fromarray(((soft - soft.mean()) * 0.4 + level).clip(0, 255).astype(np.uint8)).save(path, pnginfo=info)
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
    most = min(MAX_PLAYED, players - 1)
    assert set(counts) <= {most - 1, most, most + 1}
    assert first - 1 <= len(played) <= first <= 3 * players


def test_a_small_field_meets_everybody_and_is_ranked_right(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    assert progress(run) and progress(run).of == 10 + 3
    assert play(page_of(run)) == 13
    ranked = [[(each.entrant.source, each.won, each.played) for each in pool] for pool in standings(run)]
    lake = [
        (f"outputs/2026-11-30/{level}.png", won, 4) for won, level in ((4, 180), (3, 150), (2, 120), (1, 90), (0, 60))
    ]
    hill = [(f"outputs/2026-12-01/{level}.png", won, 2) for won, level in ((2, 160), (1, 110), (0, 70))]
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
        assert len(table.wins) <= 3 * 60
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
    assert standings(run)[0][0].entrant.source == "outputs/2026-11-30/180.png"


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
    assert (best.entrant.source, best.won, best.played) == ("outputs/later.png", 5, 5)


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
    (outputs / "pairs.jsonl").write_text("{}")
    found = read_source(outputs)
    assert sorted((each.where, each.groups) for each in found.left_out) == [
        ("outputs/cut.png", 1),
        ("outputs/no-prompt.png", 1),
    ]
    assert found.notes == [
        "1 picture was left out because another one looks the same: outputs/2026-11-30/150.png.",
        "1 picture was left out because grids show several pictures in one.",
        "What pairs.jsonl says was not read: name the file itself to import that.",
    ]
    run = Run.create(tmp_path / "runs" / "t", name="t", model={"family": "sd15", "name": "m"}, settings={})
    *_, last = import_pictures(run, found, Encoder())  # type: ignore[arg-type]
    assert (last.added, last.entrants) == (8, 8)
    assert "outputs/alone.png, outputs/other-size.png: These 2 pictures have nothing of the same" in str(
        last.left_out[-1]
    )


def test_a_picture_that_was_drawn_again_in_one_place_is_no_copy(tmp_path: Path) -> None:
    """A detailer's work, and a blurred picture, differ from what they were made of."""
    first = picture(tmp_path / "outputs" / "a.png", 120, "a face", size=512)
    with Image.open(first) as image:
        detailed, blurred = image.copy(), image.filter(ImageFilter.GaussianBlur(24))
    detailed.paste((255, 0, 255), (200, 200, 218, 218))
    detailed.save(tmp_path / "outputs" / "b.png")
    blurred.save(tmp_path / "outputs" / "c.png")
    for name in ("b", "c"):
        (tmp_path / "outputs" / f"{name}.txt").write_text("a face\nNegative prompt: dull")
    assert len(read_source(tmp_path / "outputs").groups) == 3


def test_one_more_picture_of_a_known_prompt_is_taken_from_another_folder(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    picture(tmp_path / "more" / "a.png", 200, "a lake")
    *_, last = import_pictures(run, tmp_path / "more", Encoder())  # type: ignore[arg-type]
    assert (last.added, progress(run).of) == (1, 15 + 3)
    picture(tmp_path / "other" / "a.png", 200, "a moor")
    with pytest.raises(D3POError, match="nothing of the same prompt and size to be compared with"):
        list(import_pictures(run, tmp_path / "other", Encoder()))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_who_comes_late_can_be_compared_with_the_others(seed: int) -> None:
    """20 weak players have played all their matches when 20 strong ones come."""
    rng, table = random.Random(seed), Table(20)
    good = [rng.random() for _ in range(20)] + [2 + rng.random() for _ in range(20)]

    def play_on(table: Table) -> None:
        while made := table.call_up(4, rng):
            table.wins += [(a, b) if good[a] > good[b] else (b, a) for a, b in made]
            table.busy.clear()

    play_on(table)
    table = Table(40, met=table.met, wins=table.wins)
    play_on(table)
    found = table.strengths()
    signs = [(found[a] - found[b]) * (good[a] - good[b]) > 0 for a, b in itertools.combinations(range(40), 2)]
    assert 2 * sum(signs) / len(signs) - 1 >= 0.8
    assert len(table.met) <= 3 * 40


def test_a_data_set_of_flags_alone_is_no_tournament(tmp_path: Path) -> None:
    for side in ("winners", "losers"):
        picture(tmp_path / "pairs" / side / "a.png", 60 if side == "winners" else 90, "a lake")
    run = begun(tmp_path / "runs" / "first", tmp_path / "pairs")
    (group,) = run.groups.select()
    run.picks.remove(run.picks.standing()[0].pick_id)
    run.flags.add(group.id, 1, "defective")
    export_dataset(run, tmp_path / "set")
    again = begun(tmp_path / "runs" / "again", tmp_path / "set")
    assert progress(again) is None


def test_picks_of_a_copy_are_imported_into_what_it_was_copied_from(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    play(page_of(run), 3)
    run.close()
    shutil.copytree(tmp_path / "runs" / "t", tmp_path / "copies" / "t")
    copy, run = Run.open(tmp_path / "copies" / "t"), Run.open(tmp_path / "runs" / "t")
    play(page_of(run, "Bo"))
    play(page_of(copy, "Ada"))
    (tmp_path / "picks.jsonl").write_text(pick_lines(copy), "utf-8")
    assert import_lines(run, tmp_path / "picks.jsonl") == 10
    assert import_lines(run, tmp_path / "picks.jsonl") == 0
    assert len(run.matches.all()) == len(run.picks.judgements(who="Bo")) + 3
    for pool in standings(run):  # both of them prefer the brighter ones
        names = [int(Path(each.entrant.source).stem) for each in pool]
        assert names == sorted(names, reverse=True)
    assert standings(run)[0][0].won == standings(run)[0][0].played


def test_two_people_in_one_match_are_two_judgements(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    (card,) = page_of(run).next()
    for who in ("Ada", "Bo"):
        page_of(run, who).pick(card)
    assert sorted((each.won, each.played) for pool in standings(run) for each in pool)[-2:] == [(0, 2), (2, 2)]


def test_the_gallery_answers_with_the_ranking(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    page = page_of(run)
    play(page)
    status, answer = page.get("ranking")
    assert status == 200
    best: dict[str, Any] = answer["pools"][0]["pictures"][0]
    assert (best["place"], best["won"], best["played"], best["name"]) == (1, 4, 4, "outputs/2026-11-30/180.png")
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
    folds = data.folds(5)
    assert sum(hidden.int() for _, hidden in folds).tolist() == [1] * len(prompts)
    for seen, hidden in folds:
        assert (seen ^ hidden).all()
        of_hidden = {prompt for prompt, each in zip(prompts, hidden.tolist(), strict=True) if each}
        assert not of_hidden & {prompt for prompt, each in zip(prompts, seen.tolist(), strict=True) if each}


@pytest.mark.parametrize("prompts", [1, 2, 12])
def test_who_likes_at_random_but_always_the_same_is_not_believed(tmp_path: Path, prompts: int) -> None:
    """40 pictures of which nothing can be known but which they are."""
    rng = random.Random(prompts)
    pool = range(40 // prompts)
    names = [[f"{prompt}-{each}" for each in pool] for prompt in range(prompts)]
    liked = {name: rng.random() for of_prompt in names for name in of_prompt}
    seen = {name: torch.tensor([rng.gauss(0, 1) for _ in range(80)]).double() for name in liked}
    training, features, related = {}, {}, {}
    number = {name: i for i, name in enumerate(liked)}
    for prompt, of_prompt in enumerate(names):
        table = Table(len(of_prompt))
        while made := table.call_up(4, rng):
            for pair in made:
                a, b = (of_prompt[each] for each in pair)
                key = f"{a} {b}"
                winner = 0 if liked[a] > liked[b] else 1
                table.wins.append((pair[winner], pair[1 - winner]))
                training[key], features[key] = [Pair(winner, 1 - winner, 1.0)], torch.stack([seen[a], seen[b]])
                related[key] = [prompt, prompt] if prompts >= 10 else [number[a], number[b]]
            table.busy.clear()
    scales = [torch.ones(80).double()]
    assert above_chance(predicted_right(features, training, {}, scales, related=related)) < 2.5
    if prompts == 1:  # what it would be believed for without
        assert above_chance(predicted_right(features, training, {}, scales)) > 2.75


def test_a_program_picks_the_whole_tournament(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    *_, last = auto_pick(run, get_reward("contrast"), "program", call_up=call_up)
    assert (last.done, last.total) == (13, 13)
    assert progress(run).done == 13


def test_another_negative_prompt_is_no_other_tournament(tmp_path: Path) -> None:
    for level in (60, 120):
        picture(tmp_path / "outputs" / f"{level}.png", level, "")
        (tmp_path / "outputs" / f"{level}.txt").write_text(f"a lake\nNegative prompt: dull {level}")
    run = begun(tmp_path / "runs" / "t", tmp_path / "outputs")
    assert play(page_of(run)) == 1
    assert [Path(each.entrant.source).name for (*pool,) in standings(run) for each in pool] == ["120.png", "60.png"]


def test_a_copy_of_a_run_has_a_tournament_of_its_own(tmp_path: Path, outputs: Path) -> None:
    run = begun(tmp_path / "runs" / "t", outputs)
    call_up(run, 2)
    run.close()
    shutil.copytree(run.folder, tmp_path / "copies" / "t")
    copy, run = Run.open(tmp_path / "copies" / "t"), Run.open(run.folder)
    for _ in range(2):
        (card,) = page_of(copy).next()
        page_of(copy).pick(card)
    (card,) = page_of(run).next()
    page_of(run).post("undo", pick_id=page_of(run).pick(card)["pick_id"])
    assert (copy.picks.revision, copy.matches.count_groups()) == (run.picks.revision, run.matches.count_groups())
    assert (progress(copy).done, progress(run).done) == (2, 0)
