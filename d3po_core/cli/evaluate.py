"""Compare before and after: the model without and with the LoRA, on prompts and seeds that training never saw.

A scorer says which images it likes better. The win rate counts images of the same prompt and different seeds: on the
same seeds an invisible tint can win nine times in ten. Images are drawn by an ordinary sampler without added noise,
and, as a second column, by the one that training used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import D3POError
from ..processes import ALONE, Processes
from ..settings import SampleSettings
from . import common
from .flags import add_settings, number, settings_of

if TYPE_CHECKING:
    from ..diffusion.image_model import ImageModel
    from ..evaluation.evaluate import Evaluation, Fidelity
    from ..rewards import Reward
    from ..run import Run

EXAMPLE = """  d3po evaluate --run my-taste --scorer garden-size
  d3po evaluate --run my-taste --scorer warmth --prompts held-out.txt --seeds 16"""
OUT_OF_MEMORY = "Lower --batch; if that is not enough, --width and --height, or choose --dtype float16 on a GPU."
UNUSED = ("groups", "candidates", "start", "held_out")


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    parser.add_argument("--scorer", required=True, metavar="NAME", help="who judges; d3po annotate --help lists them")
    parser.add_argument("--seeds", type=number(int, "--seeds", 2), default=8, metavar="N", help="images per prompt [8]")
    parser.add_argument("--to", metavar="FOLDER", help="where figures and picture go [the run's evaluations folder]")
    common.add_round(parser)
    common.add_model(parser)
    common.add_prompts(parser, "with the embedded model its 16 held-out prompts; else the run's own")
    add_settings(parser, ("sample",), advanced, without=UNUSED)


def run(options: argparse.Namespace) -> int:
    from functools import partial

    from ..app.handing_over import files_to_evaluate, opened
    from ..rewards import get_reward

    reward = get_reward(options.scorer, own_code=True)
    with opened(options.run, partial(files_to_evaluate, round=options.round or 0), options.processes) as run:
        return _evaluate(options, run, reward)


def _evaluate(options: argparse.Namespace, run: Run, reward: Reward) -> int:
    from ..app.loras import lora_of
    from ..run.files import check_writable

    settings = settings_of(options, SampleSettings, common.model_defaults(options, run), run.settings)
    prompts = common.read_prompts(options) or _usual_prompts(options, run)
    if len(prompts) < 2:
        raise D3POError("A comparison needs at least 2 prompts.", "Add another --prompt.")
    lora = lora_of(run, options.round or 0)
    target = Path(options.to or run.folder / "evaluations" / lora.stem)
    check_writable(target)
    model = common.load(options, run)
    common.say_plain_words(model, [*prompts, settings.negative])
    report = evaluate_lora(
        model,
        lora,
        prompts,
        options.seeds,
        settings,
        reward,
        fidelity_of(common.source_of(options, run)),
        options.processes,
    )
    if not options.processes.first:
        return 0
    picture = report.save(target)
    print(table(report))
    print(f"Before and after: {picture}")
    return 0


def evaluate_lora(
    model: ImageModel,
    lora: Path,
    prompts: list[str],
    seeds: int,
    settings: SampleSettings,
    reward: Reward,
    fidelity: Fidelity | None,
    processes: Processes = ALONE,
) -> Evaluation:
    """Evaluate a LoRA file, showing a progress bar."""
    from ..evaluation.evaluate import evaluate

    with common.ProgressBar("Comparing", shown=processes.first) as bar:
        return evaluate(model, lora, prompts, seeds, settings, reward, fidelity, bar.show, processes)


def fidelity_of(source: str) -> Fidelity | None:
    """Return what tells whether an image shows its prompt; only the embedded model has a classifier for that."""
    if source != common.GARDEN:
        return None
    from ..embedded.classifier import GardenClassifier

    return GardenClassifier.load().attribute_correct


def table(report: Evaluation) -> str:
    """Format the figures for people."""
    lines = []
    for sampler, outcome in report.outcomes.items():
        c = outcome.comparison
        lines.append(
            f"{sampler + ' sampler:':22} the LoRA's images win {c.win_rate:.1%} (standard error {c.win_rate_se:.1%}; "
            f"chance 50%), score {c.gain:+.2f} standard deviations, {c.images} images a side"
        )
        shown = [
            f"{name} {before:.0%} -> {outcome.fidelity_after[name]:.0%}"
            for name, before in outcome.fidelity_before.items()
        ]
        if shown:
            lines.append(f"{'':22} images that show what the prompt says: {', '.join(shown)}")
    return "\n".join(lines)


def _usual_prompts(options: argparse.Namespace, run: Run) -> list[str]:
    if common.source_of(options, run) == common.GARDEN:
        from ..embedded import split_prompts

        return split_prompts()[1]
    print("Judging on the prompts that were trained on; name others with --prompts.")
    return list(dict.fromkeys(prompt.text for prompt in run.prompts.to_show()))
