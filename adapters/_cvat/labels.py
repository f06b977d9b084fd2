"""Labels of a CVAT function's spec as ours, and ours as a spec's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.contract import Attribute, Label


def model_labels(spec: Any) -> list[Label]:
    """The labels of a DetectionFunctionSpec, with attributes and sublabels."""
    return [_label(label) for label in spec.labels]


def _label(label: Any) -> Label:
    return Label(
        label.name,
        str(getattr(label, "type", None) or "any"),
        tuple(_attribute(attribute) for attribute in getattr(label, "attributes", None) or ()),
        tuple(_label(sublabel) for sublabel in getattr(label, "sublabels", None) or ()),
    )


def _attribute(attribute: Any) -> Attribute:
    kind = getattr(attribute.input_type, "value", attribute.input_type)
    return Attribute(attribute.name, str(kind), tuple(map(str, attribute.values)))


def spec_labels(labels: Sequence[Label]) -> list[Any]:
    """Labels for a DetectionFunctionSpec; a label's id is its place, so are those of attributes and sublabels."""
    from cvat_sdk import auto_annotation as cvataa

    made = []
    for number, label in enumerate(labels):
        attributes = _spec_attributes(label)
        if label.sublabels:
            points = [
                cvataa.keypoint_spec(sub.name, place, attributes=_spec_attributes(sub))
                for place, sub in enumerate(label.sublabels)
            ]
            made.append(cvataa.skeleton_label_spec(label.name, number, points, attributes=attributes))
        else:
            made.append(cvataa.label_spec(label.name, number, type=label.type, attributes=attributes))
    return made


def _spec_attributes(label: Label) -> list[Any]:
    from cvat_sdk import auto_annotation as cvataa

    return [
        cvataa.attribute_spec(attribute.name, place, attribute.input_type, list(attribute.values))
        for place, attribute in enumerate(label.attributes)
    ]
