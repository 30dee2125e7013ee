"""Importing images into a run: groups with images, prompt and picks, and clean latents if there is a model.

`read_source` reads a source of any kind, by what its path holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..diffusion.image_model import Encoder, check_finite
from ..diffusion.rollout import STORE_DTYPE
from ..errors import D3POError
from ..run import Run
from ..run.database import IMPORTED
from ..run.matches import ENTRANT
from ..run.run import to_pixels
from .folders import LOSERS, WINNERS, read_folders
from .jsonl import read_rows
from .judged import JudgedGroup, JudgedImages, LeftOut, abbreviate, drop_contradictions
from .metadata import Embeddings
from .outputs import has_pictures, read_outputs
from .pixels import read_rgb

SAFE = "What was imported before is kept."


@dataclass(frozen=True)
class Imported:
    """How far importing has come, and what has come of it.

    Attributes:
        done, total: groups of the source that can be used.
        added: groups that are new in the run.
        known: groups that were in the run already.
        entrants: how many of either are pictures that take part in a tournament, which nobody has judged yet.
        left_out: what was not imported, with reasons.
        notes: sentences that say how something was understood or changed.
    """

    done: int
    total: int
    added: int
    known: int
    entrants: int
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def import_pictures(
    run: Run, source: str | Path | JudgedImages, model: Encoder | None = None, who: str = IMPORTED
) -> Iterator[Imported]:
    """Import judged images into a run, group by group.

    A group that is in the run is complete. If importing is interrupted, the same call goes on. Importing a source again
    adds nothing, and leaves what was corrected or taken back in the gallery since as it is.

    Args:
        run: the run that groups are added to.
        source: a path as `read_source` takes it, or what that returned.
        model: encodes prompts and images. Without one, groups have no latents and their prompts no conditioning, and
            cannot be trained on until the same source is imported with one. Images whose sides are not multiples of
            its unit are cropped around their centre before they are encoded; the run keeps them as they are.
        who: name of the person if the source does not say whose picks they are.

    Yields:
        The progress, after each group.

    Raises:
        D3POError: no group can be used, or the disk is full; groups that were imported before are kept.
    """
    judged = source if isinstance(source, JudgedImages) else read_source(source)
    judged = _with_opponents(run, judged)
    importer = _Importer(run, model, who, judged.noticed.embeddings)
    for done, group in enumerate(judged.groups, 1):
        try:
            importer.add(group)
        except _Unusable as error:
            importer.left_out.append(LeftOut(group.where, str(error)))
        left_out = (*judged.left_out, *importer.left_out)
        notes = (*judged.notes, *importer.notes())
        counts = (importer.added, importer.known, importer.entrants)
        yield Imported(done, len(judged.groups), *counts, left_out, notes)
    if judged and not (importer.added or importer.known):
        raise D3POError(f"The model can take none of these pictures. {importer.left_out[0]}", safe=SAFE)


def _with_opponents(run: Run, judged: JudgedImages) -> JudgedImages:
    """Leave out pictures that nobody has judged and that have nothing to be compared with, neither here nor in the run.

    Raises:
        D3POError: nothing is left.
    """
    kinds = Counter((group.prompt, group.size) for group in judged.groups if group.size)
    kinds.update((entrant.prompt, entrant.size) for entrant in run.matches.entrants() if kinds)
    alone = [group for group in judged.groups if group.size and kinds[group.prompt, group.size] < 2]
    if not alone:
        return judged
    has = "It has" if len(alone) == 1 else f"These {len(alone)} pictures have"
    error = D3POError(f"{has} nothing of the same prompt and size to be compared with.")
    left_out = LeftOut(abbreviate([group.where for group in alone]), str(error), len(alone))
    if len(alone) == len(judged.groups):
        raise D3POError(f"Nothing can be compared. {left_out}", "Bring several pictures of each prompt.", SAFE)
    kept = [group for group in judged.groups if group not in alone]
    return dataclasses.replace(judged, groups=kept, left_out=[*judged.left_out, left_out])


class _Unusable(Exception):
    """The model cannot encode this group; others may be fine."""


class _Importer:
    """Adds groups to a run, and counts them."""

    def __init__(self, run: Run, model: Encoder | None, who: str, embeddings: Embeddings) -> None:
        self.run, self.model, self.who, self._embeddings = run, model, who, embeddings
        self.added = self.known = self.entrants = self.cropped = self.shortened = 0
        self.left_out: list[LeftOut] = []
        self._prompt_ids: dict[tuple[str, str], int] = {}  # of prompts whose conditioning is stored
        self._ids = {group.settings["key"]: group.id for group in run.groups.select(recorded=False)}
        self._round = 1 + sum(each.finished is not None for each in run.rounds.all())

    def add(self, group: JudgedGroup) -> None:
        """Add a group, or what it still lacks; raises _Unusable, and D3POError if the disk is full."""
        images = [read_rgb(path) for path in group.paths]
        key = _key(group, images)
        group_id = self._ids.get(key)
        if group_id is None:
            group_id = self._ids[key] = self._add_new(group, key, images)
            self.added += 1
        else:
            if self.model and "latents" not in self.run.groups.trajectory(group_id):  # it was imported without a model
                self._encode_prompt(self.model, group.prompt, group.negative)
                self.run.groups.save_latents(group_id, self._latents(images)["latents"])
            self.known += 1
        self.entrants += group.size is not None
        for imported in group.picks:
            who = imported.who or self.who
            pick_id = hashlib.sha256(f"{key} {who}".encode()).hexdigest()[:32]  # an id is recorded once only
            self.run.picks.add(
                group_id, imported.pick, pick_id=pick_id, who=who, shown_order=imported.shown_order, reason=IMPORTED
            )

    def notes(self) -> list[str]:
        """Return sentences that say how images and prompts had to be changed."""
        notes = []
        if self.cropped and self.model:
            unit = self.model.unit
            notes.append(f"Pictures of {self.cropped} groups were cropped by less than {unit} pixels to be encoded.")
        if self.shortened:
            notes.append(f"This model cannot take the negative prompts of {self.shortened} groups: they were dropped.")
        texts = [text for pair in self._prompt_ids for text in pair]
        if self.model and (note := self.model.plain_words(texts, words_of(texts, self._embeddings))):
            notes.append(f"{note}.")
        return notes

    def _add_new(self, group: JudgedGroup, key: str, images: list[Image.Image]) -> str:
        latents = self._latents(images)  # first, so that a group that cannot be encoded leaves nothing in the run
        prompt_id = self._prompt(group)
        entrant = {} if group.size is None else {ENTRANT: group.size}
        return self.run.groups.add(
            prompt_id=prompt_id,
            number=self.run.groups.next_number(),
            seed=0,
            candidates=len(images),
            policy=IMPORTED,
            round=self._round,
            settings={"key": key, "from": group.where, **entrant},
            held_out=False,
            tensors=latents,
            images=images,
        )

    def _prompt(self, group: JudgedGroup) -> int:
        """Return the id of a group's prompt, whose conditioning is stored if there is a model; raises _Unusable."""
        if self.model is None:
            return self.run.prompts.add(group.prompt, group.negative, asked=False)
        try:
            return self._encode_prompt(self.model, group.prompt, group.negative)
        except _Unusable:  # the negative prompt is not trained, so one that is too long is dropped and not the group
            if not group.negative:
                raise
        prompt_id = self._encode_prompt(self.model, group.prompt, "")
        self.shortened += 1
        return prompt_id

    def _encode_prompt(self, model: Encoder, prompt: str, negative: str) -> int:
        """Store a prompt and its conditioning in the run, once, and return its id; raises _Unusable."""
        if (prompt, negative) not in self._prompt_ids:
            try:
                (conditioning,) = model.encode([prompt], negative)
            except D3POError as error:
                raise _Unusable(str(error)) from error
            prompt_id = self.run.prompts.add(prompt, negative, asked=False)
            self.run.prompts.save_conditioning(prompt_id, conditioning)
            self._prompt_ids[prompt, negative] = prompt_id
        return self._prompt_ids[prompt, negative]

    def _latents(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Return a group's latents under their name in a trajectory; {} without a model. Raises _Unusable."""
        if self.model is None:
            return {}
        tensors = torch.stack([to_pixels(image) for image in images])
        cropped = crop(tensors, self.model.unit)
        try:
            latents = check_finite(self.model.encode_images(cropped), "VAE")
        except D3POError as error:
            raise _Unusable(str(error)) from error
        self.cropped += cropped.shape != tensors.shape
        return {"latents": latents.to(STORE_DTYPE)}


def words_of(texts: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return those of the names that are words of the texts, in any case of letters, sorted."""
    whole = "\n".join(texts)
    return sorted(name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", whole, re.IGNORECASE))


def crop(images: Tensor, unit: int) -> Tensor:
    """Crop images (B, 3, H, W) to their centre whose sides are multiples of `unit`; smaller sides stay as they are."""
    for side in (-2, -1):
        length = images.shape[side]
        kept = length - length % unit or length
        images = images.narrow(side, (length - kept) // 2, kept)
    return images


def _key(group: JudgedGroup, images: Sequence[Image.Image]) -> str:
    """Hash a group's prompt, images and picks, by which it is recognised when it is imported again."""
    picks = [(each.who, each.pick.kind, each.pick.order, each.pick.scores) for each in group.picks]
    data = json.dumps([group.prompt, group.negative, picks, [image.size for image in images]]).encode()
    return hashlib.sha256(b"".join([data, *(image.tobytes() for image in images)])).hexdigest()[:32]


LINES = ".jsonl"
METADATA = "metadata.jsonl"
KINDS = f"Choose a {LINES} file, a folder of pictures, or one that holds {METADATA} or {WINNERS} and {LOSERS}."


def read_source(path: str | Path, confined: bool = False) -> JudgedImages:
    """Read the judged images of a source; every image is opened and checked.

    Args:
        path: a folder with `winners` and `losers`, a folder with a data set's `metadata.jsonl`, a `.jsonl` file, or any
            other folder with pictures in it, for a tournament.
        confined: whether to leave out lines that name images outside of the source's folder, without looking for those:
            for sources that a stranger may have written.

    Returns:
        The groups that can be used, and what is left out for which reason.

    Raises:
        D3POError: the path is none of these, or nothing in it can be used.
    """
    path = Path(os.path.expanduser(path))
    judged = drop_contradictions(_read(path, confined))
    if not judged:
        first = judged.left_out[0]
        count = sum(each.groups for each in judged.left_out)
        raise D3POError(f"Nothing in {path} can be used ({count} left out). {first}", safe="Nothing was imported.")
    return judged


def _read(path: Path, confined: bool) -> JudgedImages:
    if path.is_dir():
        if (path / METADATA).is_file():
            return read_rows(path / METADATA, confined)
        if (path / WINNERS).is_dir() or (path / LOSERS).is_dir():
            return read_folders(path)
        if has_pictures(path):
            return read_outputs(path, "" if confined else path.resolve().name)
        state = "is empty" if not any(path.iterdir()) else "holds no picture"
        raise D3POError(f"The folder {path} {state}.", KINDS)
    if not path.is_file():
        raise D3POError(f"There is no file or folder {path}.", KINDS)
    if path.suffix.lower() == ".parquet":
        raise D3POError(
            f"{path.name} is a Parquet file, which is not read.",
            f"Extract its pictures into files, and write its rows to a {LINES} file with their paths.",
        )
    if path.suffix.lower() != LINES:
        raise D3POError(f"{path.name} is not a {LINES} file.", KINDS)
    return read_rows(path, confined)
