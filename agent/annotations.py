"""Detections in CVAT's form: label ids, flat points, RLE masks, skeleton elements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.contract import Detection, Ellipse, Keypoint, Mask, Polygon, Rectangle, Shape, Skeleton
from agent.domain import TaskAttribute, TaskLabel
from agent.labels.attribute_values import valid_value
from agent.labels.matching import LabelMatch, LabelTarget
from agent.ledger.content import DIGITS, turn
from agent.shapes.outlines import mask_to_polygons, polygon_to_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNSEEN = "skeleton without a visible point"
"""Why a skeleton is left out; models mark as outside what they are not sure of, too."""
GROUPS_PER_FRAME = 1000
"""CVAT's groups are a job's, a detection's are its frame's: each frame gets numbers of its own."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How annotations are to look."""

    masks_as_polygons: bool = False
    """But for labels of the type mask, which cannot hold polygons."""
    tolerance: float = 1.0
    """Of these polygons, in pixels."""
    min_area: float = 0.0
    """In square pixels: smaller parts of what becomes several of these polygons are left out."""
    source: str = "auto"


@dataclass(slots=True)
class FrameAnnotations:
    """One frame's share of CVAT's labeled data."""

    tags: list[dict[str, Any]] = field(default_factory=list)
    shapes: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """What could not be said in the task's labels (shapes and attribute values), by reason."""


def encode(
    detections: Sequence[Detection], match: LabelMatch, frame: int, size: tuple[int, int], output: OutputOptions
) -> FrameAnnotations:
    """The annotations of a frame of `size` (width, height). Labels without a target are left out."""
    found = FrameAnnotations()
    groups = _Groups(frame)
    for detection in detections:
        target = match.targets.get(detection.label)
        if target is None:
            continue
        shapes = _fitting(detection.shape, target.label, size, output)
        if isinstance(shapes, str):
            found.left_out[shapes] += 1
            continue
        item: dict[str, Any] = {
            "frame": frame,
            "label_id": target.label.id,
            "source": output.source,
            "group": groups.of(detection.group, parts=len(shapes)),
            "attributes": _attributes(detection.attributes, target.attributes, target.fixed, found.left_out),
        }
        if detection.shape is None:
            found.tags.append(item)
            continue
        item["occluded"], item["z_order"] = bool(detection.occluded), int(detection.z_order)
        if detection.score is not None:
            item["score"] = round(float(detection.score), 4)
        for shape in shapes:
            drawn = _drawn(shape, target, frame, output, found.left_out)
            if drawn is not None:
                found.shapes.append({**item, **drawn})
    return found


def as_drawn(
    detections: Sequence[Detection], match: LabelMatch, size: tuple[int, int], output: OutputOptions
) -> list[Detection]:
    """The detections of a frame under the task's names, with the shapes that `encode` makes of them: for pictures."""
    found: list[Detection] = []
    for detection in detections:
        if (target := match.targets.get(detection.label)) is None:
            continue
        shapes = _fitting(detection.shape, target.label, size, output)
        parts = () if isinstance(shapes, str) else shapes or (None,)
        found += [replace(detection, label=target.label.name, shape=part) for part in parts]
    return found


class _Groups:
    """The group numbers of one frame."""

    def __init__(self, frame: int) -> None:
        self._last = frame * GROUPS_PER_FRAME
        self._known: dict[int, int] = {}

    def of(self, group: int | None, parts: int) -> int:
        """The number for a detection's group; parts of one detection are a group of their own; else 0, for none."""
        if group is None:
            return self._fresh() if parts > 1 else 0
        if group not in self._known:
            self._known[group] = self._fresh()
        return self._known[group]

    def _fresh(self) -> int:
        self._last += 1
        return self._last


def _fitting(
    shape: Shape | None, label: TaskLabel, size: tuple[int, int], output: OutputOptions
) -> Sequence[Shape] | str:
    """The shape as the task's label takes it: a mask may become polygons, a polygon a mask. Or why it does not."""
    kind = "tag" if shape is None else shape.type
    if isinstance(shape, Mask) and (label.type == "polygon" or (output.masks_as_polygons and label.type == "any")):
        return mask_to_polygons(shape, output.tolerance, output.min_area) or "mask too small for a polygon"
    if isinstance(shape, Mask) and not shape.bitmap.any():
        return "empty mask"
    if isinstance(shape, Polygon) and label.type == "mask":
        mask = polygon_to_mask(shape.points, *size)
        return [mask] if mask else "polygon too small for a mask"
    if label.type != kind and (label.type != "any" or kind == "skeleton"):
        return f"{kind} for {label.name!r}, which takes {label.type}"
    return [] if shape is None else [shape]


