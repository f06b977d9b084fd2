"""The contract of a tracker, held against every SAM that `hf:` follows objects with, with small random models."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from adapters._torch import import_torch
from agent.contract import Frame, Mask, Points, Polygon, Rectangle
from agent.errors import BadPrediction, ConfigError
from agent.models.loading import load_model
from tests.support import hub_models
from tests.support.hub_models import not_a_number, pictures

torch = import_torch()

MODELS = {"sam2": ("sam2", {}), "edgetam": ("sam2", {"kind": "EdgeTamVideo"}), "sam3": ("sam3", {})}
SHAPES = (
    Rectangle(20.0, 10.0, 70.0, 60.0),
    Polygon((10.0, 10.0, 60.0, 10.0, 60.0, 60.0)),
    Mask(np.ones((20, 30), bool), 5, 5),
    Rectangle(60.0, 30.0, 100.0, 60.0, 30.0),
)


@pytest.fixture(scope="module", params=[pytest.param(name, id=name) for name in MODELS])
def folder(request, tmp_path_factory):
    make, arguments = MODELS[request.param]
    place = tmp_path_factory.mktemp("models") / "model"
    place.mkdir()
    getattr(hub_models, make)(place, **arguments)
    return place


def load(folder, **options):
    return load_model(f"hf:{folder}", device="cpu", options={"task": "tracking", **options})


@pytest.fixture(scope="module")
def loaded(folder):
    return load(folder)


@pytest.fixture(scope="module")
def video():
    """A picture that moves to the left."""
    (first,) = pictures((72, 108))
    return [Frame(i, str(i), np.roll(first.image, -3 * i, axis=1)) for i in range(20)]


def follow(model, frames, states):
    """The last states, and all shapes."""
    shapes = []
    for frame in frames:
        answer = model.follow(frame, states)
        states = [state for state, _ in answer]
        shapes.append([shape for _, shape in answer])
    return states, shapes


def pixels(shape, frame):
    whole = np.zeros((frame.height, frame.width), bool)
    if shape is not None:
        height, width = shape.bitmap.shape
        whole[shape.top : shape.top + height, shape.left : shape.left + width] = shape.bitmap
    return whole


def test_it_says_what_it_is(loaded):
    assert loaded.kind == "tracker"
    assert loaded.facts["task"] == "tracking"
    assert loaded.facts["remembers"] == "7 frames"
    assert set(loaded.model.shape_types) == {"rectangle", "polygon", "mask"}


def test_shapes_keep_their_type(loaded, video):
    states, shapes = follow(loaded.model, video[1:4], loaded.model.begin(video[0], SHAPES))
    assert all(type(state) is bytes for state in states)
    assert any(shape for found in shapes for shape in found)
    for found in shapes:
        assert [shape is None or shape.type == one.type for shape, one in zip(found, SHAPES, strict=True)] == [True] * 4
        for shape in found:
            if shape is not None and shape.type == "rectangle":
                assert 0 <= shape.left < shape.right <= 108
                assert 0 <= shape.top < shape.bottom <= 72
                assert shape.rotation == 0
            if shape is not None and shape.type == "polygon":
                assert min(shape.points) >= 0
                assert max(shape.points[0::2]) <= 108


def test_a_state_is_all_that_is_needed(loaded, folder, video):
    """Another process, as after a restart, goes on as if nothing had happened."""
    states, _ = follow(loaded.model, video[1:3], loaded.model.begin(video[0], SHAPES))
    here, there = loaded.model.follow(video[3], states), load(folder).model.follow(video[3], states)
    assert [state for state, _ in here] == [state for state, _ in there]
    np.testing.assert_array_equal(pixels(here[2][1], video[3]), pixels(there[2][1], video[3]))


def test_objects_do_not_depend_on_each_other(loaded, video):
    model = loaded.model
    early = follow(model, video[1:4], model.begin(video[0], SHAPES[2:3]))[0]
    late = model.begin(video[3], SHAPES[:1])
    together, alone = model.follow(video[4], [*late, *early]), model.follow(video[4], early)
    np.testing.assert_allclose(pixels(together[1][1], video[4]), pixels(alone[0][1], video[4]))
    assert len(together) == 2


def test_states_do_not_grow_for_ever(loaded, folder, video):
    model = loaded.model
    states = model.begin(video[0], SHAPES[:1])
    sizes = []
    for frame in video[1:]:
        ((state, _),) = model.follow(frame, states)
        states = [state]
        sizes.append(len(state))
    pointer = 128 * 2 + 200
    assert sizes[-1] <= sizes[5] + 16 * pointer, "seven maps, and sixteen pointers at most"
    assert abs(sizes[-1] - sizes[-3]) < 64
    short = load(folder, memory_frames=2).model
    brief, shapes = follow(short, video[1:12], short.begin(video[0], SHAPES[:1]))
    assert len(brief[0]) < sizes[-1] * 0.6
    assert any(found[0] for found in shapes)


def test_half_precision(folder, video):
    half = load(folder, precision="bfloat16").model
    states, shapes = follow(half, video[1:3], half.begin(video[0], SHAPES))
    assert len(states) == 4
    assert any(shape for found in shapes for shape in found)


def test_nothing_to_follow(loaded, video):
    assert loaded.model.begin(video[0], []) == []
    assert loaded.model.follow(video[0], []) == []


def test_shapes_that_cannot_be_followed(loaded, video):
    with pytest.raises(ValueError, match="got a points, allowed: rectangle, polygon, mask"):
        loaded.model.begin(video[0], [Points((1.0, 2.0))])
    with pytest.raises(ValueError, match="mask: it has no pixel in the frame of 108x72"):
        loaded.model.begin(video[0], [Mask(np.ones((4, 4), bool), 500, 500)])


def tampered(state, **changes):
    """The state with its metadata changed."""
    (length,) = struct.unpack("<Q", state[:8])
    head = json.loads(state[8 : 8 + length])
    about = json.loads(head["__metadata__"]["memory"])
    head["__metadata__"]["memory"] = json.dumps(about | changes)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + state[8 + length :]


def test_states_of_others(loaded, video, folder):
    (state,) = loaded.model.begin(video[0], SHAPES[:1])
    assert loaded.model.follow(video[1], [tampered(state)])
    wrong = [
        b"", b"\0" * 64, state[:-5], b"\xff" * 8 + state[8:], tampered(state, version="sha256:another"),
        tampered(state, format="other"), tampered(state, frame=-1), tampered(state, frame="x"),
    ]  # fmt: skip
    for bad in wrong:
        with pytest.raises(ValueError, match="state: got "):
            loaded.model.follow(video[1], [bad])


def test_states_of_another_size_or_without_sense(loaded, video):
    from safetensors.torch import load as read
    from safetensors.torch import save

    (state,) = loaded.model.begin(video[0], SHAPES[:1])
    (length,) = struct.unpack("<Q", state[:8])
    about = json.loads(state[8 : 8 + length])["__metadata__"]
    tensors = read(state)
    for changed in (
        {**tensors, "map.0": tensors["map.0"][..., :-1].contiguous()},
        {**tensors, "map.0": tensors["map.0"] * float("nan")},
        {**tensors, "map.9": tensors["map.0"].clone(), "pointer.9": tensors["pointer.0"].clone()},
        {"pointer.0": tensors["pointer.0"]},
        {**tensors, "else.0": tensors["pointer.0"].clone()},
    ):
        with pytest.raises(ValueError, match="state: got "):
            loaded.model.follow(video[1], [save(changed, about)])


def test_answers_that_are_no_numbers(folder, tmp_path):
    with pytest.raises(BadPrediction, match="the model answered NaN"):
        load(not_a_number(folder, tmp_path))


def test_wrong_options(folder):
    with pytest.raises(ConfigError, match="memory_frames: got 9, allowed: 1 to 7"):
        load(folder, memory_frames=9)
