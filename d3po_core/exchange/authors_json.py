"""Picks from and to the human-feedback JSON of the D3PO authors' repository (yk7333/d3po).

A file there is one annotator's: a list with one row per prompt, in the order of sampling, and in each row one number
per image: 1 liked, -1 disliked, 0 neither (`[[0, 0, 1, 0, 0, 1, 1], [1, 0, 0, 1, 0, 0, 0]]`, its issue 17), or levels
of any scale, of which only the order counts (importing/levels.py). Its sampler draws 7 images per prompt and calls
column k of row j `images/{7 * j + k:05}.png`; its trainer prefers the image with the larger number in each of the 21
pairs. Here row j is the run's j-th group by number, and column k its candidate k.

It reads a folder of such files and averages the annotators, after cutting all files to the shortest. Here each
annotator's picks are stored separately and weigh the same. Its recorded latents are a pickle, which is never read.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from ..errors import D3POError
from ..importing.levels import are_thumbs, pick_of_scores
from ..picks import Pick, pairs
from ..run import Group, Run
from ..run.files import replace
from ..run.matches import ENTRANT
from ..textfiles import decode


def import_picks(run: Run, path: str | Path, who: str | None = None) -> int:
    """Record an annotator's file, or every `.json` file of a folder, as picks of kind "scores".

    A row of zeros is recorded only where the same person judged the group before: it replaces that judgement. Importing
    a file twice records nothing new. Either all rows of a file fit the run, or none is recorded.

    Args:
        run: row j judges its j-th group by number; groups after the last row stay as they are.
        path: the file or folder.
        who: the annotator; None takes each file's name without its ending.

    Returns:
        How many picks were recorded.

    Raises:
        D3POError: a file is missing, damaged, or does not fit the run's groups.
    """
    path = Path(path)
    sources = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not sources:
        raise D3POError(f"There is no .json file in {path}.", "Choose a feedback file, or a folder that holds some.")
    groups = _drawn(run)
    feedback = [(who if who is not None else source.stem, _read(source, groups)) for source in sources]
    return sum(_record(run, groups, person, rows) for person, rows in feedback)


def export_picks(run: Run, path: str | Path, who: str = "") -> int:
    """Write one person's standing picks as an annotator's file, and return how many pairs could not be expressed.

    The file is replaced if it exists; see `feedback_rows`.

    Raises:
        D3POError: as `feedback_rows`; the disk is full or the folder cannot be written to.
    """
    rows, lost = feedback_rows(run, who)
    replace(Path(path), json.dumps(rows).encode())
    return lost


def feedback_rows(run: Run, who: str = "") -> tuple[list[list[int]], int]:
    """Convert one person's standing picks and flags to the authors' form, a row for each group by number.

    A favourite is 1 and the others 0. A ranking's first place is 1, its last -1, and all places between are 0, because
    there are only three levels: such a ranking loses the pairs between its middle places. Ties, skipped groups and
    groups without a pick are rows of zeros; all bad is a row of -1. A flagged candidate is -1, and then a ranking's
    last place is 0. The authors' trainer takes 7 images in each row.

    Returns:
        The rows, and how many pairs they could not express.

    Raises:
        D3POError: the groups differ in their number of candidates, which the authors' code cannot read, or there is
            no group.
    """
    groups = _drawn(run)
    if len({group.candidates for group in groups}) != 1:
        raise D3POError(
            "The D3PO repository's JSON needs groups with the same number of images, and at least one group.",
            "Export from a run whose groups were all drawn with the same number of candidates.",
        )
    judgements = {judgement.group_id: judgement for judgement in run.picks.judgements(who=who)}
    rows, lost = [], 0
    for group in groups:
        judgement = judgements.get(group.id)
        pick, flagged = (judgement.pick, judgement.flagged) if judgement else (None, frozenset())
        row = _levels(pick, group.candidates, flagged)
        rows.append(row)
        kept = pairs(Pick("scores", scores=tuple(row)), group.candidates)
        lost += len(pairs(pick, group.candidates, flagged=flagged)) - len(kept)
    return rows, lost


def _drawn(run: Run) -> list[Group]:
    """Return the run's groups by number, without pictures of a tournament and its matches: their numbers differ in
    every copy of a run."""
    return [group for group in run.groups.select() if not group.entrants and ENTRANT not in group.settings]


def _read(path: Path, groups: list[Group]) -> list[Pick]:
    """Read a feedback file whose rows fit these groups, in order.

    Raises:
        D3POError: it is missing, damaged, or does not fit.
    """
    try:
        rows = json.loads(decode(path.read_bytes()))
    except OSError as error:
        raise D3POError(f"The feedback file {path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise D3POError(f"The feedback file {path} is not JSON ({error}).", safe="Nothing was imported.") from error
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise D3POError(
            f"The feedback file {path} is not a list of rows.",
            "It should look like [[0, 0, 1, 0, 0, 1, 1], ...].",
            "Nothing was imported.",
        )
    if len(rows) > len(groups):
        raise D3POError(
            f"The feedback file {path} judges {len(rows)} groups; this run has {len(groups)}.",
            "Import it into the run whose images were judged.",
            "Nothing was imported.",
        )
    thumbs, picks = all(map(are_thumbs, rows)), []
    for number, (row, group) in enumerate(zip(rows, groups, strict=False)):
        numbers = all(type(score) in (int, float) for score in row)
        try:
            if len(row) != group.candidates or not numbers:
                raise D3POError(f"It is not {group.candidates} numbers.")
            picks.append(pick_of_scores(row, group.candidates, thumbs or not any(row)))
        except D3POError as error:
            raise D3POError(
                f"Row {number} of the feedback file {path} cannot be used. {error.what}",
                "Import it into the run whose images were judged.",
                "Nothing was imported.",
            ) from error
    return picks


def _record(run: Run, groups: list[Group], who: str, picks: list[Pick]) -> int:
    """Record those that change a person's standing picks, and return how many there were."""
    standing = {stored.group_id: stored.pick for stored in run.picks.standing(who=who)}
    count = 0
    for group, pick in zip(groups, picks, strict=False):
        nothing = pick.kind == "scores" and not any(pick.scores)
        if standing.get(group.id) == pick or (nothing and group.id not in standing):
            continue
        run.picks.add(group.id, pick, who=who)
        count += 1
    return count


def _levels(pick: Pick | None, candidates: int, flagged: Collection[int]) -> list[int]:
    """Reduce a judgement to the levels -1, 0 and 1; no pair is turned round, some become ties."""
    levels = [0] * candidates
    if pick is not None and pick.kind == "scores":
        levels = list(pick.scores)
    elif pick is not None and pick.kind == "all_bad":
        levels = [-1] * candidates
    elif pick is not None and pick.kind in ("favourite", "ranking"):
        levels[pick.order[0]] = 1
        if pick.kind == "ranking" and not flagged:
            last = set(range(candidates)) - set(pick.order) or {pick.order[-1]}
            for candidate in last - {pick.order[0]}:
                levels[candidate] = -1
    return [-1 if candidate in flagged else level for candidate, level in enumerate(levels)]
