"""The smaller commands from outside: demo, labels match, models show, and what a person sees of a run."""

import json

import pytest
from PIL import Image

from agent.cli import main
from agent.commands.running import Progress
from tests.support.material import make_image_task, picture_bytes

FUNCTION = """
import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models as models

color = models.AttributeRequest(
    "color", mutable=False, input_type="select", values=["red", "light blue"], default_value="red"
)
color.id = 7
spec = cvataa.DetectionFunctionSpec(labels=[
    cvataa.label_spec("car", 0, type="rectangle", attributes=[color]),
    cvataa.skeleton_label_spec("face", 1, [cvataa.keypoint_spec("left_eye", 0), cvataa.keypoint_spec("right_eye", 1)]),
    cvataa.skeleton_label_spec("hand", 2, [cvataa.keypoint_spec(str(n), n) for n in range(30)]),
    cvataa.label_spec("thing", 3),
])

def detect(context, image):
    return [
        cvataa.skeleton(1, [cvataa.keypoint(0, [10, 10], outside=True), cvataa.keypoint(1, [20, 10], outside=True)]),
    ]
"""


def run(*args):
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    return ended.value.code


class TestDemo:
    def test_finds_the_faces_of_the_portrait(self, tmp_path, capsys):
        report, preview = tmp_path / "report.json", tmp_path / "pictures"
        assert run("demo", "--report", report, "--preview", preview) == 0
        values = json.loads(report.read_text())
        assert values["frames"]["done"] == 4
        assert values["annotations"]["face"] == 6, "one face in three pictures, three in the last"
        printed = capsys.readouterr().out
        assert f"read back   {sum(values['annotations'].values())} annotations" in printed
        with Image.open(preview / "contact-sheet.jpg") as sheet:
            assert sheet.width > 1000
        assert len(list(preview.glob("task-*.jpg"))) == 4

    def test_takes_pictures_of_ones_own(self, tmp_path):
        folder = tmp_path / "mine"
        folder.mkdir()
        for number in range(2):
            (folder / f"{number}.png").write_bytes(picture_bytes(number, "PNG"))
        report = tmp_path / "report.json"
        assert run("demo", "--images", folder, "--report", report, "--preview", tmp_path / "p") == 0
        assert json.loads(report.read_text())["frames"]["total"] == 2

    def test_a_folder_without_pictures_is_told(self, tmp_path, capsys):
        assert run("demo", "--images", tmp_path) == 2
        assert "got no pictures" in capsys.readouterr().err

    def test_leaves_no_run_in_the_persons_ledger(self, tmp_path, capsys):
        run("demo", "--preview", tmp_path)
        capsys.readouterr()
        assert run("runs", "list") == 0
        assert "no runs in" in capsys.readouterr().out


