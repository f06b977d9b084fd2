"""The contract of a detector, held against every task of `hf:` that gives one, with small models of random weights.

A new architecture joins by one line in MODELS. What is checked holds for any weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from adapters._torch import import_torch
from agent.contract import Context, Frame
from agent.errors import BadPrediction, ConfigError
from agent.models.loading import load_model
from agent.predict import check_predictions
from tests.support import hub_models
from tests.support.hub_models import not_a_number, pictures

torch = import_torch()

LABELS = {"labels": ["cat", "red car"]}
PHRASES = {"phrases": {"cat": ["a cat", "a photo of a cat"]}}
INSTANCES = {"segments": "instance"}


@dataclass(frozen=True)
class Case:
    """A model to hold against the contract."""

    make: str
    task: str
    options: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    types: tuple[str, ...] = ("mask",)
    competes: bool = False
    """Whether a lower threshold may change what is above it, since regions compete for pixels."""


MODELS = {
    "yolos": Case("yolos", "detection", types=("rectangle",)),
    "rf-detr": Case("rf_detr", "detection", types=("rectangle",)),
    "detr, panoptic": Case("detr_segmentation", "segmentation", competes=True),
    "mask2former": Case("mask2former", "segmentation", INSTANCES),
    "maskformer, semantic": Case("maskformer", "segmentation", {"segments": "semantic", "split_regions": True}),
    "mask2former, panoptic": Case("mask2former", "segmentation", competes=True),
    "oneformer": Case("oneformer", "segmentation", INSTANCES),
    "eomt": Case("eomt", "segmentation", INSTANCES),
    "eomt, tiles": Case("eomt", "segmentation", arguments={"tiles": True}),
    "rf-detr, masks": Case("rf_detr", "segmentation", INSTANCES, {"kind": "RfDetrForInstanceSegmentation"}),
    "segformer": Case("segformer", "semantic segmentation"),
    "segformer, split": Case("segformer", "semantic segmentation", {"split_regions": True, "smallest_region": 9}),
    "upernet": Case("upernet", "semantic segmentation"),
    "mobilevit": Case("mobilevit", "semantic segmentation"),
    "vit": Case("vit", "classification", {"top_k": 2}, types=("tag",)),
    "vit, several": Case("vit", "classification", {}, {"problem_type": "multi_label_classification"}, ("tag",)),
    "grounding-dino": Case("grounding_dino", "zero-shot detection", LABELS, types=("rectangle",)),
    "owlvit": Case("owl", "zero-shot detection", LABELS, {"version": "OwlViT"}, ("rectangle",)),
    "owlv2": Case("owl", "zero-shot detection", PHRASES, types=("rectangle",)),
    "omdet": Case("omdet", "zero-shot detection", LABELS, types=("rectangle",)),
    "sam3": Case("sam3", "zero-shot segmentation", {"task": "zero-shot-segmentation", **LABELS}),
    "sam3, words only": Case("sam3", "zero-shot segmentation", LABELS, {"kind": "Sam3"}),
    "vitpose": Case("vitpose", "pose", types=("skeleton",)),
    "vitpose++": Case("vitpose", "pose", {"expert": 1}, {"experts": 2}, ("skeleton",)),
    "trocr": Case("trocr", "text reading", {"max_length": 6}, types=("rectangle",)),
    "pp-ocr reader": Case("pp_ocr_reader", "text reading", types=("rectangle",)),
    "pp-ocr detector": Case("pp_ocr_detector", "text detection", types=("rectangle",)),
}  # fmt: skip


@pytest.fixture(scope="module", params=[pytest.param(name, id=name) for name in MODELS])
def case(request):
    return MODELS[request.param]


@pytest.fixture(scope="module")
def folder(case, tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "model"
    place.mkdir()
    getattr(hub_models, case.make)(place, **case.arguments)
    return place


@pytest.fixture(scope="module")
def loaded(case, folder):
    return load_model(f"hf:{folder}", device="cpu", options={"batch_size": 2, **case.options})


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """The first, the third and the last may share a batch."""
    return pictures((72, 108), (100, 64), (72, 108), (72, 108))


@pytest.fixture(scope="module")
def answers(loaded, frames):
    return [list(found) for found in loaded.model.detect(frames, Context())]


def same(one, other):
    """Whether two detections are alike up to the rounding of another batch."""
    if one.label != other.label or abs((one.score or 0) - (other.score or 0)) > 0.01:
        return False
    if one.shape is None or other.shape is None:
        return one.shape is other.shape
    if one.shape.type == "mask":
        return abs(int(one.shape.bitmap.sum()) - int(other.shape.bitmap.sum())) <= 0.02 * one.shape.bitmap.sum() + 4
    return np.allclose(numbers(one.shape), numbers(other.shape), atol=0.5)


def numbers(shape):
    if shape.type == "skeleton":
        return [value for element in shape.elements for value in (element.x, element.y)]
    return [shape.left, shape.top, shape.right, shape.bottom]


def test_it_says_what_it_is(case, loaded, folder):
    assert loaded.kind == "detector"
    assert loaded.version.startswith("sha256:")
    assert loaded.facts["task"] == case.task
    assert loaded.facts["source"] == str(folder)
    assert loaded.facts["runs on"] == "cpu, float32"
    assert "unknown" not in loaded.facts["input size"]
    assert 0 <= loaded.default_threshold <= 1
    assert loaded.batch_size == 2
    names = [label.name for label in loaded.labels]
    assert len(set(names)) == len(names)
    assert {label.type for label in loaded.labels} == set(case.types)


def test_it_keeps_to_its_labels(case, loaded, answers, frames):
    assert len(answers) == len(frames)
    checked = check_predictions(answers, frames, loaded.labels)
    assert not [one for one in checked if isinstance(one, BadPrediction)]
    assert any(answers), "weights are random, but loud"
    for found in answers:
        scores = [one.score for one in found]
        assert all(type(score) is float and 0 <= score <= 1 for score in scores)
        if case.types != ("skeleton",) and not case.competes:
            assert scores == sorted(scores, reverse=True), "best first"


def test_shapes_lie_in_the_frame(answers, frames):
    for frame, found in zip(frames, answers, strict=True):
        for one in found:
            if one.shape is None or getattr(one.shape, "rotation", 0):
                continue
            if one.shape.type == "mask":
                height, width = one.shape.bitmap.shape
                assert one.shape.bitmap.any(axis=0)[[0, -1]].all(), "no wider than its pixels"
                assert one.shape.bitmap.any(axis=1)[[0, -1]].all()
                box = (one.shape.left, one.shape.top, one.shape.left + width, one.shape.top + height)
            else:
                values = numbers(one.shape)
                assert all(type(value) is float and math.isfinite(value) for value in values)
                box = (min(values[0::2]), min(values[1::2]), max(values[0::2]), max(values[1::2]))
            assert 0 <= box[0] <= box[2] <= frame.width
            assert 0 <= box[1] <= box[3] <= frame.height


def test_frames_do_not_depend_on_their_neighbours(loaded, answers, frames):
    assert list(loaded.model.detect([], Context())) == []
    for frame, together in zip(frames[:2], answers, strict=False):
        (alone,) = loaded.model.detect([frame], Context())
        assert len(alone) == len(together)
        for one in together:
            assert any(same(one, other) for other in alone)


def test_a_threshold_only_removes(case, loaded, answers, frames):
    scores = sorted(one.score for one in answers[0])
    threshold = scores[len(scores) // 2] if scores else 0.5
    (some,) = loaded.model.detect(frames[:1], Context(threshold=threshold))
    assert all(one.score >= threshold for one in some)
    if not case.competes:
        kept = [one for one in answers[0] if one.score >= threshold + 0.01]
        assert all(any(same(one, other) for other in some) for one in kept)


def test_what_has_no_place_in_the_task_is_left_out(loaded, answers, frames):
    wanted = loaded.labels[0].name
    (found,) = loaded.model.detect(frames[:1], Context(labels=frozenset({wanted})))
    assert {one.label for one in found} <= {wanted}
    assert list(loaded.model.detect(frames[:2], Context(labels=frozenset()))) in ([[], []], answers[:2])


def test_tiny_frames_and_views_will_do(loaded, frames):
    tiny = pictures((1, 1), (3, 8), (8, 3))
    found = loaded.model.detect(tiny, Context(threshold=0.01))
    assert not [one for one in check_predictions(found, tiny, loaded.labels) if isinstance(one, BadPrediction)]
    view = np.asfortranarray(frames[0].image)
    view.flags.writeable = False
    assert len(loaded.model.detect([Frame(0, "view", view)], Context())) == 1


def test_half_precision(case, folder, frames):
    half = load_model(f"hf:{folder}", device="cpu", options={"precision": "bfloat16", **case.options})
    found = half.model.detect(frames[:1], Context())
    assert half.facts["runs on"] == "cpu, bfloat16"
    assert not [one for one in check_predictions(found, frames[:1], half.labels) if isinstance(one, BadPrediction)]


def test_answers_that_are_no_numbers(case, folder, frames, tmp_path):
    broken = load_model(f"hf:{not_a_number(folder, tmp_path)}", device="cpu", options=case.options)
    with pytest.raises(BadPrediction, match="the model answered NaN"):
        broken.model.detect(frames[:1], Context())


def test_an_option_of_another_task(case, folder):
    other = {"memory_frames": 3}
    with pytest.raises(ConfigError, match="option 'memory_frames' is not for the task"):
        load_model(f"hf:{folder}", device="cpu", options={**case.options, **other})
