"""Shapes followed from frame to frame: what a tracker knows of each is kept on disk, under a name nobody can guess.

CVAT carries a tracker's states to the browser and back with every frame; what it carries here are names. The states
themselves stay in a SQLite file, so that they survive a restart; they expire as CVAT's own do.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.contract import Frame, Shape
from agent.errors import BadPrediction, BadRequest, ConfigError, ModelError
from agent.host import INTERACTIVE
from agent.pool import HostedModel

T = TypeVar("T")

LIFETIME = 8 * 3600.0
"""Seconds without use after which a state is forgotten: CVAT's own limit."""
LIMIT = 2**30
"""Bytes of states; those unused for longest go first."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS states (
    name TEXT PRIMARY KEY, scope TEXT NOT NULL, used REAL NOT NULL, size INTEGER NOT NULL, state BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS states_used ON states (used);
"""


class TrackStates:
    """The states of all trackers, by name. Threads and processes may share the file.

    ConfigError where it cannot be used.
    """

    def __init__(self, file: Path, *, clock: Callable[[], float] = time.time, limit: int = LIMIT) -> None:
        self._clock, self._limit = clock, limit
        self._lock = threading.Lock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._db = _open(file)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"tracking states: cannot use {file}: {error}") from error

    def add(self, scope: str, states: Sequence[bytes]) -> list[str]:
        """Names for new states. `scope` is what they are good for: the model, its version, the task, the size."""
        names = [secrets.token_urlsafe(18) for _ in states]
        self._write([(name, scope, state) for name, state in zip(names, states, strict=True)])
        return names

    def get(self, scope: str, names: Sequence[str]) -> list[bytes]:
        """The states of these names; BadRequest for one that is unknown, expired, or of something else."""
        oldest, found = self._clock() - LIFETIME, []
        with self._lock, closing(self._db.cursor()) as db:
            for name in names:
                row = db.execute("SELECT scope, used, state FROM states WHERE name = ?", (name,)).fetchone()
                if row is None or row[1] < oldest:
                    raise BadRequest("tracker state: it is unknown or has expired; begin the track again")
                if row[0] != scope:
                    raise BadRequest("tracker state: it belongs to another task, picture size or model")
                found.append(row[2])
        return found

    def put(self, scope: str, states: Mapping[str, bytes]) -> None:
        """The next states of these names."""
        self._write([(name, scope, state) for name, state in states.items()])

    def sweep(self) -> int:
        """Forgets what has expired, and the oldest while there is too much; how many went."""
        with self._lock, closing(self._db.cursor()) as db:
            gone = db.execute("DELETE FROM states WHERE used < ?", (self._clock() - LIFETIME,)).rowcount
            (total,) = db.execute("SELECT coalesce(sum(size), 0) FROM states").fetchone()
            if total <= self._limit:
                return gone
            for name, size in db.execute("SELECT name, size FROM states ORDER BY used").fetchall():
                db.execute("DELETE FROM states WHERE name = ?", (name,))
                gone, total = gone + 1, total - size
                if total <= self._limit:
                    break
            return gone

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _write(self, rows: Sequence[tuple[str, str, bytes]]) -> None:
        now = self._clock()
        with self._lock, closing(self._db.cursor()) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany(
                    "INSERT OR REPLACE INTO states (name, scope, used, size, state) VALUES (?, ?, ?, ?, ?)",
                    [(name, scope, now, len(state), state) for name, scope, state in rows],
                )
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise


def _open(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file, timeout=30, check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


@dataclass(frozen=True, slots=True)
class Followed:
    """Where the shapes of some states are now."""

    names: list[str]
    shapes: list[Shape | None]


def begin_tracking(
    hosted: HostedModel, states: TrackStates, frame: Frame, shapes: Sequence[Shape], about: str
) -> Future[list[str]]:
    """Names of the states of these shapes; `about` is what they may be followed on (a task), with the frame's size.

    BadRequest at once for a shape that the tracker cannot follow; the future raises BadPrediction where it fails.
    """
    model = hosted.loaded.model
    for shape in shapes:
        if shape.type not in model.shape_types:
            allowed = ", ".join(model.shape_types)
            raise BadRequest(f"{hosted.settings.title}: it cannot follow a {shape.type}, allowed: {allowed}")

    def work() -> list[str]:
        made = _guarded(hosted, lambda: list(model.begin(frame, shapes)))
        if len(made) != len(shapes):
            raise BadPrediction(f"{hosted.id}: the model gave {len(made)} states for {len(shapes)} shapes")
        _hold_to(all(isinstance(state, bytes) for state in made), hosted, "states that are bytes", made)
        return states.add(_scope(hosted, frame, about), made)

    return hosted.host.call(work, INTERACTIVE)


def follow(
    hosted: HostedModel, states: TrackStates, frame: Frame, names: Sequence[str], about: str
) -> Future[Followed]:
    """Where the shapes are on this frame; the names stay good for the next one.

    BadRequest at once for a name that is unknown or of something else.
    """
    model, scope = hosted.loaded.model, _scope(hosted, frame, about)
    known = states.get(scope, names)

    def work() -> Followed:
        found = _guarded(hosted, lambda: list(model.follow(frame, known)))
        if len(found) != len(known):
            raise BadPrediction(f"{hosted.id}: the model gave {len(found)} shapes for {len(known)} states")
        allowed = f"a state of bytes with a shape ({', '.join(model.shape_types)}) or None, for each"
        _hold_to(all(_is_followed(one, model.shape_types) for one in found), hosted, allowed, found)
        states.put(scope, {name: state for name, (state, _) in zip(names, found, strict=True)})
        return Followed(list(names), [shape for _, shape in found])

    return hosted.host.call(work, INTERACTIVE)


def _scope(hosted: HostedModel, frame: Frame, about: str) -> str:
    """What a state is good for; it outlives the process, so that it has to name all that the model depends on."""
    model = [str(hosted.loaded.reference), hosted.loaded.version, hosted.settings.options]
    name = hashlib.sha256(json.dumps(model, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return f"{hosted.id} {name} {about} {frame.width}x{frame.height}"


def _is_followed(one: Any, types: Sequence[str]) -> bool:
    if not (isinstance(one, Sequence) and len(one) == 2):
        return False
    state, shape = one
    return isinstance(state, bytes) and (shape is None or getattr(shape, "type", None) in types)


def _hold_to(right: bool, hosted: HostedModel, allowed: str, got: object) -> None:
    if not right:
        raise BadPrediction(f"{hosted.id}: got {repr(got)[:100]}, allowed: {allowed}")


def _guarded(hosted: HostedModel, work: Callable[[], T]) -> T:
    try:
        return work()
    except ModelError:
        raise
    except Exception as error:
        raise BadPrediction(f"{hosted.id}: the model failed: {type(error).__name__}: {error}") from error
