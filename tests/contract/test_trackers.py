"""The contract of a tracker (`agent/contract.py`), held against every adapter that gives one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import pytest
from PIL import Image

from agent.contract import Frame, Points, Rectangle
from agent.errors import BadPrediction, ConfigError, ModelLoadFailed, ModelNotFound
from agent.models.loading import load_model
from tests.support.contract_models import FOLLOWER
from tests.support.onnx_graphs import constant_graph

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """A tracker, options that are files in the assets, and the mean IoU that it has on media/sot/bag."""

    reference: str
    source: str = ""
    """What is in the file of a `cvat:` function."""
    files: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    least: float = 0.6
    """The overlap with the truth, at least, after some frames of a moving square."""
    bag: float = 0.0
    state: int = 100_000
    """Bytes that a state has at most."""


MODELS = {
    "nanotrack 2": Case(
        "opencv:nanotrack",
        files={"backbone": "nanotrackv2_backbone_dyn.onnx", "head": "nanotrackv2_head_sim.onnx"},
        bag=0.778,
        state=7_000,
    ),
    "nanotrack 3": Case(
        "opencv:nanotrack",
        files={"backbone": "nanotrackv3_backbone_dyn.onnx", "head": "nanotrackv3_head.onnx"},
        bag=0.787,
        state=13_000,
    ),
    "mil": Case("opencv:mil", least=0.25),
    "csrt": Case("opencv:csrt"),
    "kcf": Case("opencv:kcf"),
    "nanotrack 3, equalised": Case(
        "opencv:nanotrack",
        files={"backbone": "nanotrackv3_backbone_dyn.onnx", "head": "nanotrackv3_head.onnx"},
        options={"equalize": "clahe"},
    ),
    "cvat": Case("cvat", source=FOLLOWER),
}
BUILT_IN = {"opencv:csrt": "TrackerCSRT_create", "opencv:kcf": "TrackerKCF_create"}


def open_case(case, assets, folder=None):
    options = {key: str(assets / "weights" / name) for key, name in case.files.items()} | case.options
    import cv2

    if case.source:
        (folder / "follower.py").write_text(case.source)
        return load_model(f"cvat:{folder}/follower.py", device="cpu")

    if (needed := BUILT_IN.get(case.reference)) and not hasattr(cv2, needed):
        pytest.skip(f"needs an OpenCV with {needed} (opencv-contrib-python)")
    return load_model(case.reference, device="cpu", options=options)


@pytest.fixture(scope="module", params=[pytest.param(name, id=name) for name in MODELS])
def case(request):
    return MODELS[request.param]


@pytest.fixture(scope="module")
def loaded(case, assets, tmp_path_factory):
    model = open_case(case, assets, tmp_path_factory.mktemp("models"))
    yield model
    model.close()


def scene(shift, size=(240, 320)):
    """A textured square of 60 pixels on a smooth background, moved, and another that stays where it is."""
    rng = np.random.default_rng(7)
    high, wide = size
    down, across = np.mgrid[0:high, 0:wide]
    image = np.stack([80 + 40 * np.sin(across / 50), 90 + 30 * np.cos(down / 40), np.full(size, 100)], axis=2)
    texture = np.repeat(np.repeat(rng.integers(0, 255, (10, 10, 3)), 6, axis=0), 6, axis=1)
    image[20:70, 220:290] = np.repeat(np.repeat(rng.integers(0, 255, (5, 7, 3)), 10, axis=0), 10, axis=1)
    left, top = 60 + shift, 80 + shift // 2
    image[top : top + 60, left : left + 60] = texture
    return Frame(shift, f"scene {shift}", image.astype(np.uint8)), Rectangle(left, top, left + 60, top + 60)


def overlap(one, other):
    wide = min(one.right, other.right) - max(one.left, other.left)
    high = min(one.bottom, other.bottom) - max(one.top, other.top)
    if wide <= 0 or high <= 0:
        return 0.0
    both = sum((box.right - box.left) * (box.bottom - box.top) for box in (one, other))
    return wide * high / (both - wide * high)


def follow(model, states, shifts):
    """The states and shapes after all of the shifts."""
    shapes = []
    for shift in shifts:
        answers = model.follow(scene(shift)[0], states)
        states, shapes = [state for state, _ in answers], [shape for _, shape in answers]
    return states, shapes


def test_what_it_says_of_itself(loaded):
    assert loaded.kind == "tracker"
    assert tuple(loaded.model.shape_types) == ("rectangle",)
    assert loaded.version != "unknown"


def test_a_square_is_followed(loaded, case):
    frame, start = scene(0)
    states = loaded.model.begin(frame, [start])
    assert all(isinstance(state, bytes) and len(state) <= case.state for state in states)
    _, (shape,) = follow(loaded.model, states, range(3, 31, 3))
    assert isinstance(shape, Rectangle)
    assert overlap(shape, scene(30)[1]) > case.least


def test_each_shape_has_its_own_state(loaded, case):
    """Some may be followed and others left, in any order, and shapes of several beginnings be mixed."""
    frame, start = scene(0)
    still = Rectangle(220, 20, 290, 70)
    one, other = loaded.model.begin(frame, [start, still])
    (third,) = loaded.model.begin(scene(9)[0], [scene(9)[1]])
    states, _ = follow(loaded.model, [one], (3, 6, 9))
    _, shapes = follow(loaded.model, [third, *states], (12, 15))
    assert all(overlap(shape, scene(15)[1]) > case.least for shape in shapes)
    ((_, left),) = loaded.model.follow(scene(0)[0], [other])
    assert overlap(left, still) > case.least
    assert loaded.model.follow(frame, []) == []
    assert loaded.model.begin(frame, []) == []


def test_an_older_state_may_come_again(loaded, case):
    """A person goes back some frames and follows from there once more."""
    frame, start = scene(0)
    middle, _ = follow(loaded.model, loaded.model.begin(frame, [start]), (3, 6))
    _, (first,) = follow(loaded.model, middle, (9, 12))
    _, (again,) = follow(loaded.model, middle, (9, 12))
    assert overlap(first, scene(12)[1]) > case.least
    assert overlap(again, scene(12)[1]) > case.least


PROGRAM = """
import sys
from pathlib import Path
from agent.models.loading import load_model
from tests.contract.test_trackers import MODELS, open_case, scene

