"""cvat-sidecar doctor: which hop between a model and CVAT is broken, and what mends it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.commands.configuration import config_option

if TYPE_CHECKING:
    from agent.doctor.findings import Line
    from agent.doctor.patient import Patient


@click.command("doctor")
@config_option("The service.toml to look at")
@click.option("--load", is_flag=True, help="Load each model, and run it on a picture.")
@click.option(
    "--try-call", is_flag=True, help="Have CVAT call a model of the gateway for one frame; nothing is stored."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one call may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(config: Path, load: bool, try_call: bool, timeout: float, as_json: bool) -> int:
    """Check every hop between service.toml, its models and CVAT, and say what mends a broken one.

    Prints a line for each check: ok, warning, failed, or skipped and why. Nothing is changed on the server. Run it
    where the service runs, as the user that runs it. Exits with 0, with 1 where a check has failed, with 2 where the
    configuration is wrong.
    """
    from agent.doctor.agenda import checks_for
    from agent.doctor.examination import examine, exit_code
    from agent.doctor.findings import STATES
    from agent.logs import Redactor, known_secrets

    patient = patient_of(config, load, try_call, timeout)
    lines: list[Line] = []
    shown = _Printer()
    for line in examine(checks_for(patient.config), patient, Redactor(known_secrets(patient.config))):
        lines.append(line)
        if not as_json:
            shown.add(line)
    shown.flush()
    code = exit_code(lines)
    counts = {state: sum(line.finding.state == state for line in lines) for state in STATES}
    if as_json:
        click.echo(json.dumps({"exit_code": code, **counts, "checks": list(map(_values, lines))}, indent=2))
    else:
        click.echo(", ".join(f"{count} {state}" for state, count in counts.items() if count))
    return code


class _Printer:
    """Prints lines as they come; what is skipped for one reason, or fails alike for several models, is one line."""

    def __init__(self) -> None:
        self._held: Line | None = None
        self._kind = ""

    def add(self, line: Line) -> None:
        kind, _, of = line.check.partition(" ")
        state, held = line.finding.state, self._held
        if held is not None and held.finding == line.finding and (state == "skipped" or kind == self._kind):
            self._held = replace(held, check=f"{held.check}, {of if kind == self._kind else line.check}")
            self._kind = kind
            return
        self.flush()
        if state == "skipped" or (of and state == "failed"):
            self._held, self._kind = line, kind
        else:
            click.echo(line)

    def flush(self) -> None:
        if self._held is not None:
            click.echo(self._held)
        self._held = None


def patient_of(file: Path, load: bool = False, try_call: bool = False, seconds: float = 10.0) -> Patient:
    """The configuration, or an empty one and what is wrong with it."""
    from agent.doctor.patient import Patient
    from agent.errors import ConfigError
    from agent.settings.server import ServerSettings
    from agent.settings.service import load_config
    from agent.settings.tables import Config

    try:
        return Patient(load_config(file), seconds, load, try_call)
    except ConfigError as error:
        return Patient(Config(file, ServerSettings()), seconds, load, try_call, error=error)


def _values(line: Line) -> dict[str, object]:
    name, _, of = line.check.partition(" ")
    found = line.finding
    return {
        "check": name, "of": of or None, "state": found.state, "text": found.text, "mend": found.mend or None,
        "seconds": line.seconds,
    }  # fmt: skip
