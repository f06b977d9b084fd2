"""Who may call: addresses, and a secret. CVAT itself sends neither, so that both are the administrator's to arrange."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from agent.doors.gateway.call import Refused
from agent.settings.gateway import Network, networks
from agent.settings.service import is_loopback, secret
from agent.settings.tables import GatewaySettings

log = logging.getLogger(__name__)

HEADER = "x-sidecar-secret"


@dataclass(frozen=True, slots=True)
class Access:
    """The rules for callers."""

    networks: tuple[Network, ...] = ()
    secret: str | None = None

    @classmethod
    def of(cls, settings: GatewaySettings, place: str) -> Access:
        """The rules that service.toml says. ConfigError for an address that is none, or a secret that is not there."""
        made = cls(
            networks(settings.allow, f"{place}: allow"),
            secret(settings.secret_env, f"{place}: secret_env"),
        )
        if not is_loopback(settings.host) and not made.networks and made.secret is None:
            log.warning(
                "gateway: host %r lets everybody use the models who reaches it; set `allow` or `secret_env`",
                settings.host,
            )
        return made

    def admit(self, address: str | None, headers: Mapping[str, str], path: str) -> str:
        """The path, without the secret if that was its first part. Refused (403) for whoever may not call."""
        if self.networks and not self._is_near(address):
            raise Refused(f"the address {address} may not call", 403)
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            # A page of any site, in a browser that reaches us, could have our models work for it.
            raise Refused("a web page may not call", 403)
        if self.secret is None:
            return path
        first, slash, rest = path.removeprefix("/").partition("/")
        if _same(first, self.secret):  # also where a header shows it: what is said of a path must not have it
            return slash + rest or "/"
        if _same(headers.get(HEADER), self.secret) or _same(_password(headers.get("authorization")), self.secret):
            return path
        raise Refused(f"the secret is missing or wrong, allowed: {HEADER}, a password, or the path's first part", 403)

    def _is_near(self, address: str | None) -> bool:
        try:
            found = ipaddress.ip_address((address or "").partition("%")[0])
        except ValueError:
            return False
        # A socket for both versions tells IPv4 addresses in IPv6's clothes.
        plain = getattr(found, "ipv4_mapped", None) or found
        return any(plain.version == network.version and plain in network for network in self.networks)


def _password(header: str | None) -> str | None:
    """The password of a Basic authorization; clients send it where the dashboard's address is `any:SECRET@host`."""
    kind, _, value = (header or "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return None


def _same(got: str | None, expected: str) -> bool:
    return got is not None and hmac.compare_digest(got.encode(errors="replace"), expected.encode())
