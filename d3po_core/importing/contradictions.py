"""Faults of groups that show only in the pixels of the images, or when all judgements are compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import D3POError
from ..picks import pairs
from .images import Fingerprint, fingerprint
from .judged import JudgedGroup, JudgedImages

Statement = tuple[str, ...]
"""(who, prompt, winner, loser) or (who, prompt, image, "liked" or "disliked"); images by the hash of their pixels."""


def drop_contradictions(judged: JudgedImages) -> JudgedImages:
    """Leave out groups whose images cannot be read or differ in size, and groups of which a winner is also a loser.

    A winner is also a loser if a group has the same image twice, if two images beat each other, or if an image is both
    liked and disliked, according to the same person and for the same prompt. Different people may contradict each
    other, and an image may win against one and lose against another. Images are the same if their pixels are. Both
    judgements are left out, as nobody can know which one was meant.
    """
    kept = JudgedImages(left_out=list(judged.left_out), notes=list(judged.notes))
    prints: dict[Path, Fingerprint] = {}
    for group in judged.groups:
        try:
            for path in group.paths:
                prints[path] = prints.get(path) or fingerprint(path)
            _check_images(group, [prints[path] for path in group.paths])
        except D3POError as error:
            kept.leave_out(group.where, error)
        else:
            kept.groups.append(group)
    first: dict[Statement, JudgedGroup] = {}
    for group in kept.groups:
        for statement in _statements(group, prints):
            first.setdefault(statement, group)
    contradicted = {
        id(group): first[opposite]
        for group in kept.groups
        for statement in _statements(group, prints)
        if (opposite := _opposite(statement)) in first
    }
    for group in kept.groups:
        if other := contradicted.get(id(group)):
            message = f"A winner is also a loser: {other.where} says the opposite of the same pictures."
            kept.leave_out(group.where, D3POError(message, "Both are left out: delete the one that is wrong."))
    kept.groups = [group for group in kept.groups if id(group) not in contradicted]
    return kept


def _check_images(group: JudgedGroup, prints: list[Fingerprint]) -> None:
    """Raise D3POError unless the images of a group all differ, and are of one size."""
    names = [path.name for path in group.paths]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{path.name}" for path in group.paths]
    for i, one in enumerate(prints):
        for j, other in enumerate(prints[:i]):
            if one.pixels == other.pixels:
                raise D3POError(
                    f"A winner is also a loser: {names[j]} and {names[i]} are the same picture.",
                    "Name different pictures.",
                )
        if one.size != prints[0].size:
            sizes = [f"{names[k]} is {prints[k].size[0]} x {prints[k].size[1]}" for k in (0, i)]
            raise D3POError(
                f"Its pictures have different sizes: {sizes[0]} and {sizes[1]} pixels.",
                "Crop or scale them to one size: training compares them under the same noise.",
            )


def _statements(group: JudgedGroup, prints: dict[Path, Fingerprint]) -> Iterator[Statement]:
    """List what a group's picks state: that an image beats another, or that it is liked or disliked."""
    images = [prints[path].pixels for path in group.paths]
    for imported in group.picks:
        source = imported.who, group.prompt
        for pair in pairs(imported.pick, len(images), imported.shown_order):
            yield *source, images[pair.winner], images[pair.loser]
        for image, score in zip(images, imported.pick.scores, strict=False):
            if score:
                yield *source, image, "liked" if score > 0 else "disliked"


def _opposite(statement: Statement) -> Statement:
    *source, a, b = statement
    opposite = {"liked": "disliked", "disliked": "liked"}.get(b)
    return (*source, a, opposite) if opposite else (*source, b, a)
