"""service.toml itself: whether it is right, its secrets are there, and nobody else can read or change them."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.cvat.login import has_login
from agent.doctor.findings import Check, Finding, all_failed, counted, failed, ok, skipped, warning
from agent.doctor.patient import Patient
from agent.errors import ConfigError
from agent.process.open_doors import wanted_doors
from agent.settings.server import read_toml
from agent.settings.service import is_loopback

FILE, LOGIN = "configuration.file", "configuration.login"
MEND = "put right the key that is named; docs/service.md and service.toml tell all keys"
SET_IT = "set it where the service starts: environment of the container, EnvironmentFile of the unit"
PRIVATE = ("/run/secrets", "/var/run/secrets")
"""Where containers mount secrets, for themselves only."""


def checks() -> list[Check]:
    return [
        Check(FILE, _file, mend=MEND),
        Check("configuration.doors", _doors, needs=(FILE,)),
        Check("configuration.secrets", _secrets, needs=(FILE,)),
        Check("configuration.permissions", _permissions, needs=(FILE,)),
        Check("configuration.exposure", _exposure, needs=(FILE,)),
        Check(LOGIN, _login, needs=(FILE,)),
    ]


def _file(patient: Patient) -> Finding:
    if (error := patient.error) is not None:
        return all_failed(error.mistakes, lambda text: _mend(patient.config.file, error, text))
    config = patient.config
    patient.url()  # an address, a profile or a ca_file that cannot be is a matter of service.toml
    return ok(f"{config.file}: {counted(len(config.models), 'model')}, {counted(len(config.rules), 'rule')}")


def _mend(file: Path, error: ConfigError, text: str) -> str:
    """What to do about one of the mistakes of a file that cannot be used."""
    if not file.exists():
        return "name the file by --config, or make one: README.md shows a small one, service.toml every key"
    if isinstance(error.__cause__, tomllib.TOMLDecodeError):
        return "put right that line: it is no TOML"
    if "the environment has no variable" in text:
        return SET_IT
    return MEND


def _doors(patient: Patient) -> Finding:
    config, wanted = patient.config, wanted_doors(patient.config)
    if not wanted and not config.models:
        return ok("no doors and no models: this is for `cvat-sidecar annotate` and its like")
    if not wanted:
        mend = "add [queue] (CVAT Online, Enterprise), [gateway] (every CVAT) or [[rules]]"
        return warning("models, but no door that is open: `cvat-sidecar serve` will not start", mend)
    if not config.models:
        return failed("no models: `cvat-sidecar serve` will not start", "add a table [[models]]")
    offers = {door: [model.id for model in config.models if door in model.doors] for door in ("queue", "gateway")}
    if empty := [door for door, models in offers.items() if door in wanted and not models]:
        mend = f"add {empty[0]!r} to `doors` of a model"
        return warning(f"the door {empty[0]} is open, and no model is for it", mend)
    return ok(f"open: {', '.join(wanted)}")


def _secrets(patient: Patient) -> Finding:
    wanted = list(_variables(patient))
    missing = [f"{variable} ({place})" for place, variable in wanted if not os.environ.get(variable)]
    if missing:
        mend = SET_IT if len(missing) == 1 else SET_IT.replace("it", "them", 1)
        if any(f"{variable}_FILE" in os.environ for _, variable in wanted):
            mend = "in the container, start this by way of entrypoint.sh, which reads them from their files"
        return failed(f"the environment has no {', '.join(missing)}", mend)
    if not wanted:
        return ok("no door and no model names a variable")
    return ok(f"{counted(len(wanted), 'variable')} named by doors and models, and set")


def _variables(patient: Patient) -> Iterator[tuple[str, str]]:
    """Key -> variable that is to hold a secret. Those of [cvat] were read with the file."""
    config = patient.config
    named: dict[str, Any] = {
        "service.secret_env": config.service.secret_env,
        "watch.webhook_secret_env": config.watch.webhook_secret_env,
        "gateway.secret_env": config.gateway.secret_env if config.gateway else None,
    }
    for model in config.models:
        named |= {f"models {model.id}: {key}": v for key, v in model.options.items() if key.endswith("_env")}
    yield from ((place, variable) for place, variable in named.items() if isinstance(variable, str) and variable)


def _permissions(patient: Patient) -> Finding:
    """The mode of service.toml and of the files with secrets that it names."""
    config = patient.config
    if _mode(config.file) & stat.S_IWOTH:
        what = f"{config.file} can be changed by everybody on this machine, and names the code that runs"
        return warning(what, f"chmod o-w {config.file}")
    table = read_toml(config.file).get("cvat", {})
    files = [config.file.parent / table[key] for key in ("token_file", "password_file") if key in table]
    for file in files:
        if _mode(file) & (stat.S_IROTH | stat.S_IWOTH) and not _is_private(file):
            return warning(f"{file} holds a secret that everybody on this machine can read", f"chmod 600 {file}")
    return ok("no secret lies open" if files else "no file is named that holds the login")


def _mode(file: Path) -> int:
    try:
        return file.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{file}: cannot be looked at: {error.strerror or error}") from error


def _is_private(file: Path) -> bool:
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    return any(file.is_relative_to(place) for place in (*PRIVATE, *([credentials] if credentials else [])))


def _exposure(patient: Patient) -> Finding:
    config = patient.config
    gateway = config.gateway
    if gateway and not is_loopback(gateway.host) and not gateway.allow and gateway.secret_env is None:
        mend = "name CVAT's network in gateway.allow, or set gateway.secret_env"
        return warning(f"the gateway listens at {gateway.host}: whoever reaches it may use the models", mend)
    if not config.server.verify_ssl:
        return warning("[cvat] verify_ssl is false: anybody in between can be the server", "set ca_file instead")
    return ok("the gateway and the status page are for those who are named, or for this machine")


def _login(patient: Patient) -> Finding:
    if has_login(patient.config.server):
        return ok("service.toml, or the environment, says who we are")
    if wanted_doors(patient.config) == ("gateway",):
        return skipped("the gateway needs no login, unless it is to read frames ahead; there is none", blocks=True)
    mend = "set token_env, token_file, user with password_env or password_file, or profile; or $CVAT_ACCESS_TOKEN"
    return failed("nothing says who we are on the server", mend)
