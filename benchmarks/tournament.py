"""How well does a tournament order pictures that exist? Ranks against a hidden scorer's, by Kendall's tau.

    python -m benchmarks.tournament                      200 pictures of 32 prompts, 3 seeds
    python -m benchmarks.tournament --prompts 1          200 pictures of one prompt
    python -m benchmarks.tournament --wrong 0.1          a tenth of the matches judged wrongly

Pictures are plain, with a prompt written into them as A1111 does; how good each is, is drawn at random. They are
imported from a folder, and matches are shown and picked through the gallery's own requests, four on hold at a time, as
a page does. Half way the run is closed and opened again. Tau is within each prompt, weighted by its number of pairs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import uuid
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from d3po_core.app.tournament import standings
from d3po_core.gallery import Actions, Request, handle
from d3po_core.importing import import_pictures
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary

SIDE, HELD = 32, 4


def pictures(folder: Path, count: int, prompts: int, rng: random.Random) -> dict[str, float]:
    """Draw noise into files, at least two of each prompt, and return how good each file is by its name."""
    good: dict[str, float] = {}
    for number in range(count):
        prompt = number // 2 if number < 2 * prompts else rng.randrange(prompts)
        info = PngInfo()
        info.add_text("parameters", f"prompt {prompt}\nSteps: 20, Sampler: Euler a, Seed: {number}")
        name = f"{number:05}.png"
        Image.frombytes("RGB", (SIDE, SIDE), rng.randbytes(3 * SIDE * SIDE)).save(folder / name, pnginfo=info)
        good[name] = rng.gauss(0, 1)
    return good


def ask(library: RunLibrary, run: Run, method: str, path: str, **values: Any) -> Any:
    """Ask the gallery as a page does."""
    headers, body = {"content-type": "application/json"}, json.dumps(values).encode()
    response = handle(library, Actions(), Request(method, f"taste/{run.run_id}/{path}", {}, headers, body))
    assert response.status == 200 and isinstance(response.body, bytes), response.body
    return json.loads(response.body)


def play(folder: Path, good: dict[str, float], wrong: float, rng: random.Random) -> tuple[Run, int]:
    """Pick all matches, and return the run and how many there were."""
    client, played, reopened = uuid.uuid4().hex, 0, False
    library = RunLibrary(folder.parent)
    run = library.runs()[0]
    held: list[dict[str, Any]] = []
    while True:
        holding = [card["group_id"] for card in held]
        answer = ask(library, run, "POST", "next", client=client, want=HELD - len(held) or 1, holding=holding)
        held += answer["cards"]
        if not held:
            return run, played
        card = held.pop(0)
        names = {each["candidate"]: _name(run, card["group_id"], each["candidate"]) for each in card["images"]}
        sign = -1 if rng.random() < wrong else 1
        best = max(names, key=lambda each: sign * good[names[each]])
        pick = {"group_id": card["group_id"], "kind": "favourite", "order": [best], "reason": card["reason"]}
        shown = [each["candidate"] for each in card["images"]]
        ask(library, run, "POST", "pick", pick_id=uuid.uuid4().hex, shown_order=shown, decision_ms=500, **pick)
        played += card["reason"] != "repeat"
        progress = answer["state"]["tournament"]
        if not reopened and 2 * progress["done"] > progress["of"]:
            run.close()
            library, reopened, client, held = RunLibrary(folder.parent), True, uuid.uuid4().hex, []
            run = library.runs()[0]


def _name(run: Run, group_id: str, candidate: int) -> str:
    entrant = run.groups.get(group_id).entrants[candidate]
    return Path(run.groups.get(entrant).settings["from"]).name


def tau(run: Run, good: dict[str, float]) -> float:
    """Return Kendall's tau within prompts: agreeing less disagreeing pairs, of all."""
    agree = total = 0
    for pool in standings(run):
        values = [good[Path(ranked.entrant.source).name] for ranked in pool]
        pairs = [(a, b) for i, a in enumerate(values) for b in values[i + 1 :]]
        agree += sum(1 if a > b else -1 for a, b in pairs)
        total += len(pairs)
    return agree / total


def measure(pictures_count: int, prompts: int, wrong: float, seed: int) -> tuple[float, float]:
    """Return tau, and matches by picture."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        source, folder = Path(place, "outputs"), Path(place, "runs", "tournament")
        source.mkdir()
        good = pictures(source, pictures_count, prompts, rng)
        run = Run.create(folder, name="tournament", model={"family": "none", "name": "none"}, settings={})
        for _ in import_pictures(run, source):
            pass
        run.close()
        run, played = play(folder, good, wrong, rng)
        found = tau(run, good)
        run.close()
    return found, played / pictures_count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--wrong", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    found = [measure(options.pictures, options.prompts, options.wrong, seed) for seed in options.seeds]
    taus = [each[0] for each in found]
    print(f"{options.pictures} pictures of {options.prompts} prompts, {options.wrong:.0%} of matches judged wrongly:")
    print(f"  tau {statistics.mean(taus):.3f} ({' '.join(f'{each:.2f}' for each in taus)})")
    print(f"  {statistics.mean(each[1] for each in found):.2f} matches by picture")


if __name__ == "__main__":
    main()
