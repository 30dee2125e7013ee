"""JSON lines: one object a line, paths relative to the file.

    {"prompt": "a lake", "winner": "a.png", "loser": "b.png"}
    {"prompt": "a lake", "images": ["a.png", "b.png", "c.png"], "best": 1}         or "best": "b.png"
    {"prompt": "a lake", "images": [...], "ranking": [1, 0, 2]}                    numbers from 0, best first
    {"prompt": "a lake", "images": [...], "scores": [1, -1, 0]}                    thumbs, or numbers of any size
    {"caption": "a lake", "jpg_0": "a.jpg", "jpg_1": "b.jpg", "label_0": 1, "label_1": 0}    Pick-a-Pic (Kirstain et
        al. 2023, arXiv 2305.01569), its images extracted into files; 0.5 and 0.5 is a tie
    {"file_name": "images/000000-0.png", "text": "a lake", "id": ..., "candidate": 0, "picks": [...]}    an image
        of `exchange.lines.export_dataset`

Every line may have "negative_prompt" and "who". If a line has no prompt, that of the images is taken (captions.py); of
several in a list, the first.

Scores are thumbs (1 liked, -1 disliked, 0 neither) only where all scores of the file are. Else they are levels, such as
stars, of which nobody knows from where on something is liked: the higher of two wins, and equal ones say nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import D3POError
from ..names import find_file
from ..picks import Pick
from ..textfiles import read_text
from .captions import Noticed, read_prompts
from .folders import NO_PROMPT
from .judged import ImportedPick, JudgedGroup, JudgedImages
from .levels import are_thumbs, pick_of_scores
from .metadata import first_text

EXAMPLE = 'It should look like {"prompt": "a lake", "winner": "a.png", "loser": "b.png"}.'
MAX_NAME = 80
"""Characters of a person's name."""

Row = dict[str, Any]  # a JSON object; what is in it is checked where it is used


def read_rows(path: Path, confined: bool = False) -> JudgedImages:
    """Read the groups of a file of JSON lines.

    Args:
        path: the file.
        confined: whether lines that name images outside of the file's folder are left out.

    Raises:
        D3POError: the file cannot be read, or has no line.
    """
    judged = JudgedImages()
    groups: dict[str, tuple[str, list[Row]]] = {}  # an exported data set has a line for each image of a group
    for where, row in _rows(path, judged):
        key = f"group {row.get('id')}" if "file_name" in row else where
        groups.setdefault(key, (where, []))[1].append(row)
    thumbs = all(are_thumbs(row.get("scores")) for _, rows in groups.values() for row in rows)
    for where, rows in groups.values():
        try:
            if "file_name" in rows[0]:
                judged.groups.append(_exported(where, rows, path.parent, confined, judged.noticed))
            else:
                judged.groups.append(_group(where, rows, path.parent, confined, thumbs, judged.noticed))
        except D3POError as error:
            judged.leave_out(where, error)
        except (LookupError, TypeError, ValueError, OverflowError, OSError):  # a field is missing or of another kind
            judged.leave_out(where, D3POError("It does not say which pictures were judged how.", EXAMPLE))
    if not (judged or judged.left_out):
        raise D3POError(f"{path.name} is empty.", EXAMPLE)
    return judged


def _rows(path: Path, judged: JudgedImages) -> Iterator[tuple[str, Row]]:
    """Yield the lines that are JSON objects, each with a name for it that is shown to people; leave out the others."""
    for number, text in enumerate(read_text(path).split("\n"), 1):  # splitlines() would also split within texts
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
            judged.leave_out(where, D3POError("It is not a JSON object.", EXAMPLE))


def _group(where: str, rows: list[Row], folder: Path, confined: bool, thumbs: bool, noticed: Noticed) -> JudgedGroup:
    """Return the group of one line; raises D3POError, KeyError, TypeError, ValueError or IndexError if it is wrong."""
    (row,) = rows
    if "jpg_0" in row:
        names, pick = [row["jpg_0"], row["jpg_1"]], _pick_a_pic(row)
    elif "winner" in row:
        names, pick = [row["winner"], row["loser"]], Pick("favourite", (0,))
    else:
        names = list(row["images"])
        pick = _pick_of_images(row, names, thumbs)
    paths = _paths(names, folder, confined)
    who = " ".join(first_text(row.get("who")).split())[:MAX_NAME]
    return JudgedGroup(where, *_prompts(row, paths, noticed), paths, (ImportedPick(pick, who),))


