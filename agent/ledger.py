"""The SQLite file that remembers runs: what was asked, what was sent, and what the server made of it.

A run can be resumed after any crash because every upload is written down before it is sent (state `sending`, with the
payload and the highest ids that the job had), once more when the server has answered (`created`, with the new ids),
and a last time when what it replaces is gone (`done`).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import BadRequest, ConfigError

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, created TEXT NOT NULL, updated TEXT NOT NULL, status TEXT NOT NULL,
    server TEXT NOT NULL, user TEXT NOT NULL, target TEXT NOT NULL, model TEXT NOT NULL, model_version TEXT NOT NULL,
    options TEXT NOT NULL, frames TEXT NOT NULL, report TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS uploads (
    run TEXT NOT NULL REFERENCES runs(id), number INTEGER NOT NULL, job INTEGER NOT NULL, frames TEXT NOT NULL,
    payload BLOB NOT NULL, above TEXT NOT NULL, removes TEXT NOT NULL, state TEXT NOT NULL,
    resent INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run, number));
CREATE TABLE IF NOT EXISTS objects (
    run TEXT NOT NULL, upload INTEGER NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL, job INTEGER NOT NULL,
    server_id INTEGER NOT NULL, PRIMARY KEY (run, upload, kind, position));
CREATE INDEX IF NOT EXISTS objects_by_job ON objects (job);
CREATE TABLE IF NOT EXISTS skipped (
    run TEXT NOT NULL, job INTEGER NOT NULL, frame INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (run, job, frame));
"""
VERSION = 1
KINDS = ("tags", "shapes", "tracks")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One row of the ledger. `status`: running, interrupted, failed, done, undone."""

    id: str
    created: str
    updated: str
    status: str
    server: str
    user: str
    target: str
    model: str
    model_version: str
    options: Mapping[str, Any]
    frames: Mapping[int, tuple[int, ...]]
    """The frames that the run is to annotate, by job."""
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Upload:
    """One create call: `payload` as sent, `above` the highest id of each kind that the job had before."""

    run: str
    number: int
    job: int
    frames: tuple[int, ...]
    payload: Mapping[str, list[dict[str, Any]]]
    above: Mapping[str, int]
    removes: tuple[tuple[str, int], ...]
    """(kind, server id) of what goes away once the new annotations are there."""
    state: str
    resent: bool


@dataclass(frozen=True, slots=True)
class Made:
    """An object that a run made: where it is, and its content as it was sent."""

    run: str
    job: int
    kind: str
    server_id: int
    sent: Mapping[str, Any]


def default_path() -> Path:
    """The ledger's place where nothing else is said."""
    if place := os.environ.get("CVAT_SIDECAR_LEDGER"):
        return Path(place)
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "cvat-sidecar" / "ledger.sqlite3"


