"""One press of Queue at the sampler: groups drawn into a taste by the policy that it stands at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from ..d3po_core.app import runs
from ..d3po_core.app.cost import drawing_cost
from ..d3po_core.app.runs import next_round
from ..d3po_core.app.sampling import DrawnGroup, SampledGroup, draw_groups, prompt_of, sample_groups
from ..d3po_core.errors import D3POError
from ..d3po_core.lora.attachment import applied
from ..d3po_core.run import BaseModelFacts, Run
from ..d3po_core.settings import SampleSettings
from . import folders, graph
from .host.model import SHAPE, HostModel
from .progress import Working, seconds_per_image, send_event

PIXELS_PER_LATENT = 64
"""Of most VAEs; for an estimate."""


@dataclass(frozen=True)
class Press:
    """What is drawn into which taste.

    Attributes:
        run: the taste.
        host: the model.
        settings: how.
        labels: the prompt of all groups or, if they are several, of each.
        upstream: nodes on the way to the model, kept with every group.
    """

    run: Run
    host: HostModel
    settings: SampleSettings
    labels: list[str]
    upstream: graph.Upstream

    def calls(self) -> Iterator[tuple[SampleSettings, list[str]]]:
        """Iterate over the press as calls of the core: all groups of one prompt at once, else group by group."""
        if len(self.labels) == 1:
            yield self.settings, self.labels
            return
        for name in self.labels:
            yield dataclasses.replace(self.settings, groups=1), [name]

    def cost(self) -> str:
        """Return what the press will take, in words."""
        *_, height, width = self.host.latent_shape()
        pixels = height * width * PIXELS_PER_LATENT
        return drawing_cost(self.settings.groups, self.settings, pixels, seconds_per_image(self.run))


def begin_run(taste: str, host: HostModel, settings: SampleSettings) -> Run:
    """Begin a new taste.

    Args:
        taste: its name; "auto" takes the checkpoint's.
        host: the model; without a LATENT, images are only imported.
        settings: how images are drawn.

    Raises:
        D3POError: the model cannot draw this, or the output folder cannot be written to.
    """
    auto = folders.is_auto(taste)
    name = host.identity if auto else taste.strip()
    facts = BaseModelFacts(
        identity=host.identity, name=host.identity, source=host.identity, family=host.denoiser.family
    )
    more = {folders.IS_AUTO: auto, folders.NAMED: name}
    if host.image is not None:
        more[SHAPE] = list(host.latent_shape())
    new = runs.NewRun(name, facts, settings, more=more)
    return runs.begin_run(folders.library().unused(name), new, host if host.image is not None else None)


def check_same_kind(run: Run, host: HostModel) -> None:
    """Refuse a model that cannot draw into a taste.

    Raises:
        D3POError: the taste was begun with a model of another kind.
    """
    check_family(run, host)
    drawn = run.groups.select(freed=False, recorded=True)
    channels = run.groups.trajectory(drawn[-1].id)["latents"].shape[1] if drawn else host.latent_shape()[0]
    if channels != host.latent_shape()[0]:
        raise _another_kind(run)


def check_family(run: Run, host: HostModel) -> None:
    """Refuse a model whose noise is mixed in otherwise than in a taste.

    Raises:
        D3POError: the taste was begun with a model of another kind.
    """
    if run.model["family"] != host.denoiser.family:
        raise _another_kind(run)


def _another_kind(run: Run) -> D3POError:
    return D3POError(
        f"The taste '{run.name}' was begun with {run.model['name']}, a model of another kind.",
        "Write another name for the taste of this one.",
        "Your picks are saved.",
    )


def changed_since(run: Run, upstream: graph.Upstream) -> str:
    """Return a sentence, beginning with a space, if the graph has changed since a taste's last images; else ""."""
    drawn = run.groups.select(recorded=True)
    then = drawn[-1].settings.get("graph") if drawn else None
    difference = graph.difference(then, upstream) if then is not None else ""
    if not difference:
        return ""
    return f" The taste's last pictures were drawn with {difference}; such pictures cannot be taught together."


def next_prompts(run: Run, texts: list[str], settings: SampleSettings) -> list[str]:
    """Return the prompts of the groups that come next, one for each."""
    drawn = run.picks.counts("").drawn
    return [texts[prompt_of(drawn + i, len(texts), settings.seed)] for i in range(settings.groups)]


def draw_into_gallery(press: Press, work: Working) -> Iterator[SampledGroup]:
    """Draw and decode; a group is in the gallery as soon as it is decoded, before the next is drawn."""
    run, host, done = press.run, press.host, 0
    policy, round, notes = run.rounds.current_policy(), next_round(run), {"graph": press.upstream}
    with applied(host.denoiser, run.rounds.lora(policy), "hooks"):
        for settings, names in press.calls():
            with closing(sample_groups(run, host, settings, names, policy, round, notes)) as reports:
                for report in reports:
                    done += 1
                    send_event("d3po.group", taste=run.run_id, group=report.group_id)
                    work.at(done, press.settings.groups, f"{done} of {press.settings.groups} groups")
                    work.note_pace(settings.candidates)
                    yield report


def draw_undecoded(press: Press, work: Working) -> Iterator[DrawnGroup]:
    """Draw without decoding."""
    run, host, done = press.run, press.host, 0
    policy, round, notes = run.rounds.current_policy(), next_round(run), {"graph": press.upstream}
    with applied(host.denoiser, run.rounds.lora(policy), "hooks"):
        for settings, names in press.calls():
            for batch in draw_groups(run, host, settings, names, policy, round, notes):
                done += len(batch)
                work.at(done, press.settings.groups, f"{done} of {press.settings.groups} groups")
                yield from batch