class TestLabelsMatch:
    def test_prints_the_match_and_what_is_dropped_and_why(self, sandbox, session, capsys):
        task = make_image_task(session, count=1, labels=[{"name": "Faces"}, {"name": "lorry"}])
        server = ("--server-host", sandbox.url, "--auth", "bot:secret")
        assert run("labels", "match", "--task", task, "--model", "opencv:face", *server) == 0
        printed = capsys.readouterr().out
        assert "face" in printed
        assert "Faces" in printed
        assert "dropped" in printed
        assert "lorry" in printed, "a label of the task that stays unused"

    def test_nothing_that_matches_is_exit_2(self, sandbox, session, capsys):
        task = make_image_task(session, count=1, labels=[{"name": "lorry"}])
        server = ("--server-host", sandbox.url, "--auth", "bot:secret")
        assert run("labels", "match", "--task", task, "--model", "opencv:face", *server) == 2
        assert "--map" in capsys.readouterr().err

    def test_what_does_not_fit_is_shown_before_it_ends(self, sandbox, session, capsys):
        task = make_image_task(session, count=1, labels=[{"name": "face", "type": "mask"}])
        server = ("--server-host", sandbox.url, "--auth", "bot:secret")
        assert run("labels", "match", "--task", task, "--model", "opencv:face", *server) == 2
        said = capsys.readouterr()
        assert "face  dropped: the model gives 'face' as rectangle, the task takes 'face' as mask" in said.out
        assert "a `chain:` makes a mask of each rectangle" in said.err

    def test_a_model_without_labels_is_told(self, sandbox, session, capsys):
        task = make_image_task(session, count=1, labels=[{"name": "face"}])
        server = ("--server-host", sandbox.url, "--auth", "bot:secret")
        assert run("labels", "match", "--task", task, "--model", "opencv:grabcut", *server) == 4
        assert "a model of the kind interactor, which has no labels" in capsys.readouterr().err

    def test_labels_of_another_type_share_a_line(self, sandbox, session, tmp_path, capsys):
        names = [f"thing {number}" for number in range(30)]
        path = tmp_path / "function.py"
        path.write_text(
            "import cvat_sdk.auto_annotation as cvataa\n"
            f"labels = [cvataa.label_spec(name, n, type='mask') for n, name in enumerate({names})]\n"
            "spec = cvataa.DetectionFunctionSpec(labels=labels)\ndef detect(context, image):\n    return []\n"
        )
        labels = [{"name": "thing 0", "type": "mask"}, *({"name": name, "type": "rectangle"} for name in names[1:])]
        task = make_image_task(session, count=1, labels=labels)
        server = ("--server-host", sandbox.url, "--auth", "bot:secret")
        assert run("labels", "match", "--task", task, "--model", f"cvat:{path}", *server) == 0
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 4, "task, the one that matches, those that do not, unused ones"
        assert said[2].startswith("  29 labels of the model are dropped, the model gives them as mask, the task takes")
        assert "shape=rectangle" in said[2]

    def test_a_request_mapping_shows(self, sandbox, session, capsys):
        task = make_image_task(session, count=1, labels=[{"name": "lorry"}])
        server = ("--server-host", sandbox.url, "--auth", "bot:secret")
        args = (
            "labels",
            "match",
            "--task",
            task,
            "--model",
            "opencv:face",
            "--map",
            "face=lorry",
            "--threshold",
            "0.7",
        )
        assert run(*args, *server) == 0
        assert "threshold 0.7" in capsys.readouterr().out


class TestModelsShow:
    def test_tells_kind_labels_and_source(self, capsys):
        assert run("models", "show", "opencv:face") == 0
        printed = capsys.readouterr().out
        assert "detector" in printed
        assert "face (rectangle), eye (rectangle)" in printed
        assert "haarcascade" in printed

    @pytest.mark.parametrize(
        ("reference", "code"), [("opencv:nothing", 4), ("nope:x", 4), ("local:not-there.onnx", 4), ("yolo.onnx", 4)]
    )
    def test_a_model_that_cannot_be_had_is_one_clear_line(self, reference, code, capsys):
        assert run("models", "show", reference) == code
        said = capsys.readouterr().err
        assert said.startswith("Error: ")
        assert said.count("\n") == 1

    def test_the_threshold_of_service_toml_is_told_beside_the_models_own(self, tmp_path, capsys):
        config = tmp_path / "service.toml"
        config.write_text('[[models]]\nid = "faces"\nmodel = "opencv:face"\nthreshold = 0.85\n')
        assert run("models", "show", "faces", "--config", config) == 0
        assert f"threshold   0.85 by {config}, " in " ".join(capsys.readouterr().out.split(" "))

    def shown(self, capsys, *more):
        assert run("models", "show", *more) == 0
        lines = capsys.readouterr().out.splitlines()
        return [" ".join(line.split()) for line in lines]

    def test_types_points_and_attributes_of_labels_are_told(self, tmp_path, capsys):
        path = tmp_path / "function.py"
        path.write_text(FUNCTION)
        lines = self.shown(capsys, f"cvat:{path}")
        assert "labels 4: car (rectangle), face (skeleton), hand (skeleton), thing (any)" in lines
        assert "types 2 skeleton, 1 rectangle, 1 any" in lines
        assert "points 2: left_eye, right_eye, of face" in lines
        many = ", ".join(str(number) for number in range(19))
        assert f"points 30: {many}, … and 11 more (--all-labels), of hand" in lines
        assert "attributes color (select: red, light blue), of car" in lines
        lines = self.shown(capsys, f"cvat:{path}", "--all-labels")
        assert f"points 30: {', '.join(map(str, range(30)))}, of hand" in lines

    def test_types_of_an_ensemble_are_told(self, tmp_path, capsys):
        for name, kind in (("one", "mask"), ("two", "rectangle")):
            (tmp_path / f"{name}.py").write_text(
                "import cvat_sdk.auto_annotation as cvataa\n"
                "spec = cvataa.DetectionFunctionSpec(labels=["
                f"cvataa.label_spec('both', 0, type='{kind}'), cvataa.label_spec('{name}', 1, type='{kind}')])\n"
                "def detect(context, image):\n    return []\n"
            )
        config = tmp_path / "service.toml"
        parts = [f"cvat:{tmp_path / name}.py" for name in ("one", "two")]
        config.write_text(f'[[models]]\nid = "two"\nmodel = "ensemble:"\noptions = {{ of = {json.dumps(parts)} }}\n')
        lines = self.shown(capsys, "two", "--config", config)
        assert "labels 3: both (any), one (mask), two (rectangle)" in lines

    def test_a_model_without_labels_has_no_line_for_them(self, capsys):
        assert run("models", "show", "opencv:grabcut") == 0
        printed = capsys.readouterr().out
        assert "interactor" in printed
        assert "labels" not in printed
        assert "threshold" not in printed

    def test_an_id_that_is_not_there_is_guessed(self, tmp_path, capsys):
        config = tmp_path / "service.toml"
        config.write_text('[[models]]\nid = "faces"\nmodel = "opencv:face"\n')
        assert run("models", "show", "fases", "--config", config) == 4
        assert "did you mean 'faces'?" in capsys.readouterr().err

    def test_a_wrong_option_is_exit_2(self, capsys):
        assert run("models", "show", "opencv:face", "-p", "size=3") == 2
        assert "size" in capsys.readouterr().err


