"""A run that is served by a real server, in a thread of its own, and people who ask it over a socket."""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from d3po_core.gallery import Actions
from d3po_core.gallery.serving import ByLink, OwnerHere, ServingApp, bind, make_server, web_folder
from d3po_core.run import Run
from d3po_core.run.invitations import new_token


class Served:
    """A run behind a server at 127.0.0.1, to its owner there or to whoever has a link."""

    def __init__(self, folder: Path, *, by_link: bool = True, url: str = "") -> None:
        self.run = Run.open(folder)
        opened = bind("127.0.0.1", 0)
        self.port = opened.getsockname()[1]
        self.address = url or f"http://127.0.0.1:{self.port}/"
        self.owner = new_token()
        door = ByLink(self.run, self.address, self.owner) if by_link else OwnerHere(self.port)
        self.cookie_name = f"d3po_{self.run.run_id[:12]}"
        self.server = make_server(ServingApp(self.run, Actions(), web_folder(), door))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [opened]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.run.close()

    def ask(self, method: str, path: str, values: Any = None, token: str = "", **headers: str) -> Answer:
        """Ask with the cookie that a link with this token leaves."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Cookie"] = f"{self.cookie_name}={token}"
        if values is not None:
            sent.setdefault("Content-Type", "application/json")
        body = json.dumps(values) if values is not None and not isinstance(values, bytes) else values
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        answer = Answer(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
        connection.close()
        return answer


class Answer:
    """What came back."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status, self.body, self.headers = status, body, headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Guest:
    """One page of an invited person."""

    def __init__(self, served: Served, token: str) -> None:
        self.served, self.token, self.client = served, token, uuid.uuid4().hex
        self.base = f"/taste/{served.run.run_id}"

    def get(self, path: str) -> Answer:
        return self.served.ask("GET", f"{self.base}/{path}", token=self.token)

    def post(self, path: str, **values: Any) -> Answer:
        return self.served.ask("POST", f"{self.base}/{path}", {"client": self.client, **values}, token=self.token)

    def next(self, want: int = 1, holding: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        answer = self.post("next", want=want, holding=list(holding))
        assert answer.status == 200, answer.body
        cards: list[dict[str, Any]] = answer.json["cards"]
        return cards

    def pick(self, card: dict[str, Any], **values: Any) -> Answer:
        shown = [image["candidate"] for image in card["images"]]
        pick = {"pick_id": uuid.uuid4().hex, "group_id": card["group_id"], "kind": "favourite", "order": shown[:1]}
        return self.post("pick", **{**pick, "shown_order": shown, "reason": card["reason"], **values})
