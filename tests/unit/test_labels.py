"""Matching labels: precedence, names, types, attributes, points, and what is said where nothing fits."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain import LABEL_TYPES, Attribute, Label, TaskAttribute, TaskLabel
from agent.errors import ConfigError, LabelMismatch
from agent.labels.advice import IN_MENU, IN_RULE, ON_COMMAND_LINE
from agent.labels.attribute_values import valid_value
from agent.labels.maps import load_label_map, parse_label_map
from agent.labels.matching import check_match, compatible, find_match, match_labels
from agent.labels.names import NameIndex, fold

KIND = TaskAttribute(71, "kind", "select", ("car", "truck", "bus"))
AGE = TaskAttribute(72, "age", "number", ("0", "99", "1"))


def task(*names, **types):
    """Task labels: rectangles by name, others by keyword."""
    labels = [(name, "rectangle") for name in names] + list(types.items())
    return [TaskLabel(number, name, kind) for number, (name, kind) in enumerate(labels, 1)]


def model(*names, kind="rectangle"):
    return [Label(name, kind) for name in names]


def targets(match):
    return {name: target.label.name for name, target in match.targets.items()}


class TestNames:
    @pytest.mark.parametrize(
        ("own", "theirs", "how"),
        [
            ("car", "car", "same name"),
            ("traffic light", "Traffic_Light", "case"),
            ("hot-dog", "hotdog", "case"),
            ("car", "Cars", "plural"),
            ("buses", "bus", "plural"),
            ("houses", "house", "plural"),
            ("person", "people", "plural"),
            ("knife", "knives", "plural"),
            ("butterflies", "Butterfly", "plural"),
            ("ski", "skis", "plural"),
            ("traffic lights", "traffic-light", "plural"),
        ],
    )
    def test_names_that_are_the_same(self, own, theirs, how):
        match = match_labels(model(own), task(theirs))
        assert targets(match) == {own: theirs}
        assert how in match.targets[own].how

    @pytest.mark.parametrize(("own", "theirs"), [("car", "cat"), ("bus", "b"), ("pot", "potted plant"), ("as", "a")])
    def test_names_that_are_not(self, own, theirs):
        assert match_labels(model(own, "same"), task(theirs, "same")).dropped[0].name == own

    def test_the_very_name_wins(self):
        assert targets(match_labels(model("Car"), task("car", "Car", "cars"))) == {"Car": "Car"}

    def test_nothing_is_guessed_between_two(self):
        match = match_labels(model("CAR", "dog"), task("car", "Car", "dog"))
        (dropped,) = match.dropped
        assert dropped.reason == "ambiguous: car / Car"

    def test_many_may_become_one(self):
        match = match_labels(model("car", "Car"), task("car", "bike"))
        assert targets(match) == {"car": "car", "Car": "car"}
        assert [label.name for label in match.unused] == ["bike"]

    def test_a_label_that_the_model_names_twice_counts_once(self):
        match = match_labels([*model("car"), *model("car", kind="mask"), *model("x"), *model("x")], task("car"))
        assert match.targets["car"].model_type == "rectangle"
        assert len(match.dropped) == 1

    @given(st.lists(st.text("abcS -_", min_size=1, max_size=5), min_size=1, max_size=6, unique=True))
    def test_every_name_finds_itself_and_never_a_stranger(self, names):
        labels = task(*names)
        index = NameIndex(labels)
        for label in labels:
            assert index.find(label.name)[0] is label
            assert index.find(label.name.upper())[0] in (None, *(o for o in labels if near(o.name, label.name)))


def near(one, other):
    one, other = fold(one), fold(other)
    return one.startswith(other[: len(other) - 3]) or other.startswith(one[: len(one) - 3])


class TestPrecedence:
    MAP = parse_label_map("mine", '[labels]\ncar = "vehicle"\nvan = false\nbus = {threshold = 0.7}', "mine.toml")

    def test_the_mapping_before_the_map_before_the_name(self):
        labels = task("car", "vehicle", "other", "bus")
        assert targets(match_labels(model("car"), labels)) == {"car": "car"}
        assert targets(match_labels(model("car"), labels, label_map=self.MAP)) == {"car": "vehicle"}
        match = match_labels(model("car", "dog", "other"), labels, label_map=self.MAP, request={"car": "other"})
        assert targets(match) == {"car": "other", "other": "other"}
        assert match.targets["car"].how == "mapping"

    def test_dropped_by_each(self):
        match = match_labels(model("car", "van", "bus"), task("car", "van", "bus"), label_map=self.MAP,
                             request={"car": None})  # fmt: skip
        assert {d.name: d.reason for d in match.dropped} == {
            "car": "dropped by the mapping", "van": "dropped by label map mine",
        }  # fmt: skip
        assert targets(match) == {"bus": "bus"}

    def test_a_map_is_no_hindrance_where_the_task_has_the_models_name(self):
        match = match_labels(model("car"), task("car"), label_map=self.MAP)
        assert targets(match) == {"car": "car"}
        assert match.targets["car"].how == "same name"

    def test_a_map_that_asks_for_what_is_not_there(self):
        match = match_labels(model("car", "bus"), task("bus"), label_map=self.MAP)
        assert match.dropped[0].reason == "label map mine says 'vehicle': the task has no such label"

    def test_cvats_mapping_drops_what_it_does_not_name(self):
        request = {"car": {"name": "car"}}
        match = match_labels(model("car", "bus"), task("car", "bus"), request=request, only_requested=True)
        assert targets(match) == {"car": "car"}
        assert match.dropped[0].reason == "the mapping does not name it"

    def test_a_vocabulary_is_no_map(self):
        with pytest.raises(ConfigError, match=r"coco-80: it has no \[labels\].*coco-to-voc would help"):
            match_labels(model("airplane"), task("aeroplane"), label_map=load_label_map("coco-80"))


class TestThresholds:
    def test_the_requests_then_the_maps_then_the_models(self):
        match = match_labels(model("car", "bus"), task("car", "bus"), label_map=TestPrecedence.MAP)
        own = match.thresholds(None, 0.3)
        assert (own.of("car"), own.of("bus"), own.lowest) == (0.3, 0.7, 0.3)
        asked = match.thresholds(0.5, 0.3)
        assert (asked.of("car"), asked.of("bus"), asked.lowest) == (0.5, 0.5, 0.5)
        assert match.thresholds(0.0, 0.3).of("bus") == 0.0

    def test_the_model_need_not_go_below_what_any_label_asks(self):
        match = match_labels(model("bus"), task("bus"), label_map=TestPrecedence.MAP)
        assert match.thresholds(None, 0.1).lowest == 0.7


class TestTypes:
    @pytest.mark.parametrize("one", LABEL_TYPES)
    @pytest.mark.parametrize("other", LABEL_TYPES)
    def test_cvats_rule(self, one, other):
        expected = (
            one == other
            or {one, other} == {"mask", "polygon"}
            or ("any" in (one, other) and "skeleton" not in (one, other))
        )
        assert compatible(one, other) is expected

    def test_a_name_of_another_type_is_dropped_and_both_types_told(self):
        match = match_labels(model("car", "dog"), task("dog", car="ellipse"))
        (dropped,) = match.dropped
        assert "'car' as rectangle" in dropped.reason
        assert "'car' as ellipse" in dropped.reason

    def test_an_explicit_mapping_to_another_type_is_refused(self):
        with pytest.raises(LabelMismatch, match=r"mapping 'car' -> 'car': .* as rectangle, .* as tag"):
            match_labels(model("car", "dog"), task("dog", car="tag"), request={"car": "car"})

    @pytest.mark.parametrize(("own", "theirs"), [("mask", "polygon"), ("polygon", "mask"), ("any", "tag")])
    def test_masks_and_polygons_may_stand_for_each_other(self, own, theirs):
        assert targets(match_labels(model("car", kind=own), task(car=theirs))) == {"car": "car"}


class TestMappings:
    @pytest.mark.parametrize(
        ("request_", "said"),
        [
            ({"caar": "car"}, "mapping 'caar': the model has no such label; did you mean 'car'"),
            ({"car": "vehikle"}, "'vehikle': the task has no such label; did you mean 'vehicle'"),
            ({"car": "zzz"}, "there are: car, vehicle"),
            ({"car": "vehicle", "Car": "vehicle"}, "mapped twice"),
            ({"car": {"attributes": {}}}, "got the name None"),
            ({"car": 3}, "got 3, allowed: a name"),
            ({"car": {"name": "vehicle", "attributes": {"colour": "kind"}}}, "the model has no 'colour'"),
            ({"car": {"name": "vehicle", "sublabels": {"nose": "x"}}}, "the model has no 'nose'"),
        ],
    )
    def test_impossible_ones_say_why(self, request_, said):
        with pytest.raises(LabelMismatch) as refused:
            match_labels(model("car", "dog"), task("car", "vehicle"), request=request_)
        assert said in str(refused.value)

    def test_case_is_forgiven(self):
        assert targets(match_labels(model("Car"), task("Vehicles"), request={"car": "vehicle"})) == {"Car": "Vehicles"}


class TestAttributes:
    OWN = Label("car", "rectangle", attributes=(Attribute("Kind", "select", ("car",)), Attribute("speed", "number")))
    THEIRS = TaskLabel(1, "car", "rectangle", attributes=(KIND, AGE))

    def test_by_their_names(self):
        target = match_labels([self.OWN], [self.THEIRS]).targets["car"]
        assert target.attributes == {"Kind": KIND}
        assert target.notes == ("attribute speed has no place",)

    def test_a_mapping_that_lists_attributes_wants_no_others(self):
        wish = {"name": "car", "attributes": {"speed": "age"}}
        target = match_labels([self.OWN], [self.THEIRS], request={"car": wish}).targets["car"]
        assert target.attributes == {"speed": AGE}
        assert (
            match_labels([self.OWN], [self.THEIRS], request={"car": {**wish, "attributes": {}}})
            .targets["car"]
            .attributes
            == {}
        )

    def test_a_mapping_to_an_attribute_that_is_not_there(self):
        wish = {"name": "car", "attributes": {"speed": "kimd"}}
        with pytest.raises(LabelMismatch, match="no attribute 'kimd'; did you mean 'kind'"):
            match_labels([self.OWN], [self.THEIRS], request={"car": wish})

    def test_names_of_attributes_in_a_map_are_compared_as_those_of_labels(self, tmp_path):
        path = tmp_path / "mine.toml"
        path.write_text("[labels.car]\nattribute_names = { Speed = 'age', colour = 'kind' }\n")
        match = match_labels([self.OWN], [self.THEIRS], label_map=load_label_map(str(path)))
        assert match.targets["car"].attributes == {"speed": AGE, "Kind": KIND}
        assert match.notes == ("label map mine: car: attribute_names names what the label does not have: colour",)

    def test_two_attributes_cannot_become_one(self):
        wish = {"name": "car", "attributes": {"Kind": "kind", "speed": "kind"}}
        with pytest.raises(LabelMismatch, match="two attributes become 'kind'"):
            match_labels([self.OWN], [self.THEIRS], request={"car": wish})

    def test_a_map_may_fix_values(self):
        mapped = parse_label_map("v", '[labels]\ntruck = {name="vehicle", attributes={kind="Truck"}}', "v")
        match = match_labels(model("truck"), [TaskLabel(1, "vehicle", "any", (KIND,))], label_map=mapped)
        assert match.targets["truck"].fixed == {71: "truck"}
        assert "kind = truck" in next(match.lines())

    @pytest.mark.parametrize(("fixed", "said"), [("kind='tank'", "got 'tank'"), ("knd='car'", "no attribute 'knd'")])
    def test_values_that_the_task_does_not_have_are_told(self, fixed, said):
        mapped = parse_label_map("v", f'[labels]\ncar = {{name="car", attributes={{{fixed}}}}}', "v")
        match = match_labels([self.OWN, *model("x")], [self.THEIRS, *task("x")], label_map=mapped)
        assert said in match.dropped[0].reason


@pytest.mark.parametrize(
    ("kind", "values", "value", "expected"),
    [
        ("checkbox", ("false",), True, "true"),
        ("checkbox", ("false",), "False", "false"),
        ("checkbox", ("false",), "yes", None),
        ("select", ("red", "Light Blue"), "light_blue", "Light Blue"),
        ("radio", ("a", "A"), "a", "a"),
        ("select", ("Aa", "aA"), "aa", None),
        ("select", (), "x", None),
        ("number", ("0", "99", "1"), "5.0", "5"),
        ("number", ("0", "99", "1"), 7, "7"),
        ("number", ("0", "99", "1"), "5.5", None),
        ("number", ("0", "99", "1"), "100", None),
        ("number", ("0", "99", "1"), "nan", None),
        ("number", ("0", "99", "1"), "1e400", None),
        ("number", ("0", "99", "1"), "old", None),
        ("number", ("0", "2000000", "1"), "1234567", "1234567"),
        ("number", ("0", "1", "0.1"), "0.3", "0.3"),
        ("number", ("1", "9", "2"), "4", None),
        ("number", ("", ""), "4", "4"),
        ("text", ("",), "Ä ß", "Ä ß"),
    ],
)
def test_values_of_attributes(kind, values, value, expected):
    valid, why = valid_value(TaskAttribute(1, "a", kind, values), value)
    assert valid == expected
    assert bool(why) is (expected is None)


class TestSkeletons:
    THEIRS = TaskLabel(1, "pose", "skeleton", sublabels=tuple(task("Nose", "left-eye", "tail")))

    def own(self, *names):
        return Label("pose", "skeleton", sublabels=tuple(Label(name, "points") for name in names))

    def test_points_by_their_names(self):
        target = match_labels([self.own("nose", "left_eye", "chin")], [self.THEIRS]).targets["pose"]
        assert {name: sub.label.name for name, sub in target.sublabels.items()} == {
            "nose": "Nose",
            "left_eye": "left-eye",
        }
        assert target.notes == ("no place for chin",)

    def test_each_point_of_the_task_is_taken_once(self):
        target = match_labels([self.own("nose", "Nose", "noses")], [self.THEIRS]).targets["pose"]
        assert list(target.sublabels) == ["nose"]

    def test_points_by_a_map(self):
        text = '[labels]\npose = {sublabels = {chin = "tail", nose = false}}'
        mapped = parse_label_map("p", text, "p")
        target = match_labels([self.own("nose", "left_eye", "chin")], [self.THEIRS], label_map=mapped).targets["pose"]
        assert {name: sub.label.name for name, sub in target.sublabels.items()} == {
            "left_eye": "left-eye",
            "chin": "tail",
        }

    def test_points_by_cvats_mapping_are_those_listed(self):
        wish = {"name": "pose", "sublabels": {"chin": {"name": "Nose"}}}
        target = match_labels([self.own("nose", "chin")], [self.THEIRS], request={"pose": wish}).targets["pose"]
        assert {name: sub.label.name for name, sub in target.sublabels.items()} == {"chin": "Nose"}

    def test_a_skeleton_without_a_common_point_is_no_match(self):
        match = match_labels([self.own("wheel"), *model("x")], [self.THEIRS, *task("x")])
        (dropped,) = match.dropped
        assert "none of the model's points (wheel) has a place among its own (Nose, left-eye, tail)" in dropped.reason
        assert dropped.line().endswith("; `sublabels` in a label map say which is which")

    @pytest.mark.parametrize(
        ("wording", "said"),
        [
            (ON_COMMAND_LINE, "(--label-map mine.toml)"),
            (IN_RULE, '(label_map = "mine.toml" in the options of the rule)'),
        ],
    )
    def test_what_helps_where_nothing_but_points_is_strange(self, wording, said):
        faces = TaskLabel(1, "pose", "skeleton", sublabels=tuple(task(*"123456")))
        with pytest.raises(LabelMismatch) as refused:
            match_labels([self.own(*"abcdefgh")], [faces], wording=wording)
        text = str(refused.value)
        assert "points (a, b, c, d, e, … and 3 more) has a place among its own (1, 2, 3, 4, 5, … and 1 more)" in text
        assert f"by `sublabels` in a label map {said}, or by the model's option `points`" in text
        assert "--map" not in text
        with pytest.raises(LabelMismatch, match=r"mapping 'pose' -> 'pose': none of .* `sublabels` in a label map"):
            match_labels([self.own("a")], [faces], request={"pose": "pose"})

    def by(self, tmp_path, sublabels):
        """The match of a face by a file of one's own."""
        path = tmp_path / "mine.toml"
        path.write_text(f"[labels.pose]\nsublabels = {{ {sublabels} }}\n")
        own = self.own("left_eye", "right_eye", "left_mouth_corner")
        faces = TaskLabel(1, "pose", "skeleton", sublabels=tuple(task(*"123")))
        match = find_match([own, *model("x")], [faces, *task("x")], label_map=load_label_map(str(path)))
        places = match.targets["pose"].sublabels if "pose" in match.targets else {}
        return {name: place.label.name for name, place in places.items()}, match

    def test_case_and_separators_of_points_do_not_matter_in_a_map(self, tmp_path):
        places, match = self.by(tmp_path, "Left_Eye = '2', right-eye = '1', \"left mouth corner\" = '3'")
        assert places == {"left_eye": "2", "right_eye": "1", "left_mouth_corner": "3"}
        assert match.notes == ()

    def test_points_that_the_label_does_not_have_are_told(self, tmp_path):
        places, match = self.by(tmp_path, "left_eye = '2', righteyee = '3'")
        assert places == {"left_eye": "2"}
        assert match.notes == (
            "label map mine: pose: sublabels names what the label does not have: righteyee;"
            " instead of 'righteyee', did you mean 'right_eye'?",
        )

    @pytest.mark.parametrize(
        ("sublabels", "why"),
        [
            ("left_eye = '2', Right_Eye = '2'", "two points become '2'"),
            ("left_eye = '2', Left_Eye = '1'", "the model's 'left_eye' is named twice"),
            ("left_eye = '4'", "it has no point '4'; there are: 1, 2, 3"),
        ],
    )
    def test_points_that_go_nowhere_are_told(self, tmp_path, sublabels, why):
        places, match = self.by(tmp_path, sublabels)
        assert places == {}
        assert match.dropped[0].reason.endswith(why)

    def test_a_name_does_not_take_a_place_that_a_map_gives_away(self):
        mapped = parse_label_map("p", "[labels]\npose = {sublabels = {chin = 'nose'}}", "p")
        target = match_labels([self.own("nose", "chin")], [self.THEIRS], label_map=mapped).targets["pose"]
        assert {name: place.label.name for name, place in target.sublabels.items()} == {"chin": "Nose"}
        assert target.notes == ("no place for nose",)


