"""A folder with `winners` and `losers` in it.

Two images of the same name (without the suffix) and the same prompt are a pair. Every other image is liked or disliked
by itself, so two images that happen to have the same name are not compared. A pair is stored as scores too: its winner
is liked, its loser disliked.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import D3POError
from ..names import composed
from ..picks import Pick
from .captions import read_prompts
from .judged import ImportedPick, JudgedGroup, JudgedImages, LeftOut, abbreviate
from .pixels import SUFFIXES

WINNERS, LOSERS = "winners", "losers"
COMPANIONS = (".txt", ".caption", ".json", ".npz", ".db", ".ini")
"""Suffixes of files that are usual beside images, and are ignored without a report."""
NO_PROMPT = "Write each one's prompt into a .txt of the same name beside it."

Prompts = dict[Path, tuple[str, str]]
"""The prompt and the negative prompt of each image file."""


def read_folders(folder: Path) -> JudgedImages:
    """Read the images in `winners` and `losers`; either folder may be missing.

    Raises:
        D3POError: there is no image.
    """
    judged = JudgedImages()
    winners, losers = (_prompts(folder / side, judged) for side in (WINNERS, LOSERS))
    if not (winners or losers or judged.left_out):
        raise D3POError(
            f"There is no picture in {folder}, neither in {WINNERS} nor in {LOSERS}.",
            f"Put files that end in {', '.join(SUFFIXES)} there.",
        )
    prompts = {**winners, **losers}
    same_name = {composed(path.stem): path for path in losers}
    named_alike = [(path, same_name[stem]) for path in winners if (stem := composed(path.stem)) in same_name]
    pairs = [pair for pair in named_alike if _one_prompt(*(prompts[path] for path in pair))]
    if len(pairs) < len(named_alike):
        names = [winner.stem for winner, loser in named_alike if (winner, loser) not in pairs]
        judged.notes.append(
            f"{abbreviate(names)} in {WINNERS} and {LOSERS} have different prompts, so they count as liked and "
            "disliked each alone."
        )
    paired = {path for pair in pairs for path in pair}
    alone = [path for path in prompts if path not in paired]
    groups = [_group((winner, loser), (1, -1), prompts) for winner, loser in pairs]
    groups += [_group((path,), (1,) if path in winners else (-1,), prompts) for path in alone]
    judged.groups = [group for group in groups if group.prompt]
    judged.left_out += _report_missing_prompts([group for group in groups if not group.prompt])
    return judged


def _report_missing_prompts(groups: list[JudgedGroup]) -> list[LeftOut]:
    """Report all groups without a prompt in one sentence, as there may be thousands."""
    if not groups:
        return []
    names = [path.name for group in groups for path in group.paths]
    pictures = "1 picture has" if len(names) == 1 else f"{len(names)} pictures have"
    return [LeftOut(abbreviate(names), str(D3POError(f"{pictures} no prompt.", NO_PROMPT)), len(groups))]


def _prompts(folder: Path, judged: JudgedImages) -> Prompts:
    """Read the prompts of a folder's images, empty if there are none; files that cannot be read are left out."""
    prompts: Prompts = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or path.suffix.lower() in COMPANIONS:
            continue
        try:
            if path.suffix.lower() not in SUFFIXES:
                raise D3POError("It is not a picture.", f"Only {', '.join(SUFFIXES)} are read.")
            prompts[path] = read_prompts(path, judged.noticed)
        except D3POError as error:
            judged.leave_out(f"{folder.name}/{path.name}", error)
    return prompts


def _one_prompt(winner: tuple[str, str], loser: tuple[str, str]) -> bool:
    """Return whether two images have the same prompt; one without a prompt takes the other's."""
    return winner[0] == loser[0] or not (winner[0] and loser[0])


def _group(paths: tuple[Path, ...], scores: tuple[int, ...], prompts: Prompts) -> JudgedGroup:
    prompt, negative = next((prompts[path] for path in paths if prompts[path][0]), ("", ""))
    where = f"{paths[0].parent.name}/{paths[0].name}"
    return JudgedGroup(where, prompt, negative, paths, (ImportedPick(Pick("scores", scores=scores)),))
