"""What `d3po plan` counts, against what was measured: `python -m benchmarks.plan_memory`.

Random networks of more than 400 MB, among them Stable Diffusion 1.5 in its real configuration. Each line is counted
without values in one process, and done with values in another one, by the program's own functions. Measured is the
peak of resident memory while it is done, over what was resident before the model was made (Python, PyTorch and what a
first small network loads). glibc is asked to give freed memory back at once (MALLOC_MMAP_THRESHOLD_ and others), since
otherwise what is resident is more than what is alive. With a graphics card, `--device cuda` measures
`max_memory_allocated` instead.

Seeds: networks 0, noise 0.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory_use import MIB, peak_resident, resident
from d3po_core.diffusion.denoiser import Conditioning
from d3po_core.diffusion.rollout import CandidateNoise, make_plan
from d3po_core.lora import attach
from d3po_core.models.loading import DTYPES
from d3po_core.models.model import DiffusersModel
from d3po_core.picks import Pick, pairs, scores
from d3po_core.planning import phases
from d3po_core.planning.networks import Configuration, blank_conditioning, configuration_of, parts, pipeline_of
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings, fill_in
from d3po_core.training.passes import checkpointing, fit_batch_limits, pack_optimizer
from d3po_core.training.preference_optimizer import PreferenceOptimizer
from d3po_core.training.reward_gradient import PromptSample, RewardGradient
from d3po_core.training.rows import Reference, TrainingGroup, group_rows

TO_GIVE_BACK = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_MMAP_MAX_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MKL_DISABLE_FAST_MM": "1",
}
SMALL_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def _smaller(source: str, **changes: dict[str, Any]) -> Configuration:
    configuration = configuration_of(source)
    return {name: {**part, **changes.get(name, {})} for name, part in configuration.items()}


NETWORKS: dict[str, Callable[[], Configuration]] = {
    "SD1.5": lambda: configuration_of("sd15"),
    "UNet of 190 M": lambda: _smaller(
        "sd15", unet={"block_out_channels": [192, 384, 640, 640], "cross_attention_dim": 64}, text_encoder=SMALL_TEXT
    ),
    "SDXL's kind, 330 M": lambda: _smaller(
        "sdxl",
        unet={
            "block_out_channels": [128, 256, 640],
            "attention_head_dim": [2, 4, 10],
            "transformer_layers_per_block": [1, 2, 4],
            "cross_attention_dim": 128,
            "projection_class_embeddings_input_dim": 6 * 256 + 64,
        },
        text_encoder=SMALL_TEXT,
        text_encoder_2={**SMALL_TEXT, "projection_dim": 64},
    ),
    "SD3.5-M's kind, 6 layers": lambda: _smaller(
        "sd35-medium",
        transformer={
            "num_layers": 6,
            "dual_attention_layers": [0, 1, 2],
            "joint_attention_dim": 256,
            "pooled_projection_dim": 128,
            "pos_embed_max_size": 64,
        },
        text_encoder={**SMALL_TEXT, "projection_dim": 64},
        text_encoder_2={**SMALL_TEXT, "projection_dim": 64},
        text_encoder_3={"d_model": 256, "d_ff": 512, "num_layers": 2, "num_heads": 4},
    ),
    "Flux's kind, 1 + 2 layers": lambda: _smaller(
        "flux-dev",
        transformer={"num_layers": 1, "num_single_layers": 2, "joint_attention_dim": 256, "pooled_projection_dim": 64},
        text_encoder=SMALL_TEXT,
        text_encoder_2={"d_model": 256, "d_ff": 512, "num_layers": 2, "num_heads": 4},
    ),
}
DRAW = SampleSettings(steps=4, guidance_scale=5.0, candidates=2, batch=2, groups=1)


@dataclass(frozen=True)
class Case:
    """A line of the table: what is done, and on which network."""

    network: str
    side: int
    work: str
    dtype: str = "float32"
    draw: SampleSettings = DRAW
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=2))
    lora: LoraSettings = field(default_factory=LoraSettings)
    reward: RewardSettings = field(default_factory=lambda: RewardSettings(batch=1, checkpointing=False))

    @property
    def sized(self) -> SampleSettings:
        """Return how images are drawn, with their size."""
        return replace(self.draw, width=self.side, height=self.side)


ROWS_1 = TrainSettings(epochs=2, micro_batch=1)
CASES = {
    "SD1.5, drawing 2": Case("SD1.5", 256, "drawing"),
    "SD1.5, decoding 2 of 512": Case("SD1.5", 512, "decoding"),
    "SD1.5, teaching": Case("SD1.5", 256, "teaching", train=ROWS_1),
    "SD1.5, checkpointing": Case("SD1.5", 256, "teaching", train=replace(ROWS_1, checkpointing=True)),
    "UNet, drawing 4 of 512": Case("UNet of 190 M", 512, "drawing", draw=replace(DRAW, candidates=4, batch=4)),
    "UNet, teaching 4 rows": Case(
        "UNet of 190 M", 256, "teaching", draw=replace(DRAW, candidates=4), train=replace(ROWS_1, micro_batch=4)
    ),
    "UNet, guided, published": Case(
        "UNet of 190 M",
        256,
        "teaching",
        train=replace(ROWS_1, guided_loss=True, level="step", credit="step", judge=False, trained_steps=0),
    ),
    "UNet, diffusion-dpo": Case("UNet of 190 M", 256, "teaching", train=replace(ROWS_1, method="diffusion-dpo")),
    "UNet, draft-lv": Case("UNet of 190 M", 256, "reward"),
    "UNet, draft-k of 2, checkpoints, tiles": Case(
        "UNet of 190 M",
        256,
        "reward",
        reward=RewardSettings(batch=1, variant="draft-k", last=2, checkpointing=True, tile=128),
    ),
    "SDXL's kind, drawing, bfloat16": Case("SDXL's kind, 330 M", 512, "drawing", "bfloat16"),
    "SDXL's kind, teaching, bfloat16": Case("SDXL's kind, 330 M", 512, "teaching", "bfloat16", train=ROWS_1),
    "SDXL's kind, checkpointing": Case(
        "SDXL's kind, 330 M", 512, "teaching", train=replace(ROWS_1, checkpointing=True)
    ),
    "SD3.5's kind, teaching": Case("SD3.5-M's kind, 6 layers", 512, "teaching", train=ROWS_1),
    "Flux's kind, drawing": Case("Flux's kind, 1 + 2 layers", 512, "drawing"),
    "Flux's kind, teaching": Case("Flux's kind, 1 + 2 layers", 512, "teaching", train=ROWS_1),
}


def count(case: Case) -> int:
    """Count a case without values; return bytes."""
    model = DiffusersModel(pipeline_of(NETWORKS[case.network](), DTYPES[case.dtype]))
    conditioning, modules = blank_conditioning(model), list(parts(model.pipeline).values())
    if case.work == "reward":
        return phases.teaching_by_reward(model, conditioning, case.sized, case.reward, case.lora, modules).peak
    if case.work == "teaching":
        shape = model.latent_shape(case.side, case.side)
        return phases.teaching(
            model.denoiser, conditioning, shape, case.sized, case.train, case.lora, modules, on_processor=True
        ).peak
    drawn, decoded = phases.drawing(model, conditioning, case.sized, modules)
    return drawn if case.work == "drawing" else decoded


def measure(case: Case, device: str) -> dict[str, float]:
    """Do a case with values; return the peak and the weights, in bytes."""
    place = torch.device(device)
    _load_libraries(place)
    before = resident() if device == "cpu" else 0
    torch.manual_seed(0)
    model = DiffusersModel(pipeline_of(NETWORKS[case.network](), DTYPES[case.dtype], place))
    conditioning = {name: torch.randn(value.shape).to(value.dtype) for name, value in blank_conditioning(model).items()}
    weights = (resident() if device == "cpu" else torch.cuda.memory_allocated()) - before
    work = {"drawing": _draw, "decoding": _decode, "teaching": _teach, "reward": _follow}[case.work]
    work(case, model, conditioning)
    peak = _peak(device) - before
    return {"peak": peak, "weights": weights}


def _load_libraries(device: torch.device) -> None:
    """Let PyTorch and its kernels load what they load once, by a small network of all kinds of layers."""
    from torch.nn import functional as F

    x = torch.randn(2, 64, 16, 16, device=device, requires_grad=True)
    for dtype in (torch.float32, torch.bfloat16):
        y = F.conv2d(x.to(dtype), torch.randn(64, 64, 3, 3, device=device, dtype=dtype), padding=1)
        y = F.silu(F.group_norm(y, 8)).flatten(2).mT
        y = F.gelu(F.linear(y, torch.randn(64, 64, device=device, dtype=dtype)))
        F.scaled_dot_product_attention(y[:, None], y[:, None], y[:, None]).float().square().mean().backward()
    from peft import inject_adapter_in_model  # noqa: F401


def _peak(device: str) -> int:
    """Return the peak since `_forget_peak`."""
    return peak_resident_now() if device == "cpu" else torch.cuda.max_memory_allocated()


def peak_resident_now() -> int:
    """Return the peak of resident memory since `_forget_peak`, in bytes; Linux knows it, elsewhere since the start."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_resident()
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def _forget_peak(device: torch.device) -> None:
    """Let peaks be measured from now on, so that making the networks does not count."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def _drawn(case: Case, model: DiffusersModel, conditioning: Conditioning) -> Any:
    settings = case.sized
    shape = model.latent_shape(settings.height, settings.width)
    noises = [CandidateNoise(0, 0, candidate, shape, settings.start) for candidate in range(settings.candidates)]
    plan = make_plan(model.denoiser, settings)
    return plan, model.sample(plan, noises, [conditioning] * len(noises), settings.guidance_scale)


def _draw(case: Case, model: DiffusersModel, conditioning: Conditioning) -> None:
    _forget_peak(model.denoiser.device)
    _drawn(case, model, conditioning)


@torch.no_grad()
def _decode(case: Case, model: DiffusersModel, conditioning: Conditioning) -> None:
    channels, height, width = model.latent_shape(case.side, case.side)
    latents = torch.randn(case.draw.candidates, channels, height, width, device=model.denoiser.device)
    _forget_peak(model.denoiser.device)
    model.decode(latents)


def _teach(case: Case, model: DiffusersModel, conditioning: Conditioning) -> None:
    """Take two updates as a trainer does, the state kept in between."""
    settings, denoiser = fill_in(case.train), model.denoiser
    group = _random_group(case, model, conditioning)
    _forget_peak(denoiser.device)
    lora = attach(denoiser.module, case.lora.with_targets("all"))
    initial = lora.weights()
    with checkpointing(denoiser.module, settings.checkpointing):
        recorded = group.guided if settings.guided_loss else group.cond
        rows = group_rows(group, recorded, settings.guided_loss, denoiser.device)
        limits = fit_batch_limits(denoiser, rows, settings.micro_batch)
        reference = Reference("base", denoiser, lora.off, limits.forward)
        fit = PreferenceOptimizer(
            denoiser, lora.parameters(), {group.id: 1}, {}, lambda name: group, reference, settings, limits
        )
        fit.update()
        saved = pack_optimizer(fit.optimizer.adamw, fit.parameters)
        fit.update()
    del initial, saved


def _random_group(case: Case, model: DiffusersModel, conditioning: Conditioning) -> TrainingGroup:
    """Make a group of noise, as large as a drawn one."""
    plan, count = make_plan(model.denoiser, case.sized), case.draw.candidates
    shape = model.latent_shape(case.side, case.side)
    pick = Pick("ranking", tuple(range(count)))
    x, cond, guided = (torch.randn(count, plan.trained + more, *shape) for more in (1, 0, 0))
    return TrainingGroup(
        id="0",
        pairs=pairs(pick, count),
        scores=scores(pick, count),
        steps=plan.steps[: plan.trained],
        x=x,
        cond=cond,
        guided=guided,
        latents=torch.randn(count, *shape),
        policy="base",
        conditioning=conditioning,
        guidance_scale=case.draw.guidance_scale,
    )


def _follow(case: Case, model: DiffusersModel, conditioning: Conditioning) -> None:
    """Take two updates by a reward, the state kept in between."""
    denoiser, settings = model.denoiser, case.reward
    steps, shape = make_plan(denoiser, case.sized).steps, model.latent_shape(case.side, case.side)

    def reward(images: Tensor, prompts: list[str]) -> Tensor:
        return images.flatten(1).mean(1)

    _forget_peak(denoiser.device)
    lora = attach(denoiser.module, case.lora.with_targets("attention"))
    adamw = torch.optim.AdamW(lora.parameters(), lr=1e-4)
    gradient = RewardGradient(model, reward, steps, shape, case.draw.guidance_scale, settings)
    samples = [PromptSample("", conditioning, number) for number in range(settings.batch)]
    saved: object = None
    for update in range(2):
        gradient.backward(samples, update, settings.micro_batch or settings.batch)
        adamw.step()
        adamw.zero_grad()
        saved = pack_optimizer(adamw, lora.parameters())
    del saved


def in_a_process(line: str, how: str, device: str) -> dict[str, float]:
    """Count or measure a line in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.plan_memory", f"--{how}", line, "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **TO_GIVE_BACK})
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--only", default="", help="lines whose name begins so")
    parser.add_argument("--count", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(2)
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    if options.count:
        print(json.dumps({"peak": count(CASES[options.count])}))
        return
    if options.measure:
        print(json.dumps(measure(CASES[options.measure], options.device)))
        return
    print(f"{'':40}{'side':>5}{'weights, MiB':>14}{'counted':>9}{'measured':>10}{'counted is':>12}")
    for line, case in CASES.items():
        if not line.startswith(options.only):
            continue
        counted = in_a_process(line, "count", options.device)["peak"]
        measured = in_a_process(line, "measure", options.device)
        print(
            f"{line:40}{case.side:>5}{measured['weights'] / MIB:>14,.0f}{counted / MIB:>9,.0f}"
            f"{measured['peak'] / MIB:>10,.0f}{counted / measured['peak'] - 1:>+12.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