class Ledger:
    """The runs of this machine, whatever server they went to. Safe to use from several threads and processes."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=30)
            self._db.row_factory = sqlite3.Row
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"ledger: cannot use {self.path}: {error}") from error
        self._lock = threading.RLock()

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise ConfigError(f"ledger: {self.path} was written by a newer cvat-sidecar (form {version})")
        self._db.executescript(SCHEMA)
        self._db.execute(f"PRAGMA user_version={VERSION}")

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # ------------------------------------------------------------------ runs

    def begin(
        self,
        *,
        server: str,
        user: str,
        target: str,
        model: str,
        model_version: str,
        options: Mapping[str, Any],
        frames: Mapping[int, Sequence[int]],
    ) -> str:
        """The id of a new run."""
        run, now = secrets.token_hex(4), _now()
        with self._change() as db:
            db.execute(
                "INSERT INTO runs (id, created, updated, status, server, user, target, model, model_version,"
                " options, frames) VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?, ?, ?)",
                (run, now, now, server, user, target, model, model_version, json.dumps(options),
                 json.dumps({str(job): list(numbers) for job, numbers in frames.items()})),
            )  # fmt: skip
        return run

    def end(self, run: str, status: str, report: Mapping[str, Any]) -> None:
        with self._change() as db:
            db.execute(
                "UPDATE runs SET status = ?, report = ?, updated = ? WHERE id = ?",
                (status, json.dumps(report), _now(), run),
            )

    def runs(self) -> list[RunRecord]:
        """All runs, the newest first."""
        return [_record(row) for row in self._rows("SELECT * FROM runs ORDER BY created DESC, rowid DESC")]

    def run(self, run: str) -> RunRecord:
        """A run by its id or an unambiguous beginning of it; BadRequest when there is none."""
        rows = self._rows("SELECT * FROM runs WHERE substr(id, 1, ?) = ?", len(run), run) if run else []
        if len(rows) != 1:
            what = "no run" if not rows else f"{len(rows)} runs"
            raise BadRequest(f"run {run!r}: {what} of that id in {self.path}; see `cvat-sidecar runs list`")
        return _record(rows[0])

    @contextmanager
    def hold(self, run: str) -> Iterator[None]:
        """Keeps other processes of this machine from working on the run; a killed process lets go of it."""
        path = self.path.with_name(f"{self.path.name}.{run}.lock")
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BadRequest(f"run {run}: another process is working on it") from error
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    # --------------------------------------------------------------- uploads

    def write_upload(
        self,
        run: str,
        job: int,
        frames: Sequence[int],
        payload: Mapping[str, list[dict[str, Any]]],
        above: Mapping[str, int],
        removes: Iterable[tuple[str, int]],
    ) -> Upload:
        """Writes down what is about to be sent."""
        blob, removes = zlib.compress(json.dumps(payload).encode(), 3), tuple(removes)
        with self._change() as db:
            (number,) = db.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM uploads WHERE run = ?", (run,)).fetchone()
            db.execute(
                "INSERT INTO uploads (run, number, job, frames, payload, above, removes, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 'sending')",
                (run, number, job, json.dumps(list(frames)), blob, json.dumps(above), json.dumps(removes)),
            )
        return Upload(run, number, job, tuple(frames), payload, above, removes, "sending", False)

    def mark_resent(self, upload: Upload) -> None:
        """Remembers that it was sent again after silence, so that a late twin is looked for at the end."""
        with self._change() as db:
            db.execute("UPDATE uploads SET resent = 1 WHERE run = ? AND number = ?", (upload.run, upload.number))

    def mark_created(self, upload: Upload, ids: Mapping[str, Sequence[int | None]]) -> None:
        """Keeps the ids that the server gave, in the order of the payload (None: it is not there any more)."""
        rows = [
            (upload.run, upload.number, position, kind, upload.job, server_id)
            for kind in KINDS
            for position, server_id in enumerate(ids.get(kind, ()))
            if server_id is not None
        ]
        with self._change() as db:
            db.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._set_state(db, upload, "created")

    def mark_done(self, upload: Upload) -> None:
        with self._change() as db:
            self._set_state(db, upload, "done")

    def forget_upload(self, upload: Upload) -> None:
        """Takes back an upload that the server refused: nothing of it is there."""
        with self._change() as db:
            db.execute("DELETE FROM uploads WHERE run = ? AND number = ?", (upload.run, upload.number))

    def uploads(self, run: str, job: int | None = None) -> list[Upload]:
        """The run's uploads in the order in which they were sent."""
        where = "" if job is None else " AND job = ?"
        values = (run,) if job is None else (run, job)
        return [
            _upload(row) for row in self._rows(f"SELECT * FROM uploads WHERE run = ?{where} ORDER BY number", *values)
        ]

    def made(self, *, job: int | None = None, run: str | None = None, server: str | None = None) -> list[Made]:
        """What runs made: of a job (of one server), or of a run."""
        rows = self._rows(
            "SELECT o.* FROM objects o JOIN runs r ON r.id = o.run WHERE (?1 IS NULL OR o.job = ?1)"
            " AND (?2 IS NULL OR o.run = ?2) AND (?3 IS NULL OR r.server = ?3)"
            " ORDER BY o.run, o.upload, o.kind, o.position",
            job, run, server,
        )  # fmt: skip
        found, open_upload, payload = [], None, {}
        for row in rows:
            if open_upload != (row["run"], row["upload"]):
                open_upload = (row["run"], row["upload"])
                payload = self._payload(*open_upload)
            sent = payload[row["kind"]][row["position"]]
            found.append(Made(row["run"], row["job"], row["kind"], row["server_id"], sent))
        return found

    def known_ids(self, job: int, server: str) -> set[tuple[str, int]]:
        """(kind, server id) of all that runs are known to have made in a job."""
        rows = self._rows(
            "SELECT kind, server_id FROM objects o JOIN runs r ON r.id = o.run WHERE o.job = ? AND r.server = ?",
            job, server,
        )  # fmt: skip
        return {(row["kind"], row["server_id"]) for row in rows}

    def _payload(self, run: str, number: int) -> dict[str, list[dict[str, Any]]]:
        (row,) = self._rows("SELECT payload FROM uploads WHERE run = ? AND number = ?", run, number)
        payload: dict[str, list[dict[str, Any]]] = json.loads(zlib.decompress(row["payload"]))
        return payload

    @staticmethod
    def _set_state(db: sqlite3.Connection, upload: Upload, state: str) -> None:
        db.execute("UPDATE uploads SET state = ? WHERE run = ? AND number = ?", (state, upload.run, upload.number))

    # --------------------------------------------------------------- skipped

    def skip(self, run: str, job: int, frame: int, reason: str) -> None:
        with self._change() as db:
            db.execute("INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?)", (run, job, frame, reason))

    def skipped(self, run: str) -> dict[tuple[int, int], str]:
        """(job, frame) -> reason."""
        rows = self._rows("SELECT * FROM skipped WHERE run = ?", run)
        return {(row["job"], row["frame"]): row["reason"] for row in rows}

    def finished_frames(self, run: str) -> set[tuple[int, int]]:
        """(job, frame) of all that needs no more work: uploaded (or on its way, with the payload known) or skipped."""
        done = set(self.skipped(run))
        for row in self._rows("SELECT job, frames FROM uploads WHERE run = ?", run):
            done.update((row["job"], frame) for frame in json.loads(row["frames"]))
        return done


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _record(row: sqlite3.Row) -> RunRecord:
    values = dict(row)
    frames = {int(job): tuple(numbers) for job, numbers in json.loads(values["frames"]).items()}
    parsed = {
        "options": json.loads(values["options"]),
        "report": json.loads(values["report"]),
        "frames": frames,
    }
    return RunRecord(**{**values, **parsed})


def _upload(row: sqlite3.Row) -> Upload:
    return Upload(
        run=row["run"],
        number=row["number"],
        job=row["job"],
        frames=tuple(json.loads(row["frames"])),
        payload=json.loads(zlib.decompress(row["payload"])),
        above=json.loads(row["above"]),
        removes=tuple((kind, server_id) for kind, server_id in json.loads(row["removes"])),
        state=row["state"],
        resent=bool(row["resent"]),
    )
