"""The body of a call, read with suspicion: a wrong one is refused in one line that says what, got and allowed."""

from __future__ import annotations

import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NoReturn

import numpy as np
import pybase64
from PIL import Image

from agent.contract import Frame, Rectangle
from agent.cvat.chunks import digest_of
from agent.cvat.decode import PIXEL_LIMIT, BadPicture, TooLarge, decode_picture
from agent.doors.gateway.call import Call, Refused
from agent.flat_shapes import is_number

MEGA = 1_000_000
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "PPM", "AVIF", "TGA", "DDS")
"""What may come as a picture, as Pillow names it. Some others start programs, or read more files; icons (ICO) are
decoded when they are opened, before anybody could look how large they are."""
MOST_VALUES = 1_000_000
"""Numbers, lists and the like in a body. Each takes many times the memory of its text, and while they are read nothing
else of this process runs."""
MOST_WORDS = 10_000
"""Characters of all words together: a model takes some dozens, and its tokenizer would go through all of a book."""
FARTHEST = 10_000_000.0
"""Pixels: no coordinate is larger than that."""
_WORDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


class Picture:
    """A picture file that came with a call; `digest` names its bytes."""

    def __init__(self, content: bytes, call: Call, field: str = "image") -> None:
        self.digest = digest_of(content)
        self._content, self._call, self._field = content, call, field

    @cached_property
    def frame(self) -> Frame:
        """The picture, decoded. Refused (400, 413, 429) for what is none or too large; its header tells."""
        limit = int(min(self._call.megapixels * MEGA, PIXEL_LIMIT))
        try:
            image = decode_picture(self._content, limit=limit, formats=_formats(), admit=self._admit)
            return Frame(0, self._field, image)
        except TooLarge as error:
            raise Refused(f"{self._field}: {error}", 413) from error
        except BadPicture as error:
            raise Refused(f"{self._field}: {error}") from error

    def _admit(self, pixels: int) -> None:
        self._call.take(3 * pixels)

    @cached_property
    def pixels(self) -> str:
        """Names its pixels."""
        return pixels_digest(self.frame)


def pixels_digest(frame: Frame) -> str:
    """Names the size of a frame and all its pixels."""
    name = hashlib.sha256(f"{frame.width}x{frame.height}".encode(), usedforsecurity=False)
    name.update(np.ascontiguousarray(frame.image).data)
    return name.hexdigest()


@cache
def _formats() -> tuple[str, ...]:
    """Those that Pillow has been built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


class Payload:
    """The fields of a call."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    @classmethod
    def parse(cls, body: bytes) -> Payload:
        """The fields in a body. Refused where it is no JSON object, or one of too many values (413)."""
        if len(body) > MOST_VALUES and _count(body, b",[{") > MOST_VALUES:  # a picture in base64 has none of these
            raise Refused(f"body: got too many values, allowed: {MOST_VALUES:,} numbers, lists and the like", 413)
        try:
            fields = json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Refused(f"body: it is no JSON: {str(error)[:100]}") from error
        if not isinstance(fields, dict):
            raise Refused(f"body: got {_word(fields)}, allowed: an object")
        return cls(fields)

    def picture(self, call: Call, name: str = "image") -> Picture:
        """A picture file in base64, within the call's bounds."""
        text = self._fields.get(name)
        if not isinstance(text, str) or not text:
            _refuse(name, text, "a picture file in base64")
        try:
            content = pybase64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused(f"{name}: it is no base64: {str(error)[:100]}") from error
        return Picture(content, call, name)

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number, None where there is none."""
        value = self._fields.get(name)
        if value is None:
            return None
        if not is_number(value) or not low <= value <= high:
            _refuse(name, value, f"{low:g} to {high:g}")
        return float(value)

    def list(self, name: str, allowed: str) -> list[Any]:
        """A list; an empty one where there is none."""
        value = self._fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            _refuse(name, value, allowed)
        return value

    def points(self, name: str) -> tuple[tuple[float, float], ...]:
        allowed = "a list of [x, y]"
        return tuple(_point(value, name, allowed) for value in self.list(name, allowed))

    def box(self, name: str) -> Rectangle | None:
        """A rectangle by two opposite corners, None where there is none."""
        allowed = "[[left, top], [right, bottom]] or null"
        corners = [_point(value, name, allowed) for value in self.list(name, allowed)]
        if not corners:
            return None
        if len(corners) != 2:
            _refuse(name, corners, allowed)
        (one, two), (three, four) = corners
        return Rectangle(min(one, three), min(two, four), max(one, three), max(two, four))

    def texts(self, name: str) -> tuple[str, ...]:
        allowed = "a list of texts"
        found = self.list(name, allowed)
        if not all(isinstance(text, str) for text in found):
            _refuse(name, found, allowed)
        if (length := sum(map(len, found))) > MOST_WORDS:
            raise Refused(f"{name}: got {length:,} characters, allowed: {MOST_WORDS:,} in all")
        return tuple(text.strip() for text in found if text.strip())


def numbers(value: Any, name: str) -> list[float]:
    """The coordinates of a shape."""
    allowed = "a list of numbers"
    if not isinstance(value, list):
        _refuse(name, value, allowed)
    if not all(is_number(number) and abs(number) <= FARTHEST for number in value):
        _refuse(name, value, allowed)
    return [float(number) for number in value]


def _count(body: bytes, signs: bytes) -> int:
    values = np.frombuffer(body, np.uint8)  # five times as quick as bytes.count
    return sum(int(np.count_nonzero(values == sign)) for sign in signs)


def _point(value: Any, name: str, allowed: str) -> tuple[float, float]:
    right = isinstance(value, Sequence) and len(value) == 2 and all(is_number(number) for number in value)
    if not right or max(map(abs, value)) > FARTHEST:
        _refuse(name, value, allowed)
    return float(value[0]), float(value[1])


def _refuse(name: str, got: Any, allowed: str) -> NoReturn:
    shown = "nothing" if got is None else repr(got) if is_number(got) and abs(got) < FARTHEST else _word(got)
    raise Refused(f"{name}: got {shown}, allowed: {allowed}")


def _word(value: Any) -> str:
    return "null" if value is None else _WORDS.get(type(value), type(value).__name__)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is none of JSON's values")
