"""A service.toml to be examined, and what the doctor found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.doctor.agenda import checks_for
from agent.doctor.examination import examine
from agent.doctor.findings import Line
from agent.doctor.patient import Patient
from agent.settings.service import load_config

SLOW = ("installation.", "accelerator.torch")
"""Checks that import torch in a process of their own, and have nothing to do with servers."""
ADAPTERS = ("models.options",)
"""The same for adapters."""

BASIC = """
[cvat]
host = "{url}"
{cvat}

[service]
port = {port}
state_dir = "state"
{service}

[[models]]
id = "face"
model = "opencv:face"
{model}

{more}
"""
LOGIN = 'user = "bot"\npassword_env = "BOT_PASSWORD"'


class Found:
    """What an examination has found."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = {line.check: line for line in lines}

    def names(self, state: str) -> set[str]:
        """The checks that ended so."""
        return {name for name, line in self.lines.items() if line.finding.state == state}

    @property
    def failed(self) -> set[str]:
        return self.names("failed")

    @property
    def warnings(self) -> set[str]:
        return self.names("warning")

    def state(self, check: str) -> str:
        return self.lines[check].finding.state

    def __getitem__(self, check: str) -> str:
        """The whole line of a check."""
        return str(self.lines[check])


def written(folder: Path, url: str, *, port: int = 0, cvat: str = LOGIN, **parts: str) -> Path:
    """A service.toml; `service` and `model` go into their tables, `more` to the end."""
    file = folder / "service.toml"
    text = BASIC.format(url=url, port=port, cvat=cvat, **{"service": "", "model": "", "more": "", **parts})
    file.write_text(text, encoding="utf-8")
    return file


def examined(file: Path, *, seconds: float = 10.0, slow: bool = False, adapters: bool = False, **options: Any) -> Found:
    """What the doctor finds; `slow`: of the installation too, `adapters`: of the models' options too."""
    patient = Patient(load_config(file), seconds, **options)
    left_out = (() if slow else SLOW) + (() if adapters else ADAPTERS)
    checks = [check for check in checks_for(patient.config) if not check.name.startswith(left_out)]
    return Found(list(examine(checks, patient)))
