"""A run's pictures and picks as a folder that Hugging Face's `load_dataset("imagefolder", data_dir=...)` reads.

One line of `metadata.jsonl` for every picture: its prompt, its group, and what was said of it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..picks import pairs
from ..run import Group, Judgement, Run, files
from .lines import to_line


def export_dataset(run: Run, folder: Path) -> int:
    """Write all groups with picks or flags.

    Args:
        run: with picks.
        folder: new or empty.

    Returns:
        How many pictures were written.

    Raises:
        D3POError: a picture is missing, or the folder cannot be written to.
    """
    judged: dict[str, list[Judgement]] = {}
    for judgement in run.picks.judgements():
        judged.setdefault(judgement.group_id, []).append(judgement)
    lines = []
    with files.writing(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
    for group in (group for group in run.groups.select() if group.id in judged):
        for candidate in range(group.candidates):
            name = f"images/{group.number:06}-{candidate}.png"
            source = run.groups.image_path(group.id, candidate)
            with files.writing(folder):
                shutil.copyfile(source, folder / name)
            picks = [_said(each, candidate, group) for each in judged[group.id] if each.stored]
            flags = [to_line(flag) for each in judged[group.id] for flag in each.flags if flag.candidate == candidate]
            about = {
                "file_name": name,
                "text": group.prompt,
                "negative": group.negative,
                "group": group.number,
                "id": group.id,
                "candidate": candidate,
            }
            drawn = {"seed": group.seed, "round": group.round, "policy": group.policy}
            lines.append({**about, **drawn, "picks": picks, "flags": flags})
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    files.replace(folder / "metadata.jsonl", data.encode())
    return len(lines)


def _said(judgement: Judgement, candidate: int, group: Group) -> dict[str, object]:
    """One person's judgement as it concerns a candidate: the others that it beat and lost to, flags counted in."""
    assert judgement.stored is not None
    shown = judgement.shown_order or group.distinct
    found = pairs(judgement.pick, group.candidates, shown, judgement.flagged)
    return {
        **to_line(judgement.stored),
        "better_than": [pair.loser for pair in found if pair.winner == candidate],
        "worse_than": [pair.winner for pair in found if pair.loser == candidate],
    }
