"""Does it learn any taste, and keep the prompt? The whole product on eight tastes of the embedded model.

    python -m benchmarks.any_taste                         64 favourites of four, 8 tastes, 5 seeds (an hour and a half)
    python -m benchmarks.any_taste --clicks 24             24 favourites, out of 64 groups that were drawn
    python -m benchmarks.any_taste --flip 0.15             of which 15% are turned round
    python -m benchmarks.any_taste --candidates 2          as many pictures in pairs
    python -m benchmarks.any_taste --second                a second round, drawn with what the first has taught
    python -m benchmarks.any_taste --steps 4               a schedule of four steps
    python -m benchmarks.any_taste --size 80x64            another size
    python -m benchmarks.any_taste --flow                  the embedded model as a flow model (`flow_garden`)
    python -m benchmarks.any_taste --few-step              distilled to four steps without guidance (`few_step_garden`)
    python -m benchmarks.any_taste --draw eta=0.5          pictures drawn with a setting that is not the default
    python -m benchmarks.any_taste --tastes "warm sky" --brush   tastes of a part, painted on each favourite
    python -m benchmarks.any_taste --ceiling               the ceiling: DDPO on the taste's own scores
    python -m benchmarks.any_taste --known                 prints what is in the results

A simulated person picks favourites; a round is trained and settled as in every front end, with its default settings,
and its LoRA file is used as it is. Win rates are on independent seeds, by the taste's own scores, on 16 held-out
prompts x 13 seeds a side, all pictures rounded alike. Fidelity is the change of the classifier's share of right
attributes, in points. The ceiling is DDPO on the true scores of the same pictures (4 epochs, all steps), at the
greatest strength that loses at most 5 points of any attribute; 8 where the taste contradicts the prompts. A model of
few steps is evaluated as it is made to be drawn with, whatever `--draw` says, and sharpness is the share of it that
its pictures keep. Cost is
counted in rows of the network by a hook, a backward pass as two, over the rows that drawing took: all but pictures to
be looked at.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.few_step_garden import OWN_SETTINGS, load_student, sharpness
from benchmarks.flow_garden import FlowDenoiser
from benchmarks.garden import EVALUATION_SEEDS, GUIDANCE, before, digest, drawn, one_thread, sampled
from benchmarks.tastes import LOCAL, PARTS, TASTES
from d3po_core.app.sampling import sample_groups
from d3po_core.app.training import Next, PicksRequest, settle_round
from d3po_core.diffusion.denoiser import Conditioning
from d3po_core.diffusion.rollout import generator
from d3po_core.embedded import split_prompts
from d3po_core.embedded.classifier import GardenClassifier
from d3po_core.evaluation.compare import compare
from d3po_core.lora import LoraWeights
from d3po_core.lora.attachment import applied
from d3po_core.lora.weights import scale_weights
from d3po_core.models import DiffusersModel, load_model
from d3po_core.picks import MASK_SIZE, Mask, Pick
from d3po_core.rewards import Reward
from d3po_core.run import Run
from d3po_core.run.run import read_images
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings, replace
from d3po_core.training.masks import from_tensor

T = TypeVar("T")
RESULTS = Path(__file__).parent / "results" / "any_taste.jsonl"
GROUPS, CANDIDATES, STEPS = 64, 4, 20
STRENGTHS = (1.0, 0.75, 0.5, 0.35, 0.2)
CONTRADICTS = ("low", "compressibility")
"""Tastes that contradict the prompts by their nature, and may cost 8 points of fidelity instead of 5."""
LEARNABLE = 0.58
"""Least ceiling of a taste whose share of it means something."""
DRAWING = ("steps", "size", "flow", "few_step", "draw")
NEWER = {"few_step": False, "draw": "{}", "brush": False}
"""What a row has that was made before these were asked for."""
GIVEN = ("clicks", "flip", "candidates", "ceiling", "second", "brush", *DRAWING)
"""What the command line says of all cases alike; `DRAWING` is what a ceiling has in common with what it bounds."""


@dataclass(frozen=True)
class Case:
    """One round of one simulated person.

    Attributes:
        clicks: groups judged, of `GROUPS` that are drawn.
        flip: share of picks that are turned round.
        candidates: pictures in a group.
        ceiling: DDPO on the true scores in place of the product.
        train: settings that are not the defaults.
        second: the figures are those after a second round, of half as many groups.
        steps: of the sampler.
        size: of the pictures, "WIDTHxHEIGHT"; empty for the model's own.
        flow: the model is a flow model.
        few_step: the model is the student of `few_step_garden`.
        draw: settings of drawing that are not the defaults, or the student's own.
        brush: the person paints over the part of every favourite that the taste is about.
    """

    taste: str
    seed: int
    clicks: int = GROUPS
    flip: float = 0.0
    candidates: int = CANDIDATES
    ceiling: bool = False
    train: str = "{}"
    second: bool = False
    steps: int = STEPS
    size: str = ""
    flow: bool = False
    few_step: bool = False
    draw: str = "{}"
    brush: bool = False

    @property
    def sampling(self) -> dict[str, Any]:
        """Return the settings of drawing that are this case's own."""
        size = dict(zip(("width", "height"), map(int, self.size.split("x")), strict=True)) if self.size else {}
        own = {"candidates": self.candidates, **size, **({"steps": self.steps} if self.steps != STEPS else {})}
        return {**own, **(OWN_SETTINGS if self.few_step else {}), **json.loads(self.draw)}


