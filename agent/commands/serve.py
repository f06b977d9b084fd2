"""cvat-sidecar serve: the doors that service.toml opens, until told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.commands.configuration import config_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.process.service import Service


@click.command("serve")
@config_option("The service.toml to serve")
@click.pass_context
def command(ctx: click.Context, config: Path) -> int:
    """Serve models to CVAT until interrupted.

    The doors that service.toml opens: [queue] for CVAT Online and Enterprise, [gateway] for CVAT's own menus, [[rules]]
    for work that is annotated by itself. A status page shows what goes on, by default at http://127.0.0.1:8090.

    SIGHUP reads service.toml again. The first Ctrl-C (or SIGTERM) finishes what is held, the second one stops at once.
    """
    import logging

    from agent.errors import SidecarError
    from agent.logs import Redactor, set_up
    from agent.models.memory import give_large_blocks_back, share_few_heaps
    from agent.process.lifetime import Signals, run_until_stopped
    from agent.process.service import Service
    from agent.settings.service import load_config

    verbose = ctx.find_root().params.get("verbose", 0)
    level = {0: None, 1: logging.INFO}.get(verbose, logging.DEBUG)
    give_large_blocks_back()
    share_few_heaps()
    settings, redact = load_config(config), Redactor()
    set_up(settings, redact, level=level)
    say = _log if settings.service.log_format == "json" else _tell
    with Signals() as signals:
        try:
            service = Service(
                settings,
                lambda: load_config(config),
                redact=redact,
                on_reload=lambda new: set_up(new, redact, level=level),
            )
            service.open()
        except SidecarError:
            if level is None:
                # One line says it, and comes from the command line; the traceback is for those who ask for more.
                logging.getLogger().setLevel(logging.ERROR)
            raise
        for line in _beginning(service):
            say(line)
        return run_until_stopped(service, signals, lambda: service.shared.config.service.grace_seconds, say)


def _beginning(service: Service) -> Iterator[str]:
    from agent.web.readiness import health_of

    config = service.shared.config
    yield f"server       {service.shared.session.url}"
    for door in service.doors():
        yield f"door         {door.name}: {health_of(door).text}"
    for model in config.models:
        when = "loaded at first use" if model.load == "use" else "being loaded"
        yield f"model        {model.id}: {model.model}, {when}"
    yield f"status page  {service.url}"


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _log(line: str) -> None:
    import logging

    logging.getLogger("agent.process.service").info(line)
