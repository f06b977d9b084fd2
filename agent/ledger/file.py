"""The SQLite file under the ledger: opened, changed by whole transactions, and the lock that goes with each run."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from agent.errors import BadRequest, ConfigError
from agent.ledger.sqlite import SqliteFile

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
CREATE TABLE IF NOT EXISTS replaced (
    run TEXT NOT NULL, by TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (run, by));
CREATE TABLE IF NOT EXISTS backups (run TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (run, path));
CREATE TABLE IF NOT EXISTS rule_jobs (
    server TEXT NOT NULL, rule TEXT NOT NULL, job INTEGER NOT NULL, key TEXT NOT NULL, model_version TEXT NOT NULL,
    status TEXT NOT NULL, run TEXT, begun REAL NOT NULL, updated REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    next_try REAL NOT NULL DEFAULT 0, job_updated TEXT, marker TEXT, owed TEXT, issue INTEGER, error TEXT,
    PRIMARY KEY (server, rule, job, key));
CREATE INDEX IF NOT EXISTS rule_jobs_by_status ON rule_jobs (server, rule, status);
CREATE INDEX IF NOT EXISTS rule_jobs_by_begun ON rule_jobs (server, rule, begun);
CREATE INDEX IF NOT EXISTS rule_jobs_that_owe ON rule_jobs (server, rule) WHERE owed IS NOT NULL;
CREATE INDEX IF NOT EXISTS rule_jobs_by_run ON rule_jobs (run);
"""
VERSION = 2  # of what older programs would misread; a table more does not trouble them
LOOK_SECONDS = 0.02
"""More than anybody needs to see whether a lock is held."""
INCREMENTAL = 2
"""SQLite's name for a file that can be made smaller without being written anew."""


def default_path() -> Path:
    """The ledger's place where nothing else is said."""
    if place := os.environ.get("CVAT_SIDECAR_LEDGER"):
        return Path(place)
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "cvat-sidecar" / "ledger.sqlite3"


class HeldElsewhere(BadRequest):
    """Another process, or another thread, is working on it."""


class LedgerFile(SqliteFile):
    """An open ledger file."""

    called = "ledger"

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(path or default_path())

    def _open(self) -> None:
        self._db.row_factory = sqlite3.Row
        # A new file only; an older one becomes such when space is given back for the first time.
        self._db.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise ConfigError(f"ledger: {self.path} was written by a newer cvat-sidecar (form {version})")
        self._db.executescript(SCHEMA)
        self._db.execute(f"PRAGMA user_version={VERSION}")

    @contextmanager
    def hold(self, run: str) -> Iterator[None]:
        """Keeps other processes of this machine from working on the run; a killed process lets go of it."""
        with self.lock(run, f"run {run}", tries=3):  # who only looks (`held`) has it for a moment
            yield

    def held(self, run: str) -> bool:
        """Whether somebody on this machine works on the run."""
        try:
            with self._lock_path(run).open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def _lock_path(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{name}.lock")

    @contextmanager
    def lock(self, name: str, what: str, *, tries: int = 1) -> Iterator[None]:
        """Keeps a name to ourselves, on this machine, while the block runs; HeldElsewhere where somebody has it."""
        path = self._lock_path(name)
        try:
            file = path.open("w")
        except OSError as error:
            raise self._unusable(error) from error
        with file:
            # Its holder may have just ended, and a third one may begin: then its file is gone.
            if not (_locked(file, tries) and os.fstat(file.fileno()).st_nlink > 0):
                raise HeldElsewhere(f"{what}: another process is working on it")
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock, self._told():
            return self._db.execute(query, values).fetchall()


def _locked(file: TextIO, tries: int) -> bool:
    """Whether the file is ours alone now."""
    for again in range(tries):
        if again:
            time.sleep(LOOK_SECONDS)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        return True
    return False
