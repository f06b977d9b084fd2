"""Who may see the status page and press its buttons.

Three dangers: others on the network (a password), other sites open in the same browser (they can send a form here, but
know neither the token nor the origin), and names that an attacker points to this machine (the list of hosts).
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer. No script but our own file runs, whatever a label or an error says."""


@dataclass(slots=True)
class Guard:
    """What is asked of callers; replaced when service.toml is read again, but for the token."""

    password: str | None
    hosts: Iterable[str] = ()
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Of this process; our own forms carry it."""

    def knows_host(self, host: str) -> bool:
        """Whether a browser may have come by this name: an address, this machine, or one that service.toml names."""
        name = _name_of(host)
        if name is None:
            return False
        try:
            # Whoever comes by an address has not been led here by a name.
            ipaddress.ip_address(name)
        except ValueError:
            return name == "localhost" or name.endswith(".localhost") or name in {known.lower() for known in self.hosts}
        return True

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Whether the caller shows the password, as Basic (any user) or as Bearer; everybody where there is none."""
        if self.password is None:
            return True
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return _same(shown.strip(), self.password)
        if kind.lower() != "basic":
            return False
        try:
            _, colon, word = base64.b64decode(shown.strip(), validate=True).decode().partition(":")
        except ValueError:
            return False
        return bool(colon) and _same(word, self.password)

    def refuses(self, headers: Mapping[str, str], token: str) -> str | None:
        """Why a request that changes something is not done; None where it may be."""
        site = headers.get("sec-fetch-site")
        if site is not None and site != "same-origin":
            return f"got a request of another site ({site}), allowed: the status page's own"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            return "got a request from another origin, allowed: the status page's own"
        if not _same(token, self.token):
            return "got no valid token, allowed: the status page's own; load it again (the service may have restarted)"
        return None


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _name_of(host: str) -> str | None:
    """The name or address in a Host header, None for nonsense."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return None
    if not parts.hostname or parts.netloc != host or "@" in host:
        return None
    return parts.hostname.lower().removesuffix(".")
