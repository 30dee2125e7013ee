"""JSON lines: one object a line, paths relative to the file.

    {"prompt": "a lake", "winner": "a.png", "loser": "b.png"}
    {"prompt": "a lake", "images": ["a.png", "b.png", "c.png"], "best": 1}         or "best": "b.png"
    {"prompt": "a lake", "images": [...], "ranking": [1, 0, 2]}                    numbers from 0, the best first
    {"prompt": "a lake", "images": [...], "scores": [1, -1, 0]}                    thumbs, or numbers of any size
    {"caption": "a lake", "jpg_0": "a.jpg", "jpg_1": "b.jpg", "label_0": 1, "label_1": 0}    Pick-a-Pic (Kirstain et
        al. 2023, arXiv 2305.01569), its pictures extracted into files; .5 and .5 is a tie
    {"file_name": "images/000000-0.png", "text": "a lake", "id": ..., "candidate": 0, "picks": [...]}    a picture of
        `dataset.export_dataset`

"negative_prompt" and "who" may stand in every line. Without a prompt, the pictures' own is taken (see caption.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import D3POError
from ..picks import Pick
from .captions import read_caption
from .folders import NO_PROMPT
from .judged import FoundImages, ImportedPick, JudgedGroup, checked_group

LIKE_THIS = 'It should look like {"prompt": "a lake", "winner": "a.png", "loser": "b.png"}.'
THUMBS = (-1, 0, 1)
LONGEST_NAME = 80

Row = dict[str, Any]


def read_rows(path: Path, confined: bool = False) -> FoundImages:
    """The groups of a file of lines; if it is confined, of pictures in its own folder.

    Raises:
        D3POError: it cannot be read, or has no line.
    """
    found = FoundImages()
    groups: dict[str, tuple[str, list[Row]]] = {}  # a data set of ours has a line for each picture of a group
    for where, row in _rows(path, found):
        key = f"group {row.get('id')}" if "file_name" in row else where
        groups.setdefault(key, (where, []))[1].append(row)
    for where, rows in groups.values():
        try:
            found.groups.append((_exported if "file_name" in rows[0] else _group)(where, rows, path.parent, confined))
        except D3POError as error:
            found.leave_out(where, error)
        except (KeyError, TypeError, ValueError, IndexError):  # a field is missing or of another kind
            found.leave_out(where, D3POError("It does not say which pictures were judged how.", LIKE_THIS))
    if not (found or found.left_out):
        raise D3POError(f"{path.name} is empty.", LIKE_THIS)
    return found


def _rows(path: Path, found: FoundImages) -> Iterator[tuple[str, Row]]:
    """The lines that are JSON objects, each with its place."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() would cut in texts too
    except (OSError, UnicodeDecodeError) as error:
        raise D3POError(f"{path} cannot be read as text.", "Choose a file of JSON lines in UTF-8.") from error
    for number, text in enumerate(lines, 1):
        where = f"Line {number} of {path.name}"
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield where, row
        else:
            found.leave_out(where, D3POError("It is not a JSON object.", LIKE_THIS))


def _group(where: str, rows: list[Row], folder: Path, confined: bool) -> JudgedGroup:
    """What one line says; raises many things where it is not as it should be."""
    (row,) = rows
    if "jpg_0" in row:
        names, pick = [row["jpg_0"], row["jpg_1"]], _pick_a_pic(row)
    elif "winner" in row:
        names, pick = [row["winner"], row["loser"]], Pick("favourite", (0,))
    else:
        names = list(row["images"])
        pick = _said(row, names)
    pictures = _files(names, folder, confined)
    prompt, negative = _prompt(row, pictures)
    who = row.get("who") or ""
    return checked_group(
        where, prompt, negative, pictures, [ImportedPick(pick, " ".join(str(who).split())[:LONGEST_NAME])]
    )


