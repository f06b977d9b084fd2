"""Linking on real pictures: MOT17's streets, seen by a real detector."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from agent.contract import Context, Frame
from agent.models.loading import load_model
from tests.support.judging import judged, linked, neighbours, plain
from tests.support.sequences import Seen, Sequence

FOLDERS = ("MOT17-04-FRCNN", "MOT17-05-FRCNN")


def street(assets, name, model):
    """A folder of MOTChallenge: its truth, and what a detector sees of its persons."""
    folder = assets / "media" / "mot" / "MOT17-mini" / name
    files = sorted((folder / "img1").glob("*.jpg"))
    places = {int(file.stem): number for number, file in enumerate(files)}
    frames = [Frame(n, f.name, np.asarray(Image.open(f).convert("RGB"))) for n, f in enumerate(files)]
    found = Sequence(len(files), (frames[0].width, frames[0].height), [])
    for line in (folder / "gt" / "gt.txt").read_text().splitlines():
        number, who, left, top, width, height, counts, kind, visible = (float(value) for value in line.split(","))
        # Columns as MOTChallenge has them: what does not count, is no pedestrian or is hidden is not asked.
        if number in places and counts and kind == 1 and visible >= 0.25:
            box = (left, top, left + width, top + height)
            found.truth.append(Seen(places[number], box, "person", track=int(who)))
    for frame in frames:
        (seen,) = model.detect([frame], Context(0.1))
        found.detections += [
            Seen(frame.index, (d.shape.left, d.shape.top, d.shape.right, d.shape.bottom), "person", d.score)
            for d in seen
            if d.label == "person" and d.score >= 0.1
        ]
    return found


@pytest.mark.timeout(180)
def test_at_least_as_good_as_plain_association_and_better_than_neighbouring_frames(assets):
    model = load_model(f"local:{assets}/weights/yolov5n_640.onnx", device="cpu").model
    ours, theirs, cvats = [], [], []
    for name in FOLDERS:
        found = street(assets, name, model)
        ours.append(judged(found, linked(found)))
        theirs.append(judged(found, plain(found)))
        cvats.append(judged(found, neighbours(found)))
    means = [np.mean(figures, axis=0) for figures in (ours, theirs, cvats)]
    print(means)
    assert (means[0] >= means[1]).all(), means
    assert means[0][1] > means[2][1], means
