"""Issues on jobs, which people read beside the picture: left, found again, resolved, taken away."""

from __future__ import annotations

from dataclasses import dataclass

from agent.cvat.session import Session
from agent.cvat.work import pages
from agent.errors import ServerRefused

PLACE = (0.0, 0.0, 1.0, 1.0)
"""Every issue has a place in a picture; ours are about the whole job, and stay in a corner."""


@dataclass(frozen=True, slots=True)
class Comment:
    """The first or a later message of an issue."""

    id: int
    issue: int
    message: str
    created: str


def leave_issue(
    session: Session, job: int, frame: int, message: str, *, timeout: float | None = None
) -> int:  # not repeated: an issue is seen by people, and two of them are one too many
    """The id of a new issue on a frame of a job."""
    body = {"job": job, "frame": frame, "position": list(PLACE), "message": message}
    return int(session.request("POST", "/api/issues", body=body, timeout=timeout).json()["id"])


def comments_on(session: Session, job: int) -> list[Comment]:
    """What has been said on a job, in the order in which the server got it."""
    rows = pages(session, "/api/comments", {"job_id": job, "sort": "id"})
    found = [Comment(row["id"], row["issue"], row["message"], row["created_date"]) for row in rows]
    return sorted(found, key=lambda comment: comment.id)


def resolve_issue(session: Session, issue: int) -> None:
    """Marks an issue as dealt with; one that somebody has removed does not matter."""
    _unless_gone(session, "PATCH", issue, {"resolved": True})


def remove_issue(session: Session, issue: int) -> None:
    """Takes an issue away; one that is gone already does not matter."""
    _unless_gone(session, "DELETE", issue, None)


def _unless_gone(session: Session, method: str, issue: int, body: object) -> None:
    try:
        session.request(method, f"/api/issues/{issue}", body=body, repeatable=True)
    except ServerRefused as error:
        if error.status != 404:
            raise
