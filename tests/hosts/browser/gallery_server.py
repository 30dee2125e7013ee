"""The real gallery behind a web server that can be slow, fail, be away, and remember what it was asked.

The taste is a run in a folder with small PNGs. The answers are those of `GalleryApp`; only the work that a host would
do is made up here.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from d3po_core.errors import D3POError
from d3po_core.gallery import Actions
from d3po_core.gallery.requests import GalleryApp
from d3po_core.picks import Pick
from d3po_core.run import BaseModelFacts, RoundSummary, Run, StoredFlag, StoredPick, policy_id
from d3po_core.run.run import RunLibrary
from tests.hosts.browser.pictures import landscape

WEB = Path(__file__).parents[3] / "web"
PROMPTS = (
    "a quiet valley at dawn, soft mist between the hills, watercolour",
    "dunes under a pale sun, wide and empty, gouache, muted palette, one line of footprints leading to the horizon",
    "northern hills after rain",
    "terraced fields seen from far away, long shadows, late summer light, analogue photograph, fine grain, 35 mm",
)
FIGURES = {"loss": 0.5132, "margin": 0.8421, "kl_sampler": 12.3456, "kl_base": 20.12345, "clip_fraction": 0.03}
DRIFTS = {"low": 0.01, "medium": 0.06, "high": 0.2}
"""Nats per latent element that are called so."""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>A host</title><link rel="icon" href="data:,">
<style>html, body {{ margin: 0; height: 100% }} #box {{ height: 100%; position: relative }}</style></head>
<body><h1 style="position:absolute;clip-path:inset(50%)">A host</h1>
<input id="outside" aria-label="outside"
 style="position:absolute;top:0;left:0;width:9px;height:9px;padding:0;z-index:9;opacity:0">
<div id="box"><d3po-gallery base="/d3po" {attributes}></d3po-gallery></div>
<script>
  window.heard = [];
  for (const where of [window, document]) for (const type of ["keydown", "keyup", "keypress", "paste"])
    where.addEventListener(type, (event) => window.heard.push(type));
</script>
<script type="module" src="/d3po/web/gallery.mjs"></script></body></html>"""


@dataclass(frozen=True)
class Said:
    """A recorded pick, as the page sent it."""

    pick_id: str
    group_id: str
    kind: str
    order: list[int]
    who: str
    reason: str
    shown_order: list[int]
    decision_ms: float | None


