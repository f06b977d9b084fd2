"""Options that several commands share, and the values that they become."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from agent.settings.server import ServerSettings
    from agent.settings.tables import ModelSettings

F = TypeVar("F", bound=Callable[..., Any])

_CONFIG = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CVAT_SIDECAR_CONFIG",
    help="Read this service.toml for what no option says.",
)
_LEDGER = click.option(
    "--ledger",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where runs are remembered [default: in service.state_dir of --config, else this user's].",
)
_SERVER = (
    click.option("--server-host", metavar="HOST", help="Name or URL of the CVAT server [default: http://localhost]."),
    click.option("--server-port", type=click.IntRange(1, 65535), metavar="PORT", help="Its port."),
    click.option(
        "--auth",
        metavar="USER[:PASS]",
        help="Log in with a password (else $PASS, else asked for). Better: a personal access token in"
        " $CVAT_ACCESS_TOKEN.",
    ),
    click.option("--profile", metavar="NAME", help="Use a profile that cvat-cli has saved."),
    click.option(
        "--organization",
        "--org",
        metavar="SLUG",
        help="Work in this organization; '' is the personal workspace.",
    ),
    click.option("--insecure", is_flag=True, help="Do not verify the server's TLS certificate."),
    click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Verify the server by these certificates (PEM).",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        metavar="SECONDS",
        help="How long the server may be silent [default: 60].",
    ),
)
_MODEL = (
    click.option(
        "--model",
        required=True,
        metavar="REF",
        help="For example hf:facebook/detr-resnet-50, local:yolo.onnx; or the id of one of the [[models]] of --config.",
    ),
    click.option(
        "-p",
        "--param",
        "params",
        multiple=True,
        metavar="NAME=VALUE",
        help="An option of the model, also as NAME=TYPE:VALUE (int, float, str, bool).",
    ),
    click.option("--device", default="auto", show_default=True, help="Where the model runs: auto, cpu, cuda, cuda:1 …"),
)


def _all(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def server_options(function: F) -> F:
    """The options that say where CVAT is, named as cvat-cli names them."""
    return _all((*_SERVER, _CONFIG))(function)


def ledger_option(function: F) -> F:
    """--ledger, for a command that has `server_options`."""
    return _LEDGER(function)


def ledger_options(function: F) -> F:
    """The options that say which ledger, for a command that asks no server."""
    return _all((_LEDGER, _CONFIG))(function)


def ledger_path(values: dict[str, Any]) -> Path | None:
    """Takes `ledger` out of a command's values; service.toml fills it. None: this user's own.

    To be called before `server_settings`, which takes `config` out.
    """
    ledger: Path | None = values.pop("ledger")
    if ledger is not None or values["config"] is None:
        return ledger
    from agent.settings.service import ledger_of

    return ledger_of(values["config"])


def check_config(values: dict[str, Any], *, models: bool = True) -> None:
    """ConfigError with all that is wrong in the tables that a command needs, before it reads one after the other.

    [cvat], [[models]] if `models`, and [service] if the command has a --ledger that was not given.
    """
    if values["config"] is None:
        return
    from agent.settings.server import load_server
    from agent.settings.service import check_tables, ledger_of, load_models

    needs_ledger = "ledger" in values and values["ledger"] is None
    check_tables(
        values["config"], load_server, *([load_models] if models else []), *([ledger_of] if needs_ledger else [])
    )


def model_options(function: F) -> F:
    """The options that say which model, and how to load it."""
    return _all(_MODEL)(function)


SERVER_NAMES = (
    "server_host", "server_port", "auth", "profile", "organization", "insecure", "ca_file", "timeout", "config",
)  # fmt: skip


def server_settings(values: dict[str, Any]) -> ServerSettings:
    """Takes the server options out of a command's values; service.toml fills what they leave open."""
    from agent.settings.server import load_server

    given = {name: values.pop(name) for name in SERVER_NAMES}
    user, password = _credentials(given.pop("auth"))
    return load_server(
        given.pop("config"),
        host=given["server_host"],
        port=given["server_port"],
        user=user,
        password=password,
        profile=given["profile"],
        organization=given["organization"],
        verify_ssl=False if given["insecure"] else None,
        ca_file=given["ca_file"],
        timeout=given["timeout"],
    )


def _credentials(auth: str | None) -> tuple[str | None, str | None]:
    if auth is None:
        return None, None
    user, _, password = auth.partition(":")
    return user, password or os.environ.get("PASS") or click.prompt(f"Password for {user}", hide_input=True, err=True)


def chosen_model(values: dict[str, Any]) -> dict[str, Any]:
    """The values with `model`, an id of service.toml's [[models]] or a reference, as something that stands by itself.

    `params` become typed, and what the model's table says of device, threshold, label map and batch size fills what no
    option says. To be called before `server_settings`, which takes `config` out.
    """
    from agent.compose.named import resolved
    from agent.settings.service import load_models

    models = load_models(values["config"])
    reference, options = resolved(values["model"], models)
    found = {**values, "model": reference, "params": {**options, **model_params(values["params"])}}
    settings = next((settings for settings in models if settings.id == values["model"]), None)
    if settings is not None:
        given = {
            "device": settings.device, "threshold": settings.threshold, "batch_size": settings.batch_size,
            "label_map": str(settings.label_map) if settings.label_map else None,
        }  # fmt: skip
        for name, value in given.items():
            if name in found and found[name] in (None, "auto") and value is not None:
                found[name] = value
    return found


def reid_params(reference: str, params: dict[str, Any], models: Sequence[ModelSettings]) -> dict[str, Any]:
    """The options of a reidentifier: a file is told that it is one, where nothing else says what it is."""
    from agent.compose.named import resolved

    model, options = resolved(reference, models)
    known = {*options, *params}
    if not model.strip().lower().startswith("local:") or known & {"kind", "head"}:
        return params
    return {**params, "kind": "reid"}


def model_params(params: tuple[str, ...]) -> dict[str, Any]:
    """`-p name=value` as typed values, as cvat-cli takes them; without a type, TOML decides, else it is text."""
    from agent.errors import ConfigError

    found: dict[str, Any] = {}
    for text in params:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"-p {text!r}: got no '=', allowed: NAME=VALUE or NAME=TYPE:VALUE")
        found[name] = _typed(text, value)
    return found


def _typed(text: str, value: str) -> Any:
    import tomllib

    from agent.errors import ConfigError

    kind, colon, rest = value.partition(":")
    booleans = {"true": True, "1": True, "false": False, "0": False}
    casts: dict[str, Callable[[str], Any]] = {
        "int": int, "float": float, "str": str, "bool": lambda word: booleans[word.lower()],
    }  # fmt: skip
    if colon and kind in casts:
        try:
            return casts[kind](rest)
        except (ValueError, KeyError) as error:
            raise ConfigError(f"-p {text!r}: {rest!r} is no {kind}") from error
    try:
        found = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return value
    # A date stays text: no option of a model is one, and the ledger could not keep it.
    return found if isinstance(found, bool | int | float | str | list | dict) else value
