"""Whether the service can do its work now, and what keeps it from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agent.doors import Door, DoorHealth
from agent.errors import SidecarError
from agent.pool.pool import ModelPool

log = logging.getLogger(__name__)


def health_of(door: Door) -> DoorHealth:
    """How a door is; one that cannot say so is not well."""
    try:
        return door.health()
    except Exception:
        log.exception("the door %s does not tell how it is", door.name)
        return DoorHealth(False, "it does not tell how it is; see the log")


def obstacles(pool: ModelPool, doors: Sequence[Door], *, stopping: bool) -> list[str]:
    """What keeps the service from its work, a line each; none means that it is ready."""
    found = ["the service is stopping"] if stopping else []
    for door in doors:
        health = health_of(door)
        if not health.ok:
            found.append(f"door {door.name}: {health.text}")
    for record in pool.records():
        try:
            at_start = pool.settings(record.id).load == "start"
        except SidecarError:  # service.toml was read again meanwhile
            continue
        # One that was ready and has gone since comes back when it is used.
        if at_start and (record.status == "failed" or not record.loads):
            found.append(f"model {record.id}: {record.error or record.status}")
    return found
