"""Our own ports: free, held by our own service, or taken by somebody else."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from agent.doctor.configuration import FILE
from agent.doctor.findings import Check, Finding, failed, ok, skipped, warning
from agent.doctor.patient import Patient
from agent.settings.tables import Config

STATUS, GATEWAY = "ports.status", "ports.gateway"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def checks(config: Config) -> list[Check]:
    found = [Check(STATUS, _status, needs=(FILE,))]
    if config.gateway is not None:
        found.append(Check(GATEWAY, _gateway, needs=(FILE,)))
        if config.gateway.direct_ports is not None:
            found.append(Check("ports.direct", _direct, needs=(GATEWAY,)))
    return found


def _status(patient: Patient) -> Finding:
    settings = patient.config.service
    if settings.port == 0:
        return ok("service.port = 0: any that is free")
    problem = _taken(settings.host, settings.port)
    if problem is None:
        return ok(f"{settings.port} is free; the service does not run here now")
    if problem.errno == errno.EADDRINUSE:
        password = os.environ.get(settings.secret_env) if settings.secret_env else None
        headers = {"Authorization": f"Bearer {password}"} if password else {}
        told = _get(_near(settings.host, settings.port) + "/readyz", headers, patient.seconds)
        if isinstance(told, dict) and isinstance(told.get("ready"), bool):
            return _running(told, settings.port)
    return _cannot(settings.host, settings.port, problem, "service.port")


def _running(told: dict[str, Any], port: int) -> Finding:
    if told["ready"]:
        return ok(f"{port} is held by our own service, which is ready")
    reasons = "; ".join(map(str, told.get("reasons", ()))) or "its log says why"
    return warning(f"our own service runs at {port}, and is not ready: {reasons}", "see the other lines, and its log")


def _gateway(patient: Patient) -> Finding:
    """Asks our own gateway what it shows to CVAT; whether CVAT sees the same is asked elsewhere."""
    settings = patient.config.gateway
    if settings is None or settings.port == 0:
        return skipped("gateway.port = 0: CVAT has to know the port beforehand", blocks=True)
    problem = _taken(settings.host, settings.port)
    if problem is None:
        return ok(f"{settings.port} is free; the service does not run here now")
    if problem.errno != errno.EADDRINUSE:
        return _cannot(settings.host, settings.port, problem, "gateway.port")
    word = os.environ.get(settings.secret_env) if settings.secret_env else None
    headers = {"X-Sidecar-Secret": word} if word else {}
    told = _get(_near(settings.host, settings.port) + "/api/functions", headers, patient.seconds)
    if isinstance(told, dict) and all(isinstance(f, dict) and "metadata" in f for f in told.values()):
        patient.own_functions = told
        missing = [m.id for m in patient.config.models if "gateway" in m.doors and m.id not in told]
        if missing:
            text = f"{settings.port} is held by our own gateway, which does not show {', '.join(missing)}"
            return warning(text, "wait until they are loaded; if that fails, the service's log says why")
        return ok(f"{settings.port} is held by our own gateway, which shows {', '.join(told) or 'no functions'}")
    if isinstance(told, dict) and "message" in told:
        mend = "add 127.0.0.1 to gateway.allow, for this check" if settings.allow else "restart the service"
        return warning(f"a gateway holds {settings.port}, and does not let us ask: {told['message']}", mend)
    return _cannot(settings.host, settings.port, problem, "gateway.port")


def _direct(patient: Patient) -> Finding:
    settings = patient.config.gateway
    if settings is None or settings.direct_ports is None:
        return skipped("there are none")
    numbers = [settings.direct_ports + at for at, model in enumerate(patient.config.models) if "gateway" in model.doors]
    for port in numbers:
        problem = _taken(settings.host, port)
        if problem is None and patient.own_functions is not None:
            return failed(f"our gateway runs, and {port} is free", "restart the service: it has other settings")
        if problem is not None and patient.own_functions is None:
            return _cannot(settings.host, port, problem, "gateway.direct_ports")
    state = "free" if patient.own_functions is None else "held by our own gateway"
    return ok(f"{', '.join(map(str, numbers))} {'is' if len(numbers) == 1 else 'are'} {state}")


# ---------------------------------------------------------------------- details


def _taken(host: str, port: int) -> OSError | None:
    """Why nothing could listen there; None where it could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(1)
    except OSError as error:
        return error
    return None


def _cannot(host: str, port: int, problem: OSError, key: str) -> Finding:
    table = key.partition(".")[0]
    if problem.errno == errno.EADDRINUSE:
        who = _holder(port)
        by = f"by {who}" if who else "by another program"
        return failed(f"{port} is taken {by}", f"stop that, or choose another {key}")
    if problem.errno == errno.EACCES:
        return failed(f"{port} is not for ordinary users", f"choose a {key} above 1023")
    if problem.errno == errno.EADDRNOTAVAIL or isinstance(problem, socket.gaierror):
        return failed(f"{host} is no address of this machine", f"put right {table}.host")
    return failed(f"cannot listen on {host}:{port}: {problem.strerror or problem}", f"put right {key}")


def _near(host: str, port: int) -> str:
    """An address at which this machine reaches what listens there."""
    shown = _ANYWHERE.get(host) or (f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def _get(url: str, headers: dict[str, str], seconds: float) -> Any:
    """The JSON that somebody answers, whatever the status; None where it is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=seconds) as answer:
            return json.loads(answer.read(1 << 24))
    except urllib.error.HTTPError as error:
        with error:
            try:
                return json.loads(error.read(1 << 20))
            except ValueError:
                return None
    except (OSError, ValueError):
        return None


def _holder(port: int) -> str | None:
    """The process that listens at a port, as far as this user may know."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in map(str.split, rows):
            # 0A is LISTEN.
            if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{row[9]}]")
    for link in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        try:
            if os.readlink(link) in inodes:
                number = link.parts[2]
                name = Path(f"/proc/{number}/comm").read_text(encoding="utf-8").strip()
                return f"process {number} ({re.sub(r'[^ -~]', '?', name)})"
        except OSError:
            continue
    return None
