"""The whole loop on the embedded model, explained: draw, pick, teach, compare, and a LoRA at the end.

A program picks in your place. It likes large blooms (or what --scorer says) and never tells the model why; all that the
model ever sees is which picture was preferred.
"""

from __future__ import annotations

import argparse
import time
from argparse import Namespace
from pathlib import Path

from ..errors import D3POError
from ..processes import ALONE
from ..settings import LoraSettings, SampleSettings, TrainSettings, replace
from . import annotate, common, evaluate, export, sample
from .flags import number, run_folder

EXAMPLE = """  d3po demo
  d3po demo --scorer garden-lean --picks 96"""
OUT_OF_MEMORY = "Close other programs; 2 GB are enough."
STOPPED = "\nStopped. What was done is in {folder}; d3po info --run {quoted} tells how far it came."
USE = """
To use the LoRA, with the embedded model in diffusers:

    pipe = StableDiffusionPipeline.from_pretrained({garden!r})
    pipe.load_lora_weights({lora!r})
    pipe("a red tulip by day", num_inference_steps=20, guidance_scale={guidance:g}).images[0].save("tulip.png")

To teach your own model instead:

    d3po sample --run my-taste --model my-model.safetensors --prompts prompts.txt"""


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    parser.add_argument("--run", type=run_folder, metavar="FOLDER", help="where to [a new folder in d3po-runs]")
    parser.add_argument(
        "--scorer", metavar="NAME", default="garden-size", help="whose taste [garden-size: large blooms]"
    )
    parser.add_argument("--picks", type=number(int, "--picks", 1), default=64, metavar="N", help="how many picks [64]")
    parser.add_argument("--seeds", type=number(int, "--seeds", 2), default=8, metavar="N", help="images per prompt [8]")
    parser.add_argument("--seed", type=number(int, "--seed"), default=0, metavar="N", help="of all chance [0]")


def run(options: argparse.Namespace) -> int:
    from ..app.training import PicksRequest, round_outcome
    from ..embedded import GARDEN_FOLDER, split_prompts
    from ..rewards import get_reward
    from ..rewards.auto_pick import auto_pick
    from .training import train

    reward = get_reward(options.scorer, own_code=True)
    begin = time.monotonic()
    folder = Path(options.run or time.strftime("d3po-runs/garden-%Y%m%d-%H%M%S"))
    if common.open_if_there(str(folder)):
        raise D3POError(f"There is a run in {folder} already.", "Choose another folder.", "It was not changed.")
    training, held_out = split_prompts()
    settings = replace(SampleSettings(groups=options.picks, seed=options.seed, batch=16), common.GARDEN_DEFAULTS)
    say("Loading the embedded model: little garden pictures, drawn from prompts such as", begin)
    print(f'"{training[0]}".')
    model_options = Namespace(
        processes=ALONE, model=common.GARDEN, base_config=None, dtype=None, device=None, run=str(folder)
    )
    model = common.load(model_options, None)
    run = sample.new_run(model_options, model, settings, "taste")

    say(f"Drawing {options.picks} groups of {settings.candidates} pictures. A group has one prompt.", begin)
    if not sample.draw(run, model, settings, training, "base"):
        return _stopped(folder)
    say(f"Picking one picture in each group. The simulated person prefers {reward.likes}.", begin)
    count, _ = annotate.show_picking(auto_pick(run, reward, reward.name, seed=options.seed))
    print(f"Picked {count} times. The model knows nothing of the reason, only which picture was preferred.")

    say("Teaching. To see whether the taste is understood, some picks are hidden and predicted.", begin)
    saved = train(run, model, PicksRequest(TrainSettings(seed=options.seed), LoraSettings()))
    if saved is None:
        return _stopped(folder)
    print(round_outcome(saved))

    say(
        f"Comparing before and after, on {len(held_out)} prompts that were not used and {options.seeds} new seeds.",
        begin,
    )
    fidelity = evaluate.fidelity_of(common.GARDEN)
    report = evaluate.evaluate_lora(model, saved.path, held_out, options.seeds, settings, reward, fidelity)
    print(evaluate.table(report))
    copy, picture = export.export(run, folder), report.save(folder)
    say("Done.", begin)
    print(f"Before and after:  {picture.resolve()}")
    print(f"The LoRA:          {copy.resolve()}")
    print(
        USE.format(
            garden=str(GARDEN_FOLDER),
            lora=str(copy.resolve()),
            guidance=settings.guidance_scale,
        )
    )
    return 0


def say(what: str, begin: float) -> None:
    """Print a step of the loop, with the time since the beginning."""
    print(f"\n[{time.monotonic() - begin:3.0f} s] {what}", flush=True)


def _stopped(folder: Path) -> int:
    print(STOPPED.format(folder=folder, quoted=common.quoted(folder)))
    return 130