def _exported(where: str, rows: list[Row], folder: Path, confined: bool) -> JudgedGroup:
    """What lines of a data set of ours say of one group: each has all that was said of it."""
    rows = sorted(rows, key=lambda row: row["candidate"])
    if [row["candidate"] for row in rows] != list(range(len(rows))):
        raise D3POError("A picture of this group has no line, or has two.", "Export the data set again.")
    pictures = _files([row["file_name"] for row in rows], folder, confined)
    verdicts = [
        ImportedPick(
            Pick(told["kind"], tuple(told["order"]), tuple(told["scores"])), str(told["who"]), tuple(told["shown"])
        )
        for told in rows[0]["picks"]
    ]
    return checked_group(where, *_prompt(rows[0], pictures), pictures, verdicts)


def _files(names: list[str], folder: Path, confined: bool) -> list[Path]:
    """Paths of files that are there."""
    paths = [folder / name for name in names]
    if confined and any(_leads_out(path, folder) for path in paths):  # before anything says whether it is there
        raise D3POError(f"It names a picture outside of {folder}.", "Pack it anew, with all its pictures.")
    missing = [str(name) for name, path in zip(names, paths, strict=True) if not path.is_file()]
    if missing:
        raise D3POError(f"There is no file {missing[0]}.", f"Paths are looked up from {folder}.")
    return paths


def _leads_out(path: Path, folder: Path) -> bool:
    """By its name alone: on some systems even looking there tells another computer who the user is."""
    return not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _prompt(row: Row, pictures: list[Path]) -> tuple[str, str]:
    """The line's prompt and negative prompt, else those of the first picture that has one."""
    told = next((row[name] for name in ("prompt", "caption", "text") if row.get(name)), "")
    negative = next((row[name] for name in ("negative_prompt", "negative") if row.get(name)), "")
    if str(told).strip():
        return str(told).strip(), str(negative).strip()
    found = next((both for path in pictures if (both := read_caption(path))[0]), None)
    if found is None:
        raise D3POError(f'It has no "prompt", nor has {pictures[0].name}.', NO_PROMPT)
    return found


def _pick_a_pic(row: Row) -> Pick:
    labels = [float(row["label_0"]), float(row["label_1"])]
    if not row.get("has_label", True) or sorted(labels) not in ([0, 1], [0.5, 0.5]):
        raise D3POError(f"Its labels are {labels[0]:g} and {labels[1]:g}.", "Use 1 and 0, 0 and 1, or .5 and .5.")
    return Pick("tie") if labels[0] == labels[1] else Pick("favourite", (int(labels[1] == 1),))


def _said(row: Row, names: list[str]) -> Pick:
    """A favourite, a ranking or scores of "images"; pictures go by number or by name."""

    def number(of: Any) -> int:
        return of if isinstance(of, int) else names.index(of)

    if "best" in row:
        return Pick("favourite", (number(row["best"]),))
    if "ranking" in row:
        return Pick("ranking", tuple(number(each) for each in row["ranking"]))
    return pick_of_scores([float(score) for score in row["scores"]], len(names))


def pick_of_scores(scores: list[float], pictures: int) -> Pick:
    """What scores say: thumbs stay thumbs, other numbers become a ranking, because only their order means anything.

    Raises:
        D3POError: there is not one finite number for each picture, or equal ones in the middle of the ranking.
    """
    if len(scores) != pictures or any(not -float("inf") < score < float("inf") for score in scores):
        raise D3POError(f"{pictures} pictures need {pictures} scores.", "Give a number for each.")
    if all(score in THUMBS for score in scores):
        return Pick("scores", scores=tuple(int(score) for score in scores))
    if pictures == 1:
        raise D3POError("A score of one picture alone says nothing.", "Use 1 for liked and -1 for disliked.")
    if min(scores) == max(scores):
        return Pick("tie")
    best_first = sorted(range(pictures), key=lambda each: -scores[each])
    told = [each for each in best_first if scores[each] > min(scores)]  # the rest share the last place
    if len({scores[each] for each in told}) < len(told):
        raise D3POError("Two of its scores are equal above the lowest.", "Use -1, 0 and 1, or give each its own.")
    return Pick("ranking", tuple(told))
