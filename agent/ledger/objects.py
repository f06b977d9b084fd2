"""What runs have made and nothing has removed since, as the ledger knows it: by job, run, server and rule."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from agent.ledger.content import changed_later
from agent.ledger.file import LedgerFile
from agent.ledger.records import Made, pack, pack_labels, unpack

KINDS = ("tags", "shapes", "tracks")
RULE = "json_extract(r.options, '$.rule')"
"""SQL: the rule whose run `r` is, NULL for none."""


class MadeObjects(LedgerFile):
    """The objects of the runs of this machine, whatever server they went to."""

    def made(
        self, *, job: int | None = None, run: str | None = None, server: str | None = None, rule: str | None = None
    ) -> list[Made]:
        """What runs made, and neither a later run nor an undo has removed: of a job (of one server), or of a run.

        With `rule` only what runs of that rule made.
        """
        given = [
            ("o.job = ?", job), ("o.run = ?", run), ("r.server = ?", server),
            (f"{RULE} = ?", rule),
        ]  # fmt: skip
        wanted = [(condition, value) for condition, value in given if value is not None]
        rows = self._rows(
            f"SELECT o.* FROM objects o JOIN runs r ON r.id = o.run WHERE {' AND '.join(c for c, _ in wanted)}"
            " ORDER BY o.run, o.upload, o.kind, o.position",
            *(value for _, value in wanted),
        )
        found, open_upload, payload = [], None, {}
        for row in rows:
            if open_upload != (row["run"], row["upload"]):
                open_upload = (row["run"], row["upload"])
                payload = self._payload(*open_upload)
            sent = payload[row["kind"]][row["position"]]
            found.append(Made(row["run"], row["job"], row["kind"], row["server_id"], sent))
        return found

    def has_made(self, job: int, server: str, rule: str | None) -> bool:
        """Whether `made` would tell of anything (that runs of the rule made)."""
        return bool(
            self._rows(
                "SELECT 1 FROM objects o JOIN runs r ON r.id = o.run WHERE o.job = ?1 AND r.server = ?2"
                f" AND (?3 IS NULL OR {RULE} = ?3) LIMIT 1",
                job, server, rule,
            )
        )  # fmt: skip

    def made_counts(self, run: str) -> dict[str, int]:
        """How many objects of each kind `made` would tell of."""
        rows = self._rows("SELECT kind, COUNT(*) AS count FROM objects WHERE run = ? GROUP BY kind", run)
        return dict.fromkeys(KINDS, 0) | {row["kind"]: row["count"] for row in rows}

    def replaced_by(self, run: str) -> dict[str, int]:
        """How many objects of a run other runs have put theirs in the place of, by run."""
        rows = self._rows("SELECT by, count FROM replaced WHERE run = ? ORDER BY rowid", run)
        return {row["by"]: row["count"] for row in rows}

    def known_ids(self, job: int, server: str) -> set[tuple[str, int]]:
        """(kind, server id) of all that runs are known to have made in a job, as far as it was not removed."""
        rows = self._rows(
            "SELECT kind, server_id FROM objects o JOIN runs r ON r.id = o.run WHERE o.job = ? AND r.server = ?",
            job, server,
        )  # fmt: skip
        return {(row["kind"], row["server_id"]) for row in rows}

    def forget_made(self, run: str, job: int, ids: Iterable[tuple[str, int]]) -> None:
        """Takes note that these (kind, server id) of a job are gone: nothing like them is ours any more."""
        with self._change() as db:
            self._forget(db, run, job, ids)

    def note_changed(self, run: str, job: int, kind: str, items: Iterable[Mapping[str, Any]]) -> None:
        """Takes note that a run has changed items that runs had made in a job: they are still ours."""
        with self._change() as db:
            found: dict[tuple[str, int], dict[int, Mapping[str, Any]]] = defaultdict(dict)
            for item in items:
                rows = db.execute(
                    "SELECT run, upload, position FROM objects WHERE job = ? AND kind = ? AND server_id = ? AND run IN"
                    " (SELECT id FROM runs WHERE server = (SELECT server FROM runs WHERE id = ?))",
                    (job, kind, item["id"], run),
                )
                for row in rows.fetchall():
                    found[row["run"], row["upload"]][row["position"]] = item
            for place, changed in found.items():
                payload = self._payload(*place)
                for position, item in changed.items():
                    payload[kind][position] = changed_later(payload[kind][position], item)
                db.execute("UPDATE uploads SET payload = ? WHERE run = ? AND number = ?", (pack(payload), *place))

    def _payload(self, run: str, number: int) -> dict[str, list[dict[str, Any]]]:
        (row,) = self._rows("SELECT payload FROM uploads WHERE run = ? AND number = ?", run, number)
        return unpack(row["payload"])

    @staticmethod
    def _note_replaced(db: sqlite3.Connection, run: str, by: str, count: int) -> None:
        """Remembers who took so many objects of a run away: nothing else of them is kept."""
        db.execute(
            "INSERT INTO replaced VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            (run, by, count),
        )

    @staticmethod
    def _forget(db: sqlite3.Connection, run: str, job: int, ids: Iterable[tuple[str, int]]) -> Counter[str]:
        """Deletes objects of the run's server, whichever run made them, and what was kept to know them again.

        Gives how many, by the run that made them.
        """
        uploads = Counter[tuple[str, int]]()
        for kind, number in ids:
            gone = db.execute(
                "DELETE FROM objects WHERE job = ? AND kind = ? AND server_id = ? AND run IN"
                " (SELECT id FROM runs WHERE server = (SELECT server FROM runs WHERE id = ?)) RETURNING run, upload",
                (job, kind, number, run),
            )
            uploads.update((row["run"], row["upload"]) for row in gone.fetchall())
        for place in uploads:
            MadeObjects._strip(db, *place)
        makers = Counter[str]()
        for (maker, _), count in uploads.items():
            makers[maker] += count
        return makers

    @staticmethod
    def _strip(db: sqlite3.Connection, run: str, upload: int) -> None:
        """Keeps only the labels of an upload that is done and of which nothing is there any more."""
        # What was sent again may have arrived twice: its twin is still to be known.
        rows = db.execute(
            "SELECT payload FROM uploads WHERE run = ?1 AND number = ?2 AND state = 'done' AND NOT resent"
            " AND NOT EXISTS (SELECT 1 FROM objects WHERE run = ?1 AND upload = ?2)",
            (run, upload),
        )
        for row in rows.fetchall():
            blob = pack_labels(unpack(row["payload"]))
            db.execute("UPDATE uploads SET payload = ? WHERE run = ? AND number = ?", (blob, run, upload))
