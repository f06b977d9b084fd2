"""Tracks over several jobs: cut at the jobs' borders when stored, put together again when a task is read.

The rules are those that CVAT shows. In the overlap of two jobs the same thing is found twice: rectangles are
then compared by their areas, all else by being equal.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

from agent.sandbox.records import JSON

_SHAPES_ALIKE = 0.75
_TRACKS_ALIKE = 0.5
_LINEAR = ("rectangle", "ellipse", "cuboid")


def interpolated(track: JSON, frame: int) -> JSON | None:
    """How a track looks at a frame; None before its beginning. A hidden keyframe hides until the next."""
    left = right = None
    for shape in track["shapes"]:
        if shape["frame"] <= frame:
            left = shape
        elif right is None:
            right = shape
    if left is None:
        return None
    looks: JSON = copy.deepcopy(left)
    if left["frame"] == frame:
        return looks
    looks["frame"], looks["id"] = frame, None
    if right is not None and not left["outside"] and _moves(left, right):
        part = (frame - left["frame"]) / (right["frame"] - left["frame"])
        looks["points"] = [a + (b - a) * part for a, b in zip(left["points"], right["points"], strict=True)]
        # The shorter way round.
        turn = (right["rotation"] - left["rotation"] + 180) % 360 - 180
        looks["rotation"] = (left["rotation"] + turn * part) % 360
    return looks


def _moves(left: JSON, right: JSON) -> bool:
    if left["type"] != right["type"] or len(left["points"]) != len(right["points"]):
        return False
    return left["type"] in (*_LINEAR, "polygon", "polyline") or (left["type"] == "points" and len(left["points"]) == 2)


def cut(track: JSON, start: int, stop: int) -> JSON | None:
    """The part of a track in the frames start..stop (inclusive), or None if it is not to be seen there."""
    if not _is_inside(track, start, stop):
        return None
    inside = [copy.deepcopy(shape) for shape in track["shapes"] if start <= shape["frame"] <= stop]
    if len(inside) < len(track["shapes"]):
        inside = _with_ends(track, inside, start, stop)
    while inside and inside[0]["outside"]:
        inside.pop(0)
    if not inside:
        return None
    part = {**track, "frame": inside[0]["frame"], "shapes": inside}
    if "elements" in track:
        part["elements"] = [cut(e, start, stop) or _hidden(e, inside[0]["frame"]) for e in track["elements"]]
    return part


def _with_ends(track: JSON, inside: list[JSON], start: int, stop: int) -> list[JSON]:
    """Keyframes for how the track looks where the part begins and ends."""
    first, last = interpolated(track, start), interpolated(track, stop)
    if first is not None and not first["outside"] and (not inside or inside[0]["frame"] != start):
        inside = [first, *inside]
    if not inside or last is None or track["shapes"][-1]["frame"] < stop or inside[-1]["frame"] == stop:
        return inside
    looks = ("points", "outside", "rotation")
    return inside if all(last[name] == inside[-1][name] for name in looks) else [*inside, last]


def _hidden(element: JSON, frame: int) -> JSON:
    """An element of a skeleton that is not to be seen in a part keeps its place there, hidden."""
    shape = {**copy.deepcopy(element["shapes"][0]), "frame": frame, "outside": True, "id": None}
    return {**element, "frame": frame, "shapes": [shape]}


def _is_inside(track: JSON, start: int, stop: int) -> bool:
    shapes = track["shapes"]
    if stop < shapes[0]["frame"]:
        return False
    for left, right in pairwise(shapes):
        if not left["outside"] and left["frame"] <= stop and start <= right["frame"]:
            return True
    return not shapes[-1]["outside"] and shapes[-1]["frame"] <= stop


def merge(parts: Sequence[tuple[int, int, dict[str, list[JSON]]]]) -> dict[str, list[JSON]]:
    """One list from those of jobs in frame order, each with its first and last frame; overlaps are united."""
    merged: dict[str, list[JSON]] = {"tags": [], "shapes": [], "tracks": []}
    previous_stop = -1
    for start, stop, part in parts:
        overlap = max(0, previous_stop - start + 1)
        for kind, alike in (("tags", _tags_alike), ("shapes", shapes_alike)):
            _merge_single(merged[kind], part[kind], start, overlap, alike)
        _merge_tracks(merged["tracks"], part["tracks"], start, overlap)
        previous_stop = stop
    return merged


def _tags_alike(one: JSON, other: JSON) -> float:
    return float(one["label_id"] == other["label_id"])


def shapes_alike(one: JSON, other: JSON) -> float:
    """0..1: how likely two shapes are the same thing; by areas for rectangles, else by equality."""
    if one["type"] != other["type"] or one.get("label_id") != other.get("label_id"):
        return 0.0
    if one["type"] != "rectangle":
        looks = ("points", "rotation")
        same = all(one[name] == other[name] for name in looks)
        inner = [e["points"] for e in one.get("elements", [])] == [e["points"] for e in other.get("elements", [])]
        return float(same and inner)
    left, top = max(one["points"][0], other["points"][0]), max(one["points"][1], other["points"][1])
    right, bottom = min(one["points"][2], other["points"][2]), min(one["points"][3], other["points"][3])
    common = max(0.0, right - left) * max(0.0, bottom - top)
    areas = [(p[2] - p[0]) * (p[3] - p[1]) for p in (one["points"], other["points"])]
    whole = areas[0] + areas[1] - common
    return common / whole if whole > 0 else float(one["points"] == other["points"])


def _merge_single(
    merged: list[JSON], new: list[JSON], start: int, overlap: int, alike: Callable[[JSON, JSON], float]
) -> None:
    old: dict[int, list[JSON]] = {}
    if overlap:
        for item in merged:
            if start <= item["frame"] < start + overlap:
                old.setdefault(item["frame"], []).append(item)
    for item in new:
        candidates = old.get(item["frame"], [])
        best = max(candidates, key=lambda other: alike(item, other), default=None)
        if best is not None and alike(item, best) >= _SHAPES_ALIKE:
            candidates.remove(best)  # of the two the older one stays
        else:
            merged.append(item)


def _merge_tracks(merged: list[JSON], new: list[JSON], start: int, overlap: int) -> None:
    end = start + overlap
    open_ = [track for track in merged if track["shapes"][-1]["frame"] >= start or not track["shapes"][-1]["outside"]]
    for track in new:
        candidates = open_ if overlap and track["frame"] < end else []
        best = max(candidates, key=lambda other: _tracks_alike(other, track, start, end), default=None)
        if best is not None and _tracks_alike(best, track, start, end) >= _TRACKS_ALIKE:
            open_ = [other for other in open_ if other is not best]
            _unite(best, track)
        else:
            merged.append(track)
    for track in open_:
        _close(track, end)


def _tracks_alike(one: JSON, other: JSON, start: int, end: int) -> float:
    if one["label_id"] != other["label_id"]:
        return 0.0
    total = 0.0
    count = 0
    for frame in range(start, end):
        a, b = interpolated(one, frame), interpolated(other, frame)
        if a is None and b is None:
            continue
        count += 1
        if a is not None and b is not None and a["outside"] == b["outside"]:
            total += shapes_alike(a, b) if a["type"] != "skeleton" else 1.0
    return total / count if count else 0.0


def _unite(track: JSON, more: JSON) -> None:
    """Adds the keyframes of a later part to a track."""
    by_frame = {shape["frame"]: shape for shape in track["shapes"]}
    for shape in more["shapes"]:
        # Where both have a keyframe, one that is to be seen wins over a hidden one.
        if shape["frame"] not in by_frame or by_frame[shape["frame"]]["outside"]:
            by_frame[shape["frame"]] = shape
    track["shapes"] = [by_frame[frame] for frame in sorted(by_frame)]
    later = {element["label_id"]: element for element in more.get("elements", [])}
    for element in track.get("elements", []):
        if element["label_id"] in later:
            _unite(element, later[element["label_id"]])


def _close(track: JSON, end: int) -> None:
    """Ends a track that has no continuation, by a hidden keyframe with the id of the last one."""
    last = track["shapes"][-1]
    if not last["outside"]:
        track["shapes"].append({**copy.deepcopy(last), "frame": end, "outside": True})
        for element in track.get("elements", []):
            _close(element, end)
