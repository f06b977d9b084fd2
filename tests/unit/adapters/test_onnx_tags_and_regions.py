"""Classifiers, maps of classes and heat maps: told by their graphs, and read with known answers."""

import numpy as np
import pytest
from PIL import Image

from agent.contract import Context, Frame, Rectangle
from agent.errors import BadPrediction, ConfigError, ModelLoadFailed
from agent.models.loading import load_model
from tests.support.onnx_graphs import bright_row, constant_graph, echo_graph

NAMES = ["cat", "dog", "owl"]
FRAME = Frame(0, "wide", np.zeros((64, 128, 3), np.uint8))


def load(path, **options):
    return load_model(f"local:{path}", device="cpu", options=options)


def found_in(loaded, frame=FRAME, **context):
    return loaded.model.detect([frame], Context(**context))[0]


def row(folder, values, metadata=None, name="out"):
    return constant_graph(folder / "m.onnx", {name: np.float32(values)}, metadata=metadata)


# ------------------------------------------------------------------------------------------------ tags


def tags(loaded, **context):
    return [(one.label, round(one.score, 3)) for one in found_in(loaded, **context)]


def test_probabilities_are_taken_as_they_are(tmp_path):
    loaded = load(row(tmp_path, [0.2, 0.7, 0.1]), labels=NAMES)
    assert loaded.facts["head"] == "classifier"
    assert [(label.name, label.type) for label in loaded.labels] == [(name, "tag") for name in NAMES]
    assert tags(loaded) == [("dog", 0.7)]
    assert tags(load(tmp_path / "m.onnx", labels=NAMES, top_k=2)) == [("dog", 0.7), ("cat", 0.2)]
    assert tags(load(tmp_path / "m.onnx", labels=NAMES, top_k=3), threshold=0.15) == [("dog", 0.7), ("cat", 0.2)]
    assert all(one.shape is None for one in found_in(loaded))


def test_logits_get_their_softmax_or_sigmoids(tmp_path):
    loaded = load(row(tmp_path, [1.0, 2.0, -1.0]), labels=NAMES)
    total = np.exp([1, 2, -1]).sum()
    assert tags(loaded) == [("dog", round(float(np.exp(2) / total), 3))]
    together = load(tmp_path / "m.onnx", labels=NAMES, multi_label=True)
    assert together.default_threshold == 0.5
    assert tags(together, threshold=0.5) == [("dog", 0.881), ("cat", 0.731)]
    assert tags(load(tmp_path / "m.onnx", labels=NAMES, multi_label=True, top_k=1), threshold=0.5) == [("dog", 0.881)]
    small = load(row(tmp_path, [0.1, 0.3, 0.2], name="logits"), labels=NAMES)
    assert tags(small)[0][1] == pytest.approx(np.exp(0.3) / np.exp([0.1, 0.3, 0.2]).sum(), abs=1e-3)


def test_logits_that_look_like_chances_for_a_gray_picture(tmp_path):
    """A gray picture gives 0.1 and 0.45; what a white one gives, 0.53 and 2.38, can be no chances."""
    loaded = load(bright_row(tmp_path / "m.onnx", [0.2, 0.9]), labels=NAMES[:2], mean=[0.0], std=[0.378])
    white = Frame(0, "white", np.full((64, 64, 3), 255, np.uint8))
    given = np.exp(np.array([0.2, 0.9]) / 0.378)
    assert [one.label for one in found_in(loaded, white)] == ["dog"]
    assert found_in(loaded, white)[0].score == pytest.approx(given[1] / given.sum(), abs=0.01)


def test_only_asked_tags_and_only_named_classes(tmp_path):
    path = row(tmp_path, [0.2, 0.7, 0.1])
    loaded = load(path, labels=NAMES, top_k=2)
    assert tags(loaded, labels=frozenset({"cat", "owl"})) == [("cat", 0.2)]
    assert tags(load(path, labels=["cat", "N/A", "owl"])) == [("cat", 0.2)]
    assert tags(load(path, labels=["background", *NAMES])) == [("dog", 0.7)]


def test_ultralytics_classifiers_tell_themselves(tmp_path):
    loaded = load(row(tmp_path, [0.2, 0.7, 0.1], {"task": "classify", "names": str(dict(enumerate(NAMES)))}))
    assert loaded.facts["preparation"] == "centre-crop, rgb, x*0.00392157"
    assert tags(loaded) == [("dog", 0.7)]


