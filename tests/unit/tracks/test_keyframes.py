from itertools import pairwise

import numpy as np
import pytest

from agent.contract import Rectangle
from agent.shapes.geometry import bounds, corners
from agent.shapes.overlap import overlap
from agent.tracks.keyframes import LEAST_IOU, Keyframe, ThinOptions, box_at, place_at, thin
from agent.tracks.link import Sighting


def seen(boxes, frames=None):
    frames = range(len(boxes)) if frames is None else frames
    return [Sighting(frame, tuple(map(float, box))) for frame, box in zip(frames, boxes, strict=True)]


def moving(count, speed, *, width=60, height=120):
    """A thing that moves at an even pace."""
    return [(speed * k, 0.2 * speed * k, speed * k + width, 0.2 * speed * k + height) for k in range(count)]


def worst_iou(track, keyframes):
    worst = 1.0
    for sighting in track:
        one, other = np.array(sighting.box), np.array(box_at(keyframes, sighting.frame))
        inner = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
        union = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - inner
        worst = min(worst, inner / union)
    return worst


def test_an_even_pace_needs_its_two_ends_only():
    track = seen(moving(50, 3))
    assert [(k.frame, k.outside) for k in thin(track)] == [(0, False), (49, False), (50, True)]


def test_a_bend_is_a_keyframe():
    there = moving(20, 4)
    back = [(76 - 4 * k, 15.2, 136 - 4 * k, 135.2) for k in range(1, 20)]
    frames = [k.frame for k in thin(seen([*there, *back]))]
    assert frames[0] == 0
    assert frames[-2:] == [38, 39]
    assert any(abs(frame - 19) <= 1 for frame in frames)
    assert len(frames) <= 6


@pytest.mark.parametrize("seed", range(5))
def test_slow_motion_is_thinned_to_a_third_and_stays_what_it_was(seed):
    random = np.random.default_rng(seed)
    centre = np.cumsum(random.normal(0, 0.15, (200, 2)).cumsum(0) * 0.1 + [0.8, 0.1], 0) + 100
    half = np.stack([30 + 4 * np.sin(np.arange(200) / 40), 60 + 8 * np.sin(np.arange(200) / 40)], 1)
    track = seen(np.concatenate([centre - half, centre + half], 1))
    keyframes = thin(track)
    assert len(keyframes) * 3 <= len(track)
    assert worst_iou(track, keyframes) >= LEAST_IOU


@pytest.mark.parametrize("tolerance", [0.5, 2.0, 8.0])
def test_no_side_lies_further_off_than_the_tolerance(tolerance):
    random = np.random.default_rng(3)
    boxes = np.array(moving(120, 2)) + random.normal(0, 1, (120, 4))
    track = seen(boxes)
    keyframes = thin(track, ThinOptions(tolerance=tolerance))
    for sighting in track:
        assert np.abs(np.subtract(box_at(keyframes, sighting.frame), sighting.box)).max() <= tolerance + 1e-9


def test_small_things_are_held_to_their_overlap_where_pixels_would_say_little():
    boxes = [(5 + 1.5 * (k % 2), 5, 15 + 1.5 * (k % 2), 15) for k in range(20)]
    track = seen(boxes)
    assert worst_iou(track, thin(track, ThinOptions(tolerance=5))) >= LEAST_IOU


def test_a_short_gap_is_bridged_and_a_long_one_is_outside():
    frames = [0, 1, 2, 12, 13, 60, 61]
    boxes = [(frame, 0, frame + 50, 50) for frame in frames]
    keyframes = thin(seen(boxes, frames), ThinOptions(bridge=30))
    assert [(k.frame, k.outside) for k in keyframes] == [
        (0, False),
        (13, False),
        (14, True),
        (60, False),
        (61, False),
        (62, True),
    ]
    assert box_at(keyframes, 7) == pytest.approx((7, 0, 57, 50))
    assert box_at(keyframes, 30) is None
    assert box_at(keyframes, 100) is None


@pytest.mark.parametrize("missing", [1, 5])
def test_as_many_frames_as_the_bridge_is_long_are_drawn(missing):
    frames = [0, 1, 2 + missing, 3 + missing]
    boxes = [(frame, 0, frame + 50, 50) for frame in frames]
    assert [k.outside for k in thin(seen(boxes, frames), ThinOptions(bridge=missing))] == [False, False, True]
    assert box_at(thin(seen(boxes, frames), ThinOptions(bridge=missing - 1)), 2) is None


def test_a_single_sighting_is_there_for_one_frame():
    keyframes = thin(seen([(1, 2, 3, 4)], [7]))
    assert [(k.frame, k.outside) for k in keyframes] == [(7, False), (8, True)]
    assert box_at(keyframes, 6) is None
    assert box_at(keyframes, 7) == (1, 2, 3, 4)


def ship(frame, degrees, *, other_way=False):
    """A ship of 80 x 20 that turns where it is, told with its long sides across or down."""
    box = (90.0, 60.0, 110.0, 140.0) if other_way else (60.0, 90.0, 140.0, 110.0)
    shape = Rectangle(*box, (degrees - 90 * other_way) % 360)
    return Sighting(frame, bounds(shape), turned=shape)


@pytest.mark.parametrize("step", [0.5, 3.0, -7.0, 44.0])
def test_a_thing_that_turns_evenly_is_drawn_so_however_it_is_told(step):
    random = np.random.default_rng(1)
    track = [ship(k, 170 + step * k, other_way=bool(random.integers(2))) for k in range(60)]
    keyframes = thin(track)
    assert len(keyframes) <= 3 + abs(step) * 60 / 90  # CVAT turns by less than half a circle between two of them
    for one, other in pairwise(keyframes):
        assert abs(other.rotation - one.rotation) < 180
    for sighting in track:
        drawn = place_at(keyframes, sighting.frame)
        assert overlap(Rectangle(*drawn.box, drawn.rotation), sighting.turned, 1.0) >= 0.999


def test_a_turn_that_trembles_is_held_to_the_tolerance():
    random = np.random.default_rng(2)
    track = [ship(k, 30 + random.normal(0, 2)) for k in range(60)]
    keyframes = thin(track)
    assert len(keyframes) < 60
    for sighting in track:
        drawn = place_at(keyframes, sighting.frame)
        there = Rectangle(*drawn.box, drawn.rotation)
        assert overlap(there, sighting.turned, 1.0) >= LEAST_IOU
        assert np.abs(np.subtract(corners(there), corners(sighting.turned))).max() <= 2.0 + 1e-6


def test_before_it_is_outside_a_thing_stands_still():
    keyframes = [Keyframe(0, (0, 0, 1, 1)), Keyframe(5, (9, 9, 10, 10), outside=True)]
    assert box_at(keyframes, 4) == (0, 0, 1, 1)
