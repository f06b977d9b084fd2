"""service.toml, flags and environment turned into frozen values; nothing else reads them.

Flags win over service.toml; the environment's token counts where neither says who we are. Secrets come by the name of
an environment variable or of a file, never by value in service.toml.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.settings.mistakes import Mistakes


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where CVAT is and who we are there."""

    host: str | None = None
    """Name or URL; None means the profile's, else http://localhost."""
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    """A personal access token."""
    secret_from: str = field(default="", compare=False)
    """Where the password or the token came from, as service.toml says it: `password_env BOT_PASSWORD`."""
    profile: str | None = None
    """A profile saved by cvat-cli; cannot stand beside host, port or credentials."""
    organization: str | None = None
    """A slug; "" is the personal workspace, None everything that the user may see."""
    verify_ssl: bool = True
    ca_file: Path | None = None
    timeout: float = 60.0
    """Seconds that the server may be silent within a call; a call may take ten times that in all."""
    retries: int = 6
    """How often a call that may be repeated is tried again."""

    def for_run_at(self, server: str) -> ServerSettings:
        """These settings for a run that went to a server; they hold where they name a server themselves."""
        named = self.host is not None or self.port is not None or self.profile is not None
        # Without credentials it is cvat-cli's default profile that counts, and that names a server too.
        return self if named or not (self.user or self.token) else replace(self, host=server)


_SERVER_KEYS = {
    "host": str, "port": int, "user": str, "password_env": str, "password_file": str, "token_env": str,
    "token_file": str, "profile": str, "organization": str, "verify_ssl": bool, "ca_file": str, "timeout": float,
    "retries": int,
}  # fmt: skip
_IN_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_RANGES: dict[str, tuple[float, float]] = {"port": (1, 65535), "timeout": (0.1, 86400), "retries": (0, 1000)}
_RIVALS = (
    ("password_env", "password_file"), ("token_env", "token_file"), ("user", "token_env"), ("user", "token_file"),
)  # fmt: skip
_TABLES = ("cvat", "engine", "service", "models", "queue", "gateway", "rules", "watch")
_LISTS = ("models", "rules")


def load_server(file: Path | None = None, **given: Any) -> ServerSettings:
    """The server settings of service.toml's [cvat], with what is given (and not None) put over them.

    The token is that of $CVAT_ACCESS_TOKEN where nothing else says who we are, as in cvat-cli.
    """
    with Mistakes() as mistakes:
        tables = sound_tables(parsed(file), file, mistakes) if file else {}
        return mistakes.get(lambda: server_of(tables, file, **given), ServerSettings())


def server_of(tables: dict[str, Any], file: Path | None, **given: Any) -> ServerSettings:
    """As `load_server`, of a service.toml that was read already."""
    settings = _server_table(tables.get("cvat", {}), file) if file else {}
    given = {name: value for name, value in given.items() if value is not None}
    if "profile" in given:
        for name in ("host", "port", "user"):
            if name in given:
                raise ConfigError(f"--profile: got --profile and a {name}, allowed: one of them")
        settings = {
            k: v for k, v in settings.items() if k not in ("host", "port", "user", "password", "token", "secret_from")
        }
    if given.keys() & {"user", "host", "port"}:
        settings.pop("profile", None)
    if "user" in given:
        settings.pop("token", None)
    if given.keys() & {"user", "password"}:
        settings.pop("secret_from", None)
    settings |= given
    if not {"user", "token", "profile"} & settings.keys() and (token := os.environ.get("CVAT_ACCESS_TOKEN")):
        settings |= {"token": token, "secret_from": "$CVAT_ACCESS_TOKEN"}
    return ServerSettings(**settings)


def read_toml(file: Path) -> dict[str, Any]:
    """service.toml as tables, its top level checked."""
    with Mistakes() as mistakes:
        return sound_tables(parsed(file), file, mistakes)


def parsed(file: Path) -> dict[str, Any]:
    """service.toml as TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"{file}: cannot be read: {why}") from error


def sound_tables(tables: dict[str, Any], file: Path, mistakes: Mistakes) -> dict[str, Any]:
    """The tables that have a name and a form that we know; the others are mistakes."""
    sound = {}
    for name, table in tables.items():
        if name not in _TABLES:
            mistakes.add(f"{file}: unknown table [{name}]{_near(name, _TABLES)}")
        elif not isinstance(table, list if name in _LISTS else dict):
            form = f"tables [[{name}]]" if name in _LISTS else f"a table [{name}]"
            mistakes.add(f"{file}: {name}: got {table!r}, allowed: {form}")
        else:
            sound[name] = table
    return sound


def _server_table(table: dict[str, Any], file: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    keys = set(table)
    with Mistakes() as mistakes:
        for one, other in _RIVALS:
            if {one, other} <= keys:
                mistakes.add(f"{file}: cvat: got {one} and {other}, allowed: one of them")
                keys -= {one, other}  # one of them is to go, so what it leads to does not matter
        for key, value in table.items():
            with mistakes.kept():
                _check_key(file, key, value)
                if key in keys:
                    settings |= _setting(file, key, value)
    return settings


def _setting(file: Path, key: str, value: Any) -> dict[str, Any]:
    """What the key says, as ServerSettings has it: by the name of a secret, the secret."""
    if key == "ca_file":
        return {key: file.parent / value}
    secret, _, source = key.rpartition("_")
    read = {"env": _from_environment, "file": _from_file}.get(source)
    return {key: value} if read is None else {secret: read(file, key, value), "secret_from": f"{key} {value}"}


def _check_key(file: Path, key: str, value: Any) -> None:
    if key not in _SERVER_KEYS:
        raise ConfigError(f"{file}: cvat: unknown key {key!r}{_near(key, _SERVER_KEYS)}")
    kind = _SERVER_KEYS[key]
    # To Python, true and false are numbers too.
    right = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if not right:
        raise ConfigError(f"{file}: cvat: {key}: got {value!r}, allowed: {_IN_WORDS[kind]}")
    if key in _RANGES and not _RANGES[key][0] <= value <= _RANGES[key][1]:
        raise ConfigError(f"{file}: cvat: {key}: got {value!r}, allowed: {' to '.join(map(str, _RANGES[key]))}")


def _from_environment(file: Path, key: str, name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise ConfigError(f"{file}: cvat: {key}: the environment has no variable {name}") from None


def _from_file(file: Path, key: str, name: str) -> str:
    try:
        return (file.parent / name).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{file}: cvat: {key}: cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: cvat: {key}: {name} is no text") from error


def may_be(name: str, table: str) -> bool:
    """Whether a table that has the wrong name or form may be meant for this one."""
    return difflib.get_close_matches(name, _TABLES, n=1) in ([], [table])


def _near(name: str, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; allowed: {', '.join(allowed)}"
