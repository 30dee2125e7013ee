"""Taught LoRAs as the host's cards show them: a copy in its LoRA folder, with a picture and a description beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image

from d3po_core.drift import recommended_of
from d3po_core.lora import unused_path
from d3po_core.lora.file import load_lora
from d3po_core.run import Run, files
from d3po_core.run.checks import after

FOLDER = "d3po"
"""Ours in the host's LoRA folder."""
KEPT = 3
"""Newest LoRAs of a taste that stay in the host's folder; starred ones stay too."""
STAR = "starred"
VERSIONS = {"sd_v1": "SD1", "sd_v2": "SD2", "sdxl_base_v1-0": "SDXL"}
"""What the hosts' cards call base models, by `ss_base_model_version`."""


class Cards:
    """Tastes' LoRAs among the host's.

    Args:
        loras: where LoRAs lie that the host's cards show.
    """

    def __init__(self, loras: Path) -> None:
        self.folder = loras / FOLDER

    def publish(self, run: Run, lora: Path) -> Path:
        """Copy a round's LoRA to where the cards are, under a name that was never used: hosts cache by name.

        Raises:
            D3POError: the disk is full or the folder cannot be written to.
        """
        target = unused_path(self.folder, lora.stem)
        with files.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(lora, target)
            target.with_suffix(".json").write_text(json.dumps(_card(run, lora), indent=2), encoding="utf-8")
        self._tidy(run)
        return target

    def picture(self, run: Run, number: int) -> None:
        """Give the newest LoRA's card a picture: the round's first one after teaching."""
        round = next(found for found in run.rounds() if found.number == number)
        newest = self._of(run)[-1:]
        if newest and run.has_strip(number, after(1.0)):
            with Image.open(run.strip_image(number, 0, after(round.summary.get("gentler", 1.0)))) as image:
                image.save(newest[0].with_suffix(".png"))

    def newest(self, run: Run) -> str:
        """Name of a taste's newest LoRA as prompts call it; "" if there is none."""
        found = self._of(run)
        return found[-1].stem if found else ""

    def _of(self, run: Run) -> list[Path]:
        """A taste's LoRAs in the host's folder, the oldest first."""
        found = [path for path in self.folder.glob("*.safetensors") if _told(path).get("d3po_taste") == run.run_id]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)

    def _tidy(self, run: Run) -> None:
        """Delete a taste's older LoRAs from the host's folder; the run keeps its own copy of every round's."""
        for path in self._of(run)[:-KEPT]:
            if not _told(path).get(STAR):
                for suffix in (".safetensors", ".json", ".png"):
                    path.with_suffix(suffix).unlink(missing_ok=True)


def _told(lora: Path) -> dict[str, object]:
    try:
        found = json.loads(lora.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _card(run: Run, lora: Path) -> dict[str, object]:
    """What the hosts' cards read, and whose it is."""
    round = next((found for found in reversed(run.rounds()) if found.lora_file), None)
    version = VERSIONS.get(load_lora(lora)[1].get("ss_base_model_version", ""), "Unknown")
    strength = recommended_of(round.summary) if round else 1.0
    picks = run.counts("").picks
    return {
        "description": f"The taste {run.name}, taught with D3PO from {picks} picks on {run.model.get('name', '')}.",
        "sd version": version,
        "activation text": "",
        "preferred weight": strength,
        "notes": "",
        "d3po_taste": run.run_id,
        STAR: False,
    }
