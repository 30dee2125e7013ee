"""What every kind of source is read into: groups of images of one prompt, and people's picks in them.

Some faults of groups show only in the pixels of the images, or when all judgements are compared: a winner that is also
a loser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import D3POError
from ..picks import Pick, check_pick, pairs
from ..run.records import check_shown
from .captions import Noticed
from .pixels import Fingerprint, fingerprint

MAX_IMAGES = 8
"""Images of one group, at most: as many as can be drawn and shown as one."""


@dataclass(frozen=True)
class ImportedPick:
    """One person's pick in a group.

    Attributes:
        pick: the judgement. A single image is judged by a score: 1 liked, -1 disliked.
        who: name of the person; empty if the source does not name one.
        shown_order: the images that the person saw, by number; empty for all.
    """

    pick: Pick
    who: str = ""
    shown_order: tuple[int, ...] = ()


@dataclass(frozen=True)
class JudgedGroup:
    """Images of one prompt, and the picks in them.

    Attributes:
        where: the line or the file that it comes from, to be shown to people.
        prompt, negative: an empty negative prompt is none, or not known.
        paths: image files, 1 to `MAX_IMAGES`.
        picks: at least one, or flags of a data set were all that was said; none for what takes part in a tournament.
        size: width and height of a single image that takes part in a tournament; None for all others.

    Raises:
        D3POError: there are too many images, or a pick names images that are not there.
    """

    where: str
    prompt: str
    negative: str
    paths: tuple[Path, ...]
    picks: tuple[ImportedPick, ...]
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        count = len(self.paths)
        if count > MAX_IMAGES:
            raise D3POError(f"It has {count} pictures.", f"A group has at most {MAX_IMAGES}: split it.")
        for imported in self.picks:
            check_pick(imported.pick, count)
            check_shown(imported.pick.order, imported.shown_order, count)


@dataclass(frozen=True)
class LeftOut:
    """A part of a source that cannot be used.

    Attributes:
        where: the line, the file, or the first few of many files.
        reason: sentences that say what is wrong and what to do.
        groups: number of groups that are left out for this reason.
    """

    where: str
    reason: str
    groups: int = 1

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass
class JudgedImages:
    """What was read from a source; true if any group can be used.

    Attributes:
        groups: those that can be used.
        left_out: the others.
        notes: sentences that say how the source was understood.
        noticed: what else was noticed when prompts were read.
    """

    groups: list[JudgedGroup] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    noticed: Noticed = field(default_factory=Noticed)

    def leave_out(self, where: str, error: D3POError) -> None:
        """Record that a group is left out because of an error."""
        self.left_out.append(LeftOut(where, str(error)))

    def __bool__(self) -> bool:
        return bool(self.groups)


def abbreviate(names: Sequence[str], count: int = 3) -> str:
    """Join the first few of many names: "a.png, b.png, c.png and 9 more"."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


Statement = tuple[str, ...]
"""(who, prompt, winner, loser) or (who, prompt, image, "liked" or "disliked"); images by the hash of their pixels."""


def drop_contradictions(judged: JudgedImages) -> JudgedImages:
    """Leave out groups whose images cannot be read or differ in size, and groups of which a winner is also a loser.

    A winner is also a loser if a group has the same image twice, if two images beat each other, or if an image is both
    liked and disliked, according to the same person and for the same prompt. Different people may contradict each
    other, and an image may win against one and lose against another. Images are the same if their pixels are. Both
    judgements are left out, as nobody can know which one was meant.
    """
    kept = JudgedImages(left_out=list(judged.left_out), notes=list(judged.notes), noticed=judged.noticed)
    if judged.noticed.damaged:
        names = abbreviate(list(dict.fromkeys(judged.noticed.damaged)))
        kept.notes.append(f"Captions that could not be read as JSON were passed over: {names}.")
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
