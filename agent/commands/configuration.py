"""--config of the commands that cannot do without a service.toml, and where it is looked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE = "CVAT_SIDECAR_CONFIG"
PLACES = (Path("service.toml"), Path("/etc/cvat-sidecar/service.toml"))
"""Where it is looked for, in this order: the folder that the command runs in, then that of the machine."""


def config_option(what: str) -> Callable[[F], F]:
    """--config for a command; `what` begins its help."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar=VARIABLE,
        callback=_found,
        metavar="FILE",
        help=f"{what} [default: ${VARIABLE}, else {', else '.join(map(_shown, PLACES))}].",
    )


def _found(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """The file that was named, else the first that is there. ConfigError where there is none."""
    from agent.errors import ConfigError

    if value is not None or ctx.resilient_parsing:
        return value
    for place in PLACES:
        if place.is_file():
            return place
    looked = " and ".join(map(_shown, PLACES))
    raise ConfigError(f"no service.toml: looked for {looked}; name yours with --config FILE or in ${VARIABLE}")


def _shown(place: Path) -> str:
    return str(place) if place.is_absolute() else f"./{place}"