def load(cache: Path, case: Case) -> DiffusersModel:
    """Return the embedded model of a case."""
    if case.few_step:
        return load_student(cache)
    model = load_model("garden")
    if case.flow:
        model.denoiser = FlowDenoiser(model.denoiser)  # type: ignore[assignment]  # what a model uses of it is in both
    return model


def variant(case: Case) -> str:
    """Return what the embedded model is in a case, "" for itself; files in the cache are kept apart by it."""
    return "few-step" if case.few_step else "flow" if case.flow else ""


def settings(case: Case) -> SampleSettings:
    """Return how a case's pictures are drawn, as many in pairs as in fours."""
    groups = GROUPS * CANDIDATES // case.candidates
    own = {"guidance_scale": GUIDANCE, "seed": case.seed, "batch": 16, "groups": groups}
    return replace(SampleSettings(), {**own, **case.sampling})


def pool(cache: Path, case: Case) -> Path:
    """Return the folder of a run with all groups of a case's seed, sampled once."""
    kind = variant(case)
    name = f"any-taste-{digest(asdict(settings(case)))}{kind and f'-{kind}'}"
    return sampled(cache / name, settings(case), lambda: load(cache, case))


def taste_of(case: Case) -> Reward:
    """Return what a case's person likes."""
    return {**TASTES, **LOCAL}[case.taste]


def painted(part: Tensor) -> Mask:
    """Return the mask of a part of an image, (H, W) of bool: cells of which at least a quarter belongs to it."""
    return from_tensor(F.interpolate(part[None, None].float(), (MASK_SIZE, MASK_SIZE), mode="area")[0, 0] > 0.25)


def pick(run: Run, case: Case, round: int = 0) -> None:
    """Pick favourites in a round's groups as a person with this taste does; a taste called random has none."""
    rng = generator(case.seed, "any taste", case.taste, *([round] if round else []))
    for group in [group for group in run.groups.select() if group.round == round][: case.clicks]:
        scores, images = torch.rand(group.candidates, generator=rng), read_images(run, group)
        if case.taste != "random":
            scores = taste_of(case)(images, [group.prompt] * group.candidates)
        if torch.rand((), generator=rng) < case.flip:
            scores = -scores
        best = int(scores.argmax())
        run.picks.add(group.id, Pick("favourite", (best,)))
        if case.brush:
            run.masks.add(group.id, best, painted(PARTS[case.taste](images[best : best + 1])[0]))


