"""Linking by looks: real persons that cross each other over a real picture, told apart by a real network."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from agent.contract import Rectangle
from agent.models.loading import load_model
from tests.support.judging import judged, linked, plain
from tests.support.painted import crops_of, painted
from tests.support.sequences import sequence

SEEDS = range(100, 104)


def descriptors(found, frames, model):
    """For each person that the detector saw, how the network says it looks; by its place among the detections."""
    by_frame, looks = defaultdict(list), {}
    for place, seen in enumerate(found.detections):
        if seen.label == "person":
            by_frame[seen.frame].append(place)
    for frame in frames:
        if places := by_frame[frame.index]:
            rows = model.describe(frame, [Rectangle(*found.detections[place].box) for place in places])
            looks.update(zip(places, rows, strict=True))
    return looks


@pytest.mark.timeout(180)
def test_looks_of_real_persons_keep_them_apart(assets):
    model = load_model(f"local:{assets}/weights/osnet_x0_25_msmt17.onnx", device="cpu", options={"kind": "reid"}).model
    crops = crops_of(assets / "media")
    street = sorted((assets / "media" / "mot" / "MOT17-mini").rglob("*.jpg"))[0]
    ground = np.asarray(Image.open(street).convert("RGB"))
    figures = []
    for seed in SEEDS:
        found = sequence(seed, things=18, hideouts=0, speed=5)
        looks = descriptors(found, painted(found, crops, ground), model)
        ways = linked(found, looks=looks), linked(found), plain(found)
        figures.append([judged(found, drawn) for drawn in ways])
    with_looks, without, theirs = np.mean(figures, axis=0)
    assert (with_looks > without).all(), (with_looks, without)
    assert (with_looks >= theirs + 0.05).all(), (with_looks, theirs)
