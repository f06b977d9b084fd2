"""cvat-sidecar functions: the native functions that stand for the models of service.toml in CVAT."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agent.registration import FunctionRecord, Registrar

_CONFIG = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CVAT_SIDECAR_CONFIG",
    required=True,
    help="The service.toml that names the models and the server.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("functions")
def command() -> None:
    """Make, list and remove the functions of your models in CVAT Online or Enterprise."""


@command.command("register")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--public", is_flag=True, help="For everybody on the server; takes an administrator.")
@_JSON
@_CONFIG
def register(models: tuple[str, ...], public: bool, as_json: bool, config: Path) -> None:
    """Make a function for each model of the queue, or for those named; what is there already stays.

    They are yours, or of the [cvat] organization.
    """
    _run(config, as_json, lambda registrar: registrar.register(models, public=public))


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


def _run(config: Path, as_json: bool, work: Callable[[Registrar], Iterable[FunctionRecord]]) -> None:
    from dataclasses import asdict

    from agent.registration import open_registrar
    from agent.service_config import load_config

    with open_registrar(load_config(config)) as registrar:
        if as_json:
            click.echo(json.dumps([asdict(record) for record in work(registrar)], indent=2))
            return
        for record in work(registrar):
            number = f"function {record.function}" if record.function is not None else "no function"
            click.echo(f"{record.model}: {number}: {record.status}{f', {record.text}' if record.text else ''}")
