"""Faults that show only when the pictures themselves are looked at, and when all judgements are seen together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import D3POError
from ..picks import pairs
from .images import Fingerprint, fingerprint
from .judged import FoundImages, JudgedGroup

Statement = tuple[str, ...]


def without_contradictions(found: FoundImages) -> FoundImages:
    """The same without groups whose pictures cannot be read or differ in size, and without those whose winner is also
    a loser: the very same picture, or two that beat each other, or one that is liked and disliked.

    Pictures are the same if their pixels are. People may contradict each other; one person, of one prompt, may not, and
    as nobody can know which judgement was meant, both are left out. A picture that wins here and loses there against
    another is no contradiction.
    """
    kept = FoundImages(left_out=list(found.left_out), notes=list(found.notes))
    looks: dict[Path, Fingerprint] = {}
    for group in found.groups:
        try:
            for path in group.pictures:
                looks[path] = looks.get(path) or fingerprint(path)
            _check_alike(group, [looks[path] for path in group.pictures])
        except D3POError as error:
            kept.leave_out(group.where, error)
        else:
            kept.groups.append(group)
    first: dict[Statement, JudgedGroup] = {}
    for group in kept.groups:
        for statement in _statements(group, looks):
            first.setdefault(statement, group)
    contradicted = {
        id(group): first[opposite]
        for group in kept.groups
        for statement in _statements(group, looks)
        if (opposite := _opposite(statement)) in first
    }
    for group in kept.groups:
        if other := contradicted.get(id(group)):
            what = f"A winner is also a loser: {other.where} says the opposite of the same pictures."
            kept.leave_out(group.where, D3POError(what, "Both are left out: delete the one that is wrong."))
    kept.groups = [group for group in kept.groups if id(group) not in contradicted]
    return kept


def _check_alike(group: JudgedGroup, looks: list[Fingerprint]) -> None:
    """Raises D3POError if the pictures of a group are not all different, and of one size."""
    names = [path.name for path in group.pictures]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{path.name}" for path in group.pictures]
    for i, one in enumerate(looks):
        for j, other in enumerate(looks[:i]):
            if one.pixels == other.pixels:
                raise D3POError(
                    f"A winner is also a loser: {names[j]} and {names[i]} are the same picture.",
                    "Name different pictures.",
                )
        if one.size != looks[0].size:
            sizes = [f"{names[k]} is {looks[k].size[0]} x {looks[k].size[1]}" for k in (0, i)]
            raise D3POError(
                f"Its pictures have different sizes: {sizes[0]} and {sizes[1]} pixels.",
                "Crop or scale them to one size: training compares them under the same noise.",
            )


def _statements(group: JudgedGroup, looks: dict[Path, Fingerprint]) -> Iterator[Statement]:
    """Who said of which prompt that a picture beats another, or that it is liked or disliked."""
    shown = [looks[path].pixels for path in group.pictures]
    for verdict in group.verdicts:
        told = verdict.who, group.prompt
        for pair in pairs(verdict.pick, len(shown), verdict.shown):
            yield *told, shown[pair.winner], shown[pair.loser]
        for picture, score in zip(shown, verdict.pick.scores, strict=False):
            if score:
                yield *told, picture, "liked" if score > 0 else "disliked"


def _opposite(statement: Statement) -> Statement:
    *told, a, b = statement
    turned = {"liked": "disliked", "disliked": "liked"}.get(b)
    return (*told, a, turned) if turned else (*told, b, a)