class TestAdvice:
    @pytest.mark.parametrize(
        ("own", "theirs", "meant"),
        [
            ("motorcycle", "motorbike", "motorbike"),
            ("tvmonitor", "TV", "TV"),
            ("Man", "person", "person"),
            ("persn", "person", "person"),
            ("couch", "sofas", "sofas"),
        ],
    )
    def test_synonyms_and_misspellings(self, own, theirs, meant):
        match = match_labels(model(own, "zebra"), task(theirs, "zebra"))
        assert match.dropped[0].suggestions == (meant,)

    def test_a_label_that_the_model_has_too_is_not_meant_by_another(self):
        match = match_labels(model("bear", "pear"), task("pear"))
        assert match.dropped[0].suggestions == ()

    def test_nothing_in_common_says_what_would_help(self):
        with pytest.raises(LabelMismatch) as refused:
            match_labels(model("airplane", "tv", "couch"), task("aeroplane", "sofa"))
        assert "airplane, tv, couch" in str(refused.value)
        assert "aeroplane, sofa" in str(refused.value)
        assert str(refused.value).endswith("try --label-map coco-to-voc")

    def test_nothing_in_common_at_all(self):
        with pytest.raises(LabelMismatch, match='by --map "model label=task label"'):
            match_labels(model("qqq"), task("zzz"))
        with pytest.raises(LabelMismatch, match="it has none"):
            match_labels(model("qqq"), [])
        with pytest.raises(LabelMismatch, match=r"as rectangle, the task takes 'qqq' as tag"):
            match_labels(model("qqq", "rrr"), task(qqq="tag"))
        with pytest.raises(LabelMismatch, match=r'try --map "car=vehicle"|try --map "truck=vehicle"'):
            match_labels(model("truck", "car"), task("vehicle"))

    @pytest.mark.parametrize(
        ("wording", "pair", "label_map", "option"),
        [
            (IN_RULE, 'try mapping = {"car" = "vehicle"} in the options of the rule',
             'try label_map = "coco-to-voc" in the options of the rule',
             'by shape = "rectangle" in the options of the model'),
            (IN_MENU, 'try "car" for "vehicle" in the dialog', 'try label_map = "coco-to-voc" of the model',
             'by shape = "rectangle" in the options of the model'),
        ],
        ids=["rule", "menu"],
    )  # fmt: skip
    def test_advice_is_in_the_words_of_who_asks(self, wording, pair, label_map, option):
        for own, theirs, said in (
            (model("car"), task("vehicle"), pair),
            (model("airplane"), task("aeroplane"), label_map),
            (model("car", kind="mask"), task("car"), option),
        ):
            with pytest.raises(LabelMismatch) as refused:
                match_labels(own, theirs, wording=wording)
            assert said in str(refused.value)
            assert "--" not in str(refused.value)

    def test_a_large_vocabulary_is_matched_quickly(self):
        names = load_label_map("imagenet-1k").names
        labels = task(*(f"thing {number}" for number in range(100)), "Tench")
        began = time.process_time()
        match = match_labels(model(*names), labels)
        assert list(match.targets) == ["tench"]
        assert time.process_time() - began < 5


