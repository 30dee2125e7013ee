"""What training takes in memory over sampling: `python -m benchmarks.training_memory`.

A random UNet of more than 400 MB. Sampling, and each way of training, run in a process of their own, from the same run
on disk, through the trainer that the command line uses. Peak resident memory is compared with sampling's; parameters
are counted during the updates, every storage once, so a second copy of the network would show twice: in the count, and
as 400 MB more. Training goes row by row here (micro_batch 1), because the trainer otherwise fills what memory is free.

The published procedure (`published`) stands beside it, as the authors' code does it: policy and deep-copied reference.

Seeds: network 0, noise 0, prompts 0 and 1.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from benchmarks.memory_use import MIB, module_bytes, parameter_bytes, peak_resident
from benchmarks.published import PublishedProcedure, Recorded
from benchmarks.random_models import RECORDED, denoiser_of, draw_group, random_unet, scheduler
from d3po_core.diffusion.rollout import STORE_DTYPE
from d3po_core.diffusion.steps import LinearSteps
from d3po_core.lora import attach
from d3po_core.picks import Pick
from d3po_core.run import Run
from d3po_core.settings import PUBLISHED, LoraSettings, SampleSettings, TrainSettings, replace
from d3po_core.training.trainer import Trainer

GROUPS = 2
SAMPLE = SampleSettings(steps=8, guidance_scale=5.0)
TRAIN = TrainSettings(epochs=1, micro_batch=1)


@dataclass(frozen=True)
class Scale:
    channels: tuple[int, ...]
    side: int


FULL = Scale((256, 512, 512), 16)
QUICK = Scale((32, 64), 8)
WAYS = {
    "training, default": TRAIN,
    "training, default, checkpointing": dataclasses.replace(TRAIN, checkpointing=True),
    "training, guided loss": dataclasses.replace(TRAIN, guided_loss=True),
}


class Watch:
    """Counts parameters whenever the network is called, the first few times."""

    def __init__(self, module: nn.Module) -> None:
        self.calls, self.most = 0, 0
        self.handle = module.register_forward_hook(self.look)

    def look(self, *_: Any) -> None:
        self.calls += 1
        if self.calls in (1, 4, 16):
            self.most = max(self.most, parameter_bytes())


def sampling(unet: nn.Module, scale: Scale, folder: Path) -> None:
    """Draw the groups, and leave them judged in a run."""
    denoiser = denoiser_of(unet)
    run = Run.create(folder / "run", model={"identity": "random"}, settings={})
    prompt = run.prompts.add("noise")
    for number in range(GROUPS):
        group = draw_group(denoiser, scale.side, SAMPLE, number)
        run.prompts.save_conditioning(prompt, group.conditioning)
        tensors = {name: getattr(group, name).to(STORE_DTYPE) for name in RECORDED}
        steps = torch.stack([getattr(group.steps, name) for name in LinearSteps.__dataclass_fields__])
        group_id = run.groups.add(
            prompt_id=prompt,
            number=run.groups.next_number(),
            seed=SAMPLE.seed,
            candidates=SAMPLE.candidates,
            policy="base",
            round=0,
            settings=dataclasses.asdict(SAMPLE),
            held_out=False,
            tensors={**tensors, "steps": steps},
            images=[Image.new("RGB", (8, 8))] * SAMPLE.candidates,
        )
        run.picks.add(group_id, Pick("favourite", (0,)))
    run.close()


def training(unet: nn.Module, settings: TrainSettings, folder: Path) -> None:
    """Train one round on a copy of the run, as the command line does."""
    run = Run.open(folder / "run")
    with Trainer.open(run, denoiser_of(unet), settings, LoraSettings()) as trainer:
        for _ in trainer.steps():
            pass
    run.close()


def published(unet: nn.Module, scale: Scale) -> None:
    """Train on one pair with the published procedure, which has a deep-copied reference."""
    settings = replace(SAMPLE, {**PUBLISHED["sample"], "steps": 4})
    group = draw_group(denoiser_of(unet), scale.side, settings, 0)
    reference = copy.deepcopy(unet)
    parameters = attach(unet, LoraSettings(targets="attention")).parameters()
    levels = torch.cat([group.steps.sigma, group.steps.sigma_next[-1:]])
    prompt, negative = group.conditioning["prompt_embeds"], group.conditioning["negative_prompt_embeds"]
    procedure = PublishedProcedure(unet, reference, parameters, scheduler())
    procedure.pair(Recorded.of(group.x, levels, prompt, negative, scheduler()), 0, 1)


def worker(way: str, scale: Scale, folder: Path) -> dict[str, int]:
    """Run one way in this process; return bytes of memory."""
    unet = random_unet(scale.channels, scale.side)
    size = module_bytes(unet)
    watch = Watch(unet)
    if way == "sampling":
        sampling(unet, scale, folder)
    elif way == "published procedure":
        published(unet, scale)
    else:
        training(unet, WAYS[way], folder)
    return {"network": size, "peak": peak_resident(), "parameters": watch.most}


def run_worker(way: str, folder: Path, options: argparse.Namespace) -> dict[str, int]:
    """Run one way in a new process, on a fresh copy of the run that sampling made."""
    import shutil

    with tempfile.TemporaryDirectory() as temporary:
        own = Path(temporary)
        if (folder / "run").exists():
            shutil.copytree(folder / "run", own / "run")
        command = [sys.executable, "-m", "benchmarks.training_memory", "--way", way, "--folder", str(own)]
        command += ["--threads", str(options.threads)] + ["--quick"] * options.quick
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        if way == "sampling":
            shutil.copytree(own / "run", folder / "run")
    figures: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny network, to see that it works")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scale = QUICK if options.quick else FULL
    if options.way:
        print(json.dumps(worker(options.way, scale, options.folder)))
        return
    print(f"Random UNet {scale.channels}, latents 4x{scale.side}x{scale.side}, float32, sampled two images at a time\n")
    print(f"{'':36}{'peak, MiB':>11}{'over sampling':>15}{'in networks':>13}{'parameters, MiB':>17}{'in networks':>13}")
    with tempfile.TemporaryDirectory() as temporary:
        sampled = 0
        for way in ("sampling", *WAYS, "published procedure"):
            figures = run_worker(way, Path(temporary), options)
            sampled = sampled or figures["peak"]
            over, network = figures["peak"] - sampled, figures["network"]
            print(
                f"{way:36}{figures['peak'] / MIB:>11,.0f}{over / MIB:>15,.0f}{over / network:>13.2f}"
                f"{figures['parameters'] / MIB:>17,.0f}{figures['parameters'] / network:>13.2f}",
                flush=True,
            )
    print(f"\nnetwork: {network / MIB:,.0f} MiB")


if __name__ == "__main__":
    main()
