"""The one model in memory. A taste names its own; another one takes its place when another taste is worked on."""

from __future__ import annotations

from typing import Any

from d3po_core.diffusion.image_model import ImageModel
from d3po_core.errors import D3POError
from d3po_core.run import Run


class Models:
    """Loads models when they are needed and keeps the last one."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._model: ImageModel | None = None

    def get(self, source: str, base_config: str | None = None, dtype: str = "float32") -> ImageModel:
        """A model by its source, as `d3po_core.models.load_model` takes it.

        Raises:
            D3POError: it cannot be loaded.
        """
        key = (source, base_config, dtype)
        if self._model is None or key != self._key:
            from d3po_core.models import load_model

            self._model = None  # two would not fit
            self._model = load_model(source, base_config=base_config, dtype=dtype, device=None)
            self._key = key
        return self._model

    @property
    def device(self) -> str:
        """Where the model in memory is."""
        return "cpu" if self._model is None else str(self._model.denoiser.device)

    def of(self, run: Run) -> ImageModel:
        """The model that a run was begun with.

        Raises:
            D3POError: it cannot be loaded, or another one lies in its place now.
        """
        about = run.model
        if not about.get("source"):
            raise D3POError("This taste does not know where its model lies.", "Open it in the program that made it.")
        model = self.get(about["source"], about.get("base_config"), about.get("dtype", "float32"))
        if model.identity != about["identity"]:
            raise D3POError(
                f"The model at {about['source']} is not the one that this taste was begun with.",
                "Put the old one back, or begin a new taste.",
                "Your picks are saved.",
            )
        return model
