"""CVAT's serial loop: which frames a running request asks for, in which order, and where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.cvat.chunks import BadFrame
from agent.cvat.session import Session
from agent.cvat.work import JobWork, find_work
from agent.domain import Frame
from agent.doors.gateway.payload import Picture, pixels_digest
from agent.options import Target

SEARCHED = 16
"""Frames before and behind the percent of the progress among which a call's picture must be: calls go on meanwhile."""

Row = Mapping[str, Any]
"""A request as the server lists it."""


@dataclass(frozen=True, slots=True)
class Loop:
    """The frames that a request asks for."""

    wanted: list[tuple[JobWork, int]]
    begin: int
    """Where it is at least."""
    end: int
    """Where it is at most."""


def loop_of(session: Session, row: Row) -> Loop:
    """The loop of a running request. RequestError or ServerError where this user may not see its task.

    Not every server tells that a request is for one job only; its progress, once there is one, tells where that is.
    """
    told, progress = row["function"], row.get("progress") or 0
    target = Target("job", told["job"]) if told.get("job") else Target("task", told["task"])
    (work,) = find_work(session, target, honeypots=True)
    wanted = [(job, frame) for job in work.jobs for frame in job.frames]
    if target.kind == "job":
        # Progress is that of the whole task, whose size we may not know.
        return Loop(wanted, 0, len(wanted))
    size = max(job.stop for job in work.jobs) + 1
    reached = progress * size / 100 - 1 - SEARCHED
    begin = next((place for place, (_, frame) in enumerate(wanted) if frame >= reached), 0)
    return Loop(wanted, begin, begin + size // 100 + 2 * SEARCHED)


@dataclass(frozen=True, slots=True)
class Found:
    """Where a call's picture is in the loop."""

    place: int
    by_pixels: bool
    """Whether it is known by its pixels only: frames of a video are encoded anew for each call."""


def find_picture(
    frames: Iterator[tuple[int, Frame | BadFrame]], picture: Picture, end: int, stopped: Callable[[], bool]
) -> Found | None:
    """Where the picture is, None where it is none of the frames before `end`."""
    for place, frame in frames:
        if stopped() or place >= end:
            return None
        if isinstance(frame, BadFrame):
            continue
        if frame.digest == picture.digest:
            return Found(place, by_pixels=False)
        if frame.image.shape == picture.frame.image.shape and pixels_digest(frame) == picture.pixels:
            return Found(place, by_pixels=True)
    return None
