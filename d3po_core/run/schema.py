"""The database's tables, its version, and how an older one becomes the present one.

Prompts, groups, picks and rounds live here; tensors and images are files whose names follow from the ids. Nothing
absolute is stored, so a run's folder can be moved or copied. Making a database is migrating it from version 0.
"""

from __future__ import annotations

import sqlite3

from ..errors import D3POError

_FIRST = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE prompts (
        id INTEGER PRIMARY KEY,
        text TEXT NOT NULL,
        negative TEXT NOT NULL,
        UNIQUE (text, negative))""",
    """CREATE TABLE groups (
        id TEXT PRIMARY KEY,
        number INTEGER NOT NULL UNIQUE,
        prompt_id INTEGER NOT NULL REFERENCES prompts (id),
        seed TEXT NOT NULL,             -- up to 2**64 - 1, which SQLite's integers cannot hold
        candidates INTEGER NOT NULL,
        policy TEXT NOT NULL,           -- "base" or a LoRA's hash: who sampled it
        round INTEGER NOT NULL,
        settings TEXT NOT NULL,         -- JSON
        held_out INTEGER NOT NULL,
        created REAL NOT NULL,
        freed INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TRIGGER held_out_is_for_ever BEFORE UPDATE OF held_out ON groups
        BEGIN SELECT RAISE (ABORT, 'held_out never changes'); END""",
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
    "CREATE INDEX picks_of_group ON picks (group_id, who, serial) WHERE undone IS NULL",
    "CREATE INDEX picks_of_person ON picks (who, serial) WHERE undone IS NULL",
    """CREATE VIEW standing AS SELECT * FROM picks AS p WHERE undone IS NULL AND NOT EXISTS (
        SELECT 1 FROM picks AS later WHERE later.group_id = p.group_id AND later.who = p.who
        AND later.undone IS NULL AND later.serial > p.serial)""",
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
)

JUDGED = """COALESCE((SELECT MAX(CASE WHEN kind = 'skipped' THEN 1 WHEN kind IN ('tie', 'all_bad') THEN 2 ELSE 3 END)
    FROM standing WHERE standing.group_id = groups.id), 0)"""
"""What standing picks say of a group: 0 nothing, 1 skipped, 2 that no candidate is better, 3 that one is."""

_GALLERY = (
    "ALTER TABLE groups ADD COLUMN near TEXT NOT NULL DEFAULT '[]'",  # candidates that look like another, JSON
    "ALTER TABLE groups ADD COLUMN showable INTEGER NOT NULL DEFAULT 1",  # at least two candidates differ visibly
    """CREATE TABLE leases (
        group_id TEXT PRIMARY KEY REFERENCES groups (id),
        client TEXT NOT NULL,           -- a page
        until REAL NOT NULL,
        shown_order TEXT NOT NULL,      -- JSON
        why TEXT NOT NULL)""",
    "CREATE INDEX leases_of_client ON leases (client)",
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
        first TEXT NOT NULL,            -- what is shown first: 'before' or 'taught'
        answer TEXT,                    -- 'before', 'taught' or 'neither'
        ms REAL,
        answered REAL,
        PRIMARY KEY (check_id, number)) WITHOUT ROWID""",
    # A repeat measures the person and is never trained on, so it does not stand.
    "DROP VIEW standing",
    """CREATE VIEW standing AS SELECT * FROM picks AS p WHERE undone IS NULL AND reason <> 'repeat' AND NOT EXISTS (
        SELECT 1 FROM picks AS later WHERE later.group_id = p.group_id AND later.who = p.who
        AND later.undone IS NULL AND later.reason <> 'repeat' AND later.serial > p.serial)""",
    # Kept beside the picks, in the same transactions, so that a page opens as fast with 10,000 groups as with 10.
    "ALTER TABLE groups ADD COLUMN judged INTEGER NOT NULL DEFAULT 0",
    f"UPDATE groups SET judged = {JUDGED}",
    "CREATE INDEX groups_to_show ON groups (judged, showable, number)",
)

_IS_FLAG = "kind IN ('defective', 'unsafe')"

FLAGGED = """COALESCE((SELECT MAX(CASE WHEN bad < groups.candidates - json_array_length(groups.near) THEN 3 ELSE 2 END)
    FROM (SELECT COUNT(DISTINCT candidate) AS bad FROM flags WHERE group_id = groups.id GROUP BY who)), 0)"""
"""What standing flags say of a group: 0 nothing, 2 that all candidates are bad, 3 that some are worse than others."""

# A flag is a row of `picks`, so that picks and flags have one order, in which they are taken back and taught. Its kind
# says which flag, `chosen` holds the one candidate, `scores` is [1] for put and [0] for taken off again.
_FLAGS = (
    "DROP VIEW standing",
    f"""CREATE VIEW standing AS SELECT * FROM picks AS p
        WHERE undone IS NULL AND reason <> 'repeat' AND NOT {_IS_FLAG} AND NOT EXISTS (
        SELECT 1 FROM picks AS later WHERE later.group_id = p.group_id AND later.who = p.who
        AND later.undone IS NULL AND later.reason <> 'repeat' AND NOT later.{_IS_FLAG} AND later.serial > p.serial)""",
    # Flags that stand: the person's last word on it, and they have not preferred that very picture since.
    f"""CREATE VIEW flags AS SELECT *, json_extract(chosen, '$[0]') AS candidate FROM picks AS f
        WHERE undone IS NULL AND {_IS_FLAG} AND scores = '[1]' AND NOT EXISTS (
        SELECT 1 FROM picks AS later WHERE later.group_id = f.group_id AND later.who = f.who AND later.undone IS NULL
        AND later.serial > f.serial AND later.kind = f.kind AND later.chosen = f.chosen)
        AND NOT EXISTS (
        SELECT 1 FROM standing WHERE standing.group_id = f.group_id AND standing.who = f.who
        AND standing.serial > f.serial AND standing.kind IN ('favourite', 'ranking')
        AND json_extract(standing.chosen, '$[0]') = json_extract(f.chosen, '$[0]'))""",
    f"CREATE INDEX flags_of_group ON picks (group_id, who, serial) WHERE undone IS NULL AND {_IS_FLAG}",
    "ALTER TABLE groups ADD COLUMN flagged INTEGER NOT NULL DEFAULT 0",  # kept as `judged` is
    "CREATE INDEX groups_counted ON groups (judged, flagged, showable)",
)

# Of imported pictures the prompts are not drawn for unless somebody asks, and the picks teach only some methods.
_IMPORTED = (
    "ALTER TABLE prompts ADD COLUMN asked INTEGER NOT NULL DEFAULT 1",  # somebody wanted pictures of it drawn
    """UPDATE prompts SET asked = 0 WHERE id IN (SELECT prompt_id FROM groups WHERE policy = 'imported')
        AND id NOT IN (SELECT prompt_id FROM groups WHERE policy <> 'imported')""",
    "CREATE INDEX groups_imported ON groups (judged, flagged) WHERE policy = 'imported'",
)

MIGRATIONS: list[tuple[str, ...]] = [_FIRST, _GALLERY, _FLAGS, _IMPORTED]
"""Entry i holds the statements that take a database of version i to version i + 1. Entries are added, never changed."""


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the database to the present version. Runs inside the caller's transaction.

    Raises:
        D3POError: the database was made by a newer version.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise D3POError(
            f"The run in {path} was made with a newer version of D3PO (format {version}; known is {len(MIGRATIONS)}).",
            "Update D3PO.",
            "Nothing in it was changed.",
        )
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
