"""Webhooks of CVAT: told from forgeries by their signature, and read for what they may be about.

Events come half-empty while a task is being made, and again when something else changes. So they never decide anything;
they only say that it is worth looking now.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGEST = 1 << 20
"""Bytes of an event; CVAT's are a few thousand."""
SIGNATURE = "x-signature-256"
BRING_WORK = ("create:job", "update:job", "create:task", "update:task", "update:project")
"""Those that can bring work to a rule: a task's or a project's can be about many jobs, by their labels for example."""
TAKE_WORK = ("update:job", "delete:job", "update:task", "delete:task", "update:project", "delete:project")
"""Those that can mean that a job at work is not ours any more. Others are taken without a word."""


@dataclass(frozen=True, slots=True)
class Event:
    """What an event tells. None: it does not."""

    name: str
    project: int | None = None
    task: int | None = None
    job: int | None = None

    @property
    def may_bring_work(self) -> bool:
        return self.name in BRING_WORK

    @property
    def may_take_work(self) -> bool:
        return self.name in TAKE_WORK

    @property
    def may_change_labels(self) -> bool:
        return self.name in ("update:task", "update:project")


class Refused(Exception):
    """An event that is not taken, by HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def read_event(body: bytes, headers: Mapping[str, str], secret: str | None) -> Event:
    """The event in a webhook's delivery. Refused where it is not one, or not signed with the secret."""
    if secret is None:
        raise Refused(404, "no webhook is received here: [watch] webhook_secret_env is not set")
    if len(body) > LARGEST:
        raise Refused(413, f"the event has {len(body)} bytes, allowed: {LARGEST}")
    given = next((value for name, value in headers.items() if name.lower() == SIGNATURE), None)
    if given is None:
        raise Refused(401, "the event is not signed: give the webhook the secret that service.toml names")
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(given.strip().lower().encode(errors="replace"), expected.encode()):
        raise Refused(403, "the event's signature is wrong: is it the same secret?")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the event is no JSON") from error
    if not isinstance(said, dict) or not isinstance(said.get("event"), str):
        raise Refused(400, "the event does not say what it is")
    return _event(said)


def _event(said: Mapping[str, Any]) -> Event:
    name = said["event"]
    kind = name.partition(":")[2]
    about = said.get(kind)
    row: Mapping[str, Any] = about if isinstance(about, dict) else {}
    if kind == "job":
        return Event(name, _number(row, "project_id"), _number(row, "task_id"), _number(row, "id"))
    if kind == "task":
        return Event(name, _number(row, "project_id"), _number(row, "id"))
    if kind == "project":
        return Event(name, _number(row, "id"))
    return Event(name)


def _number(row: Mapping[str, Any], key: str) -> int | None:
    value = row.get(key)
    return value if type(value) is int else None
