"""What an annotation says, whatever the server has added to it: how one's own annotations are known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DIGITS = 2
"""Of coordinates: CVAT's own editor keeps hundredths of a pixel."""
_KEY = "content_key"
_LATER = "later"
_INNER = (("elements", "label_id"), ("shapes", "frame"))
"""Parts of an annotation that have attributes of their own, and what tells one from the other."""


def turn(degrees: float) -> float:
    """A rotation as it is sent and compared: 0 to 360 degrees."""
    return round(float(degrees) % 360, DIGITS) % 360


def content_key(item: Mapping[str, Any]) -> str:
    """Names what an annotation, or its fingerprint, says: the same for what was sent and what the server gives back.

    Leaves out ids, score, source and group, and attributes, to which the server adds its defaults.
    """
    if (known := item.get(_KEY)) is not None:
        return str(known)
    return hashlib.blake2b(json.dumps(_content(item)).encode(), digest_size=16).hexdigest()


def same_content(sent: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether a stored annotation is what was sent (or what its fingerprint tells of that): the same content, and the
    attributes that were sent. Or else what we have made of it later."""
    return any(
        content_key(one) == content_key(stored) and _same_attributes(one, stored)
        for one in (sent, *(sent.get(_LATER) or ()))
    )


def fingerprint(item: Mapping[str, Any]) -> dict[str, Any]:
    """As much of an annotation as `content_key` and `same_content` need to know it again."""
    more = {"source": item["source"]} if "source" in item else {}
    return {_KEY: content_key(item), "label_id": item.get("label_id"), **more, **_attributes(item)}


def changed_later(kept: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprint of an annotation that we have changed to `item`. What it was before is kept: it may be again."""
    return {**kept, _LATER: [*(kept.get(_LATER) or ()), fingerprint(item)]}


def _content(item: Mapping[str, Any]) -> list[Any]:
    elements = sorted(json.dumps(_content(element)) for element in item.get("elements") or ())
    if "shapes" in item:
        # At a job's border the server repeats a keyframe.
        keyframes = sorted({json.dumps(_content(shape)) for shape in item["shapes"]})
        return ["track", item.get("frame"), item.get("label_id"), keyframes, elements]
    points = [f"{round(number, DIGITS) + 0.0:.{DIGITS}f}" for number in item.get("points") or ()]
    place = [item.get("type", "tag"), item.get("frame"), item.get("label_id"), points]
    turned = f"{turn(item.get('rotation') or 0):.{DIGITS}f}"
    return [*place, turned, bool(item.get("occluded")), bool(item.get("outside")), item.get("z_order") or 0, elements]


def _attributes(item: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of an annotation and of its parts, where there are any."""
    kept: dict[str, Any] = {}
    if given := item.get("attributes"):
        kept["attributes"] = [{"spec_id": one["spec_id"], "value": one["value"]} for one in given]
    for part, known_by in _INNER:
        inner = [(one[known_by], _attributes(one)) for one in item.get(part) or ()]
        if found := [{known_by: name, **values} for name, values in inner if values]:
            kept[part] = found
    return kept


def _same_attributes(sent: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    values = {attribute["spec_id"]: attribute["value"] for attribute in stored.get("attributes") or ()}
    if any(values.get(a["spec_id"]) != a["value"] for a in sent.get("attributes") or ()):
        return False
    for part, known_by in _INNER:
        there = {inner[known_by]: inner for inner in stored.get(part) or ()}
        if not all(_same_attributes(inner, there.get(inner[known_by], {})) for inner in sent.get(part) or ()):
            return False
    return True
