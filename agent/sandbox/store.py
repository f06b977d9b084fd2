"""Tables of records in memory, written through to one SQLite file where the state has to outlive the process.

A record is a dataclass whose fields are JSON values. Reading is plain attribute access; after changing a
record, `save` it. All that was saved inside `with store.change():` is on the disk when the block ends, so
what a reply says after it survives a killed process.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (name TEXT, id INTEGER, body TEXT, PRIMARY KEY (name, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sequences (name TEXT PRIMARY KEY, last INTEGER);
"""


class Record(Protocol):
    """What a table holds: a dataclass with an integer id."""

    id: int


R = TypeVar("R", bound=Record)


class Store:
    """All tables, one lock, and the journal that makes them durable (none without a path)."""

    def __init__(self, path: Path | None = None) -> None:
        self.lock = threading.RLock()
        self._depth = 0
        self._dirty: dict[tuple[str, int], Record | None] = {}
        self._sequences: dict[str, int] = {}
        self._moved: set[str] = set()
        self._journal: sqlite3.Connection | None = None
        if path is not None:
            # WAL hands every commit to the operating system, so it survives the end of the process.
            self._journal = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._journal.execute("PRAGMA journal_mode=WAL")
            self._journal.execute("PRAGMA synchronous=NORMAL")
            self._journal.executescript(_SCHEMA)
            self._sequences = dict(self._journal.execute("SELECT name, last FROM sequences"))

    def table(self, name: str, kind: type[R]) -> Table[R]:
        """A table of records of one kind, with the rows that the journal has of it."""
        table = Table(self, name, kind)
        if self._journal is not None:
            for (body,) in self._journal.execute("SELECT body FROM rows WHERE name = ? ORDER BY id", (name,)):
                row = kind(**json.loads(body))
                table.rows[row.id] = row
        return table

    @contextmanager
    def change(self) -> Iterator[None]:
        """Holds the lock; at the end of the outermost block everything that was saved is durable."""
        with self.lock:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._flush()

    def next_id(self, sequence: str) -> int:
        """A number that this sequence never gave before, also not before a restart."""
        with self.change():
            number = self._sequences.get(sequence, 0) + 1
            self._sequences[sequence] = number
            self._moved.add(sequence)
            return number

    def note(self, name: str, id_: int, row: Record | None) -> None:
        """Marks a row as saved (or removed, if None) in the current change."""
        if self._journal is not None:
            self._dirty[name, id_] = row

    def _flush(self) -> None:
        if self._journal is None or not (self._dirty or self._moved):
            return
        gone = [key for key, row in self._dirty.items() if row is None]
        kept = [(*key, json.dumps(vars(row))) for key, row in self._dirty.items() if row is not None]
        numbers = [(name, self._sequences[name]) for name in self._moved]
        self._journal.execute("BEGIN")
        self._journal.executemany("DELETE FROM rows WHERE name = ? AND id = ?", gone)
        self._journal.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", kept)
        self._journal.executemany("INSERT OR REPLACE INTO sequences VALUES (?, ?)", numbers)
        self._journal.execute("COMMIT")
        self._dirty.clear()
        self._moved.clear()

    def close(self) -> None:
        """Flushes and closes the journal."""
        with self.lock:
            self._flush()
            if self._journal is not None:
                self._journal.close()
                self._journal = None


class Table(Generic[R]):
    """Records by id, in the order of their creation."""

    def __init__(self, store: Store, name: str, kind: type[R]) -> None:
        self.rows: dict[int, R] = {}
        self.name = name
        self._store = store
        self._kind = kind

    def add(self, **fields: Any) -> R:
        """A new record, saved; its id is made unless given."""
        with self._store.change():
            fields.setdefault("id", 0)
            fields["id"] = fields["id"] or self._store.next_id(self.name)
            return self.save(self._kind(**fields))

    def save(self, row: R) -> R:
        """Keeps a new or changed record."""
        with self._store.change():
            self.rows[row.id] = row
            self._store.note(self.name, row.id, row)
            return row

    def remove(self, id_: int) -> None:
        """Forgets a record; nothing happens if it is not there."""
        with self._store.change():
            if self.rows.pop(id_, None) is not None:
                self._store.note(self.name, id_, None)

    def get(self, id_: int | None) -> R | None:
        """The record, or None."""
        return None if id_ is None else self.rows.get(id_)

    def where(self, **fields: Any) -> list[R]:
        """The records with these values, oldest first."""
        with self._store.lock:
            return [row for row in self.rows.values() if all(getattr(row, k) == v for k, v in fields.items())]

    def first(self, **fields: Any) -> R | None:
        """The oldest record with these values, or None."""
        return next(iter(self.where(**fields)), None)

    def all(self) -> list[R]:
        """All records, oldest first."""
        with self._store.lock:
            return list(self.rows.values())

    def __len__(self) -> int:
        return len(self.rows)