class Taste:
    """A run, in words of the page's tests."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.id = run.run_id

    def draw(
        self, count: int, candidates: int = 2, prompt: str = "", size: tuple[int, int] = (512, 512), alike: bool = False
    ) -> list[str]:
        """Add groups to pick from; their ids. Those whose candidates look alike are not shown."""
        ids = []
        for _ in range(count):
            number = self.run.groups.next_number()
            group_id = self.run.groups.add(
                prompt_id=self.run.prompts.add(prompt or PROMPTS[number % len(PROMPTS)]),
                number=number,
                seed=number,
                candidates=candidates,
                policy="base",
                round=0,
                settings={},
                held_out=number % 7 == 3,
                tensors={},
                images=[landscape(number * 8 + candidate, *size) for candidate in range(candidates)],
                near=range(1, candidates) if alike else (),
            )
            ids.append(group_id)
        return ids

    def pick(self, group_id: str, pick: Pick, who: str = "", reason: str = "random") -> None:
        """Record what somebody said some time ago."""
        shown = range(self.run.groups.get(group_id).candidates)
        self.run.picks.add(group_id, pick, who=who, shown_order=shown, decision_ms=900, reason=reason)

    def picked(self, count: int, candidates: int = 2, who: str = "") -> list[str]:
        """Add a past of favourites, all of the first candidate; the groups' ids."""
        ids = self.draw(count, candidates, size=(64, 64))
        for group_id in ids:
            self.pick(group_id, Pick("favourite", (0,)), who)
        return ids

    def has_groups(self) -> bool:
        return bool(self.run.groups.select())

    def standing(self) -> list[Said]:
        """One pick for each person and group: the last that was not taken back."""
        return [_said(pick) for pick in self.run.picks.standing()]

    def made(self) -> list[Said]:
        """All picks ever recorded."""
        return [_said(pick) for pick in self.run.picks.history()]

    def flagged(self) -> list[StoredFlag]:
        """The flags that stand."""
        return self.run.flags.standing()

    def flags_made(self) -> list[StoredFlag]:
        """All flags ever recorded."""
        return self.run.flags.history()

    def judged(self) -> int:
        """How many groups have a pick or a flag."""
        return len(self.run.picks.judgements())

    def counted(self) -> int:
        """How many picks the progress line counts."""
        return self.run.picks.counts("").picks

    def leased(self) -> int:
        """How many unpicked groups are before somebody's eyes."""
        counts = self.run.picks.counts("")
        return counts.drawn - counts.waiting

    def add_round(
        self,
        *,
        drift: str = "medium",
        reason: str = "",
        lora: str = "hills-2.safetensors",
        reward: str | None = None,
        figures: dict[str, float] = FIGURES,
    ) -> None:
        """Add a finished round with images before and after, also at 0.7; at 0.4 it was measured and not drawn."""
        number = self.run.rounds.begin({"reward_name": reward})
        self.run.previews.save(
            number, ["dunes"], {side: [landscape(number)] for side in ("before", "after", "after-70")}
        )
        scan = ((1.0, DRIFTS[drift]), (0.7, DRIFTS["low"]), (0.4, DRIFTS["low"]))
        summary = RoundSummary(strength_scan=scan, figures=figures, reason=reason)
        if reward is None:
            summary = replace(summary, guessed=81, guessed_of=100, curve=(0.5, 0.7, 0.81))
        path = self.run.rounds.folder_of(number) / lora
        path.write_bytes(f"the LoRA of round {number}".encode())
        self.run.rounds.finish(number, path, policy_id(path), summary)

    def begin_round(self, reward: str) -> None:
        """Add a round by a reward that was stopped after it had learnt something."""
        number = self.run.rounds.begin({"reward_name": reward}, by_picks=False)
        self.run.rounds.save_state(number, {}, {})

    def prepare_blind(self, of: int = 12) -> None:
        """Add a blind check of round 2."""
        prompts = [PROMPTS[index % len(PROMPTS)] for index in range(of)]
        before, taught = ([landscape(side + index, 128, 128) for index in range(of)] for side in (1000, 2000))
        self.run.blind_checks.add(2, prompts, before, taught)

    def answers(self) -> list[str]:
        """What was answered in the blind check."""
        check = self.run.blind_checks.last()
        return [pair.answer for pair in check.pairs if pair.answer] if check else []

    def side_of_taught(self, index: int) -> int:
        """Where the taught model's image is in a pair of the blind check: 0 or 1."""
        check = self.run.blind_checks.last()
        assert check is not None
        return 0 if check.pairs[index].side(0) == "taught" else 1


def _said(stored: StoredPick) -> Said:
    pick, shown = stored.pick, list(stored.shown_order)
    who, reason = stored.who, stored.reason
    return Said(stored.pick_id, stored.group_id, pick.kind, list(pick.order), who, reason, shown, stored.decision_ms)


class HostActions(Actions):
    """A host that only writes down what it is asked to do. Set what it says of itself at any time."""

    def __init__(self) -> None:
        self.possible = ["teach", "decide"]
        self.doing: dict[str, Any] | None = None
        self.trouble: D3POError | None = None
        self.asked: list[tuple[Any, ...]] = []

    def can(self, run: Run) -> list[str]:
        return self.possible

    def work(self, run: Run) -> dict[str, Any] | None:
        return self.doing

    def busy(self, kind: str, done: int, of: int, left_s: float, text: str = "") -> None:
        """Say that work is under way."""
        self.doing = {"kind": kind, "done": done, "of": of, "left_s": left_s, "queued": 0, "text": text}

    def problem(self, run: Run) -> D3POError | None:
        return self.trouble

    def draw(self, run: Run, groups: int) -> None:
        self.asked.append(("draw", groups))
        Taste(run).draw(groups, size=(64, 64))

    def teach(self, run: Run) -> None:
        self.asked.append(("teach",))

    def stop(self, run: Run) -> None:
        self.asked.append(("stop",))

    def decide(self, run: Run, round: int, decision: str, strength: float) -> None:
        self.asked.append(("decide", round, decision, strength))