def _drawn(
    shape: Shape, target: LabelTarget, frame: int, output: OutputOptions, left_out: Counter[str]
) -> dict[str, Any] | None:
    """The part of an annotation that says what is drawn."""
    if isinstance(shape, Rectangle):
        drawn = {"type": "rectangle", "points": _rounded((shape.left, shape.top, shape.right, shape.bottom))}
        return {**drawn, "rotation": turn(shape.rotation)} if shape.rotation else drawn
    if isinstance(shape, Ellipse):
        points = _rounded((shape.x, shape.y, shape.x + shape.radius_x, shape.y - shape.radius_y))
        return {"type": "ellipse", "points": points, "rotation": turn(shape.rotation)}
    if isinstance(shape, Mask):
        return {"type": "mask", "points": encode_mask(shape)}
    if isinstance(shape, Skeleton):
        elements = _elements(shape, target, frame, output, left_out)
        if all(element["outside"] for element in elements):
            left_out[UNSEEN] += 1
            return None
        return {"type": "skeleton", "points": [], "elements": elements}
    return {"type": shape.type, "points": _rounded(shape.points)}


def _rounded(points: Iterable[float]) -> list[float]:
    # Adding 0.0 turns -0.0, which JSON keeps, into 0.0.
    return [round(float(number), DIGITS) + 0.0 for number in points]


def _elements(
    skeleton: Skeleton, target: LabelTarget, frame: int, output: OutputOptions, left_out: Counter[str]
) -> list[dict[str, Any]]:
    """Every sublabel of the task's label exactly once; those that the model did not see are outside, in the middle."""
    places = {e.label: target.sublabels[e.label] for e in skeleton.elements if e.label in target.sublabels}
    points = {places[e.label].label.id: e for e in skeleton.elements if e.label in places}
    seen = [e for e in points.values() if not e.outside] or list(skeleton.elements)
    x, y = sum(e.x for e in seen) / len(seen), sum(e.y for e in seen) / len(seen)
    elements = []
    for sublabel in target.label.sublabels:
        point = points.get(sublabel.id) or Keypoint(sublabel.name, x, y, outside=True)
        names = places[point.label].attributes if sublabel.id in points else {}
        elements.append(
            {
                "type": "points",
                "frame": frame,
                "label_id": sublabel.id,
                "points": _rounded((point.x, point.y)),
                "outside": bool(point.outside),
                "occluded": bool(point.occluded),
                "source": output.source,
                "attributes": _attributes(point.attributes, names, {}, left_out),
            }
        )
    return elements


def _attributes(
    given: Mapping[str, str],
    attributes: Mapping[str, TaskAttribute],
    fixed: Mapping[int, str],
    left_out: Counter[str],
) -> list[dict[str, Any]]:
    """Values that the task's attributes allow; the server gives the others their default."""
    if not given and not fixed:
        return []
    values = {}
    for name, value in given.items():
        if (attribute := attributes.get(name)) is not None:
            valid, _ = valid_value(attribute, value)
            if valid is None:
                left_out[f"value that attribute {attribute.name!r} does not allow"] += 1
            else:
                values[attribute.id] = valid
    values.update(fixed)
    return [{"spec_id": number, "value": value} for number, value in sorted(values.items())]


def encode_mask(mask: Mask) -> list[int]:
    """CVAT's RLE: lengths of runs, the first of zeros, row by row in a box, then the box, far edges inclusive.

    The mask must not be empty. As cvat_sdk.masks.encode_mask does it.
    """
    rows = np.flatnonzero(mask.bitmap.any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1])
    columns = np.flatnonzero(mask.bitmap[top : bottom + 1].any(axis=0))
    left, right = int(columns[0]), int(columns[-1])
    flat: NDArray[np.bool_] = mask.bitmap[top : bottom + 1, left : right + 1].ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff(np.concatenate(([0], changes, [flat.size]))).tolist()
    if flat[0]:
        runs.insert(0, 0)
    return [*runs, mask.left + left, mask.top + top, mask.left + right, mask.top + bottom]
