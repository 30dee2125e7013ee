"""Picks as JSON lines, with everything that was said: to read elsewhere, and to bring back to the same pictures.

A line is a standing pick or flag, groups and candidates by their numbers:

    {"group": 12, "id": "000012-1a2b3c4d", "prompt": "a lake", "kind": "favourite", "order": [2], "scores": [],
     "who": "Anna", "when": 1770000000.5, "shown": [3, 2, 0, 1], "round": 1, "held_out": false}

A flag's kind is "defective" or "unsafe", and its order the one candidate. The `metadata.jsonl` of an exported data set
(dataset.py) holds the same picks and flags and can be brought back too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import D3POError
from ..picks import FLAGS, Pick, check_flag, check_pick
from ..run import Group, Run, StoredFlag, StoredPick
from ..run.recording import check_shown
from .authors_json import import_picks

NOTHING_IMPORTED = "Nothing was imported."
LONGEST_NAME = 80


@dataclass(frozen=True)
class _Said:
    """A line that fits the run; for a flag, `pick` holds its kind and candidate as the line does."""

    when: float
    group_id: str
    who: str
    pick: Pick
    shown: tuple[int, ...]

    @property
    def about(self) -> tuple[object, ...]:
        """What it is about: only one thing is said of that at a time."""
        flag = (self.pick.kind, self.pick.order[0]) if self.pick.kind in FLAGS else ()
        return (self.group_id, self.who, *flag)


def pick_lines(run: Run) -> str:
    """All standing picks and flags, a line each, in the order in which they were made."""
    groups = {group.id: group for group in run.groups.select()}
    stored: list[StoredPick | StoredFlag] = [*run.picks.standing(), *run.flags.standing()]
    lines = [_line(each, groups[each.group_id]) for each in sorted(stored, key=lambda each: each.when)]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def to_line(stored: StoredPick | StoredFlag) -> dict[str, Any]:
    """A pick or flag as these files have it, without its group."""
    if isinstance(stored, StoredFlag):
        what: dict[str, Any] = {"kind": stored.kind, "order": [stored.candidate], "scores": []}
    else:
        pick = stored.pick
        what = {"kind": pick.kind, "order": list(pick.order), "scores": list(pick.scores)}
    return {**what, "who": stored.who, "when": stored.when, "shown": list(stored.shown_order)}


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
        raise D3POError("A .jsonl file says itself who picked.", "Leave out the name.", NOTHING_IMPORTED)
    return import_lines(run, path)


def import_lines(run: Run, path: str | Path) -> int:
    """Record the picks and flags of a file of lines, each under the name that it has there.

    What the same person has said since, or taken back, wins; so a file that is brought twice, or an old one, changes
    nothing. Either all lines fit the run or none is recorded.

    Args:
        run: the one whose pictures were judged, or a copy of it.
        path: the file.

    Returns:
        How many picks and flags were recorded.

    Raises:
        D3POError: the file is missing or damaged, or does not fit the run's groups.
    """
    path = Path(path)
    groups = {group.id: group for group in run.groups.select()}
    found = [_fitting(asked, number, path, groups) for number, asked in _asked(path)]
    last = _last_said(run)
    count = 0
    for each in sorted(found, key=lambda each: each.when):
        if each.when <= last.get(each.about, 0.0):
            continue
        if each.pick.kind in FLAGS:
            _import_flag(run, each)
        else:
            run.picks.add(each.group_id, each.pick, who=each.who, shown_order=each.shown, reason="imported")
            if each.pick.kind in ("favourite", "ranking"):
                _no_flags_before(last, each.group_id, each.who, each.pick, each.when)
        last[each.about] = each.when
        count += 1
    return count


def _import_flag(run: Run, each: _Said) -> None:
    kind, (candidate,) = each.pick.kind, each.pick.order
    run.flags.add(each.group_id, candidate, kind, who=each.who, shown_order=each.shown, reason="imported")  # type: ignore[arg-type]  # one of FLAGS


def _last_said(run: Run) -> dict[tuple[object, ...], float]:
    """When each thing was last spoken of in the run, by `_Said.about`."""
    last: dict[tuple[object, ...], float] = {}
    history: list[StoredPick | StoredFlag] = [*run.picks.history(), *run.flags.history()]
    for stored in history:
        flag = (stored.kind, stored.candidate) if isinstance(stored, StoredFlag) else ()
        about = (stored.group_id, stored.who, *flag)
        last[about] = max(last.get(about, 0.0), stored.when, stored.undone or 0.0)
    for each in run.picks.standing():
        if each.pick.kind in ("favourite", "ranking"):
            _no_flags_before(last, each.group_id, each.who, each.pick, each.when)
    return last


def _no_flags_before(last: dict[tuple[object, ...], float], group_id: str, who: str, pick: Pick, when: float) -> None:
    """Who preferred a picture has spoken of its flags: older ones, brought later, must not count as newer."""
    for kind in FLAGS:
        about = (group_id, who, kind, pick.order[0])
        last[about] = max(last.get(about, 0.0), when)


def _line(stored: StoredPick | StoredFlag, group: Group) -> dict[str, Any]:
    return {
        **{"group": group.number, "id": group.id, "prompt": group.prompt, **to_line(stored)},
        **{"round": group.round, "held_out": group.held_out},
    }


def _asked(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """What the file says, and in which line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() would cut in texts too
    except (OSError, UnicodeDecodeError) as error:
        raise D3POError(f"The file of picks {path.name} cannot be read ({error}).", safe=NOTHING_IMPORTED) from error
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            for each in [*line.get("picks", [line]), *line.get("flags", [])]:
                yield number, {**each, "id": line["id"], "kind": each["kind"]}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise D3POError(
                f"Line {number} of {path.name} is not a pick.",
                "Choose a file that D3PO exported: picks.jsonl, or a data set's metadata.jsonl.",
                NOTHING_IMPORTED,
            ) from error


def _fitting(asked: dict[str, Any], number: int, path: Path, groups: dict[str, Group]) -> _Said:
    """What a line says, once it is sure that it fits the run."""
    try:
        group = groups[asked["id"]]
        order, scores, shown = (_numbers(asked.get(name, ())) for name in ("order", "scores", "shown"))
        pick = Pick(asked["kind"], order, scores)
        if pick.kind in FLAGS:
            (candidate,) = order
            check_flag(pick.kind, candidate, group.candidates)
        else:
            check_pick(pick, group.candidates)
        check_shown(order, shown, group.candidates)
        return _Said(float(asked["when"]), group.id, _name(asked.get("who", "")), pick, shown)
    except (KeyError, TypeError, ValueError, D3POError) as error:
        raise D3POError(
            f"Line {number} of {path.name} does not fit this taste's pictures.",
            "Import it into the taste whose pictures were judged, or into a copy of it.",
            NOTHING_IMPORTED,
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