class GalleryServer:
    """One taste behind an address. Set `delay`, `away` and `failing` at any time."""

    def __init__(self, folder: Path) -> None:
        model = BaseModelFacts(family="sd15", name="a small model")
        Run.create(folder / "taste", name="Soft hills", model=model, settings={}).close()
        self.library, self.actions = RunLibrary(folder), HostActions()
        self.app = GalleryApp(self.library, self.actions, WEB)
        self.taste = Taste(self.library.runs()[0])
        self.lock = threading.Lock()
        """Held while a request is answered: a database must not be closed then."""
        self.delay = 0.0
        self.image_delay = 0.0
        self.away = False
        self.failing: dict[str, tuple[int, int]] = {}
        """For a path's ending: the status to answer with, and how many times more."""
        self.losing: Counter[str] = Counter()
        """For a path's ending: how many answers more are made and never arrive."""
        self.requests: Counter[str] = Counter()
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        server = self

        class Handler(_Handler):
            owner = server

        self._http = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.away = True
        self._http.shutdown()
        self._http.server_close()
        with self.lock:
            self.library.close()

    def page(self, attributes: str = "") -> str:
        return f"{self.url}/page?{attributes}"

    def sent(self, name: str) -> list[dict[str, Any]]:
        """The bodies of all requests of a kind."""
        return [body for path, body in self.bodies if path.endswith(f"/{name}")]

    def fail(self, ending: str, status: int, times: int = 1) -> None:
        self.failing[ending] = (status, times)

    def should_fail(self, path: str) -> int | None:
        for ending, (status, times) in self.failing.items():
            if path.endswith(ending) and times:
                self.failing[ending] = (status, times - 1)
                return status
        return None


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: GalleryServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/page":
            page = PAGE.format(attributes=_attributes(address.query)).encode()
            return self._send(200, {"Content-Type": "text/html", "Cache-Control": "no-store"}, page)
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        """Answer as the real gallery does, after whatever the test has in store for this path."""
        owner = self.owner
        path = urlsplit(self.path).path.removeprefix("/d3po/")
        if path.startswith("web/"):
            return self._send(*asyncio.run(_ask(owner.app, self, body)))
        owner.requests[path] += 1
        if owner.away:
            self.close_connection = True
            return
        time.sleep(owner.image_delay if "/image/" in path else owner.delay)
        status = owner.should_fail(path)
        if status:
            return self._send(status, {"Content-Type": "application/json"}, _error(status))
        if body:
            owner.bodies.append((path, json.loads(body)))
        with owner.lock:
            if owner.away:
                self.close_connection = True
                return
            answer = asyncio.run(_ask(owner.app, self, body))
        for ending in [ending for ending, times in owner.losing.items() if times and path.endswith(ending)]:
            owner.losing[ending] -= 1
            self.close_connection = True
            return
        self._send(*answer)

    def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
        with suppress(OSError):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)


async def _ask(app: GalleryApp, request: _Handler, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Ask the application; status, headers and body."""
    address = urlsplit(request.path)
    scope = {
        **{"type": "http", "method": request.command, "root_path": "/d3po", "path": unquote(address.path)},
        "query_string": address.query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in request.headers.items()],
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, content = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"] if name != b"content-length"}
    return start["status"], headers, content["body"]


def _attributes(query: str) -> str:
    return " ".join(f'{name}="{escape(value)}"' for name, value in parse_qsl(query, keep_blank_values=True))


def _error(status: int) -> bytes:
    said = {"what": f"It went wrong with {status}.", "do": "Look at the log.", "safe": "Your picks are saved."}
    return json.dumps({"error": said}).encode()
