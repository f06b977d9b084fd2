"""`roboflow:` against a server that answers as Roboflow's do: kinds of models, sizes, thresholds, uploads, threads."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

from agent.cli import main
from agent.contract import BadPrediction, ConfigError, Context, Frame, ModelNotFound, Rectangle
from agent.cvat.annotations_api import get_annotations
from agent.cvat.work import find_work
from agent.models.loading import load_model
from agent.options import Target
from agent.predict import check_predictions
from tests.support.material import make_image_task
from tests.support.roboflow import KEY, Model, RoboflowServer, above, box, loading, png


@pytest.fixture(autouse=True)
def _key(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def server():
    with RoboflowServer() as running:
        yield running


@pytest.fixture
def load(server):
    with loading(server) as loads:
        yield loads


def frame(width=60, height=40, number=0):
    y, x = np.mgrid[0:height, 0:width]
    return Frame(number, f"{number}.jpg", np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8))


def detector(*predictions, classes=("cat", "dog"), task="object-detection", **more):
    return Model(task, lambda picture, asked: above(list(predictions), asked), classes, **more)


def found(model, image=None, threshold=0.0, **context):
    """What the model says of one frame, held to the contract."""
    image = image or frame()
    answer = model.model.detect([image], Context(threshold, **context))
    (detections,) = check_predictions(answer, [image], model.labels)
    assert not isinstance(detections, BadPrediction), detections
    return detections


class TestKinds:
    def test_boxes_by_centre_and_size(self, server, load):
        server.models["shop/3"] = detector(box("dog", 30, 20, 20, 10, 0.6), box("cat", 10, 10, 8, 6, 0.9))
        model = load()
        assert [(label.name, label.type) for label in model.labels] == [("cat", "rectangle"), ("dog", "rectangle")]
        cat, dog = found(model)
        assert (cat.label, cat.score, cat.shape) == ("cat", 0.9, Rectangle(6.0, 7.0, 14.0, 13.0))
        assert dog.shape == Rectangle(20.0, 15.0, 40.0, 25.0)
        assert (model.kind, model.version, model.default_threshold) == ("detector", "team/shop/3", 0.4)
        assert model.facts["runs on"].endswith("Roboflow Inference Server 1.5.0")

    def test_boxes_are_cut_at_the_edge_and_left_out_beyond_it(self, server, load):
        server.models["shop/3"] = detector(box("cat", 0, 0, 20, 10), box("dog", 100, 20, 10, 10, 0.8))
        assert [one.shape for one in found(load())] == [Rectangle(0.0, 0.0, 10.0, 5.0)]

    def test_outlines_as_polygons(self, server, load):
        points = [{"x": 1.0, "y": 2.0}, {"x": 9.5, "y": 2.0}, {"x": 5.0, "y": 8.0}]
        speck = box("dog", 3, 3, 1, 1, 0.5, points=points[:2])
        server.models["shop/3"] = detector(box("cat", 5, 5, 9, 6, points=points), speck, task="instance-segmentation")
        model = load()
        assert {label.type for label in model.labels} == {"polygon"}
        (cat,) = found(model)
        assert cat.shape.points == (1.0, 2.0, 9.5, 2.0, 5.0, 8.0)

    @pytest.mark.parametrize("compressed", [True, False])
    def test_outlines_as_run_lengths(self, server, load, compressed):
        coco = pytest.importorskip("pycocotools.mask")
        rng = np.random.default_rng(3)
        bitmap = np.zeros((40, 60), np.uint8)
        bitmap[7:31, 11:52] = rng.integers(0, 2, (24, 41))
        bitmap[7, 11] = bitmap[30, 51] = 1
        rle = coco.encode(np.asfortranarray(bitmap))
        counts = rle["counts"].decode()
        if not compressed:
            flat = bitmap.T.ravel()
            edges = np.flatnonzero(np.diff(flat)) + 1
            counts = np.diff([0, *edges, flat.size]).tolist()
        predictions = [box("cat", 5, 5, 9, 6, rle={"size": [40, 60], "counts": counts}, mask_format="rle")]
        server.models["shop/3"] = detector(*predictions, task="instance-segmentation")
        model = load(masks="rle")
        assert {label.type for label in model.labels} == {"mask"}
        (cat,) = found(model)
        assert (cat.shape.left, cat.shape.top) == (11, 7)
        np.testing.assert_array_equal(cat.shape.bitmap, bitmap[7:31, 11:52] == 1)
        assert server.predictions()[-1].query["response_mask_format"] == "rle"

    def test_skeletons_have_the_keypoints_of_their_class(self, server, load):
        skeletons = {
            "person": {
                "vertices": [{"id": 0, "name": "nose"}, {"id": 1, "name": "neck"}],
                "edges": [{"from": 0, "to": 1}],
            },
            "dog": {"vertices": [{"id": 0, "name": "nose"}, {"id": 1, "name": "tail"}]},
        }
        points = [
            {"x": 3.0, "y": 4.0, "confidence": 0.9, "class": "nose", "class_id": 0},
            {"x": 5.0, "y": 9.0, "confidence": 0.2, "class": "neck", "class_id": 1},
        ]
        unseen = box("dog", 5, 5, 9, 6, 0.5, keypoints=[{**points[0], "confidence": 0.1}])
        server.models["shop/3"] = detector(
            box("person", 5, 5, 9, 6, keypoints=points),
            unseen,
            task="keypoint-detection",
            classes=("person", "dog"),
            skeletons=skeletons,
        )
        model = load(keypoint_threshold=0.3)
        subs = {label.name: [sub.name for sub in label.sublabels] for label in model.labels}
        assert subs == {"person": ["nose", "neck"], "dog": ["nose", "tail"]}
        (person,) = found(model)
        assert [(e.label, e.x, e.y) for e in person.shape.elements] == [("nose", 3.0, 4.0)]
        assert server.predictions()[-1].query["keypoint_confidence"] == "0.3"

    def test_classes_that_exclude_each_other(self, server, load):
        ranking = [("b", 0.5), ("a", 0.3), ("c", 0.2)]
        predictions = [{"class": name, "class_id": 0, "confidence": score} for name, score in ranking]
        answer = {"predictions": predictions, "top": "b", "confidence": 0.5}
        server.models["shop/3"] = Model("single-label-classification", lambda picture, asked: answer, ("a", "b", "c"))
        model = load()
        assert {label.type for label in model.labels} == {"tag"}
        assert model.default_threshold == 0
        assert [(one.label, one.shape, one.score) for one in found(model)] == [("b", None, 0.5)]
        assert [one.label for one in found(load(top_k=2))] == ["b", "a"]
        assert found(model, threshold=0.6) == []
        assert found(model, labels=frozenset({"a"})) == [], "the best one, not the best of those with a place"

    def test_classes_that_go_together(self, server, load):
        predictions = {
            n: {"confidence": s, "class_id": i} for i, (n, s) in enumerate({"a": 0.9, "b": 0.1, "c": 0.7}.items())
        }
        # Servers turn the size of these around.
        answer = {"predictions": predictions, "predicted_classes": ["a", "c"], "image": {"width": 40, "height": 60}}
        server.models["shop/3"] = Model("multi-label-classification", lambda picture, asked: answer, ("a", "b", "c"))
        model = load()
        assert [one.label for one in found(model, threshold=0.5)] == ["a", "c"]
        assert model.default_threshold == 0.5

    def test_a_map_of_classes(self, server, load):
        numbers, sure = np.zeros((40, 60)), np.zeros((40, 60))
        numbers[5:10, 10:20], sure[5:10, 10:20] = 2, 204
        numbers[20:30, 10:20], sure[20:30, 10:20] = 2, 51
        numbers[0:2, 0:3], sure[0:2, 0:3] = 1, 255
        answer = {"segmentation_mask": png(numbers), "confidence_mask": png(sure)}
        answer["class_map"] = {"0": "background", "1": "road", "2": "car", "3": "sky"}
        server.models["shop/3"] = Model(
            "semantic-segmentation",
            lambda picture, asked: {"predictions": answer},
            ("background", "road", "car", "sky"),
        )
        model = load()
        assert [(label.name, label.type) for label in model.labels] == [(n, "mask") for n in ("car", "road", "sky")]
        road, car = found(model)
        assert (road.label, road.score, road.shape.bitmap.shape) == ("road", 1.0, (2, 3))
        assert car.score == pytest.approx((50 * 0.8 + 100 * 0.2) / 150)
        assert int(car.shape.bitmap.sum()) == 150
        parts = found(load(split_regions=True, smallest_region=10))
        assert [(one.label, int(one.shape.bitmap.sum())) for one in parts] == [("car", 50), ("car", 100)]
        assert [one.label for one in found(model, threshold=0.9)] == ["road"]

    def test_what_has_no_place_in_the_task_is_not_read(self, server, load):
        broken = box("dog", 30, 20, 20, 10, points="what")
        server.models["shop/3"] = detector(box("cat", 5, 5, 9, 6, points=[{"x": 1, "y": 1}] * 3), broken)
        assert [one.label for one in found(load(), labels=frozenset({"cat"}))] == ["cat"]


class TestSizes:
    def test_a_picture_made_smaller_gives_pixels_of_the_frame(self, server, load):
        def whole(picture, asked):
            height, width = picture.shape[:2]
            return {"predictions": [box("cat", width / 2, height / 2, width / 2, height / 2)]}

        server.models["shop/3"] = Model("object-detection", whole, ("cat",))
        large = frame(1000, 400)
        (cat,) = found(load(max_size=250), large)
        assert server.predictions()[-1].picture.shape == (100, 250, 3)
        assert cat.shape == Rectangle(250.0, 100.0, 750.0, 300.0)
        found(load(), large)
        assert server.predictions()[-1].picture.shape == (400, 1000, 3)

    def test_the_size_that_the_server_says_it_saw_counts(self, server, load):
        answer = {"predictions": [box("cat", 320, 320, 320, 320)], "image": {"width": 640, "height": 640}}
        server.models["shop/3"] = Model("object-detection", lambda picture, asked: answer, ("cat",))
        (cat,) = found(load(), frame(60, 40))
        assert cat.shape == Rectangle(15.0, 10.0, 45.0, 30.0)

    def test_masks_of_another_size_are_brought_to_the_frame(self, server, load):
        numbers = np.zeros((20, 30))
        numbers[10:20, 15:30] = 1
        answer = {"predictions": {"segmentation_mask": png(numbers), "class_map": {"0": "background", "1": "car"}}}
        server.models["shop/3"] = Model("semantic-segmentation", lambda picture, asked: answer, ("car",))
        (car,) = found(load())
        assert (car.shape.left, car.shape.top, car.shape.bitmap.shape, car.score) == (30, 20, (20, 30), None)

    def test_tiny_frames(self, server, load):
        server.models["shop/3"] = detector(box("cat", 0.5, 0.5, 1, 1))
        assert found(load(), frame(1, 1))[0].shape == Rectangle(0.0, 0.0, 1.0, 1.0)


class TestRequests:
    def test_lossless_pictures_arrive_as_they_are(self, server, load):
        server.models["shop/3"] = detector()
        image = Frame(0, "x", np.random.default_rng(0).integers(0, 255, (31, 47, 3), np.uint8))
        found(load(lossless=True), image)
        asked = server.predictions()[-1]
        assert asked.format == "PNG"
        np.testing.assert_array_equal(asked.picture, image.image)

    def test_jpeg_has_the_quality_that_is_asked_for(self, server, load):
        server.models["shop/3"] = detector()
        for quality in (95, 30):
            found(load(quality=quality))
        fine, coarse = (asked for asked in server.predictions())
        assert fine.format == coarse.format == "JPEG"
        errors = [np.abs(asked.picture.astype(int) - frame().image).mean() for asked in (fine, coarse)]
        assert errors[0] < 1.5 < errors[1], "and RGB is RGB"

    def test_the_threshold_goes_to_the_server_so_that_low_scores_come_back(self, server, load):
        server.models["shop/3"] = detector(*(box("cat", 5, 5, 9, 6, score) for score in (0.9, 0.2, 0.05, 0.011)))
        model = load()
        assert [one.score for one in found(model, threshold=0.0)] == [0.9, 0.2, 0.05, 0.011]
        assert [one.score for one in found(model, threshold=0.2)] == [0.9, 0.2]
        # Servers take 1 for one percent.
        assert found(model, threshold=1.0) == []
        sent = [float(asked.query["confidence"]) for asked in server.predictions()]
        assert sent == [0.01, 0.2, 0.99]

    def test_options_that_a_server_knows_go_to_it(self, server, load):
        server.models["shop/3"] = detector()
        found(load(nms_iou=0.7, max_detections=11))
        query = server.predictions()[-1].query
        assert (query["overlap"], query["max_detections"], query["disable_active_learning"]) == ("0.7", "11", "true")
        found(load(active_learning=True))
        assert server.predictions()[-1].query["disable_active_learning"] == "false"

    @pytest.mark.parametrize("task", ["object-detection", "instance-segmentation", "keypoint-detection"])
    def test_servers_that_do_not_read_headers_get_the_key_in_the_body(self, server, load, task):
        server.reads_header = False
        more = {
            "instance-segmentation": {"points": [{"x": 1, "y": 1}] * 3},
            "keypoint-detection": {"keypoints": [{"x": 1, "y": 1, "confidence": 1, "class": "n", "class_id": 0}]},
        }
        server.models["shop/3"] = detector(box("cat", 5, 5, 9, 6, 0.3, **more.get(task, {})), task=task)
        model = load(api_key_in="body", labels=["cat"], keypoints=["n"])
        assert [one.score for one in found(model, threshold=0.25)] == [0.3]
        asked = server.predictions()[-1]
        assert asked.path.startswith("/infer/")
        assert asked.content["api_key"] == KEY
        assert asked.query["confidence"] == "0.25"
        assert "Authorization" not in asked.headers
        assert server.paths().count("/model/add") == 1, "asked once, not before each picture"


class TestManyAtOnce:
    def test_pictures_are_in_flight_together_and_come_back_in_order(self, server, load):
        server.gate = threading.Barrier(3)  # nobody gets an answer before three have asked

        def tell(picture, asked):
            return {"predictions": [box("cat", 5, 5, 2 * int(picture[0, 0, 0]) + 2, 4)]}

        server.models["shop/3"] = Model("object-detection", tell, ("cat",))
        model = load(in_flight=3, lossless=True)
        assert model.batch_size == 6
        frames = [Frame(n, str(n), np.full((200, 200, 3), n, np.uint8)) for n in range(6)]
        answers = model.model.detect(frames, Context())
        assert [one.shape.right for (one,) in answers] == [min(200.0, 6.0 + n) for n in range(6)]
        assert server.most_together == 3

    def test_one_bad_answer_costs_its_frame_only_and_nothing_is_asked_twice(self, server, load):
        def tell(picture, asked):
            return {"predictions": [box("cat", float("nan") if picture[0, 0, 0] == 1 else 5, 5, 4, 4)]}

        server.models["shop/3"] = Model("object-detection", tell, ("cat",))
        model = load(lossless=True)
        frames = [Frame(n, str(n), np.full((20, 20, 3), n, np.uint8)) for n in range(4)]
        answers = model.model.detect(frames, Context())
        assert [isinstance(answer, BadPrediction) for answer in answers] == [False, True, False, False]
        assert "got x = nan" in str(answers[1])
        assert len(server.predictions()) == 4
        with pytest.raises(BadPrediction, match="got x = nan"):
            model.model.detect(frames[1:2], Context())

    def test_no_frames(self, server, load):
        server.models["shop/3"] = detector()
        assert load().model.detect([], Context()) == []


class TestNames:
    @pytest.mark.parametrize(
        ("name", "asks"),
        [
            ("shop/3", "/shop/3"),
            ("team/shop/3", "/shop/3"),
            ("team/my-model", "/team/my-model"),
            ("yolov8n-640", "/coco/3"),
        ],
    )
    def test_forms_of_names(self, server, name, asks):
        server.models = {key: detector() for key in ("shop/3", "team/my-model", "coco/3")}
        options = {"url": server.url, "platform_url": server.url, "labels": ["cat"]}
        model = load_model(f"roboflow:{name}", options=options)
        found(model)
        model.close()
        assert server.predictions()[-1].path == asks
        assert model.version == ("team/shop/3" if "shop" in name else name)

    @pytest.mark.parametrize(
        "name", ["", "a b/c/1", "team/shop/three", "a/b/c/d", "../x/1", "workflow/team", "nothing-640"]
    )
    def test_what_is_no_name(self, server, name):
        if name == "workflow/team":  # a model may be called so
            server.models["workflow/team"] = detector()
            load_model(
                f"roboflow:{name}", options={"url": server.url, "labels": ["a"], "task": "object-detection"}
            ).close()
            return
        with pytest.raises(ModelNotFound):
            load_model(f"roboflow:{name}", options={"url": server.url, "labels": ["a"]})
        assert server.predictions() == []

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"in_flight": 0}, "in_flight: got 0, allowed: 1 or more"),
            ({"retries": -1}, "retries: got -1"),
            ({"timeout": 0.0}, "timeout: got 0"),
            ({"quality": 101}, "quality: got 101, allowed: 1 to 100"),
            ({"max_size": 5}, "max_size: got 5"),
            ({"nms_iou": 1.5}, "nms_iou: got 1.5, allowed: 0 to 1"),
            ({"requests_per_second": -0.5}, "requests_per_second: got -0.5"),
            ({"output": "x"}, "'output' is not for a model"),
            ({"task": "depth"}, "'task'"),
            ({"labels": []}, "labels: got"),
            ({"labels": "no-such"}, "unknown vocabulary"),
            ({"split_regions": True}, "split_regions is not for object-detection"),
            ({"url": "localhost:9001"}, "allowed: http"),
            ({"url": "http://me:hidden@localhost"}, "got a user"),
            ({"url": "http://localhost?api_key=hidden"}, "got a user"),
            ({"examples": "/nowhere", "labels": None}, "there are no pictures"),
        ],
    )
    def test_options_are_held_to_their_ranges(self, server, load, options, words):
        server.models["shop/3"] = detector(classes=("cat",))
        with pytest.raises(ConfigError, match=words) as raised:
            load(**{"task": "object-detection", "labels": ["cat"], **options})
        assert "hidden" not in str(raised.value)
        assert server.predictions() == []


def annotate(server, sandbox, task, report):
    """The report of a run from the command line."""
    command = ["annotate", "--task", str(task), "--model", "roboflow:team/shop/3", "--report", str(report)]
    command += ["-p", f"url=str:{server.url}", "-p", f"platform_url=str:{server.url}"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--server-host", sandbox.url, "--auth", "bot:secret"])
    return ended.value.code, json.loads(report.read_text())


def test_from_the_command_line_into_a_task(server, sandbox, session, tmp_path, capsys):
    """The whole way: sandbox, frames, the server's answers, uploads."""
    server.models["shop/3"] = detector(box("cat", 10, 10, 8, 6, 0.9), box("dog", 30, 20, 10, 10, 0.3))
    task = make_image_task(session, count=5, labels=[{"name": "cat"}, {"name": "dog"}])
    code, values = annotate(server, sandbox, task, tmp_path / "report.json")
    assert code == 0
    (work,) = find_work(session, Target("task", task))
    shapes = [shape for job in work.jobs for shape in get_annotations(session, job.id)["shapes"]]
    assert len(shapes) == 5, "the dog is below the model's own threshold"
    assert {tuple(shape["points"]) for shape in shapes} == {(6.0, 7.0, 14.0, 13.0)}
    assert values["annotations"] == {"cat": 5}
    printed = capsys.readouterr()
    assert KEY not in json.dumps(values) + printed.out + printed.err


def test_a_frame_that_fails_is_skipped_and_no_picture_is_paid_for_twice(server, sandbox, session, tmp_path):
    asked = []

    def tell(picture, request):
        asked.append(1)
        return {"predictions": [box("cat", float("nan") if len(asked) == 2 else 10, 10, 8, 6)]}

    server.models["shop/3"] = Model("object-detection", tell, ("cat",))
    task = make_image_task(session, count=5, labels=[{"name": "cat"}])
    code, values = annotate(server, sandbox, task, tmp_path / "report.json")
    assert code == 1, "as for any frame that was skipped"
    assert values["annotations"] == {"cat": 4}
    assert "got x = nan" in json.dumps(values["frames"]["skipped"])
    assert len(server.predictions()) == 5


def test_the_pictures_of_a_frame_keep_their_channels(server, load):
    server.models["shop/3"] = detector()
    red = Frame(0, "red", np.asarray(Image.new("RGB", (32, 32), (250, 10, 10))))
    found(load(), red)
    assert server.predictions()[-1].picture[16, 16].tolist() == pytest.approx([250, 10, 10], abs=4)
