"""A MODEL as the core's denoiser: the host's own guider, called as its samplers call it, with gradients.

All of it happens inside one sampling of the host's that takes as long as the work does: the host loads what the MODEL
and the prompts need (ControlNets too), sets everything up, and cleans up after it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_sampling import CONST
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...d3po_core.diffusion.denoiser import Conditioning, Family, Prediction
from ...d3po_core.diffusion.trainable import trainable_tensors
from ...d3po_core.errors import D3POError
from .conditioning import Cond, key_of, unpack
from .kernels import plain_kernels
from .recorder import Seen, mask_at, watched

SCHEDULERS = {"model": {"diffusion": "normal", "flow": "simple"}, "karras": {"diffusion": "karras", "flow": "karras"}}
"""The host's names of our schedules; "model" is what its own KSampler node starts with, or what flow models are used
with."""
NEED_BOTH = ("sampler_pre_cfg_function", "sampler_calc_cond_batch_function")
"""Model options that see both branches before guidance, and may change the conditional one by the other."""
BY_FIRST_ROW = ("timestep_start", "timestep_end", "control", "hooks", "gligen")
"""What in a prompt is switched by the noise level of a batch's first row."""
EVERYTHING = 1e20
"""Bytes: the host then frees all that it can, as for its own training."""

Conds = dict[str, list[dict[str, Any]]]


def schedules() -> list[str]:
    """Names of all schedules: ours, and the host's own."""
    return list(dict.fromkeys([*SCHEDULERS, *comfy.samplers.SCHEDULER_NAMES]))


class HostDenoiser:
    """A MODEL as the core's `Denoiser`. It can be called inside `host_sampling` only."""

    module: torch.nn.Module
    family: Family

    def __init__(self, patcher: Any) -> None:
        self._use(patcher)
        self.sampling = patcher.get_model_object("model_sampling")
        self.family = "flow" if isinstance(self.sampling, CONST) else "diffusion"
        self._guider: Any = None
        self._conds: dict[tuple[int, tuple[int, ...]], Conds] = {}

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    def clean(self, latents: Tensor) -> Tensor:
        """A LATENT's tensor in the model's own space."""
        return self.patcher.model.process_latent_in(latents)

    def finished(self, x: Tensor) -> Tensor:
        """The inverse of `clean`."""
        return self.patcher.model.process_latent_out(x)

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        """The host's noise levels, float64 (steps + 1,); `schedule` is ours, or any of the host's schedulers."""
        name = SCHEDULERS[schedule][self.family] if schedule in SCHEDULERS else schedule
        return comfy.samplers.calculate_sigmas(self.sampling, name, steps).double().cpu()

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        """Predict the clean latents, rows together that the host can evaluate together."""
        rows: dict[tuple[int, float], list[int]] = {}
        for i, key in enumerate(conditioning["key"].flatten().tolist()):
            one_level = self._one_level({name: value[i : i + 1] for name, value in conditioning.items()}, x)
            rows.setdefault((key, float(sigma[i]) if one_level else -1.0), []).append(i)
        cond, full = torch.empty_like(x), torch.empty_like(x)
        for index in rows.values():
            row = {name: value[index[:1]] for name, value in conditioning.items()}
            found = self._one_prompt(x[index], sigma[index], row, guidance_scale, guided)
            if len(rows) == 1:
                return found
            at = torch.tensor(index, device=x.device)
            cond, full = cond.index_copy(0, at, found.cond), full.index_copy(0, at, found.guided)
        return Prediction(cond, full if guided else cond)

    def _one_prompt(self, x: Tensor, sigma: Tensor, row: Conditioning, scale: float, guided: bool) -> Prediction:
        guider, sigma = self._guider, sigma.to(x)
        both = guided or any(name in guider.model_options for name in NEED_BOTH)
        guider.conds, guider.cfg = self._of(row, x), scale if both else 1.0
        if torch.is_grad_enabled():
            _check_hooks({side: guider.conds[side] for side in ("positive", *["negative"] * both)})
        seen: list[Seen] = []
        options = watched(guider.model_options, seen, guided)
        if any("control" in entry for entry in guider.conds["positive"]):
            options["transformer_options"] = _with_own_skips(options["transformer_options"])
        out = guider(x, sigma, model_options=options, seed=0)
        cond = seen[0].cond
        if "mask" in row:  # outside of the mask the host puts the original back
            ends = torch.stack([self.sampling.sigma_max, torch.zeros_like(self.sampling.sigma_max)])
            mask, latent = mask_at(guider, sigma, ends.to(x), row["mask"].to(x)), row["latent"].to(x)
            out, cond = (part * mask + latent * (1 - mask) for part in (out, cond))
        return Prediction(cond, out if guided else cond)

    def _one_level(self, row: Conditioning, x: Tensor) -> bool:
        """Whether a batch of this prompt must be of one noise level."""
        conds = self._of(row, x)
        entries = [*conds["positive"], *conds["negative"]]
        return self._patched or any(name in e for e in entries for name in BY_FIRST_ROW)

    def _of(self, row: Conditioning, x: Tensor) -> Conds:
        """The host's own form of a prompt, made once."""
        key = (key_of(row), tuple(x.shape[1:]))  # areas and masks are made for a size
        if key not in self._conds:
            self._conds[key] = _processed(self._guider, *unpack(row), x[:1].detach(), row)
        return self._conds[key]

    def _use(self, patcher: Any) -> None:
        self.patcher, self.module = patcher, patcher.get_model_object("diffusion_model")
        self._patched = _carries_code([patcher.model_options, patcher.wrappers])

    @contextmanager
    def _on(self, patcher: Any) -> Iterator[None]:
        """Another MODEL object of the same weights instead."""
        before = self.patcher
        self._use(patcher)
        try:
            yield
        finally:
            self._use(before)

    @contextmanager
    def _inside(self, guider: Any) -> Iterator[None]:
        self._guider, self._conds, own = guider, {}, (guider.conds, guider.cfg)
        try:
            yield
        finally:
            self._guider, self._conds = None, {}
            guider.conds, guider.cfg = own  # the host cleans up after what it prepared


