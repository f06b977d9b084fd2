"""The SQLite file that remembers runs: what was asked, what was sent, and what the server made of it.

A run can be resumed after any crash because every upload is written down before it is sent (state `sending`, with the
payload and the highest ids that the job had), once more when the server has answered (`created`, with the new ids),
and a last time when what it replaces is gone (`done`). Of a payload that has arrived only what tells its objects from
others is kept; of one whose objects are gone again, its labels.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import BadRequest
from agent.ledger.file import default_path
from agent.ledger.objects import KINDS, RULE, MadeObjects
from agent.ledger.records import Made, RunRecord, Upload, pack, pack_fingerprints

__all__ = ["KINDS", "Ledger", "Made", "RunRecord", "Upload", "default_path"]

_COLUMNS = [part.name for part in fields(RunRecord) if part.name != "frames"]


class Ledger(MadeObjects):
    """The runs of this machine, whatever server they went to."""

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

    def put_down(self, run: str) -> None:
        """What failed was only interrupted; what somebody has done about it since stays."""
        with self._change() as db:
            db.execute(
                "UPDATE runs SET status = 'interrupted', report = json_set(report, '$.status', 'interrupted'),"
                " updated = ? WHERE id = ? AND status = 'failed'",
                (_now(), run),
            )

    def reopen(self, run: str) -> None:
        """Forgets which frames were skipped, so that they are tried again."""
        with self._change() as db:
            db.execute("DELETE FROM skipped WHERE run = ?", (run,))
            db.execute("UPDATE runs SET status = 'interrupted', updated = ? WHERE id = ?", (_now(), run))

    def goes_on(self, run: str) -> None:
        """It is worked on again."""
        with self._change() as db:
            db.execute("UPDATE runs SET status = 'running', updated = ? WHERE id = ?", (_now(), run))

    def runs(self, limit: int = -1, *, frames: bool = True) -> list[RunRecord]:
        """The runs, the newest first; the last `limit` of them. Without `frames`, which can be many, it is quicker."""
        columns = "*" if frames else f"{', '.join(_COLUMNS)}, '{{}}' AS frames"
        rows = self._rows(f"SELECT {columns} FROM runs ORDER BY created DESC, rowid DESC LIMIT ?", limit)
        return [RunRecord.of(row) for row in rows]

    def run(self, run: str) -> RunRecord:
        """A run by its id or an unambiguous beginning of it; BadRequest when there is none."""
        rows = self._rows("SELECT * FROM runs WHERE substr(id, 1, ?) = ?", len(run), run) if run else []
        if len(rows) != 1:
            what = "no run" if not rows else f"{len(rows)} runs"
            raise BadRequest(f"run {run!r}: {what} of that id in {self.path}; see `cvat-sidecar runs list`")
        return RunRecord.of(rows[0])

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
        blob, removes = pack(payload), tuple(removes)
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
        kept = pack_fingerprints(upload.payload)
        with self._change() as db:
            db.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._set_state(db, upload, "created")
            db.execute("UPDATE uploads SET payload = ? WHERE run = ? AND number = ?", (kept, upload.run, upload.number))

    def mark_done(self, upload: Upload, removed: Iterable[tuple[str, int]] = ()) -> None:
        """Ends an upload; what it `removed` is nobody's any more."""
        with self._change() as db:
            self._set_state(db, upload, "done")
            for maker, count in self._forget(db, upload.run, upload.job, removed).items():
                if maker != upload.run:
                    self._note_replaced(db, maker, upload.run, count)
            self._strip(db, upload.run, upload.number)

    def forget_upload(self, upload: Upload) -> None:
        """Takes back an upload that the server refused: nothing of it is there."""
        with self._change() as db:
            db.execute("DELETE FROM uploads WHERE run = ? AND number = ?", (upload.run, upload.number))

    def uploads(self, run: str, job: int | None = None, *, unsettled: bool = False) -> list[Upload]:
        """The run's uploads in the order in which they were sent; `unsettled`: those that need another look."""
        rows = self._rows(
            "SELECT * FROM uploads WHERE run = ?1 AND (?2 IS NULL OR job = ?2)"
            " AND (NOT ?3 OR resent OR state != 'done') ORDER BY number",
            run, job, unsettled,
        )  # fmt: skip
        return [Upload.of(row) for row in rows]

    def unanswered(self, job: int, server: str, *, rule: str | None = None) -> list[str]:
        """The runs (of a rule) that have sent something to a job and do not know what became of it."""
        rows = self._rows(
            "SELECT DISTINCT u.run FROM uploads u JOIN runs r ON r.id = u.run WHERE u.job = ?1 AND u.state = 'sending'"
            f" AND r.server = ?2 AND (?3 IS NULL OR {RULE} = ?3) ORDER BY r.rowid",
            job, server, rule,
        )  # fmt: skip
        return [row["run"] for row in rows]

    def pruned_run(self, job: int, server: str, rule: str) -> str | None:
        """A run of the rule on the job that is not known any more."""
        rows = self._rows(
            "SELECT run FROM rule_jobs WHERE server = ? AND rule = ? AND job = ? AND run IS NOT NULL"
            " AND run NOT IN (SELECT id FROM runs) LIMIT 1",
            server, rule, job,
        )  # fmt: skip
        return rows[0]["run"] if rows else None

    def jobs(self, run: str) -> list[int]:
        """The jobs that the run has sent something to."""
        return [row["job"] for row in self._rows("SELECT DISTINCT job FROM uploads WHERE run = ? ORDER BY job", run)]

    def label_counts(self, run: str, job: int) -> Counter[int]:
        """How many annotations the run has sent to a job, by label id."""
        counts = Counter[int]()
        # One by one: all payloads of a long run would fill the memory.
        for row in self._rows("SELECT number FROM uploads WHERE run = ? AND job = ?", run, job):
            counts.update(item["label_id"] for items in self._payload(run, row["number"]).values() for item in items)
        return counts

    @staticmethod
    def _set_state(db: sqlite3.Connection, upload: Upload, state: str) -> None:
        db.execute("UPDATE uploads SET state = ? WHERE run = ? AND number = ?", (state, upload.run, upload.number))

    # ------------------------------------------------------ backups, skipped

    def note_backup(self, run: str, file: Path) -> None:
        """Remembers that a backup was kept for the run: it goes when the run does."""
        with self._change() as db:
            db.execute("INSERT OR IGNORE INTO backups VALUES (?, ?)", (run, str(file.resolve())))

    def backups(self, run: str) -> list[Path]:
        """The backups that were kept for the run."""
        return [Path(row["path"]) for row in self._rows("SELECT path FROM backups WHERE run = ? ORDER BY path", run)]

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
