"""All of service.toml as one frozen value: the server, the models, and what each door may do.

Only `serve`, `doctor` and `functions` read the whole of it; the others need the server's table (`server`).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import ConfigError
from agent.settings.gateway import check_gateway
from agent.settings.mistakes import Mistakes
from agent.settings.parts import check_parts
from agent.settings.paths import beside, label_map_from
from agent.settings.server import ServerSettings, may_be, parsed, server_of, sound_tables
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

T = TypeVar("T")


def load_config(file: Path, **server: Any) -> Config:
    """The whole of service.toml; `server` is what flags say of the server. ConfigError names each key that is wrong."""
    with Mistakes() as mistakes:
        everything = parsed(file)
        tables = sound_tables(everything, file, mistakes)

        def read(kind: type[T], name: str) -> T:
            return mistakes.get(lambda: read_table(kind, tables.get(name, {}), f"{file}: {name}"), kind())

        config = Config(
            file=file,
            server=mistakes.get(lambda: server_of(tables, file, **server), ServerSettings()),
            models=_models(tables, file, mistakes),
            rules=_rules(tables, file, mistakes),
            engine=read(EngineSettings, "engine"),
            service=mistakes.get(lambda: _service(tables, file), ServiceSettings()),
            queue=read(QueueSettings, "queue") if "queue" in tables else None,
            gateway=read(GatewaySettings, "gateway") if "gateway" in tables else None,
            watch=read(WatchSettings, "watch"),
        )
        _check(config, tables, mistakes)
        nameless = len(_names(tables, "models", "id")) < len(tables.get("models", ()))
        # A model whose table or id is misspelt may be the one that a rule means.
        if not nameless and not any(may_be(name, "models") for name in everything.keys() - tables.keys()):
            _check_models_of_rules(tables, file, mistakes)
    return config


def load_models(file: Path | None) -> tuple[ModelSettings, ...]:
    """The [[models]] of a service.toml, none without a file; for commands that do not need the rest of it."""
    if file is None:
        return ()
    with Mistakes() as mistakes:
        return _models(sound_tables(parsed(file), file, mistakes), file, mistakes)


def check_tables(file: Path, *loads: Callable[[Path], object]) -> None:
    """ConfigError with all that is wrong in the tables that are read by `load_server`, `load_models`, `ledger_of`."""
    with Mistakes() as mistakes:
        for load in loads:
            with mistakes.kept():
                load(file)


def ledger_beside(state_dir: Path) -> Path:
    """The ledger in a state folder."""
    return state_dir / "ledger.sqlite3"


def ledger_of(file: Path) -> Path | None:
    """The ledger of a service.toml; None: that of this user. For commands that do not need the rest of it."""
    with Mistakes() as mistakes:
        tables = sound_tables(parsed(file), file, mistakes)
        state_dir = mistakes.get(lambda: _service(tables, file), ServiceSettings()).state_dir
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


def _models(tables: Mapping[str, Any], file: Path, mistakes: Mistakes) -> tuple[ModelSettings, ...]:
    found = []
    for row, place in _rows(tables, "models", "id"):
        with mistakes.kept():
            found.append(_model(read_table(ModelSettings, row, f"{file}: {place}"), file.resolve().parent))
    return tuple(found)


def _rules(tables: Mapping[str, Any], file: Path, mistakes: Mistakes) -> tuple[RuleSettings, ...]:
    found = []
    for row, place in _rows(tables, "rules", "id", "name"):
        with mistakes.kept():
            found.append(read_table(RuleSettings, row, f"{file}: {place}"))
    return tuple(found)


def _rows(tables: Mapping[str, Any], table: str, *keys: str) -> Iterator[tuple[Any, str]]:
    """The rows of [[table]], each with what errors call it: its name (by one of the keys), its index, or both."""
    rows = tables.get(table, ())
    names = [
        next((row[key] for key in keys if row.get(key)), None) if isinstance(row, Mapping) else None for row in rows
    ]
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        named = isinstance(name, str)
        number = f"[{index}]" if len(rows) > 1 and not (named and names.count(name) == 1) else ""
        yield row, f"{table}{number}" + (f" {name!r}" if named else "")


def _model(settings: ModelSettings, here: Path) -> ModelSettings:
    reference, options = beside(settings.model, settings.options, here)
    settings = dataclasses.replace(settings, model=reference, options=options)
    if settings.label_map is not None:
        return dataclasses.replace(settings, label_map=label_map_from(settings.label_map, here))
    return settings


def _service(tables: Mapping[str, Any], file: Path) -> ServiceSettings:
    settings = read_table(ServiceSettings, tables.get("service", {}), f"{file}: service")
    if settings.state_dir is None:
        return settings
    return dataclasses.replace(settings, state_dir=file.resolve().parent / settings.state_dir)


def _check(config: Config, tables: Mapping[str, Any], mistakes: Mistakes) -> None:
    """What no table can say for itself.

    Names are taken from `tables`: a model with a mistake is in `config` no more, and all the same it is there.
    """
    ids, names = _names(tables, "models", "id"), _names(tables, "rules", "name")
    for table, all_names in (("models", ids), ("rules", names)):
        for name, count in Counter(all_names).items():
            if count > 1:
                mistakes.add(f"{config.file}: {table}: {name!r} is there {count} times, allowed: once")
    if config.service.secret_env is None and not is_loopback(config.service.host):
        place = f"{config.file}: service: secret_env"
        why = f"because host {config.service.host!r} lets others reach the status page"
        mistakes.add(f"{place}: got none, allowed: the name of a variable with a password, {why}")
    if config.gateway is not None:
        with mistakes.kept():
            check_gateway(config.gateway, config.service, config.models, f"{config.file}: gateway")
    with mistakes.kept():
        check_parts(config.models, str(config.file))


def _check_models_of_rules(tables: Mapping[str, Any], file: Path, mistakes: Mistakes) -> None:
    ids = _names(tables, "models", "id")
    allowed = ", ".join(dict.fromkeys(ids)) or "none is configured"
    for row, place in _rows(tables, "rules", "id", "name"):
        model = row.get("model") if isinstance(row, Mapping) else None
        if isinstance(model, str) and model not in ids:
            mistakes.add(f"{file}: {place}: model: got {model!r}, allowed: an id of [[models]]: {allowed}")


def _names(tables: Mapping[str, Any], table: str, key: str) -> list[str]:
    rows = (row for row in tables.get(table, ()) if isinstance(row, Mapping))
    return [row[key] for row in rows if isinstance(row.get(key), str)]
