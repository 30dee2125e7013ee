"""What the gallery answers, one function for each thing that a page can ask of a taste."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.compare import STRENGTHS
from ..exchange.authors_json import feedback_rows
from ..exchange.lines import pick_lines
from ..picks import FLAGS, Pick
from ..run import Run
from ..run.blind_checks import strip_side
from . import fields
from .actions import Actions
from .fields import GROUP, BadRequest, NotFound
from .state import blind, card, image, state

KINDS = ("favourite", "ranking", "tie", "all_bad", "skipped")
REASONS = ("random", "repeat", "undo", "correction")
DECISIONS = ("keep", "gentler", "back")


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
    fields: Mapping[str, Any]

    def who(self) -> str:
        return " ".join(fields.text(self.fields, "who", "", 80).split())

    def state(self) -> dict[str, Any]:
        return {"state": state(self.run, self.actions, self.who())}


def show_state(asked: Asked) -> dict[str, Any]:
    """GET state"""
    if "client" in asked.fields:
        asked.run.leases.renew(fields.an_id(asked.fields, "client"))
        asked.actions.seen(asked.run)
    return state(asked.run, asked.actions, asked.who())


def next_cards(asked: Asked) -> dict[str, Any]:
    """POST next"""
    client, want = fields.an_id(asked.fields, "client"), fields.whole(asked.fields, "want", 1, 8)
    asked.actions.seen(asked.run)
    leases = asked.run.leases.take(client, asked.who(), want, fields.ids(asked.fields, "holding"))
    return {"cards": [card(asked.run, lease, asked.who()) for lease in leases], **asked.state()}


def pick(asked: Asked) -> dict[str, Any]:
    """POST pick"""
    given = asked.fields
    kind, order = fields.choice(given, "kind", KINDS), fields.numbers(given, "order")
    recorded = asked.run.picks.add(
        fields.an_id(given, "group_id", GROUP),
        Pick(kind, order),  # type: ignore[arg-type]  # one of KINDS
        pick_id=fields.an_id(given, "pick_id"),
        who=asked.who(),
        shown_order=fields.numbers(given, "shown_order"),
        decision_ms=fields.number(given, "decision_ms", 0, fields.MAX_MS),
        reason=fields.choice(given, "reason", REASONS, "random"),
    )
    return {"pick_id": recorded.pick_id, "new": recorded.new, **asked.state()}


def flag(asked: Asked) -> dict[str, Any]:
    """POST flag"""
    given = asked.fields
    recorded = asked.run.flags.add(
        fields.an_id(given, "group_id", GROUP),
        fields.whole(given, "candidate", 0, 7),
        fields.choice(given, "kind", FLAGS),  # type: ignore[arg-type]  # one of FLAGS
        on=fields.truth(given, "on"),
        flag_id=fields.an_id(given, "pick_id"),
        who=asked.who(),
        shown_order=fields.numbers(given, "shown_order"),
        reason=fields.choice(given, "reason", REASONS, "random"),
    )
    return {"pick_id": recorded.pick_id, "new": recorded.new, **asked.state()}


def undo(asked: Asked) -> dict[str, Any]:
    """POST undo"""
    client, pick_id = fields.an_id(asked.fields, "client"), fields.an_id(asked.fields, "pick_id")
    if not asked.run.picks.has(pick_id):
        raise NotFound("There is no such pick.")
    taken = asked.run.picks.take_back(pick_id)
    order = taken.shown_order or tuple(range(asked.run.groups.get(taken.group_id).candidates))
    lease = asked.run.leases.take_again(taken.group_id, order, "repeat" if taken.reason == "repeat" else "undo", client)
    return {"card": card(asked.run, lease, asked.who(), taken), **asked.state()}


def remove(asked: Asked) -> dict[str, Any]:
    """POST remove"""
    pick_id = fields.an_id(asked.fields, "pick_id")
    if not asked.run.picks.has(pick_id):
        raise NotFound("There is no such pick.")
    asked.run.picks.remove(pick_id)
    return asked.state()


def history(asked: Asked) -> dict[str, Any]:
    """GET history"""
    given, run = asked.fields, asked.run
    filters: dict[str, Any] = {
        "kind": fields.choice(given, "kind", (*KINDS, *FLAGS, "scores", ""), "") or None,
        "who": fields.text(given, "by", "", 80) if "by" in given else None,
        "round": fields.whole(given, "round", 0, 10**9) if given.get("round") else None,
        "text": fields.text(given, "text", "") or None,
    }
    page = fields.whole(given, "offset", 0, 10**9, 0), fields.whole(given, "limit", 1, 200, 60)
    total, found = run.history.page(*page, **filters)
    same, times = run.history.consistency()
    items = [
        {
            **{"pick_id": past.pick_id, "group_id": past.group_id, "number": past.number, "prompt": past.prompt},
            **{"kind": past.kind, "order": list(past.order), "scores": list(past.scores)},
            **{"who": past.who, "when": past.when, "reason": past.why},
            **{"round": past.round, "held_out": past.held_out},
            "flags": [
                {"candidate": candidate, "kind": kind} for candidate, kinds in past.flags.items() for kind in kinds
            ],
            "images": [image(run, past.group_id, candidate) for candidate in range(past.candidates)],
        }
        for past in found
    ]
    return {
        **{"total": total, "items": items, "people": run.history.people(), "rounds": run.groups.rounds()},
        "consistency": {"same": same, "of": times} if times else None,
    }


def export(asked: Asked) -> Download:
    """GET export"""
    form = fields.choice(asked.fields, "form", ("jsonl", "d3po"), "jsonl")
    if form == "d3po":
        rows, _ = feedback_rows(asked.run, asked.who())
        return Download("picks.json", "application/json", json.dumps(rows).encode())
    return Download("picks.jsonl", "application/jsonl", pick_lines(asked.run).encode())


def rename(asked: Asked) -> dict[str, Any]:
    """POST rename"""
    asked.run.rename(fields.text(asked.fields, "name"))
    return asked.state()


def act(asked: Asked, action: str) -> dict[str, Any]:
    """POST draw, teach, stop"""
    if action not in asked.actions.can(asked.run):
        raise BadRequest(f"'{action}' cannot be done now.")
    if action == "draw":
        asked.actions.draw(asked.run, fields.whole(asked.fields, "groups", 1, 1000))
    elif action == "teach":
        asked.actions.teach(asked.run)
    else:
        asked.actions.stop(asked.run)
    return asked.state()


def blind_next(asked: Asked) -> dict[str, Any]:
    """POST blind/next"""
    check = asked.run.blind_checks.get(fields.an_id(asked.fields, "check"))
    waiting = next((pair for pair in check.pairs if pair.answer is None), None)
    address = f"taste/{asked.run.run_id}/blind/image/{check.id}"
    pair = waiting and {
        "index": waiting.index,
        "prompt": waiting.prompt,
        "images": [{"side": side, "url": f"{address}/{waiting.index}/{side}"} for side in (0, 1)],
    }
    return {"pair": pair, "blind": blind(check)}


def blind_answer(asked: Asked) -> dict[str, Any]:
    """POST blind/answer"""
    given = asked.fields
    side = None if given.get("side") is None else fields.whole(given, "side", 0, 1)
    decision_ms = fields.number(given, "decision_ms", 0, fields.MAX_MS)
    index = fields.whole(given, "index", 0, 1000)
    check = asked.run.blind_checks.answer(fields.an_id(given, "check"), index, side, decision_ms)
    return {"blind": blind(check)}


def blind_decide(asked: Asked) -> dict[str, Any]:
    """POST blind/decide"""
    given = asked.fields
    decision = fields.choice(given, "decision", DECISIONS)
    check = asked.run.blind_checks.get(fields.an_id(given, "check"))
    round = fields.whole(given, "round", 0, 10**6, check.round)
    if "decide" not in asked.actions.can(asked.run):
        raise BadRequest("Nothing can be decided here.")
    strength = fields.number(given, "strength", 0, 1) or 1.0
    if decision == "gentler" and strength not in STRENGTHS[1:]:
        raise BadRequest("'strength' is none of those that were tried.")
    asked.actions.decide(asked.run, round, decision, strength)
    asked.run.blind_checks.decide(check.id, decision)
    return asked.state()


def group_image(run: Run, group: str, candidate: str) -> Path:
    """GET image/GROUP/CANDIDATE"""
    return run.groups.image_path(
        fields.an_id({"group_id": group}, "group_id", GROUP), fields.whole({"candidate": candidate}, "candidate", 0, 7)
    )


def blind_image(run: Run, check: str, index: str, side: str) -> Path:
    """GET blind/image/CHECK/INDEX/SIDE"""
    given = {"check": check, "index": index, "side": side}
    return run.blind_checks.image(
        fields.an_id(given, "check"), fields.whole(given, "index", 0, 1000), fields.whole(given, "side", 0, 1)
    )


def strip_image(run: Run, round: str, index: str, side: str) -> Path:
    """GET strip/ROUND/INDEX/SIDE"""
    given = {"round": round, "index": index, "side": side}
    numbers = fields.whole(given, "round", 0, 10**6), fields.whole(given, "index", 0, 1000)
    return run.previews.image(*numbers, fields.choice(given, "side", ("before", *map(strip_side, STRENGTHS))))