class Rows:
    """Counts rows of the network, a backward pass as two."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counting(self, network: torch.nn.Module) -> Iterator[None]:
        """Count what happens inside."""

        def seen(module: torch.nn.Module, given: tuple[Tensor, ...], out: Any) -> None:
            result = out[0] if isinstance(out, tuple) else out.sample if hasattr(out, "sample") else out
            self.count += len(result) * (3 if result.requires_grad else 1)

        handle = network.register_forward_hook(seen)
        try:
            yield
        finally:
            handle.remove()


class Measuring(DiffusersModel):
    """The model, which counts what is evaluated, and not what is drawn to be looked at."""

    def __init__(self, pipeline: Any, rows: Rows) -> None:
        super().__init__(pipeline)
        self._rows = rows

    def evaluate(self, conditioning: Sequence[Conditioning], shape: Sequence[int], work: Callable[[], T]) -> T:
        with self._rows.counting(self.denoiser.module):
            return super().evaluate(conditioning, shape, work)


def teach(run: Run, model: DiffusersModel, case: Case) -> tuple[LoraWeights, dict[str, Any]]:
    """Train and settle a round; return the LoRA as it is used, and what the product says."""
    rows, how = Rows(), replace(TrainSettings(seed=case.seed), json.loads(case.train))
    with rows.counting(model.denoiser.module):
        saved = PicksRequest(how, LoraSettings()).train(run, model, "peft", lambda report: Next.CONTINUE)
    assert saved is not None
    measuring = Measuring(model.pipeline, rows)
    measuring.denoiser = model.denoiser
    saved = settle_round(run, measuring, saved, settings(case), "peft", lambda done, total: None)
    result = saved.result
    return result.weights, {
        "evidence": result.strength,
        "z": result.z,
        "strength": result.lora_strength,
        "kept": result.kept,
        "expected": result.win,
        "drift": result.strength_scan,
        "cost": rows.count / rows_of_drawing(settings(case)),
    }


def rows_of_drawing(how: SampleSettings) -> int:
    """Return how many rows of the network drawing took."""
    return how.groups * how.candidates * how.steps * (1 if how.guidance_scale == 1 else 2)


def draw_again(run: Run, model: DiffusersModel, case: Case) -> None:
    """Draw half as many groups for the second round, with what the first has taught."""
    how, policy = settings(case), run.rounds.current_policy()
    how = replace(how, {"groups": how.groups // 2})
    with applied(model.denoiser, run.rounds.lora(policy)):
        for _ in sample_groups(run, model, how, split_prompts()[0], policy, round=2):
            pass


def told_the_truth(run: Run, model: DiffusersModel, case: Case) -> LoraWeights:
    """Train DDPO on the taste's own scores of all pictures, with the settings that it learns best with."""
    how = TrainSettings(
        seed=case.seed,
        method="ddpo",
        learning_rate=1e-3,
        epochs=4,
        trained_steps=0,
        decay=False,
        drift_limit=0.0,
        keep_prompt=0.0,
    )
    request = PicksRequest(how, LoraSettings(), taste_of(case))
    saved = request.train(run, model, "peft", lambda report: Next.CONTINUE)
    assert saved is not None
    return saved.result.weights


def judged(cache: Path, model: DiffusersModel, case: Case, lora: LoraWeights) -> dict[str, Any]:
    """Draw held-out prompts with a LoRA, and compare them with the original's."""
    how, taste = replace(settings(case), {"seed": 0}), taste_of(case)
    if case.few_step:
        how = replace(how, OWN_SETTINGS)
    cache = cache / variant(case)
    cache.mkdir(exist_ok=True)
    originals = before(cache, model, how, "deterministic")
    with applied(model.denoiser, lora):
        tuned = drawn(model, how, "deterministic")
    prompts = split_prompts()[1]
    texts = [prompt for prompt in prompts for _ in range(EVALUATION_SEEDS)]
    scores = [taste(images, texts).double().unflatten(0, (len(prompts), -1)) for images in (originals, tuned)]
    right = [classifier().fidelity(images, texts) for images in (originals, tuned)]
    return {
        "win": compare(*scores).win_rate,
        "sharpness": sharpness(tuned) / sharpness(originals),
        "fidelity": {name: 100 * (right[1][name] - right[0][name]) for name in right[0]},
    }


@cache
def classifier() -> GardenClassifier:
    return GardenClassifier.load()


def run_case(cache: Path, case: Case) -> dict[str, Any]:
    """Run a case, and return its row of results."""
    model, row = load(cache, case), dict[str, Any](asdict(case), made_of=digest())
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(pool(cache, case), folder, dirs_exist_ok=True)
        run = Run.open(folder)
        if case.ceiling:
            lora = told_the_truth(run, model, case)
            limit = 8 if case.taste in CONTRADICTS else 5
            for strength in STRENGTHS:
                found = {"strength": strength, **judged(cache, model, case, scale_weights(lora, strength))}
                if min(found["fidelity"].values()) >= -limit:
                    break
            row |= found
        else:
            pick(run, case)
            lora, figures = teach(run, model, case)
            learnt = figures["evidence"]
            if case.second:
                draw_again(run, model, case)
                pick(run, case, round=2)
                lora, figures = teach(run, model, case)
                figures["cost"] *= 2  # half as many pictures were drawn for it
                learnt = learnt or figures["evidence"]
            row |= figures
            unchanged = case.taste == "random" or not learnt
            row |= {"win": 0.5, "fidelity": {}, "sharpness": 1.0} if unchanged else judged(cache, model, case, lora)
        run.close()
    return row


