"""Invite people to pick in a run from their own computers, and see how far they are.

Each name gets a link of its own, which is printed once: it is not stored, and a new one for the same name ends the old
one. Links work while d3po serve --listen (or the Studio) serves the run. Whoever has one can look at pictures, pick
under that name, and look back at their own picks, and do nothing else. What is changed here is obeyed at once.

Without names, the people are listed.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from ..errors import D3POError
from . import common
from .flags import number

if TYPE_CHECKING:
    from ..run import Run

EXAMPLE = """  d3po invite --run my-taste Ada Ben --days 7
  d3po invite --run my-taste --overlap 2
  d3po invite --run my-taste --revoke Ada
  d3po invite --run my-taste"""
OUT_OF_MEMORY = "Close other programs; this needs little."


def add_arguments(parser: argparse.ArgumentParser, advanced: bool) -> None:
    common.add_run(parser)
    parser.add_argument("names", nargs="*", metavar="NAME", help="whom to invite")
    parser.add_argument(
        "--days",
        type=number(float, "--days", 0.1, 3650),
        default=14.0,
        metavar="X",
        help="for which their links work [14]",
    )
    parser.add_argument(
        "--same-person", action="store_true", help="who has picks here already, made without an invitation"
    )
    parser.add_argument("--revoke", action="append", default=[], metavar="NAME", help="end this person's link")
    parser.add_argument(
        "--overlap", type=number(int, "--overlap", 1, 100), metavar="N", help="how many people see the same group [1]"
    )


def run(options: argparse.Namespace) -> int:
    from ..gallery.serving import PORT, join_link, own_address
    from ..run import Run

    run = Run.open(options.run)
    if both := set(options.names) & set(options.revoke):
        raise D3POError(f"'{min(both)}' cannot be invited and revoked in one call.", "Call d3po invite once for each.")
    if options.overlap is not None:
        run.leases.set_overlap(options.overlap)
        print(f"Every group is now shown to {_people(options.overlap)}.")
    for name in options.revoke:
        run.invitations.revoke(name)
        print(f"The link of {name} no longer works.")
    address = run.invitations.address or own_address("0.0.0.0", PORT)
    for name in options.names:
        earlier = run.invitations.latest(name)
        token = run.invitations.create(name, options.days, options.same_person)
        invitation = run.invitations.latest(name)
        print(f"{invitation.name if invitation else name}: {join_link(address, token)}")
        if earlier and earlier.state == "live":
            print(f"The earlier link of {earlier.name} has ended.")
    if options.names:
        print(f"The links work for {options.days:g} days, while d3po serve --listen or the Studio serves this run.")
    elif not options.revoke and options.overlap is None:
        print("\n".join(listed(run)) or f"Nobody is invited yet: {_example(options.run)}")
    return 0


def listed(run: Run) -> list[str]:
    """Return a line for every person who was invited: how far they are, and whether their link works."""
    lines = []
    for invitation in run.invitations.all():
        progress = run.leases.progress(invitation.name)
        seen = f"last here {_moment(invitation.seen)}" if invitation.seen else "never here"
        link = {"live": f"link works until {_moment(invitation.expires)}"}.get(
            invitation.state, f"link {invitation.state}"
        )
        lines.append(f"{invitation.name}: {progress.done} of {progress.of} groups, {seen}, {link}")
    return lines


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _people(count: int) -> str:
    return "one person" if count == 1 else f"{count} people"


def _example(folder: str) -> str:
    return f"d3po invite --run {common.quoted(folder)} NAME"
