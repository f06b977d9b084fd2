"""When rules rest: quiet hours of the day, and the pauses after something went wrong."""

from __future__ import annotations

from datetime import datetime

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 6 * 3600.0
"""Seconds: a failed job is tried again after one minute, then after twice as long each time, up to six hours."""


def is_quiet(hours: tuple[str, str] | None, now: datetime) -> bool:
    """Whether no run may begin at `now`, whose time zone counts; hours like 22:00 to 06:00 reach over midnight.

    The first minute of the quiet hours belongs to them, the last one does not.
    """
    if hours is None:
        return False
    begin, end = hours
    time = f"{now:%H:%M}"
    return begin <= time < end if begin < end else (time >= begin or time < end)


def pause_after(tries: int, jitter: float, *, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> float:
    """Seconds until the next try after so many that failed; `jitter` is a random number from 0 to 1."""
    return float(min(first * 2.0 ** min(max(tries, 1) - 1, 30), longest) * (0.75 + 0.5 * jitter))
