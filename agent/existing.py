"""What a job already holds: which frames are occupied, and which shapes lie where."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from itertools import chain
from typing import Any, TypeAlias

Item: TypeAlias = Mapping[str, Any]
"""A tag, shape or track as CVAT's JSON has it."""


def occupied_frames(annotations: Mapping[str, list[Any]], stop: int) -> set[int]:
    """The frames with a tag, a shape, or a track that is visible there. `stop` is the job's last frame."""
    occupied = {item["frame"] for kind in ("tags", "shapes") for item in annotations.get(kind, ())}
    for track in annotations.get("tracks", ()):
        for first, last, _, _ in _visible(track, stop):
            occupied.update(range(first, last + 1))
    return occupied


def shapes_by_frame(
    annotations: Mapping[str, list[Any]], stop: int, frames: Container[int] | None = None
) -> dict[int, list[Item]]:
    """The shapes of each frame (of `frames`); those of tracks as CVAT draws them between keyframes."""
    found: dict[int, list[Item]] = {}
    places = chain(
        ((shape["frame"], shape) for shape in annotations.get("shapes", ())),
        *(track_shapes(track, stop) for track in annotations.get("tracks", ())),
    )
    for frame, shape in places:
        if frames is None or frame in frames:
            found.setdefault(frame, []).append(shape)
    return found


def track_shapes(track: Item, stop: int) -> Iterator[tuple[int, Item]]:
    """The track's shape on each frame where it is visible, linear between keyframes, with the track's label."""
    for first, last, start, end in _visible(track, stop):
        for frame in range(first, last + 1):
            points = start["points"]
            if end is not None and len(end["points"]) == len(points) and start["type"] != "mask":
                share = (frame - first) / (end["frame"] - first)
                points = [a + (b - a) * share for a, b in zip(points, end["points"], strict=True)]
            yield frame, {**start, "points": points, "frame": frame, "label_id": track["label_id"]}


def _visible(track: Item, stop: int) -> Iterator[tuple[int, int, Item, Item | None]]:
    """(first frame, last frame, keyframe, the next keyframe or None) for each stretch between keyframes."""
    by_frame = {shape["frame"]: shape for shape in track["shapes"]}
    keyframes = [by_frame[frame] for frame in sorted(by_frame)]
    for position, shape in enumerate(keyframes):
        end = keyframes[position + 1] if position + 1 < len(keyframes) else None
        if not shape["outside"]:
            yield shape["frame"], (end["frame"] - 1 if end else max(stop, shape["frame"])), shape, end
