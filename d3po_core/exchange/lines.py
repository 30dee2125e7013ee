"""Picks, flags and masks as JSON lines, for other programs and to be imported again for the same images.

A line is a standing pick, flag or mask, with groups and candidates by their numbers:

    {"group": 12, "id": "000012-1a2b3c4d", "prompt": "a lake", "kind": "favourite", "order": [2], "scores": [],
     "who": "Anna", "when": 1770000000.5, "shown": [3, 2, 0, 1], "round": 1, "held_out": false}

A match of a tournament names the groups of its two pictures too, as "entrants".

A flag's kind is "defective" or "unsafe", and its order the one candidate. A mask's kind is "mask", its order the one
candidate, and its "rows" are as in picks.py. The `metadata.jsonl` of an exported data set (`export_dataset`) holds the
same and can be imported too: a folder with an image's prompt, group, picks, flags and masks on each line, which Hugging
Face's `load_dataset("imagefolder", data_dir=...)` reads. Beside it `judgements.jsonl` has a line for each judgement, as
above, with the paths of the group's `images` and the number of the `best` one, for `load_dataset("json", ...)`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import D3POError
from ..picks import FLAGS, Pick, check_candidate, check_flag, check_mask, check_pick, pairs
from ..run import Group, Judgement, Run, StoredFlag, StoredMask, StoredPick, files
from ..run.groups import ID
from ..run.matches import ENTRANTS
from ..run.records import JsonObject, Stored, check_shown
from ..textfiles import decode
from .authors_json import import_picks
from .label_studio import import_tasks, is_export

JUDGEMENTS = "judgements.jsonl"
NOTHING_IMPORTED = "Nothing was imported."
MAX_NAME_LENGTH = 80

Remark = StoredPick | StoredFlag | StoredMask
Subject = tuple[object, ...]
"""What something was said about: group and person, for a flag or mask also its kind and candidate. Only the newest
counts."""


def pick_lines(run: Run) -> str:
    """Return all standing picks, flags and masks, a line each, in the order in which they were made."""
    return _to_text([line for line, _ in _full_lines(run)])


def _full_lines(run: Run) -> Iterator[tuple[JsonObject, Group]]:
    """Yield what `pick_lines` returns, each with its group."""
    groups = {group.id: group for group in run.groups.select()}
    stored: list[Remark] = [*run.picks.standing(), *run.flags.standing(), *run.masks.standing()]
    for each in sorted(stored, key=lambda each: each.when):
        yield _to_full_line(each, groups[each.group_id]), groups[each.group_id]


def _to_text(lines: list[JsonObject]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def to_line(stored: Remark) -> JsonObject:
    """Convert a pick, flag or mask to the form of these files, without its group."""
    if isinstance(stored, StoredFlag):
        judgement: JsonObject = {"kind": stored.kind, "order": [stored.candidate], "scores": []}
    elif isinstance(stored, StoredMask):
        judgement = {"kind": "mask", "order": [stored.candidate], "scores": [], "rows": list(stored.mask)}
    else:
        pick = stored.pick
        judgement = {"kind": pick.kind, "order": list(pick.order), "scores": list(pick.scores)}
    return {**judgement, "who": stored.who, "when": stored.when, "shown": list(stored.shown_order)}


def import_file(run: Run, path: str | Path, who: str | None = None) -> str:
    """Record the picks of a file: JSON lines, Label Studio's JSON, or the D3PO authors' (`authors_json.import_picks`).

    Args:
        run: the run with the images that were judged.
        path: `.jsonl` for lines; otherwise a JSON file, or a folder of them.
        who: the annotator of JSON files; lines name theirs.

    Returns:
        What came of it, in words.

    Raises:
        D3POError: the file is missing, damaged, or does not fit the run's groups.
    """
    path = Path(path)
    if path.suffix.lower() == ".jsonl":
        if who:
            raise D3POError("A .jsonl file says itself who picked.", "Leave out the name.", NOTHING_IMPORTED)
        return f"Imported {import_lines(run, path)} picks."
    if path.is_file() and is_export(_json(path)):
        return str(import_tasks(run, path, who or None))
    return f"Imported {import_picks(run, path, who)} picks."


def _json(path: Path) -> object:
    """Return what a JSON file holds; None where that cannot be read, which is said where it is imported."""
    try:
        return json.loads(decode(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def import_lines(run: Run, path: str | Path) -> int:
    """Record the picks, flags and masks of a file of lines, each under the name that it has there.

    What stands then is what each person said last, by the times in the files, whatever order they are imported in, and
    however often. What was taken back here stays so, unless it was said again since. Either all lines fit the run or
    none is recorded.

    Args:
        run: the run with the images that were judged, or a copy of it.
        path: the file.

    Returns:
        How many picks, flags and masks were recorded.

    Raises:
        D3POError: the file is missing or damaged, or does not fit the run's groups.
    """
    path = Path(path)
    read = [(number, _met_here(run, line)) for number, line in _read(path)]
    groups = {group.id: group for group in run.groups.select()}
    lines = [_check(line, number, path, groups) for number, line in read]
    history: list[Remark] = [*run.picks.history(), *run.flags.history(), *run.masks.history()]
    known, taken_back = {_content(each) for each in history}, dict[Subject, float]()
    for each in history:
        taken_back[_subject(each)] = max(taken_back.get(_subject(each), 0.0), each.undone or 0.0)
    count = 0
    for line in sorted(lines, key=lambda line: line.when):
        if _content(line) in known or line.when <= taken_back.get(_subject(line), 0.0):
            continue
        seen: JsonObject = {
            **{"who": line.who, "shown_order": line.shown_order, "reason": line.reason, "when": line.when}
        }
        if isinstance(line, StoredFlag):
            run.flags.add(line.group_id, line.candidate, line.kind, **seen)
        elif isinstance(line, StoredMask):
            run.masks.add(line.group_id, line.candidate, line.mask, **seen)
        else:
            run.picks.add(line.group_id, line.pick, **seen)
        known.add(_content(line))
        count += 1
    return count


def _subject(stored: Remark) -> Subject:
    if isinstance(stored, StoredPick):
        return (stored.group_id, stored.who)
    return (stored.group_id, stored.who, stored.kind if isinstance(stored, StoredFlag) else "mask", stored.candidate)


def _content(stored: Remark) -> tuple[object, ...]:
    """Return what was said, and when, by which the same judgement is known again."""
    if isinstance(stored, StoredFlag):
        return (*_subject(stored), stored.when)
    return (*_subject(stored), stored.when, stored.mask if isinstance(stored, StoredMask) else stored.pick)


def _to_full_line(stored: Remark, group: Group) -> JsonObject:
    return {
        **{"group": group.number, "id": group.id, "prompt": group.prompt, **to_line(stored)},
        **{"round": group.round, "held_out": group.held_out},
        **({ENTRANTS: list(group.entrants)} if group.entrants else {}),
    }


def _read(path: Path) -> Iterator[tuple[int, JsonObject]]:
    """Yield each pick, flag and mask of a file, with the number of its line.

    Raises:
        D3POError: the file cannot be read, or a line is not a pick.
    """
    try:
        lines = decode(path.read_bytes()).split("\n")  # splitlines() would cut in texts too
    except (OSError, UnicodeDecodeError) as error:
        raise D3POError(f"The file of picks {path.name} cannot be read ({error}).", safe=NOTHING_IMPORTED) from error
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            for each in [*line.get("picks", [line]), *line.get("flags", []), *line.get("masks", [])]:
                yield number, {ENTRANTS: line.get(ENTRANTS), **each, "id": line["id"], "kind": each["kind"]}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise D3POError(
                f"Line {number} of {path.name} is not a pick.",
                "Choose a file that D3PO exported: picks.jsonl, or a data set's metadata.jsonl.",
                NOTHING_IMPORTED,
            ) from error


def _met_here(run: Run, line: JsonObject) -> JsonObject:
    """Return a line in the words of this run, where the pictures of a match have perhaps met in another group.

    A match that was made in a copy of the run is made here too.
    """
    pair = line.get(ENTRANTS)
    entrants = {entrant.group_id: entrant for entrant in run.matches.entrants()} if pair else {}
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(e, str) and e in entrants for e in pair):
        return line
    if not ID.fullmatch(str(line["id"])):
        return line
    first, second = (entrants[each] for each in pair)
    coming = 1 + sum(round.finished is not None for round in run.rounds.all())
    run.matches.add(first, second, coming, line["id"])
    match = next(each for each in run.matches.all() if set(each.entrants) == set(pair))
    if list(match.entrants) == pair:
        return {**line, "id": match.group_id}
    turned = {name: [1 - each for each in line[name]] for name in ("order", "shown") if line.get(name)}
    return {**line, "id": match.group_id, **turned}


def _check(line: JsonObject, number: int, path: Path, groups: dict[str, Group]) -> Remark:
    """Return the pick, flag or mask of a line that fits the run; it has no id.

    Raises:
        D3POError: it does not fit.
    """
    try:
        group = groups[line["id"]]
        order, scores, shown = (_numbers(line.get(name, ())) for name in ("order", "scores", "shown"))
        check_shown(order, shown, group.candidates)
        who, when = _name(line.get("who", "")), float(line["when"])
        if not math.isfinite(when):
            raise ValueError("when")
        stored = Stored("", group.id, who, when, shown, reason="imported", undone=None)
        if line["kind"] == "mask":
            (candidate,) = order
            check_candidate("mask", candidate, group.candidates)
            return StoredMask(**vars(stored), candidate=candidate, mask=check_mask(_numbers(line["rows"])))
        if line["kind"] in FLAGS:
            (candidate,) = order
            check_flag(line["kind"], candidate, group.candidates)
            return StoredFlag(**vars(stored), candidate=candidate, kind=line["kind"], on=True)
        pick = check_pick(Pick(line["kind"], order, scores), group.candidates)
        return StoredPick(**vars(stored), pick=pick, decision_ms=None)
    except (KeyError, TypeError, ValueError, D3POError) as error:
        raise D3POError(
            f"Line {number} of {path.name} does not fit this taste's pictures.",
            "Import it into the taste whose pictures were judged, or into a copy of it.",
            NOTHING_IMPORTED,
        ) from error


def _name(value: object) -> str:
    """Return a person's name as the gallery would accept it.

    Raises:
        TypeError: it would not.
    """
    if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH or not value.isprintable():
        raise TypeError("not a name")
    return " ".join(value.split())


def _numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or any(type(each) is not int for each in value):
        raise TypeError("not a list of numbers")
    return tuple(value)


def export_dataset(run: Run, folder: Path) -> int:
    """Write all groups with picks or flags to a folder that is new or empty, and return how many images they have.

    Raises:
        D3POError: an image is missing, or the folder cannot be written to.
    """
    judgements: dict[str, list[Judgement]] = {}
    for judgement in run.picks.judgements():
        judgements.setdefault(judgement.group_id, []).append(judgement)
    lines: list[JsonObject] = []
    masks = run.masks.standing()
    with files.writing(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
    for group in (group for group in run.groups.select() if group.id in judgements):
        for candidate in range(group.candidates):
            name = image_name(group.number, candidate)
            source = run.groups.image_path(group.id, candidate)
            with files.writing(folder):
                shutil.copyfile(source, folder / name)
            meant = [mask for mask in masks if (mask.group_id, mask.candidate) == (group.id, candidate)]
            lines.append({"file_name": name, **_line(group, candidate, judgements[group.id], meant)})
    files.replace(folder / "metadata.jsonl", _to_text(lines).encode())
    files.replace(folder / JUDGEMENTS, _to_text(list(_with_images(run))).encode())
    return len(lines)


def _with_images(run: Run) -> Iterator[JsonObject]:
    """Yield the lines of `pick_lines`, each with its group's images and the number of the one that is liked best."""
    for line, group in _full_lines(run):
        best = line["order"][0] if line["kind"] in ("favourite", "ranking") else None
        images = [image_name(group.number, candidate) for candidate in range(group.candidates)]
        yield {"prompt": group.prompt, "images": images, "best": best, "who": line["who"], **line}


