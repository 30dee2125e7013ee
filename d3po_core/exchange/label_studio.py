"""Picks to and from Label Studio's template *Pairwise Classification*: of two pictures the better one.

Every pair of a group's candidates is a task. Its pictures are in the file itself, as JPEG in data URIs, so that Label
Studio shows them without storage, environment variables or another server. A folder holds `config.xml`, to be pasted as
the labelling interface, and `tasks-001.json` and so on, each small enough to be imported (50 MB).

    {"data": {"prompt": "a lake", "image1": "data:...", "image2": "data:...", "group": "000012-1a2b3c4d",
              "candidate1": 0, "candidate2": 2},
     "annotations": [{"result": [{"id": ..., "type": "pairwise", "from_name": "pw", "to_name": "pw",
                                  "value": {"selected": "left"}, "meta": {"who": "Anna"}}], "created_at": ...}]}

Label Studio refuses annotations of people who are no members of its project, so a name that is no e-mail address is in
`meta` alone, which it keeps. What its users choose comes back in its export (JSON, not JSON-MIN) under `completed_by`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import D3POError
from ..importing.levels import pick_of_pairs
from ..picks import Pick, check_pick, pairs
from ..run import Group, Judgement, Run, files
from ..textfiles import decode

CONFIG = """<View>
  <Header value="$prompt"/>
  <Pairwise name="pw" toName="image1,image2"/>
  <View style="display: grid; grid-template-columns: 1fr 1fr; column-gap: 8px">
    <Image name="image1" value="$image1"/>
    <Image name="image2" value="$image2"/>
  </View>
</View>
"""
MOST_BYTES = 40 * 10**6
"""Of a file of tasks; Label Studio takes 50 MB."""
QUALITY = 92
"""Of the JPEG copies."""
SIDES = ("left", "right")
SAFE = "Nothing was imported."

Row = dict[str, Any]  # a JSON object; what is in it is checked where it is used


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        tasks, annotations: numbers of them.
        unsaid: how many judgements of each kind say nothing there, because no picture is better, or lose what they say
            beside that: ties, skipped groups, masks and so on.
    """

    tasks: int
    annotations: int
    unsaid: Mapping[str, int]

    def __str__(self) -> str:
        text = f"{self.tasks} tasks with {self.annotations} annotations"
        lost = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in self.unsaid.items() if count)
        return f"{text}. Label Studio's pairs cannot say: {lost}; picks.jsonl beside them does" if lost else text


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes:
        picks: how many were recorded.
        left_out: sentences on what was not.
    """

    picks: int
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join([f"Imported {self.picks} picks.", *self.left_out])


def export_tasks(run: Run, folder: Path, lines: str) -> Exported:
    """Write all pairs of a run's groups as tasks, and who prefers which of them as annotations.

    Args:
        run: with groups.
        folder: new or empty.
        lines: what `lines.pick_lines` returns, which is put beside them.

    Raises:
        D3POError: an image is missing, or the folder cannot be written to.
    """
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    said: dict[str, list[Judgement]] = {}
    for judgement in run.picks.judgements():
        said.setdefault(judgement.group_id, []).append(judgement)
    tasks, annotations, parts, size = 0, 0, list[str](), 0
    written = itertools.count(1)
    for group in (group for group in run.groups.select() if len(group.distinct) > 1):
        for task in _tasks(run, group, said.get(group.id, [])):
            tasks, annotations = tasks + 1, annotations + len(task.get("annotations", ()))
            text = json.dumps(task, ensure_ascii=False)
            if parts and size + len(text.encode()) > MOST_BYTES:
                _write(folder, next(written), parts)
                parts, size = [], 0
            parts.append(text)
            size += len(text.encode()) + 2
    _write(folder, next(written), parts)
    files.replace(folder / "config.xml", CONFIG.encode())
    files.replace(folder / "picks.jsonl", lines.encode())
    return Exported(tasks, annotations, _unsaid(run))


def _write(folder: Path, number: int, parts: list[str]) -> None:
    files.replace(folder / f"tasks-{number:03}.json", f"[{', '.join(parts)}]\n".encode())


def _unsaid(run: Run) -> dict[str, int]:
    """Return how many judgements of each kind a choice between two pictures cannot hold."""
    unsaid = {"tie": 0, "all_bad": 0, "skipped": 0, "scores": 0}
    for stored in run.picks.standing():
        if stored.pick.kind in unsaid:
            unsaid[stored.pick.kind] += 1
    return {**unsaid, "flags": len(run.flags.standing()), "masks": len(run.masks.standing())}


def _tasks(run: Run, group: Group, said: list[Judgement]) -> Iterator[Row]:
    """Yield a task for every pair of a group's candidates that differ."""
    pictures = {each: _data_uri(run.groups.image_path(group.id, each)) for each in group.distinct}
    wins = {one: _wins(one, group) for one in said}
    for first, second in itertools.combinations(group.distinct, 2):
        data: Row = {"prompt": group.prompt, "image1": pictures[first], "image2": pictures[second]}
        data |= {"group": group.id, "candidate1": first, "candidate2": second}
        annotations = [
            _annotation(one, SIDES[(second, first) in wins[one]], f"{group.id} {first} {second}")
            for one in said
            if {(first, second), (second, first)} & wins[one]
        ]
        yield {"data": data, **({"annotations": annotations} if annotations else {})}


