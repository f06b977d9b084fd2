"""Compositions of small models, through the door that configurations use."""

from contextlib import contextmanager

import numpy as np
import pytest

from agent.compose import open_model
from agent.compose.named import open_named, resolved
from agent.contract import (
    Attribute,
    BadPrediction,
    ConfigError,
    Context,
    Detection,
    Frame,
    Keypoint,
    Label,
    Mask,
    PromptNeeds,
    Rectangle,
    Skeleton,
)
from agent.models.host import Host
from agent.models.loading import LoadedModel, ModelReference, load_model
from agent.settings.tables import ModelSettings


class Finder:
    """Finds what it is told to."""

    def __init__(self, found, labels=("person", "car"), default_threshold=0.2):
        self.labels = [Label(name, "rectangle") for name in labels]
        self.found, self.default_threshold, self.asked = found, default_threshold, []

    def detect(self, frames, context):
        self.asked.append((len(frames), context))
        return [[d for d in self.found if d.score >= context.threshold] for _ in frames]


class Colours:
    """A classifier: red or blue, by the middle of the picture."""

    labels = (Label("red", "tag"), Label("blue", "tag"))

    def __init__(self):
        self.sizes = []

    def detect(self, frames, context):
        self.sizes += [(frame.width, frame.height) for frame in frames]
        return [[self._look(frame)] for frame in frames]

    def _look(self, frame):
        red, _, blue = frame.image[frame.height // 2, frame.width // 2].tolist()
        return Detection("red" if red >= blue else "blue", None, 0.9)


class Plates(Finder):
    def __init__(self):
        super().__init__([Detection("plate", Rectangle(1, 2, 5, 4), 0.8)], labels=("plate",))


class Pose(Finder):
    """Gives a skeleton for each rectangle."""

    def __init__(self):
        super().__init__([])
        self.labels = [Label("body", "skeleton", sublabels=(Label("head", "points"), Label("foot", "points")))]

    def estimate(self, frame, rectangles):
        return [Skeleton((Keypoint("head", r.left, r.top), Keypoint("foot", r.left, r.bottom))) for r in rectangles]


class Reader(Finder):
    def __init__(self):
        super().__init__([])

    def read(self, frame, rectangles):
        return [f"{r.right - r.left:g}" for r in rectangles]


class Segmenter:
    """Fills the box that it is given."""

    labels = ()
    needs = PromptNeeds(positive=0, box="required")

    def __init__(self):
        self.embedded = 0

    def embed(self, frame):
        self.embedded += 1
        return frame.image.shape[:2]

    def segment(self, embedding, prompts):
        bitmap = np.zeros(embedding, bool)
        box = prompts.box
        bitmap[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = True
        return [Detection("thing", Mask(bitmap), 0.7)]


KINDS = {Segmenter: "interactor"}
PERSON = Detection("person", Rectangle(10, 10, 30, 50), 0.9)
CAR = Detection("car", Rectangle(60, 20, 90, 40), 0.6)


@pytest.fixture
def opened():
    """Opens a composition of the given models, by name; what it opened is closed again."""
    closed = []

    def opening(scheme, models, **options):
        @contextmanager
        def opener(name, device, given):
            model = models[name]
            loaded = LoadedModel(
                ModelReference("test", name), model, KINDS.get(type(model), "detector"), tuple(model.labels),
                version=f"v-{name}", default_threshold=getattr(model, "default_threshold", 0.0), batch_size=2,
            )  # fmt: skip
            with Host(model, batch_size=2, name=name) as host:
                yield loaded, host
            closed.append(name)

        composed = open_model(f"{scheme}:", options=options, opener=opener)
        composing.append(composed)
        return composed

    composing = []
    yield opening
    for composed in composing:
        composed.close()
    assert closed or not composing  # the parts go with the whole


def picture(seed=0):
    image = np.zeros((64, 100, 3), np.uint8)
    image[:, :50] = (200, 0, 0)
    image[:, 50:] = (0, 0, 200)
    return Frame(seed, f"{seed}.png", image)


def test_a_classifier_gives_an_attribute(opened):
    colours = Colours()
    step = {"model": "colours", "gives": "attribute", "attribute": "color", "labels": ["car"]}
    chain = opened("chain", {"finder": Finder([PERSON, CAR]), "colours": colours}, of="finder", then=[step])
    assert [label.attributes for label in chain.labels] == [(), (Attribute("color", "select", ("red", "blue")),)]
    for found in chain.model.detect([picture(0), picture(1), picture(2)], Context(0.3)):
        assert [(d.label, dict(d.attributes)) for d in found] == [("person", {}), ("car", {"color": "blue"})]
    assert colours.sizes == [(30, 20)] * 3
    assert chain.version == "v-finder + v-colours"


def test_nobody_looks_at_what_nobody_wants(opened):
    colours, finder = Colours(), Finder([PERSON, CAR])
    step = {"model": "colours", "gives": "attribute", "attribute": "color"}
    chain = opened("chain", {"finder": finder, "colours": colours}, of="finder", then=[step])
    (found,) = chain.model.detect([picture()], Context(0.3, frozenset({"car"})))
    assert [(d.label, dict(d.attributes)) for d in found] == [("car", {"color": "blue"})]
    assert finder.asked[0][1].labels == {"car"}
    assert colours.sizes == [(30, 20)], "the person is not shown to it"


def test_what_is_found_within_may_be_wanted_where_its_surroundings_are_not(opened):
    step = {"model": "plates", "gives": "detections", "labels": ["car"]}
    chain = opened("chain", {"finder": Finder([CAR]), "plates": Plates()}, of="finder", then=[step])
    (found,) = chain.model.detect([picture()], Context(0.3, frozenset({"plate"})))
    assert "plate" in [d.label for d in found]


def test_a_classifier_gives_the_label(opened):
    step = {"model": "colours", "gives": "label"}
    chain = opened("chain", {"finder": Finder([PERSON, CAR]), "colours": Colours()}, of="finder", then=[step])
    assert [(label.name, label.type) for label in chain.labels] == [
        ("person", "rectangle"), ("car", "rectangle"), ("red", "rectangle"), ("blue", "rectangle"),
    ]  # fmt: skip
    (found,) = chain.model.detect([picture()], Context(0.3, frozenset({"red"})))
    assert [(d.label, d.shape) for d in found] == [("red", PERSON.shape), ("blue", CAR.shape)]


def test_what_is_found_within_a_crop_lies_where_it_is_in_the_frame(opened):
    step = {"model": "plates", "gives": "detections", "labels": ["car"], "margin": 0.1}
    chain = opened("chain", {"finder": Finder([PERSON, CAR]), "plates": Plates()}, of="finder", then=[step])
    (found,) = chain.model.detect([picture()], Context(0.3))
    assert [d.label for d in found] == ["person", "car", "plate"]
    assert found[2].shape == Rectangle(58, 20, 62, 22)  # the crop begins at 57, 18


def test_what_belongs_together_in_one_crop_does_not_belong_to_anothers(opened):
    plates = Plates()
    plates.found = [
        Detection("plate", Rectangle(1, 2, 5, 4), 0.8, group=1),
        Detection("plate", Rectangle(6, 2, 9, 4), 0.8, group=1),
    ]
    step = {"model": "plates", "gives": "detections"}
    chain = opened("chain", {"finder": Finder([PERSON, CAR]), "plates": plates}, of="finder", then=[step])
    (found,) = chain.model.detect([picture()], Context(0.3))
    assert [d.group for d in found] == [None, None, 1, 1, 2, 2]


def test_skeletons_texts_and_masks_take_the_rectangles_place(opened):
    segmenter = Segmenter()
    models = {"finder": Finder([PERSON, CAR, CAR]), "pose": Pose(), "reader": Reader(), "sam": segmenter}
    steps = [
        {"model": "reader", "gives": "text", "labels": ["car"]},
        {"model": "sam", "gives": "mask", "labels": ["car"]},
        {"model": "pose", "gives": "skeleton", "labels": ["person"]},
    ]
    chain = opened("chain", models, of="finder", then=steps)
    person, car = chain.labels
    assert (person.type, [sub.name for sub in person.sublabels]) == ("skeleton", ["head", "foot"])
    assert (car.type, car.attributes) == ("mask", (Attribute("text", "text"),))
    (found,) = chain.model.detect([picture()], Context(0.3))
    assert [d.shape.type for d in found] == ["skeleton", "mask", "mask"]
    assert found[1].attributes == {"text": "30"}
    assert found[1].score == CAR.score
    assert found[1].shape.bitmap.sum() == 30 * 20
    assert segmenter.embedded == 1  # once for both cars


def test_turned_lines_are_read_as_they_are_turned(opened):
    """Its width is told: that of what is around a turned line would be another one."""
    line = Detection("car", Rectangle(20, 20, 60, 30, rotation=45.0), 0.9)
    step = {"model": "reader", "gives": "text", "margin": 0.25}
    chain = opened("chain", {"finder": Finder([line, CAR]), "reader": Reader()}, of="finder", then=[step])
    (found,) = chain.model.detect([picture()], Context(0.3))
    assert [d.attributes["text"] for d in found] == ["60", "45"]


class Moody(Finder):
    """Says nothing of the second picture, and counts the pictures that it is asked about."""

    def __init__(self):
        super().__init__([PERSON, CAR])
        self.pictures = []

    def detect(self, frames, context):
        self.pictures += [frame.index for frame in frames]
        return [BadPrediction("no credit") if frame.index == 1 else self.found for frame in frames]


@pytest.mark.parametrize("scheme", ["ensemble", "flips", "chain"])
def test_a_picture_that_failed_stands_for_itself_and_no_other_is_asked_for_again(opened, scheme):
    moody, plates = Moody(), Plates()
    of = {"ensemble": ["moody", "other"]}.get(scheme, "moody")
    more = {"then": [{"model": "plates", "gives": "detections"}]} if scheme == "chain" else {}
    composed = opened(scheme, {"moody": moody, "other": Finder([PERSON]), "plates": plates}, of=of, **more)
    with Host(composed.model, batch_size=3) as host:
        first, second, third = host.submit([picture(0), picture(1), picture(2)], Context(0.3)).result()
    assert isinstance(second, BadPrediction)
    assert [len(found) for found in (first, third)] == [{"ensemble": 2}.get(scheme, 4)] * 2
    assert sorted(moody.pictures) == sorted([0, 1, 2] * (2 if scheme == "flips" else 1))
    with pytest.raises(BadPrediction, match="no credit"):
        composed.model.detect([picture(1)], Context(0.3))


def test_nothing_found_asks_nobody(opened):
    colours = Colours()
    step = {"model": "colours", "gives": "label"}
    chain = opened("chain", {"finder": Finder([]), "colours": colours}, of="finder", then=[step])
    assert chain.model.detect([picture()], Context(0.3)) == [[]]
    assert colours.sizes == []


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"model": "colours"}, "gives: got None, allowed: attribute, label, text"),
        ({"model": "colours", "gives": "attribute"}, "attribute: got '', allowed: the name"),
        ({"model": "colours", "gives": "mask"}, "colours cannot give a mask"),
        ({"model": "sam", "gives": "label"}, "sam is of the kind interactor, allowed: detector"),
        (
            {"model": "colours", "gives": "label", "labels": ["dog"]},
            "labels: got .'dog'., allowed: a list of person, car",
        ),
        ({"model": "colours", "gives": "label", "margin": 5}, "margin: got 5, allowed: 0 to 2"),
        ({"model": "colours", "gives": "label", "lables": []}, "unknown key 'lables', allowed: model, options"),
        ({"gives": "label"}, "allowed: a model, or a table with `model`"),
    ],
)
def test_steps_that_make_no_sense(opened, step, message):
    models = {"finder": Finder([PERSON]), "colours": Colours(), "sam": Segmenter()}
    with pytest.raises(ConfigError, match=message):
        opened("chain", models, of="finder", then=[step])


