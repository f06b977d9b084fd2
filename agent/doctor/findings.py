"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from agent.doctor.patient import Patient

State = Literal["ok", "warning", "failed", "skipped"]
STATES: tuple[State, ...] = ("failed", "warning", "ok", "skipped")
"""The most important first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found."""

    state: State
    text: str
    """What is so."""
    mend: str = ""
    """What to do about it."""
    blocks: bool = False
    """Whether checks that need this one make no sense now."""
    more: tuple[Finding, ...] = ()
    """What the same check has found besides; each is told in a line of its own."""


def ok(text: str) -> Finding:
    return Finding("ok", text)


def warning(text: str, mend: str) -> Finding:
    """It works, or may work; somebody should know."""
    return Finding("warning", text, mend)


def failed(text: str, mend: str) -> Finding:
    """It does not work."""
    return Finding("failed", text, mend, blocks=True)


def all_failed(texts: Sequence[str], mend: Callable[[str], str]) -> Finding:
    """One or more things do not work; `mend` says of each what to do about it."""
    first, *more = (failed(text, mend(text)) for text in texts)
    return replace(first, more=tuple(more))


def skipped(text: str, *, blocks: bool = False) -> Finding:
    """It was not looked at, and why. `blocks`: nor can what needs it."""
    return Finding("skipped", text, blocks=blocks)


def counted(number: int, what: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at."""

    name: str
    """`server.login`; of several things of a kind, with which of them: `models.files yolo`."""
    look: Callable[[Patient], Finding]
    needs: tuple[str, ...] = ()
    """Names of checks without which this one makes no sense."""
    mend: str = ""
    """What to do where the check itself raises an error, or does not come back."""
    seconds: float | None = None
    """How long it may take. None: a few times what one call may."""


@dataclass(frozen=True, slots=True)
class Line:
    """A finding, with the name of its check."""

    check: str
    finding: Finding
    seconds: float

    def __str__(self) -> str:
        found = self.finding
        mend = f" -> {found.mend}" if found.mend else ""
        return f"{found.state:<7}  {self.check}: {found.text}{mend}"