def test_classes_of_one_name_are_one_label_and_told(tmp_path):
    loaded = load(row(tmp_path, [0.2, 0.1, 0.7, 0.0]), labels=["crane", "owl", "crane", "N/A"], head="classifier")
    assert [label.name for label in loaded.labels] == ["crane", "owl"]
    assert loaded.facts["labels from"] == "option labels; 'crane' is the classes 0, 2"
    assert tags(loaded) == [("crane", 0.7)]


def test_a_thousand_classes_are_imagenets_if_it_is_a_classifier(tmp_path):
    values = np.zeros(1000)
    values[1] = 1
    path = row(tmp_path, values)
    with pytest.raises(ModelLoadFailed, match="like a classifier"):
        load(path)
    loaded = load(path, head="classifier")
    assert tags(loaded) == [("goldfish", 1.0)]
    assert "imagenet-1k, assumed because there are 1000" in loaded.facts["labels from"]


def test_scores_that_are_no_numbers_are_a_bad_prediction(tmp_path):
    with pytest.raises(BadPrediction, match="no numbers"):
        found_in(load(row(tmp_path, [np.nan] * 3), labels=NAMES))
    with pytest.raises(BadPrediction, match="no numbers"):
        found_in(load(row(tmp_path, [np.nan, 0.5, 0.2]), labels=NAMES))


def test_a_centre_crop_sees_the_middle(tmp_path):
    """An echoed input: the left and right quarters of a frame of 16 x 8 are not in it."""
    from adapters._networks.pictures import Recipe, place, placement

    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 4:12] = 200
    target = np.zeros((3, 4, 4), np.float32)
    where = place(image, Recipe(resize="centre-crop", scale=1.0), target)
    assert (target == 200).all()
    assert where == placement(16, 8, 4, 4, Recipe(resize="centre-crop"))
    assert where.to_input(4, 0) == (0, 0)
    assert where.to_input(12, 8) == (4, 4)
    np.testing.assert_allclose(where.to_frame(np.float32([[0, 0, 4, 4]]), 16, 8), [[4, 0, 12, 8]])
    for height, width in ((1, 5000), (5000, 1), (3, 3)):
        place(np.zeros((height, width, 3), np.uint8), Recipe(resize="centre-crop"), target)


def test_resize_to_256_and_cut_out_224(tmp_path):
    """torchvision's usual preparation, by option: the same numbers as PIL gives step by step."""
    from adapters._networks.pictures import Recipe, place

    soft = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8))
    image = soft.resize((700, 480), Image.Resampling.BICUBIC)
    ratio = 256 / 480
    small = image.resize((round(700 * ratio), 256), Image.Resampling.BILINEAR)
    left, top = round((small.width - 224) / 2), 16
    expected = np.asarray(small.crop((left, top, left + 224, top + 224)), np.float32)
    target = np.zeros((3, 224, 224), np.float32)
    place(np.asarray(image), Recipe(resize="centre-crop", crop=0.875, smooth=True, scale=1.0), target)
    assert np.abs(target.transpose(1, 2, 0) - expected).mean() < 2
    whole = np.zeros((3, 224, 224), np.float32)
    place(np.asarray(image), Recipe(resize="centre-crop", smooth=True, scale=1.0), whole)
    assert np.abs(whole.transpose(1, 2, 0) - expected).mean() > 6
    loaded = load(row(tmp_path, [0.2, 0.5, 0.3]), labels=NAMES, crop=0.875)
    assert loaded.facts["preparation"].startswith("centre-crop of 0.875, rgb")
    with pytest.raises(ConfigError, match=r"crop: got 0.0, allowed: 0.1 to 1"):
        load(row(tmp_path, [0.2, 0.5, 0.3]), labels=NAMES, crop=0)


def test_pictures_are_made_smaller_without_aliasing(tmp_path):
    """Stripes of one pixel are gray from afar; looked at without smoothing, they are black or white."""
    from adapters._networks.pictures import Recipe, place

    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255
    target = np.zeros((3, 16, 16), np.float32)
    place(stripes, Recipe(resize="centre-crop", smooth=True, scale=1.0), target)
    np.testing.assert_allclose(target, 255 / 4, atol=20)


# ------------------------------------------------------------------------------------------------ regions


def quarters(values=(9.0, 9.0, 9.0, 9.0), side=16):
    """(4, side, side) maps: each class is the best in a quarter of the input, the first at the top left."""
    maps = np.zeros((4, side, side), np.float32)
    half = side // 2
    for number, value in enumerate(values):
        down, across = divmod(number, 2)
        maps[number, down * half : (down + 1) * half, across * half : (across + 1) * half] = value
    return maps


