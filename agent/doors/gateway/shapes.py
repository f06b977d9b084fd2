"""Shapes that callers send, read with suspicion."""

from __future__ import annotations

from typing import Any

from agent.contract import Rectangle, Shape
from agent.doors.gateway.call import Refused
from agent.doors.gateway.payload import numbers
from agent.errors import BadRequest
from agent.flat_shapes import read_shape

Size = tuple[int, int]
"""Width and height."""


def asked_shape(value: Any, name: str, size: Size | None = None) -> Shape:
    """A shape, of a picture of that size where masks may come. Refused where it is none."""
    if not isinstance(value, dict):
        raise Refused(f"{name}: allowed: an object with a type and points")
    points = numbers(value.get("points"), f"{name}: points")
    if value.get("type") == "mask":
        _check_box(points[-4:], name, size)
    try:
        shape = read_shape({"type": value.get("type"), "points": points})
    except BadRequest as error:
        raise Refused(f"{name}: {error}") from error
    if isinstance(shape, Rectangle):
        (turn,) = numbers([value.get("rotation") or 0.0], f"{name}: rotation")
        return _upright(shape, turn)
    return shape


def bare_rectangle(value: Any, name: str) -> Rectangle:
    """A rectangle by two opposite corners, as older servers send it, without a type."""
    shape = asked_shape({"type": "rectangle", "points": value}, name)
    assert isinstance(shape, Rectangle)
    return shape


def _check_box(box: list[float], name: str, size: Size | None) -> None:
    """A few numbers could ask for a mask of any size: it has to lie in its picture."""
    width, height = size or (0, 0)
    if len(box) < 4 or not (0 <= box[0] <= box[2] < width and 0 <= box[1] <= box[3] < height):
        raise Refused(f"{name}: mask: got the box {box}, allowed: left, top, right, bottom within {width}x{height}")


def _upright(shape: Rectangle, turn: float) -> Rectangle:
    left, right = sorted((shape.left, shape.right))
    top, bottom = sorted((shape.top, shape.bottom))
    return Rectangle(left, top, right, bottom, turn)
