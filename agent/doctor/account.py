"""Who we are on the server, and what we may see and do there. Nothing is written to find out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agent.cvat.session import Session
from agent.cvat.work import pages
from agent.doctor.configuration import LOGIN as CONFIGURED
from agent.doctor.findings import Check, Finding, counted, failed, ok, skipped, warning
from agent.doctor.patient import Patient
from agent.doctor.server import CVAT
from agent.errors import ServerRefused

LOGIN, ORGANIZATION, SIGHT = "server.login", "server.organization", "server.sight"
DAYS = 14


def checks() -> list[Check]:
    return [
        Check(LOGIN, _login, needs=(CVAT, CONFIGURED)),
        Check("server.rights", _rights, needs=(LOGIN,)),
        Check(ORGANIZATION, _organization, needs=(LOGIN,)),
        Check(SIGHT, _sight, needs=(ORGANIZATION,)),
    ]


def _anywhere(patient: Patient) -> Session:
    """A session outside of any organization: one that does not exist spoils every call."""
    return Session(replace(patient.server, organization=None))


def _login(patient: Patient) -> Finding:
    settings = patient.config.server
    try:
        with _anywhere(patient) as session:
            told = session.request("GET", "/api/users/self").json()
    except ServerRefused as error:
        if error.status not in (400, 401, 403):
            raise
        if settings.user:
            place = f" ({settings.secret_from})" if settings.secret_from else ""
            mend = f"put right the password of {settings.user}{place}; can this user log in with a browser?"
            return failed("the server does not accept the user and password", mend)
        place = settings.secret_from or "token_env or token_file"
        mend = f"make a personal access token on CVAT's profile page, and put it where {place} says"
        return failed("the server does not accept the token", mend)
    patient.username = str(told["username"])
    kind = "an administrator" if told.get("is_superuser") else "an ordinary user"
    return ok(f"we are {patient.username}, {kind}")


def _rights(patient: Patient) -> Finding:
    """Whether the token may write. Only a personal access token can be read-only, and tells so itself."""
    settings = patient.config.server
    if settings.user:
        return ok("a login by password may do whatever its user may")
    with _anywhere(patient) as session:
        try:
            token = session.request("GET", "/api/auth/access_tokens/self").json()
        except ServerRefused:
            return skipped("this server does not tell what a token may do, and nothing was written to find out")
    if token.get("read_only"):
        mend = "make another personal access token on CVAT's profile page, without `read-only`"
        if patient.writes:
            return failed("the token may only read, and annotations are to be written", mend)
        return warning("the token may only read: good for the gateway, not for annotate, rules and the queue", mend)
    return _lifetime(token)


def _lifetime(token: dict[str, Any]) -> Finding:
    if not (until := token.get("expiry_date")):
        return ok("the token may write, and does not expire")
    days = (datetime.fromisoformat(until) - datetime.now(UTC)).total_seconds() / 86400
    if days < DAYS:
        left = f"in {counted(int(days), 'day')}" if days >= 1 else f"within a day, at {until}"
        return warning(f"the token ends {left}", "make another on CVAT's profile page")
    return ok(f"the token may write, for {days:.0f} days")


def _organization(patient: Patient) -> Finding:
    slug = patient.config.server.organization
    if slug is None:
        return ok("none is named: everything that this user may see")
    if not slug:
        return ok("the personal workspace")
    with _anywhere(patient) as session:
        known = [str(row["slug"]) for row in pages(session, "/api/organizations", {})]
    if slug in known:
        return ok(f"{slug}: this user is in it")
    near = f"allowed: {', '.join(known[:8])}" if known else "this user is in none"
    mend = f"put right [cvat] organization, or have {patient.username} invited"
    return failed(f"{slug!r} does not exist for {patient.username}; {near}", mend)


def _sight(patient: Patient) -> Finding:
    counts = {kind: patient.count(f"/api/{kind}s") for kind in ("project", "task", "job")}
    text = ", ".join(counted(number, kind) for kind, number in counts.items())
    if not counts["job"]:
        mend = f"assign jobs to {patient.username}, or make this user a member of the organization of the tasks"
        return warning(f"this user sees {text}", mend)
    return ok(f"this user sees {text}")
