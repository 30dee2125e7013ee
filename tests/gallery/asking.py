"""Asking the gallery as a page does, without a web server."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from d3po_core.gallery import Actions, Request, Response, handle
from d3po_core.run import Run
from d3po_core.run.run import RunLibrary
from tests.run_helpers import make_run


class Page:
    """One page of one person, open on a taste."""

    def __init__(self, shelf: RunLibrary, run: Run, who: str = "", actions: Actions | None = None) -> None:
        self.shelf, self.run, self.who = shelf, run, who
        self.actions = actions or Actions()
        self.client = uuid.uuid4().hex

    def send(self, method: str, path: str, body: bytes = b"", query: Any = None, **headers: str) -> Response:
        given = {"host": "localhost:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return handle(self.shelf, self.actions, Request(method, path, query or {}, given, body))

    def get(self, path: str, **query: str) -> Any:
        response = self.send("GET", f"taste/{self.run.run_id}/{path}", query=query)
        assert isinstance(response.body, bytes)
        return response.status, json.loads(response.body)

    def post(self, path: str, **values: Any) -> Any:
        body = json.dumps({"client": self.client, "who": self.who, **values}).encode()
        response = self.send("POST", f"taste/{self.run.run_id}/{path}", body, content_type="application/json")
        assert isinstance(response.body, bytes)
        return response.status, json.loads(response.body)

    def next(self, want: int = 1, holding: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        status, answer = self.post("next", want=want, holding=list(holding))
        assert status == 200, answer
        return answer["cards"]

    def pick(self, card: dict[str, Any], kind: str = "favourite", pick_id: str = "", **values: Any) -> dict[str, Any]:
        shown = [image["candidate"] for image in card["images"]]
        given = {
            "order": shown[:1] if kind == "favourite" else [],
            "shown_order": shown,
            "decision_ms": 900,
            "reason": card["reason"],
        }
        status, answer = self.post(
            "pick", pick_id=pick_id or uuid.uuid4().hex, group_id=card["group_id"], kind=kind, **{**given, **values}
        )
        assert status == 200, answer
        return answer


def shelf_with(folder: Path, groups: int = 6, candidates: int = 2, **kwargs: Any) -> tuple[RunLibrary, Run]:
    """A shelf with one run."""
    make_run(folder / "taste", groups=groups, candidates=candidates, **kwargs).close()
    shelf = RunLibrary(folder)
    return shelf, shelf.runs()[0]
