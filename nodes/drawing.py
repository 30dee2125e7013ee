"""One press of Queue at the sampler: groups drawn into a taste by the policy that it stands at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ..d3po_core.app.cost import drawing_cost
from ..d3po_core.app.sampling import DrawnGroup, SampledGroup, draw_groups, prompt_of, sample_groups
from ..d3po_core.errors import D3POError
from ..d3po_core.lora.attach import applied
from ..d3po_core.run import Run
from ..d3po_core.settings import SampleSettings
from . import folders, graph
from .host.model import HostModel
from .progress import Working, seconds_per_image, send_event

PIXELS_PER_LATENT = 64
"""Of most VAEs; for an estimate."""


@dataclass(frozen=True)
class Press:
    """What is drawn into which taste.

    Attributes:
        labels: the prompt of all groups or, if they are several, of each.
        notes: kept with every group.
    """

    run: Run
    host: HostModel
    chosen: SampleSettings
    labels: list[str]
    notes: dict[str, Any]

    def calls(self) -> Iterator[tuple[SampleSettings, list[str]]]:
        """The press as calls of the core: all groups of one prompt at once, else group by group."""
        if len(self.labels) == 1:
            yield self.chosen, self.labels
            return
        for name in self.labels:
            yield dataclasses.replace(self.chosen, groups=1), [name]


def begin_run(taste: str, host: HostModel, chosen: SampleSettings) -> Run:
    """A new taste."""
    auto = taste.strip() in ("", folders.AUTO)
    name = host.identity if auto else taste.strip()
    about = {**dict.fromkeys(("identity", "name", "source"), host.identity), "family": host.denoiser.family}
    kept = {"sample": dataclasses.asdict(chosen), folders.IS_AUTO: auto, folders.NAMED: name}
    if host.image is not None:
        kept[folders.SHAPE] = list(host.latent_shape())
    return Run.create(folders.shelf().unused(name), name=name, model=about, settings=kept)


def check_same_kind(run: Run, host: HostModel) -> None:
    """See that a model can draw into a taste.

    Raises:
        D3POError: the taste was begun with a model of another kind.
    """
    drawn = run.groups.select(freed=False, recorded=True)
    channels = run.groups.trajectory(drawn[-1].id)["latents"].shape[1] if drawn else host.latent_shape()[0]
    if run.model["family"] != host.denoiser.family or channels != host.latent_shape()[0]:
        raise D3POError(
            f"The taste '{run.name}' was begun with {run.model['name']}, a model of another kind.",
            "Write another name for the taste of this one.",
            "Your picks are saved.",
        )


def changed_since(run: Run, carried: graph.Carried) -> str:
    """A sentence, beginning with a space, if the graph has changed since a taste's last pictures; else ""."""
    drawn = run.groups.select(recorded=True)
    then = drawn[-1].settings.get("graph") if drawn else None
    said = graph.changed(then, carried) if then is not None else ""
    return (
        f" The taste's last pictures were drawn with {said}; such pictures cannot be taught together." if said else ""
    )


def following(run: Run, texts: list[str], chosen: SampleSettings) -> list[str]:
    """The prompts of the groups that come next."""
    drawn = run.picks.counts("").drawn
    return [texts[prompt_of(drawn + i, len(texts), chosen.seed)] for i in range(chosen.groups)]


def press_cost(press: Press) -> str:
    """What the press will take, in words."""
    *_, height, width = press.host.latent_shape()
    return drawing_cost(
        press.chosen.groups, press.chosen, height * width * PIXELS_PER_LATENT, seconds_per_image(press.run)
    )


def into_gallery(press: Press, work: Working) -> Iterator[SampledGroup]:
    """Draw and decode; a group is in the gallery as soon as it is decoded, before the next is drawn."""
    run, host, done = press.run, press.host, 0
    policy, round = run.rounds.current_policy(), coming_round(run)
    with applied(host.denoiser, run.rounds.lora(policy), "hooks"):
        for chosen, names in press.calls():
            with closing(sample_groups(run, host, chosen, names, policy, round, press.notes)) as reports:
                for report in reports:
                    done += 1
                    send_event("d3po.group", taste=run.run_id, group=report.group_id)
                    work.at(done, press.chosen.groups, f"{done} of {press.chosen.groups} groups")
                    work.drew(chosen.candidates)
                    yield report


def waiting_for_pictures(press: Press, work: Working) -> Iterator[DrawnGroup]:
    """Draw without decoding."""
    run, host, done = press.run, press.host, 0
    policy, round = run.rounds.current_policy(), coming_round(run)
    with applied(host.denoiser, run.rounds.lora(policy), "hooks"):
        for chosen, names in press.calls():
            for batch in draw_groups(run, host, chosen, names, policy, round, press.notes):
                done += len(batch)
                work.at(done, press.chosen.groups, f"{done} of {press.chosen.groups} groups")
                yield from batch


def coming_round(run: Run) -> int:
    """The round that is drawn for."""
    return 1 + sum(each.finished is not None for each in run.rounds.all())
