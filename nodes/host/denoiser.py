"""A MODEL as the core's denoiser: the host's own guider, called as its samplers call it, with gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.clip_vision
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_sampling import CONST
from torch import Tensor

from ...d3po_core.diffusion.denoiser import Conditioning, Family, Prediction
from ...d3po_core.errors import D3POError
from .checks import callables
from .conditioning import key_of, unpack
from .recorder import Seen, mask_at, watched
from .types import Cond, Conds, Guider, Options, Patcher

SCHEDULERS = {"model": {"diffusion": "normal", "flow": "simple"}, "karras": {"diffusion": "karras", "flow": "karras"}}
"""The host's names of our schedules; "model" is what its own KSampler node starts with, or what flow models are used
with."""
NEED_BOTH = ("sampler_pre_cfg_function", "sampler_calc_cond_batch_function")
"""Model options that see both branches before guidance, and may change the conditional one by the other."""
BY_FIRST_ROW = ("timestep_start", "timestep_end", "control", "hooks", "gligen")
"""What in a prompt is switched by the noise level of a batch's first row."""


def schedules() -> list[str]:
    """Return the names of all schedules: ours, and the host's own."""
    return list(dict.fromkeys([*SCHEDULERS, *comfy.samplers.SCHEDULER_NAMES]))


class HostDenoiser:
    """A MODEL as the core's `Denoiser`. It can be called inside `sampling.host_sampling` only."""

    module: torch.nn.Module
    family: Family

    def __init__(self, patcher: Patcher) -> None:
        self.patcher, self.module = patcher, patcher.get_model_object("diffusion_model")
        # Functions of other nodes may take a batch to be of one noise level.
        self.patched = any(True for _ in callables([patcher.model_options, patcher.wrappers]))
        self.sampling = patcher.get_model_object("model_sampling")
        self.family = "flow" if isinstance(self.sampling, CONST) else "diffusion"
        self._guider: Guider | None = None
        self._conds: dict[tuple[int, tuple[int, ...]], Conds] = {}

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    def clean(self, latents: Tensor) -> Tensor:
        """Bring a LATENT's tensor into the model's own space."""
        return self.patcher.model.process_latent_in(latents)

    def finished(self, x: Tensor) -> Tensor:
        """Bring latents of the model's own space into that of LATENT: the inverse of `clean`."""
        return self.patcher.model.process_latent_out(x)

    def sigmas(self, steps: int, schedule: str) -> Tensor:
        """Return the host's noise levels, float64 (steps + 1,); `schedule` is ours, or any of the host's schedulers."""
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
        parts, places = list[Prediction](), list[int]()
        for index in rows.values():
            row = {name: value[index[:1]] for name, value in conditioning.items()}
            part = self._one_prompt(x[index], sigma[index], row, guidance_scale, guided)
            if len(rows) == 1:
                return part
            parts.append(part)
            places += index
        order = torch.tensor(places, device=x.device).argsort()
        cond = torch.cat([part.cond for part in parts])[order]
        uncond = [part.uncond for part in parts if part.uncond is not None]
        return Prediction(
            cond,
            torch.cat([part.guided for part in parts])[order] if guided else cond,
            torch.cat(uncond)[order] if len(uncond) == len(parts) else None,
        )

    def _one_prompt(self, x: Tensor, sigma: Tensor, row: Conditioning, scale: float, guided: bool) -> Prediction:
        guider, sigma = self._guider, sigma.to(x)
        assert guider is not None  # inside host_sampling
        both = guided or any(name in guider.model_options for name in NEED_BOTH)
        guider.conds, guider.cfg = self._prepared(row, x), scale if both else 1.0
        if torch.is_grad_enabled():
            _check_hooks({side: guider.conds[side] for side in ("positive", *["negative"] * both)})
        seen: list[Seen] = []
        options = watched(guider.model_options, seen, guided)
        if any("control" in entry for entry in guider.conds["positive"]):
            options["transformer_options"] = _with_own_skips(options["transformer_options"])
        out = guider(x, sigma, model_options=options, seed=0)
        cond, uncond = seen[0].cond, seen[0].uncond if both and scale != 1 else None
        if "mask" in row:  # outside of the mask the host puts the original back
            ends = torch.stack([self.sampling.sigma_max, torch.zeros_like(self.sampling.sigma_max)])
            mask, latent = mask_at(guider, sigma, ends.to(x), row["mask"].to(x)), row["latent"].to(x)
            out, cond = (part * mask + latent * (1 - mask) for part in (out, cond))
            uncond = None if uncond is None else uncond * mask + latent * (1 - mask)
        return Prediction(cond, out if guided else cond, uncond)

    def _one_level(self, row: Conditioning, x: Tensor) -> bool:
        """Return whether a batch of this prompt must be of one noise level."""
        conds = self._prepared(row, x)
        entries = [*conds["positive"], *conds["negative"]]
        return self.patched or any(name in e for e in entries for name in BY_FIRST_ROW)

    def _prepared(self, row: Conditioning, x: Tensor) -> Conds:
        """Return the host's own form of a prompt, made once."""
        key = (key_of(row), tuple(x.shape[1:]))  # areas and masks are made for a size
        if key not in self._conds:
            self._conds[key] = _process(self._guider, *unpack(row), x[:1].detach(), row)
        return self._conds[key]

    @contextmanager
    def on(self, patcher: Patcher) -> Iterator[None]:
        """Use another MODEL object of the same weights for a while."""
        before = self.patcher, self.module
        self.patcher, self.module = patcher, patcher.get_model_object("diffusion_model")
        try:
            yield
        finally:
            self.patcher, self.module = before

    @contextmanager
    def inside(self, guider: Guider) -> Iterator[None]:
        """Evaluate by a guider that is in the middle of sampling, for a while."""
        self._guider, self._conds, own = guider, {}, (guider.conds, guider.cfg)
        try:
            yield
        finally:
            self._guider, self._conds = None, {}
            guider.conds, guider.cfg = own  # the host cleans up after what it prepared


def _check_hooks(conds: Conds) -> None:
    """Refuse weights that the host changes between forward and backward: the gradient would be that of others."""
    if comfy.samplers.get_total_hook_groups_in_conds(conds) > 1:
        raise D3POError(
            "LoRA hooks change the model within a step here, and nothing can be taught through that.",
            "Give all parts of the prompt (with a guided loss, the negative too) the same hooks, or use Load LoRA.",
            "Your picks are saved.",
        )


def _with_own_skips(transformer_options: Options) -> Options:
    """Return options in which a UNet's blocks hand on a copy of what they keep for the skip connections: a ControlNet
    is added to that in place, and autograd needs what the next block began with."""
    patches = transformer_options.get("patches", {})
    after = [lambda h, _: h.clone(), *patches.get("input_block_patch_after_skip", [])]
    return {**transformer_options, "patches": {**patches, "input_block_patch_after_skip": after}}


def _process(guider: Guider, positive: Cond, negative: Cond, like: Tensor, row: Conditioning) -> Conds:
    """Return a prompt as the host's sampling prepares it."""
    conds: Conds = {
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
    """Return the same with tensors that autograd may keep."""
    if isinstance(value, dict):
        return {name: _ordinary(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_ordinary(each) for each in value]
    if isinstance(value, comfy.clip_vision.Output):
        output = comfy.clip_vision.Output()
        vars(output).update(_ordinary(vars(value)))
        return output
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
