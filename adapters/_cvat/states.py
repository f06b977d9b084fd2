"""What tracking functions know of their shapes, as bytes: by value where that can be done, else by name."""

from __future__ import annotations

import pickle
import secrets
import time
from collections import OrderedDict
from typing import Any

LIFETIME = 8 * 3600.0
"""Seconds without use after which a state that only this process knows is forgotten: CVAT's own limit."""
LIMIT = 10_000
_VALUE, _NAME = b"V", b"N"


class FunctionStates:
    """States of any kind. Those that pickle refuses stay in this process, and end with it.

    What is unpickled was pickled here before: it lies in the service's own files, and never comes from a server.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[float, str, Any]] = OrderedDict()
        self._by_value: bool | None = None
        """Whether pickle can do it; not known before the first state."""

    def pack(self, shape_type: str, state: Any, name: bytes | None = None) -> bytes:
        """The state as bytes, with the type of the shape; `name` is that of a state that it takes the place of."""
        if self._by_value is not False:
            try:
                content = pickle.dumps((shape_type, state))
                if self._by_value is None:
                    pickle.loads(content)
                self._by_value = True
                return _VALUE + content
            except Exception:  # whatever it is, there is another way
                self._by_value = False
        return self._keep(shape_type, state, name)

    def unpack(self, data: bytes) -> tuple[str, Any]:
        """Type of the shape, and the state. ValueError for what is none."""
        if data[:1] == _VALUE:
            try:
                shape_type, state = pickle.loads(data[1:])
            except Exception as error:
                raise ValueError(f"the state cannot be read: {type(error).__name__}") from error
            return str(shape_type), state
        if data not in self._known:
            raise ValueError("the state ended with the process that knew it")
        _, shape_type, state = self._known[data]
        return shape_type, state

    def _keep(self, shape_type: str, state: Any, name: bytes | None) -> bytes:
        now = time.monotonic()
        key = name if name is not None and name[:1] == _NAME else _NAME + secrets.token_bytes(16)
        self._known[key] = (now, shape_type, state)
        self._known.move_to_end(key)
        while len(self._known) > LIMIT or now - next(iter(self._known.values()))[0] > LIFETIME:
            self._known.popitem(last=False)
        return key