def boxes(found):
    """{label: left, top, right, bottom}."""
    return {
        one.label: (
            one.shape.left,
            one.shape.top,
            one.shape.left + one.shape.bitmap.shape[1],
            one.shape.top + one.shape.bitmap.shape[0],
        )
        for one in found
    }


FOUR = ["background", "cat", "dog", "owl"]


@pytest.mark.parametrize("side", [8, 16, 64])
def test_each_class_is_a_mask_of_the_frame(tmp_path, side):
    path = constant_graph(tmp_path / "m.onnx", {"logits": quarters(side=side)})
    loaded = load(path, labels=FOUR)
    assert loaded.facts["head"] == "semantic"
    assert [(label.name, label.type) for label in loaded.labels] == [(name, "mask") for name in FOUR[1:]]
    found = found_in(loaded)
    # Stretched: a quarter of the input is a quarter of the frame.
    assert boxes(found) == {"cat": (64, 0, 128, 32), "dog": (0, 32, 64, 64), "owl": (64, 32, 128, 64)}
    assert all(0.9 < one.score <= 1 for one in found)
    assert all(one.shape.bitmap.all() for one in found)


def test_torchvisions_second_map_is_not_looked_at(tmp_path):
    """It helped to train the network; here it says otherwise."""
    wrong = quarters(side=16)[::-1]
    path = constant_graph(tmp_path / "m.onnx", {"aux": np.ascontiguousarray(wrong), "out": quarters(side=16)})
    found = found_in(load(path, labels=FOUR))
    assert boxes(found) == {"cat": (64, 0, 128, 32), "dog": (0, 32, 64, 64), "owl": (64, 32, 128, 64)}


def test_scores_are_the_mean_chance_and_thresholds_hold(tmp_path):
    path = constant_graph(tmp_path / "m.onnx", {"logits": quarters((9, 1, 9, 9), side=64)})
    loaded = load(path, labels=FOUR)
    (cat,) = [one for one in found_in(loaded) if one.label == "cat"]
    assert cat.score == pytest.approx(np.e / (np.e + 3), abs=0.02)
    assert set(boxes(found_in(loaded, threshold=0.6))) == {"dog", "owl"}
    assert set(boxes(found_in(loaded, labels=frozenset({"cat"})))) == {"cat"}


def test_parts_can_be_split_and_specks_left_out(tmp_path):
    maps = np.zeros((2, 64, 64), np.float32)
    maps[0] = 1
    for left, top, side in ((4, 4, 16), (40, 40, 20), (60, 2, 1)):
        maps[1, top : top + side, left : left + side] = 5
    path = constant_graph(tmp_path / "m.onnx", {"logits": maps})
    frame = Frame(0, "square", np.zeros((64, 64, 3), np.uint8))
    (whole,) = found_in(load(path, labels=["background", "cell"]), frame)
    assert whole.shape.bitmap.sum() == 16**2 + 20**2 + 1
    split = load(path, labels=["background", "cell"], split_regions=True, smallest_region=4)
    areas = [int(one.shape.bitmap.sum()) for one in found_in(split, frame)]
    assert sorted(areas) == [256, 400]
    assert found_in(load(path, labels=["background", "cell"], smallest_region=5000), frame) == []
    with pytest.raises(ConfigError, match="smallest_region: got 0, allowed: 1 or more"):
        load(path, labels=["background", "cell"], smallest_region=0)


def test_a_map_of_class_numbers(tmp_path):
    numbers = quarters().argmax(axis=0).astype(np.int64)
    numbers[0, 0] = 255
    loaded = load(constant_graph(tmp_path / "m.onnx", {"classes": numbers}), labels=FOUR)
    found = found_in(loaded)
    assert boxes(found) == {"cat": (64, 0, 128, 32), "dog": (0, 32, 64, 64), "owl": (64, 32, 128, 64)}
    assert all(one.score is None for one in found)
    numbers[0, 0] = 77
    wrong = load(constant_graph(tmp_path / "n.onnx", {"classes": numbers}), labels=FOUR)
    with pytest.raises(BadPrediction, match="got class 77, there are 4 class names"):
        found_in(wrong)


@pytest.mark.parametrize("logits", [True, False])
def test_one_map_is_the_chance_of_one_class(tmp_path, logits):
    chance = np.full((1, 16, 16), 0.1, np.float32)
    chance[0, :, 8:] = 0.9
    values = np.log(chance / (1 - chance)) if logits else chance
    loaded = load(constant_graph(tmp_path / "m.onnx", {"mask": values}), labels=["road"])
    (one,) = found_in(loaded)
    assert boxes([one]) == {"road": (64, 0, 128, 64)}
    assert one.score == pytest.approx(0.88, abs=0.03)


