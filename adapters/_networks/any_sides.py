"""An ONNX model opened to pictures of any size, by its bytes alone, as exporters might have left it.

Field numbers are those of onnx/onnx.proto.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial

from adapters._networks.protobuf import field_at, varint_at

_GRAPH, _INPUT, _OUTPUT, _BETWEEN = 7, 11, 12, 13
_TYPE, _TENSOR, _SHAPE, _SIDE = 2, 1, 2, 1
_Change = Callable[[memoryview], bytes | None]
_LENGTH = 2
"""How a field with bytes in it is written."""


def any_sides(content: bytes) -> bytes:
    """The model, its inputs without a size behind batch and channels; what its other shapes are is left to follow."""
    return _changed(memoryview(content), {_GRAPH: _graph})


def _graph(graph: memoryview) -> bytes:
    return _changed(
        graph, {_INPUT: partial(_value, shape=_opened), _OUTPUT: partial(_value, shape=_nothing), _BETWEEN: _nothing}
    )


def _value(info: memoryview, shape: _Change) -> bytes:
    """What is said of an input or an output, its shape changed."""
    tensor = partial(_changed, changes={_SHAPE: shape})
    return _changed(info, {_TYPE: partial(_changed, changes={_TENSOR: tensor})})


def _opened(shape: memoryview) -> bytes:
    place = itertools.count()
    return _changed(shape, {_SIDE: lambda side: bytes(side) if next(place) < 2 else b""})


def _nothing(message: memoryview) -> None:
    return None


def _changed(message: memoryview, changes: Mapping[int, _Change]) -> bytes:
    """A message, its fields of some numbers replaced, or left out where the change gives None."""
    parts: list[bytes] = []
    place = 0
    while place < len(message):
        start = place
        key, place = varint_at(message, place)
        value, place = field_at(message, place, key & 7)
        change = changes.get(key >> 3)
        if change is None or key & 7 != _LENGTH or not isinstance(value, memoryview):
            parts.append(bytes(message[start:place]))
        elif (new := change(value)) is not None:
            parts += [_varint(key), _varint(len(new)), new]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
