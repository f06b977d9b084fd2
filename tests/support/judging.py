"""How good tracks are: HOTA and IDF1 (of the library `trackers`), and two ways of others to compare with."""

from __future__ import annotations

import warnings
from collections import defaultdict
from itertools import count
from typing import Any

import numpy as np

from agent.tracks.keyframes import box_at, thin
from agent.tracks.link import LinkOptions, Sighting, link
from tests.support.sequences import Sequence

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import supervision
    from trackers import ByteTrackTracker
    from trackers.eval import box_iou, compute_hota_metrics, compute_identity_metrics


Drawn = list[tuple[int, Any, int]]
"""(frame, box, number of the track) of every rectangle that CVAT would draw."""


def sightings(found: Sequence, label: str, descriptors: Any = None, looks: Any = None) -> list[Sighting]:
    """What a detector saw of a label. `descriptors` are of things, `looks` of detections, by their places."""

    def look(place: int, thing: int | None) -> Any:
        if looks is not None:
            return looks.get(place)
        return descriptors[thing] if descriptors and thing is not None else None

    return [
        Sighting(d.frame, d.box, d.score, look(place, d.thing))
        for place, d in enumerate(found.detections)
        if d.label == label
    ]


def linked(found: Sequence, descriptors: Any = None, looks: Any = None, **options: Any) -> Drawn:
    """Our tracks, thinned to keyframes."""
    drawn, number = [], 0
    for label in ("person", "car"):
        for track in link(sightings(found, label, descriptors, looks), LinkOptions(**options)):
            number, keyframes = number + 1, thin(track)
            for frame in range(keyframes[0].frame, keyframes[-1].frame):
                if (box := box_at(keyframes, frame)) is not None:
                    drawn.append((frame, box, number))
    return drawn


def plain(found: Sequence) -> Drawn:
    """What the library's ByteTrack gives by itself."""
    tracker, drawn, by_frame = ByteTrackTracker(), [], defaultdict(list)
    for detection in found.detections:
        by_frame[detection.frame].append(detection)
    for frame in range(found.frames):
        here = by_frame[frame]
        told = supervision.Detections.empty()
        if here:
            told = supervision.Detections(np.array([d.box for d in here]), confidence=np.array([d.score for d in here]))
        answer = tracker.update(told)
        numbers = () if answer.tracker_id is None else answer.tracker_id
        drawn += [(frame, box, int(n)) for box, n in zip(answer.xyxy, numbers, strict=True) if n >= 0]
    return drawn


def neighbours(found: Sequence, distance: float = 50) -> Drawn:
    """CVAT's own way: rectangles of neighbouring frames whose centres are nearest and near."""
    from scipy.optimize import linear_sum_assignment

    drawn, numbers, before, last = [], count(), [], -1
    by_frame = defaultdict(list)
    for detection in found.detections:
        by_frame[detection.frame].append(np.array(detection.box))
    for frame in range(found.frames):
        here = [[box, None] for box in by_frame[frame]]
        if before and here and last == frame - 1:
            centres = [np.array([(b[:2] + b[2:]) / 2 for b, _ in boxes]) for boxes in (before, here)]
            table = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
            for i, j in zip(*linear_sum_assignment(table), strict=True):
                if table[i, j] <= distance:
                    here[j][1] = before[i][1]
        for entry in here:
            entry[1] = next(numbers) if entry[1] is None else entry[1]
        drawn += [(frame, box, number) for box, number in here]
        before, last = here, frame
    return drawn


def judged(found: Sequence, drawn: Drawn) -> tuple[float, float]:
    """(HOTA, IDF1) by the library's own evaluation."""
    truth, told = defaultdict(list), defaultdict(list)
    for seen in found.truth:
        truth[seen.frame].append((seen.track, seen.box))
    for frame, box, number in drawn:
        told[frame].append((number, box))
    columns = []
    for by_frame in (truth, told):
        order = {n: k for k, n in enumerate(sorted({n for rows in by_frame.values() for n, _ in rows}))}
        columns.append([np.array([order[n] for n, _ in by_frame[f]], int) for f in range(found.frames)])
    overlaps = []
    for frame in range(found.frames):
        one, other = (np.array([b for _, b in by[frame]], float).reshape(-1, 4) for by in (truth, told))
        overlaps.append(box_iou(one, other) if len(one) and len(other) else np.zeros((len(one), len(other))))
    return (
        compute_hota_metrics(*columns, overlaps)["HOTA"],
        compute_identity_metrics(*columns, overlaps)["IDF1"],
    )
