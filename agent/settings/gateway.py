"""What [gateway] has to be beyond its types: addresses that are some, ports that are not in each other's way."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from agent.settings.mistakes import Mistakes
from agent.settings.tables import GatewaySettings, ModelSettings, ServiceSettings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LAST_PORT = 65535
_EVERYWHERE = ("0.0.0.0", "::")


def networks(texts: Iterable[str], place: str) -> tuple[Network, ...]:
    """The networks of `allow`. ConfigError with a line for each text that is none."""
    found = []
    with Mistakes() as mistakes:
        for text in texts:
            try:
                found.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                mistakes.add(f"{place}: got {text!r}, allowed: an address or a network like 172.16.0.0/12")
    return tuple(found)


def check_gateway(
    settings: GatewaySettings, service: ServiceSettings, models: Sequence[ModelSettings], place: str
) -> None:
    """ConfigError with all that a gateway of these models could not be opened with."""
    first = settings.direct_ports
    ports = range(0) if first is None else range(first, first + len(models))
    got = f"{place}: direct_ports: got {first} to {ports[-1]}" if ports else ""
    with Mistakes() as mistakes:
        with mistakes.kept():
            networks(settings.allow, f"{place}: allow")
        if ports and (ports[-1] > LAST_PORT or settings.port in ports):
            mistakes.add(f"{got}, allowed: ports up to {LAST_PORT} without {settings.port}, which is the dashboard's")
        if service.port and _is_one_place(settings.host, service.host):
            others = f"allowed: others than {service.port}, where the status page is (service.port)"
            if settings.port == service.port:
                mistakes.add(f"{place}: port: got {settings.port}, {others}")
            if any(
                port == service.port and "gateway" in model.doors for port, model in zip(ports, models, strict=False)
            ):
                mistakes.add(f"{got}, {others}")


def _is_one_place(one: str, other: str) -> bool:
    """Whether a port that is taken at one of the addresses is taken at the other."""
    return one == other or one in _EVERYWHERE or other in _EVERYWHERE
