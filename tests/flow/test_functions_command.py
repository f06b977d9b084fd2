"""`cvat-sidecar functions`: made once, found again, made anew when gone, removed; each in its place."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.cli import main
from agent.commands import configuration
from agent.errors import ConfigError
from agent.functions.ids import FunctionIds
from agent.sandbox import Sandbox
from tests.support.serving import environment
from tests.support.tasks import Client

FUNCTIONS = {
    "detector": """
import cvat_sdk.auto_annotation as cvataa
color = cvataa.select_attribute_spec("color", 0, ["red", "blue"])
spec = cvataa.DetectionFunctionSpec(labels=[
    cvataa.label_spec("car", 0, type="rectangle", attributes=[color]),
    cvataa.skeleton_label_spec("pose", 1, [cvataa.keypoint_spec("head", 0), cvataa.keypoint_spec("foot", 1)]),
])
def detect(context, image):
    return []
""",
    "interactor": """
import cvat_sdk.auto_annotation as cvataa
spec = cvataa.InteractionFunctionSpec(min_pos_points=1, min_bounding_boxes=0)
def detect(context, image, prompts):
    return []
""",
    "tracker": """
import cvat_sdk.auto_annotation as cvataa
spec = cvataa.TrackingFunctionSpec(supported_shape_types=["rectangle", "mask"])
def init_tracking_state(context, image, shape):
    return 0
def track(context, image, state):
    return None
""",
}


class Place:
    """A service.toml beside its functions, and the command that reads it."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys, self.file = folder, capsys, folder / "service.toml"
        for name, text in FUNCTIONS.items():
            (folder / f"{name}.py").write_text(text)

    def write(self, url, models=FUNCTIONS, user="bot", **cvat):
        keys = {"host": url, "user": user, "password_env": "BOT_PASSWORD", **cvat}
        lines = ["[cvat]", *(f'{key} = "{value}"' for key, value in keys.items())]
        lines += ["[service]", 'state_dir = "state"', "[queue]"]
        for name in models:
            more = models[name] if isinstance(models, dict) and models[name] not in FUNCTIONS.values() else ""
            lines += ["[[models]]", f'id = "{name}"', f'model = "cvat:{self.folder}/{name}.py"', more]
        self.file.write_text("\n".join(lines))

    def run(self, *words, code=0):
        """What it printed, parsed; or the error."""
        with pytest.raises(SystemExit) as ended:
            main(["functions", *words, "--config", str(self.file), *(["--json"] if code == 0 else [])])
        printed = self.capsys.readouterr()
        assert ended.value.code == code, printed.err
        return json.loads(printed.out) if code == 0 else printed.err

    def say(self, *words):
        """What it says to a person: (its lines, what it adds)."""
        with pytest.raises(SystemExit) as ended:
            main(["functions", *words, "--config", str(self.file)])
        printed = self.capsys.readouterr()
        assert ended.value.code == 0, printed.err
        return printed.out.splitlines(), printed.err.strip()


