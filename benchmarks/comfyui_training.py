"""Teaching inside ComfyUI against its own Train LoRA node: `python -m benchmarks.comfyui_training`.

COMFYUI_DIR names the host, COMFYUI_PYTHON its Python. On the same random Stable Diffusion 1.5 (a UNet of 40 M
parameters in half precision, computed in float32), the same batch, rank and optimizer:

    seconds      of one update, which is one UNet forward and backward for each image of the batch; the loss is a mean
                 square for both. The first update is left out
    memory       peak of the process, and what it adds to that of sampling once before

Each way has a process of its own, and they take turns: all of them, then all of them again. Ratios are to the host's
node as it comes without gradient checkpointing. "As it comes" trains every layer, as ours does by default.
With more than one image the host's node evaluates every prompt on every image and averages, so it does more.

Seeds: network 0, LoRA 0, noise 0.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.memory_use import MIB, peak_resident

ROOT = Path(__file__).parents[1]
HOSTS_OWN = "Train LoRA"
WAYS: dict[str, dict[str, Any]] = {
    HOSTS_OWN: {"gradient_checkpointing": False},
    f"{HOSTS_OWN}, checkpointing": {"gradient_checkpointing": True},
    f"{HOSTS_OWN}, bypass": {"gradient_checkpointing": False, "bypass_mode": True},
    "ours, attention": {"targets": "attention"},
    "ours, all": {"targets": "all"},
}
RANK, RATE = 8, 1e-4


def hosts_own(loaded: Any, options: argparse.Namespace, **changes: Any) -> list[float]:
    """Updates of the host's node; when each was done."""
    import torch
    from comfy_extras import nodes_train

    done: list[float] = []
    loss = torch.nn.functional.mse_loss

    class Timed(torch.nn.MSELoss):
        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            done.append(time.perf_counter())
            return loss(output, target)

    nodes_train.torch.nn.MSELoss = Timed
    values = {
        **{"model": loaded.patcher, "positive": loaded.positive, "batch_size": options.batch, "steps": options.steps},
        **{"latents": {"samples": torch.randn(options.batch, 4, options.side, options.side)}, "rank": RANK, "seed": 0},
        **{"grad_accumulation_steps": 1, "learning_rate": RATE, "optimizer": "AdamW", "loss_function": "MSE"},
        **{"training_dtype": "fp32", "lora_dtype": "fp32", "quantized_backward": False, "algorithm": "LoRA"},
        **{"checkpoint_depth": 1, "offloading": False, "existing_lora": "[None]", "bucket_mode": False},
        **{"gradient_checkpointing": False, "bypass_mode": False, **changes},
    }
    with torch.inference_mode():
        nodes_train.TrainLoraNode.execute(**{name: [value] for name, value in values.items()})
    return done


def ours(loaded: Any, options: argparse.Namespace, targets: str) -> list[float]:
    """Updates as the trainer makes them; when each was done."""
    import torch
    from pack.d3po_core.diffusion.denoiser import stack
    from pack.d3po_core.lora import attach
    from pack.d3po_core.settings import LoraSettings
    from pack.nodes.host.model import HostModel
    from pack.nodes.host.sampling import host_sampling

    shape = (4, options.side, options.side)
    model = HostModel(loaded.patcher, loaded.latent, prompts={"lake": (loaded.positive, loaded.negative)})
    done: list[float] = []

    def work() -> None:
        lora = attach(model.denoiser.module, LoraSettings(rank=RANK, targets=targets), kind="hooks")
        optimizer = torch.optim.AdamW(lora.parameters(), RATE)
        rows = stack(model.encode(["lake"]) * options.batch)
        sigmas = model.denoiser.sigmas(options.steps + 1, "model")
        for step in range(options.steps):
            x, target = torch.randn(2, options.batch, *shape)
            sigma = sigmas[step].expand(options.batch)
            output = model.denoiser(x * float(sigmas[step]), sigma, rows, 1.0, guided=False).cond
            done.append(time.perf_counter())
            torch.nn.functional.mse_loss(output, target).backward()
            optimizer.step()
            optimizer.zero_grad()
        lora.remove()

    with torch.inference_mode():
        host_sampling(model.denoiser, model.encode(["lake"]), shape, work)
    return done


