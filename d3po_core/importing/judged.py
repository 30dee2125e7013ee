"""What every kind of source is read into: groups of images of one prompt, and people's picks in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import D3POError
from ..picks import Pick, check_pick
from ..run.recording import check_shown

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
        picks: at least one.

    Raises:
        D3POError: there are too many images, or a pick names images that are not there.
    """

    where: str
    prompt: str
    negative: str
    paths: tuple[Path, ...]
    picks: tuple[ImportedPick, ...]

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
    """

    groups: list[JudgedGroup] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, where: str, error: D3POError) -> None:
        """Record that a group is left out because of an error."""
        self.left_out.append(LeftOut(where, str(error)))

    def __bool__(self) -> bool:
        return bool(self.groups)


def abbreviate(names: Sequence[str], count: int = 3) -> str:
    """Join the first few of many names: "a.png, b.png, c.png and 9 more"."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
