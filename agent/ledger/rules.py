"""What rules have done, kept in the ledger: each job once for each version of what a rule asks for.

Several processes may share the file: whoever holds the job's lock is at it, and a killed process lets go of it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.ledger.file import LedgerFile

PENDING = ("claiming", "taking", "running", "interrupted", "failed")
"""Those that may have to be gone on with, even when the job is not listed any more."""
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class RuleJob:
    """How a rule stands with a job. Times are seconds since the epoch."""

    rule: str
    job: int
    key: str
    """Names the model's version and the options."""
    model_version: str
    status: str
    """claiming, taking, running, interrupted, failed, done, cancelled, superseded."""
    run: str | None = None
    """The ledger's, of the last try."""
    begun: float = 0.0
    updated: float = 0.0
    tries: int = 0
    """That failed."""
    next_try: float = 0.0
    job_updated: str | None = None
    """When the server last changed the job before we left it; None: it was changed since."""
    marker: str | None = None
    """What we have left on the job while claiming it."""
    owed: str | None = None
    """A state that the job is still to be given."""
    issue: int | None = None
    """That tells people of the failure."""
    error: str | None = None

    @classmethod
    def of(cls, row: sqlite3.Row) -> RuleJob:
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


class RuleMemory(LedgerFile):
    """What rules have done on one server."""

    def __init__(self, path: Path, server: str) -> None:
        super().__init__(path)
        self._server = server

    def hold_job(self, job: int) -> AbstractContextManager[None]:
        """Keeps the rules of other processes (and threads) away from a job; HeldElsewhere where they have it."""
        server = hashlib.sha256(self._server.encode()).hexdigest()[:8]
        return self.lock(f"{server}-job-{job}", f"job {job}")

    # --------------------------------------------------------------- looking

    def left(self, rule: str, now: float) -> set[int]:
        """The jobs that the rule has to go on with now, or to which it owes a state."""
        rows = self._rows(
            "SELECT job FROM rule_jobs WHERE server = ?1 AND rule = ?2 AND next_try <= ?3"
            f" AND status IN ({', '.join(map(repr, PENDING))})"
            " UNION SELECT job FROM rule_jobs WHERE server = ?1 AND rule = ?2 AND owed IS NOT NULL",
            self._server, rule, now,
        )  # fmt: skip
        return {row["job"] for row in rows}

    def row(self, rule: str, job: int, key: str) -> RuleJob | None:
        """What is known of a job under a key."""
        rows = self._rows(
            "SELECT * FROM rule_jobs WHERE server = ? AND rule = ? AND job = ? AND key = ?",
            self._server, rule, job, key,
        )  # fmt: skip
        return RuleJob.of(rows[0]) if rows else None

    def of_job(self, rule: str, job: int) -> dict[str, RuleJob]:
        """What is known of a job, by key."""
        rows = self._rows(
            "SELECT * FROM rule_jobs WHERE server = ? AND rule = ? AND job = ?", self._server, rule, job
        )  # fmt: skip
        return {row["key"]: RuleJob.of(row) for row in rows}

    def begun_since(self, rule: str, moment: float) -> int:
        """How many jobs the rule has begun since then."""
        (row,) = self._rows(
            "SELECT COUNT(*) AS count FROM rule_jobs WHERE server = ? AND rule = ? AND begun > ?",
            self._server, rule, moment,
        )  # fmt: skip
        return int(row["count"])

    def untouched(self, since: float, after: tuple[str, int], count: int) -> list[tuple[str, int]]:
        """(rule, job) of which something has been known since then without a change, in this order: the next `count`
        after one of them."""
        rows = self._rows(
            "SELECT DISTINCT rule, job FROM rule_jobs WHERE server = ? AND (rule, job) > (?, ?) AND updated < ?"
            " ORDER BY rule, job LIMIT ?",
            self._server, *after, since, count,
        )  # fmt: skip
        return [(row["rule"], row["job"]) for row in rows]

    # --------------------------------------------------------------- writing

    def begin(self, row: RuleJob, *, limit: int | None = None) -> bool:
        """Writes a job down that is about to be begun; False where the rule has begun enough within the last hour.

        Whatever was begun for another version of the rule's work is left behind.
        """
        with self._change() as db:
            if limit is not None and self._begun_beside(db, row) >= limit:
                return False
            db.execute(
                "UPDATE rule_jobs SET status = 'superseded', owed = NULL WHERE server = ? AND rule = ? AND job = ?"
                f" AND key != ? AND status IN ({', '.join('?' * len(PENDING))})",
                (self._server, row.rule, row.job, row.key, *PENDING),
            )
            self._write(db, row)
        return True

    def write(self, row: RuleJob) -> None:
        """Replaces what is known of a job under the row's key."""
        with self._change() as db:
            self._write(db, row)

    def change(self, row: RuleJob, **values: Any) -> None:
        """Changes single values of a job's row."""
        names = ", ".join(f"{name} = ?" for name in values)
        with self._change() as db:
            db.execute(
                f"UPDATE rule_jobs SET {names} WHERE server = ? AND rule = ? AND job = ? AND key = ?",
                (*values.values(), self._server, row.rule, row.job, row.key),
            )

    def forget(self, row: RuleJob) -> None:
        """Takes back that a job was begun."""
        with self._change() as db:
            db.execute(
                "DELETE FROM rule_jobs WHERE server = ? AND rule = ? AND job = ? AND key = ?",
                (self._server, row.rule, row.job, row.key),
            )

    def forget_untouched(self, rule: str, job: int, since: float) -> bool:
        """Forgets what has been known of a job since then without a change; whether there was something."""
        with self._change() as db:
            gone = db.execute(
                "DELETE FROM rule_jobs WHERE server = ? AND rule = ? AND job = ? AND updated < ?",
                (self._server, rule, job, since),
            )
        return gone.rowcount > 0

    def _begun_beside(self, db: sqlite3.Connection, row: RuleJob) -> int:
        (begun,) = db.execute(
            "SELECT COUNT(*) FROM rule_jobs WHERE server = ? AND rule = ? AND begun > ? AND NOT (job = ? AND key = ?)",
            (self._server, row.rule, row.begun - HOUR, row.job, row.key),
        ).fetchone()
        return int(begun)

    def _write(self, db: sqlite3.Connection, row: RuleJob) -> None:
        names = list(row.__dataclass_fields__)
        db.execute(
            f"INSERT OR REPLACE INTO rule_jobs (server, {', '.join(names)}) VALUES (?, {', '.join('?' * len(names))})",
            (self._server, *(getattr(row, name) for name in names)),
        )