@pytest.fixture
def place(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BOT_PASSWORD", "secret")
    return Place(tmp_path, capsys)


def rows(found):
    return [(row["model"], row["function"], row["status"]) for row in found]


def test_made_once_and_found_again(sandbox, place):
    place.write(sandbox.url)
    assert rows(place.run("list")) == [
        ("detector", None, "none"),
        ("interactor", None, "none"),
        ("tracker", None, "none"),
    ]
    made = rows(place.run("register"))
    assert made == [("detector", 1, "created"), ("interactor", 2, "created"), ("tracker", 3, "created")]
    assert rows(place.run("register")) == [(name, number, "there") for name, number, _ in made]
    assert rows(place.run("list")) == [(name, number, "there") for name, number, _ in made]
    with Client(sandbox, "bot", "secret") as client:
        shown = {f["name"]: f for f in (client.get(f"/api/functions/{n}").json() for n in (1, 2, 3))}
        car, pose = shown["detector"]["labels_v2"]
        assert car["attributes"] == [{"name": "color", "input_type": "select", "values": ["red", "blue"]}]
        assert [sub["name"] for sub in pose["sublabels"]] == ["head", "foot"]
        assert (shown["interactor"]["min_pos_points"], shown["interactor"]["startswith_box_optional"]) == (1, True)
        assert shown["interactor"]["min_neg_points"] == -1  # none are taken
        assert shown["tracker"]["supported_shape_types"] == ["mask", "rectangle"]
        # One that is gone is made anew, and only that.
        client.delete("/api/functions/2")
        assert rows(place.run("list"))[1] == ("interactor", 2, "gone")
        assert rows(place.run("register")) == [
            ("detector", 1, "there"),
            ("interactor", 4, "created"),
            ("tracker", 3, "there"),
        ]


def test_two_at_once_make_each_function_once(sandbox, place):
    place.write(sandbox.url)
    # Long enough for the other one to look in the meantime, and to see nothing.
    sandbox.faults.add(method="POST", path="/api/functions$", delay=1.0, count=None)
    command = [sys.executable, "-m", "agent.cli", "functions", "register", "--json", "--config", str(place.file)]
    both = [subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [json.loads(process.communicate(timeout=100)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    for one, other in zip(*map(rows, said), strict=True):
        assert one[:2] == other[:2]
        assert {one[2], other[2]} == {"created", "there"}
    with Client(sandbox, "bot", "secret") as client:
        there = {function["id"] for function in client.get("/api/lambda/functions").json()}
    assert there == {row["function"] for row in said[0]}
    assert rows(place.run("list")) == [(name, number, "there") for name, number, _ in rows(said[0])]


def test_no_entry_is_lost_where_several_write(session, tmp_path):
    names = [f"model-{number}" for number in range(40)]

    def keep(name):
        with FunctionIds(tmp_path / "state", session).held() as remember:
            remember(name, int(name[6:]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, names))
    kept = FunctionIds(tmp_path / "state", session)
    assert kept.remembered() == {name: int(name[6:]) for name in names}
    assert {file.name for file in (tmp_path / "state").iterdir()} == {"functions.json", "functions.json.lock"}


def test_what_cannot_be_written_leaves_the_file_as_it_was(session, tmp_path):
    ids = FunctionIds(tmp_path, session)
    with ids.held() as remember:
        remember("one", 1)
    before = ids.file.read_bytes()
    with ids.held() as remember, pytest.raises(TypeError):
        remember("two", object())
    assert ids.file.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"functions.json", "functions.json.lock"}


def test_a_state_folder_that_cannot_be_is_told(session, tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"functions\.json\.lock: cannot be written: "),
        FunctionIds(tmp_path / "file" / "state", session).held(),
    ):
        pass


def test_what_people_read(sandbox, place):
    place.write(sandbox.url)
    lines, more = place.say("list")
    assert lines[0] == "detector: no function yet; `cvat-sidecar functions register detector` makes one"
    assert more == ""
    lines, more = place.say("register")
    assert lines == [f"{name}: function {n} created" for n, name in enumerate(FUNCTIONS, 1)]
    assert "takes them up by itself, within seconds" in more
    lines, more = place.say("register")
    assert (lines[2], more) == ("tracker: function 3, there: tracker", "")
    with Client(sandbox, "bot", "secret") as client:
        client.delete("/api/functions/2")
    place.write(sandbox.url, ["interactor", "tracker"])
    assert place.say("list")[0] == [
        "interactor: function 2 is not on the server any more:"
        " `cvat-sidecar functions register interactor` makes a new one",
        "tracker: function 3, there: tracker 'tracker'",
        "detector: function 1, of a model that is not (any more) one of the queue's in service.toml:"
        " `cvat-sidecar functions delete detector` removes it",
    ]
    made = "interactor: function 4 created: it takes the place of function 2, which was gone"
    assert place.say("register", "interactor")[0] == [made]
    assert place.say("delete", "detector")[0] == ["detector: function 1 deleted, with what waited for it"]
    text = place.file.read_text()
    place.file.write_text(text.replace("[queue]", ""))
    place.say("delete", "--all")
    assert place.say("register", "tracker")[1].endswith("has no [queue] table.")
    place.say("delete", "--all")
    place.file.write_text(text.partition("[[models]]")[0])
    assert place.say("list") == ([], "no model of service.toml is for the queue, and none is remembered")


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A folder without a service.toml, on a machine that has none."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CVAT_SIDECAR_CONFIG", raising=False)
    monkeypatch.setattr(configuration, "PLACES", (Path("service.toml"), tmp_path / "etc" / "service.toml"))
    return folder


def test_a_service_toml_is_found_in_the_folder_then_on_the_machine_unless_one_is_named(
    sandbox, place, nowhere, monkeypatch, capsys
):
    def listed():
        with pytest.raises(SystemExit) as ended:
            main(["functions", "list", "--json"])
        printed = capsys.readouterr()
        return [row["model"] for row in json.loads(printed.out)] if ended.value.code == 0 else printed.err

    def put(folder, model):
        folder.mkdir(exist_ok=True)
        place.write(sandbox.url, [model])
        place.file.rename(folder / "service.toml")

    machine = nowhere.parent / "etc"
    assert listed() == (
        f"Error: no service.toml: looked for ./service.toml and {machine}/service.toml;"
        " name yours with --config FILE or in $CVAT_SIDECAR_CONFIG\n"
    )
    put(machine, "tracker")
    assert listed() == ["tracker"]
    put(nowhere, "detector")
    assert listed() == ["detector"]
    monkeypatch.setenv("CVAT_SIDECAR_CONFIG", str(machine / "service.toml"))
    assert listed() == ["tracker"]


@pytest.mark.parametrize("command", [["serve"], ["doctor"], ["functions", "list"], ["functions", "register"]])
def test_all_commands_that_need_one_say_alike_that_there_is_none(nowhere, capsys, command):
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: no service.toml: looked for ./service.toml and ")


def test_removed(sandbox, place):
    place.write(sandbox.url)
    place.run("register")
    assert rows(place.run("delete", "interactor")) == [("interactor", 2, "deleted")]
    with Client(sandbox, "bot", "secret") as client:
        client.delete("/api/functions/3")
        assert rows(place.run("delete", "--all")) == [("detector", 1, "deleted"), ("tracker", 3, "gone")]
        assert client.get("/api/lambda/functions").json() == []
    assert "Name models, or say --all" in place.run("delete", code=2)
    assert "no function of it is remembered, allowed: none" in place.run("delete", "detector", code=2)
    assert "allowed: a model of the queue's in service.toml" in place.run("register", "nonsense", code=2)


def test_labels_that_differ_are_told(sandbox, place):
    place.write(sandbox.url)
    place.run("register")
    # Of another length: bytecode is not made anew for a file of the same size, written within the same second.
    (place.folder / "detector.py").write_text(FUNCTIONS["detector"].replace('"car"', '"omnibus"'))
    # What a model is like is remembered; to look again takes a look at it.
    for file in (place.folder / "state" / "models").iterdir():
        file.unlink()
    said = place.run("register", "detector", code=4)
    assert "model detector: function 1: label 'car': the model does not have it" in said
    assert "`cvat-sidecar functions delete detector`, and register again" in said
    place.run("delete", "detector")
    assert rows(place.run("register", "detector")) == [("detector", 4, "created")]


def test_a_function_that_service_toml_names(sandbox, place):
    place.write(sandbox.url, {"tracker": ""})
    place.run("register")
    place.write(sandbox.url, {"tracker": "function_id = 1"})
    (place.folder / "state" / "functions.json").unlink()
    assert rows(place.run("register")) == [("tracker", 1, "there")]
    place.write(sandbox.url, {"tracker": "function_id = 99"})
    said = place.run("register", code=4)
    assert "Error: model tracker: function_id: got 99, there is no such function" in said


@pytest.mark.parametrize("wrong", ["options = { zebra = 1 }", "function_id = 99"])
def test_a_wrong_option_keeps_no_other_model_from_its_function(sandbox, place, wrong):
    place.write(sandbox.url, {"detector": wrong, "interactor": "", "tracker": ""})
    said = place.run("register", code=4)
    assert "Error: model detector: " in said
    assert "zebra" in said or "function_id" in said
    place.write(sandbox.url, {"interactor": "", "tracker": ""})
    assert rows(place.run("list")) == [("interactor", 1, "there"), ("tracker", 2, "there")]


def test_a_model_that_cannot_be_loaded_keeps_no_other_from_its_function(sandbox, place):
    place.write(sandbox.url)
    (place.folder / "detector.py").write_text("import what_is_not_there")
    said = place.run("register", code=4)
    assert "Error: model detector: " in said
    assert "what_is_not_there" in said
    assert rows(place.run("list")) == [
        ("detector", None, "none"),
        ("interactor", 1, "there"),
        ("tracker", 2, "there"),
    ]


def test_a_worker_of_an_organization_reads_who_may_make_functions(sandbox, place):
    with Client(sandbox, "alice", "secret") as alice:
        alice.post("/api/organizations", json={"slug": "team"})
        alice.http.headers["X-Organization"] = "team"
        alice.post("/api/invitations", json={"email": "bot@example.com", "role": "worker"})
    place.write(sandbox.url, organization="team")
    assert "this user may not make functions in the organization 'team': supervisors" in place.run("register", code=3)


@pytest.mark.parametrize(
    ("login", "who"),
    [
        ('user = "bot"\npassword_env = "BOT_PASSWORD"', "as the user 'bot' (password_env BOT_PASSWORD): "),
        ('user = "bot"\npassword_file = "word"', "as the user 'bot' (password_file word): "),
        ('token_env = "BOT_PASSWORD"', "as the holder of a token (token_env BOT_PASSWORD): "),
        ("", "as the holder of a token ($CVAT_ACCESS_TOKEN): "),
    ],
)
def test_a_refused_login_names_who_and_where_the_secret_is(sandbox, place, monkeypatch, login, who):
    for name in ("BOT_PASSWORD", "CVAT_ACCESS_TOKEN"):
        monkeypatch.setenv(name, "wrong-word")
    (place.folder / "word").write_text("wrong-word")
    place.write(sandbox.url, {"tracker": "function_id = 1"})
    place.file.write_text(place.file.read_text().replace('user = "bot"\npassword_env = "BOT_PASSWORD"', login))
    said = place.run("register", code=3)
    assert who in said
    assert "wrong-word" not in said


def test_models_of_other_doors_are_left_out(sandbox, place):
    place.write(sandbox.url, {"detector": 'doors = ["gateway"]', "tracker": 'name = "Follows"'})
    (row,) = place.run("register")
    assert (row["model"], row["status"]) == ("tracker", "created")
    (row,) = place.run("list")
    assert row["text"] == "tracker 'Follows'"


def test_a_reidentifier_is_left_out_also_before_it_was_ever_loaded(sandbox, place):
    table = '[[models]]\nid = "people"\nmodel = "local:people.onnx"\noptions = { kind = "reid" }'
    place.write(sandbox.url, {"tracker": table})
    assert place.say("list")[0] == [
        "tracker: no function yet; `cvat-sidecar functions register tracker` makes one",
        "people: no function: CVAT knows no native function of the kind reid",
    ]


def test_personal_of_an_organization_and_public(place):
    with Sandbox({"bot": "secret", "alice": "secret"}, admins=["alice"]) as sandbox:
        with Client(sandbox, "bot", "secret") as bot:
            bot.post("/api/organizations", json={"slug": "lab"})
            place.write(sandbox.url, {"tracker": ""}, organization="")
            assert rows(place.run("register")) == [("tracker", 1, "created")]
            place.write(sandbox.url, {"tracker": ""}, organization="lab")
            assert rows(place.run("register")) == [("tracker", 2, "created")]
            inside = bot.get("/api/lambda/functions", headers={"X-Organization": "lab"}).json()
            assert [function["id"] for function in inside] == [2]
            place.write(sandbox.url, {"tracker": ""}, organization="")
            assert rows(place.run("list")) == [("tracker", 1, "there")]
        place.write(sandbox.url, {"detector": ""}, user="bot")
        assert "status 403" in place.run("register", "--public", code=3)
        place.write(sandbox.url, {"interactor": ""}, user="alice")
        place.run("register", "--public")
        with Client(sandbox, "bot", "secret") as bot:
            shared = [f["name"] for f in bot.get("/api/lambda/functions").json()]
            assert "interactor" in shared


def test_a_server_without_native_functions(sandbox, place):
    place.write(sandbox.url, {"tracker": ""})
    sandbox.faults.add(method="POST", path="/api/functions$", status=404, headers={"content-type": "text/html"})
    assert "it has no native functions, which come with CVAT Online and Enterprise" in place.run("register", code=3)


def test_a_file_that_is_not_ours(sandbox, place):
    place.write(sandbox.url, {"tracker": ""})
    place.run("register")
    (place.folder / "state" / "functions.json").write_text("[]")
    assert "it is not what `cvat-sidecar functions register` wrote" in place.run("list", code=2)
