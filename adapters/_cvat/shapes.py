"""Detections as the annotations that a CVAT function answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agent.contract import (
    BadPrediction,
    Detection,
    Ellipse,
    Frame,
    Label,
    Mask,
    Rectangle,
    Skeleton,
)


class AnnotationWriter:
    """Writes detections with the ids that `adapters._cvat.labels.spec_labels` gives the same labels."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self._labels = {label.name: (number, label) for number, label in enumerate(labels)}

    def write(self, detection: Detection, frame: Frame, masks_as_polygons: bool) -> list[Any]:
        """The annotation of a detection; several polygons where a mask in pieces must not stay a mask."""
        from cvat_sdk import auto_annotation as cvataa

        if detection.label not in self._labels:
            raise BadPrediction(f"the model gave the unknown label {detection.label!r}")
        number, label = self._labels[detection.label]
        attributes = _attributes(detection.attributes, label)
        shape = detection.shape
        if shape is None:
            return [cvataa.tag(number, attributes=attributes)]
        more: dict[str, Any] = {"attributes": attributes, "occluded": detection.occluded}
        more |= {"z_order": detection.z_order}
        if detection.group is not None:
            more["group"] = detection.group
        if detection.score is not None:
            more["score"] = float(detection.score)
        if isinstance(shape, Skeleton):
            return [cvataa.skeleton(number, _elements(shape, label), **more)]
        if isinstance(shape, Mask) and masks_as_polygons:
            return [cvataa.polygon(number, points, **more) for points in _outlines(shape)]
        if isinstance(shape, (Rectangle, Ellipse)):
            more["rotation"] = shape.rotation % 360
        return [cvataa.shape(number, type=shape.type, points=flat_points(shape, frame), **more)]


def flat_points(shape: Any, frame: Frame) -> list[float]:
    """The points of a shape without parts, as CVAT writes them."""
    if isinstance(shape, Rectangle):
        return [shape.left, shape.top, shape.right, shape.bottom]
    if isinstance(shape, Ellipse):  # CVAT: centre, right edge, top edge
        return [shape.x, shape.y, shape.x + shape.radius_x, shape.y - shape.radius_y]
    if isinstance(shape, Mask):
        return _run_lengths(shape, frame)
    return list(shape.points)


def _run_lengths(mask: Mask, frame: Frame) -> list[float]:
    from cvat_sdk.masks import encode_mask

    whole = np.zeros((frame.height, frame.width), bool)
    height, width = mask.bitmap.shape
    whole[mask.top : mask.top + height, mask.left : mask.left + width] = mask.bitmap
    points: list[float] = encode_mask(whole)
    return points


def _outlines(mask: Mask) -> list[list[float]]:
    """The outer outline of each piece of a mask, in frame pixels; pieces without an area are left out."""
    import cv2

    found, _ = cv2.findContours(
        mask.bitmap.astype(np.uint8),
        cv2.RETR_EXTERNAL,
        cv2.CHAIN_APPROX_SIMPLE,
        offset=(mask.left, mask.top),
    )
    return [line.reshape(-1).astype(float).tolist() for line in found if len(line) >= 3]


def _elements(skeleton: Skeleton, label: Label) -> list[Any]:
    """An element for every sublabel: CVAT wants them all; what the model did not give is outside."""
    from cvat_sdk import auto_annotation as cvataa

    given = {element.label: element for element in skeleton.elements}
    made = []
    for number, sublabel in enumerate(label.sublabels):
        if (element := given.get(sublabel.name)) is None:
            made.append(cvataa.keypoint(number, [0.0, 0.0], outside=True))
            continue
        made.append(
            cvataa.keypoint(
                number,
                [element.x, element.y],
                outside=element.outside,
                occluded=element.occluded,
                attributes=_attributes(element.attributes, sublabel),
            )
        )
    return made


def _attributes(values: Mapping[str, str], label: Label) -> list[Any]:
    from cvat_sdk import models

    numbers = {attribute.name: number for number, attribute in enumerate(label.attributes)}
    if unknown := values.keys() - numbers.keys():
        raise BadPrediction(f"the model gave {label.name!r} the unknown attribute {sorted(unknown)[0]!r}")
    return [models.AttributeValRequest(spec_id=numbers[name], value=value) for name, value in values.items()]
