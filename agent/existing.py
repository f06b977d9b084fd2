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
        *(track_shapes(track, stop, frames) for track in annotations.get("tracks", ())),
    )
    for frame, shape in places:
        if frames is None or frame in frames:
            found.setdefault(frame, []).append(shape)
    return found


def track_shapes(track: Item, stop: int, frames: Container[int] | None = None) -> Iterator[tuple[int, Item]]:
    """The track's shape, under its label, on each frame (of `frames`) where it is visible; linear between keyframes."""
    for first, last, start, end in _visible(track, stop):
        for frame in range(first, last + 1):
            if frames is not None and frame not in frames:
                continue
            yield frame, {**start, **_between(start, end, frame), "frame": frame, "label_id": track["label_id"]}


def _between(start: Item, end: Item | None, frame: int) -> dict[str, Any]:
    """What of a keyframe has changed on a frame before the next one; turns go the shorter way round."""
    if end is None or len(end["points"]) != len(start["points"]) or start["type"] == "mask":
        return {}
    share = (frame - start["frame"]) / (end["frame"] - start["frame"])
    points = [a + (b - a) * share for a, b in zip(start["points"], end["points"], strict=True)]
    one, other = (float(keyframe.get("rotation") or 0) for keyframe in (start, end))
    turn = (other - one + 180) % 360 - 180
    return {"points": points, "rotation": (one + turn * share) % 360} if turn else {"points": points}


def _visible(track: Item, stop: int) -> Iterator[tuple[int, int, Item, Item | None]]:
    """(first frame, last frame, keyframe, the next keyframe or None) for each stretch between keyframes."""
    by_frame = {shape["frame"]: shape for shape in track["shapes"]}
    keyframes = [by_frame[frame] for frame in sorted(by_frame)]
    for position, shape in enumerate(keyframes):
        end = keyframes[position + 1] if position + 1 < len(keyframes) else None
        if not shape["outside"]:
            yield shape["frame"], (end["frame"] - 1 if end else max(stop, shape["frame"])), shape, end
