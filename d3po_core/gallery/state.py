"""What a page is told of a run, its rounds, groups and blind checks: typed, in the words of API.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

from ..app import understanding
from ..app.loras import way_on
from ..app.tournament import progress
from ..evaluation.compare import drift_word, recommended_strength_of
from ..picks import MIN_PICKS
from ..run import Round, Run, StoredFlag, StoredPick
from ..run.blind_checks import BlindCheck, strip_side
from ..run.leases import Lease
from .actions import Actions


class ModelName(TypedDict):
    family: str
    name: str


class NamedTaste(TypedDict):
    id: str
    name: str
    model: ModelName


class ListedTaste(NamedTaste):
    picks: int
    groups: int
    created: float


class PickCounts(TypedDict):
    yours: int
    all: int
    usable: int
    untaught: int
    needed: int
    milestone: int
    previous: int


class LastPick(TypedDict):
    pick_id: str
    group_id: str
    kind: str


class GroupCounts(TypedDict):
    drawn: int
    waiting: int
    near: int


class Problem(TypedDict):
    what: str
    do: str
    safe: str


class LostState(Problem):
    to: int
    restores: bool


class StripImage(TypedDict):
    prompt: str
    before: str
    after: str


class GentlerLora(TypedDict):
    strength: float
    drift: str
    strip: list[StripImage]


class RoundState(TypedDict):
    number: int
    finished: bool
    guessed: float
    guessed_of: int
    reason: str
    taught: bool
    curve: tuple[float, ...]
    reward: str | None
    strength: float
    details: Mapping[str, float | None] | None
    drift: str | None
    lora: str | None
    win: float | None
    kept: float | None
    used: float
    strip: list[StripImage]
    gentler: list[GentlerLora]


class BlindResult(TypedDict):
    taught: int
    before: int
    neither: int
    low: int
    high: int
    answers: list[str]


class BlindState(TypedDict):
    check: str
    round: int
    of: int
    done: int
    result: BlindResult | None
    decision: str | None


class UnderstoodState(TypedDict):
    right: float
    groups: int
    share: float
    more: bool


class TournamentState(TypedDict):
    done: int
    of: int


class State(TypedDict):
    """All that changes while a page is open."""

    taste: NamedTaste
    revision: int
    can: list[str]
    picks: PickCounts
    last: LastPick | None
    groups: GroupCounts
    work: Mapping[str, object] | None
    problem: Problem | None
    lost: LostState | None
    rounds: list[RoundState]
    blind: BlindState | None
    understood: UnderstoodState | None
    tournament: TournamentState | None


class CandidateImage(TypedDict):
    candidate: int
    url: str


class CandidateFlag(TypedDict):
    candidate: int
    kind: str


class CandidateMask(TypedDict):
    """Which part of an image a person means, see d3po_core/picks.py."""

    candidate: int
    rows: list[int]


class EarlierPick(TypedDict):
    kind: str
    order: list[int]
    pick_id: str


class Card(TypedDict):
    """A group to pick in."""

    group_id: str
    number: int
    prompt: str
    reason: str
    match: bool
    images: list[CandidateImage]
    flags: list[CandidateFlag]
    masks: list[CandidateMask]
    was: EarlierPick | None


def chance_range(n: int, share: float = 0.95) -> tuple[int, int]:
    """Return the narrowest symmetric range of heads in n tosses of a coin with at least `share` of all outcomes."""
    low = n // 2
    while sum(math.comb(n, heads) for heads in range(low, n - low + 1)) < share * 2**n:
        low -= 1
    return low, n - low


def taste(run: Run) -> ListedTaste:
    """Return a run as it stands in a list."""
    counts = run.picks.counts("")
    return {**_named(run), "picks": counts.picks, "groups": counts.drawn, "created": run.created}


def state(run: Run, actions: Actions, who: str) -> State:
    """Return all that changes while a page is open, for one person."""
    counts, last, problem, check = (
        actions.counts(run, who),
        run.picks.last(who),
        actions.problem(run),
        run.blind_checks.last(),
    )
    tournament = progress(run)
    milestone, lost = next_milestone(counts.usable), _lost(run, actions)
    if problem and lost and problem.what == lost["what"]:
        problem = None
    return {
        "taste": _named(run),
        "revision": run.picks.revision,
        "can": actions.can(run),
        "picks": {
            "yours": counts.yours,
            "all": counts.picks,
            "usable": counts.usable,
            "untaught": actions.untaught(run),
            "needed": MIN_PICKS,
            "milestone": milestone,
            "previous": milestone // 2 if milestone > MIN_PICKS else 0,
        },
        "last": last_pick(last) if last else None,
        "groups": {
            "drawn": counts.drawn,
            "waiting": counts.waiting + (tournament.to_come if tournament else 0),
            "near": counts.near,
        },
        "work": actions.work(run),
        "problem": {"what": problem.what, "do": problem.do, "safe": problem.safe} if problem else None,
        "lost": lost,
        "rounds": [_round(run, record) for record in run.rounds.all()],
        "blind": blind(check) if check and not run.blind_checks.is_outdated(check) else None,
        "understood": _understood(run, actions),
        "tournament": {"done": tournament.done, "of": tournament.of} if tournament else None,
    }


def _lost(run: Run, actions: Actions) -> LostState | None:
    way = way_on(run, actions.copies(run))
    if way is None:
        return None
    return {
        "what": way.lost.what,
        "do": "Go on with the button here, or put the file, or a copy of it, back there.",
        "safe": way.lost.safe,
        "to": way.to,
        "restores": way.to == way.lost.round.number,
    }


def _understood(run: Run, actions: Actions) -> UnderstoodState | None:
    known = understanding.watch.latest(run, actions.training(run))
    if known is None:
        return None
    return {"right": known.right, "groups": known.groups, "share": known.share, "more": known.more}


def card(run: Run, lease: Lease, who: str, was: StoredPick | StoredFlag | None = None) -> Card:
    """Return a group to show to a person, with their flags and masks; a repeat comes without, as it did at first."""
    group = run.groups.get(lease.group_id)
    repeat = lease.reason == "repeat"
    flags = [] if repeat else run.flags.standing(who=who, group_id=group.id)
    masks = [] if repeat else run.masks.standing(who=who, group_id=group.id)
    return {
        "group_id": group.id,
        "number": group.number,
        "prompt": group.prompt,
        "reason": lease.reason,
        "match": bool(group.entrants),
        "images": [image(run, group.id, candidate) for candidate in lease.order],
        "flags": [{"candidate": flag.candidate, "kind": flag.kind} for flag in flags],
        "masks": [{"candidate": each.candidate, "rows": list(each.mask)} for each in masks],
        "was": {"kind": was.pick.kind, "order": list(was.pick.order), "pick_id": was.pick_id}
        if isinstance(was, StoredPick)
        else None,
    }


def image(run: Run, group_id: str, candidate: int) -> CandidateImage:
    """Return a candidate's number and the address of its image."""
    return {"candidate": candidate, "url": f"taste/{run.run_id}/image/{group_id}/{candidate}"}


