"""What a CVAT function answers, read into detections, and held to the rules of the SDK's DetectionFunction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.contract import (
    BadPrediction,
    Cuboid,
    Detection,
    Ellipse,
    Frame,
    Keypoint,
    Mask,
    Points,
    Polygon,
    Polyline,
    Rectangle,
    Shape,
    Skeleton,
)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a label or sublabel of the spec allows."""

    name: str
    type: str
    attributes: Mapping[int, tuple[str, Callable[[str], bool]]]
    sublabels: Mapping[int, _Known]


class AnnotationReader:
    """Reads the tags and shapes of one function; its spec says which ids there are."""

    def __init__(self, spec: Any) -> None:
        self._labels = {label.id: _known(label) for label in spec.labels}

    def read(self, annotations: Any, frame: Frame, *, no_masks: bool = False) -> list[Detection]:
        """The detections of a frame; BadPrediction where an annotation breaks a rule."""
        from cvat_sdk import models

        if isinstance(annotations, str) or not isinstance(annotations, Iterable):
            raise BadPrediction(
                f"detect answered with a {type(annotations).__name__}, allowed: a sequence of annotations"
            )
        found = []
        for annotation in annotations:
            if isinstance(annotation, models.LabeledImageRequest):
                label = self._label(annotation, "tag")
                _check_type("tag", label)
                found.append(Detection(label.name, None, attributes=_attributes(annotation, label)))
            elif isinstance(annotation, models.LabeledShapeRequest):
                found.append(self._shape(annotation, frame, no_masks))
            else:
                got = type(annotation).__name__
                raise BadPrediction(f"got a {got}, allowed: LabeledShapeRequest, LabeledImageRequest")
        return found

    def _label(self, annotation: Any, what: str) -> _Known:
        _check_fresh(annotation, what)
        if (label := self._labels.get(annotation.label_id)) is None:
            raise BadPrediction(f"a {what} with the unknown label id {annotation.label_id}")
        return label

    def _shape(self, annotation: Any, frame: Frame, no_masks: bool) -> Detection:
        label = self._label(annotation, "shape")
        kind = annotation.type.value
        _check_type(kind, label)
        if kind == "mask" and no_masks:
            raise BadPrediction("a mask, although polygons were asked for (conv_mask_to_poly)")
        if kind != "skeleton" and getattr(annotation, "elements", None):
            raise BadPrediction(f"a {kind} with elements")
        try:
            shape = _skeleton(annotation, label) if kind == "skeleton" else _plain(annotation, kind, frame)
        except (ValueError, TypeError, IndexError) as error:
            raise BadPrediction(f"a {kind} of the label {label.name!r}: {error}") from error
        return Detection(
            label.name,
            shape,
            getattr(annotation, "score", None),
            _attributes(annotation, label),
            group=getattr(annotation, "group", None) or None,
            occluded=bool(getattr(annotation, "occluded", False)),
            z_order=int(getattr(annotation, "z_order", 0)),
        )


def _known(label: Any) -> _Known:
    from cvat_sdk.attributes import attribute_value_validator

    return _Known(
        label.name,
        str(getattr(label, "type", None) or "any"),
        {a.id: (a.name, attribute_value_validator(a)) for a in getattr(label, "attributes", None) or ()},
        {sub.id: _known(sub) for sub in getattr(label, "sublabels", None) or ()},
    )


def _check_fresh(annotation: Any, what: str) -> None:
    for name in ("id", "source"):
        if hasattr(annotation, name):
            raise BadPrediction(f"a {what} with a preset {name}")
    if annotation.frame != 0:
        raise BadPrediction(f"a {what} with the frame number {annotation.frame}, allowed: 0")


def _check_type(kind: str, label: _Known) -> None:
    if label.type not in ("any", kind):
        raise BadPrediction(f"a {kind} of the label {label.name!r}, allowed: {label.type}")


def _attributes(annotation: Any, label: _Known) -> dict[str, str]:
    values: dict[str, str] = {}
    for attribute in getattr(annotation, "attributes", None) or ():
        if attribute.spec_id not in label.attributes:
            raise BadPrediction(f"the label {label.name!r} with the unknown attribute id {attribute.spec_id}")
        name, allows = label.attributes[attribute.spec_id]
        if name in values:
            raise BadPrediction(f"the label {label.name!r} with the attribute {name!r} twice")
        if not allows(attribute.value):
            raise BadPrediction(f"the attribute {name!r} with the value {attribute.value!r}, which its spec forbids")
        values[name] = attribute.value
    return values


def _skeleton(annotation: Any, label: _Known) -> Skeleton:
    elements = []
    for element in annotation.elements:
        _check_fresh(element, "skeleton element")
        if element.type.value != "points":
            raise BadPrediction(f"a skeleton element of type {element.type.value}, allowed: points")
        if (sublabel := label.sublabels.get(element.label_id)) is None:
            raise BadPrediction(f"a skeleton element with the unknown sublabel id {element.label_id}")
        x, y = element.points
        elements.append(
            Keypoint(
                sublabel.name,
                x,
                y,
                outside=bool(getattr(element, "outside", False)),
                occluded=bool(getattr(element, "occluded", False)),
                attributes=_attributes(element, sublabel),
            )
        )
    if len(elements) < len(label.sublabels):
        raise BadPrediction(f"a skeleton with {len(elements)} elements, allowed: all {len(label.sublabels)}")
    return Skeleton(tuple(elements))


def _plain(annotation: Any, kind: str, frame: Frame) -> Shape:
    rotation = float(getattr(annotation, "rotation", 0.0))
    return plain_shape(kind, tuple(annotation.points), frame.width, frame.height, rotation)


def plain_shape(kind: str, points: tuple[float, ...], width: int, height: int, rotation: float = 0.0) -> Shape:
    """A shape without parts, of CVAT's flat points; the size is the picture's. ValueError where that cannot be.

    CVAT writes an ellipse as centre, right edge, top edge.
    """
    if kind == "rectangle":
        left, top, right, bottom = _exactly(points, 4)
        return Rectangle(left, top, right, bottom, rotation)
    if kind == "ellipse":
        x, y, right, top = _exactly(points, 4)
        return Ellipse(x, y, right - x, y - top, rotation)
    if kind == "mask":
        return _mask(points, width, height)
    makers: dict[str, Callable[[tuple[float, ...]], Shape]] = {
        "polygon": Polygon,
        "polyline": Polyline,
        "points": Points,
        "cuboid": Cuboid,
    }
    if kind not in makers:
        raise ValueError(f"got the type {kind}, allowed: rectangle, ellipse, mask, {', '.join(makers)}")
    return makers[kind](points)


def _exactly(points: Sequence[float], count: int) -> Sequence[float]:
    if len(points) != count:
        raise ValueError(f"got {len(points)} numbers, allowed: {count}")
    return points


def _mask(points: Sequence[float], width: int, height: int) -> Mask:
    """CVAT's run lengths and box as a bitmap of the box alone."""
    from cvat_sdk.masks import decode_mask

    bitmap = decode_mask(points, image_width=width, image_height=height)
    left, top, right, bottom = (int(value) for value in points[-4:])
    return Mask(bitmap[top : bottom + 1, left : right + 1], left, top)