def table(rows: list[dict[str, Any]], ceilings: dict[tuple[str, int], float]) -> str:
    """Return means over seeds, a line for each taste."""
    lines = ["| taste | safe win | every seed | share of the ceiling | fidelity | strength | expected win | cost |"]
    lines.append("|---" * 8 + "|")
    shares = []
    for taste in dict.fromkeys(row["taste"] for row in rows):
        found = [row for row in rows if row["taste"] == taste]
        wins = [row["win"] for row in found]
        known = [(row["win"], ceilings[key]) for row in found if (key := (taste, row["seed"])) in ceilings]
        share = "unknown"
        if known:
            won, most = (statistics.mean(column) for column in zip(*known, strict=True))
            share = f"ceiling {most:.3f}" if most < LEARNABLE else f"{(won - 0.5) / (most - 0.5):.2f} of {most:.3f}"
            shares += [(won - 0.5) / (most - 0.5)] if most >= LEARNABLE else []
        names = sorted({name for row in found for name in row["fidelity"]})
        change = [statistics.mean(row["fidelity"].get(name, 0.0) for row in found) for name in names]
        expected = [row["expected"] for row in found if row.get("expected") is not None]
        error = statistics.stdev(wins) / len(wins) ** 0.5 if len(wins) > 1 else 0.0
        lines.append(
            f"| {taste} | **{statistics.mean(wins):.3f}** ± {error:.3f} | {' '.join(f'{win:.2f}' for win in wins)} | "
            f"{share} | {', '.join(f'{name} {value:+.1f}' for name, value in zip(names, change, strict=True))} | "
            f"{' '.join('%g' % (row.get('evidence', 1) * row['strength']) for row in found)} | "
            f"{' '.join(f'{each:.2f}' for each in expected)} | "
            f"{statistics.mean(row.get('cost', 0.0) for row in found):.2f} |"
        )
    differences = [abs(row["expected"] - row["win"]) for row in rows if row.get("expected") is not None]
    if differences:
        lines.append(f"\nExpected against true win rate: mean difference {statistics.mean(differences):.3f}.")
    if shares:
        lines.append(f"Mean share of the ceiling: {statistics.mean(shares):.2f}.")
    return "\n".join(lines)


def written(assignments: Sequence[str]) -> str:
    """Return settings that are written name=value as JSON; a value that is none is a text."""

    def read(value: str) -> object:
        try:
            return json.loads(value)
        except ValueError:
            return value

    return json.dumps({name: read(value) for name, value in (each.split("=") for each in assignments)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=GROUPS)
    parser.add_argument("--flip", type=float, default=0.0)
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--ceiling", action="store_true")
    parser.add_argument("--second", action="store_true")
    parser.add_argument("--brush", action="store_true")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--size", default="")
    parser.add_argument("--flow", action="store_true")
    parser.add_argument("--few-step", action="store_true")
    parser.add_argument("--draw", nargs="*", default=[], help="settings of drawing to try, name=value")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--tastes", nargs="*", default=list(TASTES))
    parser.add_argument("--set", nargs="*", default=[], help="train settings to try, name=value")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "d3po-benchmark")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--known", action="store_true")
    options = parser.parse_args()
    train, options.draw = written(options.set), written(options.draw)
    options.cache.mkdir(parents=True, exist_ok=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    rows = [{**NEWER, **row} for row in rows if row["made_of"] == digest()]
    given = {name: getattr(options, name) for name in GIVEN}
    wanted = [Case(taste, seed, train=train, **given) for seed in options.seeds for taste in options.tastes]

    def known(case: Case) -> list[dict[str, Any]]:
        return [row for row in rows if asdict(case).items() <= row.items()]

    todo = [] if options.known else [case for case in wanted if not known(case)]
    if todo:
        with ProcessPoolExecutor(options.jobs, initializer=one_thread) as executor:
            for case in {case.seed: case for case in todo}.values():  # once, not by two processes
                executor.submit(pool, options.cache, case).result()
            for row in executor.map(run_case, [options.cache] * len(todo), todo):
                rows.append(row)
                with options.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    drawn_alike = [row for row in rows if row["ceiling"] and all(row[name] == given[name] for name in DRAWING)]
    ceilings = {(row["taste"], row["seed"]): row["win"] for row in drawn_alike}
    print("\n" + table([row for case in wanted for row in known(case)], ceilings))


if __name__ == "__main__":
    main()
