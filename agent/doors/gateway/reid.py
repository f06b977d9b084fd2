"""Reidentifiers: the rectangles of two neighbouring frames in, which of the one is which of the other out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.activity import Request
from agent.contract import Rectangle
from agent.doors.gateway.call import Call, Refused
from agent.doors.gateway.payload import FARTHEST, Payload, Picture
from agent.doors.gateway.shapes import asked_shape
from agent.interaction import Embeddings
from agent.models.line import BATCH
from agent.pool.pool import HostedModel
from agent.predict import describe
from agent.shapes.clipping import clip
from agent.shapes.geometry import area

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOBODY = -1
MOST_PAIRS = 4_000_000
"""Of rectangles; the matching compares all with all."""
_FAR = 1e6


@dataclass(frozen=True, slots=True)
class Pair:
    """Two neighbouring frames and their rectangles."""

    pictures: tuple[Picture, Picture]
    boxes: tuple[list[Rectangle], list[Rectangle]]
    threshold: float
    """The largest cosine distance of two that are the same."""
    limit: float
    """The largest distance of their centres, in pixels."""

    @classmethod
    def read(cls, payload: Payload, call: Call) -> Pair:
        threshold, limit = payload.number("threshold", 0, 2), payload.number("max_distance", 0, FARTHEST)
        one, other = (_rectangles(payload, name) for name in ("boxes0", "boxes1"))
        if len(one) * len(other) > MOST_PAIRS:
            raise Refused(f"boxes: got {len(one)} and {len(other)}, allowed: {MOST_PAIRS:,} pairs", 413)
        pictures = payload.picture(call, "image0"), payload.picture(call, "image1")
        # CVAT's own values where it sends none.
        return cls(pictures, (one, other), 0.5 if threshold is None else threshold, 50.0 if limit is None else limit)


def match_pair(pair: Pair, hosted: HostedModel, embeddings: Embeddings, call: Call, request: Request) -> bytes:
    """The reply: for each rectangle of the first frame the place of its match in the second one's list, or -1.

    No place is given twice: CVAT would fail.
    """
    if not all(pair.boxes):
        return json.dumps([NOBODY] * len(pair.boxes[0])).encode()
    looks = [
        call.wait(_describe(hosted, embeddings, picture, boxes), request)
        for picture, boxes in zip(pair.pictures, pair.boxes, strict=True)
    ]
    return json.dumps(match(*pair.boxes, looks[0], looks[1], pair.threshold, pair.limit)).encode()


def _describe(
    hosted: HostedModel, embeddings: Embeddings, picture: Picture, boxes: Sequence[Rectangle]
) -> Future[NDArray[np.float32]]:
    """(N, D) descriptors; kept, because the second frame of a pair is the first one of the next."""
    key = (hosted.id, hosted.loaded.version, hosted.load, picture.digest, tuple(boxes))

    def looked() -> NDArray[np.float32]:
        frame = picture.frame
        # What lies outside looks like nothing: nobody's descriptor is zero.
        inside = [_inside(box, frame.width, frame.height) for box in boxes]
        places = [number for number, box in enumerate(inside) if box is not None]
        if not places:
            return np.zeros((len(boxes), 0), np.float32)
        looks = describe(hosted.loaded.model, frame, [box for box in inside if box is not None], hosted.id)
        filled = np.zeros((len(boxes), looks.shape[1]), np.float32)
        filled[places] = looks
        return filled

    def look() -> NDArray[np.float32]:
        found: NDArray[np.float32] = embeddings.get(key, looked)
        return found

    return hosted.host.call(look, BATCH)


def match(
    boxes0: Sequence[Rectangle],
    boxes1: Sequence[Rectangle],
    looks0: NDArray[np.float32],
    looks1: NDArray[np.float32],
    threshold: float,
    limit: float,
) -> list[int]:
    """The one-to-one matches that look most alike in all, within a cosine distance and a distance of centres."""
    from scipy.optimize import linear_sum_assignment

    if looks0.shape[1] != looks1.shape[1]:  # nothing of one of the frames is in its picture
        return [NOBODY] * len(boxes0)
    unlike = 1 - looks0.astype(np.float64) @ looks1.astype(np.float64).T
    seen = np.outer(looks0.any(axis=1), looks1.any(axis=1))
    apart = np.linalg.norm(_centres(boxes0)[:, None] - _centres(boxes1)[None], axis=2)
    allowed = (unlike <= threshold) & (apart <= limit) & seen
    # Among those that look the same the nearer ones.
    cost = np.where(allowed, unlike + 1e-6 * apart / max(limit, 1.0), _FAR)
    found = [NOBODY] * len(boxes0)
    for one, other in zip(*linear_sum_assignment(cost), strict=True):
        if allowed[one, other]:
            found[int(one)] = int(other)
    return found


def _rectangles(payload: Payload, name: str) -> list[Rectangle]:
    found = []
    for number, value in enumerate(payload.list(name, "a list of shapes")):
        shape = asked_shape(value, f"{name}[{number}]")
        if not isinstance(shape, Rectangle):
            raise Refused(f"{name}[{number}]: got a {shape.type}, allowed: rectangle")
        found.append(shape)
    return found


def _inside(box: Rectangle, width: int, height: int) -> Rectangle | None:
    if not area(box):
        return None
    parts = clip(box, width, height)
    return parts[0] if parts and isinstance(parts[0], Rectangle) else None


def _centres(boxes: Sequence[Rectangle]) -> NDArray[np.float64]:
    return np.array([((box.left + box.right) / 2, (box.top + box.bottom) / 2) for box in boxes], np.float64)