def test_the_printed_match_names_everything():
    labels = task("car", "person", "boat", "motorcycle", dog="any")
    match = match_labels(model("car", "Dog", "motorbike"), labels)
    lines = list(match.lines(match.thresholds(None, 0.25)))
    assert lines[0] == "car        ->  car  (rectangle -> rectangle; same name; threshold 0.25)"
    assert "Dog" in lines[1]
    assert "rectangle -> any" in lines[1]
    assert lines[2] == "motorbike  dropped: the task has no label of that name; did you mean 'motorcycle'?"
    assert lines[3] == "labels of the task that stay unused: person, boat, motorcycle"


class TestTypesThatDoNotFit:
    """Where the name is right and the type is not, no mapping and no label map would help."""

    COCO = (*model("person", "car", "dog"),)

    @pytest.mark.parametrize(
        ("own", "theirs", "helps"),
        [
            ("rectangle", "mask", "a `chain:` makes a mask of each rectangle"),
            ("rectangle", "skeleton", "a `chain:` makes a skeleton of each rectangle"),
            ("skeleton", "rectangle", "-p shape=rectangle"),
            ("mask", "rectangle", "-p shape=rectangle"),
            ("mask", "ellipse", "a task's label of the type mask, polygon or any fits"),
            ("ellipse", "mask", "a task's label of the type ellipse or any fits"),
        ],
    )
    def test_what_would_help(self, own, theirs, helps):
        with pytest.raises(LabelMismatch) as refused:
            match_labels(model("person", "car", kind=own), task(person=theirs))
        assert f"the model gives 'person' as {own}, the task takes 'person' as {theirs}" in str(refused.value)
        assert helps in str(refused.value)
        assert "--label-map" not in str(refused.value)
        assert "--map" not in str(refused.value)

    def test_a_label_of_another_name_and_the_right_type_is_told(self):
        with pytest.raises(LabelMismatch) as refused:
            match_labels(model("person", kind="skeleton"), task("person", body="skeleton"))
        assert str(refused.value).endswith(
            '; --map "person=body" puts together what is of the type skeleton,'
            " or many models give rectangles instead by -p shape=rectangle"
        )
        with pytest.raises(LabelMismatch) as refused:
            match_labels(model("a", "b", "c", "d", kind="mask"), task("a", "b", "c", "d", other="mask"))
        assert "other=" not in str(refused.value)
        assert "--map" not in str(refused.value), "nobody knows which of many is meant"

    def test_a_label_map_that_only_repeats_names_is_not_advised(self):
        with pytest.raises(LabelMismatch) as refused:
            match_labels(self.COCO, task("zzz"), label_map=parse_label_map("m", "[labels]\ncar = 'x'", "m"))
        assert "open-images-to-coco" not in str(refused.value)

    def test_a_label_of_another_type_is_not_meant(self):
        match = match_labels(model("motorcycle", "car"), [*task("car"), TaskLabel(9, "motorbike", "mask")])
        assert match.dropped[0].suggestions == ()