def test_an_ensemble_asks_all_its_parts_for_little_and_joins_their_words(opened, tmp_path):
    words = tmp_path / "words.toml"
    words.write_text('[labels]\nautomobile = "car"\nghost = false\n')
    one = Finder([CAR])
    other = Finder(
        [Detection("automobile", CAR.shape, 0.8), Detection("ghost", CAR.shape, 0.9)], ("automobile", "ghost")
    )
    of = ["one", {"model": "other", "label_map": str(words), "weight": 3}]
    both = opened("ensemble", {"one": one, "other": other}, of=of)
    assert [label.name for label in both.labels] == ["person", "car"]
    (found,) = both.model.detect([picture()], Context(0.5, frozenset({"car"})))
    assert [(d.label, round(d.score, 3)) for d in found] == [("car", 0.75)]
    assert one.asked[0][1] == Context(0.05, frozenset({"car"}))
    assert other.asked[0][1].labels == frozenset({"automobile"})


def test_an_ensemble_of_models_that_know_different_things(opened):
    """What only one of them has a word for keeps its score, and who knows nothing that is wanted is not asked."""
    one, other = Finder([CAR], ("car",)), Finder([Detection("forklift", CAR.shape, 0.7)], ("forklift",))
    both = opened("ensemble", {"one": one, "other": other}, of=["one", "other"])
    (found,) = both.model.detect([picture()], Context(0.5))
    assert [(d.label, d.score) for d in found] == [("forklift", 0.7), ("car", 0.6)]
    (found,) = both.model.detect([picture()], Context(0.5, frozenset({"car"})))
    assert [d.label for d in found] == ["car"]
    assert (len(one.asked), len(other.asked)) == (2, 1)


