"""Bringing pictures in, in several turns: a host's own work may come between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from d3po_core.diffusion.denoiser import Conditioning
from d3po_core.diffusion.image_model import Encoder
from d3po_core.run import Run

if TYPE_CHECKING:
    from d3po_core.importing import Imported, JudgedImages


class Importing:
    """What `imported.import_pictures` does, which can be put aside after any group.

    Args:
        run: where to.
        found: what is brought.
        who: whose picks they are, where the source does not say.
    """

    def __init__(self, run: Run, found: JudgedImages, who: str) -> None:
        from d3po_core.importing import import_pictures

        self.total = len(found.groups)
        self.done = False
        self._encoder = _Latest()
        self._reports: Iterator[Imported] = import_pictures(run, found, self._encoder, who)

    def go_on(self, model: Any, others_wait: Callable[[], bool]) -> Iterator[Imported]:
        """Bring groups in until all are in or others wait, at least one.

        Args:
            model: that the taste was begun with, as it is in memory now.
            others_wait: whether to put it aside.

        Raises:
            D3POError: nothing can be used, or the disk is full.
        """
        self._encoder.model = model
        try:
            for said in self._reports:
                self.done = said.done == self.total
                yield said
                if not self.done and others_wait():
                    return
        finally:
            del self._encoder.model  # the host may load another one meanwhile, for which this must leave the memory


class _Latest:
    """The encoder that is in memory now."""

    model: Encoder

    @property
    def unit(self) -> int:
        return self.model.unit

    def encode(self, prompts: list[str], negative: str = "") -> list[Conditioning]:
        return self.model.encode(prompts, negative)

    def encode_images(self, images: Tensor) -> Tensor:
        return self.model.encode_images(images)