def _exported(where: str, rows: list[Row], folder: Path, confined: bool, noticed: Noticed) -> JudgedGroup:
    """Return the group of the lines of an exported data set, each of which has all picks; raises as `_group`."""
    rows = sorted(rows, key=lambda row: row["candidate"])
    if [row["candidate"] for row in rows] != list(range(len(rows))):
        raise D3POError("A picture of this group has no line, or has two.", "Export the data set again.")
    paths = _paths([row["file_name"] for row in rows], folder, confined)
    picks = tuple(
        ImportedPick(
            Pick(pick["kind"], tuple(pick["order"]), tuple(pick["scores"])), str(pick["who"]), tuple(pick["shown"])
        )
        for pick in rows[0]["picks"]
    )
    return JudgedGroup(where, *_prompts(rows[0], paths, noticed), paths, picks)


def _paths(names: list[str], folder: Path, confined: bool) -> tuple[Path, ...]:
    """Return the paths of image files; raises D3POError if one is missing, or outside of a confined folder."""
    if not all(isinstance(name, str) for name in names):
        raise TypeError
    written = [folder / form for name in names for form in (name, name.replace("\\", "/"))]
    if confined and any(_leads_out(path, folder) for path in written):  # before anything shows whether it exists
        raise D3POError(f"It names a picture outside of {folder}.", "Pack it anew, with all its pictures.")
    paths = tuple(find_file(folder / name) for name in names)
    missing = [str(name) for name, path in zip(names, paths, strict=True) if not path.is_file()]
    if missing:
        raise D3POError(f"There is no file {missing[0]}.", f"Paths are looked up from {folder}.")
    return paths


def _leads_out(path: Path, folder: Path) -> bool:
    """Return whether a path is outside of a folder, by its name alone.

    Opening a path on a network share would already tell another computer who the user is.
    """
    return not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _prompts(row: Row, paths: tuple[Path, ...], noticed: Noticed) -> tuple[str, str]:
    """Return a line's prompt and negative prompt, else those of the first image that has a prompt.

    Raises:
        D3POError: there is no prompt, or an image cannot be read.
    """
    given = [row[name] for name in ("prompt", "caption", "text") if row.get(name)]
    prompt = next((text for each in given if (text := first_text(each).strip())), "")
    negative = next((text for name in ("negative_prompt", "negative") if (text := first_text(row.get(name)))), "")
    if prompt:
        return prompt, negative.strip()
    if any(not isinstance(each, str) for each in given):
        raise D3POError("Its prompt is not a text.", EXAMPLE)
    of_image = next((prompts for path in paths if (prompts := read_prompts(path, noticed))[0]), None)
    if of_image is None:
        raise D3POError(f'It has no "prompt", nor has {paths[0].name}.', NO_PROMPT)
    return of_image


def _pick_a_pic(row: Row) -> Pick:
    """Return the pick of a row of Pick-a-Pic; raises D3POError if its labels are neither a choice nor a tie."""
    labels = [float(row["label_0"]), float(row["label_1"])]
    if not row.get("has_label", True) or sorted(labels) not in ([0, 1], [0.5, 0.5]):
        raise D3POError(f"Its labels are {labels[0]:g} and {labels[1]:g}.", "Use 1 and 0, 0 and 1, or 0.5 and 0.5.")
    return Pick("tie") if labels[0] == labels[1] else Pick("favourite", (int(labels[1] == 1),))


def _pick_of_images(row: Row, names: list[str], thumbs: bool) -> Pick:
    """Return the favourite, the ranking or the scores of a line with "images", which it refers to by number or name."""

    def number(image: int | str) -> int:
        if isinstance(image, bool):
            raise TypeError
        return image if isinstance(image, int) else names.index(image)

    if "best" in row:
        return Pick("favourite", (number(row["best"]),))
    if "ranking" in row:
        return Pick("ranking", tuple(number(each) for each in row["ranking"]))
    if not isinstance(row["scores"], list) or any(type(score) not in (int, float) for score in row["scores"]):
        raise TypeError
    return pick_of_scores([float(score) for score in row["scores"]], len(names), thumbs)
