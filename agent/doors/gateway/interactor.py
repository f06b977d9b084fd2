"""Interactors: clicks, boxes and words in, masks out."""

from __future__ import annotations

import json
import math
from typing import Any

from agent.contract import Detection, Ellipse, Mask, Polygon, PromptNeeds, Prompts, Rectangle, Shape, Skeleton
from agent.doors.gateway.call import Refused
from agent.doors.gateway.payload import Payload
from agent.doors.gateway.replies import drawn
from agent.filters import Filters, filter_detections
from agent.geometry import corners
from agent.labels import Thresholds
from agent.outlines import polygon_to_mask

CONFIDENCE = 0
"""The id of the attribute by which an interactor tells its score."""
_STEPS = 128
_EVERYTHING = Filters(Thresholds(0.0, {}, 0.0))


def asked_prompts(payload: Payload, needs: PromptNeeds) -> Prompts:
    """What was marked. Refused where it is nothing that the model understands."""
    prompts = Prompts(
        positive=payload.points("pos_points"),
        negative=payload.points("neg_points"),
        box=payload.box("obj_bbox"),
        texts=payload.texts("text_prompts"),
    )
    if prompts.positive or prompts.box is not None or (prompts.texts and needs.texts):
        return prompts
    if prompts.texts:
        raise Refused("text_prompts: this model understands no words, allowed: points or a box")
    raise Refused("prompts: got none, allowed: at least a positive point, a box or, for some models, words")


def write_masks(found: list[Detection], size: tuple[int, int]) -> bytes:
    """The reply for a picture of `size` (width, height), the best first.

    Masks as run lengths and not as rows of the whole picture, which CVAT would take too: they are a thousandth of it.
    """
    kept, _ = filter_detections(found, *size, _EVERYTHING)
    shapes = []
    for detection in kept:
        if detection.shape is None or (shape := _as_mask(detection.shape, size)) is None:
            continue
        item = drawn(shape)
        if detection.score is not None:
            item["attributes"] = [{"spec_id": CONFIDENCE, "value": f"{float(detection.score):.4f}"}]
        shapes.append(item)
    reply: dict[str, Any] = {"shapes": shapes}
    return json.dumps(reply, separators=(",", ":"), allow_nan=False).encode()


def _as_mask(shape: Shape, size: tuple[int, int]) -> Shape | None:
    """CVAT's editor shows masks only, and makes polygons of them where the annotator wants such."""
    if isinstance(shape, Rectangle):
        return polygon_to_mask(corners(shape), *size)
    if isinstance(shape, Polygon):
        return polygon_to_mask(shape.points, *size)
    if isinstance(shape, Ellipse):
        return polygon_to_mask(_around(shape), *size)
    if isinstance(shape, Mask):
        return shape if shape.bitmap.any() else None
    return None if isinstance(shape, Skeleton) else shape


def _around(ellipse: Ellipse) -> list[float]:
    """Points on an ellipse, close enough for a mask."""
    turn, points = math.radians(ellipse.rotation), list[float]()
    for step in range(_STEPS):
        across = ellipse.radius_x * math.cos(2 * math.pi * step / _STEPS)
        down = ellipse.radius_y * math.sin(2 * math.pi * step / _STEPS)
        points += [ellipse.x + across * math.cos(turn) - down * math.sin(turn)]
        points += [ellipse.y + across * math.sin(turn) + down * math.cos(turn)]
    return points
