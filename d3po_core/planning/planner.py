"""A model's plan: what each kind of work takes with which settings, every count made once."""

from __future__ import annotations

from functools import lru_cache

from torch import nn

from ..models.model import DiffusersModel
from ..settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings
from . import phases
from .networks import NAMES, blank_conditioning, parts, unloaded_model, weight_bytes
from .phases import Teaching

GIB = 2**30
ALLOWANCE = 1.0
"""GiB of a graphics card that no plan gives away: the driver and its libraries, what kernels take while they run, and
waste of the allocator are not counted. An allowance, not a measured figure."""
NETWORKS = ("unet", "transformer")


class Planner:
    """Counts what work on a model takes.

    Args:
        source, base_config, dtype: see `networks.unloaded_model`.
        together: all parts of the model are in memory at once, as on the command line and in the Studio; else the part
            that is needed, as in ComfyUI and Forge.

    Raises:
        D3POError: see `networks.unloaded_model`.
    """

    def __init__(
        self, source: str, base_config: str | None = None, dtype: str = "float32", together: bool = True
    ) -> None:
        self.source, self.base_config, self.dtype, self.together = source, base_config, dtype, together
        self._others = {dtype: self}
        self.model: DiffusersModel = unloaded_model(source, base_config, dtype)
        self._conditioning = blank_conditioning(self.model)
        self.weights = weight_bytes(self.model)
        self.encoding = lru_cache(None)(self._encoding)
        """See `phases.encoding`."""
        self.drawing = lru_cache(None)(self._drawing)
        """See `phases.drawing`."""
        self.teaching = lru_cache(None)(self._teaching)
        """See `phases.teaching`."""
        self.by_reward = lru_cache(None)(self._by_reward)
        """See `phases.teaching_by_reward`."""

    @property
    def name(self) -> str:
        """Return the model's name for people."""
        return NAMES.get(self.source, self.source)

    def with_dtype(self, dtype: str) -> Planner:
        """Return the plan of the same model in another dtype."""
        if dtype not in self._others:
            other = Planner(self.source, self.base_config, dtype, self.together)
            other._others = self._others
            self._others[dtype] = other
        return self._others[dtype]

    def size(self, sample: SampleSettings) -> tuple[int, int]:
        """Return height and width of a picture in pixels.

        Raises:
            D3POError: the model cannot draw in that size.
        """
        factor = self.model.pipeline.vae_scale_factor
        _, height, width = self.model.latent_shape(sample.height, sample.width)
        return height * factor, width * factor

    @property
    def guided_twice(self) -> bool:
        """Return whether guidance takes a second evaluation of the network."""
        return not self.model.denoiser.distilled

    @property
    def held(self) -> int:
        """Return the bytes of the weights that are in memory while the network works."""
        return sum(size for name, size in self.weights.items() if self.together or name in NETWORKS)

    def _parts(self, *names: str) -> list[nn.Module]:
        return [part for name, part in parts(self.model.pipeline).items() if self.together or name in names]

    def _encoding(self) -> int:
        encoders = [part for name, part in parts(self.model.pipeline).items() if name.startswith("text_encoder")]
        held = self._parts() or encoders
        return phases.encoding(encoders, self.model.architecture.tokens, held)

    def _drawing(self, sample: SampleSettings) -> tuple[int, int]:
        return phases.drawing(
            self.model,
            self._conditioning,
            sample,
            self._parts(*NETWORKS),
            None if self.together else self._parts("vae"),
        )

    def _teaching(
        self, sample: SampleSettings, train: TrainSettings, lora: LoraSettings, memory: float | None = None
    ) -> Teaching:
        free = None if memory is None else (memory - ALLOWANCE) * GIB - self.held
        shape = self.model.latent_shape(sample.height, sample.width)
        how = (self.model.denoiser, self._conditioning, shape, sample, train, lora, self._parts(*NETWORKS))
        return phases.teaching(*how, free=free)

    def _by_reward(self, sample: SampleSettings, reward: RewardSettings, lora: LoraSettings) -> Teaching:
        held = self._parts(*NETWORKS, "vae")
        return phases.teaching_by_reward(self.model, self._conditioning, sample, reward, lora, held)
