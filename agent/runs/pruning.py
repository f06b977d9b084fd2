"""Runs that ended long ago, taken out of the ledger with their backups; what that means is said."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.ledger.backups import kept_backups
from agent.ledger.pruning import OldRun, OldRuns

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Pruned:
    """What has gone, or (`dry`) would have."""

    runs: list[OldRun]
    backups: list[Path]
    unfinished: int
    """Runs as old that stay, because they can be gone on with."""
    dry: bool = False
    bytes: int = 0
    """That the disk has got back, backups and all."""

    @property
    def annotations(self) -> int:
        """How many of these runs' annotations stay in CVAT."""
        return sum(run.annotations for run in self.runs)

    def lines(self) -> Iterator[str]:
        for run in self.runs:
            yield (
                f"{run.id}  {run.created[:19]}Z  {run.status:<11}  {run.target:<12}"
                f"  {run.annotations} annotations in CVAT  {run.model}"
            )
        yield from self.summary()

    def summary(self) -> Iterator[str]:
        """What that means, without the runs one by one."""
        done = "would be removed" if self.dry else f"removed, {self.bytes / 2**20:.1f} MiB given back"
        yield f"{len(self.runs)} runs and {len(self.backups)} backups {done}"
        cannot = "could not" if self.dry else "cannot"
        if self.annotations:
            yield (
                f"`runs undo` {cannot} take back the {self.annotations} annotations that these runs left in CVAT any"
                " more; --replace own, rules, `track` and `enrich` see them as somebody else's"
            )
        if self.backups:
            yield f"`runs restore` {cannot} bring back what these backups hold any more"
        if self.unfinished:
            yield f"{self.unfinished} runs as old stay: they can be gone on with (`runs resume`), or taken back first"


def prune(
    ledger: Path | None,
    age: timedelta,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    ended: Callable[[], bool] = lambda: False,
) -> Pruned:
    """Removes the runs that ended longer ago than `age`, and backups as old that no other run needs.

    Runs that can be gone on with stay, however old they are. `ended` breaks off between two runs.
    """
    before = (now or datetime.now(UTC)) - age
    with OldRuns(ledger) as old:
        found, unfinished = old.finished(before), old.unfinished(before)
        if dry_run:
            kept = old.all_backups() - {path for run in found for path in run.backups}
            return Pruned(found, kept_backups(old.path, before, kept), unfinished, dry=True)
        gone = [run for run in found if not ended() and old.forget(run.id, before)]
        backups = kept_backups(old.path, before, old.all_backups())
        size = sum(path.stat().st_size for path in backups if path.exists())
        for path in backups:
            path.unlink(missing_ok=True)
        if gone:
            size += old.give_back()
        return Pruned(gone, backups, unfinished, bytes=size)
