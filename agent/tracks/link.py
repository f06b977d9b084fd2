"""Sightings of things on single frames, put together to one track for each thing.

Frame after frame they are associated by ByteTrack, of the library `trackers`. It works as if the future were unknown,
and so loses things behind others and begins them anew. We know the whole sequence: its pieces are stitched.

Source: Zhang et al., ByteTrack: Multi-Object Tracking by Associating Every Detection Box, ECCV 2022.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.contract import Rectangle
from agent.tracks.stitch import stitch

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """A rectangle on a frame."""

    frame: int
    box: Box
    """Upright, around it."""
    score: float = 1.0
    descriptor: NDArray[np.float32] | None = None
    """Of unit length, where a reidentifier has looked at it."""
    item: Any = None
    """What it was made of; linking only carries it along."""
    turned: Rectangle | None = None
    """The rectangle itself, where it is a turned one."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What counts as the same thing."""

    max_gap: int = 60
    """Frames after which a thing that was lost may still be found again."""
    min_sightings: int = 3
    """Tracks of fewer are noise, unless their sightings are good."""
    min_overlap: float = 0.3
    """IoU of a thing's predicted place with its rectangle on the next frame."""
    max_distance: float = 0.4
    """Cosine distance above which two looks are of different things."""


def link(sightings: Sequence[Sighting], options: LinkOptions | None = None) -> list[list[Sighting]]:
    """The tracks, each in the order of its frames; all sightings are of one label. What is left out is noise."""
    options = options or LinkOptions()
    # ByteTrack finds again what it lost for up to thirty frames, whatever we were asked for.
    found = [part for piece in _associated(sightings, options) for part in at_gaps(piece, options.max_gap)]
    pieces = stitch(found, options.max_gap, options.max_distance)
    kept = [piece for piece in pieces if len(piece) >= options.min_sightings and not _is_noise(piece)]
    return sorted(kept, key=lambda piece: (piece[0].frame, piece[0].box))


def at_gaps(track: Sequence[Sighting], longest: int) -> list[list[Sighting]]:
    """The track, cut where one sighting is more than `longest` frames after the one before it."""
    parts = [[track[0]]]
    for sighting in track[1:]:
        if sighting.frame - parts[-1][-1].frame > longest:
            parts.append([])
        parts[-1].append(sighting)
    return parts


SHORT = 8
"""Sightings; a track of fewer has to be good ones to count."""
GOOD = 0.45


def _is_noise(piece: Sequence[Sighting]) -> bool:
    return len(piece) < SHORT and float(np.mean([sighting.score for sighting in piece])) < GOOD


def _associated(sightings: Sequence[Sighting], options: LinkOptions) -> list[list[Sighting]]:
    """Pieces of tracks as ByteTrack finds them; what it leaves alone is a piece of its own."""
    import supervision
    from trackers import ByteTrackTracker

    tracker = ByteTrackTracker(
        # Weak sightings begin tracks too: whether they are noise is seen at the end, when their length is known.
        track_activation_threshold=0.0,
        high_conf_det_threshold=0.3,
        minimum_consecutive_frames=1,
        minimum_iou_threshold=options.min_overlap,
    )
    by_frame: dict[int, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        by_frame[sighting.frame].append(sighting)
    pieces: dict[Any, list[Sighting]] = defaultdict(list)
    for frame in range(min(by_frame, default=0), max(by_frame, default=-1) + 1):
        here = by_frame.get(frame, [])
        found = tracker.update(_detections(supervision, here))
        numbers = () if found.tracker_id is None else found.tracker_id
        for number, index in zip(numbers, found.data.get("index", ()), strict=True):
            pieces[int(number) if number >= 0 else (frame, int(index))].append(here[int(index)])
    return list(pieces.values())


def _detections(supervision: Any, here: Sequence[Sighting]) -> Any:
    if not here:
        return supervision.Detections.empty()
    return supervision.Detections(
        xyxy=np.array([sighting.box for sighting in here], dtype=float),
        confidence=np.array([sighting.score for sighting in here], dtype=float),
        data={"index": np.arange(len(here))},
    )