def test_points_that_name_no_sides_are_told_where_a_mirror_would_change_them(opened, caplog):
    pose = Pose()
    opened("flips", {"pose": pose}, of="pose", mirror=False)
    assert not caplog.messages
    opened("flips", {"pose": pose}, of="pose")
    assert caplog.messages == [
        "flips: the points of 'body' name no left and right (head, foot); if they have sides, set mirror = false"
    ]
    pose.labels = [Label("body", "skeleton", sublabels=(Label("hand_l", "points"), Label("hand_r", "points")))]
    opened("flips", {"pose": pose}, of="pose")
    assert len(caplog.messages) == 1


def test_skeletons_of_two_models_have_the_points_of_both(opened):
    one, other = Pose(), Pose()
    other.labels = [Label("body", "skeleton", sublabels=(Label("foot", "points"), Label("tail", "points")))]
    both = opened("ensemble", {"one": one, "other": other}, of=["one", "other"])
    assert [sub.name for sub in both.labels[0].sublabels] == ["head", "foot", "tail"]


def test_a_label_map_between_models_names_labels_and_nothing_else(opened, tmp_path):
    words = tmp_path / "words.toml"
    words.write_text('[labels]\ncar = { name = "vehicle", threshold = 0.9 }\n')
    with pytest.raises(ConfigError, match=r"label map words: 'car': got a table of more than a name, allowed: a joint"):
        opened("ensemble", {"one": Finder([CAR])}, of=["one", {"model": "one", "label_map": str(words)}])


