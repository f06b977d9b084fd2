"""Protobuf read without any library: whether an ONNX file is whole, its opset, who made it."""

from __future__ import annotations

from agent.contract import ModelLoadFailed


def outline(content: bytes, name: str) -> tuple[int | None, str]:
    """The opset and the producer of a ModelProto, by its outermost fields (onnx/onnx.proto) alone."""
    view, place = memoryview(content), 0
    opset, producer, graph = None, "", False
    while place < len(view):
        try:
            key, place = varint_at(view, place)
            value, place = field_at(view, place, key & 7)
        except (ValueError, IndexError):
            # Up to here the fields were those of a model: the file was cut; else it never was one.
            what = "the file is cut off or damaged" if graph or producer else "got something else"
            raise ModelLoadFailed(f"local:{name}: not a whole ONNX model: {what}") from None
        if key >> 3 == 2 and isinstance(value, memoryview):
            producer = bytes(value).decode("utf-8", "replace")
        elif key >> 3 == 7 and isinstance(value, memoryview):
            graph = True
        elif key >> 3 == 8 and isinstance(value, memoryview):
            opset = _default_opset(value) or opset
    if not graph:
        raise ModelLoadFailed(f"local:{name}: not an ONNX model: there is no graph in it")
    return opset, producer


def _default_opset(message: memoryview) -> int | None:
    place, domain, version = 0, b"", None
    while place < len(message):
        key, place = varint_at(message, place)
        value, place = field_at(message, place, key & 7)
        if key >> 3 == 1 and isinstance(value, memoryview):
            domain = bytes(value)
        elif key >> 3 == 2 and isinstance(value, int):
            version = value
    return version if domain in (b"", b"ai.onnx") else None


def field_at(view: memoryview, place: int, wire: int) -> tuple[int | memoryview, int]:
    """A protobuf field's value and the place after it (protobuf.dev, "Encoding")."""
    if wire == 0:
        return varint_at(view, place)
    if wire == 2:
        length, place = varint_at(view, place)
    elif wire in (1, 5):
        length = 8 if wire == 1 else 4
    else:
        raise ValueError(f"wire type {wire}")
    if place + length > len(view):
        raise IndexError("cut off")
    return view[place : place + length], place + length


def varint_at(view: memoryview, place: int) -> tuple[int, int]:
    """A number of variable length, and the place after it; IndexError where the message is cut."""
    value = shift = 0
    while True:
        byte = view[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("varint")