def image_name(group: int, candidate: int) -> str:
    """Return the path of an image in a data set, by its group's number."""
    return f"images/{group:06}-{candidate}.png"


def _line(group: Group, candidate: int, judgements: list[Judgement], masks: list[StoredMask]) -> JsonObject:
    """Return what `metadata.jsonl` holds of a candidate, apart from its file's name."""
    return {
        "text": group.prompt,
        "negative": group.negative,
        "group": group.number,
        "id": group.id,
        "candidate": candidate,
        "seed": str(group.seed),  # beyond 2**63, which datasets would round
        "round": group.round,
        "policy": group.policy,
        "picks": [_pick(each, each.stored, candidate, group) for each in judgements if each.stored],
        "flags": [to_line(flag) for each in judgements for flag in each.flags if flag.candidate == candidate],
        "masks": [to_line(mask) for mask in masks],
    }


def _pick(judgement: Judgement, stored: StoredPick, candidate: int, group: Group) -> JsonObject:
    """Return a pick with the candidates that this one won and lost against, flags counted in."""
    shown = judgement.shown_order or group.distinct
    all_pairs = pairs(judgement.pick, group.candidates, shown, judgement.flagged)
    return {
        **to_line(stored),
        "better_than": [pair.loser for pair in all_pairs if pair.winner == candidate],
        "worse_than": [pair.winner for pair in all_pairs if pair.loser == candidate],
    }
