"""A folder with `winners` and `losers` in it.

Pictures of the same name (less the ending) and the same prompt are a pair. The others are liked or disliked each alone,
so nothing is made of two pictures that happen to have one name. A pair is scores too: its winner is liked, its loser
disliked.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import D3POError
from ..picks import Pick
from .captions import read_caption
from .images import SUFFIXES
from .judged import FoundImages, ImportedPick, JudgedGroup, LeftOut, abbreviate

WINNERS, LOSERS = "winners", "losers"
BESIDE = (".txt", ".caption", ".json", ".npz", ".db", ".ini")
"""Endings of what lies beside pictures and is not meant as one."""
NO_PROMPT = "Write each one's prompt into a .txt of the same name beside it."

Prompts = dict[Path, tuple[str, str]]


def read_folders(folder: Path) -> FoundImages:
    """What lies in `winners` and `losers`; either may be missing.

    Raises:
        D3POError: there is no picture.
    """
    found = FoundImages()
    winners, losers = (_prompts(folder / side, found) for side in (WINNERS, LOSERS))
    if not (winners or losers or found.left_out):
        raise D3POError(
            f"There is no picture in {folder}, neither in {WINNERS} nor in {LOSERS}.",
            f"Put files that end in {', '.join(SUFFIXES)} there.",
        )
    prompts = {**winners, **losers}
    same_name = {path.stem: path for path in losers}
    named_alike = [(path, same_name[path.stem]) for path in winners if path.stem in same_name]
    pairs = [pair for pair in named_alike if _one_prompt(*(prompts[path] for path in pair))]
    if len(pairs) < len(named_alike):
        names = [winner.stem for winner, loser in named_alike if (winner, loser) not in pairs]
        found.notes.append(
            f"{abbreviate(names)} in {WINNERS} and {LOSERS} have different prompts, so they count as liked and "
            "disliked each alone."
        )
    paired = {path for pair in pairs for path in pair}
    alone = [path for path in prompts if path not in paired]
    groups = [_group((winner, loser), (1, -1), prompts) for winner, loser in pairs]
    groups += [_group((path,), (1,) if path in winners else (-1,), prompts) for path in alone]
    found.groups = [group for group in groups if group.prompt]
    found.left_out += without_prompt([group for group in groups if not group.prompt])
    return found


def without_prompt(groups: list[JudgedGroup]) -> list[LeftOut]:
    """Groups without a prompt, told at once: there may be thousands."""
    if not groups:
        return []
    names = [path.name for group in groups for path in group.pictures]
    pictures = "1 picture has" if len(names) == 1 else f"{len(names)} pictures have"
    return [LeftOut(abbreviate(names), str(D3POError(f"{pictures} no prompt.", NO_PROMPT)), len(groups))]


def _prompts(folder: Path, found: FoundImages) -> Prompts:
    """The prompts of a folder's pictures, by name, empty where there is none; what cannot be read is left out."""
    prompts: Prompts = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or path.suffix.lower() in BESIDE:
            continue
        try:
            if path.suffix.lower() not in SUFFIXES:
                raise D3POError("It is not a picture.", f"Only {', '.join(SUFFIXES)} are read.")
            prompts[path] = read_caption(path)
        except D3POError as error:
            found.leave_out(f"{folder.name}/{path.name}", error)
    return prompts


def _one_prompt(winner: tuple[str, str], loser: tuple[str, str]) -> bool:
    """Whether two pictures were drawn for the same; a picture without a prompt takes the other's."""
    return winner[0] == loser[0] or not (winner[0] and loser[0])


def _group(pictures: tuple[Path, ...], scores: tuple[int, ...], prompts: Prompts) -> JudgedGroup:
    prompt, negative = next((prompts[path] for path in pictures if prompts[path][0]), ("", ""))
    where = f"{pictures[0].parent.name}/{pictures[0].name}"
    return JudgedGroup(where, prompt, negative, pictures, (ImportedPick(Pick("scores", scores=scores)),))
