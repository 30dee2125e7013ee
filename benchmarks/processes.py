"""How much faster do several processes draw and teach? Processes of one thread each, on an idle machine.

    python -m benchmarks.processes                        one against two, three times in turn, on the embedded model
    python -m benchmarks.processes --processes 1 2 4 --times 5

Seconds are of drawing 32 groups of four, and of the updates of a round by picks on them (two groups an update, two
epochs, all recorded steps), without loading and without pictures before and after. The ratio is the median of one
process's seconds over the median of several's, from one run of this program.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.garden import GUIDANCE
from d3po_core.app.sampling import sample_groups
from d3po_core.app.together import help_sampling, sample_together
from d3po_core.embedded import split_prompts
from d3po_core.models import load_model
from d3po_core.picks import Pick
from d3po_core.processes import Processes, together
from d3po_core.run import Run
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from d3po_core.training.trainer import Trainer

SAMPLE = SampleSettings(groups=32, candidates=4, batch=8, guidance_scale=GUIDANCE)
TRAIN = TrainSettings(judge=False, batch=12, epochs=2, trained_steps=0)


def work(processes: Processes, folder: Path) -> dict[str, float]:
    """Draw and train, and return the seconds of each."""
    torch.set_num_threads(1)
    model = load_model("garden")
    processes.share()
    begun = time.monotonic()
    if processes.first:
        run = Run.create(folder, model={"identity": model.identity}, settings={})
        how = (run, model, SAMPLE, split_prompts()[0])
        for _ in sample_groups(*how) if processes.size == 1 else sample_together(processes, *how, None):
            pass
        drawing = time.monotonic() - begun
        for group in run.groups.select():
            run.picks.add(group.id, Pick("favourite", (group.number % SAMPLE.candidates,)))
    else:
        help_sampling(processes, model)
        drawing = 0.0
    processes.share()
    with Trainer.open(Run.open(folder), model.denoiser, TRAIN, LoraSettings(), processes=processes) as trainer:
        reports = trainer.steps()
        next(reports)  # the first one also makes the optimiser
        begun, updates = time.monotonic(), 0
        for report in reports:
            updates += 1
            if report.update == report.total - 1:  # after the last come measures of drift
                break
        training = time.monotonic() - begun
        reports.close()
    return {"drawing": drawing, "training": training, "updates": updates}


def measured(size: int) -> dict[str, float]:
    """Start processes, and return the first one's figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={size}", "-m", __spec__.name, "--"]
        done = subprocess.run([*command, "--work", str(Path(folder) / "run")], stdout=subprocess.PIPE, text=True)
        assert done.returncode == 0
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        with together() as processes:
            figures = work(processes, options.work)
            if processes.first:
                print(json.dumps(figures))
        return
    found: dict[int, list[dict[str, float]]] = {size: [] for size in options.processes}
    for _ in range(options.times):
        for size in options.processes:
            found[size].append(measured(size))
    for kind in ("drawing", "training"):
        alone = statistics.median(each[kind] for each in found[options.processes[0]])
        for size, rows in found.items():
            seconds = statistics.median(each[kind] for each in rows)
            print(f"{kind}, {size} processes: {seconds:.1f} s, {alone / seconds:.2f} times as fast")


if __name__ == "__main__":
    main()
