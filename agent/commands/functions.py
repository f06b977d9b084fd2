"""cvat-sidecar functions: the native functions that stand for the models of service.toml in CVAT."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.commands.configuration import config_option

if TYPE_CHECKING:
    from agent.functions.registration import FunctionRecord, Registrar
    from agent.settings.tables import Config

_CONFIG = config_option("The service.toml that names the models and the server")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("functions")
def command() -> None:
    """Make, list and remove the functions of your models in CVAT Online or Enterprise."""


@command.command("register")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--public", is_flag=True, help="For everybody on the server; takes an administrator.")
@_JSON
@_CONFIG
def register(models: tuple[str, ...], public: bool, as_json: bool, config: Path) -> int:
    """Make a function for each model of the queue, or for those named; what is there already stays.

    They are yours, or of the [cvat] organization. A service that runs serves them a moment later. A model that cannot
    be loaded, or has a function that does not fit, does not keep the others from having theirs; the exit code is 4.
    """
    return _run(config, as_json, lambda registrar: registrar.register(models, public=public))


@command.command("list")
@_JSON
@_CONFIG
def list_(as_json: bool, config: Path) -> None:
    """Show which function stands for which model, and whether it is still there."""
    _run(config, as_json, lambda registrar: registrar.listed())


@command.command("delete")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--all", "everything", is_flag=True, help="All functions that were registered here.")
@_JSON
@_CONFIG
def delete(models: tuple[str, ...], everything: bool, as_json: bool, config: Path) -> None:
    """Remove the functions of these models, with the requests that wait for them."""
    if bool(models) == everything:
        raise click.UsageError("Name models, or say --all.")
    _run(config, as_json, lambda registrar: registrar.delete(models))


def _run(config: Path, as_json: bool, work: Callable[[Registrar], Iterable[FunctionRecord]]) -> int:
    from dataclasses import asdict

    from agent.errors import ModelError
    from agent.functions.registration import open_registrar
    from agent.settings.service import load_config

    settings, records = load_config(config), []
    with open_registrar(settings) as registrar:
        for record in work(registrar):
            records.append(record)
            if record.status == "failed":
                click.echo(f"Error: model {record.model}: {record.text}", err=True)
            elif not as_json:
                click.echo(f"{record.model}: {_sentence(record)}")
    if as_json:
        click.echo(json.dumps([asdict(record) for record in records], indent=2))
    elif not records:
        click.echo("no model of service.toml is for the queue, and none is remembered", err=True)
    elif any(record.status == "created" for record in records):
        click.echo(_next_step(settings), err=True)
    return ModelError.exit_code if any(record.status == "failed" for record in records) else 0


_SENTENCES = {
    "created": "function {id} created",
    "there": "function {id}, there",
    "none": "no function yet; `cvat-sidecar functions register {model}` makes one",
    "gone": "function {id} is not on the server any more",
    "deleted": "function {id} deleted, with what waited for it",
    "refused": "function {id} cannot be looked at",
    "left out": "no function",
    "left over": "function {id}, of a model that is not (any more) one of the queue's in service.toml",
}


def _sentence(record: FunctionRecord) -> str:
    told = _SENTENCES[record.status].format(id=record.function, model=record.model)
    return f"{told}: {record.text}" if record.text else told


def _next_step(config: Config) -> str:
    if config.queue is None:
        return f"No service serves them yet: {config.file} has no [queue] table."
    return (
        "A service that runs with this configuration takes them up by itself, within seconds;"
        " models that are new in service.toml it sees after SIGHUP."
    )
