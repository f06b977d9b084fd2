"""The annotations of a job, as CVAT's JSON has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.cvat.session import Session

Annotations = Mapping[str, Any]

AT_ONCE = 500
"""Tags and shapes in a call; and of tracks, so many that they have this many keyframes."""


def get_annotations(session: Session, job: int) -> dict[str, Any]:
    """All tags, shapes and tracks of a job."""
    found: dict[str, Any] = session.request("GET", f"/api/jobs/{job}/annotations").json()
    return found


def alike(one: Annotations, other: Annotations) -> bool:
    """Whether two annotations say the same; the server gives the attributes of tracks in no order of their own."""
    return _in_order(one) == _in_order(other)


def unchanged(before: Sequence[Annotations], now: Sequence[Annotations]) -> set[int]:
    """The ids of what is still as it was."""
    fresh = {item["id"]: item for item in now}
    return {item["id"] for item in before if item["id"] in fresh and alike(fresh[item["id"]], item)}


def _in_order(item: Annotations) -> dict[str, Any]:
    inner = {part: [_in_order(one) for one in item[part]] for part in ("shapes", "elements") if part in item}
    return {**item, **inner, "attributes": sorted(item.get("attributes", ()), key=lambda one: int(one["spec_id"]))}


def portions(items: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many tags, shapes or tracks at once as the server takes in good time."""
    some: list[dict[str, Any]] = []
    weight = 0
    for item in items:
        own = sum(len(part.get("shapes", ())) for part in (item, *item.get("elements", ()))) or 1
        if some and weight + own > AT_ONCE:
            yield some
            some, weight = [], 0
        some.append(item)
        weight += own
    if some:
        yield some


def create(session: Session, job: int, data: Annotations) -> dict[str, Any]:
    """Adds annotations to a job; answers with them and their ids. Not repeatable."""
    return _patch(session, job, "create", data, repeatable=False)


def update(session: Session, job: int, data: Annotations) -> None:
    """Changes annotations, given in full with their ids."""
    _patch(session, job, "update", data, repeatable=True)


def delete(session: Session, job: int, data: Annotations) -> None:
    """Removes annotations, given in full as `get_annotations` gave them. Those that are gone do not matter."""
    _patch(session, job, "delete", data, repeatable=True)


def _patch(session: Session, job: int, action: str, data: Annotations, *, repeatable: bool) -> dict[str, Any]:
    body = {"version": 0, "tags": [], "shapes": [], "tracks": [], **data}
    path = f"/api/jobs/{job}/annotations"
    reply = session.request("PATCH", path, query={"action": action}, body=body, repeatable=repeatable)
    found: dict[str, Any] = reply.json()
    return found