class TestFilesOfOnesOwn:
    def read(self, tmp_path, text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return load_label_map(str(path))

    def test_a_name_that_the_model_does_not_have_is_told(self, tmp_path):
        label_map = self.read(tmp_path, "[labels]\nlorry = 'truck'\ncar = 'vehicle'\nTRUCKS = 'vehicle'")
        match = match_labels(model("car", "truck"), task("vehicle"), label_map=label_map)
        assert match.notes == ("label map mine names what the model does not have: lorry",)
        assert list(match.lines())[-1] == match.notes[0]

    def test_a_misspelt_name_is_guessed(self, tmp_path):
        label_map = self.read(tmp_path, "[labels]\nmotorcicle = 'motorbike'")
        match = match_labels(model("motorcycle", "car"), task("car"), label_map=label_map)
        assert match.notes[0].endswith("instead of 'motorcicle', did you mean 'motorcycle'?")

    def test_our_own_maps_are_made_for_many_models(self):
        label_map = load_label_map("coco-to-voc")
        assert match_labels(model("airplane"), task("aeroplane"), label_map=label_map).notes == ()


class TestManyDroppedLabels:
    NAMES = tuple(f"thing {number}" for number in range(40))

    def test_they_share_a_line(self):
        match = match_labels(model("car", "bus", *self.NAMES), [*task("car"), TaskLabel(9, "bus", "mask")])
        lines = list(match.lines(most=3))
        assert lines[1] == "bus  dropped: the model gives 'bus' as rectangle, the task takes 'bus' as mask"
        assert lines[2] == (
            "40 labels of the model are dropped, the task has no label of that name:"
            " thing 0, thing 1, thing 2, … and 37 more"
        )

    def test_those_of_another_type_do_too(self):
        match = find_match(model(*self.NAMES, kind="mask"), task(*self.NAMES))
        assert next(match.lines(most=2)) == (
            "40 labels of the model are dropped, the model gives them as mask, the task takes them as rectangle:"
            " thing 0, thing 1, … and 38 more; many models give rectangles instead by their option shape=rectangle"
        )

    def test_labels_of_any_type_are_told_what_the_task_takes(self):
        match = match_labels(model("car", "bus", kind="any"), task("car", bus="any"))
        assert list(match.lines())[-1] == (
            "any type of shape may come as car: the task takes rectangle, others are left out;"
            " many models give rectangles instead by their option shape=rectangle"
        )
        match = match_labels(model("car", kind="any"), task(car="polygon"))
        assert list(match.lines())[-1].endswith("may come as car: the task takes polygon, others are left out")

    def test_all_can_be_named(self):
        match = match_labels(model("car", *self.NAMES), task("car"))
        (shared,) = (line for line in match.lines(most=100) if line.startswith("40 labels"))
        assert all(name in shared for name in self.NAMES)

    def test_nothing_that_matches_can_be_looked_at_too(self):
        match = find_match(model(*self.NAMES), task("car"))
        assert next(iter(match.lines(most=1))).startswith("40 labels of the model are dropped")
        with pytest.raises(LabelMismatch):
            check_match(match, model(*self.NAMES), task("car"))
