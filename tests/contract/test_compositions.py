"""Models built of others, with real weights: each is worth what it costs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from agent.compose.named import open_named
from agent.contract import Context, Frame
from agent.models.loading import load_model
from tests.support.coco import accuracy, load_ground_truth

SMALL = 32 * 32
"""Square pixels: COCO's own limit."""


@pytest.fixture(scope="module")
def truth(assets):
    return load_ground_truth(assets / "media" / "coco_val")


@pytest.fixture(scope="module")
def frames(truth):
    return [
        Frame(number, name, np.asarray(Image.open(truth.path(name)).convert("RGB")))
        for number, name in enumerate(truth.names)
    ]


def seen(model, frames, threshold=0.01):
    return [model.detect([frame], Context(threshold))[0] for frame in frames]


def boxes(frames, found):
    return {
        frame.name: [(d.label, d.score, (d.shape.left, d.shape.top, d.shape.right, d.shape.bottom)) for d in own]
        for frame, own in zip(frames, found, strict=True)
    }


def small_recall(truth, frames, found):
    """The share of small things that a detection of their label overlaps by half or more."""
    hit = total = 0
    for frame, own in zip(frames, found, strict=True):
        for label, _, (left, top, right, bottom) in truth.boxes(frame.name):
            area = (right - left) * (bottom - top)
            if area >= SMALL:
                continue
            total += 1
            for shape in (d.shape for d in own if d.label == label and d.score >= 0.1):
                width = max(0, min(right, shape.right) - max(left, shape.left))
                height = max(0, min(bottom, shape.bottom) - max(top, shape.top))
                other = (shape.right - shape.left) * (shape.bottom - shape.top)
                if width * height / (area + other - width * height) >= 0.5:
                    hit += 1
                    break
    return hit / total


@pytest.mark.timeout(180)
def test_two_detectors_fused_are_better_than_the_better_one(assets, truth, frames):
    references = [f"local:{assets}/weights/{name}.onnx" for name in ("yolov5n_640", "yolox_nano_416")]
    alone = [accuracy(truth, boxes(frames, seen(load_model(r, device="cpu").model, frames))).map for r in references]
    both = open_named("ensemble:", device="cpu", options={"of": references})
    try:
        fused = accuracy(truth, boxes(frames, seen(both.model, frames))).map
    finally:
        both.close()
    assert fused > max(alone) + 0.01, (fused, alone)


@pytest.mark.timeout(180)
def test_tiles_find_small_things(assets, truth, frames):
    reference = f"local:{assets}/weights/yolox_nano_416.onnx"
    tiles = open_named("tiles:", device="cpu", options={"of": reference, "size": 320, "overlap": 0.25})
    try:
        plain, tiled = seen(load_model(reference, device="cpu").model, frames, 0.05), seen(tiles.model, frames, 0.05)
    finally:
        tiles.close()
    assert small_recall(truth, frames, tiled) >= 2 * small_recall(truth, frames, plain)
    assert accuracy(truth, boxes(frames, tiled)).map >= accuracy(truth, boxes(frames, plain)).map


@pytest.mark.timeout(180)
def test_a_look_into_the_mirror_helps(assets, truth, frames):
    reference = f"local:{assets}/weights/yolox_nano_416.onnx"
    mirror = open_named("flips:", device="cpu", options={"of": reference})
    try:
        plain, both = seen(load_model(reference, device="cpu").model, frames, 0.05), seen(mirror.model, frames, 0.05)
    finally:
        mirror.close()
    assert accuracy(truth, boxes(frames, both)).map > accuracy(truth, boxes(frames, plain)).map


def test_rectangles_become_masks_by_an_interactor(assets):
    weights = assets / "weights"
    segmenter = {
        "model": f"local:{weights}/promptseg_encoder_384.onnx",
        "options": {"decoder": f"{weights}/promptseg_decoder.onnx"},
        "gives": "mask",
        "labels": ["person", "dog", "cat"],
    }
    chain = open_named("chain:", device="cpu", options={"of": f"local:{weights}/yolov5n_640.onnx", "then": [segmenter]})
    try:
        picture = np.asarray(Image.open(assets / "media" / "misc" / "cat_720p.jpg").convert("RGB"))
        (found,) = chain.model.detect([Frame(0, "cat_720p.jpg", picture)], Context(0.3))
        labels = {label.name: label.type for label in chain.labels}
    finally:
        chain.close()
    assert (labels["cat"], labels["bus"]) == ("mask", "rectangle")
    cats = [d for d in found if d.label == "cat"]
    assert cats
    assert all(d.shape.type == "mask" and d.shape.bitmap.sum() > 500 for d in cats)
