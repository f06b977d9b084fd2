"""What differs between two readings of service.toml, and which of it can be had without a restart."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.settings.server import ServerSettings
from agent.settings.service import is_loopback
from agent.settings.tables import Config

FIXED = ("host", "port", "state_dir", "batch_lanes", "interactive_lanes")
"""Keys of [service] that a running process cannot change: what they stand for is open, or shared out."""


def changes(old: Config, new: Config) -> list[str]:
    """What differs, a line each, for the log; secrets are only ever names of variables in there."""
    lines = []
    for table in ("engine", "service", "queue", "gateway", "watch", "server"):
        lines += _differences(table, getattr(old, table), getattr(new, table))
    for table, key in (("models", "id"), ("rules", "name")):
        before = {getattr(row, key): row for row in getattr(old, table)}
        after = {getattr(row, key): row for row in getattr(new, table)}
        lines += [f"{table} {name}: removed" for name in before if name not in after]
        lines += [f"{table} {name}: added" for name in after if name not in before]
        both = [name for name in before if name in after]
        for name in both:
            lines += _differences(f"{table} {name}", before[name], after[name])
        if (order := [name for name in after if name in before]) != both:
            lines.append(f"{table}: order: {', '.join(both)} -> {', '.join(order)}")
    return lines


def in_effect(old: Config, new: Config) -> tuple[Config, list[str]]:
    """The new settings as far as a running process can take them, and the keys that have to wait for a restart."""
    before, after = old.service, new.service
    kept = {key: getattr(before, key) for key in FIXED if getattr(before, key) != getattr(after, key)}
    if "host" in kept and after.secret_env is None and not is_loopback(before.host):
        # The page stays where others reach it, so its password stays too.
        kept["secret_env"] = before.secret_env
    waiting = [f"service.{key}" for key in kept]
    new = dataclasses.replace(new, service=dataclasses.replace(after, **kept))
    if old.gateway and new.gateway and old.gateway.host != new.gateway.host:
        # The old address may hold the port that the new one wants.
        waiting.append("gateway.host")
        new = dataclasses.replace(new, gateway=dataclasses.replace(new.gateway, host=old.gateway.host))
    if old.server != new.server:
        waiting += _keys_of_cvat(old.server, new.server)
        new = dataclasses.replace(new, server=old.server)
    return new, waiting


def _keys_of_cvat(old: ServerSettings, new: ServerSettings) -> list[str]:
    """The keys of [cvat] that differ; of a secret, the key that says where it is."""
    names = [part.name for part in dataclasses.fields(old) if part.compare]
    changed = [name for name in names if getattr(old, name) != getattr(new, name)]
    secret = (new.secret_from or old.secret_from).partition(" ")[0]
    return list(dict.fromkeys(f"cvat.{secret if secret and n in ('password', 'token') else n}" for n in changed))


def _differences(place: str, old: Any, new: Any) -> list[str]:
    if old is None or new is None:
        return [] if old is new else [f"{place}: {'added' if old is None else 'removed'}"]
    lines = []
    for part in dataclasses.fields(old):
        before, after = getattr(old, part.name), getattr(new, part.name)
        if before != after:
            lines.append(
                f"{place}: {part.name}: {before!r} -> {after!r}" if part.repr else f"{place}: {part.name} changed"
            )
    return lines
