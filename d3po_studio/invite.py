"""Letting invited people in: a panel that makes and revokes links, and a server for each taste that is open to them."""

from __future__ import annotations

import html
import time
from contextlib import suppress
from urllib.parse import urlsplit

import gradio as gr

from d3po_core.cli.serve import address as check_address
from d3po_core.errors import D3POError
from d3po_core.gallery.serving import PORT, GuestServer, join_link, own_address
from d3po_core.run import Run
from d3po_core.run.invitations import MAX_NAME, Invitation
from d3po_core.run.leases import MAX_OVERLAP
from d3po_core.run.run import RunLibrary
from d3po_panels import tastes
from d3po_panels.controls import Component, Refresh, Update, show_errors
from d3po_panels.words import WORDS
from d3po_panels.worker import Worker

PORTS = 20
"""Ports that are tried, from `PORT` down; the Studio's own begin above it."""
REFRESH_SECONDS = 5.0


class Serving:
    """The tastes that invited people come in to, each at a port of its own."""

    def __init__(self) -> None:
        self._servers: dict[str, GuestServer] = {}

    def start(self, run: Run, worker: Worker, proxy: str) -> None:
        """Let invited people in, where they came in before if that can be; nothing happens where they can already.

        Args:
            run: the taste.
            worker: draws ahead for them, too.
            proxy: address of a reverse proxy on this computer; empty without one.

        Raises:
            D3POError: no port is free, or the address is none.
        """
        if run.run_id in self._servers:
            return
        if proxy:
            self._servers[run.run_id] = self._behind(run, worker, check_address(proxy, WORDS["invite_proxy"]))
            return
        for port in dict.fromkeys([*_port_before(run), *range(PORT, PORT - PORTS, -1)]):
            with suppress(OSError):
                self._servers[run.run_id] = GuestServer(run, worker, "0.0.0.0", port)
                return
        raise D3POError(f"No port from {PORT - PORTS + 1} to {PORT} is free.", "Close other servers.")

    def _behind(self, run: Run, worker: Worker, public: str) -> GuestServer:
        """Serve behind a proxy, at the one port that it is set to; at another one it would lead to another taste."""
        if any(server.address == public for server in self._servers.values()):
            raise D3POError(f"Another taste is served at {public}.", "Let nobody in there first.")
        try:
            return GuestServer(run, worker, "127.0.0.1", PORT, public)
        except OSError as error:
            raise D3POError(
                f"Port {PORT}, which the proxy leads to, is in use.",
                "Close the server that uses it, or let nobody in to the taste that is served there.",
            ) from error

    def stop(self, run: Run) -> None:
        """Let nobody in any more."""
        if server := self._servers.pop(run.run_id, None):
            server.stop()

    def address(self, run: Run) -> str:
        """Return where people come in to a taste; empty if they do not."""
        server = self._servers.get(run.run_id)
        return server.address if server else ""

    def panel(self, library: RunLibrary, worker: Worker, taste: Component) -> Refresh:
        """Make the panel: the switch, links, the people, and how many see the same group."""
        gr.Markdown(WORDS["invite_help"])
        with gr.Row():
            switch = gr.Checkbox(
                label=WORDS["invite_serve"], info=WORDS["invite_serve_help"], elem_id="d3po_invite_serve"
            )
            proxy = gr.Textbox(label=WORDS["invite_proxy"], info=WORDS["invite_proxy_help"], max_lines=1)
        status = gr.Markdown(elem_id="d3po_invite_status")
        link, made = _links(library, taste, self)
        table = gr.Markdown(elem_id="d3po_invite_people")
        whom = _revoking(library, taste, table)
        overlap = _overlap(library, taste)
        every = gr.Timer(REFRESH_SECONDS)

        @show_errors
        def turn(taste: str, on: bool, proxy: str) -> str:
            run = tastes.chosen(library, taste)
            if on:
                self.start(run, worker, proxy.strip())
            else:
                self.stop(run)
            return self._status(run)

        def update(taste: str | None) -> tuple[Update, ...]:
            run, hidden = tastes.find(library, taste), gr.update(visible=False)
            if run is None:
                return False, WORDS["no_taste"], hidden, "", gr.update(choices=[], value=None), 1
            whom = gr.update(choices=_names(run), value=None)
            return bool(self.address(run)), self._status(run), hidden, people(run), whom, run.leases.overlap

        def listed(taste: str | None) -> tuple[str, Update]:
            run = tastes.find(library, taste)
            return (people(run), gr.update(choices=_names(run))) if run else ("", gr.update())

        switch.input(turn, [taste, switch, proxy], status, show_progress="hidden")
        for event in (made, every.tick):
            event(listed, taste, [table, whom], show_progress="hidden")
        return Refresh(update, [switch, status, link, table, whom, overlap])

    def _status(self, run: Run) -> str:
        address = self.address(run)
        if not address:
            return WORDS["invite_off"]
        on = WORDS["invite_on"].format(address=f"**{address}**")
        port = self._servers[run.run_id].port
        behind = "" if f":{port}/" in address else " " + WORDS["invite_port"].format(port=port)
        return on + behind


