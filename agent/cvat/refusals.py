"""One line for a person out of every form in which CVAT says no: four shapes of JSON, HTML, or nothing."""

from __future__ import annotations

import json
import re
from typing import Any

HINTS = {
    401: "the token or password is not accepted",
    403: "this user may not do that (of a task of others, an assignee may use the job only: --job)",
    404: "there is no such thing, or this user may not see it (is it the right --organization, or that of [cvat]?)",
    406: "this is not how a CVAT server answers: is it a CVAT server?",
    413: "too large for the server or the proxy before it",
    502: "the proxy cannot reach CVAT",
    504: "the proxy gave up waiting for CVAT",
}
LONGEST = 300


def refusal(status: int, content_type: str, content: bytes) -> str:
    """`status: what the server said; what it means`."""
    said = _said(content_type, content)
    hint = HINTS.get(status)
    if hint:
        said = said.rstrip(".")
    parts = [part for part in (said, hint) if part]
    return f"status {status}" + (f": {'; '.join(parts)}" if parts else "")


def _said(content_type: str, content: bytes) -> str:
    text = content.decode("utf-8", errors="replace")
    if "json" in content_type:
        try:
            return _short(_flat(json.loads(text)))
        except ValueError:
            return ""
    if "html" in content_type or text.lstrip().startswith("<"):
        # A page for people; only its title says something.
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return _short(title[1]) if title else ""
    return _short(text)


def _flat(value: Any) -> str:
    """`{"detail": …}`, `{"field": […]}`, `["text"]` and bare strings, nested as they come, in one line."""
    if isinstance(value, dict):
        if set(value) == {"detail"}:
            return _flat(value["detail"])
        told = {name: _flat(inner) for name, inner in value.items() if inner not in ({}, [], "")}
        # The name that the server gives to what concerns no field means nothing to a person.
        return ", ".join(text if name == "non_field_errors" else f"{name}: {text}" for name, text in told.items())
    if isinstance(value, list):
        return ", ".join(_flat(inner) for inner in value if inner not in ({}, [], ""))
    return str(value)


def _short(text: str) -> str:
    line = " ".join(text.split())
    # Some messages carry the server's own paths; they help nobody here.
    line = re.sub(r"(?<![\w:/.])/(?:[\w.@-]+/)+[\w.@-]*", "…", line)
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