case, folder, assets = MODELS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
model = open_case(case, assets).model
((_, shape),) = model.follow(scene(9)[0], [(folder / "state").read_bytes()])
print(shape.left, shape.top, shape.right, shape.bottom)
"""


@pytest.mark.parametrize("name", ["nanotrack 2", "mil"])
def test_states_outlive_the_process(assets, tmp_path, name):
    model = open_case(MODELS[name], assets).model
    frame, start = scene(0)
    (state,), _ = follow(model, model.begin(frame, [start]), (3, 6))
    (tmp_path / "state").write_bytes(state)
    command = [sys.executable, "-c", PROGRAM, name, str(tmp_path), str(assets)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    there = Rectangle(*map(float, done.stdout.split()))
    ((_, here),) = model.follow(scene(9)[0], [state])
    assert overlap(there, scene(9)[1]) > MODELS[name].least
    if name != "mil":  # its state is all there is
        assert overlap(there, here) > 0.999


def test_foreign_states_are_refused(loaded):
    frame, start = scene(0)
    (state,) = loaded.model.begin(frame, [start])
    for wrong in (b"", b"\0", b"nonsense" * 99, state[:40], b"x" + state[1:], os.urandom(len(state))):
        with pytest.raises(ValueError, match=r"state"):
            loaded.model.follow(frame, [wrong])
    if loaded.reference.scheme == "cvat":
        return  # what is in its states is the function's own matter
    damaged = bytearray(state)
    damaged[28:36] = b"\xff" * 8
    for wrong in (bytes(damaged), state[:20] + os.urandom(len(state) - 20)):
        with pytest.raises(ValueError, match="the state is damaged"):
            loaded.model.follow(frame, [wrong])


def test_states_of_other_weights_are_refused(assets):
    two, three = (open_case(MODELS[name], assets).model for name in ("nanotrack 2", "nanotrack 3"))
    mil = open_case(MODELS["mil"], assets).model
    frame, start = scene(0)
    for model, others in ((two, (three, mil)), (three, (two,)), (mil, (two,))):
        (state,) = model.begin(frame, [start])
        for other in others:
            with pytest.raises(ValueError):
                other.follow(frame, [state])


def test_shapes_at_the_edge_and_tiny_frames_do_not_crash(loaded):
    frame, _ = scene(0)
    odd = [
        Rectangle(-30, -30, 20, 20),
        Rectangle(300, 220, 400, 300),
        Rectangle(50, 50, 50, 50),
        Rectangle(0, 0, 320, 240),
    ]
    states = loaded.model.begin(frame, odd)
    for shift in (1, 2):
        answers = loaded.model.follow(scene(shift)[0], states)
        states = [state for state, _ in answers]
        for _, shape in answers:
            assert shape is None or (0 <= shape.left < shape.right <= 320 and 0 <= shape.top < shape.bottom <= 240)
    small = Frame(0, "small", np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8))
    loaded.model.follow(small, loaded.model.begin(small, [Rectangle(4, 4, 20, 20)]))
    for strip in (small.image[:1].repeat(40, axis=1), small.image[:, :1].repeat(40, axis=0)):
        narrow = Frame(0, "narrow", strip)
        with contextlib.suppress(BadPrediction):  # CSRT wants more room than that
            loaded.model.begin(narrow, [Rectangle(0, 0, narrow.width, narrow.height)])
    with pytest.raises(ValueError, match="got a points, allowed: rectangle"):
        loaded.model.begin(frame, [Points((1.0, 2.0))])


def test_a_frame_may_change_its_size(loaded, case):
    frame, start = scene(0)
    states = loaded.model.begin(frame, [start])
    larger = Frame(1, "larger", np.pad(scene(3)[0].image, ((0, 60), (0, 80), (0, 0))))
    ((_, shape),) = loaded.model.follow(larger, states)
    assert shape is None or overlap(shape, scene(3)[1]) > case.least


# ------------------------------------------------------------------------------------------------ nanotrack


@pytest.mark.parametrize("name", [name for name, case in MODELS.items() if case.bag])
def test_the_accuracy_of_the_weights_comes_through(assets, name):
    """media/sot/bag, 196 frames, from the box around the first polygon."""
    model = open_case(MODELS[name], assets).model
    folder = assets / "media/sot/bag"
    polygons = np.loadtxt(folder / "groundtruth.txt", delimiter=",").reshape(-1, 4, 2)
    truth = [
        Rectangle(*polygon.min(axis=0), *polygon.max(axis=0))
        for polygon in polygons.tolist()
        for polygon in [np.array(polygon)]
    ]
    frames = [
        Frame(i, p.name, np.asarray(Image.open(p).convert("RGB"))) for i, p in enumerate(sorted(folder.rglob("*.jpg")))
    ]
    (state,) = model.begin(frames[0], truth[:1])
    overlaps = [1.0]
    for frame, box in zip(frames[1:], truth[1:], strict=True):
        ((state, shape),) = model.follow(frame, [state])
        overlaps.append(0.0 if shape is None else overlap(shape, box))
    assert np.mean(overlaps) == pytest.approx(MODELS[name].bag, abs=0.01)
    assert np.mean(np.array(overlaps) > 0.5) >= 0.99


@pytest.mark.parametrize("name", ["nanotrack 2", "nanotrack 3"])
def test_a_backbone_that_says_it_takes_one_size_only_is_as_good(assets, tmp_path, name):
    """As its authors publish it; the one among the assets was opened to any size."""
    case = MODELS[name]
    made = onnx.load(assets / "weights" / case.files["backbone"])
    for values, sides in ((made.graph.input, (255, 255)), (made.graph.output, (16, 16))):
        for side, size in zip(values[0].type.tensor_type.shape.dim[2:], sides, strict=True):
            side.dim_value = size
    fixed = tmp_path / "fixed.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(made), fixed)
    options = {"backbone": str(fixed), "head": str(assets / "weights" / case.files["head"])}
    published = load_model(case.reference, device="cpu", options=options).model
    opened = open_case(case, assets).model
    found = []
    for model in (published, opened):
        frame, start = scene(0)
        (state,) = model.begin(frame, [start])
        for shift in (1, 2, 3):
            ((state, shape),) = model.follow(scene(shift)[0], [state])
            found.append(shape)
    assert found[:3] == found[3:]
    assert None not in found


@pytest.mark.parametrize("name", ["nanotrack 2", "nanotrack 3"])
def test_what_is_out_of_sight_is_lost_and_found_again(assets, name):
    model = open_case(MODELS[name], assets).model
    frame, start = scene(0)
    cat = Image.open(assets / "media/misc/cat_720p.jpg").convert("RGB").resize((320, 240))
    (state,) = model.begin(frame, [start])
    ((state, shape),) = model.follow(Frame(1, "cat", np.asarray(cat)), [state])
    assert shape is None
    ((state, shape),) = model.follow(frame, [state])
    assert overlap(shape, start) > 0.7


def test_wrong_files_and_options_are_told(assets, tmp_path):
    weights = assets / "weights"
    backbone, head = (str(weights / MODELS["nanotrack 2"].files[part]) for part in ("backbone", "head"))

    def load(**options):
        return load_model("opencv:nanotrack", device="cpu", options=options)

    with pytest.raises(ConfigError, match="option 'backbone' is missing"):
        load()
    with pytest.raises(ConfigError, match="option 'head' is missing"):
        load(backbone=backbone)
    with pytest.raises(ModelNotFound, match="there is no such file"):
        load(backbone=backbone, head="nowhere.onnx")
    with pytest.raises(ConfigError, match=r"lost_below: got 2.0, allowed: 0 to 1"):
        load(backbone=backbone, head=head, lost_below=2)
    with pytest.raises(ConfigError, match="unknown option 'eyes', allowed: backbone, head"):
        load(backbone=backbone, head=head, eyes=True)
    for wrong, said in (
        ({"backbone": head, "head": backbone}, "its backbone takes input1 .*, input2 "),
        ({"backbone": backbone, "head": backbone}, "its head takes input "),
        ({"backbone": str(weights / "yunet_n_dynamic.onnx"), "head": head}, "the backbone gives 12 outputs"),
    ):
        with pytest.raises(ModelLoadFailed, match=rf"^opencv:nanotrack: {said}.*; allowed: a backbone of"):
            load(**wrong)
    other = str(weights / MODELS["nanotrack 3"].files["head"])
    with pytest.raises(
        ModelLoadFailed,
        match=r"^opencv:nanotrack: not a pair: the backbone gives features of \[1, 48, 8, 8\], the head takes"
        r" input1 \[1, 96, 8, 8\]; allowed: backbone and head of the same version",
    ):
        load(backbone=backbone, head=other)
    constant = constant_graph(tmp_path / "m.onnx", {"a": np.zeros((4, 9, 9)), "b": np.zeros((2, 9, 9))})
    with pytest.raises(ModelLoadFailed, match="allowed: a backbone of"):
        load(backbone=backbone, head=str(constant))


# ------------------------------------------------------------------------------------------------ OpenCV's own


@pytest.mark.parametrize("reference", BUILT_IN)
def test_trackers_that_are_not_built_in_say_where_they_are(reference):
    import cv2

    if hasattr(cv2, BUILT_IN[reference]):
        pytest.skip("this OpenCV has it")
    with pytest.raises(ModelLoadFailed, match="it is in the package opencv-contrib-python"):
        load_model(reference)


def test_the_live_trackers_are_bounded():
    from adapters._opencv.trackers import MOST_LIVE, OpencvTracker

    tracker = OpencvTracker("mil")
    frame, start = scene(0)
    # MIL draws its samples by the clock, so objects seem to move a little.
    states = tracker.begin(frame, [start] * (MOST_LIVE + 3))
    assert len(tracker._live) == MOST_LIVE
    assert len(set(states)) == len(states), "an id names one tracker"
    ((_, shape),) = tracker.follow(frame, states[:1])
    assert overlap(shape, start) > 0, "the oldest goes on from its picture"
    tracker.close()
    assert not tracker._live


def test_a_state_stays_small_for_large_objects():
    tracker = load_model("opencv:mil").model
    rng = np.random.default_rng(0)
    noise = Frame(0, "large", rng.integers(0, 255, (1080, 1920, 3), np.uint8))
    (state,) = tracker.begin(noise, [Rectangle(100, 100, 1500, 900)])
    assert len(state) < 100_000
