"""What the gallery answers, one function for each thing that a page can ask of a taste."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from ..app.tournament import call_up, standings
from ..errors import D3POError
from ..evaluation.compare import STRENGTHS
from ..exchange.authors_json import feedback_rows
from ..exchange.lines import pick_lines
from ..picks import FLAGS, Pick
from ..run import Run
from ..run.blind_checks import strip_side
from ..run.panel import agreement
from ..run.records import JsonObject
from . import fields
from .actions import Actions
from .fields import GROUP, BadRequest, Fields
from .state import blind, card, image, state

KINDS = ("favourite", "ranking", "tie", "all_bad", "skipped")
REASONS = ("random", "repeat", "undo", "correction")
DECISIONS = ("keep", "gentler", "back")


class Filters(TypedDict):
    """Which picks of the history are shown; None for all."""

    kind: str | None
    who: str | None
    round: int | None
    text: str | None


@dataclass(frozen=True)
class Download:
    """A file made for the person who asks."""

    name: str
    kind: str
    data: bytes


@dataclass(frozen=True)
class Asked:
    """A request to one taste: its fields, from the body or the address."""

    run: Run
    actions: Actions
    fields: Fields

    def who(self) -> str:
        """Return the name that the page sends, in one line; empty for nobody in particular."""
        return " ".join(fields.text(self.fields, "who", "", 80).split())

    def state(self) -> JsonObject:
        """Return the state as a part of an answer."""
        return {"state": state(self.run, self.actions, self.who())}

    def knows(self, pick_id: str) -> bool:
        """Return whether there is such a pick or flag for whoever asks."""
        return self.run.picks.has(pick_id)


def show_state(asked: Asked) -> object:
    """Return the state (GET state); a page that asks for it keeps its leases."""
    if "client" in asked.fields:
        asked.run.leases.renew(fields.an_id(asked.fields, "client"), asked.who())
        asked.actions.seen(asked.run)
    return asked.state()["state"]


def next_cards(asked: Asked) -> JsonObject:
    """Lease the next groups to a page (POST next)."""
    client, want = fields.an_id(asked.fields, "client"), fields.whole(asked.fields, "want", 1, 8)
    asked.actions.seen(asked.run)
    call_up(asked.run, want - asked.run.leases.waiting(asked.who()))
    leases = asked.run.leases.take(client, asked.who(), want, fields.ids(asked.fields, "holding"))
    return {"cards": [card(asked.run, lease, asked.who()) for lease in leases], **asked.state()}


def pick(asked: Asked) -> JsonObject:
    """Record a pick (POST pick); the same id twice is recorded once."""
    sent = asked.fields
    kind, order = fields.choice(sent, "kind", KINDS), fields.numbers(sent, "order")
    recorded = asked.run.picks.add(
        fields.an_id(sent, "group_id", GROUP),
        Pick(kind, order),  # type: ignore[arg-type]  # one of KINDS
        pick_id=fields.an_id(sent, "pick_id"),
        who=asked.who(),
        shown_order=fields.numbers(sent, "shown_order"),
        decision_ms=fields.number(sent, "decision_ms", 0, fields.MAX_MS),
        reason=fields.choice(sent, "reason", REASONS, "random"),
    )
    return {"pick_id": recorded.pick_id, "new": recorded.new, **asked.state()}


def flag(asked: Asked) -> JsonObject:
    """Record that a candidate is defective or unsafe, or that it is not (POST flag)."""
    sent = asked.fields
    recorded = asked.run.flags.add(
        fields.an_id(sent, "group_id", GROUP),
        fields.whole(sent, "candidate", 0, 7),
        fields.choice(sent, "kind", FLAGS),  # type: ignore[arg-type]  # one of FLAGS
        on=fields.truth(sent, "on"),
        pick_id=fields.an_id(sent, "pick_id"),
        who=asked.who(),
        shown_order=fields.numbers(sent, "shown_order"),
        reason=fields.choice(sent, "reason", REASONS, "random"),
    )
    return {"pick_id": recorded.pick_id, "new": recorded.new, **asked.state()}


def mask(asked: Asked) -> JsonObject:
    """Record which part of a candidate is meant (POST mask); without rows all of it is."""
    sent = asked.fields
    recorded = asked.run.masks.add(
        fields.an_id(sent, "group_id", GROUP),
        fields.whole(sent, "candidate", 0, 7),
        fields.mask_rows(sent, "rows"),
        pick_id=fields.an_id(sent, "pick_id"),
        who=asked.who(),
        shown_order=fields.numbers(sent, "shown_order"),
        reason=fields.choice(sent, "reason", REASONS, "random"),
    )
    return {"pick_id": recorded.pick_id, "new": recorded.new, **asked.state()}


def undo(asked: Asked) -> JsonObject:
    """Take a pick back and show its group again (POST undo)."""
    client, taken = fields.an_id(asked.fields, "client"), asked.run.picks.take_back(_known_pick(asked))
    order = taken.shown_order or tuple(range(asked.run.groups.get(taken.group_id).candidates))
    reason = "repeat" if taken.reason == "repeat" else "undo"
    lease = asked.run.leases.take_again(taken.group_id, order, reason, client, asked.who())
    return {"card": card(asked.run, lease, asked.who(), taken), **asked.state()}


def remove(asked: Asked) -> JsonObject:
    """Take a pick back for good (POST remove)."""
    asked.run.picks.remove(_known_pick(asked))
    return asked.state()


def _known_pick(asked: Asked) -> str:
    pick_id = fields.an_id(asked.fields, "pick_id")
    if not asked.knows(pick_id):
        raise BadRequest("There is no such pick.", 404)
    return pick_id


def history(asked: Asked) -> JsonObject:
    """Return a page of earlier picks and flags, and how much people agree (GET history)."""
    run, who = asked.run, fields.text(asked.fields, "by", "", 80) if "by" in asked.fields else None
    return {
        **past_picks(asked, who),
        **{"people": run.history.people(), "rounds": run.groups.rounds()},
        "consistency": [
            {"who": name, "same": same, "of": times} for name, (same, times) in run.history.consistencies().items()
        ],
        "agreement": None if (measured := agreement(run)) is None else dataclasses.asdict(measured),
    }


def past_picks(asked: Asked, who: str | None) -> JsonObject:
    """Return a page of one person's earlier picks and flags, or of everybody's (None)."""
    sent, run = asked.fields, asked.run
    filters: Filters = {
        "kind": fields.choice(sent, "kind", (*KINDS, *FLAGS, "scores", ""), "") or None,
        "who": who,
        "round": fields.whole(sent, "round", 0, 10**9) if sent.get("round") else None,
        "text": fields.text(sent, "text", "") or None,
    }
    page = fields.whole(sent, "offset", 0, 10**9, 0), fields.whole(sent, "limit", 1, 200, 60)
    total, found = run.history.page(*page, **filters)
    items = [
        {
            **{name: value for name, value in vars(past).items() if name not in ("candidates", "masks")},
            "flags": [
                {"candidate": candidate, "kind": kind} for candidate, kinds in past.flags.items() for kind in kinds
            ],
            "masks": [{"candidate": candidate, "rows": list(rows)} for candidate, rows in past.masks.items()],
            "images": [image(run, past.group_id, candidate) for candidate in range(past.candidates)],
        }
        for past in found
    ]
    return {"total": total, "items": items}


def ranking(asked: Asked) -> JsonObject:
    """Return the pictures of a tournament, best first, by prompt (GET ranking)."""
    run = asked.run
    return {
        "pools": [
            {
                "prompt": pool[0].entrant.prompt,
                "pictures": [
                    {
                        **{"place": ranked.place, "won": ranked.won, "played": ranked.played},
                        **{"name": ranked.entrant.source, "image": image(run, ranked.entrant.group_id, 0)},
                    }
                    for ranked in pool
                ],
            }
            for pool in standings(run)
        ]
    }


def export(asked: Asked) -> Download:
    """Return all picks as a file (GET export)."""
    form = fields.choice(asked.fields, "form", ("jsonl", "d3po"), "jsonl")
    if form == "d3po":
        rows, _ = feedback_rows(asked.run, asked.who())
        return Download("picks.json", "application/json", json.dumps(rows).encode())
    return Download("picks.jsonl", "application/jsonl", pick_lines(asked.run).encode())


def rename(asked: Asked) -> JsonObject:
    """Rename the taste (POST rename)."""
    asked.run.rename(fields.text(asked.fields, "name"))
    return asked.state()


def act(asked: Asked, action: str) -> JsonObject:
    """Request work of the host (POST draw, teach, stop)."""
    if action not in asked.actions.can(asked.run):
        raise BadRequest(f"'{action}' cannot be done now.")
    if action == "draw":
        asked.actions.draw(asked.run, fields.whole(asked.fields, "groups", 1, 1000))
    elif action == "teach":
        asked.actions.teach(asked.run)
    else:
        asked.actions.stop(asked.run)
    return asked.state()


def go_on(asked: Asked) -> JsonObject:
    """Let a taste go on whose LoRA file is missing or damaged (POST go_on); nothing happens where none is."""
    asked.actions.go_on(asked.run)
    return asked.state()


def blind_next(asked: Asked) -> JsonObject:
    """Return the next pair of a blind check (POST blind/next)."""
    check = asked.run.blind_checks.get(fields.an_id(asked.fields, "check"))
    waiting = next((pair for pair in check.pairs if pair.answer is None), None)
    address = f"taste/{asked.run.run_id}/blind/image/{check.id}"
    pair = waiting and {
        "index": waiting.index,
        "prompt": waiting.prompt,
        "images": [{"side": side, "url": f"{address}/{waiting.index}/{side}"} for side in (0, 1)],
    }
    return {"pair": pair, "blind": blind(check)}


def blind_answer(asked: Asked) -> JsonObject:
    """Record an answer in a blind check (POST blind/answer)."""
    sent = asked.fields
    side = None if sent.get("side") is None else fields.whole(sent, "side", 0, 1)
    decision_ms = fields.number(sent, "decision_ms", 0, fields.MAX_MS)
    index = fields.whole(sent, "index", 0, 1000)
    check = asked.run.blind_checks.answer(fields.an_id(sent, "check"), index, side, decision_ms)
    return {"blind": blind(check)}


def blind_undo(asked: Asked) -> JsonObject:
    """Take the last answer of a blind check back (POST blind/undo)."""
    return {"blind": blind(asked.run.blind_checks.take_back(fields.an_id(asked.fields, "check")))}


def blind_decide(asked: Asked) -> JsonObject:
    """Apply what a person decided after a blind check (POST blind/decide)."""
    sent = asked.fields
    decision = fields.choice(sent, "decision", DECISIONS)
    check = asked.run.blind_checks.get(fields.an_id(sent, "check"))
    number = fields.whole(sent, "round", 0, 10**6, check.round)
    if "decide" not in asked.actions.can(asked.run):
        raise BadRequest("Nothing can be decided here.")
    if asked.run.blind_checks.is_outdated(check):
        later = f"This check is of round {check.round}, and a later one has been taught since."
        raise D3POError(later, "Go on with that one.", "Nothing was changed.")
    strength = fields.number(sent, "strength", 0, 1) or 1.0
    if decision == "gentler" and strength not in STRENGTHS:
        raise BadRequest("'strength' is none of those that were tried.")
    asked.actions.decide(asked.run, number, decision, strength)
    asked.run.blind_checks.decide(check.id, decision)
    return asked.state()


def group_image(run: Run, group: str, candidate: str) -> Path:
    """Return a candidate's image file (GET image/GROUP/CANDIDATE)."""
    return run.groups.image_path(
        fields.an_id({"group_id": group}, "group_id", GROUP), fields.whole({"candidate": candidate}, "candidate", 0, 7)
    )


def blind_image(run: Run, check: str, index: str, side: str) -> Path:
    """Return an image file of a blind check (GET blind/image/CHECK/INDEX/SIDE)."""
    sent = {"check": check, "index": index, "side": side}
    return run.blind_checks.image(
        fields.an_id(sent, "check"), fields.whole(sent, "index", 0, 1000), fields.whole(sent, "side", 0, 1)
    )


def strip_image(run: Run, number: str, index: str, side: str) -> Path:
    """Return an image file of a round's before/after strip (GET strip/ROUND/INDEX/SIDE)."""
    sent = {"round": number, "index": index, "side": side}
    numbers = fields.whole(sent, "round", 0, 10**6), fields.whole(sent, "index", 0, 1000)
    return run.previews.image(*numbers, fields.choice(sent, "side", ("before", *map(strip_side, STRENGTHS))))
