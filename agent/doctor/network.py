"""The way to the server: its name, a connection, TLS. Nothing is asked of CVAT yet."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.doctor.configuration import FILE
from agent.doctor.findings import Check, Finding, failed, ok, skipped, warning
from agent.doctor.patient import Patient

NAME, CONNECTION, TLS = "server.name", "server.connection", "server.tls"
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
DAYS = 14
"""A certificate that ends earlier is worth a warning."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server is."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, patient: Patient) -> Place:
        parts = urlsplit(patient.url())
        return cls(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def checks() -> list[Check]:
    address = "put right [cvat] host and port"
    return [
        Check(NAME, _name, needs=(FILE,), mend=f"{address}, or the name server of this machine"),
        Check("server.proxy", _proxy, needs=(FILE,)),
        Check(CONNECTION, _connection, needs=(NAME,), mend=address),
        Check(TLS, _tls, needs=(CONNECTION,)),
    ]


def _name(patient: Patient) -> Finding:
    place = Place.of(patient)
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except OSError as error:
        mend = "put right [cvat] host, or the name server of this machine; in a container, join CVAT's network"
        return failed(f"the name {place.host!r} is unknown here ({error.strerror or error})", mend)
    addresses = sorted({str(entry[4][0]) for entry in found})
    if "_" in place.host:
        # Django holds the Host header to RFC 1035.
        mend = "CVAT's compose file gives the server the alias cvat-server: name that"
        return warning(f"{place.host!r} has an underscore, with which CVAT refuses calls", mend)
    return ok(f"{place.host} is {', '.join(addresses[:4])}")


def _proxy(patient: Patient) -> Finding:
    """Proxies of the environment: the connection to CVAT does not use them, those for weights do."""
    named = sorted({name.lower() for name in os.environ if name.lower() in PROXIES and os.environ[name]})
    if not named:
        return ok("the environment names no proxy")
    return ok(f"{', '.join(named)} set: for downloads of weights; CVAT is called without a proxy")


def _connection(patient: Patient) -> Finding:
    place = Place.of(patient)
    try:
        socket.create_connection((place.host, place.port), patient.seconds).close()
    except OSError as error:
        timed_out = isinstance(error, TimeoutError)
        why = "no answer; a firewall, or a wrong address" if timed_out else error.strerror or str(error)
        return failed(f"no connection to {place}: {why}", _way_there(place))
    return ok(f"{place} accepts connections")


def _way_there(place: Place) -> str:
    if _is_this_machine(place.host) and in_container():
        return f"in a container {place.host} is the container itself: name CVAT's service, http://cvat-server:8080"
    if any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return "is it reachable only through the proxy that the environment names? CVAT is called without one"
    return "is CVAT running? are [cvat] host and port right?"


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def in_container() -> bool:
    """Whether this process is in Docker, Podman or Kubernetes."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) or any(
        Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")
    )


# ------------------------------------------------------------------------- TLS


def _tls(patient: Patient) -> Finding:
    place, settings = Place.of(patient), patient.config.server
    if place.scheme == "http":
        if _is_public(place):
            mend = "put TLS before CVAT, and name it with https://"
            return warning(f"{place} is on the internet and speaks http: the token can be read on the way", mend)
        return skipped("http, there is no TLS")
    context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    if not settings.verify_ssl:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((place.host, place.port), patient.seconds) as raw,
            closing(context.wrap_socket(raw, server_hostname=place.host)) as wrapped,
        ):
            return _certificate(wrapped.getpeercert() or {}, wrapped.version() or "TLS", settings.verify_ssl)
    except ssl.SSLCertVerificationError as error:
        return _not_accepted(error, place)
    except (ssl.SSLError, OSError) as error:
        mend = "does it speak plain http there? then name it with http://; or the port is another one"
        return failed(f"{place} does not speak TLS: {getattr(error, 'reason', None) or error}", mend)


def _not_accepted(error: ssl.SSLCertVerificationError, place: Place) -> Finding:
    said = error.verify_message
    if "expired" in said:
        return failed(f"the certificate of {place} is out of date", "renew it on the server")
    if "mismatch" in said.lower() or "not valid for" in said.lower():
        return failed(f"the certificate is not for {place.host}: {said}", "name the server as its certificate does")
    mend = "give the authority's certificate as [cvat] ca_file"
    return failed(f"the certificate of {place} is not accepted: {said}", mend)


def _certificate(told: dict[str, Any], version: str, verified: bool) -> Finding:
    if not verified:
        return warning(f"{version}, and nobody looks at the certificate", "set [cvat] ca_file instead of verify_ssl")
    days = (ssl.cert_time_to_seconds(told["notAfter"]) - time.time()) / 86400
    if days < DAYS:
        return warning(f"the certificate ends in {days:.0f} days", "renew it on the server")
    return ok(f"{version}, the certificate is good for {days:.0f} days")


def _is_public(place: Place) -> bool:
    try:
        return any(ipaddress.ip_address(entry[4][0]).is_global for entry in socket.getaddrinfo(place.host, place.port))
    except (OSError, ValueError):
        return False
