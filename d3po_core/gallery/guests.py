"""What invited people may ask of a run, and what they learn of it: the groups to pick in, and their own picks.

Nothing here takes away from an answer that the owner would get, other than of the history: a guest's state is made of
what a guest may know, so that what owners get one day does not reach guests by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from ..app.tournament import progress
from ..errors import D3POError
from ..picks import MIN_PICKS
from ..run import Run
from ..run.records import JsonObject
from . import answers
from .access import from_another_site
from .actions import Actions
from .answers import Asked
from .fields import BadRequest, Fields
from .requests import IMAGES, NOTHING, POSTS, Request, Response, Routes, refusal
from .state import State, last_pick

DRAWING = ("drawing", "loading")
"""Work of the host's that a guest waits for, as in `WorkProgress`."""


@dataclass(frozen=True)
class AskedByGuest(Asked):
    """A request by an invited person, under whose name all is done.

    Attributes:
        name: of the person.
    """

    name: str

    def who(self) -> str:
        """Return the name in the invitation."""
        return self.name

    def state(self) -> JsonObject:
        """Return the state as a part of an answer."""
        return {"state": guest_state(self.run, self.actions, self.name)}

    def knows(self, pick_id: str) -> bool:
        """Return whether the guest made such a pick or flag."""
        return self.run.picks.has(pick_id, self.name)


def guest_state(run: Run, actions: Actions, who: str) -> State:
    """Return the state for a guest: how far they are, of all that they can pick in."""
    own, tournament, last = run.leases.progress(who), progress(run), run.picks.last(who)
    to_come = tournament.to_come if tournament else 0
    done, of = own.done, own.of + to_come
    return {
        "taste": {"id": run.run_id, "name": run.name, "model": {"family": "", "name": ""}},
        "revision": run.picks.revision,
        "can": [],
        "picks": {
            "yours": done,
            "all": done,
            "usable": done,
            "untaught": 0,
            "needed": MIN_PICKS,
            "milestone": of,
            "previous": 0,
        },
        "last": last_pick(last) if last else None,
        "groups": {"drawn": of, "waiting": own.waiting + to_come, "near": 0},
        "work": _work(actions.work(run)),
        "problem": None,
        "lost": None,
        "rounds": [],
        "blind": None,
        "understood": None,
        "tournament": None,
    }


def _work(work: Mapping[str, object] | None) -> Mapping[str, object] | None:
    if work is None or work["kind"] not in DRAWING:
        return None
    return {**{name: work[name] for name in ("kind", "done", "of", "left_s")}, "queued": 0, "text": ""}


def history(asked: Asked) -> JsonObject:
    """Return a page of the guest's own earlier picks and flags (GET history)."""
    who, run = asked.who(), asked.run
    page = answers.past_picks(asked, who)
    same, times = run.history.consistency([who])
    return {
        "total": page["total"],
        "items": [{**item, "round": 0, "held_out": False} for item in page["items"]],
        **{"people": [who], "rounds": [], "agreement": None},
        "consistency": [{"who": who, "same": same, "of": times}] if times else [],
    }


FOR_GUESTS = Routes(
    {"state": answers.show_state, "history": history},
    {name: POSTS[name] for name in ("next", "pick", "flag", "mask", "undo", "remove")},
    {"image": IMAGES["image"]},
)


def handle_guest(run: Run, actions: Actions, who: str, request: Request) -> Response:
    """Answer a guest's request. What only the owner may ask is refused as what does not exist.

    What goes wrong on this computer is said in words that name none of its files.
    """
    try:
        if from_another_site(request.headers):
            raise BadRequest("This request comes from another site.", 400)
        parts = request.path.strip("/").split("/")
        if request.method not in ("GET", "POST") or len(parts) < 3 or parts[:2] != ["taste", run.run_id]:
            raise BadRequest(NOTHING, 404)
        ask = partial(_ask, run, actions, who)
        return FOR_GUESTS.answer(ask, request, parts[2:])
    except BadRequest as error:
        return refusal(error.status, str(error))
    except D3POError as error:
        if error.__cause__ is not None:  # the disk or the database
            return refusal(503, "The computer that serves these pictures has a problem.", "It is tried again.")
        return refusal(400, "This cannot be done.", "Reload the page.")


def _ask(run: Run, actions: Actions, who: str, fields: Fields) -> Asked:
    """Return what a guest asks.

    Raises:
        BadRequest: a page asks that was opened by another link, or by the owner. All pages of a browser send the cookie
            of the link that was opened last; what they do must not be stored under that name.
    """
    asked = AskedByGuest(run, actions, fields, who)
    if "who" in fields and Asked.who(asked) != who:
        raise BadRequest("This page was opened for somebody else. Reload it.", 403)
    return asked
