"""Taught LoRAs among the host's cards: copies in its LoRA folder, each with an image and a description beside it.

Hosts remember LoRAs by their file's name, in whatever folder it is, so a name is used once and never again. A list of
all names that were ever used is kept beside the files, and outlives them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypedDict, cast

from PIL import Image
from safetensors.torch import save

from d3po_core.app.loras import POLICY
from d3po_core.evaluation.compare import recommended_strength_of
from d3po_core.lora import load_lora, unused_path, write_new
from d3po_core.lora.file import hashes
from d3po_core.run import Round, Run, files, policy_id
from d3po_core.run.blind_checks import strip_side

FOLDER = "d3po"
"""Our folder in the host's LoRA folder."""
NAMES = ".names.json"
"""A file in it: the taste of every name that a LoRA ever had."""
SUFFIXES = {".safetensors", ".pt", ".ckpt"}
"""Files that hosts take for LoRAs."""
VERSIONS = {"sd_v1": "SD1", "sd_v2": "SD2", "sdxl_base_v1-0": "SDXL"}
"""What the hosts' cards call base models, by `ss_base_model_version`."""

Card = TypedDict(
    "Card",
    {
        "description": str,
        "sd version": str,
        "preferred weight": float,
        "activation text": str,
        "negative text": str,
        "notes": str,
        "d3po_taste": str,
        "d3po_round": int,
        "d3po_policy": str | None,
        "starred": bool,
    },
    total=False,
)
"""A card's JSON file, which hosts and people write to as well; the last four entries are ours."""