def _carries_code(options: Any) -> bool:
    """Whether there are functions of other nodes in model options: these may take a batch to be of one noise level."""
    if isinstance(options, dict):
        options = options.values()
    elif not isinstance(options, list | tuple):
        return callable(options)
    return any(map(_carries_code, options))


def _check_hooks(conds: Conds) -> None:
    """Weights that the host changes between forward and backward would make the gradient that of other weights."""
    if comfy.samplers.get_total_hook_groups_in_conds(conds) > 1:
        raise D3POError(
            "LoRA hooks change the model within a step here, and nothing can be taught through that.",
            "Give all parts of the prompt (with a guided loss, the negative too) the same hooks, or use Load LoRA.",
            "Your picks are saved.",
        )


def _with_own_skips(transformer_options: dict[str, Any]) -> dict[str, Any]:
    """Transformer options in which a UNet's blocks hand on a copy of what they keep for the skip connections: a
    ControlNet is added to that in place, and autograd wants what the next block began with."""
    patches = transformer_options.get("patches", {})
    after = [lambda h, _: h.clone(), *patches.get("input_block_patch_after_skip", [])]
    return {**transformer_options, "patches": {**patches, "input_block_patch_after_skip": after}}


def _processed(guider: Any, positive: Cond, negative: Cond, like: Tensor, row: Conditioning) -> Conds:
    """A prompt as the host's sampling prepares it."""
    conds = {
        side: [_ordinary(entry) for entry in comfy.sampler_helpers.convert_cond(cond)]
        for side, cond in (("positive", positive), ("negative", negative))
    }
    comfy.samplers.preprocess_conds_hooks(conds)
    comfy.samplers.filter_registered_hooks_on_conds(conds, guider.model_options)
    empty = torch.zeros_like(like)
    latent, mask = (row[name].to(like) if name in row else None for name in ("latent", "mask"))
    around = empty if latent is None else latent
    return comfy.samplers.process_conds(guider.inner_model, empty, conds, like.device, around, mask, 0)


def _ordinary(value: Any) -> Any:
    """The same with tensors that autograd may keep."""
    if isinstance(value, dict):
        return {name: _ordinary(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_ordinary(each) for each in value]
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


class _InsideSampling(comfy.samplers.Sampler):
    """A "sampler" that does something else while the host believes it is sampling."""

    def __init__(self, denoiser: HostDenoiser, work: Callable[[], None]) -> None:
        self.denoiser, self.work = denoiser, work

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        model_wrap.model_options = extra_args["model_options"]
        patcher = model_wrap.model_patcher
        loaded = [patcher, *model_wrap.loaded_models, *patcher.model_patches_models()]
        # Only here, when everything has been loaded and patched, and is not touched until the work is done.
        networks = [each.model for each in loaded]
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            trainable_tensors(networks),
            _said_to_train(),
            plain_kernels(),
            _explained(),
            _overwriting(self.denoiser._patched),
            self.denoiser._inside(model_wrap),
        ):
            self.work()
        return noise


@contextmanager
def _said_to_train() -> Iterator[None]:
    """The host's own sign that gradients are wanted, which keeps its networks from kernels that have none."""
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    try:
        yield
    finally:
        comfy.model_management.in_training = before


def _overwriting(allowed: bool) -> AbstractContextManager[Any]:
    """Where other nodes' patches (FreeU's) overwrite what autograd has kept, it is copied first. That takes time for
    every operation, so only there."""
    return torch.autograd.graph.allow_mutation_on_saved_tensors() if allowed else nullcontext()


@contextmanager
def _explained() -> Iterator[None]:
    """Tensors that another node brought, and that are no network's, are not found before autograd meets them."""
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


def host_sampling(
    denoiser: HostDenoiser,
    prompts: Sequence[Conditioning],
    shape: Sequence[int],
    work: Callable[[], None],
    beside: Sequence[Any] = (),
) -> None:
    """Do something that evaluates the model, with gradients if wanted, and leave the host as it was.

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
    empty = torch.zeros(1, *shape)
    with denoiser._on(patcher), cleaned_up(guider):
        # Not before: it is no other node's.
        patcher.add_wrapper(WrappersMP.PREPARE_SAMPLING, _prepared_whole)
        patcher.set_additional_models("d3po", list(beside))
        guider.sample(empty, empty.clone(), _InsideSampling(denoiser, work), torch.tensor([1.0, 0.0]), seed=0)
    del guider, patcher
    gc.collect()
    comfy.model_management.soft_empty_cache()


def _prepared_whole(executor: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    """The host's preparation of a sampling, the network wholly loaded and nothing else beside what it needs."""
    comfy.model_management.load_models_gpu([model], memory_required=EVERYTHING, force_full_load=True)
    return executor(model, *args, **{**kwargs, "force_full_load": True})


@contextmanager
def cleaned_up(guider: Any) -> Iterator[None]:
    """ControlNets let go of what they prepared, also when a sampling fails: then the host leaves that out."""
    try:
        yield
    finally:
        comfy.sampler_helpers.cleanup_models(guider.original_conds, [])
