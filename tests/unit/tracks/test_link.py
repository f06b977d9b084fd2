"""Association and stitching, judged by what the sequences are known to be."""

import warnings
from collections import defaultdict

import numpy as np
import pytest

from agent.tracks.keyframes import box_at, thin
from agent.tracks.link import LinkOptions, Sighting, link
from tests.support.sequences import Sequence, sequence

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import supervision
    from trackers import ByteTrackTracker
    from trackers.eval import box_iou, compute_hota_metrics, compute_identity_metrics

SEEDS = range(6)


def sightings(found: Sequence, label, descriptors=None):
    return [
        Sighting(d.frame, d.box, d.score, descriptors[d.thing] if descriptors and d.thing is not None else None)
        for d in found.detections
        if d.label == label
    ]


def linked(found, descriptors=None, **options):
    """(frame, box, number) of every rectangle that CVAT would draw."""
    drawn, number = [], 0
    for label in ("person", "car"):
        for track in link(sightings(found, label, descriptors), LinkOptions(**options)):
            number, keyframes = number + 1, thin(track)
            for frame in range(keyframes[0].frame, keyframes[-1].frame):
                if (box := box_at(keyframes, frame)) is not None:
                    drawn.append((frame, box, number))
    return drawn


def plain(found):
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


def neighbours(found, distance=50):
    """CVAT's own way: rectangles of neighbouring frames whose centres are nearest and near."""
    from scipy.optimize import linear_sum_assignment

    drawn, numbers, before, last = [], iter(range(10**6)), [], -1
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


def judged(found, drawn):
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


def test_better_than_plain_association_and_far_better_than_neighbouring_frames():
    ours, theirs, cvats = (
        np.mean([judged(found, way(found)) for found in map(sequence, SEEDS)], axis=0)
        for way in (linked, plain, neighbours)
    )
    assert (ours >= theirs + 0.05).all(), (ours, theirs)
    assert (ours >= cvats + 0.15).all(), (ours, cvats)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_sequence_is_worse_than_plain_association(seed):
    found = sequence(seed)
    ours, theirs = judged(found, linked(found)), judged(found, plain(found))
    assert ours[0] >= theirs[0]
    assert ours[1] >= theirs[1] - 0.01


def test_looks_keep_apart_what_motion_confuses():
    """Many things that cross behind walls: with descriptors that tell them apart, more of them stay themselves."""
    random = np.random.default_rng(0)
    looks = random.normal(size=(40, 32)).astype(np.float32)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    without, with_looks = [], []
    for seed in range(4):
        found = sequence(100 + seed, things=18, hideouts=3, speed=5)
        without.append(judged(found, linked(found))[1])
        with_looks.append(judged(found, linked(found, dict(enumerate(looks))))[1])
    assert np.mean(with_looks) > np.mean(without)


def test_a_thing_that_was_hidden_is_the_same_when_it_comes_back():
    boxes = [(4.0 * k, 100.0, 4.0 * k + 50, 220.0) for k in range(60)]
    seen = [Sighting(k, box, 0.9) for k, box in enumerate(boxes) if not 20 <= k < 45]
    (track,) = link(seen)
    assert [s.frame for s in track] == [s.frame for s in seen]


def test_after_a_gap_too_long_it_is_another_track():
    seen = [Sighting(k, (100.0, 100.0, 150.0, 220.0), 0.9) for k in [*range(10), *range(100, 110)]]
    assert len(link(seen)) == 2
    assert len(link(seen, LinkOptions(max_gap=90))) == 2  # it stands still: found again after 91 frames only
    assert len(link(seen, LinkOptions(max_gap=91))) == 1


def test_noise_is_left_out_and_a_good_short_track_is_not():
    noise = [Sighting(k, (10.0, 10.0, 60.0, 60.0), 0.2) for k in range(4)]
    good = [Sighting(k, (300.0, 10.0, 360.0, 60.0), 0.9) for k in range(4)]
    single = [Sighting(2, (500.0, 10.0, 560.0, 60.0), 0.99)]
    (track,) = link([*noise, *good, *single])
    assert track[0].box[0] == 300.0


def test_nothing_gives_nothing():
    assert link([]) == []


def test_what_is_put_in_comes_out_at_most_once():
    found = sequence(3)
    seen = sightings(found, "person")
    tracks = link(seen, LinkOptions(min_sightings=1))
    put = [id(s) for track in tracks for s in track]
    assert len(put) == len(set(put))
    assert set(put) <= {id(s) for s in seen}
    for track in tracks:
        frames = [s.frame for s in track]
        assert frames == sorted(set(frames))
