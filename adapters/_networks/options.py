"""What every kind of network takes as options: how it is run, and how it wants its pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters._networks.pictures import Three
from agent.contract import ConfigError

PREPARATION = ("resize", "crop", "smooth", "colour", "scale", "mean", "std", "pad")
RUNNING = ("providers", "threads", "input_size")


@dataclass(frozen=True, slots=True)
class Running:
    """Where a graph runs, on how many processors, and at what size where it takes any."""

    device: str
    providers: Sequence[str] | None = None
    cores: int = 1
    size: tuple[int, int] | None = None
    """(width, height)."""


def running(device: str, given: Mapping[str, Any], owner: str) -> Running:
    """The options about running; `threads` 0 are all processors that this process may use."""
    at_least(owner, "threads", threads := given.get("threads", 0), 0)
    cores = threads or len(os.sched_getaffinity(0))
    return Running(device, given.get("providers"), cores, _size(given.get("input_size"), owner))


def checked(given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The options with those about preparation held to what is allowed, before any file is opened."""
    if not 0.1 <= (crop := given.get("crop", 1.0)) <= 1:
        raise ConfigError(f"{owner}: crop: got {crop}, allowed: 0.1 to 1")
    return {name: _three(value, name, owner) if name in ("mean", "std") else value for name, value in given.items()}


def at_least(owner: str, option: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{owner}: {option}: got {value}, allowed: {least} or more")


def share(owner: str, option: str, value: float | None) -> None:
    """Holds a number to 0..1."""
    if value is not None and not 0 <= value <= 1:
        raise ConfigError(f"{owner}: {option}: got {value}, allowed: 0 to 1")


def _size(value: int | list[int] | None, owner: str) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = [value, value] if isinstance(value, int) else value
    if len(sides) != 2 or not all(8 <= side <= 8192 for side in sides):
        raise ConfigError(f"{owner}: input_size: got {value}, allowed: a side, or [width, height], 8 to 8192")
    return sides[0], sides[1]


def _three(values: float | list[float], option: str, owner: str) -> Three:
    values = [values] if isinstance(values, float) else values
    if len(values) not in (1, 3) or (option == "std" and not all(values)):
        but = ", none of them 0" if option == "std" else ""
        raise ConfigError(f"{owner}: {option}: got {values}, allowed: one number, or one for each of 3 channels{but}")
    first, second, third = values * 3 if len(values) == 1 else values
    return float(first), float(second), float(third)
