"""Jobs as rules see them: listed by what the server can filter by, looked at one by one, and their state set.

Only the jobs' own endpoints: an assignee who is nothing else needs no others.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from agent.cvat.session import Session
from agent.errors import ServerRefused

Filter: TypeAlias = Mapping[str, Any]
"""A condition in JsonLogic, as far as CVAT's lists know it."""

PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the server tells of it at one moment."""

    id: int
    task_id: int
    task_name: str | None
    """None where this user may see the job only."""
    project_id: int | None
    assignee: str | None
    """A user's name."""
    state: str
    stage: str
    type: str
    """annotation, ground_truth or consensus_replica."""
    media: str
    """image, video, or something that has no pictures."""
    first_frame: int | None
    """None while its task has no data."""
    updated: str
    """When it was last changed, as the server writes times."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Job:
        return cls(
            id=row["id"],
            task_id=row["task_id"],
            task_name=row.get("task_name"),
            project_id=row.get("project_id"),
            assignee=(row.get("assignee") or {}).get("username"),
            state=row["state"],
            stage=row["stage"],
            type=row.get("type") or "annotation",
            media=_media(row),
            first_frame=row.get("start_frame"),
            updated=str(row.get("updated_date") or ""),
        )


def list_jobs(session: Session, conditions: Sequence[Filter], stop: threading.Event | None = None) -> Iterator[Job]:
    """The jobs that this user may see and for which all conditions hold, the oldest first.

    A job that ceases to match while pages are turned may hide another one until the next time. Whoever lists has a
    rhythm of its own: a server that does not answer is not asked again here.
    """
    query = {"sort": "id", "page_size": PAGE_SIZE, "filter": json.dumps({"and": list(conditions)})}
    if not conditions:
        del query["filter"]
    page = 1
    while True:
        found = session.request("GET", "/api/jobs", query={**query, "page": page}, stop=stop, retries=0).json()
        yield from map(Job.of, found["results"])
        if not found.get("next"):
            return
        page += 1


def get_job(session: Session, job: int, stop: threading.Event | None = None, *, patience: float | None = None) -> Job:
    """A job by its id. With `patience` it is asked for once, and the server may be silent for so many seconds."""
    retries = None if patience is None else 0
    return Job.of(session.request("GET", f"/api/jobs/{job}", stop=stop, retries=retries, timeout=patience).json())


def find_job(
    session: Session, job: int, stop: threading.Event | None = None, *, patience: float | None = None
) -> Job | None:
    """A job by its id, as `get_job`; None where there is none, or none any more that this user may see."""
    try:
        return get_job(session, job, stop, patience=patience)
    except ServerRefused as error:
        if error.status == 403 or says_gone(error):
            return None
        raise


def is_gone(session: Session, job: int, stop: threading.Event | None = None) -> bool:
    """Whether there is no job of this id any more; one that this user may not see is there."""
    try:
        get_job(session, job, stop)
    except ServerRefused as error:
        return says_gone(error)
    return False


def says_gone(error: ServerRefused) -> bool:
    """Whether a refusal means that there is no such job."""
    # A proxy says so too, while the server behind it is away.
    return error.status == 404 and error.by_api


def set_state(session: Session, job: int, state: str, *, once_within: float | None = None) -> Job:
    """Sets a job's state (new, in progress, rejected, completed); the job as it is then.

    With `once_within` it is tried once, and the server may be silent for so many seconds.
    """
    retries = None if once_within is None else 0
    reply = session.request(
        "PATCH", f"/api/jobs/{job}", body={"state": state}, repeatable=True, retries=retries, timeout=once_within
    )
    return Job.of(reply.json())


def _media(row: Mapping[str, Any]) -> str:
    if row.get("dimension") == "3d":
        return "3D"
    # Servers before audio tasks came do not tell the media type; those after call videos images, too.
    if (said := row.get("media_type")) not in (None, "", "image", "video"):
        return str(said)
    return {"interpolation": "video", "annotation": "image"}.get(row.get("mode") or "", "")
