"""What a run did: counted while it goes, printed as a table, written as JSON."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.labels.match import NO_SUCH_LABEL
from agent.labels.names import some

NAMED = 5
"""Dropped labels that are named; a vocabulary has hundreds."""
LABELS, REASONS = 30, 10
"""Lines of counts."""


@dataclass(slots=True)
class RunReport:
    """The figures of a run. Frames are counted once they need no more work; `annotations` by task label.

    `looked` is what was done to frames, `made` what is counted by label.
    """

    looked: str = "annotated"
    made: str = "annotations"
    total: int = 0
    done: int = 0
    annotations: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    """`task …, job …, frame …` -> why there is nothing for it."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Detections of model labels that have no place in the task."""
    dropped_why: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    """Detections that were left out, by reason."""
    seconds: Counter[str] = field(default_factory=Counter)
    """By stage. Stages overlap, so that they add up to more than the whole."""
    removed: int = 0
    dry: bool = False
    """Whether nothing was sent, and `removed` only would have been."""
    run: str | None = None
    status: str = "done"
    """done, interrupted or failed."""
    notes: list[str] = field(default_factory=list)
    whole: str = "--report"
    """The option that tells what lines leave out."""

    @classmethod
    def of_json(cls, values: Mapping[str, Any], whole: str) -> RunReport:
        """What `as_json` wrote; with less in it, where an older program did."""
        frames, dropped = values.get("frames", {}), values.get("dropped", {})
        return cls(
            total=frames.get("total", 0),
            done=frames.get("done", 0),
            annotations=Counter(values.get("annotations", {})),
            skipped=dict(frames.get("skipped", {})),
            dropped=Counter({name: told["count"] for name, told in dropped.items() if "count" in told}),
            dropped_why={name: told["why"] for name, told in dropped.items()},
            refused=Counter(values.get("refused", {})),
            seconds=Counter(values.get("seconds", {})),
            removed=values.get("removed", 0),
            run=values.get("run"),
            status=values.get("status", "done"),
            notes=list(values.get("notes", ())),
            whole=whole,
        )

    def note_stage(self, name: str, seconds: float) -> None:
        """Sets a stage's time where somebody else has measured it."""
        self.seconds[name] = seconds  # type: ignore[assignment]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time spent inside as a stage's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began  # type: ignore[assignment]

    def count(self, labels: Iterable[str]) -> None:
        """Counts a finished frame, whose annotations have these task labels."""
        self.done += 1
        self.annotations.update(labels)

    def skip(self, task: int, job: int, frame: int, reason: str) -> None:
        """Counts a frame for which there is nothing."""
        self.done += 1
        # With the job: ground truth jobs have frames that other jobs have too.
        self.skipped[f"task {task}, job {job}, frame {frame}"] = reason

    def as_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "run": self.run,
            "status": self.status,
            "dry_run": self.dry,
            "frames": {"total": self.total, "done": self.done, "skipped": dict(self.skipped)},
            "annotations": dict(self.annotations.most_common()),
            "dropped": {
                # Models may leave out what they are not asked for: a count is told only where there is one.
                name: {"why": why, **({"count": self.dropped[name]} if self.dropped[name] else {})}
                for name, why in sorted(self.dropped_why.items())
            },
            "refused": dict(self.refused.most_common()),
            "removed": self.removed,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "notes": list(self.notes),
        }

    def lines(self) -> Iterator[str]:
        """The table that a person reads at the end."""
        if self.dry:
            yield "dry run     nothing was sent to the server"
        looked = self.done - len(self.skipped)
        yield f"frames      {looked} of {self.total} {self.looked}, {len(self.skipped)} skipped"
        yield f"{self.made:<11} {self.annotations.total()}"
        yield from _rows(self.annotations.most_common(), LABELS, self.whole)
        if self.removed:
            what = "annotation" if self.removed == 1 else "annotations"
            yield f"replaced    {self.removed} earlier {what} {'would be ' if self.dry else ''}removed"
        if self.refused:
            yield f"left out    {self.refused.total()}"
            yield from _rows(self.refused.most_common(), REASONS, self.whole)
        if self.dropped_why:
            yield from self._dropped()
        for where, reason in list(self.skipped.items())[:10]:
            yield f"skipped     {where}: {reason}"
        if len(self.skipped) > 10:
            yield f"  … and {len(self.skipped) - 10} more (see {self.whole})"
        if self.seconds:
            yield "time        " + ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items())
        yield from self.notes

    def _dropped(self) -> Iterator[str]:
        """One line, whatever the number of labels; one more for each whose place is there, but does not fit."""
        names = sorted(self.dropped_why, key=lambda name: (-self.dropped[name], name))
        told = [f"{name} ({self.dropped[name]} seen)" if self.dropped[name] else name for name in names]
        what = "1 label" if len(names) == 1 else f"{len(names)} labels"
        more = f" (see {self.whole})" if len(told) > NAMED else ""
        yield f"dropped     {what} of the model without a place in the task: {some(told, NAMED)}{more}"
        odd = [name for name in names if self.dropped_why[name] != NO_SUCH_LABEL]
        for name in odd[:NAMED]:
            yield f"  {name}: {self.dropped_why[name]}"
        if len(odd) > NAMED:
            yield f"  … and {len(odd) - NAMED} more for a reason of their own (`cvat-sidecar labels match` tells)"


def _rows(rows: Sequence[tuple[str, int]], most: int, whole: str) -> Iterator[str]:
    """The largest counts come first; what is behind the `most` is one line."""
    shown, rest = rows[:most], rows[most:]
    width = max((len(name) for name, _ in shown), default=0)
    for name, count in shown:
        yield f"  {name:<{width}}  {count:>6}"
    if rest:
        yield f"  … and {len(rest)} more, {sum(count for _, count in rest)} together (see {whole})"
