"""The one plain structure that every source gives: pictures of one prompt, and what was said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import D3POError
from ..picks import Pick, check_pick
from ..run.recording import check_shown

MAX_PICTURES = 8
"""Of one group: as many as can be drawn and shown as one."""


@dataclass(frozen=True)
class ImportedPick:
    """What one person said of a group.

    Attributes:
        pick: one picture alone is judged by a score: 1 liked, -1 disliked.
        who: empty where the source does not say.
        shown: the pictures that the person saw; empty for all.
    """

    pick: Pick
    who: str = ""
    shown: tuple[int, ...] = ()


@dataclass(frozen=True)
class JudgedGroup:
    """Pictures of one prompt.

    Attributes:
        where: for people: the line or file that it comes from.
        prompt, negative: an empty negative is none, or not known.
        pictures: files, 1 to 8.
        verdicts: at least one.
    """

    where: str
    prompt: str
    negative: str
    pictures: tuple[Path, ...]
    verdicts: tuple[ImportedPick, ...]


@dataclass(frozen=True)
class LeftOut:
    """Something that cannot be used, and why, in sentences that say what to do.

    Attributes:
        where: the line, the file, or a few of many files.
        groups: how many are left out with it.
    """

    where: str
    why: str
    groups: int = 1

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


@dataclass
class FoundImages:
    """What a source holds.

    Attributes:
        groups: those that can be used.
        left_out: the others.
        notes: sentences about how something was understood.
    """

    groups: list[JudgedGroup] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, where: str, error: D3POError) -> None:
        self.left_out.append(LeftOut(where, str(error)))

    def __bool__(self) -> bool:
        return bool(self.groups)


def checked_group(
    where: str, prompt: str, negative: str, pictures: Sequence[Path], verdicts: Sequence[ImportedPick]
) -> JudgedGroup:
    """A group, once it is sure that its verdicts fit its pictures.

    Raises:
        D3POError: too many pictures, or a verdict that names pictures which are not there.
    """
    if len(pictures) > MAX_PICTURES:
        raise D3POError(f"It has {len(pictures)} pictures.", f"A group has at most {MAX_PICTURES}: split it.")
    for verdict in verdicts:
        check_pick(verdict.pick, len(pictures))
        check_shown(verdict.pick.order, verdict.shown, len(pictures))
    return JudgedGroup(where, prompt, negative, tuple(pictures), tuple(verdicts))


def abbreviate(names: Sequence[str], most: int = 3) -> str:
    """A few of many names: "a.png, b.png, c.png and 9 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
