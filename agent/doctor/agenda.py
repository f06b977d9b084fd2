"""Which checks there are for a configuration, in the order of the hops."""

from __future__ import annotations

from agent.doctor import (
    accelerator,
    account,
    configuration,
    hooks,
    installation,
    machine,
    models,
    native,
    network,
    nuclio,
    ports,
    rules,
    server,
)
from agent.doctor.findings import Check
from agent.settings.tables import Config


def checks_for(config: Config) -> list[Check]:
    """All of them; a check stands after those that it needs."""
    return [
        *configuration.checks(),
        *installation.checks(),
        *machine.checks(config),
        *accelerator.checks(config),
        *models.checks(config),
        *ports.checks(config),
        *network.checks(),
        *server.checks(),
        *account.checks(),
        *native.checks(config),
        *nuclio.checks(config),
        *rules.checks(config),
        *hooks.checks(config),
    ]
