"""The gateway's ports: opened by us, so that a taken one is an error in service.toml and not one of the server's.

They outlive a server: while one is replaced by another, callers wait in the ports' queues and are not turned away.
"""

from __future__ import annotations

import socket

from agent.errors import ConfigError

Address = tuple[str, int]
_QUEUE = 512


class Listeners:
    """Listening sockets, by the address that was asked for."""

    def __init__(self) -> None:
        self._open: dict[Address, socket.socket] = {}

    def use(self, addresses: list[Address]) -> None:
        """Opens what is not open, closes what is not among them. ConfigError where one cannot be had."""
        fresh: dict[Address, socket.socket] = {}
        try:
            for address in addresses:
                if address not in self._open:
                    fresh[address] = _listen(address)
        except ConfigError:
            for listener in fresh.values():
                listener.close()
            raise
        for address in [address for address in self._open if address not in addresses]:
            self._open.pop(address).close()
        self._open |= fresh

    @property
    def addresses(self) -> set[Address]:
        return set(self._open)

    def port(self, address: Address) -> int:
        """The port's number, also where any was asked for."""
        return int(self._open[address].getsockname()[1])

    def lend(self) -> list[socket.socket]:
        """Sockets for a server, which closes them when it ends."""
        return [listener.dup() for listener in self._open.values()]

    def close(self) -> None:
        for listener in self._open.values():
            listener.close()
        self._open.clear()


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    # The protocol has to be named: only then asyncio turns off Nagle's algorithm, which costs 40 ms a call.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_QUEUE)
    except OSError as error:
        listener.close()
        shown = f"{address[0]}:{address[1]}"
        raise ConfigError(f"gateway: cannot listen on {shown}: {error.strerror or error}") from error
    return listener