def _wins(one: Judgement, group: Group) -> set[tuple[int, int]]:
    """Return which candidates a judgement prefers to which."""
    of_pair = pairs(one.pick, group.candidates, one.shown_order or group.distinct, one.flagged)
    return {(pair.winner, pair.loser) for pair in of_pair}


def _annotation(one: Judgement, side: str, task: str) -> Row:
    when = one.stored.when if one.stored else one.flags[-1].when
    result = {
        "id": hashlib.sha256(f"{one.who} {task}".encode()).hexdigest()[:10],
        **{"type": "pairwise", "from_name": "pw", "to_name": "pw"},
        **{"value": {"selected": side}, "meta": {"who": one.who, "side": side, "when": when}},
    }
    known = {"completed_by": {"email": one.who}} if "@" in one.who else {}
    return {"result": [result], "created_at": datetime.fromtimestamp(when, timezone.utc).isoformat(), **known}


def _data_uri(path: Path) -> str:
    with Image.open(path) as image, io.BytesIO() as copy:
        image.convert("RGB").save(copy, "JPEG", quality=QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(copy.getvalue()).decode()}"


@dataclass
class _Choices:
    """One person's choices in one group: each pair's, with when it was made; later ones replace earlier ones."""

    when: dict[tuple[int, int], float] = field(default_factory=dict)
    better: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def add(self, winner: int, loser: int, when: float) -> None:
        pair = min(winner, loser), max(winner, loser)
        if when >= self.when.get(pair, when):
            self.when[pair], self.better[pair] = when, (winner, loser)


def is_export(rows: object) -> bool:
    """Return whether what a JSON file holds is Label Studio's."""
    return isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) and "data" in row for row in rows)


def import_tasks(run: Run, path: Path, who: str | None = None) -> Imported:
    """Record what Label Studio's users chose, a pick for each person and group.

    A pick that says what the same person's standing one says is not recorded again, nor is one that is older than it or
    was taken back here since.

    Args:
        run: the run that the tasks were made from, or a copy of it.
        path: Label Studio's export, JSON.
        who: name of the person, if only one chose there; None for the names in the file.

    Raises:
        D3POError: the file is damaged or of another run, or several people chose in it although one is named.
    """
    groups = {group.id: group for group in run.groups.select()}
    people: dict[tuple[str, str], _Choices] = {}
    for number, task in enumerate(_read(path), 1):
        try:
            for name, winner, loser, when in _choices(task, groups):
                people.setdefault((name, task["data"]["group"]), _Choices()).add(winner, loser, when)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, D3POError) as error:
            raise D3POError(
                f"Task {number} of {path.name} does not fit this taste's pictures.",
                "Import what Label Studio exports as JSON (not JSON-MIN) of tasks that this taste was exported to.",
                SAFE,
            ) from error
    names = {name for name, _ in people}
    if who is not None and len(names) > 1:
        raise D3POError(f"{len(names)} people chose in {path.name}.", "Leave out the name.", SAFE)
    return _record(run, groups, {(name if who is None else who, of): chosen for (name, of), chosen in people.items()})