def test_maps_of_an_unknown_meaning_need_to_be_named(tmp_path):
    path = constant_graph(tmp_path / "m.onnx", {"out": quarters()})
    with pytest.raises(ModelLoadFailed, match="like a map of classes"):
        load(path)
    with pytest.raises(ModelLoadFailed, match="tells 4 classes apart"):
        load(path, head="semantic")
    with pytest.raises(ModelLoadFailed, match=r"; 2 class names were given; known heads: .*heatmaps"):
        load(path, labels=["a", "b"])
    assert load(path, head="semantic", labels=FOUR).facts["head"] == "semantic"
    with pytest.raises(ConfigError, match="got 2 names, its semantic head has 4 classes"):
        load(path, head="semantic", labels=["a", "b"])


def test_maps_that_are_no_numbers_are_a_bad_prediction(tmp_path):
    maps = quarters()
    maps[0, 3, 3] = np.nan
    with pytest.raises(BadPrediction, match="numbers that are none"):
        found_in(load(constant_graph(tmp_path / "m.onnx", {"out": maps}), labels=FOUR))


# ------------------------------------------------------------------------------------------------ heat maps


def heat(*peaks, side=16):
    maps = np.zeros((len(peaks), side, side), np.float32)
    for number, (column, row, height) in enumerate(peaks):
        maps[number, row, column] = height
    return maps


def test_peaks_are_points_of_the_frame(tmp_path):
    path = constant_graph(tmp_path / "m.onnx", {"heat": heat((4, 4, 0.9), (8, 12, 0.1))}, batch="n")
    loaded = load(path, head="heatmaps", points=["head", "tail"], label="fish")
    (label,) = loaded.labels
    assert (label.name, label.type, [sub.name for sub in label.sublabels]) == ("fish", "skeleton", ["head", "tail"])
    (one,) = found_in(loaded, Frame(0, "f", np.zeros((100, 100, 3), np.uint8)))
    assert one.score == pytest.approx(0.5)
    # The window is a quarter larger than the frame: cell 4 of 16 lies at -12.5 + 4 / 16 * 125.
    assert [(p.label, p.x, p.y, p.outside) for p in one.shape.elements] == [
        ("head", 18.75, 18.75, False),
        ("tail", 50.0, 81.25, True),
    ]
    narrow, square = loaded.model.estimate(FRAME, [Rectangle(10, 0, 20, 40), Rectangle(80, 10, 120, 50)])
    assert narrow.elements[0].x == pytest.approx(15 - 25 + 50 * 4 / 16), "a narrow box is seen as a square"
    assert square.elements[0].x == pytest.approx(100 - 25 + 50 * 4 / 16)
    assert loaded.model.estimate(FRAME, []) == []


def test_what_is_no_heat_map_is_told(tmp_path):
    path = constant_graph(tmp_path / "m.onnx", {"heat": heat((4, 4, 0.9), (8, 12, 0.1))})
    assert [sub.name for sub in load(path, head="heatmaps").labels[0].sublabels] == ["1", "2"]
    with pytest.raises(ConfigError, match="points: got 1 names, its heatmaps head has 2 points"):
        load(path, head="heatmaps", points=["a"])
    with pytest.raises(ConfigError, match="option 'labels' is not for a model of kind pose"):
        load(path, head="heatmaps", labels=["a"])
    with pytest.raises(ModelLoadFailed, match="this is no heatmaps head: the graph gives out"):
        load(row(tmp_path, [1, 2]), head="heatmaps")
    broken = load(constant_graph(tmp_path / "n.onnx", {"heat": np.full((2, 8, 8), np.nan)}), head="heatmaps")
    with pytest.raises(BadPrediction, match="NaN"):
        found_in(broken)


def test_a_crop_shows_what_is_in_the_rectangle(tmp_path):
    """The echoed input of a person's box: the box, and an eighth of it on each side."""
    path = echo_graph(tmp_path / "m.onnx", size=(20, 20))
    loaded = load(path, head="heatmaps", scale=1, mean=[0], std=[1], points=["r", "g", "b"])
    image = np.zeros((100, 100, 3), np.uint8)
    image[40, 60] = (250, 0, 0)
    (skeleton,) = loaded.model.estimate(Frame(0, "f", image), [Rectangle(52, 32, 68, 48)])
    red = skeleton.elements[0]
    assert (red.x, red.y) == pytest.approx((60, 40), abs=1)
    assert not red.outside
    assert all(element.outside for element in skeleton.elements[1:])
