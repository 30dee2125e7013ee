"""What training costs, against the published procedure on the same model: `python -m benchmarks.training_cost`.

Seconds for a pair to be used once, and memory on top of the loaded model, of

    published            policy and deep-copied reference, guided, for every pair, image and step anew (`published`)
    same loss            the published loss on 7-image groups, as the trainer computes it, and in two passes
    default              the default preset, on pairs of two and on 7-image groups

Every procedure has a process of its own, all are alive during the whole run, and take turns: time is measured
interleaved, memory apart. The gradient of "same loss" is compared with the published one, summed over the group's 21
pairs at the same LoRA; for that, learning rates are 0, which costs the same.

The default preset trains one recorded step of each image in an update, "same loss" all of them, as published.

Seeds: network 0, LoRA 1, noise 0, prompts 0 to 8.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory_use import MIB, peak_resident, resident
from benchmarks.published import PublishedProcedure, Recorded
from benchmarks.random_models import (
    denoiser_of,
    draw_group,
    load_groups,
    random_lora,
    random_unet,
    save_groups,
    scheduler,
)
from d3po_core.lora import Lora, attach
from d3po_core.settings import PUBLISHED, LoraSettings, SampleSettings, TrainSettings, fill_in, replace
from d3po_core.training.passes import BatchLimits, fit_batch_limits
from d3po_core.training.preference_optimizer import PreferenceOptimizer
from d3po_core.training.rows import Reference, TrainingGroup, group_rows

GUIDANCE = 5.0
LORA_SIZE = 0.003  # of the `up` matrices: log-ratios then reach the clamp in a few steps only


@dataclass(frozen=True)
class Scale:
    """How large the benchmark is."""

    channels: tuple[int, ...]
    side: int
    steps: int
    candidates: int
    groups_of_two: int
    two_pass_rows: int
    repeats: int


FULL = Scale((64, 128, 256), 32, 20, 7, 8, 3, 2)
QUICK = Scale((32, 64), 16, 6, 3, 2, 2, 2)


def same_loss(**changes: Any) -> TrainSettings:
    return dataclasses.replace(
        replace(TrainSettings(), PUBLISHED["train"]), learning_rate=1e-30, grad_clip=1e9, epochs=1000, **changes
    )


class Ours:
    """The trainer's updates on some groups.

    Args:
        scale: of the benchmark.
        groups: to train on.
        settings: how.
        limits: rows at once; None as the trainer finds it.
    """

    def __init__(
        self, scale: Scale, groups: list[TrainingGroup], settings: TrainSettings, limits: BatchLimits | None = None
    ) -> None:
        denoiser = denoiser_of(random_unet(scale.channels, scale.side))
        lora = attached(denoiser.module)
        self.groups, self.pairs = groups, sum(len(g.pairs) for g in groups)
        by_id = {group.id: group for group in groups}
        counts = {group.id: len(group.pairs) for group in groups}
        if limits is None:
            guided = settings.guided_loss
            recorded = groups[0].guided if guided else groups[0].cond
            limits = fit_batch_limits(denoiser, group_rows(groups[0], recorded, guided, denoiser.device))
        reference = Reference("base", denoiser, lora.off, limits.forward)
        self.fit = PreferenceOptimizer(
            denoiser, lora.parameters(), counts, {}, by_id.__getitem__, reference, fill_in(settings), limits
        )

    def unit(self) -> int:
        """Train for one epoch; return the number of pairs that it used."""
        for _ in range(self.fit.total // self.fit.settings.epochs):
            self.fit.update()
        return self.pairs

    def gradient(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.fit.parameters if p.grad is not None])

    def extra(self) -> dict[str, float]:
        """Measure the clamp's share."""
        return {"clipped": self.fit.measure([group.id for group in self.groups]).clip_fraction}