def _links(library: RunLibrary, taste: Component, serving: Serving) -> tuple[Component, Component]:
    """Make the part that invites a person; return the field with their link, and the event of having made one."""
    with gr.Row():
        name = gr.Textbox(
            label=WORDS["invite_name"], max_lines=1, max_length=MAX_NAME, scale=2, elem_id="d3po_invite_name"
        )
        days = gr.Slider(label=WORDS["invite_days"], minimum=1, maximum=90, step=1, value=14)
        button = gr.Button(WORDS["invite_make"], variant="primary", elem_id="d3po_invite_make")
    link = gr.Textbox(visible=False, interactive=False, buttons=["copy"], max_lines=1, elem_id="d3po_invite_link")

    @show_errors
    def make(taste: str, name: str, days: float) -> tuple[Update, str]:
        run = tastes.chosen(library, taste)
        earlier = run.invitations.latest(name)
        token = run.invitations.create(name, days)
        invitation = run.invitations.latest(name)
        address = serving.address(run) or run.invitations.address or own_address("0.0.0.0", PORT)
        info = "" if serving.address(run) else WORDS["invite_later"]
        if earlier and earlier.state == "live":
            info = f"{WORDS['invite_ended'].format(name=earlier.name)} {info}".strip()
        label = WORDS["invite_link"].format(name=invitation.name if invitation else name)
        return gr.update(value=join_link(address, token), label=label, info=info, visible=True), ""

    return link, button.click(make, [taste, name, days], [link, name], show_progress="hidden").success


def _revoking(library: RunLibrary, taste: Component, table: Component) -> Component:
    """Make the part that revokes a person's link; return the list of those who have one."""
    with gr.Row():
        whom = gr.Dropdown(label=WORDS["invite_whom"], choices=[], elem_id="d3po_invite_whom")
        button = gr.Button(WORDS["invite_revoke"], variant="stop", elem_id="d3po_invite_revoke")

    @show_errors
    def revoke(taste: str, name: str | None) -> tuple[str, Update]:
        run = tastes.chosen(library, taste)
        if not name:
            raise D3POError("Nobody is chosen.", "Choose whose link is to be revoked.")
        run.invitations.revoke(name)
        return people(run), gr.update(choices=_names(run), value=None)

    button.click(revoke, [taste, whom], [table, whom], show_progress="hidden")
    return whom


def _overlap(library: RunLibrary, taste: Component) -> Component:
    """Make the part that says how many people see the same group; return its field."""
    with gr.Row():
        number = gr.Number(
            label=WORDS["invite_overlap"],
            info=WORDS["invite_overlap_help"],
            precision=0,
            minimum=1,
            maximum=MAX_OVERLAP,
            elem_id="d3po_invite_overlap",
        )
        button = gr.Button(WORDS["invite_set"])

    @show_errors
    def choose(taste: str, people: int | None) -> None:
        tastes.chosen(library, taste).leases.set_overlap(people or 0)

    button.click(choose, [taste, number], None, show_progress="hidden")
    return number


def people(run: Run) -> str:
    """Return everybody who was invited as a table in Markdown: how far they are, and whether their link works."""
    rows = []
    for each in run.invitations.all():
        progress = run.leases.progress(each.name)
        seen = _moment(each.seen) if each.seen else WORDS["invite_never"]
        name = html.escape(each.name).replace("|", "&#124;")
        rows.append(f"| {name} | {progress.done} of {progress.of} | {seen} | {_link(each)} |")
    return "\n".join([WORDS["invite_table"], *rows]) if rows else WORDS["invite_nobody"]


def _link(invitation: Invitation) -> str:
    return WORDS[f"invite_{invitation.state}"].format(day=_moment(invitation.expires))


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _names(run: Run) -> list[str]:
    return [each.name for each in run.invitations.all() if each.state == "live"]


def _port_before(run: Run) -> list[int]:
    """Return the port at which a taste was served before, so that its links go on working; none behind a proxy."""
    with suppress(ValueError):
        parts = urlsplit(run.invitations.address)
        if parts.scheme == "http" and parts.port:
            return [parts.port]
    return []
