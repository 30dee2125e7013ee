"""Taught LoRAs as the host's cards show them: a copy in its LoRA folder, with a picture and a description beside it.

Hosts remember LoRAs by their file's name, in whatever folder it lies, so a name is used once and never again: those
that were given out stand in a list beside the files, which outlives them.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import save

from d3po_core.evaluation.drift import recommended_strength_of
from d3po_core.lora import load_lora, unused_path, write_new
from d3po_core.lora.metadata import hashes
from d3po_core.run import Round, Run, files
from d3po_core.run.previews import strip_side

FOLDER = "d3po"
"""Ours in the host's LoRA folder."""
NAMES = ".names.json"
"""In there: every name that was ever given to a LoRA, with the taste that it was given for."""
KINDS = {".safetensors", ".pt", ".ckpt"}
"""Files that hosts take for LoRAs."""
WORDS = ("activation text", "negative text", "notes")
"""What a person may have written on a card, and finds again on the next round's."""
STAR = "starred"
VERSIONS = {"sd_v1": "SD1", "sd_v2": "SD2", "sdxl_base_v1-0": "SDXL"}
"""What the hosts' cards call base models, by `ss_base_model_version`."""


class Cards:
    """Tastes' LoRAs among the host's.

    Args:
        loras: where LoRAs lie that the host's cards show.
    """

    kept = 3
    """Rounds of a taste whose LoRAs stay in the host's folder; starred ones and the one that samples stay too."""

    def __init__(self, loras: Path) -> None:
        self.loras, self.folder = loras, loras / FOLDER

    def publish(self, run: Run, lora: Path) -> Path:
        """Copy a round's LoRA to where the cards are, under a name that was never used.

        Args:
            run: the taste.
            lora: in its folder; of a finished round.

        Raises:
            D3POError: the disk is full, the folder cannot be written to, or the file is missing or damaged.
        """
        round = next(found for found in run.rounds.all() if found.lora_file and run.folder / found.lora_file == lora)
        given = self._given()
        target = unused_path(self.folder, lora.stem, {*given, *self._names()})
        tensors, metadata = load_lora(lora)
        metadata |= {"ss_output_name": target.stem, "modelspec.title": target.stem}
        files.replace(self.folder / NAMES, _json({**given, target.stem: run.run_id}))
        files.replace(target.with_suffix(".json"), _json(self._card(run, round, metadata)))
        write_new(target, save(tensors, {**metadata, **hashes(tensors, metadata)}))
        self.picture(run, round.number)
        self._tidy(run)
        return target

    def picture(self, run: Run, number: int) -> None:
        """Give the card of a round's LoRA a picture, the first one after teaching, where it has none yet."""
        round = next(found for found in run.rounds.all() if found.number == number)
        side = strip_side(round.summary.lora_strength)
        found = self._with(run, round.lora_hash)
        if found is None or found.with_suffix(".png").exists() or not run.previews.has(number, side):
            return
        with Image.open(run.previews.image(number, 0, side)) as image:
            files.replace(found.with_suffix(".png"), files.png(image))

    def current(self, run: Run) -> tuple[str, float]:
        """Name and best strength of the LoRA that a taste samples with; one that was tidied away comes back.

        Raises:
            D3POError: it cannot be brought back.
        """
        policy = run.rounds.current_policy()
        lora = run.rounds.lora(policy)
        if lora is None:
            return "", 1.0
        round = next(found for found in run.rounds.all() if found.lora_hash == policy)
        found = self._with(run, policy) or self.publish(run, lora)
        return found.stem, recommended_strength_of(round.summary)

    def of(self, run: Run) -> dict[str, bool]:
        """Names of a taste's LoRAs among the cards, the newest first, and whether each is starred."""
        return {path.stem: bool(_told(path).get(STAR)) for path in reversed(self._of(run))}

    def names(self, run: Run) -> list[str]:
        """All names that LoRAs of a taste were ever given."""
        return [name for name, run_id in self._given().items() if run_id == run.run_id]

    def star(self, run: Run, starred: Collection[str]) -> None:
        """Star these LoRAs of a taste, and no others of it.

        Raises:
            D3POError: the folder cannot be written to.
        """
        for path in self._of(run):
            told = _told(path)
            if bool(told.get(STAR)) != (path.stem in starred):
                files.replace(path.with_suffix(".json"), _json({**told, STAR: path.stem in starred}))

    def _given(self) -> dict[str, str]:
        return _read(self.folder / NAMES)

    def _names(self) -> set[str]:
        """Names of all LoRAs that the host has."""
        return {path.stem for path in self.loras.rglob("*") if path.suffix in KINDS}

    def _of(self, run: Run) -> list[Path]:
        """A taste's LoRAs in the host's folder, the oldest first."""
        found = [path for path in self.folder.glob("*.safetensors") if _told(path).get("d3po_taste") == run.run_id]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)

    def _with(self, run: Run, policy: str | None) -> Path | None:
        """The newest file of a taste's policy."""
        return next((path for path in reversed(self._of(run)) if _told(path).get("d3po_policy") == policy), None)

    def _tidy(self, run: Run) -> None:
        """Delete a taste's older LoRAs from the host's folder; the run keeps its own copy of every round's."""
        found = {path: _told(path) for path in self._of(run)}
        newest = sorted({told.get("d3po_round", 0) for told in found.values()})[-self.kept :]
        for path, told in found.items():
            used = told.get(STAR) or told.get("d3po_policy") == run.rounds.current_policy()
            if told.get("d3po_round", 0) not in newest and not used:
                for suffix in (".safetensors", ".json", ".png"):
                    with suppress(OSError):  # Windows deletes nothing that is open; the next round tries again
                        path.with_suffix(suffix).unlink()

    def _card(self, run: Run, round: Round, metadata: dict[str, str]) -> dict[str, Any]:
        """What the hosts' cards read, and whose it is."""
        before = _told(self._of(run)[-1]) if self._of(run) else {}
        picks = run.picks.counts("").picks
        return {
            "description": f"The taste {run.name}, taught with D3PO from {picks} picks on {run.model.get('name', '')}.",
            "sd version": VERSIONS.get(metadata.get("ss_base_model_version", ""), "Unknown"),
            "preferred weight": recommended_strength_of(round.summary),
            **{word: before.get(word, "") for word in WORDS},
            **{"d3po_taste": run.run_id, "d3po_round": round.number, "d3po_policy": round.lora_hash, STAR: False},
        }


def _told(lora: Path) -> dict[str, Any]:
    return _read(lora.with_suffix(".json"))


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none, as people and hosts write these files too."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=4, ensure_ascii=False).encode()
