"""Teaching by a reward through the host's own VAE: `python inside_reward.py MODELS`.

DRaFT-LV on an SD 1.5 and a flow model: the gradient in the LoRA beside differences of the reward, the pictures beside
the VAE's own, the host before and after, and a round that is interrupted and goes on.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from inside import by_the_host, checkpoint, prompt, report

# isort: split
import comfy.model_management
import torch
from comfy.model_management import InterruptProcessingException
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from pack.d3po_core.app.sampling import add_prompts
from pack.d3po_core.app.training import Next, train_round
from pack.d3po_core.diffusion.denoiser import stack, starting_latents
from pack.d3po_core.diffusion.draft import renoised, sample_through
from pack.d3po_core.diffusion.rollout import make_plan
from pack.d3po_core.diffusion.tiled_decoding import decode_in_tiles
from pack.d3po_core.lora import LayerWeights, attach
from pack.d3po_core.rewards import get_reward
from pack.d3po_core.run import Run
from pack.d3po_core.settings import LoraSettings, RewardSettings, SampleSettings
from pack.d3po_core.training.reward_gradient import PromptSample, RewardGradient
from pack.d3po_core.training.reward_trainer import RewardTrainer
from pack.nodes.host.memory import checkpointed, large_blocks, smallest_blocks
from pack.nodes.host.model import DifferentiableModel
from pack.nodes.host.process import ProgressBar
from pack.nodes.host.sampling import host_sampling
from torch import Tensor

SCALE, PICTURES, FAR = 3.0, 2, 0.003
"""The last is small, because a VAE is full of kinks."""
TILE = 32
"""Pixels: four latents, of eight."""
SAMPLE = SampleSettings(steps=3, guidance_scale=SCALE)
SETTINGS = RewardSettings(updates=4, batch=PICTURES, watch=2, warmup=1, drift_limit=0.0)
reward = get_reward("warmth + 0.5*contrast")


def model_of(name: str) -> DifferentiableModel:
    """Model, VAE, and two prompts of different lengths."""
    loaded = checkpoint(name)
    with torch.inference_mode():
        long = prompt(loaded.clip, "a red boat on a lake, " * 12)
        patcher = loaded.patcher
        if name == "tiny":  # the noise of a random epsilon network is never taken out
            (patcher,) = ModelSamplingDiscrete().patch(patcher, "v_prediction", False)
    model = DifferentiableModel(patcher, loaded.latent, loaded.vae)
    model.prompts |= {"lake": (loaded.positive, loaded.negative), "boat": (long, loaded.negative)}
    return model


def inside(model: DifferentiableModel, work: Callable[[], Any]) -> Any:
    """As the node does it."""
    rows = model.encode(list(model.prompts))
    with torch.inference_mode():
        return host_sampling(model.denoiser, rows, model.latent_shape(), work, beside=[model.decoder.patcher])


def host_draws(model: DifferentiableModel, name: str) -> Tensor:
    """The host's own sampling and decoding."""
    loaded, sigmas = checkpoint(name), model.denoiser.sigmas(3, "model")
    with torch.inference_mode():
        latents = by_the_host(model.patcher, loaded.positive, loaded.negative, loaded.latent, sigmas).latents
        return loaded.vae.decode(latents).clone()


def state(name: str) -> Any:
    """What could have been left changed."""
    loaded, hooks = checkpoint(name), [f"_{kind}_hooks" for kind in ("forward", "forward_pre", "backward")]
    modules = [m for root in (loaded.patcher.model, loaded.vae.first_stage_model) for m in root.modules()]
    values = [v for m in modules for store in (m._parameters, m._buffers) for v in store.values() if v is not None]
    return (
        [(id(value), value.is_inference(), value.requires_grad, value.grad is None) for value in values],
        [len(getattr(module, hook)) for module in modules for hook in hooks],
        ["forward" in vars(module) for module in modules],
        [(dict(p.patches), dict(p.additional_models), repr(p.wrappers)) for p in (loaded.patcher, loaded.vae.patcher)],
        (comfy.model_management.in_training, torch.is_grad_enabled()),
    )


class Examined:
    """DRaFT-LV's gradient on a LoRA with random weights, and the reward of the same noised pictures by another way."""

    def __init__(self, model: DifferentiableModel) -> None:
        self.model = model
        self.lora = attach(model.denoiser.module, LoraSettings(rank=2), kind="hooks")
        rng = torch.Generator().manual_seed(1)
        ups = {path: 0.1 * torch.randn(w.up.shape, generator=rng) for path, w in self.lora.weights().items()}
        self.lora.load({path: LayerWeights(w.down, ups[path], w.alpha) for path, w in self.lora.weights().items()})
        self.parameters = self.lora.parameters()
        self.steps = make_plan(model.denoiser, SAMPLE).steps
        self.scenes = [PromptSample("lake", model.encode(["lake"])[0], number) for number in range(PICTURES)]
        self.rows = stack([scene.conditioning for scene in self.scenes])
        self.gradient = RewardGradient(model, reward, self.steps, model.latent_shape(), SCALE, SETTINGS)
        noises = self.gradient._noises(self.scenes, 0, len(self.steps) + 1)
        with torch.no_grad():
            x = starting_latents(model.denoiser, noises.pop(), float(self.steps.sigma[0]))
            self.clean = sample_through(model.denoiser, self.steps, x, noises, self.rows, SCALE, 1)

    def taken(self) -> list[Tensor]:
        """The gradient of the reward."""
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.gradient.backward(self.scenes, 0, PICTURES)
        return [-parameter.grad.clone() for parameter in self.parameters]

    def value(self) -> float:
        """The mean reward, the samples being as they were before any of the LoRA was changed."""
        level, rewards = float(self.steps.sigma[-1]), []
        with torch.no_grad():
            for noise in self.gradient._noises(self.scenes, "0 again", SETTINGS.noises):
                latents = renoised(self.model.denoiser, self.clean, level, noise, self.rows, SCALE)
                images = self.model.decode(self.model.denoiser.finished(latents))
                rewards.append(float(reward(images.double(), ["lake"] * PICTURES).mean()))
        return sum(rewards) / len(rewards)

    def slope(self, way: list[Tensor]) -> float:
        """How fast the reward really rises that way, which is of length 1."""
        there = []
        with torch.no_grad():
            for far in (FAR, -2 * FAR, FAR):
                for parameter, part in zip(self.parameters, way, strict=True):
                    parameter += far * part
                there.append(self.value())
        return (there[0] - there[1]) / (2 * FAR)


