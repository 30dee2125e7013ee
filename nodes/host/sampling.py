"""Work with gradients inside one sampling of the host's, which takes as long as the work does.

The host loads what the MODEL and the prompts need (ControlNets too), sets everything up, and cleans up after it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Generic, TypeVar

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...d3po_core.diffusion.denoiser import Conditioning
from ...d3po_core.diffusion.trainable import plain_kernels, trainable_tensors
from ...d3po_core.errors import D3POError
from .conditioning import unpack
from .denoiser import HostDenoiser
from .types import Guider, Options, Patcher, WrapperExecutor

EVERYTHING = 1e20
"""Bytes: the host then frees all that it can, as for its own training."""
T = TypeVar("T")


def host_sampling(
    denoiser: HostDenoiser,
    prompts: Sequence[Conditioning],
    shape: Sequence[int],
    work: Callable[[], T],
    beside: Sequence[Patcher] = (),
) -> T:
    """Do something that evaluates the model, with gradients if wanted, leave the host as it was, and return the result.

    Args:
        denoiser: of the MODEL.
        prompts: all that will be asked for, packed; what they need (ControlNets) is loaded too.
        shape: of one image's latents.
        work: what to do.
        beside: further networks of the host's (their patchers) that are to be loaded all the time, with gradients.
    """
    both = [unpack(prompt) for prompt in prompts]
    # Where the host moves weights to and fro while it samples, backward would find others in their place.
    patcher = denoiser.patcher.clone(disable_dynamic=True)
    guider = comfy.samplers.CFGGuider(patcher)
    guider.set_conds([e for positive, _ in both for e in positive], [e for _, negative in both for e in negative])
    guider.set_cfg(1.0)
    empty, sampler = torch.zeros(1, *shape), _InsideSampling(denoiser, work)
    with denoiser.on(patcher), cleaned_up(guider):
        # Not before: it is no other node's.
        patcher.add_wrapper(WrappersMP.PREPARE_SAMPLING, _prepare_all)
        patcher.set_additional_models("d3po", list(beside))
        guider.sample(empty, empty.clone(), sampler, torch.tensor([1.0, 0.0]), seed=0)
    del guider, patcher
    gc.collect()
    comfy.model_management.soft_empty_cache()
    return sampler.results.pop()


@contextmanager
def cleaned_up(guider: Guider) -> Iterator[None]:
    """Let ControlNets go of what they prepared, also when a sampling fails: then the host leaves that out."""
    try:
        yield
    finally:
        comfy.sampler_helpers.cleanup_models(guider.original_conds, [])


class _InsideSampling(comfy.samplers.Sampler, Generic[T]):
    """A "sampler" that does something else while the host believes it is sampling."""

    def __init__(self, denoiser: HostDenoiser, work: Callable[[], T]) -> None:
        self.denoiser, self.work = denoiser, work
        self.results: list[T] = []

    def sample(
        self,
        model_wrap: Guider,
        sigmas: Tensor,
        extra_args: Options,
        callback: Callable[..., None] | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Do the work, and return the noise as it was; see the host's `Sampler`."""
        model_wrap.model_options = extra_args["model_options"]
        patcher = model_wrap.model_patcher
        loaded = [patcher, *model_wrap.loaded_models, *patcher.model_patches_models()]
        # Only here, when everything has been loaded and patched, and is not touched until the work is done.
        networks = [each.model for each in loaded]
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            trainable_tensors(networks),
            # The host's own mark that gradients are wanted, which keeps its networks from kernels that have none.
            _replaced(comfy.model_management, {"in_training": True}),
            plain_kernels(),
            _explained(),
            _overwriting(self.denoiser.patched),
            self.denoiser.inside(model_wrap),
        ):
            self.results.append(self.work())
        return noise


def _prepare_all(executor: WrapperExecutor, model: Patcher, *args: object, **kwargs: object) -> object:
    """Prepare a sampling as the host does, with the complete network loaded and only what it needs beside it."""
    comfy.model_management.load_models_gpu([model], memory_required=EVERYTHING, force_full_load=True)
    return executor(model, *args, **{**kwargs, "force_full_load": True})


@contextmanager
def _replaced(module: ModuleType, values: Mapping[str, object]) -> Iterator[None]:
    """Give names of a module other values for a while."""
    before = {name: getattr(module, name) for name in values}
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(before)


def _overwriting(allowed: bool) -> AbstractContextManager[object]:
    """Return a context in which what autograd has kept is copied before other nodes' patches (FreeU's) overwrite it.
    That takes time for every operation, so only where it is allowed."""
    return torch.autograd.graph.allow_mutation_on_saved_tensors() if allowed else nullcontext()


@contextmanager
def _explained() -> Iterator[None]:
    """Explain what autograd says of tensors that another node brought: they are no network's, so nobody sees them
    before."""
    try:
        yield
    except RuntimeError as error:
        if "Inference tensors" not in str(error):
            raise
        raise D3POError(
            "A node on the way to this MODEL brings weights of its own that nothing can be taught through.",
            "Take the custom nodes between loader and trainer out of the way, one after the other, and sample again.",
            "Your picks are saved.",
        ) from error
