"""A run's images and picks as a folder that Hugging Face's `load_dataset("imagefolder", data_dir=...)` reads.

`metadata.jsonl` has one line for every image: its prompt, its group, and all picks and flags on it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..picks import pairs
from ..run import Group, Judgement, Run, StoredPick, files
from ..run.records import JsonObject
from .lines import to_line


def export_dataset(run: Run, folder: Path) -> int:
    """Write all groups with picks or flags.

    Args:
        run: with picks.
        folder: new or empty.

    Returns:
        How many images were written.

    Raises:
        D3POError: an image is missing, or the folder cannot be written to.
    """
    judgements: dict[str, list[Judgement]] = {}
    for judgement in run.picks.judgements():
        judgements.setdefault(judgement.group_id, []).append(judgement)
    lines: list[JsonObject] = []
    with files.writing(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
    for group in (group for group in run.groups.select() if group.id in judgements):
        for candidate in range(group.candidates):
            name = f"images/{group.number:06}-{candidate}.png"
            source = run.groups.image_path(group.id, candidate)
            with files.writing(folder):
                shutil.copyfile(source, folder / name)
            lines.append({"file_name": name, **_line(group, candidate, judgements[group.id])})
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    files.replace(folder / "metadata.jsonl", data.encode())
    return len(lines)


def _line(group: Group, candidate: int, judgements: list[Judgement]) -> JsonObject:
    """Return what `metadata.jsonl` holds of a candidate, apart from its file's name."""
    return {
        "text": group.prompt,
        "negative": group.negative,
        "group": group.number,
        "id": group.id,
        "candidate": candidate,
        "seed": group.seed,
        "round": group.round,
        "policy": group.policy,
        "picks": [_pick(each, each.stored, candidate, group) for each in judgements if each.stored],
        "flags": [to_line(flag) for each in judgements for flag in each.flags if flag.candidate == candidate],
    }


def _pick(judgement: Judgement, stored: StoredPick, candidate: int, group: Group) -> JsonObject:
    """Return a pick with the candidates that this one won and lost against, flags counted in."""
    shown = judgement.shown_order or group.distinct
    all_pairs = pairs(judgement.pick, group.candidates, shown, judgement.flagged)
    return {
        **to_line(stored),
        "better_than": [pair.loser for pair in all_pairs if pair.winner == candidate],
        "worse_than": [pair.winner for pair in all_pairs if pair.loser == candidate],
    }