def test_a_part_that_fails_is_a_bad_prediction(opened):
    class Broken(Finder):
        def detect(self, frames, context):
            raise RuntimeError("no memory")

    both = opened("ensemble", {"one": Finder([CAR]), "other": Broken([])}, of=["one", "other"])
    with pytest.raises(BadPrediction, match="no memory"):
        both.model.detect([picture()], Context())


@pytest.mark.parametrize(
    ("scheme", "options", "message"),
    [
        ("ensemble", {"of": ["one"]}, "allowed: a list of 2 or more models"),
        ("ensemble", {"of": ["one", 3]}, "got 3, allowed: a model, or a table"),
        ("ensemble", {"of": ["one", "one"], "method": "vote"}, "method"),
        ("ensemble", {"of": ["one", {"model": "one", "weight": "x"}]}, "weight: got 'x', allowed: a number"),
        ("ensemble", {"of": ["one", {"model": "one", "weight": 0}]}, "weight: got 0, allowed: more than that"),
        ("ensemble", {}, "option 'of' is missing"),
        ("ensemble", {"of": ["one", "one"], "parts": 3}, "unknown option 'parts'"),
        ("tiles", {"of": "one", "size": 3}, "size 3"),
        ("flips", {"of": "one", "scales": [0.0]}, "scales: got 0.0, allowed: 0.1 to 10"),
        ("chain", {"of": "one", "then": []}, "allowed: one or more of attribute"),
    ],
)
def test_options_that_make_no_sense(opened, scheme, options, message):
    with pytest.raises(ConfigError, match=message):
        opened(scheme, {"one": Finder([CAR])}, **options)


