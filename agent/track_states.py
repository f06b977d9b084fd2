"""What trackers know of the shapes that they follow, kept on disk under names that nobody can guess.

CVAT carries a tracker's states to the browser and back with every frame; what it carries here are names. The states
themselves stay in a SQLite file, so that they survive a restart, and processes on one machine can share them; they
expire as CVAT's own do. With each state stays what was answered last: whoever asks the same again, because the answer
was lost on its way, gets the same, and the state does not move on.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.domain import Cuboid, Ellipse, Keypoint, Mask, Points, Polygon, Polyline, Rectangle, Shape, Skeleton
from agent.errors import BadRequest
from agent.ledger.sqlite import SqliteFile

LIFETIME = 8 * 3600.0
"""Seconds without use after which a state is forgotten: CVAT's own limit."""
LIMIT = 2**30
"""Bytes of states; those unused for longest go first."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS states (
    name TEXT PRIMARY KEY, scope TEXT NOT NULL, used REAL NOT NULL, size INTEGER NOT NULL, state BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS states_used ON states (used);
CREATE TABLE IF NOT EXISTS place (id TEXT NOT NULL);
"""
_TOO_MUCH = """
DELETE FROM states WHERE name IN (
    SELECT name FROM (SELECT name, sum(size) OVER (ORDER BY used DESC, name) AS with_newer FROM states)
    WHERE with_newer > ?)
"""
_LATER = {"step": "INTEGER NOT NULL DEFAULT 0", "seen": "TEXT", "answer": "TEXT"}
"""Columns that files of old do not have."""
_NAME = re.compile(r"([0-9a-f]{8})-[A-Za-z0-9_-]{24}")
"""The file that a state is in, and what nobody can guess."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """A state, and the step that led to it."""

    state: bytes
    step: int = 0
    """How many came before."""
    seen: str | None = None
    """The picture of the last step, None before the first one."""
    answer: Shape | None = None
    """Where the shape was on it; None where it was lost."""


class TrackStates(SqliteFile):
    """The states of all trackers, by name. Threads, and processes of this machine, may share the file."""

    called = "tracking states"

    def __init__(self, file: Path, *, clock: Callable[[], float] = time.time, limit: int = LIMIT) -> None:
        self._clock, self._limit = clock, limit
        self._place = ""
        """Names the file."""
        super().__init__(file)

    def add(self, scope: str, states: Sequence[bytes]) -> list[str]:
        """Names for new states. `scope` is what they are good for: the model, its version, the task, the size."""
        names = [f"{self._place}-{secrets.token_urlsafe(18)}" for _ in states]
        with self._change() as db:
            for name, state in zip(names, states, strict=True):
                self._write(db, name, scope, Kept(state))
        return names

    def get(self, scope: str, names: Sequence[str]) -> list[Kept]:
        """What is kept under these names; BadRequest for one that is unknown, expired, or of something else."""
        with self._lock, self._told():
            return [self._find(self._db, scope, name) for name in names]

    def step(self, scope: str, seen: str, taken: Mapping[str, tuple[Kept, bytes, Shape | None]]) -> dict[str, Kept]:
        """Takes states one step further: what each was, its next state, and where the shape is on the picture `seen`.

        What is kept then, by name: where somebody else has been quicker with the same picture, what they have found.
        """
        found = {}
        with self._change() as db:
            for name, (before, state, shape) in taken.items():
                now = _kept(db, name)
                if now is None or now.step == before.step or now.seen != seen:
                    now = Kept(state, before.step + 1, seen, shape)
                    self._write(db, name, scope, now)
                found[name] = now
        return found

    def sweep(self) -> int:
        """Forgets what has expired, and the oldest while there is too much; how many went."""
        with self._change() as db:
            expired = db.execute("DELETE FROM states WHERE used < ?", (self._clock() - LIFETIME,)).rowcount
            return expired + db.execute(_TOO_MUCH, (self._limit,)).rowcount

    # ---------------------------------------------------------------- inside

    def _find(self, db: sqlite3.Connection, scope: str, name: str) -> Kept:
        row = db.execute("SELECT scope, used FROM states WHERE name = ?", (name,)).fetchone()
        if row is None and (known := _NAME.fullmatch(name)) is not None and known[1] != self._place:
            raise BadRequest(
                "tracker state: this track was begun at another sidecar, which does not share its state folder with"
                " this one; begin the track again, and have only one of them serve this tracker"
            )
        if row is None or row[1] < self._clock() - LIFETIME or (kept := _kept(db, name)) is None:
            raise BadRequest("tracker state: it is unknown or has expired; begin the track again")
        if row[0] != scope:
            raise BadRequest("tracker state: it belongs to another task, picture size or model")
        return kept

    def _write(self, db: sqlite3.Connection, name: str, scope: str, kept: Kept) -> None:
        answer = _packed(kept.answer)
        db.execute(
            "INSERT OR REPLACE INTO states (name, scope, used, size, state, step, seen, answer)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (name, scope, self._clock(), len(kept.state) + len(answer), kept.state, kept.step, kept.seen, answer),
        )

    def _open(self) -> None:
        db = self._db
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
        # Another process may do the same at the same time.
        with self._change():
            there = {row[1] for row in db.execute("PRAGMA table_info(states)")}
            for name in _LATER.keys() - there:
                db.execute(f"ALTER TABLE states ADD COLUMN {name} {_LATER[name]}")
            db.execute("INSERT INTO place SELECT ? WHERE NOT EXISTS (SELECT 1 FROM place)", (secrets.token_hex(4),))
            (place,) = db.execute("SELECT id FROM place").fetchone()
        self._place = str(place)


def _kept(db: sqlite3.Connection, name: str) -> Kept | None:
    row = db.execute("SELECT state, step, seen, answer FROM states WHERE name = ?", (name,)).fetchone()
    return None if row is None else Kept(row[0], row[1], row[2], _unpacked(row[3]))


# -------------------------------------------------------------------------- shapes, to the last digit

_KINDS = {kind.type: kind for kind in (Rectangle, Ellipse, Polygon, Polyline, Points, Cuboid)}


def _packed(shape: Shape | None) -> str:
    if shape is None:
        return "null"
    if isinstance(shape, Mask):
        bits = base64.b64encode(np.packbits(shape.bitmap).tobytes()).decode()
        made = {"left": int(shape.left), "top": int(shape.top), "size": shape.bitmap.shape, "bits": bits}
    elif isinstance(shape, Skeleton):
        made = {"elements": [dataclasses.asdict(element) for element in shape.elements]}
    else:
        made = dataclasses.asdict(shape)
    return json.dumps({"type": shape.type, **made}, default=float)


def _unpacked(text: str | None) -> Shape | None:
    raw: dict[str, Any] | None = json.loads(text or "null")
    if raw is None:
        return None
    kind = raw.pop("type")
    if kind == "mask":
        height, width = raw["size"]
        flat = np.unpackbits(np.frombuffer(base64.b64decode(raw["bits"]), np.uint8), count=height * width)
        return Mask(flat.reshape(height, width).astype(bool), raw["left"], raw["top"])
    if kind == "skeleton":
        return Skeleton(tuple(Keypoint(**element) for element in raw["elements"]))
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    made: Shape = _KINDS[kind](**fields)
    return made
