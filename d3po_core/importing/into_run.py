"""Judged pictures into a run: groups with pictures, prompt and picks, and clean latents where a model is at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..diffusion.image_model import Encoder
from ..diffusion.recording import STORE_DTYPE
from ..errors import D3POError
from ..run import Run
from ..run.part import IMPORTED
from .images import read_rgb
from .judged import FoundImages, JudgedGroup, LeftOut
from .sources import read_source

SAFE = "What was imported before is kept."


@dataclass(frozen=True)
class Imported:
    """How far importing has come.

    Attributes:
        done, total: groups of the source that can be used.
        added: groups that are new in the run.
        known: groups that were in the run already.
        left_out: what was not imported, and why.
        notes: sentences about how something was understood or changed.
    """

    done: int
    total: int
    added: int
    known: int
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def import_pictures(
    run: Run, source: str | Path | FoundImages, model: Encoder | None = None, who: str = IMPORTED
) -> Iterator[Imported]:
    """Bring judged pictures into a run, group by group; the last report tells all.

    A group is there whole, with its picks, or not at all; stopped half way, the same call goes on. Importing the same
    again adds nothing, and what was corrected or taken back in the gallery since stays so.

    Args:
        run: where to.
        source: a path as `read_source` takes it, or what it gave.
        model: encodes prompts and pictures. Without one, groups have no latents and their prompts no conditioning, and
            cannot be trained on until the same source is imported with one. Pictures whose sides are no multiples of
            its unit are cropped about their centre before they are encoded; the run keeps them whole.
        who: whose picks these are where the source does not say.

    Raises:
        D3POError: nothing can be used; the disk is full, with what was imported before kept.
    """
    found = source if isinstance(source, FoundImages) else read_source(source)
    importer = _Importer(run, model, who)
    for done, group in enumerate(found.groups, 1):
        try:
            importer.add(group)
        except _Unfit as error:
            importer.left_out.append(LeftOut(group.where, str(error)))
        left_out = (*found.left_out, *importer.left_out)
        notes = (*found.notes, *importer.notes())
        yield Imported(done, len(found.groups), importer.added, importer.known, left_out, notes)
    if found and not (importer.added or importer.known):
        raise D3POError(f"The model can take none of these pictures. {importer.left_out[0]}", safe=SAFE)


class _Unfit(Exception):
    """The model cannot take this group; the others may do."""


class _Importer:
    """Adds groups to a run and counts."""

    def __init__(self, run: Run, model: Encoder | None, who: str) -> None:
        self.run, self.model, self.who = run, model, who
        self.added = self.known = self.cropped = self.shortened = 0
        self.left_out: list[LeftOut] = []
        self._prompts: dict[tuple[str, str], int] = {}  # those that have their conditioning
        self._ids = {group.settings["key"]: group.id for group in run.groups.select(recorded=False)}
        self._round = 1 + sum(round.finished is not None for round in run.rounds.all())

    def add(self, group: JudgedGroup) -> None:
        """Add a group, or what it still lacks; raises _Unfit, and D3POError for a full disk."""
        images = [read_rgb(path) for path in group.pictures]
        key = _key(group, images)
        group_id = self._ids.get(key)
        if group_id is None:
            group_id = self._ids[key] = self._put(group, key, images)
            self.added += 1
        else:
            if self.model and "latents" not in self.run.groups.trajectory(group_id):  # it was imported without a model
                self._encoded(self.model, group.prompt, group.negative)
                self.run.groups.save_latents(group_id, self._latents(images)["latents"])
            self.known += 1
        for verdict in group.verdicts:
            who = verdict.who or self.who
            pick_id = hashlib.sha256(f"{key} {who}".encode()).hexdigest()[:32]  # recorded once, whatever came after
            self.run.picks.add(
                group_id, verdict.pick, pick_id=pick_id, who=who, shown_order=verdict.shown, reason=IMPORTED
            )

    def notes(self) -> list[str]:
        notes = []
        if self.cropped and self.model:
            unit = self.model.unit
            notes.append(f"Pictures of {self.cropped} groups were cropped by less than {unit} pixels to be encoded.")
        if self.shortened:
            notes.append(f"This model cannot take the negative prompts of {self.shortened} groups: they were dropped.")
        return notes

    def _put(self, group: JudgedGroup, key: str, images: list[Image.Image]) -> str:
        latents = self._latents(images)  # first: what the model cannot take leaves nothing behind
        prompt_id = self._prompt(group)
        return self.run.groups.add(
            prompt_id=prompt_id,
            number=self.run.groups.next_number(),
            seed=0,
            candidates=len(images),
            policy=IMPORTED,
            round=self._round,
            settings={"key": key, "from": group.where},
            held_out=False,
            tensors=latents,
            images=images,
        )

    def _prompt(self, group: JudgedGroup) -> int:
        """The prompt's id, with its conditioning if there is a model."""
        if self.model is None:
            return self.run.prompts.add(group.prompt, group.negative, asked=False)
        try:
            return self._encoded(self.model, group.prompt, group.negative)
        except _Unfit:  # a negative prompt is not what is taught: one that is too long need not keep a picture out
            if not group.negative:
                raise
        found = self._encoded(self.model, group.prompt, "")
        self.shortened += 1
        return found

    def _encoded(self, model: Encoder, prompt: str, negative: str) -> int:
        if (prompt, negative) not in self._prompts:
            try:
                (conditioning,) = model.encode([prompt], negative)
            except D3POError as error:
                raise _Unfit(str(error)) from error
            prompt_id = self.run.prompts.add(prompt, negative, asked=False)
            self.run.prompts.save_conditioning(prompt_id, conditioning)
            self._prompts[prompt, negative] = prompt_id
        return self._prompts[prompt, negative]

    def _latents(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        if self.model is None:
            return {}
        tensors = torch.stack([_tensor(image) for image in images])
        fitting = crop(tensors, self.model.unit)
        try:
            latents = self.model.encode_images(fitting)
        except D3POError as error:
            raise _Unfit(str(error)) from error
        self.cropped += fitting.shape != tensors.shape
        return {"latents": latents.to(STORE_DTYPE)}


def crop(images: Tensor, unit: int) -> Tensor:
    """The centre of images (B, 3, H, W) whose sides are multiples of `unit`; smaller ones stay as they are."""
    for side in (-2, -1):
        length = images.shape[side]
        kept = length - length % unit or length
        images = images.narrow(side, (length - kept) // 2, kept)
    return images


def _tensor(image: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)


def _key(group: JudgedGroup, images: Sequence[Image.Image]) -> str:
    """Tells whether a group is in the run already: its prompt, pictures and picks."""
    told = [(verdict.who, verdict.pick.kind, verdict.pick.order, verdict.pick.scores) for verdict in group.verdicts]
    data = json.dumps([group.prompt, group.negative, told, [image.size for image in images]]).encode()
    return hashlib.sha256(b"".join([data, *(image.tobytes() for image in images)])).hexdigest()[:32]
