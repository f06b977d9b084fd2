"""Trackers: shapes in, then picture after picture; CVAT carries names of the states, the states stay here.

Servers from before trackers named the types that they follow send bare points and want bare points back. A state
that began so is an object, not a name: that is how the next call is known to be one of theirs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.activity import Request
from agent.contract import Frame, Mask, Rectangle, Shape
from agent.doors.gateway.call import Call, Refused
from agent.doors.gateway.payload import Payload
from agent.doors.gateway.shapes import asked_shape, bare_rectangle
from agent.flat_shapes import MASK_PIXELS, write_shape
from agent.pool.pool import HostedModel
from agent.shapes.clipping import clip
from agent.shapes.geometry import area, coordinates
from agent.tracking import TrackStates, begin_tracking, follow

OLD = "rectangle"
"""The key of a state's name in an old server's state."""
ABOUT = "gateway"
"""A call does not tell its task; the picture's size and the model have to do."""


Ask = Callable[[Call, Request], bytes]
"""What asks the model, and gives the reply."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """A tracker and a picture."""

    hosted: HostedModel
    states: TrackStates
    frame: Frame
    digest: str
    """Names the picture's bytes: a call that is repeated brings the same."""

    def read(self, payload: Payload) -> Ask:
        """What is to be done: following where there are states, else beginning. Refused where it cannot be told."""
        allowed = "a list"
        states, shapes = payload.list("states", allowed), payload.list("shapes", allowed)
        if states:
            names = [_name(state, f"states[{number}]") for number, state in enumerate(states)]
            return lambda call, request: self._follow(states, names, call, request)
        if not shapes:
            raise Refused("shapes: got none, and no states, allowed: at least one of either")
        found, pixels = list[Shape](), 0
        for number, value in enumerate(shapes):
            found.append(shape := self._read(value, f"shapes[{number}]"))
            # A few numbers stand for a mask of the whole picture.
            pixels += shape.bitmap.size if isinstance(shape, Mask) else 0
            if pixels > MASK_PIXELS:
                raise Refused(
                    f"shapes: got masks of {pixels:,} pixels and more, allowed: {MASK_PIXELS:,} together", 413
                )
        return lambda call, request: self._begin(shapes, found, call, request)

    def _read(self, value: Any, name: str) -> Shape:
        if isinstance(value, list):
            return bare_rectangle(value, name)
        return asked_shape(value, name, (self.frame.width, self.frame.height))

    def _begin(self, sent: Sequence[Any], shapes: Sequence[Shape], call: Call, request: Request) -> bytes:
        names = call.wait(begin_tracking(self.hosted, self.states, self.frame, shapes, ABOUT), request)
        states = [{OLD: name} if isinstance(value, list) else name for name, value in zip(names, sent, strict=True)]
        return _written(sent, states)

    def _follow(self, sent: Sequence[Any], names: Sequence[str], call: Call, request: Request) -> bytes:
        followed = call.wait(follow(self.hosted, self.states, self.frame, names, ABOUT, self.digest), request)
        shapes = [
            self._seen(shape, isinstance(state, dict)) for shape, state in zip(followed.shapes, sent, strict=True)
        ]
        return _written(shapes, sent)

    def _seen(self, shape: Shape | None, bare: bool) -> Any:
        """A followed shape as far as it is in the picture, None where it is lost."""
        if shape is None or (inside := _inside(shape, self.frame)) is None:
            return None
        written = write_shape(inside)
        return written["points"] if bare else written


def _written(shapes: Sequence[Any], states: Sequence[Any]) -> bytes:
    return json.dumps({"shapes": shapes, "states": states}, separators=(",", ":"), allow_nan=False).encode()


def _name(state: Any, place: str) -> str:
    name = state.get(OLD) if isinstance(state, dict) else state
    if not isinstance(name, str):
        raise Refused(f"{place}: allowed: a state that this function has given")
    return name


def _inside(shape: Shape, frame: Frame) -> Shape | None:
    if not all(map(math.isfinite, coordinates(shape))) or (isinstance(shape, Mask) and not shape.bitmap.any()):
        return None
    if isinstance(shape, Rectangle) and not (shape.left < shape.right and shape.top < shape.bottom):
        return None
    parts = clip(shape, frame.width, frame.height)
    # A track's shape is one: of a polygon that leaves the picture and comes back, the largest part.
    return max(parts, key=lambda part: area(part) or 0.0, default=None)
