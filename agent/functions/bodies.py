"""Native functions that stand for our models in CVAT: what they are to say of them, and whether they still fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.contract import Attribute, Label, PromptNeeds
from agent.errors import ModelError
from agent.models.descriptions import Description
from agent.settings.tables import ModelSettings

PROVIDER = "native"
KINDS = ("detector", "interactor", "tracker")
"""CVAT has no native functions that re-identify."""
MATCHES_ALL = ("any", "unknown")
"""Types of labels that fit all."""


class NotCompatible(ModelError):
    """The function in CVAT promises what the model does not do."""

    @property
    def public(self) -> str:
        return "The model does not fit the function any more; its agent's log says why"


def kind_of(settings: ModelSettings, description: Description | None) -> str:
    """The kind of a model: of one that was never loaded here, its options may tell it."""
    return description.kind if description is not None else str(settings.options.get("kind", "detector"))


# ------------------------------------------------------------------ what they say


def function_body(settings: ModelSettings, description: Description, *, public: bool) -> dict[str, Any]:
    """What CVAT is told to make a function. ModelError for a kind that it does not know."""
    if description.kind not in KINDS:
        raise ModelError(f"{settings.id}: a {description.kind} has no native function, allowed: {', '.join(KINDS)}")
    try:
        description.check_menus()
    except ModelError as error:
        raise ModelError(f"{settings.id}: {error}") from error
    return {
        "provider": PROVIDER,
        "name": settings.title,
        "visibility": "public" if public else "private",
        "kind": description.kind,
        **_kind_fields(description),
    }


def _kind_fields(description: Description) -> dict[str, Any]:
    if description.kind == "detector":
        return {"labels_v2": [_label(label) for label in description.labels]}
    if description.kind == "tracker":
        return {"supported_shape_types": sorted(description.shape_types)}
    needs = description.needs or PromptNeeds()
    fields: dict[str, Any] = {"min_pos_points": needs.positive}
    if needs.negative is not None:
        fields["min_neg_points"] = needs.negative
    if needs.box != "no":
        fields["startswith_box" if needs.box == "required" else "startswith_box_optional"] = True
    return fields


def _label(label: Label) -> dict[str, Any]:
    said: dict[str, Any] = {"name": label.name, "attributes": [_attribute(a) for a in label.attributes]}
    if label.type != "any":
        said["type"] = label.type
    if label.sublabels:
        said["sublabels"] = [_label(sublabel) for sublabel in label.sublabels]
    return said


def _attribute(attribute: Attribute) -> dict[str, Any]:
    return {"name": attribute.name, "input_type": attribute.input_type, "values": list(attribute.values)}


# ------------------------------------------------------------------ whether they fit


def check_compatible(function: Mapping[str, Any], description: Description) -> None:
    """NotCompatible, with what differs, where the function promises more than the model does. We may do more."""
    place = f"function {function.get('id')}"
    if function.get("provider") != PROVIDER:
        raise NotCompatible(f"{place}: its provider is {function.get('provider')!r}, allowed: {PROVIDER!r}")
    if function.get("kind") != description.kind:
        raise NotCompatible(f"{place}: it is a {function.get('kind')}, the model is a {description.kind}")
    if description.kind == "detector":
        _check_labels(function.get("labels_v2") or [], description.labels, place)
    elif description.kind == "tracker":
        strange = sorted(set(function.get("supported_shape_types") or ()) - set(description.shape_types))
        if strange:
            able = ", ".join(sorted(description.shape_types))
            raise NotCompatible(f"{place}: it promises to follow {', '.join(strange)}, the model follows {able}")
    else:
        _check_prompts(function, description.needs or PromptNeeds(), place)


def _check_labels(
    promised: Sequence[Mapping[str, Any]], labels: Sequence[Label], place: str, what: str = "label"
) -> None:
    known = {label.name: label for label in labels}
    for entry in promised:
        name = f"{place}: {what} {entry['name']!r}"
        label = known.get(entry["name"])
        if label is None:
            raise NotCompatible(f"{name}: the model does not have it")
        kind = entry.get("type", "any")
        if kind not in MATCHES_ALL and kind != label.type:
            raise NotCompatible(f"{name}: it is of the type {kind}, the model's of the type {label.type}")
        _check_attributes(entry.get("attributes") or [], label.attributes, name)
        _check_labels(entry.get("sublabels") or [], label.sublabels, name, "point")


def _check_attributes(promised: Sequence[Mapping[str, Any]], attributes: Sequence[Attribute], place: str) -> None:
    known = {attribute.name: attribute for attribute in attributes}
    for entry in promised:
        name, attribute = f"{place}: attribute {entry['name']!r}", known.get(entry["name"])
        if attribute is None:
            raise NotCompatible(f"{name}: the model does not have it")
        if entry.get("input_type") != attribute.input_type:
            raise NotCompatible(f"{name}: it is a {entry.get('input_type')}, the model's a {attribute.input_type}")
        if list(entry.get("values") or ()) != list(attribute.values):
            raise NotCompatible(
                f"{name}: it has the values {entry.get('values')}, the model's {list(attribute.values)}"
            )


def _check_prompts(function: Mapping[str, Any], needs: PromptNeeds, place: str) -> None:
    """Whether everything that people may mark is something that the model takes, and enough for it."""
    positive, negative = function.get("min_pos_points", 0), function.get("min_neg_points", -1)
    if positive < needs.positive:
        raise NotCompatible(f"{place}: it takes {positive} positive points, the model needs {needs.positive}")
    if negative >= 0 and needs.negative is None:
        raise NotCompatible(f"{place}: it takes negative points, the model does not")
    if max(negative, 0) < (needs.negative or 0):
        raise NotCompatible(f"{place}: it takes {max(negative, 0)} negative points, the model needs {needs.negative}")
    box, may_box = function.get("startswith_box"), function.get("startswith_box_optional")
    if needs.box == "no" and (box or may_box):
        raise NotCompatible(f"{place}: it takes a box, the model does not")
    if needs.box == "required" and not box:
        raise NotCompatible(f"{place}: it does not ask for a box, the model needs one")
