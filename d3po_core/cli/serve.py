"""Serve a run's gallery, so that it can be picked in with a browser.

Without --listen and --url it is served to this computer alone. With --listen, people whom you invited (see d3po invite)
can pick in it from other computers, and do nothing else; your own link is printed. What they send is not encrypted
then. For the internet put a reverse proxy with TLS in front, and name its address with --url.

Pictures are not drawn and nothing is taught here; d3po sample and d3po train do that, also meanwhile.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import D3POError
from . import common
from .flags import number

if TYPE_CHECKING:
    from ..gallery.serving import ByLink
    from ..run import Run

EXAMPLE = """  d3po serve --run my-taste
  d3po invite --run my-taste Ada Ben
  d3po serve --run my-taste --listen
  d3po serve --run my-taste --url https://pick.example.org"""
OUT_OF_MEMORY = "Close other programs; serving needs little."


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    group = parser.add_argument_group("where")
    group.add_argument(
        "--listen",
        nargs="?",
        const="0.0.0.0",
        metavar="ADDRESS",
        help="let invited people in from other computers; of this one's addresses all, or this one",
    )
    group.add_argument("--port", type=number(int, "--port", 1, 65535), metavar="N", help="to listen on [7869]")
    group.add_argument(
        "--url", type=address, metavar="URL", help="of the reverse proxy in front, as invited people see it"
    )


def address(text: str, what: str = "--url") -> str:
    """Return an address at which a run is served, with a slash at its end.

    Args:
        text: as it was written.
        what: where it was written, for the message.

    Raises:
        D3POError: it is none.
    """
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        good = good and parts.port != 0 and text.isascii() and text.isprintable() and not set(text) & set(" ;,\"'<>")
    except ValueError:
        good = False
    if not good:
        raise D3POError(f"{what} is '{text}'.", "Write it as https://pick.example.org")
    return text.rstrip("/") + "/"


def run(options: argparse.Namespace) -> int:
    from ..gallery import Actions
    from ..gallery.serving import PORT, OwnerHere, ServingApp, bind, make_server, web_folder
    from ..run import Run

    run = Run.open(options.run)
    invited = bool(options.listen or options.url)
    host, port = options.listen or "127.0.0.1", options.port or PORT
    try:
        opened = bind(host, port)
    except OSError as error:
        raise D3POError(
            f"Port {port} at {host} cannot be listened on ({error.strerror}).",
            "Close the server that uses it, or choose another --port.",
        ) from error
    with opened:
        door = _by_link(run, options, host, port) if invited else OwnerHere(port)
        server = make_server(ServingApp(run, Actions(), web_folder(), door))
        if not invited:
            print(f"The gallery is at http://127.0.0.1:{port}/ for this computer alone.")
        print("Ctrl+C ends it; all picks are saved.", flush=True)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[opened])
    return 0


def _by_link(run: Run, options: argparse.Namespace, host: str, port: int) -> ByLink:
    """Let in whoever has a link, make the owner's, and print it with those who are invited."""
    from ..gallery.serving import ByLink, join_link, own_address
    from ..run.invitations import new_token
    from .invite import listed

    address = options.url or own_address(host, port)
    run.invitations.note_address(address)
    token = new_token()
    print(f"Your own link, as long as this runs: {join_link(address, token)}")
    print("\n".join(listed(run)) or f"Nobody is invited yet: d3po invite --run {common.quoted(options.run)} NAME")
    return ByLink(run, address, token)
