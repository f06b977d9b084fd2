"""The server itself: whether it is a CVAT, of which version, and whether its clock is ours."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from importlib.metadata import version

from agent.cvat.failures import Failure
from agent.doctor.findings import Check, Finding, failed, ok, skipped, warning
from agent.doctor.network import CONNECTION, TLS
from agent.doctor.patient import Answer, Patient

CVAT = "server.cvat"
OLDEST = (2, 60)
"""Earlier servers tell interactors apart in another way; none was tried."""
SKEW = 30.0
"""Seconds between two clocks that are worth a warning."""


def checks() -> list[Check]:
    return [
        Check(CVAT, _cvat, needs=(CONNECTION, TLS), mend="look at the logs of CVAT and of the proxy before it"),
        Check("server.version", _version, needs=(CVAT,)),
        Check("server.clock", _clock, needs=(CVAT,)),
    ]


def _about(patient: Patient) -> Answer:
    return patient.ask_as_nobody("/api/server/about")


def _cvat(patient: Patient) -> Finding:
    url, answer = patient.url(), _about(patient)
    if 300 <= answer.status < 400:
        where = Failure.of_status(answer.status, answer.headers, b"")
        return failed(f"{url}: {where}", "name the address that it redirects to as [cvat] host")
    if answer.status in (502, 503, 504):
        text = f"the proxy at {url} answers {answer.status}, because CVAT behind it does not"
        return failed(text, "start cvat_server, and look at its log; it takes a minute to come up")
    if answer.status == 400:
        mend = "name the server as its users do; CVAT's ALLOWED_HOSTS has to allow that name"
        return failed(f"{url} answers 400 to everything: it does not want to be called by this name", mend)
    if (told := _told(answer)) is None:
        mend = "put right [cvat] host and port: the address that people open in their browser"
        return failed(f"{url} answers (status {answer.status}), and it is not CVAT", mend)
    return ok(f"{url} is CVAT {told}")


def _told(answer: Answer) -> str | None:
    """The version that a CVAT says; None where it is none."""
    try:
        told = json.loads(answer.content)
        return str(told["version"]) if answer.status == 200 else None
    except (ValueError, KeyError, TypeError):
        return None


def _version(patient: Patient) -> Finding:
    server, sdk = _told(_about(patient)) or "", version("cvat-sdk")
    theirs, ours = _numbers(server), _numbers(sdk)
    if theirs is None or ours is None:
        return skipped(f"{server!r} cannot be compared with cvat-sdk {sdk}")
    if theirs < OLDEST:
        mend = "update CVAT; what is older was not tried"
        return warning(f"CVAT {server} is older than {OLDEST[0]}.{OLDEST[1]}", mend)
    if theirs > ours:
        return warning(f"CVAT {server} is newer than cvat-sdk {sdk}", "update cvat-sidecar, and cvat-sdk with it")
    return ok(f"CVAT {server}, cvat-sdk {sdk}")


def _numbers(text: str) -> tuple[int, int] | None:
    try:
        major, minor = text.split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        return None


def _clock(patient: Patient) -> Finding:
    """The Date header; rules, tokens and tracking states all compare times of both machines."""
    before = time.time()
    date = _about(patient).headers.get("Date")
    now = (before + time.time()) / 2
    try:
        skew = parsedate_to_datetime(date or "").timestamp() - now
    except ValueError:
        return skipped("the server does not say what time it is")
    if abs(skew) > SKEW:
        ahead = "ahead of" if skew > 0 else "behind"
        mend = "run a time service (chrony, systemd-timesyncd) on both machines"
        return warning(f"the server's clock is {abs(skew):.0f} s {ahead} ours", mend)
    return ok("the server's clock is ours")
