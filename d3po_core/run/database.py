"""SQLite in WAL mode for several threads and processes: one connection per thread, immediate transactions.

A transaction takes the write lock at its start, so it never fails half way because another connection wrote meanwhile.
`synchronous=FULL` makes a commit return only when the operating system has the data on the disk.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import D3POError
from .files import disk_full, unwritable

BUSY_SECONDS = 60.0
"""How long a write waits for another process's."""


class _Connection(sqlite3.Connection):
    """A connection that a WeakSet can hold."""


def connect(path: Path) -> _Connection:
    """Open a connection without automatic transactions. Only its own thread uses it; any thread may close it."""
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run what is inside as one transaction: all of it is committed, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite rolls back by itself when the disk is full
            connection.execute("ROLLBACK")
        raise


class Database:
    """The run's database, usable from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._all: weakref.WeakSet[_Connection] = weakref.WeakSet()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection, for single statements.

        Raises:
            D3POError: the database is gone, damaged, busy, or cannot be written; the disk is full.
        """
        with _explained(self.path):
            yield self._connection()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection inside a transaction.

        Raises:
            D3POError: as `read` does.
        """
        with _explained(self.path), transaction(self._connection()) as connection:
            yield connection

    def close(self) -> None:
        """Close the connections of all threads, so that the folder can be moved on every system."""
        for connection in list(self._all):
            connection.close()
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            if not self.path.is_file():
                raise D3POError(
                    f"The run's database {self.path} is gone.", "If the folder was moved, open it where it is now."
                ) from FileNotFoundError(self.path)
            connection = self._local.connection = connect(self.path)
            self._all.add(connection)
        return connection


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _explain(error, path) from error


def _explain(error: sqlite3.DatabaseError, path: Path) -> D3POError:
    """Choose the message for an SQLite error by its text: before Python 3.11 it has no code."""
    text = str(error)
    if "full" in text:
        return disk_full(path.parent)
    if "readonly" in text or "unable to open" in text:
        return unwritable(path.parent, text)
    if "locked" in text or "busy" in text:
        return D3POError(
            f"The database {path} has been busy for {BUSY_SECONDS:.0f} seconds.",
            "Close other programs that use this run, then try again.",
            "All that was saved before is kept.",
        )
    if "disk I/O" in text:
        return D3POError(
            f"The disk did not read or write the database {path} ({text}).",
            "See whether the disk is there and has free space, then try again.",
        )
    return D3POError(
        f"The run's database {path} is damaged ({text}).",
        "Put back a copy of this file from a backup.",
        "The images, tensors and LoRA files beside it were not touched.",
    )
