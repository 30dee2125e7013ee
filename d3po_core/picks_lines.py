"""Picks as JSON lines, with everything that was said: to read elsewhere, and to bring back to the same pictures.

A line is a standing pick, groups and candidates by their numbers:

    {"group": 12, "id": "000012-1a2b3c4d", "prompt": "a lake", "kind": "favourite", "order": [2], "scores": [],
     "who": "Anna", "when": 1770000000.5, "shown": [3, 2, 0, 1], "round": 1, "held_out": false}

The `metadata.jsonl` of an exported data set (dataset.py) holds the same picks and can be brought back too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import D3POError
from .picks import Pick, check_pick
from .picks_json import import_picks
from .run import Group, Run, StoredPick
from .run.judgements import check_shown

NOTHING = "Nothing was imported."
LONGEST_NAME = 80


def pick_lines(run: Run) -> str:
    """All standing picks, a line each, in the order in which they were made."""
    groups = {group.id: group for group in run.groups()}
    lines = [_line(stored, groups[stored.group_id]) for stored in run.picks()]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def said(stored: StoredPick) -> dict[str, Any]:
    """A pick as these files have it, without its group."""
    pick = stored.pick
    shown = {"who": stored.who, "when": stored.when, "shown": list(stored.shown_order)}
    return {"kind": pick.kind, "order": list(pick.order), "scores": list(pick.scores), **shown}


def import_file(run: Run, path: str | Path, who: str | None = None) -> int:
    """Record the picks of a file: lines of ours, or the D3PO authors' JSON (see `picks_json.import_picks`).

    Args:
        run: whose pictures were judged.
        path: `.jsonl` for lines; else a JSON file, or a folder of them.
        who: the annotator of JSON files; lines say so themselves.

    Returns:
        How many picks were recorded.

    Raises:
        D3POError: the file is missing, damaged, or does not fit the run's groups.
    """
    if Path(path).suffix.lower() != ".jsonl":
        return import_picks(run, path, who)
    if who:
        raise D3POError("A .jsonl file says itself who picked.", "Leave out the name.", NOTHING)
    return import_lines(run, path)


def import_lines(run: Run, path: str | Path) -> int:
    """Record the picks of a file of lines, each under the name that it has there.

    What the same person has said of a group since, or taken back, wins; so a file that is brought twice, or an old one,
    changes nothing. Either all lines fit the run or none is recorded.

    Args:
        run: the one whose pictures were judged, or a copy of it.
        path: the file.

    Returns:
        How many picks were recorded.

    Raises:
        D3POError: the file is missing or damaged, or does not fit the run's groups.
    """
    path = Path(path)
    groups = {group.id: group for group in run.groups()}
    found = [_fitting(asked, number, path, groups) for number, asked in _asked(path)]
    last: dict[tuple[str, str], float] = {}
    for stored in run.pick_history():
        key = stored.group_id, stored.who
        last[key] = max(last.get(key, 0.0), stored.when, stored.undone or 0.0)
    count = 0
    for when, group_id, who, pick, shown in sorted(found, key=lambda each: each[0]):
        if when > last.get((group_id, who), 0.0):
            run.add_pick(group_id, pick, who=who, shown_order=shown, reason="imported")
            last[group_id, who] = when
            count += 1
    return count


def _line(stored: StoredPick, group: Group) -> dict[str, Any]:
    return {
        **{"group": group.number, "id": group.id, "prompt": group.prompt, **said(stored)},
        **{"round": group.round, "held_out": group.held_out},
    }


def _asked(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """What the file says, and in which line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() would cut in texts too
    except (OSError, UnicodeDecodeError) as error:
        raise D3POError(f"The file of picks {path.name} cannot be read ({error}).", safe=NOTHING) from error
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            for each in line.get("picks", [line]):
                yield number, {**each, "id": line["id"], "kind": each["kind"]}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise D3POError(
                f"Line {number} of {path.name} is not a pick.",
                "Choose a file that D3PO exported: picks.jsonl, or a data set's metadata.jsonl.",
                NOTHING,
            ) from error


def _fitting(
    asked: dict[str, Any], number: int, path: Path, groups: dict[str, Group]
) -> tuple[float, str, str, Pick, tuple[int, ...]]:
    """A line's pick, once it is sure that it fits the run: when, group id, who, what, and the order shown."""
    try:
        group = groups[asked["id"]]
        order, scores, shown = (_numbers(asked.get(name, ())) for name in ("order", "scores", "shown"))
        pick = check_pick(Pick(asked["kind"], order, scores), group.candidates)
        check_shown(pick, shown, group.candidates)
        return float(asked["when"]), group.id, _name(asked.get("who", "")), pick, shown
    except (KeyError, TypeError, ValueError, D3POError) as error:
        raise D3POError(
            f"Line {number} of {path.name} does not fit this taste's pictures.",
            "Import it into the taste whose pictures were judged, or into a copy of it.",
            NOTHING,
        ) from error


def _name(given: Any) -> str:
    """A person's name as the gallery would have taken it."""
    if not isinstance(given, str) or len(given) > LONGEST_NAME or not given.isprintable():
        raise TypeError("not a name")
    return " ".join(given.split())


def _numbers(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list | tuple) or any(type(each) is not int for each in given):
        raise TypeError("not a list of numbers")
    return tuple(given)
