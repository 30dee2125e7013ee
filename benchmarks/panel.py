"""How many invited people can pick at once: `python -m benchmarks.panel`.

A run of as many groups as are picked, `d3po serve` in a process of its own, and the people in another: each with an
invitation, connections that are kept open, and groups fetched ahead as a page does. They pick at an even pace.
Afterwards the picks in the database are compared with those that were acknowledged: none may be lost, none doubled,
none under another name. Acknowledged means on the disk. The time of a pick is counted from when it was due, so that a
server that falls behind is not spared.

    --people 16 --rate 4 --seconds 60    picks a second are those of each person
    --overlap 3                          how many people see the same group
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
AHEAD = 4
"""Groups that a page holds ahead."""


@dataclass
class Heard:
    """What the people were answered: acknowledged picks with their person, and milliseconds of each request."""

    picks: list[tuple[str, str, str]] = field(default_factory=list)
    pick_ms: list[float] = field(default_factory=list)
    next_ms: list[float] = field(default_factory=list)
    idle: int = 0


class Connection:
    """One connection that is kept open, with one invitation's cookie."""

    def __init__(self, port: int, cookie: str) -> None:
        self._port, self._cookie = port, cookie

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def post(self, path: str, values: dict[str, object]) -> dict[str, Any]:
        body = json.dumps(values).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nCookie: {self._cookie}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        while True:
            try:
                self._writer.write(head.encode() + body)
                answer = await self._reader.readuntil(b"\r\n\r\n")
                break
            except (asyncio.IncompleteReadError, ConnectionError):  # idle for so long that the server has closed it
                await self.open()
        length = int(answer.lower().partition(b"content-length:")[2].split()[0])
        data = await self._reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{path}: {answer.decode()}{data.decode()}")
        found: dict[str, Any] = json.loads(data)
        return found


async def pick_on(name: str, connections: list[Connection], base: str, rate: float, picks: int, heard: Heard) -> None:
    """Pick at an even pace, while another connection fetches groups, as a page does."""
    for connection in connections:
        await connection.open()
    client, cards, taken = uuid.uuid4().hex, list[dict[str, Any]](), set[str]()

    async def fetch() -> None:
        asked, holding = time.perf_counter(), [card["group_id"] for card in cards]
        answer = await connections[1].post(f"{base}/next", {"client": client, "want": AHEAD, "holding": holding})
        heard.next_ms.append(1000 * (time.perf_counter() - asked))
        cards.extend(card for card in answer["cards"] if card["reason"] == "repeat" or card["group_id"] not in taken)

    fetching = asyncio.create_task(fetch())
    begin = time.perf_counter() + random.random() / rate
    for n in range(picks):
        if len(cards) < AHEAD and fetching.done():
            fetching = asyncio.create_task(fetch())
        due = begin + n / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if not cards:
            await fetching
        if not cards:
            heard.idle += 1
            continue
        card = cards.pop(0)
        taken.add(card["group_id"])
        shown = [image["candidate"] for image in card["images"]]
        pick = {"pick_id": uuid.uuid4().hex, "client": client, "group_id": card["group_id"], "kind": "favourite"}
        pick |= {"order": shown[:1], "shown_order": shown, "decision_ms": 200, "reason": card["reason"]}
        answer = await connections[0].post(f"{base}/pick", pick)
        heard.pick_ms.append(1000 * (time.perf_counter() - due))
        heard.picks.append((answer["pick_id"], name, card["reason"]))
    await fetching


def people(port: int, base: str, cookies: dict[str, str], options: argparse.Namespace, result: Any) -> None:
    """Let everybody pick, in a process of their own, and hand back what they heard."""
    heard = Heard()

    async def together() -> None:
        picks = int(options.rate * options.seconds)
        both = {name: [Connection(port, cookie), Connection(port, cookie)] for name, cookie in cookies.items()}
        await asyncio.gather(*(pick_on(name, both[name], base, options.rate, picks, heard) for name in cookies))

    asyncio.run(together())
    result.put(heard)