def test_tiles_and_flips_bring_what_they_find_back_to_the_frame(opened):
    finder = Finder([Detection("car", Rectangle(2, 3, 12, 13), 0.9)])
    tiles = opened("tiles", {"one": finder}, of="one", size=50, overlap=0.2, whole=False)
    frame = Frame(0, "wide.png", np.zeros((50, 130, 3), np.uint8))
    (found,) = tiles.model.detect([frame], Context(0.3))
    assert sorted(d.shape.left for d in found) == [2, 42, 82]
    flips = opened("flips", {"one": finder}, of="one")
    (found,) = flips.model.detect([frame], Context(0.3))
    assert sorted(d.shape.left for d in found) == [2, 118]
    assert {d.score for d in found} == {0.45}  # each is seen in one of two views only


def test_adapters_alone_go_through_the_same_door():
    with pytest.raises(ConfigError, match="unknown option"):
        open_named("opencv:face", options={"nonsense": 1})
    assert open_named("opencv:face").labels == load_model("opencv:face").labels


def test_parts_are_references_or_ids_of_service_toml():
    models = [
        ModelSettings("faces", "opencv:face"),
        ModelSettings("mirrored", "flips:", options={"of": "faces"}),
        ModelSettings("both", "ensemble:", options={"of": ["mirrored", "opencv:face"], "iou": 0.5}),
    ]
    both = open_named("both", models, options={"method": "nms"})
    try:
        assert [label.name for label in both.labels] == [label.name for label in load_model("opencv:face").labels]
        assert both.facts["parts"] == "mirrored, opencv:face"
        assert "method=nms iou=0.5" in both.version
        (found,) = both.model.detect([picture()], Context(0.3))
        assert found == []
    finally:
        both.close()


def test_a_model_that_is_a_part_of_itself():
    models = [ModelSettings("a", "flips:", options={"of": "b"}), ModelSettings("b", "tiles:", options={"of": "a"})]
    with pytest.raises(ConfigError, match="model 'a': it is a part of itself: a -> b -> a"):
        open_named("a", models)


def test_an_id_of_service_toml_stands_by_itself():
    models = [
        ModelSettings("faces", "opencv:face", options={"eyes": True}),
        ModelSettings("mirrored", "flips:", options={"of": "faces"}),
        ModelSettings(
            "both", "ensemble:", options={"of": ["mirrored", {"model": "local:x.onnx", "weight": 2}], "iou": 0.5}
        ),
    ]
    faces = {"model": "opencv:face", "options": {"eyes": True}}
    parts = [{"model": "flips:", "options": {"of": faces}}, {"model": "local:x.onnx", "weight": 2, "options": {}}]
    assert resolved("both", models) == ("ensemble:", {"of": parts, "iou": 0.5})
    assert resolved("local:y.onnx", models) == ("local:y.onnx", {})
    with pytest.raises(ConfigError, match="a -> b -> a"):
        resolved(
            "a", [ModelSettings("a", "flips:", options={"of": "b"}), ModelSettings("b", "flips:", options={"of": "a"})]
        )