def in_the_smallest_tiles(examined: Examined) -> float:
    """The rise of a tiled picture's brightness along its gradient in the latents, over that gradient's length."""
    latents = examined.model.denoiser.finished(examined.clean).detach()

    def brightness(value: Tensor) -> Tensor:
        return decode_in_tiles(examined.model.decode, value, TILE).double().mean()

    leaf = latents.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(brightness(leaf), leaf)
    way = gradient / gradient.norm()
    with torch.no_grad():
        rise = brightness(latents + FAR * way) - brightness(latents - FAR * way)
    return float(rise / (2 * FAR) / gradient.norm())


def gradients(model: DifferentiableModel, name: str) -> dict[str, Any]:
    """The gradient beside differences, in one entry of the LoRA and along all of it; decoding beside the VAE's own."""
    measures: dict[str, Any] = {}
    kept: list[Tensor] = []

    def work() -> None:
        examined = Examined(model)
        plain, blocks = examined.taken(), smallest_blocks(model.decoder.network)
        with checkpointed([*large_blocks(model.denoiser.module), *blocks]):
            again = examined.taken()
        off = [float((a - b).norm() / b.norm()) for a, b in zip(again, plain, strict=True)]
        measures["tiles"] = in_the_smallest_tiles(examined)
        measures["blocks"], measures["computed twice"], measures["reached"] = (
            len(blocks),
            max(off),
            all(g.any() for g in plain),
        )
        length = float(torch.stack([g.square().sum() for g in plain]).sum().sqrt())
        measures["slope"] = examined.slope([g / length for g in plain]) / length
        which = max(range(len(plain)), key=lambda i: float(plain[i].abs().max()))
        largest = plain[which].abs() == plain[which].abs().max()
        entry = [(largest if i == which else torch.zeros_like(g)).to(g) for i, g in enumerate(plain)]
        measures["entry"] = examined.slope(entry) / float(plain[which][largest])
        with torch.no_grad():
            latents = model.denoiser.finished(examined.clean)
            kept.extend([latents.clone(), model.decode(latents)])
        examined.lora.remove()

    inside(model, work)
    latents, images = kept
    with torch.inference_mode():
        by_vae = checkpoint(name).vae.decode(latents).movedim(-1, 1)
    return {**measures, "off the VAE": float((images - by_vae).abs().max())}


def taught(model: DifferentiableModel, folder: Path, stop: int | None = None) -> Tensor | None:
    """A round; the LoRA's values, None if it was interrupted after so many updates."""
    run = Run.open(folder) if folder.exists() else Run.create(folder, model={"identity": "x"}, settings={})
    ids = add_prompts(run, model, list(model.prompts), "")
    bar, blocks = ProgressBar(), [*large_blocks(model.denoiser.module), *smallest_blocks(model.decoder.network)]

    def after_update(report: Any) -> Next:
        if report.update == stop:
            comfy.model_management.interrupt_current_processing(True)
        bar.at(report.update, report.total)
        return Next.CONTINUE

    def work() -> Any:
        with checkpointed(blocks):
            how = (reward, SETTINGS, LoraSettings(rank=2), SAMPLE)
            return train_round(RewardTrainer.open(run, model, *how, "hooks", ids), after_update)

    with closing(run):
        try:
            weights = inside(model, work).result.weights
        except InterruptProcessingException:
            return None
    return torch.cat([torch.cat([w.down.flatten(), w.up.flatten()]) for _, w in sorted(weights.items())])


def examined(name: str) -> dict[str, Any]:
    model = model_of(name)
    before, then = host_draws(model, name), state(name)
    measures = gradients(model, name)
    with tempfile.TemporaryDirectory() as temporary:
        whole = taught(model, Path(temporary) / "whole")
        measures["interrupted"] = taught(model, Path(temporary) / "parts", stop=2) is None
        gone_on = taught(model, Path(temporary) / "parts")
    assert whole is not None and gone_on is not None
    measures["gone on"] = float((gone_on - whole).norm() / whole.norm())
    gc.collect()
    return {**measures, "same picture": torch.equal(host_draws(model, name), before), "unharmed": state(name) == then}


report({name: examined(name) for name in ("tiny", "tiny-sd3")})