class TestProgress:
    @pytest.fixture
    def now(self):
        return [100.0]

    def test_a_terminal_gets_a_bar_with_speed_and_remaining_time(self, now, capsys):
        progress = Progress(clock=lambda: now[0], live=True)
        progress.begin("abc", [])
        progress.update(0, 100)
        now[0] += 10
        progress.update(50, 100)
        progress.end()
        said = capsys.readouterr().err
        assert "50/100 frames, 5.0 frames/s, 0:10 left" in said
        assert "[###############---------------]" in said

    def test_elsewhere_a_plain_line_now_and_then(self, now, capsys):
        progress = Progress(clock=lambda: now[0], live=False)
        progress.begin("abc", [])
        for done in range(100):
            now[0] += 0.5
            progress.update(done, 100)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 5, "one in ten seconds"
        assert all("\r" not in line and "frames/s" in line for line in lines)

    def test_the_speed_of_a_resumed_run_is_its_own(self, now, capsys):
        progress = Progress(clock=lambda: now[0], live=True)
        progress.begin("abc", [])
        progress.update(90, 100)
        now[0] += 5
        progress.update(95, 100)
        assert "95/100 frames, 1.0 frames/s, 0:05 left" in capsys.readouterr().err


def test_a_skeleton_of_unsure_points_is_left_out_for_the_right_reason(sandbox, session, tmp_path, capsys):
    path = tmp_path / "function.py"
    path.write_text(FUNCTION)
    points = [{"name": name, "type": "points", "attributes": []} for name in ("left_eye", "right_eye")]
    nodes = "".join(
        f'<circle r="1" cx="{number}" cy="5" data-type="element node" data-element-id="{number}"'
        f' data-node-id="{number}" data-label-name="{point["name"]}"></circle>'
        for number, point in enumerate(points, 1)
    )
    face = {"name": "face", "type": "skeleton", "svg": nodes, "sublabels": points, "attributes": []}
    task = make_image_task(session, count=2, labels=[face])
    server = ("--server-host", sandbox.url, "--auth", "bot:secret")
    assert run("annotate", "--task", task, "--model", f"cvat:{path}", *server) == 0
    printed = capsys.readouterr().out
    assert "skeleton without a visible point       2" in printed
    assert "outside the frame" not in printed


def test_a_run_is_undone_where_it_went_without_naming_the_server(sandbox, session, capsys):
    task = make_image_task(session, count=1, labels=[{"name": "face"}])
    server = ("--server-host", sandbox.url, "--auth", "bot:secret")
    assert run("annotate", "--task", task, "--model", "opencv:face", *server) == 0
    capsys.readouterr()
    run("runs", "list")
    number = capsys.readouterr().out.split()[0]
    assert run("runs", "undo", number) == 2
    said = capsys.readouterr().err
    assert (
        f"it went to {sandbox.url}, and nothing says who we are; --auth or $CVAT_ACCESS_TOKEN logs in there\n" in said
    )
    assert run("runs", "undo", number, "--auth", "bot:secret", "--server-host", "http://localhost:1") == 2
    assert f"it went to {sandbox.url}, not to http://localhost:1; --auth or" in capsys.readouterr().err
    assert run("runs", "undo", number, "--auth", "bot:secret") == 0
