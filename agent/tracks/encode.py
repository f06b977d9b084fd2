"""Tracks in CVAT's form. A job holds its own part of a track, as the server itself cuts them at the jobs' borders."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Mapping, Sequence
from typing import Any

from agent.domain import TaskLabel
from agent.ledger.content import DIGITS, turn
from agent.tracks.keyframes import Keyframe, place_at
from agent.tracks.link import Sighting


def encode_track(
    keyframes: Sequence[Keyframe], label: TaskLabel, start: int, stop: int, *, source: str = "auto", group: int = 0
) -> dict[str, Any] | None:
    """The part of a track in a job of the frames `start` to `stop` (inclusive), None where it is not in it.

    Attributes are taken from the sightings' items (CVAT's shapes): an attribute that cannot change has the value that
    most of them have, one that can is told at each keyframe.
    """
    part = _within(keyframes, start, stop)
    if not part:
        return None
    mutable = mutable_ids(label)
    items = [_item(keyframe.sighting) for keyframe in keyframes]
    return {
        "frame": part[0].frame,
        "label_id": label.id,
        "group": group,
        "source": source,
        "attributes": _settled(items, mutable),
        "shapes": [_shape(keyframe, mutable) for keyframe in part],
    }


def said(sighting: Sighting, mutable: Container[int]) -> Hashable:
    """What CVAT keeps from one keyframe to the next: flags, and the values of attributes that can change."""
    item = _item(sighting)
    values = sorted((a["spec_id"], a["value"]) for a in item.get("attributes", ()) if a["spec_id"] in mutable)
    return bool(item.get("occluded")), item.get("z_order") or 0, tuple(values)


def mutable_ids(label: TaskLabel) -> frozenset[int]:
    """The ids of the attributes that can change from frame to frame."""
    return frozenset(attribute.id for attribute in label.attributes if attribute.mutable)


def _within(keyframes: Sequence[Keyframe], start: int, stop: int) -> list[Keyframe]:
    """The keyframes of a job; at a border that the track crosses, one more says where it is there."""
    inside = [keyframe for keyframe in keyframes if start <= keyframe.frame <= stop]
    for border in (start, stop):
        if any(keyframe.frame == border for keyframe in inside):
            continue
        # What ends before the border needs no word there, and what stands still until it is gone says so later.
        if (place := place_at(keyframes, border)) is not None:
            inside.append(place)
    inside.sort(key=lambda keyframe: keyframe.frame)
    return inside if any(not keyframe.outside for keyframe in inside) else []


def _shape(keyframe: Keyframe, mutable: Container[int]) -> dict[str, Any]:
    item = _item(keyframe.sighting)
    shape: dict[str, Any] = {
        "type": "rectangle",
        "frame": keyframe.frame,
        "points": [round(float(value), DIGITS) for value in keyframe.box],
        "outside": keyframe.outside,
        "occluded": bool(item.get("occluded", False)),
        "attributes": [a for a in item.get("attributes", ()) if a["spec_id"] in mutable],
    }
    if item.get("z_order"):
        shape["z_order"] = item["z_order"]
    if rotation := turn(keyframe.rotation):
        shape["rotation"] = rotation
    return shape


def _settled(items: Sequence[Mapping[str, Any]], mutable: Container[int]) -> list[dict[str, Any]]:
    """For each attribute that cannot change, the value that most sightings have."""
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    for item in items:
        for attribute in item.get("attributes", ()):
            if attribute["spec_id"] not in mutable:
                votes[attribute["spec_id"]][attribute["value"]] += 1
    return [{"spec_id": spec, "value": count.most_common(1)[0][0]} for spec, count in sorted(votes.items())]


def _item(sighting: Sighting | None) -> Mapping[str, Any]:
    """CVAT's shape that a sighting was made of."""
    shape: Mapping[str, Any] = getattr(sighting.item, "shape", None) or {} if sighting is not None else {}
    return shape
