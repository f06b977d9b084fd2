"""Old runs taken out of the ledger, and the space that they took given back.

What rules remember of jobs stays: each job once for each version of what a rule asks for, known runs or not.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.ledger.file import INCREMENTAL, HeldElsewhere, LedgerFile
from agent.ledger.rules import PENDING

PAGES = 1000
"""Of the file that are given back at once: others wait to write meanwhile."""
_MARKS = ", ".join("?" * len(PENDING))
_FINISHED = (
    "r.status IN ('done', 'undone') AND r.updated < ?"
    # A rule has not taken note yet of how its run has ended.
    f" AND NOT EXISTS (SELECT 1 FROM rule_jobs j WHERE j.run = r.id AND (j.status IN ({_MARKS}) OR j.owed IS NOT NULL))"
)


@dataclass(frozen=True, slots=True)
class OldRun:
    """A run that may go. `annotations` are those that it made and nothing has removed since."""

    id: str
    created: str
    status: str
    target: str
    model: str
    annotations: int
    backups: tuple[Path, ...]


class OldRuns(LedgerFile):
    """The runs that have ended before a moment, as far as nothing can go on with them."""

    def finished(self, before: datetime) -> list[OldRun]:
        """Runs that are done or undone, the oldest first."""
        rows = self._rows(
            "SELECT r.id, r.created, r.status, r.target, r.model,"
            " (SELECT COUNT(*) FROM objects o WHERE o.run = r.id) AS annotations"
            f" FROM runs r WHERE {_FINISHED} ORDER BY r.created, r.rowid",
            _text(before), *PENDING,
        )  # fmt: skip
        return [OldRun(**dict(row), backups=tuple(self._backups(row["id"]))) for row in rows]

    def unfinished(self, before: datetime) -> int:
        """How many runs of that age could still be gone on with, or are being worked on."""
        (row,) = self._rows(
            f"SELECT COUNT(*) AS count FROM runs r WHERE r.updated < ? AND NOT ({_FINISHED})",
            _text(before), _text(before), *PENDING,
        )  # fmt: skip
        return int(row["count"])

    def forget(self, run: str, before: datetime) -> bool:
        """Takes a run out of the ledger, unless somebody has begun to work on it again; whether it did."""
        try:
            with self.hold(run), self._change() as db:
                query = f"SELECT 1 FROM runs r WHERE r.id = ? AND {_FINISHED}"
                if db.execute(query, (run, _text(before), *PENDING)).fetchone() is None:
                    return False
                for table in ("objects", "uploads", "skipped", "replaced", "backups"):
                    db.execute(f"DELETE FROM {table} WHERE run = ?", (run,))
                db.execute("DELETE FROM runs WHERE id = ?", (run,))
        except HeldElsewhere:
            return False
        return True

    def all_backups(self) -> set[Path]:
        """The backups of all runs that are known."""
        return {Path(row["path"]) for row in self._rows("SELECT path FROM backups")}

    def give_back(self) -> int:
        """Makes the file as small as what is in it; how many bytes smaller. While others are busy with it, less so."""
        before = self.size()
        with self._lock, self._told():
            try:
                self._shrink(self._db)
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
        return max(0, before - self.size())

    def size(self) -> int:
        """Bytes on the disk, with what waits to be written into the file."""
        return sum(path.stat().st_size for path in (self.path, Path(f"{self.path}-wal")) if path.exists())

    def _backups(self, run: str) -> list[Path]:
        return [Path(row["path"]) for row in self._rows("SELECT path FROM backups WHERE run = ? ORDER BY path", run)]

    @staticmethod
    def _shrink(db: sqlite3.Connection) -> None:
        (mode,) = db.execute("PRAGMA auto_vacuum").fetchone()
        if mode != INCREMENTAL:
            # Of a file from before, or of a version of SQLite that could not.
            db.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")
            db.execute("VACUUM")
            return
        left = None
        while (free := db.execute("PRAGMA freelist_count").fetchone()[0]) and free != left:
            left = free
            db.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall()


def _text(moment: datetime) -> str:
    """As the ledger writes times."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