def make_run(folder: Path, groups: int) -> str:
    """Make a run of `groups` groups with one small picture file between them; return its id."""
    from PIL import Image

    from d3po_core.run import Run

    run = Run.create(folder, name="Benchmark", model={"identity": "none"}, settings={})
    prompt, image = run.prompts.add("a quiet valley at dawn"), Image.new("RGB", (64, 64))
    fields: dict[str, Any] = {"policy": "base", "round": 1, "settings": {}, "held_out": False}
    run.groups.add(prompt_id=prompt, number=0, seed=0, candidates=2, tensors={}, images=[image, image], **fields)
    columns = "prompt_id, seed, candidates, policy, round, settings, held_out, created"
    with run._database.write() as connection:
        for number in range(1, groups):
            connection.execute(
                f"INSERT INTO groups (id, number, {columns}) SELECT ?, ?, {columns} FROM groups WHERE number = 0",
                (f"{number:06}-{number:08x}", number),
            )
    run.close()
    return run.run_id


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start `d3po serve` as people do who invite others, and wait until it answers."""
    command = [sys.executable, "-m", "d3po_core", "serve", "--run", str(folder), "--port", str(port)]
    process = subprocess.Popen([*command, "--listen", "127.0.0.1"], cwd=ROOT, stdout=subprocess.DEVNULL)
    for _ in range(2400):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.05)
    raise SystemExit("The server has not started.")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share(values: list[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def measure(folder: Path, options: argparse.Namespace) -> str:
    """Let people pick, compare with the database, and describe both in some lines."""
    from d3po_core.run import Run

    groups = int(options.people * options.rate * options.seconds / options.overlap * 1.05) + options.people * AHEAD
    run_id = make_run(folder, groups)
    run = Run.open(folder)
    run.leases.set_overlap(options.overlap)
    names = [f"Person {n + 1}" for n in range(options.people)]
    cookies = {name: f"d3po_{run_id[:12]}={run.invitations.create(name, 1)}" for name in names}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = start_server(folder, port)
    try:
        spawn = multiprocessing.get_context("spawn")
        results = spawn.Queue()
        before, begin = cpu_seconds(server.pid), time.perf_counter()
        process = spawn.Process(target=people, args=(port, f"/taste/{run_id}", cookies, options, results))
        process.start()
        while results.empty():
            if not process.is_alive():
                raise SystemExit("The people's process has failed.")
            time.sleep(0.1)
        heard: Heard = results.get()
        process.join()
        spent, used = time.perf_counter() - begin, cpu_seconds(server.pid) - before
    finally:
        server.kill()
        server.wait()
    return describe(run, heard, options, spent, used)


def describe(run: Any, heard: Heard, options: argparse.Namespace, spent: float, used: float) -> str:
    stored = {(pick.pick_id, pick.who, pick.reason) for pick in run.picks.history()}
    acknowledged = set(heard.picks)
    rows = len(run.picks.history())
    judged = Counter((pick.group_id, pick.who) for pick in run.picks.history() if pick.reason != "repeat")
    people_of = Counter(group_id for group_id, _ in judged)
    return "\n".join(
        [
            f"{options.people} people, {options.rate:g} picks a second each, {options.seconds:g} s, overlap "
            f"{options.overlap}: {len(heard.picks)} picks acknowledged ({heard.idle} times nothing was left to pick)",
            f"lost {len(acknowledged - stored)}, doubled {rows - len(acknowledged & stored)}, judged twice by one "
            f"person {sum(count > 1 for count in judged.values())}, groups with more people than "
            f"{options.overlap}: {sum(count > options.overlap for count in people_of.values())}",
            *(
                f"{what}: median {statistics.median(ms):.1f} ms, 95% {share(ms, 95):.1f}, 99% {share(ms, 99):.1f}, "
                f"slowest {max(ms):.1f}"
                for what, ms in (("a pick is acknowledged", heard.pick_ms), ("groups are handed out", heard.next_ms))
            ),
            f"the server used {used:.1f} s of processor time in {spent:.1f} s",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--rate", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--overlap", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(measure(Path(temporary) / "run", options))


if __name__ == "__main__":
    main()
