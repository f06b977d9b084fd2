"""Detections in CVAT's form: label ids, flat points, RLE masks, skeleton elements, and how to know one's own again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.contract import Detection, Ellipse, Keypoint, Mask, Polygon, Rectangle, Shape, Skeleton
from agent.domain import TaskLabel
from agent.labels import LabelMatch, LabelTarget, valid_value
from agent.outlines import mask_to_polygons, polygon_to_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS = 2
"""Of coordinates: CVAT's own editor keeps hundredths of a pixel."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How annotations are to look."""

    masks_as_polygons: bool = False
    tolerance: float = 1.0
    """Of these polygons, in pixels."""
    source: str = "auto"


@dataclass(slots=True)
class FrameAnnotations:
    """One frame's share of CVAT's labeled data."""

    tags: list[dict[str, Any]] = field(default_factory=list)
    shapes: list[dict[str, Any]] = field(default_factory=list)


def encode(
    detections: Sequence[Detection], match: LabelMatch, frame: int, size: tuple[int, int], output: OutputOptions
) -> FrameAnnotations:
    """The annotations of a frame of `size` (width, height). Labels without a target are left out."""
    found = FrameAnnotations()
    groups = _Groups(detections)
    for detection in detections:
        target = match.targets.get(detection.label)
        if target is None:
            continue
        item = {
            "frame": frame,
            "label_id": target.label.id,
            "group": detection.group or 0,
            "source": output.source,
            "attributes": _attributes(detection.attributes, target),
        }
        if detection.shape is None:
            found.tags.append(item)
            continue
        shapes = _fitting(detection.shape, target.label, size, output)
        if len(shapes) > 1:
            item["group"] = item["group"] or groups.fresh()
        more: dict[str, Any] = {"occluded": detection.occluded, "outside": False, "z_order": detection.z_order}
        if detection.score is not None:
            more["score"] = round(float(detection.score), 4)
        found.shapes += [{**item, **more, **_shape(shape, target, frame, output)} for shape in shapes]
    return found


class _Groups:
    """Group numbers that no detection of the frame has."""

    def __init__(self, detections: Sequence[Detection]) -> None:
        self._last = max((detection.group or 0 for detection in detections), default=0)

    def fresh(self) -> int:
        self._last += 1
        return self._last


def _fitting(shape: Shape, label: TaskLabel, size: tuple[int, int], output: OutputOptions) -> list[Shape]:
    """The shape as the task's label takes it: a mask may become polygons, a polygon a mask."""
    if isinstance(shape, Mask) and (label.type == "polygon" or (output.masks_as_polygons and label.type == "any")):
        return list(mask_to_polygons(shape, output.tolerance))
    if isinstance(shape, Mask) and output.masks_as_polygons:
        return list(mask_to_polygons(shape, output.tolerance)) if label.type != "mask" else [shape]
    if isinstance(shape, Polygon) and label.type == "mask":
        mask = polygon_to_mask(shape.points, *size)
        return [mask] if mask else []
    return [shape]


def _shape(shape: Shape, target: LabelTarget, frame: int, output: OutputOptions) -> dict[str, Any]:
    made: dict[str, Any] = {"type": shape.type, "rotation": 0.0, "points": [], "elements": []}
    if isinstance(shape, Rectangle):
        made["points"] = _rounded((shape.left, shape.top, shape.right, shape.bottom))
        made["rotation"] = round(shape.rotation % 360, DIGITS) % 360
    elif isinstance(shape, Ellipse):
        made["points"] = _rounded((shape.x, shape.y, shape.x + shape.radius_x, shape.y - shape.radius_y))
        made["rotation"] = round(shape.rotation % 360, DIGITS) % 360
    elif isinstance(shape, Mask):
        made["points"] = encode_mask(shape)
    elif isinstance(shape, Skeleton):
        made["elements"] = _elements(shape, target, frame, output)
    else:
        made["points"] = _rounded(shape.points)
    return made


def _rounded(points: Sequence[float]) -> list[float]:
    return [round(float(number), DIGITS) for number in points]


def _elements(skeleton: Skeleton, target: LabelTarget, frame: int, output: OutputOptions) -> list[dict[str, Any]]:
    """Every sublabel of the task's label exactly once; those that the model did not see are outside, in the middle."""
    seen = {target.sublabels[e.label].id: e for e in skeleton.elements if e.label in target.sublabels}
    inside = [e for e in skeleton.elements if not e.outside] or list(skeleton.elements)
    x, y = sum(e.x for e in inside) / len(inside), sum(e.y for e in inside) / len(inside)
    elements = []
    for sublabel in target.label.sublabels:
        point = seen.get(sublabel.id) or Keypoint(sublabel.name, x, y, outside=True)
        attributes = [
            {"spec_id": a.id, "value": value}
            for a in sublabel.attributes
            if a.name in point.attributes and (value := valid_value(a, point.attributes[a.name])[0]) is not None
        ]
        elements.append(
            {
                "type": "points",
                "frame": frame,
                "label_id": sublabel.id,
                "points": _rounded((point.x, point.y)),
                "outside": point.outside,
                "occluded": point.occluded,
                "source": output.source,
                "attributes": attributes,
            }
        )
    return elements


def _attributes(given: Mapping[str, str], target: LabelTarget) -> list[dict[str, Any]]:
    """Values that the task's attributes allow; others are left to the attribute's default."""
    values = dict(target.fixed)
    for name, attribute in target.attributes.items():
        if name in given:
            valid, _ = valid_value(attribute, given[name])
            if valid is not None:
                values[attribute.id] = valid
    return [{"spec_id": number, "value": value} for number, value in sorted(values.items())]


def encode_mask(mask: Mask) -> list[int]:
    """CVAT's RLE: lengths of runs, the first of zeros, row by row in a box, then the box, far edges inclusive."""
    rows, columns = np.flatnonzero(mask.bitmap.any(axis=1)), np.flatnonzero(mask.bitmap.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    flat: NDArray[np.bool_] = mask.bitmap[top : bottom + 1, left : right + 1].ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], changes, [flat.size]))).tolist()
    if flat[0]:
        runs.insert(0, 0)
    return [*runs, mask.left + left, mask.top + top, mask.left + right, mask.top + bottom]


# ----------------------------------------------------------- knowing one's own again


def content_key(item: Mapping[str, Any]) -> str:
    """What an annotation says, as text: the same for what was sent and what the server gives back.

    Leaves out ids, score, source and group, and attributes, to which the server adds its defaults.
    """
    if "shapes" in item:
        keyframes = [content_key(shape) for shape in item["shapes"]]
        return json.dumps(["track", item["frame"], item["label_id"], keyframes])
    elements = sorted(content_key(element) for element in item.get("elements") or ())
    points = [f"{number:.{DIGITS}f}" for number in item.get("points") or ()]
    place = [item.get("frame"), item.get("label_id"), item.get("type", "tag"), points]
    drawn = [f"{item.get('rotation') or 0:.{DIGITS}f}", *(bool(item.get(name)) for name in ("occluded", "outside"))]
    return json.dumps([*place, *drawn, item.get("z_order") or 0, elements])


def same_content(sent: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether a stored annotation is what was sent: the same content, and the attributes that were sent."""
    if content_key(sent) != content_key(stored):
        return False
    values = {attribute["spec_id"]: attribute["value"] for attribute in stored.get("attributes") or ()}
    return all(values.get(a["spec_id"]) == a["value"] for a in sent.get("attributes") or ())