def _record(run: Run, groups: Mapping[str, Group], people: Mapping[tuple[str, str], _Choices]) -> Imported:
    standing = {(one.who, one.group_id): one for one in run.picks.judgements()}
    taken_back: dict[tuple[str, str], float] = {}
    for each in run.picks.history():
        taken_back[each.who, each.group_id] = max(taken_back.get((each.who, each.group_id), 0.0), each.undone or 0.0)
    unclear, count = list[str](), 0
    for (name, group_id), chosen in sorted(people.items(), key=lambda each: max(each[1].when.values())):
        group, wins, when = groups[group_id], set(chosen.better.values()), max(chosen.when.values())
        now = standing.get((name, group_id))
        if when <= taken_back.get((name, group_id), 0.0):
            continue
        if now and (_wins(now, group) == wins or (now.stored and now.stored.when >= when)):
            continue
        found = pick_of_pairs(wins)
        if found is None:
            unclear.append(f"{name or 'no name'} in group {group.number}")
            continue
        pick, seen = found
        if pick.kind == "scores":
            pick = Pick("scores", scores=(*pick.scores, *[0] * (group.candidates - len(pick.scores))))
        run.picks.add(
            group_id, check_pick(pick, group.candidates), who=name, shown_order=seen, reason="imported", when=when
        )
        count += 1
    return Imported(count, tuple(_left_out(unclear)))


def _left_out(unclear: list[str]) -> Iterable[str]:
    if unclear:
        more = f" and {len(unclear) - 3} more" if len(unclear) > 3 else ""
        yield f"Left out, as the choices go round in a circle or leave pairs open: {', '.join(unclear[:3])}{more}."


def _read(path: Path) -> list[Row]:
    try:
        rows = json.loads(decode(path.read_bytes()))
    except OSError as error:
        raise D3POError(f"The file {path} cannot be read ({error.strerror}).", safe=SAFE) from error
    except (ValueError, RecursionError) as error:
        raise D3POError(f"The file {path} is not JSON ({error}).", safe=SAFE) from error
    if not is_export(rows):
        raise D3POError(f"{path.name} is not an export of Label Studio.", "Choose JSON there, not JSON-MIN.", SAFE)
    return list(rows)


def _choices(task: Row, groups: Mapping[str, Group]) -> Iterator[tuple[str, int, int, float]]:
    """Yield each choice of a task: who made it, the better candidate, the other one, and when.

    Raises:
        KeyError, TypeError, ValueError, D3POError: it does not fit.
    """
    data = task["data"]
    group, both = groups[data["group"]], (data["candidate1"], data["candidate2"])
    if any(type(each) is not int or not 0 <= each < group.candidates for each in both) or both[0] == both[1]:
        raise ValueError("candidates")
    for annotation in task.get("annotations") or ():
        if annotation.get("was_cancelled"):
            continue
        for result in annotation["result"]:
            if result["type"] == "pairwise":
                left = SIDES.index(result["value"]["selected"])
                who, when = _maker(annotation, result)
                yield who, both[left], both[1 - left], when


def _maker(annotation: Row, result: Row) -> tuple[str, float]:
    """Return who chose, and when: who picked here, as long as the choice is what was exported; else who changed it.

    Raises:
        TypeError, ValueError: there is no such name or time.
    """
    exported = result.get("meta") or {}
    if exported.get("side") == result["value"]["selected"]:
        return _name(exported["who"]), _time(float(exported["when"]))
    written = annotation.get("updated_at") or annotation.get("created_at")
    when = datetime.fromisoformat(str(written).replace("Z", "+00:00")).timestamp()
    member = annotation.get("updated_by") or annotation.get("completed_by")
    if isinstance(member, Mapping):
        member = member.get("email") or f"{member.get('first_name', '')} {member.get('last_name', '')}"
    return _name(f"Label Studio {member}" if isinstance(member, int) else member or ""), _time(when)


def _name(name: object) -> str:
    """Return a name as the gallery would take it; raises ValueError if it is none."""
    if not isinstance(name, str) or len(name) > 80 or not name.isprintable():
        raise ValueError("not a name")
    return " ".join(name.split())


def _time(when: float) -> float:
    """Return a time in seconds since 1970; raises ValueError if it is none."""
    if not math.isfinite(when):
        raise ValueError("not a time")
    return when
