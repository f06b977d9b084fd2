"""Association and stitching, judged by what the sequences are known to be."""

import numpy as np
import pytest

from agent.tracks.link import LinkOptions, Sighting, link
from tests.support.judging import judged, linked, neighbours, plain, sightings
from tests.support.sequences import sequence

SEEDS = range(6)


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


@pytest.mark.parametrize(("other", "tracks"), [((1.0, 0.0), 1), ((0.6, 0.8), 2)])
def test_at_no_distance_only_equal_looks_are_of_the_same_thing(other, tracks):
    first, then = np.array([1.0, 0.0], np.float32), np.array(other, np.float32)
    seen = [
        Sighting(k, (100.0, 100.0, 150.0, 220.0), 0.9, descriptor=first if k < 10 else then)
        for k in (*range(10), *range(50, 60))
    ]
    assert len(link(seen, LinkOptions(max_distance=0.0))) == tracks


def test_after_a_gap_too_long_it_is_another_track():
    seen = [Sighting(k, (100.0, 100.0, 150.0, 220.0), 0.9) for k in [*range(10), *range(100, 110)]]
    assert len(link(seen)) == 2
    assert len(link(seen, LinkOptions(max_gap=90))) == 2  # it stands still: found again after 91 frames only
    assert len(link(seen, LinkOptions(max_gap=91))) == 1


@pytest.mark.parametrize("gap", [2, 15, 29])
def test_a_gap_of_few_frames_can_be_too_long_as_well(gap):
    """ByteTrack by itself would find it again after up to thirty frames."""
    seen = [Sighting(k, (100.0, 100.0, 150.0, 220.0), 0.9) for k in [*range(10), *range(9 + gap, 30 + gap)]]
    assert len(link(seen, LinkOptions(max_gap=gap))) == 1
    assert [track[0].frame for track in link(seen, LinkOptions(max_gap=gap - 1))] == [0, 9 + gap]


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
