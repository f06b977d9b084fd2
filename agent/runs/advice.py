"""What a person can type to go on with a run or to take it back; each command works as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path

from agent.ledger.ledger import Ledger, RunRecord, default_path

VALUES = ("attribute", "text", "label", "identity")
"""What `enrich` writes into what is there; masks and skeletons are shapes of its own."""


def typed(what: str, run: str, ledger: Path | None, *more: str) -> str:
    """A command of `cvat-sidecar runs` about a run, whichever ledger it is in."""
    where = "" if ledger is None or ledger == default_path() else f" --ledger {shlex.quote(str(ledger))}"
    return f"`{' '.join(['cvat-sidecar runs', what, run, *more])}{where}`"


def changed_values(record: RunRecord) -> bool:
    """Whether the run changed what was there and made nothing, so that its backups alone bring back what was."""
    return record.command == "enrich" and record.options.get("gives") in VALUES


def ways_back(book: Ledger, record: RunRecord) -> list[str]:
    """What takes a run back, in the order in which it is to be said; nothing where it has left nothing."""
    kept = bool(book.backups(record.id))
    if changed_values(record):
        values = typed("restore", record.id, book.path, "--values")
        return [f"{values} brings the old values back"] if kept else []
    ways = [] if record.status == "undone" else [f"{typed('undo', record.id, book.path)} takes it back"]
    return [*ways, f"{typed('restore', record.id, book.path)} brings back what it removed"] if kept else ways


def ways_again(book: Ledger, record: RunRecord) -> str:
    """What to do about a run that has broken off and cannot be gone on with."""
    back = "; ".join(ways_back(book, record))
    if record.command == "enrich":
        again = "run the same command again: it looks at what is there then"
        return f"{again}; or {back}" if back else again
    return f"{back}; then run the same command again" if back else "run the same command again"
