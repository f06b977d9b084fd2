"""All of service.toml as one frozen value: the server, the models, and what each door may do.

Only `serve`, `doctor` and `functions` read the whole of it; the others need the server's table (`server`).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.settings.parts import check_parts
from agent.settings.paths import beside
from agent.settings.server import load_server, read_toml
from agent.settings.tables import (
    Config,
    EngineSettings,
    GatewaySettings,
    ModelSettings,
    QueueSettings,
    RuleSettings,
    ServiceSettings,
    WatchSettings,
)
from agent.settings.toml import read_table


def load_config(file: Path, **server: Any) -> Config:
    """The whole of service.toml; `server` is what flags say of the server. ConfigError names the key that is wrong."""
    tables = read_toml(file)
    here = file.resolve().parent
    config = Config(
        file=file,
        server=load_server(file, **server),
        models=tuple(_model(row, f"{file}: models", here) for row in tables.get("models", ())),
        rules=tuple(read_table(RuleSettings, row, _place(file, "rules", row)) for row in tables.get("rules", ())),
        engine=read_table(EngineSettings, tables.get("engine", {}), f"{file}: engine"),
        service=_service(tables.get("service", {}), f"{file}: service", here),
        queue=read_table(QueueSettings, tables["queue"], f"{file}: queue") if "queue" in tables else None,
        gateway=read_table(GatewaySettings, tables["gateway"], f"{file}: gateway") if "gateway" in tables else None,
        watch=read_table(WatchSettings, tables.get("watch", {}), f"{file}: watch"),
    )
    _check(config)
    return config


def load_models(file: Path | None) -> tuple[ModelSettings, ...]:
    """The [[models]] of a service.toml, none without a file; for commands that do not need the rest of it."""
    if file is None:
        return ()
    tables, here = read_toml(file), file.resolve().parent
    return tuple(_model(row, f"{file}: models", here) for row in tables.get("models", ()))


def ledger_beside(state_dir: Path) -> Path:
    """The ledger in a state folder."""
    return state_dir / "ledger.sqlite3"


def ledger_of(file: Path) -> Path | None:
    """The ledger of a service.toml; None: that of this user. For commands that do not need the rest of it."""
    state_dir = _service(read_toml(file).get("service", {}), f"{file}: service", file.resolve().parent).state_dir
    return None if state_dir is None else ledger_beside(state_dir)


def secret(variable: str | None, place: str) -> str | None:
    """The secret in an environment variable; ConfigError where the variable is not set."""
    if variable is None:
        return None
    if not (value := os.environ.get(variable)):
        raise ConfigError(f"{place}: the environment has no variable {variable}, or an empty one")
    return value


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _place(file: Path, table: str, row: Any) -> str:
    name = (row.get("id") or row.get("name")) if isinstance(row, Mapping) else None
    return f"{file}: {table} {name!r}" if isinstance(name, str) else f"{file}: {table}"


def _model(row: Any, place: str, here: Path) -> ModelSettings:
    name = row.get("id") if isinstance(row, Mapping) else None
    settings = read_table(ModelSettings, row, f"{place} {name!r}" if isinstance(name, str) else place)
    reference, options = beside(settings.model, settings.options, here)
    settings = dataclasses.replace(settings, model=reference, options=options)
    if settings.label_map is not None:
        # A bare name is one of the label maps that come with the program.
        near = here / settings.label_map
        return dataclasses.replace(settings, label_map=near if near.exists() else settings.label_map)
    return settings


def _service(table: Any, place: str, here: Path) -> ServiceSettings:
    settings = read_table(ServiceSettings, table, place)
    return (
        settings if settings.state_dir is None else dataclasses.replace(settings, state_dir=here / settings.state_dir)
    )


def _check(config: Config) -> None:
    """What no table can say for itself."""
    for table, names in (("models", config.model_ids), ("rules", [rule.name for rule in config.rules])):
        for name, count in Counter(names).items():
            if count > 1:
                raise ConfigError(f"{config.file}: {table}: {name!r} is there {count} times, allowed: once")
    if config.service.secret_env is None and not is_loopback(config.service.host):
        place = f"{config.file}: service: secret_env"
        why = f"because host {config.service.host!r} lets others reach the status page"
        raise ConfigError(f"{place}: got none, allowed: the name of a variable with a password, {why}")
    check_parts(config.models, str(config.file))
    for rule in config.rules:
        if rule.model not in config.model_ids:
            allowed = ", ".join(config.model_ids) or "none is configured"
            place = f"{config.file}: rules {rule.name!r}"
            raise ConfigError(f"{place}: model: got {rule.model!r}, allowed: an id of [[models]]: {allowed}")
