"""SQLite in WAL mode for several threads and processes: one connection per thread, immediate transactions.

A transaction takes the write lock at its start, so it never fails half way because another connection wrote meanwhile.
`synchronous=FULL` makes a commit return only when the operating system has the data on the disk.

The tables keep prompts, groups, picks and rounds; tensors and images are files, named by the ids. No absolute path is
stored, so a run's folder can be moved or copied.

`Part` is what every part of a run has: its folder, its database, and the names of the files in it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import D3POError
from .files import disk_full, unwritable

BUSY_SECONDS = 60.0
"""How long a write waits for another process's."""


class _Connection(sqlite3.Connection):
    """A connection that a WeakSet can hold.

    SQLite crashes the process where one thread closes a connection that another one is using. So whoever uses or closes
    it holds its lock.
    """

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        self.lock = threading.RLock()
        self.closed = False
        self.stands_in = False
        """Whether it has `_STAND_INS`."""

    def close(self) -> None:
        """Close it once nobody uses it."""
        with self.lock:
            self.closed = True
            super().close()


def connect(path: Path) -> _Connection:
    """Open a connection without automatic transactions. Only its own thread uses it; any thread may close it.

    A database on read-only media can be read, if it was closed there: SQLite keeps what was written last in a file
    beside it, which only somebody who may write can put together.
    """
    name, is_uri = str(path), False
    if not os.access(path.parent, os.W_OK) and not _unfinished(path):
        name, is_uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1", True
    connection = sqlite3.connect(
        name, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection, uri=is_uri
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    for view in _VIEWS:
        connection.execute(view)
    if connection.execute("PRAGMA user_version").fetchone()[0] == EARLIER_VERSION:
        for statement in _STAND_INS:
            connection.execute(statement)
        connection.stands_in = True
    return connection


def _unfinished(path: Path) -> bool:
    """Return whether what was written last lies beside a database still."""
    log = path.with_name(f"{path.name}-wal")
    return log.is_file() and log.stat().st_size > 0


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
        # SQLite lets a second writer sleep and try again. This wakes the threads of one process in their turn.
        self._turn = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[_Connection]:
        """Yield this thread's connection, for single statements.

        Raises:
            D3POError: the database is gone, damaged, busy, or cannot be written; the disk is full.
        """
        try:
            with self._held() as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise _explain(error, self.path) from error

    @contextmanager
    def write(self, lasting: bool = True) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection inside a transaction; a database of version 4 becomes one of today first.

        Args:
            lasting: what is written is on the disk afterwards. Otherwise it may be lost if the computer crashes before
                the next lasting write, and nothing else; that is quicker.

        Raises:
            D3POError: as `read` does.
        """
        with self._turn, self.read() as connection:
            if not lasting:
                connection.execute("PRAGMA synchronous = NORMAL")
            try:
                with transaction(connection):
                    if connection.stands_in:  # what is written must not go into a stand-in, which nobody else sees
                        bring_up_to_date(connection)
                    yield connection
                connection.stands_in = False
            finally:
                if not lasting:
                    connection.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def _held(self) -> Iterator[_Connection]:
        """Yield this thread's connection, which nobody closes meanwhile."""
        while True:
            connection = self._connection()
            with connection.lock:
                if not connection.closed:
                    _drop_needless(connection)
                    yield connection
                    return
            self._local.connection = None  # it was closed in between

    def close(self) -> None:
        """Close the connections of all threads, so that the folder can be moved on every system.

        It waits for those that are in use.
        """
        for connection in list(self._all):
            connection.close()
        self._local = threading.local()

    def _connection(self) -> _Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            if not self.path.is_file():
                raise D3POError(
                    f"The run's database {self.path} is gone.", "If the folder was moved, open it where it is now."
                ) from FileNotFoundError(self.path)
            connection = self._local.connection = connect(self.path)
            self._all.add(connection)
        return connection


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


VERSION, EARLIER_VERSION = 5, 4
"""Stored as SQLite's `user_version`. Who changes a table raises it, and decides how databases of before are read: see
`bring_up_to_date`."""

JUDGED = """COALESCE((SELECT MAX(CASE WHEN kind = 'skipped' THEN 1 WHEN kind IN ('tie', 'all_bad') THEN 2 ELSE 3 END)
    FROM standing WHERE standing.group_id = groups.id), 0)"""
"""How standing picks judge a group: 0 not at all, 1 skipped, 2 no candidate is better, 3 one is."""

FLAGGED = """COALESCE((SELECT MAX(CASE WHEN bad < groups.candidates - json_array_length(groups.near) THEN 3 ELSE 2 END)
    FROM (SELECT COUNT(DISTINCT candidate) AS bad FROM flags WHERE group_id = groups.id GROUP BY who)), 0)"""
"""How standing flags judge a group: 0 not at all, 2 all candidates are bad, 3 some are worse than others."""

JUDGES = "(SELECT COUNT(DISTINCT who) FROM standing WHERE standing.group_id = groups.id)"
"""How many different people have a standing pick on a group."""

_IS_FLAG = "kind IN ('defective', 'unsafe')"
IS_PICK = "kind NOT IN ('defective', 'unsafe', 'mask')"
"""Whether a row of `picks` holds a pick, and no remark on a single candidate."""

_LEASES = """CREATE TABLE leases (
        group_id TEXT NOT NULL REFERENCES groups (id),
        client TEXT NOT NULL,           -- a page
        who TEXT NOT NULL,              -- the person who looks at it
        until REAL NOT NULL,
        shown_order TEXT NOT NULL,      -- JSON
        why TEXT NOT NULL,              -- Lease.reason
        PRIMARY KEY (group_id, client))"""
_INVITATIONS = """CREATE TABLE invitations (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,             -- of the person, who picks under it
        token_hash TEXT NOT NULL UNIQUE,        -- SHA-256 of what the link holds, which is kept nowhere
        created REAL NOT NULL,
        expires REAL NOT NULL,
        revoked REAL,                   -- when it was; NULL: it was not
        seen REAL)                      -- when the person was last here, to the minute; NULL: never"""
_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE prompts (
        id INTEGER PRIMARY KEY,
        text TEXT NOT NULL,
        negative TEXT NOT NULL,
        asked INTEGER NOT NULL DEFAULT 1,   -- a person asked for images of it; else it came with imported ones
        UNIQUE (text, negative))""",
    """CREATE TABLE groups (
        id TEXT PRIMARY KEY,
        number INTEGER NOT NULL UNIQUE,
        prompt_id INTEGER NOT NULL REFERENCES prompts (id),
        seed TEXT NOT NULL,             -- up to 2**64 - 1, which SQLite's integers cannot hold
        candidates INTEGER NOT NULL,
        policy TEXT NOT NULL,           -- that sampled it: "base", a LoRA's hash, or "imported"
        round INTEGER NOT NULL,
        settings TEXT NOT NULL,         -- JSON
        held_out INTEGER NOT NULL,
        created REAL NOT NULL,
        freed INTEGER NOT NULL DEFAULT 0,
        near TEXT NOT NULL DEFAULT '[]',        -- duplicates: candidates that look like another one, JSON
        showable INTEGER NOT NULL DEFAULT 1,    -- at least two candidates differ visibly
        -- Updated in the transactions that change picks, so that a page opens as fast with 10,000 groups as with 10.
        judged INTEGER NOT NULL DEFAULT 0,      -- see JUDGED
        flagged INTEGER NOT NULL DEFAULT 0,     -- see FLAGGED
        judges INTEGER NOT NULL DEFAULT 0)      -- see JUDGES""",
    """CREATE TRIGGER held_out_is_for_ever BEFORE UPDATE OF held_out ON groups
        BEGIN SELECT RAISE (ABORT, 'held_out never changes'); END""",
    # A flag is a row of `picks` too, so that picks and flags have one order, in which they are taken back and trained.
    # `kind` is the flag's, `chosen` holds its one candidate, `scores` is [1] for put on and [0] for taken off.
    # A mask is one too: `kind` is 'mask', `chosen` holds its one candidate, `scores` its rows, none for wiped off.
    """CREATE TABLE picks (
        serial INTEGER PRIMARY KEY AUTOINCREMENT,
        pick_id TEXT NOT NULL UNIQUE,   -- made by the client, so that a repeated request is recorded once
        group_id TEXT NOT NULL REFERENCES groups (id),
        who TEXT NOT NULL,
        kind TEXT NOT NULL,
        chosen TEXT NOT NULL,           -- Pick.order, JSON
        scores TEXT NOT NULL,           -- Pick.scores, JSON
        shown_order TEXT NOT NULL,      -- JSON
        decision_ms REAL,
        reason TEXT NOT NULL,
        created REAL NOT NULL,
        undone REAL)                    -- when it was taken back; nothing is ever deleted""",
    """CREATE TABLE rounds (
        number INTEGER PRIMARY KEY,
        settings TEXT NOT NULL,         -- JSON
        reference TEXT NOT NULL,
        last_pick INTEGER NOT NULL,     -- serial of the last pick that the round can have trained on
        begun REAL NOT NULL,
        finished REAL,
        lora_file TEXT,                 -- relative to the run's folder
        lora_hash TEXT,
        summary TEXT)                   -- JSON""",
    """CREATE TABLE trained (
        round INTEGER NOT NULL REFERENCES rounds (number),
        group_id TEXT NOT NULL REFERENCES groups (id),
        PRIMARY KEY (round, group_id)) WITHOUT ROWID""",
    _LEASES,
    _INVITATIONS,
    """CREATE TABLE checks (
        id TEXT PRIMARY KEY,
        round INTEGER NOT NULL,
        created REAL NOT NULL,
        decision TEXT,
        decided REAL)""",
    """CREATE TABLE check_pairs (
        check_id TEXT NOT NULL REFERENCES checks (id),
        number INTEGER NOT NULL,
        prompt TEXT NOT NULL,
        first TEXT NOT NULL,            -- the side shown first: 'before' or 'taught'
        answer TEXT,                    -- 'before', 'taught' or 'neither'
        ms REAL,                        -- between showing and answering
        answered REAL,
        PRIMARY KEY (check_id, number)) WITHOUT ROWID""",
)

_VIEWS = (
    # A repeat measures how consistent the person is and is never trained on, so it does not stand.
    f"""CREATE TEMP VIEW standing AS SELECT * FROM picks AS p
        WHERE undone IS NULL AND reason <> 'repeat' AND {IS_PICK} AND NOT EXISTS (
        SELECT 1 FROM picks AS later WHERE later.group_id = p.group_id AND later.who = p.who
        AND later.undone IS NULL AND later.reason <> 'repeat' AND later.{IS_PICK}
        AND (later.created, later.chosen, later.serial) > (p.created, p.chosen, p.serial))""",
    # A flag stands if it is the person's newest one on the candidate and they have not preferred that image since.
    f"""CREATE TEMP VIEW flags AS SELECT *, json_extract(chosen, '$[0]') AS candidate FROM picks AS f
        WHERE undone IS NULL AND {_IS_FLAG} AND scores = '[1]' AND NOT EXISTS (
        SELECT 1 FROM picks AS later WHERE later.group_id = f.group_id AND later.who = f.who AND later.undone IS NULL
        AND (later.created, later.serial) > (f.created, f.serial) AND later.kind = f.kind AND later.chosen = f.chosen)
        AND NOT EXISTS (
        SELECT 1 FROM standing WHERE standing.group_id = f.group_id AND standing.who = f.who
        AND standing.created >= f.created AND standing.kind IN ('favourite', 'ranking')
        AND json_extract(standing.chosen, '$[0]') = json_extract(f.chosen, '$[0]'))""",
    # A mask stands if it is the person's newest one on the candidate and something is painted. A repeat comes without
    # masks, as it came at first, so what is painted there is no change of mind.
    """CREATE TEMP VIEW masks AS SELECT * FROM picks AS m
        WHERE undone IS NULL AND kind = 'mask' AND reason <> 'repeat' AND scores <> '[]' AND NOT EXISTS (
        SELECT 1 FROM picks AS later WHERE later.group_id = m.group_id AND later.who = m.who AND later.undone IS NULL
        AND later.kind = 'mask' AND later.reason <> 'repeat' AND later.chosen = m.chosen
        AND (later.created, later.serial) > (m.created, m.serial))""",
)
"""What stands of all that was ever said: the newest by its time, in whatever order it was recorded or imported. They
are made with each connection, so that databases of before have them too."""

_NEW_INDEXES = (
    "CREATE INDEX leases_of_client ON leases (client)",
    "CREATE INDEX leases_of_person ON leases (who)",
    "CREATE INDEX groups_open ON groups (showable, judges, number)",
)
_INDEXES = (
    "CREATE INDEX picks_of_group ON picks (group_id, who, serial) WHERE undone IS NULL",
    "CREATE INDEX picks_of_person ON picks (who, serial) WHERE undone IS NULL",
    f"CREATE INDEX flags_of_group ON picks (group_id, who, serial) WHERE undone IS NULL AND {_IS_FLAG}",
    *_NEW_INDEXES,
    "CREATE INDEX groups_to_show ON groups (judged, showable, number)",
    "CREATE INDEX groups_counted ON groups (judged, flagged, showable)",
    "CREATE INDEX groups_imported ON groups (judged, flagged) WHERE policy = 'imported'",
)


_UPDATES = (
    "DROP TABLE leases",  # which live for two minutes
    _LEASES,
    _INVITATIONS,
    "ALTER TABLE groups ADD COLUMN judges INTEGER NOT NULL DEFAULT 0",
    f"UPDATE groups SET judges = {JUDGES} WHERE judged > 0",
    *_NEW_INDEXES,
)
"""What makes a database of version 4 one of version 5."""
_STAND_INS = (
    _LEASES.replace("CREATE TABLE", "CREATE TEMP TABLE").replace(" REFERENCES groups (id)", ""),
    _INVITATIONS.replace("CREATE TABLE", "CREATE TEMP TABLE"),
    "CREATE TEMP VIEW groups AS SELECT *, judged > 0 AS judges FROM main.groups",
)
"""In place of what a database of version 4 lacks, as long as it cannot be written to. SQLite finds these first."""


def _drop_stand_ins(connection: sqlite3.Connection) -> None:
    for kind, name in (("VIEW", "groups"), ("TABLE", "invitations"), ("TABLE", "leases")):
        connection.execute(f"DROP {kind} IF EXISTS temp.{name}")


def _drop_needless(connection: _Connection) -> None:
    """Drop the stand-ins of a connection once another one has brought the database up to date."""
    if not connection.stands_in or connection.in_transaction:
        return
    if connection.execute("PRAGMA user_version").fetchone()[0] != EARLIER_VERSION:
        _drop_stand_ins(connection)
        connection.stands_in = False


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Make a database of version 4 one of today, inside the caller's transaction; others are left alone."""
    _drop_stand_ins(connection)
    if connection.execute("PRAGMA user_version").fetchone()[0] == EARLIER_VERSION:  # no other process was first
        for statement in _UPDATES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database, inside the caller's transaction."""
    for statement in (*_TABLES, *_INDEXES):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


DATABASE = "run.sqlite3"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
LOCK = "trainer.lock"
GROUPS = "groups"
CONDITIONING = "conditioning"
ROUNDS = "rounds"
TRAJECTORY = "trajectory.safetensors"
FEATURES = "features.safetensors"
STATE = "state.safetensors"
IMPORTED = "imported"
"""Stored as the policy of a group whose images were imported, so that it has no trajectory."""


class Part:
    """One part of a run: the folder where the run is now, and the database that all parts share."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self._database = database

    def _round_folder(self, number: int) -> Path:
        """Return where the files of a round belong; it may not exist yet."""
        return round_folder(self.folder, number)


def round_folder(folder: Path, number: int) -> Path:
    """Return where the files of a round of the run in a folder belong."""
    return folder / ROUNDS / f"{number:04}"


def insert(connection: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    """Add a row, its values by the names of their columns, inside the caller's transaction."""
    values = ", ".join(f":{name}" for name in row)
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})", row)


def count_up(connection: sqlite3.Connection, key: str, at_least: int = 0) -> int:
    """Raise a counter in `meta` by one, or to `at_least`, inside the caller's transaction, and return the new value."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    value = max(int(row["value"]) + 1, at_least)
    connection.execute("UPDATE meta SET value = ? WHERE key = ?", (str(value), key))
    return value


def equal(values: Mapping[str, object]) -> str:
    """Return what follows a condition in SQL: that columns equal these values, except where a value is None.

    Columns that may have any value are left out rather than compared: only so does SQLite use the others' indexes.
    """
    return "".join(f" AND {name} = :{name}" for name, value in values.items() if value is not None)
