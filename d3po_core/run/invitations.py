"""Invitations: who may pick in this run from another computer, each by a link of their own.

A link holds 256 random bits, of which only the SHA-256 is stored, so whoever reads the database cannot make a link of
it. What is asked by a link is looked up anew each time: one that was revoked or has expired ends with the next request,
also where another process serves the run.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..errors import D3POError
from .database import Part, insert

MAX_NAME = 60
MAX_DAYS = 3650
SEEN_EVERY = 60.0
"""Seconds between two notes that a person was here."""
_LIVE = "revoked IS NULL AND expires > :now"
_FIELDS = "number, name, created, expires, revoked, seen"


@dataclass(frozen=True)
class Invitation:
    """One person's invitation; times in seconds since 1970.

    Attributes:
        number: counts the run's invitations.
        name: of the person, who picks under it.
        revoked: when it was revoked, or replaced by a newer one; None if it was not.
        seen: when the person was last here, to the minute; None if they never were.
    """

    number: int
    name: str
    created: float
    expires: float
    revoked: float | None
    seen: float | None

    @property
    def state(self) -> str:
        """Return "live", "expired" or "revoked"."""
        if self.revoked is not None:
            return "revoked"
        return "live" if time.time() < self.expires else "expired"


class Invitations(Part):
    """Keeps invitations."""

    def create(self, name: str, days: float, same_person: bool = False) -> str:
        """Invite a person, and return the secret part of their link. An earlier link of the same person is revoked.

        Names that differ in nothing but capitals or width are one person, who keeps the name that was there first.

        Args:
            name: of the person, in one line.
            days: for which the link works.
            same_person: whether picks that are there under this name, and were made without an invitation, are theirs.

        Raises:
            D3POError: the name is empty, too long or somebody else's, the days are none or too many, or the disk is
                full.
        """
        name, token, now = _checked(name), new_token(), time.time()
        if not 0 < days <= MAX_DAYS:
            raise D3POError(f"A link cannot work for {days:g} days.", f"Choose more than 0 and at most {MAX_DAYS}.")
        with self._database.write() as connection:
            invited = _same(name, connection.execute("SELECT name FROM invitations ORDER BY number"))
            picking = invited or _same(name, connection.execute("SELECT DISTINCT who FROM picks ORDER BY who"))
            if picking and not invited and not same_person:
                raise D3POError(
                    f"There are picks of '{picking}' that were made without an invitation; a guest of this name would "
                    "see them and could remove them.",
                    "Choose another name, or, where it is the same person, call d3po invite with --same-person.",
                )
            name = picking or name
            row = {"name": name, "token_hash": _hash(token), "created": now, "expires": now + days * 86400}
            _revoke(connection, "name = :name", {"name": name})
            insert(connection, "invitations", row)
        return token

    def latest(self, name: str) -> Invitation | None:
        """Return a person's latest invitation, in whatever capitals the name is written; None if there is none."""
        invitations = {each.name: each for each in self.all()}
        same = _same(_one_line(name), ((name,) for name in invitations))
        return invitations[same] if same else None

    def revoke(self, name: str) -> None:
        """End a person's invitation, with whatever they have open.

        Raises:
            D3POError: nobody of this name has one that still works.
        """
        name = _one_line(name)
        with self._database.write() as connection:
            name = _same(name, connection.execute("SELECT name FROM invitations ORDER BY number")) or name
            revoked = _revoke(connection, f"name = :name AND {_LIVE}", {"name": name})
        if not revoked:
            names = [each.name for each in self.all() if each.state == "live"]
            raise D3POError(
                f"Nobody named '{name}' has a link that works.",
                f"These have: {', '.join(names)}." if names else "Nobody has, so there is nothing to revoke.",
            )

    def all(self) -> list[Invitation]:
        """Return each person's latest invitation, in the order in which they were made."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"""SELECT {_FIELDS} FROM invitations
                WHERE number IN (SELECT MAX(number) FROM invitations GROUP BY name) ORDER BY number"""
            ).fetchall()
        return [Invitation(**dict(row)) for row in rows]

    def find(self, token: str) -> Invitation | None:
        """Return the invitation whose link holds a token; None if there is none, or it is revoked or has expired.

        It does the same whatever the token is. That the person was here is noted once a minute.
        """
        values: dict[str, object] = {"hash": _hash(token), "now": time.time()}
        with self._database.read() as connection:
            row = connection.execute(f"SELECT {_FIELDS} FROM invitations WHERE token_hash = :hash AND {_LIVE}", values)
            found = [Invitation(**dict(each)) for each in row]
        if not found:
            return None
        if (found[0].seen or 0.0) + SEEN_EVERY < time.time():
            with suppress(D3POError), self._database.write(lasting=False) as connection:  # who may not write may look
                connection.execute("UPDATE invitations SET seen = ? WHERE number = ?", (time.time(), found[0].number))
        return found[0]

    @property
    def address(self) -> str:
        """Return where the run was last served to others, as links begin; empty if it never was."""
        with self._database.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'address'").fetchone()
        return str(row["value"]) if row else ""

    def note_address(self, address: str) -> None:
        """Note where the run is served to others, for the links that are made meanwhile."""
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('address', ?)", (address,))


def new_token() -> str:
    """Return the secret part of a link: 256 random bits as letters that addresses may hold."""
    return secrets.token_urlsafe(32)


def _one_line(name: str) -> str:
    """Return a name in one line, each letter in the one form that Unicode recommends (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", name).split())


def _checked(name: str) -> str:
    """Return a name in one line.

    Raises:
        D3POError: it is empty or too long, or holds what cannot be seen.
    """
    name = _one_line(name)
    if not 0 < len(name) <= MAX_NAME:
        raise D3POError(f"A name needs 1 to {MAX_NAME} letters, in one line.", "Choose another one.")
    if not name.isprintable():
        raise D3POError(
            "This name holds a character that cannot be seen.", "Write it without, and without joined emoji."
        )
    return name


def _same(name: str, rows: Iterable[Sequence[str]]) -> str:
    """Return which of the names, one a row, is that of the same person; empty if none is."""
    names = [row[0] for row in rows]
    if name in names:
        return name
    return next((each for each in names if _one_line(each).casefold() == name.casefold()), "")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _revoke(connection: sqlite3.Connection, which: str, values: dict[str, object]) -> int:
    """Revoke the invitations that a condition names, and return how many there were."""
    query = f"UPDATE invitations SET revoked = :now WHERE revoked IS NULL AND {which}"
    return connection.execute(query, {**values, "now": time.time()}).rowcount
