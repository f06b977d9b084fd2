"""The gateway's ports: opened by us, so that a taken one is an error in service.toml and not one of the server's."""

from __future__ import annotations

import socket
from collections.abc import Callable

from agent.errors import ConfigError

Address = tuple[str, int]
_QUEUE = 512


class Listeners:
    """Listening sockets, by the address that was asked for.

    `serve` is given each that is opened; `forget` closes one for good.
    """

    def __init__(self, serve: Callable[[socket.socket], None], forget: Callable[[socket.socket], None]) -> None:
        self._serve, self._forget = serve, forget
        self._open: dict[Address, socket.socket] = {}

    def use(self, addresses: list[Address]) -> None:
        """Opens what is not open, closes what is not among them. ConfigError where one cannot be had."""
        # The same port of another address may be in the way of the new one.
        ports = {port for _, port in addresses}
        moved = [address for address in self._open if address not in addresses and address[1] and address[1] in ports]
        for address in moved:
            self._forget(self._open.pop(address))
        fresh: dict[Address, socket.socket] = {}
        try:
            for address in addresses:
                if address not in self._open:
                    fresh[address] = _listen(address)
        except ConfigError:
            for listener in fresh.values():
                listener.close()
            self._add({address: _listen(address) for address in moved})
            raise
        self._add(fresh)
        for address in [address for address in self._open if address not in addresses]:
            self._forget(self._open.pop(address))

    def port(self, address: Address) -> int:
        """The port's number, also where any was asked for."""
        return int(self._open[address].getsockname()[1])

    def _add(self, fresh: dict[Address, socket.socket]) -> None:
        for address, listener in fresh.items():
            self._serve(listener)
            self._open[address] = listener


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