class Published:
    """The published procedure on one group, of whose pairs every repeat uses an equal part."""

    def __init__(self, scale: Scale, group: TrainingGroup) -> None:
        policy = random_unet(scale.channels, scale.side)
        reference = copy.deepcopy(policy)
        lora = attached(policy)
        schedule = scheduler()
        self.procedure = PublishedProcedure(policy, reference, lora.parameters(), schedule, GUIDANCE, learning_rate=0.0)
        levels = torch.cat([group.steps.sigma, group.steps.sigma_next[-1:]])
        prompt, negative = group.conditioning["prompt_embeds"], group.conditioning["negative_prompt_embeds"]
        self.group = Recorded.of(group.x, levels, prompt, negative, schedule)
        self.pairs, self.at_once = group.pairs, -(-len(group.pairs) // scale.repeats)
        self.sum: Tensor | None = None
        self.done = 0

    def unit(self) -> int:
        part = self.pairs[self.done : self.done + self.at_once]
        for pair in part:
            gradient = torch.cat([g.flatten() for g in self.procedure.pair(self.group, pair.winner, pair.loser)])
            self.sum = gradient if self.sum is None else self.sum + gradient
        self.done += len(part)
        return len(part)

    def gradient(self) -> Tensor:
        """Return the gradient, a mean over all pairs."""
        assert self.sum is not None and self.done == len(self.pairs)
        return self.sum / self.done

    def extra(self) -> dict[str, float]:
        return {}


def attached(unet: torch.nn.Module) -> Lora:
    settings = LoraSettings(targets="attention")  # for all ways alike
    return attach(unet, settings, start=random_lora(unet, settings, LORA_SIZE))


def default() -> TrainSettings:
    return TrainSettings(learning_rate=1e-30, epochs=1000)


def make(name: str, scale: Scale, folder: Path) -> Ours | Published:
    def groups(kind: str) -> list[TrainingGroup]:
        return load_groups(folder / f"{kind}.safetensors", GUIDANCE)

    makers: dict[str, Callable[[], Ours | Published]] = {
        "published": lambda: Published(scale, groups("all")[0]),
        "same loss": lambda: Ours(scale, groups("all"), same_loss()),
        "same loss, two passes": lambda: Ours(
            scale, groups("all"), same_loss(), BatchLimits(*[scale.two_pass_rows] * 2)
        ),
        "default, pairs of two": lambda: Ours(scale, groups("two"), default()),
        f"default, groups of {scale.candidates}": lambda: Ours(scale, groups("many"), default()),
    }
    return makers[name]()


def names(scale: Scale) -> list[str]:
    return [
        "published",
        "same loss",
        "same loss, two passes",
        "default, pairs of two",
        f"default, groups of {scale.candidates}",
    ]


def worker(name: str, scale: Scale, folder: Path, threads: int, pipe: Connection) -> None:
    """Run one procedure in its own process: a unit of work for each request."""
    torch.set_num_threads(threads)
    procedure = make(name, scale, folder)
    before = resident()
    while (order := pipe.recv()) != "stop":
        if order == "unit":
            begin = time.perf_counter()
            pairs = procedure.unit()
            pipe.send((time.perf_counter() - begin) / pairs)
        elif order == "memory":
            pipe.send(max(0, peak_resident() - before))
        elif order == "extra":
            pipe.send(procedure.extra())
        else:
            pipe.send(procedure.gradient().numpy())


def draw(scale: Scale, folder: Path) -> None:
    """Draw the groups that all procedures train on."""
    denoiser = denoiser_of(random_unet(scale.channels, scale.side))
    base = SampleSettings(steps=scale.steps, guidance_scale=GUIDANCE, candidates=scale.candidates)
    save_groups([draw_group(denoiser, scale.side, replace(base, PUBLISHED["sample"]), 0)], folder / "all.safetensors")
    save_groups([draw_group(denoiser, scale.side, base, 0)], folder / "many.safetensors")
    two = replace(base, {"candidates": 2})
    groups = [draw_group(denoiser, scale.side, two, 1 + n) for n in range(scale.groups_of_two)]
    save_groups(groups, folder / "two.safetensors")


def measure(scale: Scale, threads: int) -> dict[str, dict[str, Any]]:
    """Lets the procedures take turns; seconds per pair of every repeat, bytes, gradient, and what else they tell."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw(scale, folder)
        pipes = {}
        for name in names(scale):
            pipes[name], far = context.Pipe()
            context.Process(target=worker, args=(name, scale, folder, threads, far), daemon=True).start()

        def ask(name: str, order: str) -> Any:
            pipes[name].send(order)
            return pipes[name].recv()

        seconds: dict[str, list[float]] = {name: [] for name in pipes}
        for repeat in range(scale.repeats):
            for name in pipes:
                seconds[name].append(ask(name, "unit"))
                print(f"  {repeat + 1}/{scale.repeats}  {name}: {seconds[name][-1]:.3f} s a pair", flush=True)
        found = {
            name: {
                "seconds": seconds[name],
                "bytes": ask(name, "memory"),  # before anything else is done
                "gradient": torch.from_numpy(ask(name, "gradient")).double(),
                "extra": ask(name, "extra"),
            }
            for name in pipes
        }
        for pipe in pipes.values():
            pipe.send("stop")
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the table; ratios are taken within each repeat."""
    published = found["published"]
    lines = [f"{'':46}{'s a pair':>10}{'cheaper by':>12}{'(range)':>16}{'memory, MiB':>13}{'gradient differs':>18}"]
    for name, own in found.items():
        seconds = own["seconds"]
        lines.append(line(name, seconds, published["seconds"]) + f"{own['bytes'] / MIB:>13,.0f}")
        if name.startswith("same"):
            truth = published["gradient"]
            lines[-1] += f"{float((own['gradient'] - truth).norm() / truth.norm()):>18.1e}"
    clipped = found["same loss"]["extra"]["clipped"]
    return "\n".join([*lines, "", f"share of (image, step) log-ratios at the clamp, same loss: {clipped:.0%}"])


def line(name: str, seconds: list[float], published: list[float]) -> str:
    ratios = [p / s for p, s in zip(published, seconds, strict=True)]
    spread = f"({min(ratios):.1f} to {max(ratios):.1f})"
    return f"{name:46}{statistics.mean(seconds):>10.3f}{statistics.mean(ratios):>11.1f}x{spread:>16}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny network, to see that it works")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    torch.set_num_threads(options.threads)
    parameters = sum(p.numel() for p in random_unet(scale.channels, scale.side).parameters())
    print(f"UNet of {parameters / 1e6:.1f} M parameters, latents 4x{scale.side}x{scale.side}, float32,")
    print(f"{scale.steps} steps, guidance {GUIDANCE:g}, {options.threads} threads, torch {torch.__version__}\n")
    print("\n" + table(measure(scale, options.threads)))


if __name__ == "__main__":
    main()
