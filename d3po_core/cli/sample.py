"""Draw groups of images into a run; one will be picked in each.

The first call makes the run. Later calls add to it with the same model, prompts and settings, unless flags change them,
and draw with the newest LoRA that the run has taught: that is the next round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import D3POError
from ..processes import ALONE, Processes
from ..settings import SampleSettings
from . import common
from .flags import add_settings, preset_of, settings_of

if TYPE_CHECKING:
    from ..diffusion.image_model import ImageModel
    from ..models import DiffusersModel
    from ..run import Run

EXAMPLE = "  d3po sample --run my-taste --model my-model.safetensors --prompts prompts.txt --groups 64"
OUT_OF_MEMORY = "Lower --batch; if that is not enough, --width and --height, or choose --dtype float16 on a GPU."


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    common.add_model(parser)
    common.add_prompts(parser, "the run's own; with the embedded model its 44 training prompts")
    parser.add_argument(
        "--policy", metavar="NAME", help="draw with base, or with the LoRA of the round of this number [the newest]"
    )
    add_settings(parser, ("sample",), advanced)


def run(options: argparse.Namespace) -> int:
    from ..app.few_steps import drawing_advice, names_of
    from ..app.loras import policy_of
    from ..app.sampling import check_drawable
    from ..app.together import help_sampling

    if not options.processes.first:
        help_sampling(options.processes, common.load(options, None))
        return 0
    old = common.open_if_there(options.run)
    settings = settings_of(options, SampleSettings, common.model_defaults(options, old), old.settings if old else None)
    prompts = common.read_prompts(options) or usual_prompts(options, old)
    if options.policy and old:
        policy_of(old, options.policy)
    elif options.policy not in (None, "base"):
        raise D3POError(f"There is no LoRA of a round '{options.policy}', as this run is new.", "Use base.")
    model = common.load(options, old)
    check_drawable(model, settings)
    common.say_plain_words(model, [*prompts, settings.negative])
    run = old or new_run(options, model, settings, preset_of(options), prompts)
    policy = policy_of(run, options.policy) if options.policy else run.rounds.current_policy()
    if advice := drawing_advice(names_of(run), settings, guidance_is_input=True):
        print(advice)
    start, before = time.monotonic(), len(run.groups.select())
    finished = draw(run, model, settings, prompts, policy, options.processes)
    drawn, seconds = len(run.groups.select()) - before, time.monotonic() - start
    print(f"Drew {drawn} groups of {settings.candidates} images into {options.run} in {seconds:.0f} s.")
    if not finished:
        print(
            f"Stopped; all of them are kept. The same command with --groups {settings.groups - drawn} draws the rest."
        )
        return 130
    print(f"Next: d3po annotate --run {common.quoted(options.run)} --scorer NAME")
    return 0


def draw(
    run: Run,
    model: ImageModel,
    settings: SampleSettings,
    prompts: list[str],
    policy: str,
    processes: Processes = ALONE,
) -> bool:
    """Draw groups with a policy of the run, showing how far it has come; False if it was stopped by Ctrl+C."""
    from ..app.runs import next_round
    from ..app.sampling import sample_groups
    from ..app.together import sample_together
    from ..lora import import_lora
    from ..lora.attachment import applied

    lora, coming = run.rounds.lora(policy), next_round(run)
    weights = import_lora(lora, model.denoiser.module) if lora else None
    if processes.size == 1:
        groups = sample_groups(run, model, settings, prompts, policy, coming)
    else:
        groups = sample_together(processes, run, model, settings, prompts, weights, policy, coming)
    applying = applied(model.denoiser, weights if processes.size == 1 else None)
    try:
        with applying, closing(groups), common.ProgressBar("Drawing") as bar:
            for report in groups:
                bar.show(report.done, report.total)
    except KeyboardInterrupt:
        return False
    return True


def usual_prompts(options: argparse.Namespace, old: Run | None) -> list[str]:
    """Return what is drawn when no prompt is named: the run's own prompts, or the embedded model's.

    Prompts that only came with imported images are left out.

    Raises:
        D3POError: there are none.
    """
    from ..app.runs import prompts_to_draw

    if old and (prompts := prompts_to_draw(old)):
        return prompts
    if common.source_of(options, old) == common.GARDEN:
        from ..embedded import split_prompts

        return split_prompts()[0]
    raise D3POError("There is nothing to draw yet.", 'Say what with --prompt "a red fox" or --prompts FILE.')


def new_run(
    options: argparse.Namespace,
    model: DiffusersModel,
    settings: SampleSettings,
    preset: str,
    prompts: Sequence[str] = (),
) -> Run:
    """Begin a run that remembers its model, preset and settings, once its prompts are sure to be read.

    Raises:
        D3POError: a prompt is too long, there is a run already, or the folder cannot be written to.
    """
    from ..app.runs import NewRun, begin_run

    new = NewRun("", common.model_facts(options, model), settings, prompts=tuple(prompts), more={"preset": preset})
    return begin_run(Path(options.run), new, model)