def worker(options: argparse.Namespace) -> dict[str, Any]:
    """Run one way in the host's process; return the seconds of each update, and bytes of memory."""
    sys.argv = [sys.argv[0], options.models]
    sys.path.insert(0, str(ROOT / "tests" / "hosts" / "comfyui"))
    import inside  # type: ignore[import-not-found]
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with torch.inference_mode():  # the network alone: reading a text encoder takes more memory than all the rest
        file = str(Path(options.models) / "checkpoints" / "tiny.safetensors")
        patcher = inside.comfy.sd.load_diffusion_model(file)
        positive, negative = ([[torch.randn(1, 77, 768), {}]] for _ in range(2))
        latent = {"samples": torch.zeros(1, 4, options.side, options.side)}
        loaded = inside.Loaded(patcher, None, None, positive, negative, latent)
    sigmas = inside.HostModel(patcher, latent).denoiser.sigmas(2, "model")
    inside.by_the_host(patcher, positive, negative, latent, sigmas)
    sampled = peak_resident()
    way: Callable[..., list[float]] = hosts_own if options.way.startswith(HOSTS_OWN) else ours
    done = way(loaded, options, **WAYS[options.way])
    return {
        "seconds": [b - a for a, b in itertools.pairwise(done[1:])],
        "peak": peak_resident(),
        "sampled": sampled,
    }


def host() -> str:
    """Return the host's folder."""
    return str(Path(os.environ["COMFYUI_DIR"]).resolve())


def run_worker(way: str, models: str, options: argparse.Namespace) -> dict[str, Any]:
    values = [f"--{name}={getattr(options, name)}" for name in ("side", "steps", "batch", "threads")]
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, "-m", "benchmarks.comfyui_training", f"--way={way}", f"--models={models}", *values]
    environment = {**os.environ, "COMFYUI_DIR": host(), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small latents and few updates, to see that it works")
    parser.add_argument("--side", type=int, default=32, help="of the latents")
    parser.add_argument("--steps", type=int, default=10, help="updates")
    parser.add_argument("--batch", type=int, default=1, help="images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--models", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.side, options.steps, options.repeats = 8, 4, 1
    if options.way:
        print(json.dumps(worker(options)))
        return
    if not os.environ.get("COMFYUI_DIR"):
        print("There is no ComfyUI to measure: name one with COMFYUI_DIR, and its Python with COMFYUI_PYTHON.")
        return
    side = options.side
    print(f"Stable Diffusion 1.5's layout, latents 4x{side}x{side}, batch {options.batch}, rank {RANK}, float32,")
    print(f"{options.threads} threads, {options.repeats} x {options.steps - 2} updates\n")
    with tempfile.TemporaryDirectory() as models:
        made = [
            os.environ.get("COMFYUI_PYTHON", sys.executable),
            str(ROOT / "tests/hosts/comfyui/tiny_checkpoint.py"),
            models,
        ]
        subprocess.run(made, check=True, capture_output=True)
        results = {way: [] for way in WAYS}  # type: dict[str, list[dict[str, Any]]]
        for _ in range(options.repeats):
            for way in WAYS:
                results[way].append(run_worker(way, models, options))
    print(table(results))


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the table; ratios are taken within each repeat."""
    lines = [f"{'':28}{'s a pass':>10}{'ratio':>8}{'(range)':>16}{'peak, MiB':>11}{'over sampling':>15}{'ratio':>8}"]
    seconds = {way: [statistics.median(run["seconds"]) for run in runs] for way, runs in results.items()}
    added = {way: statistics.mean(run["peak"] - run["sampled"] for run in runs) for way, runs in results.items()}
    for way, runs in results.items():
        ratios = [own / host for own, host in zip(seconds[way], seconds[HOSTS_OWN], strict=True)]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        peak = statistics.mean(run["peak"] for run in runs)
        lines.append(
            f"{way:28}{statistics.mean(seconds[way]):>10.3f}{statistics.mean(ratios):>8.2f}{spread:>16}"
            f"{peak / MIB:>11,.0f}{added[way] / MIB:>15,.0f}{added[way] / added[HOSTS_OWN]:>8.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
