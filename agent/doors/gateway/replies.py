"""A detector's reply: the list of items that CVAT takes apart again.

One item outside its form costs the whole reply (and a batch request all that was not stored yet), so that nothing
leaves here that has not gone through the filters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.contract import Detection, Ellipse, Mask, Polygon, Rectangle, Shape, Skeleton
from agent.doors.gateway.naming import Naming, Target
from agent.flat_shapes import write_shape
from agent.ledger.content import DIGITS
from agent.shapes.geometry import tight
from agent.shapes.outlines import mask_to_polygons, polygon_to_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GROUPS = 1000
"""Groups of one picture; CVAT's are a job's, and a call does not tell its frame: the picture's digest stands for it."""
_PICTURES = 2_000_000


def write_reply(detections: Sequence[Detection], naming: Naming, size: tuple[int, int], digest: str) -> bytes:
    """The reply for a picture of `size` (width, height): JSON. Detections without a listed label are left out."""
    first = int(digest[:8], 16) % _PICTURES * _GROUPS
    groups = _Groups(first + 1)
    items: list[bytes] = []
    for detection in detections:
        target = naming.targets.get(detection.label)
        if target is None:
            continue
        shapes = _fitting(detection.shape, target.type, size)
        group = groups.of(detection.group, parts=len(shapes))
        for shape in shapes:
            if (item := _item(detection, shape, target, naming.score_attribute, group)) is not None:
                items.append(item)
    return b"[" + b",".join(items) + b"]"


class _Groups:
    """The group numbers of one picture."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._known: dict[int, int] = {}

    def of(self, group: int | None, parts: int) -> int | None:
        if group is None:
            return self._fresh() if parts > 1 else None
        if group not in self._known:
            self._known[group] = self._fresh()
        return self._known[group]

    def _fresh(self) -> int:
        self._next += 1
        return self._next - 1


def _fitting(shape: Shape | None, type_: str, size: tuple[int, int]) -> Sequence[Shape | None]:
    """The shape as its label is listed: CVAT does not look, and would store a mask under a label for polygons."""
    if isinstance(shape, Mask):
        if type_ == "polygon":
            return mask_to_polygons(shape)
        close = tight(shape)
        return [] if close is None else [close]
    if isinstance(shape, Polygon) and type_ == "mask":
        mask = polygon_to_mask(shape.points, *size)
        return [mask] if mask else []
    return [shape]


def _item(
    detection: Detection, shape: Shape | None, target: Target, score_attribute: str | None, group: int | None
) -> bytes | None:
    item: dict[str, Any] = {"label": target.name, "type": "tag" if shape is None else shape.type}
    values = {target.attributes[name]: value for name, value in detection.attributes.items()} | dict(target.fixed)
    if detection.score is not None:
        item["confidence"] = f"{float(detection.score):.4f}"
        if score_attribute:
            values.setdefault(score_attribute, str(round(100 * float(detection.score))))
    if values:
        item["attributes"] = _values(values)
    if group is not None:
        item["group_id"] = group
    if isinstance(shape, Mask):
        return _mask_item(item, shape)
    if isinstance(shape, Skeleton):
        item["elements"] = _elements(shape, target)
        if all(element["outside"] for element in item["elements"]):
            return None
    elif shape is not None:
        item |= drawn(shape)
    return _dumps(item)


def _values(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": str(value)} for name, value in values.items()]


def _elements(skeleton: Skeleton, target: Target) -> list[dict[str, Any]]:
    """The points that are listed; CVAT adds those that are missing."""
    found: dict[str, dict[str, Any]] = {}
    for point in skeleton.elements:
        if point.label not in target.sublabels:
            continue
        name, names = target.sublabels[point.label]
        element: dict[str, Any] = {"label": name, "type": "points", "points": _rounded((point.x, point.y))}
        element["outside"] = int(point.outside)
        if point.attributes:
            element["attributes"] = _values({names[key]: value for key, value in point.attributes.items()})
        found.setdefault(name, element)
    return list(found.values())


def drawn(shape: Shape) -> dict[str, Any]:
    """Type, points and rotation of a shape that is not a skeleton; masks as run lengths."""
    made = write_shape(shape)
    if isinstance(shape, Rectangle | Ellipse) and shape.rotation:
        made["rotation"] = round(float(shape.rotation) % 360, DIGITS) % 360
    return made


def _rounded(points: Iterable[float]) -> list[float]:
    # Adding 0.0 turns -0.0, which JSON keeps, into 0.0.
    return [round(float(number), DIGITS) + 0.0 for number in points]


def _mask_item(item: dict[str, Any], mask: Mask) -> bytes:
    """A mask as zeros and ones of its box, then the box; and its largest part as a polygon, which CVAT takes instead
    where the person asked for polygons."""
    rows, columns = mask.bitmap.shape
    box = (mask.left, mask.top, mask.left + columns - 1, mask.top + rows - 1)
    if outlines := mask_to_polygons(mask):
        item["points"] = _rounded(outlines[0].points)
    head = _dumps(item)
    return head[:-1] + b',"mask":[' + _bits(mask.bitmap) + b",".join(b"%d" % edge for edge in box) + b"]}"


def _bits(bitmap: NDArray[np.bool_]) -> bytes:
    """`0,1,1,` …: written as bytes, because a list of a million numbers takes json a tenth of a second."""
    text = np.empty((bitmap.size, 2), np.uint8)
    text[:, 0] = bitmap.ravel()
    text[:, 0] += ord("0")
    text[:, 1] = ord(",")
    return text.tobytes()


def _dumps(item: dict[str, Any]) -> bytes:
    return json.dumps(item, separators=(",", ":"), allow_nan=False).encode()