class Cards:
    """The tastes' LoRAs among the host's.

    Args:
        loras: the folder of the LoRAs that the host's cards show.
        others: more of them, where nothing is written to.
    """

    def __init__(self, loras: Path, *others: Path) -> None:
        self.loras, self.folder = [loras, *others], loras / FOLDER
        self.kept = 3
        """Rounds of a taste whose LoRAs stay in the host's folder; starred ones and the one that samples stay too."""

    def publish(self, run: Run, lora: Path) -> Path:
        """Copy a round's LoRA into the host's folder, under a name that was never used, and return the copy.

        Its metadata has the name too, as hosts call it by that.

        Args:
            run: the taste.
            lora: a file in the taste's folder, of a finished round.

        Raises:
            D3POError: the disk is full, the folder cannot be written to, or the file is missing or damaged.
        """
        taught = next(each for each in run.rounds.all() if each.lora_file and run.folder / each.lora_file == lora)
        used = self._used_names()
        target = unused_path(self.folder, lora.stem, {*used, *self._host_names()})
        tensors, metadata = load_lora(lora)
        metadata |= {"ss_output_name": target.stem, "modelspec.title": target.stem, POLICY: str(taught.lora_hash)}
        files.replace(self.folder / NAMES, _to_json({**used, target.stem: run.run_id}))
        files.replace(target.with_suffix(".json"), _to_json(self._new_card(run, taught, metadata)))
        write_new(target, save(tensors, {**metadata, **hashes(tensors, metadata)}))
        self.picture(run, taught.number)
        self._tidy(run)
        return target

    def picture(self, run: Run, number: int) -> None:
        """Give the card of a round's LoRA the round's first image after training, if it has no image yet."""
        taught = next(each for each in run.rounds.all() if each.number == number)
        side = strip_side(taught.summary.lora_strength)
        lora = self._newest(run, taught.lora_hash)
        if lora is None or lora.with_suffix(".png").exists() or not run.previews.has(number, side):
            return
        with Image.open(run.previews.image(number, 0, side)) as image:
            files.replace(lora.with_suffix(".png"), files.png(image))

    def current(self, run: Run) -> tuple[str, float]:
        """Return name and recommended strength of the LoRA that a taste samples with; the name is "" without one.

        A LoRA that was deleted from the host's folder is put there again.

        Raises:
            D3POError: it cannot be brought back.
        """
        policy = run.rounds.current_policy()
        lora, taught = run.rounds.lora(policy), run.rounds.maker(policy)
        if lora is None or taught is None:
            return "", 1.0
        published = self._newest(run, policy) or self.publish(run, lora)
        return published.stem, recommended_strength_of(taught.summary)

    def of(self, run: Run) -> dict[str, bool]:
        """Return the names of a taste's LoRAs among the cards, the newest first, and whether each is starred."""
        return {path.stem: bool(_card(path).get("starred")) for path in reversed(self.files(run))}

    def names(self, run: Run) -> list[str]:
        """Return all names that LoRAs of a taste ever had."""
        return [name for name, run_id in self._used_names().items() if run_id == run.run_id]

    def star(self, run: Run, starred: Collection[str]) -> None:
        """Mark these LoRAs of a taste as starred, and no others of it.

        Raises:
            D3POError: the folder cannot be written to.
        """
        for path in self.files(run):
            card = _card(path)
            if bool(card.get("starred")) != (path.stem in starred):
                files.replace(path.with_suffix(".json"), _to_json({**card, "starred": path.stem in starred}))

    def _used_names(self) -> dict[str, str]:
        """Return every name that a LoRA of ours ever had, with the id of its taste."""
        return cast("dict[str, str]", _read(self.folder / NAMES))

    def _host_names(self) -> set[str]:
        """Return the names of all LoRAs that the host has."""
        return {path.stem for loras in self.loras for path in loras.rglob("*") if path.suffix in SUFFIXES}

    def files(self, run: Run) -> list[Path]:
        """List a taste's LoRAs in the host's folder, the oldest first."""
        paths = [path for path in self.folder.glob("*.safetensors") if _card(path).get("d3po_taste") == run.run_id]
        return sorted(paths, key=lambda path: path.stat().st_mtime_ns)

    def policies(self, run: Run) -> dict[Path, str]:
        """Return a taste's LoRAs in the host's folder, each with the policy that its card names."""
        return {path: _card(path).get("d3po_policy") or "" for path in self.files(run)}

    def _newest(self, run: Run, policy: str | None) -> Path | None:
        """Find the newest file of a taste's policy."""
        return next((path for path in reversed(self.files(run)) if _is_of(path, policy)), None)

    def _tidy(self, run: Run) -> None:
        """Delete a taste's older LoRAs from the host's folder; the run keeps its own copy of every round's."""
        cards = {path: _card(path) for path in self.files(run)}
        newest = sorted({card.get("d3po_round", 0) for card in cards.values()})[-self.kept :]
        for path, card in cards.items():
            in_use = card.get("starred") or _is_of(path, run.rounds.current_policy())
            if card.get("d3po_round", 0) not in newest and not in_use:
                for suffix in (".safetensors", ".json", ".png"):
                    with suppress(OSError):  # Windows deletes nothing that is open; the next round tries again
                        path.with_suffix(suffix).unlink()

    def _new_card(self, run: Run, taught: Round, metadata: dict[str, str]) -> Card:
        """Make the card of a round's LoRA, with what a person wrote on the last one."""
        paths = self.files(run)
        last = _card(paths[-1]) if paths else Card()
        picks = run.picks.counts("").picks
        return {
            "description": f"The taste {run.name}, taught with D3PO from {picks} picks on {run.model.get('name', '')}.",
            "sd version": VERSIONS.get(metadata.get("ss_base_model_version", ""), "Unknown"),
            "preferred weight": recommended_strength_of(taught.summary),
            "activation text": last.get("activation text", ""),
            "negative text": last.get("negative text", ""),
            "notes": last.get("notes", ""),
            "d3po_taste": run.run_id,
            "d3po_round": taught.number,
            "d3po_policy": taught.lora_hash,
            "starred": False,
        }


def _is_of(lora: Path, policy: str | None) -> bool:
    """Return whether a file is of a policy: by its card, or by its bytes, as a run's file may have come from it."""
    return _card(lora).get("d3po_policy") == policy or policy_id(lora) == policy


def _card(lora: Path) -> Card:
    return cast("Card", _read(lora.with_suffix(".json")))


def _read(path: Path) -> dict[str, object]:
    """Read a JSON object; an empty one if the file holds none, as people and hosts write these files too."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _to_json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, indent=4, ensure_ascii=False).encode()
