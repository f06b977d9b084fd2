"""What a server that says no, or nothing, means for the person who reads it; one line, and never the key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from agent.contract import ModelError

_KEY_IN_URL = re.compile(r"(api_key|service_secret)=[^&\s\"']+", re.IGNORECASE)
_LONGEST = 200
"""Characters of a server's own words that a message repeats."""


class CallFailed(ModelError):
    """A call to a server failed. `status` is HTTP's, 0 where there was no whole answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Key:
    """The API key, where it came from and how it travels; its text is in no `repr`."""

    value: str | None
    variable: str
    """The environment variable that has it, or ought to."""
    in_body: bool = False

    def __repr__(self) -> str:
        return f"Key({'set' if self.value else 'not set'})"

    def clean(self, text: str) -> str:
        """The text in one line, without the key: servers quote addresses with the key in them."""
        if self.value:
            text = text.replace(self.value, "***")
        text = _KEY_IN_URL.sub(r"\1=***", " ".join(text.split()))
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def words_of(content: Any) -> str:
    """A server's explanation, from the forms that inference servers, Roboflow's platform and gateways use."""
    if isinstance(content, str):
        return content
    if not isinstance(content, dict):
        return ""
    for name in ("message", "detail", "error"):
        found = content.get(name)
        text = words_of(found) if isinstance(found, dict) else found
        if text and isinstance(text, str):
            inner = content.get("inner_error_message")
            return f"{text} ({inner})" if isinstance(inner, str) and inner not in ("", "None", text) else text
        if isinstance(found, list) and found and isinstance(found[0], dict):
            # FastAPI's list of what is wrong with a request.
            place = ".".join(str(part) for part in found[0].get("loc", ()))
            return f"{place}: {found[0].get('msg', '')}"
    return ""


def meaning(status: int, host: str, key: Key, tried: int) -> str:
    """What an HTTP status of a server says, and what can be done about it."""
    times = f" after {tried} tries" if tried > 1 else ""
    if status in (401, 403):
        return f"{host} {_about_key(key)} ({status})"
    texts = {
        402: f"{host}: the workspace has no credits left (402)",
        404: f"{host} knows no such model, workflow or workspace (404)",
        413: f"{host}: the picture is too large for it (413); max_size or a lower quality makes it smaller",
        423: f"{host}: the workspace's use of the API is paused (423)",
        429: f"{host} wants fewer requests (429){times}; lower in_flight or requests_per_second",
    }
    if status in texts:
        return texts[status]
    if 300 <= status < 400:
        return f"{host} redirects to another address ({status}); give that one by url"
    if status >= 500:
        return f"{host} failed ({status}){times}"
    return f"{host} refuses the request ({status})"


def _about_key(key: Key) -> str:
    if not key.value:
        return f"wants an API key, and {key.variable} is not set"
    advice = "" if key.in_body else "; a server older than release 1.5.0 needs api_key_in = 'body'"
    return f"refuses the API key in {key.variable}{advice}"
