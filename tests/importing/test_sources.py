"""Sources of judged pictures: what each means, and what is left out of it in one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from d3po_core.errors import D3POError
from d3po_core.importing import JudgedImages, read_source
from d3po_core.picks import Pick

SIZE = (16, 8)


def picture(path: Path, shade: int, prompt: str = "", size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    if prompt:
        info.add_text("parameters", f"{prompt}\nNegative prompt: dull\nSteps: 20, Sampler: Euler a, Seed: 1")
    Image.new("RGB", size, (shade, 0, 255 - shade)).save(path, **({"pnginfo": info} if path.suffix == ".png" else {}))
    return path


def written(folder: Path, *rows: Any) -> Path:
    """A file of lines; what is not a text is written as JSON. Pictures 0.png to 9.png lie beside it."""
    for shade in range(10):
        picture(folder / f"{shade}.png", shade)
    path = folder / "pairs.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def pair(winner: str, loser: str, **more: Any) -> dict[str, Any]:
    return {"prompt": "a lake", "winner": f"{winner}.png", "loser": f"{loser}.png", **more}


def group(count: int, **more: Any) -> dict[str, Any]:
    return {"prompt": "a lake", "images": [f"{each}.png" for each in range(count)], **more}


def pick_a_pic(first: float, second: float, **more: Any) -> dict[str, Any]:
    return {"caption": "a lake", "jpg_0": "0.png", "jpg_1": "1.png", "label_0": first, "label_1": second, **more}


def thumbs(*scores: int) -> Pick:
    return Pick("scores", scores=scores)


def told(found: JudgedImages) -> list[tuple[str, list[str], Pick]]:
    return [
        (each.prompt, ["/".join(path.parts[-2:]) for path in each.paths], each.picks[0].pick) for each in found.groups
    ]


def test_folders_pair_by_name_and_prompt(tmp_path: Path) -> None:
    picture(tmp_path / "winners" / "a.png", 1, "a lake")
    picture(tmp_path / "losers" / "a.jpg", 2)  # a JPEG that says nothing takes its winner's prompt
    picture(tmp_path / "winners" / "b.png", 3, "a hill")
    picture(tmp_path / "losers" / "b.png", 4, "a wood")  # only the name is the same
    picture(tmp_path / "winners" / "c.png", 5, "a sea")
    picture(tmp_path / "losers" / "d.webp", 6)
    (tmp_path / "losers" / "d.txt").write_text("a moor")
    (tmp_path / "losers" / ".DS_Store").write_text("x")
    found = read_source(tmp_path)
    assert told(found) == [
        ("a lake", ["winners/a.png", "losers/a.jpg"], thumbs(1, -1)),
        ("a hill", ["winners/b.png"], thumbs(1)),
        ("a sea", ["winners/c.png"], thumbs(1)),
        ("a wood", ["losers/b.png"], thumbs(-1)),
        ("a moor", ["losers/d.webp"], thumbs(-1)),
    ]
    assert [each.negative for each in found.groups] == ["dull", "dull", "dull", "dull", ""]
    assert not found.left_out
    (note,) = found.notes
    assert note == "b in winners and losers have different prompts, so they count as liked and disliked each alone."


def test_one_folder_alone_is_thumbs(tmp_path: Path) -> None:
    picture(tmp_path / "winners" / "a.png", 1, "a lake")
    assert told(read_source(tmp_path)) == [("a lake", ["winners/a.png"], thumbs(1))]


@pytest.mark.parametrize(
    ("row", "pick", "pictures"),
    [
        (pair("3", "5"), Pick("favourite", (0,)), "3 5"),
        (group(3, best=2), Pick("favourite", (2,)), "0 1 2"),
        (group(3, best="1.png"), Pick("favourite", (1,)), "0 1 2"),
        (group(3, ranking=[2, 0, 1]), Pick("ranking", (2, 0, 1)), "0 1 2"),
        (group(2, ranking=["1.png", "0.png"]), Pick("ranking", (1, 0)), "0 1"),
        (group(3, scores=[0, 1, -1]), thumbs(0, 1, -1), "0 1 2"),
        (group(1, scores=[-1]), thumbs(-1), "0"),
        (group(3, scores=[5.2, 7.9, 6]), Pick("ranking", (1, 2)), "0 1 2"),
        (group(3, scores=[5, 8, 5]), Pick("ranking", (1,)), "0 1 2"),
        (group(2, scores=[5, 5]), Pick("tie"), "0 1"),
        (pick_a_pic(0, 1, has_label=True), Pick("favourite", (1,)), "0 1"),
        (pick_a_pic(1.0, 0.0), Pick("favourite", (0,)), "0 1"),
        (pick_a_pic(0.5, 0.5), Pick("tie"), "0 1"),
    ],
)
def test_what_a_line_means(tmp_path: Path, row: dict[str, Any], pick: Pick, pictures: str) -> None:
    found = read_source(written(tmp_path, row))
    assert not found.left_out
    assert told(found) == [("a lake", [f"{tmp_path.name}/{name}.png" for name in pictures.split()], pick)]


def test_who_and_negative_prompts_and_prompts_of_the_pictures(tmp_path: Path) -> None:
    first = pair("1", "2", who=" Anna  B. ", negative_prompt="dull")
    path = written(tmp_path, first, {"winner": "3.png", "loser": "w.png"})
    picture(tmp_path / "w.png", 50, "a wood")
    one, other = read_source(path).groups
    assert (one.picks[0].who, one.negative) == ("Anna B.", "dull")
    assert (other.picks[0].who, other.prompt, other.negative) == ("", "a wood", "dull")


LEFT_OUT: list[tuple[Any, str]] = [
    ("{winner", r"Line 1 of pairs\.jsonl: It is not a JSON object\. It should look like"),
    ("[1]", "Line 1 .* not a JSON object"),
    ("[" * 100_000, "Line 1 .* not a JSON object"),
    ({"prompt": "a lake"}, "Line 1 .* does not say which pictures were judged how"),
    (group(2), "does not say which pictures were judged how"),
    ({**pair("1", "2"), "winner": 5}, "does not say which pictures"),
    (group(2, best="7.png"), "does not say which pictures"),
    (group(2, best=2), "names a candidate that this group of 2 does not have"),
    (group(2, ranking=[0, 0]), "names a candidate twice"),
    (group(2, scores=[1]), "2 pictures need 2 scores"),
    (group(2, scores=[float("nan"), 1]), "2 pictures need 2 scores"),
    (group(4, scores=[8, 7, 7, 5]), "equal above the lowest"),
    (group(3, scores=[2, 2, 1]), "equal above the lowest"),
    (group(2, scores="10"), "does not say which pictures"),
    (group(2, scores=["1", "-1"]), "does not say which pictures"),
    (group(2, scores=[10**400, 1]), "does not say which pictures"),
    (group(2, best=True), "does not say which pictures"),
    ({**pair("1", "2"), "winner": "a" * 5000}, "does not say which pictures"),
    (pair("1", "2", prompt={"a": 1}), "Its prompt is not a text"),
    (group(1, scores=[7.5]), "alone says nothing"),
    (group(9, best=0), r"It has 9 pictures\. A group has at most 8"),
    (pair("1", "99"), r"There is no file 99\.png\. Paths are looked up from"),
    (pair("1", "2", prompt=" "), r'has no "prompt", nor has 1\.png.*\.txt of the same name beside it'),
    (pair("1", "broken"), r"broken\.png is not a picture that can be read\. Use PNG, JPEG or WebP"),
    (pair("1", "cut"), r"cut\.png is not a picture that can be read"),
    (pair("1", "large"), r"different sizes: 1\.png is 16 x 8 and large\.png is 24 x 8 pixels\. Crop or scale"),
    (pair("1", "1"), r"A winner is also a loser: .*/1\.png and .*/1\.png are the same picture"),
    (pair("1", "copy"), r"A winner is also a loser: 1\.png and copy\.png are the same picture"),
    (pick_a_pic(0, 0), r"Its labels are 0 and 0\. Use 1 and 0, 0 and 1, or 0\.5 and 0\.5"),
    (pick_a_pic(1, 0, has_label=False), "Its labels are 1 and 0"),
]


@pytest.mark.parametrize(("row", "why"), LEFT_OUT, ids=range(len(LEFT_OUT)))
def test_a_bad_line_is_left_out_and_the_others_stay(tmp_path: Path, row: Any, why: str) -> None:
    path = written(tmp_path, row, pair("8", "9"))
    picture(tmp_path / "large.png", 70, size=(24, 8))
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "1.png").read_bytes()[:45])
    with Image.open(tmp_path / "1.png") as image:
        image.save(tmp_path / "copy.png", compress_level=0)  # other bytes, the same pixels
    found = read_source(path)
    assert [each.paths[0].name for each in found.groups] == ["8.png"]
    (left_out,) = found.left_out
    assert re.search(why, str(left_out)) and "\n" not in str(left_out)


@pytest.mark.parametrize("folder", ["{outside}", "../outside", "inside/../../outside"])
@pytest.mark.parametrize("file", ["1.png", "broken.png", "missing.png"])
def test_whoever_is_confined_learns_nothing_of_other_folders(tmp_path: Path, folder: str, file: str) -> None:
    outside = tmp_path / "outside"
    (tmp_path / "mine" / "inside").mkdir(parents=True)
    outside.mkdir()
    picture(outside / "1.png", 10)
    (outside / "broken.png").write_text("no picture")
    name = f"{folder.format(outside=outside)}/{file}"
    exported = {"id": 1, "candidate": 0, "text": "a lake", "file_name": name, "picks": []}
    path = written(tmp_path / "mine", pair(name, "2"), exported, pair("inside/../8", "9"))
    found = read_source(path, confined=True)
    assert [each.paths[0].name for each in found.groups] == ["8.png"]
    said = f"It names a picture outside of {tmp_path / 'mine'}. Pack it anew, with all its pictures."
    assert [each.reason for each in found.left_out] == [said, said]
    assert all(said not in each.reason for each in read_source(path).left_out)


def test_people_with_a_few_bad_pictures_get_the_others(tmp_path: Path) -> None:
    for number in range(20):
        for side, shade in (("winners", number), ("losers", 100 + number)):
            picture(tmp_path / side / f"{number:02}.png", shade, f"prompt {number}")
    picture(tmp_path / "losers" / "03.png", 103, "prompt 3", size=(8, 8))
    (tmp_path / "losers" / "05.png").write_text("no picture")
    (tmp_path / "winners" / "notes.docx").write_text("x")
    for shade, name in enumerate("wxyz", 200):
        picture(tmp_path / "winners" / f"{name}.png", shade)
    found = read_source(tmp_path)
    assert len(found.groups) == 19  # 18 pairs, and the winner whose loser is no picture
    left_out = sorted(str(each) for each in found.left_out)
    assert len(left_out) == 4 and sum(each.groups for each in found.left_out) == 7
    assert left_out[0].startswith("losers/05.png: 05.png is not a picture that can be read.")
    assert left_out[1].startswith("w.png, x.png, y.png and 1 more: 4 pictures have no prompt. Write each one's prompt")
    assert "different sizes: winners/03.png is 16 x 8 and losers/03.png is 8 x 8 pixels" in left_out[2]
    assert left_out[3].startswith("winners/notes.docx: It is not a picture.")


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([pair("1", "2"), pair("2", "1")], 0),  # a direct contradiction: nobody knows which was meant
        ([pair("1", "2"), pair("3", "4"), pair("copy of 2", "copy of 1")], 1),
        ([pair("1", "2"), pair("2", "3")], 2),  # a chain is none
        ([pair("1", "2"), pair("2", "3"), pair("3", "1")], 3),  # a longer circle is how tastes are
        ([pair("1", "2", who="Anna"), pair("2", "1", who="Ben")], 2),  # people may differ
        ([pair("1", "2"), pair("2", "1", prompt="a hill")], 2),  # and so may prompts
        ([group(3, ranking=[0, 1, 2]), group(2, best=1), pair("8", "9")], 1),
        ([group(1, scores=[1]), group(1, scores=[-1]), group(1, scores=[1])], 0),
        ([group(2, scores=[1, 1]), group(1, scores=[-1])], 0),
        ([group(2, scores=[1, 0]), group(1, scores=[1])], 2),
    ],
)
def test_a_winner_that_is_also_a_loser(tmp_path: Path, rows: list[dict[str, Any]], kept: int) -> None:
    path = written(tmp_path, *rows, pair("5", "6"))
    for name in "12":
        (tmp_path / f"copy of {name}.png").write_bytes((tmp_path / f"{name}.png").read_bytes())
    found = read_source(path)
    assert len(found.groups) == kept + 1 and len(found.left_out) == len(rows) - kept
    assert all("A winner is also a loser: Line " in str(each) for each in found.left_out)


def test_a_picture_in_both_folders_contradicts_itself(tmp_path: Path) -> None:
    """The same pixels under other names, once in a pair and once alone."""
    picture(tmp_path / "winners" / "a.png", 1, "a lake")
    picture(tmp_path / "losers" / "a.png", 2, "a lake")
    picture(tmp_path / "losers" / "b.png", 1, "a lake")
    picture(tmp_path / "winners" / "c.png", 3, "a lake")
    found = read_source(tmp_path)
    assert told(found) == [("a lake", ["winners/c.png"], thumbs(1))]
    assert sorted(str(each)[:54] for each in found.left_out) == [
        "losers/b.png: A winner is also a loser: winners/a.png ",
        "winners/a.png: A winner is also a loser: losers/b.png ",
    ]


def nothing(folder: Path) -> Path:
    return folder


def empty_sides(folder: Path) -> Path:
    (folder / "winners").mkdir()
    return folder


def other_things(folder: Path) -> Path:
    return picture(folder / "a.png", 1).parent


def only_bad(folder: Path) -> Path:
    return written(folder, "{", pair("1", "1"))


def a_file(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (nothing, r"The folder .* is empty\. Choose a \.jsonl file, a folder of pictures, or one that holds metadata"),
        (empty_sides, r"There is no picture in .*, neither in winners nor in losers\. Put files that end in \.png"),
        (other_things, r"\(1 left out\)\. .*/a\.png: It has no prompt\. Write"),
        (lambda folder: a_file("notes.md", b"x")(folder).parent, r"holds no picture\. Choose a \.jsonl file"),
        (lambda folder: folder / "nowhere", "There is no file or folder"),
        (a_file("a.parquet", b"PAR1"), "is a Parquet file, which is not read. Extract its pictures into files"),
        (a_file("a.csv", b"x"), r"a\.csv is not a \.jsonl file"),
        (a_file("a.jsonl", b"\n \n"), r"a\.jsonl is empty\. It should look like"),
        (a_file("a.jsonl", b"\xff\xfe{"), r"cannot be read as text\. Save it as UTF-8"),
        (only_bad, r"Nothing in .* can be used \(2 left out\)\. .*Line 1 of .* not a JSON object"),
    ],
)
def test_a_source_of_which_nothing_can_be_used_is_an_error(
    tmp_path: Path, make: Callable[[Path], Path], why: str
) -> None:
    with pytest.raises(D3POError, match=why):
        read_source(make(tmp_path))


def test_a_name_that_begins_with_a_tilde_is_a_name() -> None:
    with pytest.raises(D3POError, match="~old"):
        read_source("~old.jsonl")