def blind(check: BlindCheck) -> BlindState:
    """Return how far a blind check is and, at its end, what came out."""
    answers = [pair.answer for pair in check.pairs if pair.answer]
    result: BlindResult | None = None
    if len(answers) == len(check.pairs):
        neither = answers.count("neither")
        low, high = chance_range(len(answers) - neither)
        result = {
            "taught": answers.count("taught"),
            "before": answers.count("before"),
            "neither": neither,
            "low": low,
            "high": high,
            "answers": list(answers),
        }
    return {
        "check": check.id,
        "round": check.round,
        "of": len(check.pairs),
        "done": len(answers),
        "result": result,
        "decision": check.decision,
    }


def next_milestone(picks: int) -> int:
    """Return the next number of usable picks at which it is good to stop and teach: 16, 32, 64, ..."""
    milestone = MIN_PICKS
    while milestone <= picks:
        milestone *= 2
    return milestone


def last_pick(stored: StoredPick | StoredFlag) -> LastPick:
    """Return what undo takes back."""
    kind = stored.kind if isinstance(stored, StoredFlag) else stored.pick.kind
    return {"pick_id": stored.pick_id, "group_id": stored.group_id, "kind": kind}


def _named(run: Run) -> NamedTaste:
    model: ModelName = {"family": run.model.get("family", ""), "name": run.model.get("name", "")}
    return {"id": run.run_id, "name": run.name, "model": model}


def _round(run: Run, record: Round) -> RoundState:
    summary = record.summary
    drifts, chosen = dict(summary.strength_scan), summary.lora_strength
    return {
        "number": record.number,
        "finished": record.finished is not None,
        "guessed": summary.guessed,
        "guessed_of": summary.guessed_of,
        "reason": summary.reason,
        "taught": summary.strength > 0,
        "curve": summary.curve,
        "reward": record.settings.get("reward_name") if record.finished or run.rounds.stopped() else None,
        "strength": recommended_strength_of(summary),
        "details": summary.figures or None,
        "drift": drift_word(drifts[chosen]) if chosen in drifts else None,
        "lora": record.lora_file and record.lora_file.rpartition("/")[2],
        "win": summary.win,
        "kept": summary.prompt_kept,
        "used": chosen,
        "strip": _strip(run, record, chosen),
        "gentler": [
            {"strength": strength, "drift": drift_word(drifts[strength]), "strip": _strip(run, record, strength)}
            for strength in sorted(drifts, key=lambda each: (each > chosen, -each))  # weaker ones first
            if strength != chosen
        ],
    }


def _strip(run: Run, record: Round, strength: float) -> list[StripImage]:
    """Return a round's images before, and after at this strength; none where that was not drawn."""
    address, side = f"taste/{run.run_id}/strip/{record.number}", strip_side(strength)
    if not run.previews.has(record.number, side):
        return []
    return [
        {"prompt": prompt, "before": f"{address}/{i}/before", "after": f"{address}/{i}/{side}"}
        for i, prompt in enumerate(run.previews.prompts(record.number))
    ]
