"""Import images in several turns, so that a host's other work may come between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from d3po_core.diffusion.image_model import Encoder
from d3po_core.importing import Imported, JudgedImages, import_pictures
from d3po_core.run import Run


class Importing:
    """What `import_pictures` does, as work that can be put aside after any group.

    Args:
        run: where to.
        images: what to import.
        who: whose picks they are, where the source does not say.
    """

    def __init__(self, run: Run, images: JudgedImages, who: str) -> None:
        self.total = len(images.groups)
        self.done = False
        self._encoder = _PresentEncoder()
        self._reports: Iterator[Imported] = import_pictures(run, images, cast("Encoder", self._encoder), who)

    def resume(self, encoder: Encoder, should_yield: Callable[[], bool]) -> Iterator[Imported]:
        """Import groups until all are in or there is something else to do, at least one.

        Args:
            encoder: the model that the taste was begun with, as it is in memory now.
            should_yield: whether to put the rest aside.

        Raises:
            D3POError: nothing can be used, or the disk is full.
        """
        self._encoder.present = encoder
        try:
            for report in self._reports:
                self.done = report.done == self.total
                yield report
                if not self.done and should_yield():
                    return
        finally:
            self._encoder.present = None  # the host may load another model meanwhile, and needs the memory for it


class _PresentEncoder:
    """The encoder that is in memory now, only within a turn."""

    def __init__(self) -> None:
        self.present: Encoder | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self.present, name)
