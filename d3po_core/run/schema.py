"""The database's tables and their version.

Prompts, groups, picks and rounds are stored here; tensors and images are files, named by the ids. No absolute path is
stored, so a run's folder can be moved or copied.
"""

from __future__ import annotations

import sqlite3

VERSION = 4
"""Stored as SQLite's `user_version`. Who changes a table raises it, and decides how databases of version 4 are read."""

JUDGED = """COALESCE((SELECT MAX(CASE WHEN kind = 'skipped' THEN 1 WHEN kind IN ('tie', 'all_bad') THEN 2 ELSE 3 END)
    FROM standing WHERE standing.group_id = groups.id), 0)"""
"""How standing picks judge a group: 0 not at all, 1 skipped, 2 no candidate is better, 3 one is."""

FLAGGED = """COALESCE((SELECT MAX(CASE WHEN bad < groups.candidates - json_array_length(groups.near) THEN 3 ELSE 2 END)
    FROM (SELECT COUNT(DISTINCT candidate) AS bad FROM flags WHERE group_id = groups.id GROUP BY who)), 0)"""
"""How standing flags judge a group: 0 not at all, 2 all candidates are bad, 3 some are worse than others."""

_IS_FLAG = "kind IN ('defective', 'unsafe')"

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
        flagged INTEGER NOT NULL DEFAULT 0)     -- see FLAGGED""",
    """CREATE TRIGGER held_out_is_for_ever BEFORE UPDATE OF held_out ON groups
        BEGIN SELECT RAISE (ABORT, 'held_out never changes'); END""",
    # A flag is a row of `picks` too, so that picks and flags have one order, in which they are taken back and trained.
    # `kind` is the flag's, `chosen` holds its one candidate, `scores` is [1] for put on and [0] for taken off.
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
    """CREATE TABLE leases (
        group_id TEXT PRIMARY KEY REFERENCES groups (id),
        client TEXT NOT NULL,           -- a page
        until REAL NOT NULL,
        shown_order TEXT NOT NULL,      -- JSON
        why TEXT NOT NULL)              -- Lease.reason""",
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
    f"""CREATE VIEW standing AS SELECT * FROM picks AS p
        WHERE undone IS NULL AND reason <> 'repeat' AND NOT {_IS_FLAG} AND NOT EXISTS (
        SELECT 1 FROM picks AS later WHERE later.group_id = p.group_id AND later.who = p.who
        AND later.undone IS NULL AND later.reason <> 'repeat' AND NOT later.{_IS_FLAG} AND later.serial > p.serial)""",
    # A flag stands if it is the person's newest one on the candidate and they have not preferred that image since.
    f"""CREATE VIEW flags AS SELECT *, json_extract(chosen, '$[0]') AS candidate FROM picks AS f
        WHERE undone IS NULL AND {_IS_FLAG} AND scores = '[1]' AND NOT EXISTS (
        SELECT 1 FROM picks AS later WHERE later.group_id = f.group_id AND later.who = f.who AND later.undone IS NULL
        AND later.serial > f.serial AND later.kind = f.kind AND later.chosen = f.chosen)
        AND NOT EXISTS (
        SELECT 1 FROM standing WHERE standing.group_id = f.group_id AND standing.who = f.who
        AND standing.serial > f.serial AND standing.kind IN ('favourite', 'ranking')
        AND json_extract(standing.chosen, '$[0]') = json_extract(f.chosen, '$[0]'))""",
)

_INDEXES = (
    "CREATE INDEX picks_of_group ON picks (group_id, who, serial) WHERE undone IS NULL",
    "CREATE INDEX picks_of_person ON picks (who, serial) WHERE undone IS NULL",
    f"CREATE INDEX flags_of_group ON picks (group_id, who, serial) WHERE undone IS NULL AND {_IS_FLAG}",
    "CREATE INDEX leases_of_client ON leases (client)",
    "CREATE INDEX groups_to_show ON groups (judged, showable, number)",
    "CREATE INDEX groups_counted ON groups (judged, flagged, showable)",
    "CREATE INDEX groups_imported ON groups (judged, flagged) WHERE policy = 'imported'",
)


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database, inside the caller's transaction."""
    for statement in (*_TABLES, *_VIEWS, *_INDEXES):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
