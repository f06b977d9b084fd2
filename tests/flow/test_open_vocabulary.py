"""Models that find what they are told to, told by the task itself."""

import json

import pytest
from click.testing import CliRunner

from agent.cli import command
from agent.cvat.annotations_api import get_annotations
from agent.cvat.work import find_work
from agent.doors.gateway.listing import Menu
from agent.errors import ConfigError, ModelError
from agent.functions.bodies import function_body
from agent.ledger.ledger import Ledger
from agent.models.descriptions import Description
from agent.models.loading import load_model
from agent.options import Options, Target
from agent.settings.server import ServerSettings
from agent.settings.tables import ModelSettings
from tests.support import hub_models
from tests.support.doors import shared
from tests.support.material import make_image_task
from tests.support.watching import Clock, Models, rule, watching

LABELS = [
    {"name": "red car", "type": "rectangle"},
    {"name": "dog", "type": "rectangle"},
    {"name": "sky", "type": "tag"},
]


PLANTS = [{"name": "tree", "type": "rectangle"}, {"name": "small tree", "type": "any"}]


class Real(Models):
    """Loads what is asked for."""

    def __call__(self, reference, *, device, options):
        return load_model(reference, device=device, options=options)


@pytest.fixture
def owl(tmp_path):
    folder = tmp_path / "owl"
    folder.mkdir()
    hub_models.owl(folder)
    return ModelSettings("owl", f"hf:{folder}", options={"labels": "task"})


@pytest.fixture
def run(sandbox, owl, tmp_path):
    def annotate(*words):
        access = ["--server-host", sandbox.url, "--auth", "bot:secret", "--ledger", tmp_path / "l.sqlite3"]
        given = ["annotate", "--model", owl.model, "--threshold", 0, *access, *words]
        return CliRunner().invoke(command, [str(word) for word in given])

    return annotate


def found_in(session, task):
    """The labels of what was found in a task."""
    (work,) = find_work(session, Target("task", task))
    names = {label.id: label.name for label in work.labels}
    shapes = [shape for job in work.jobs for shape in get_annotations(session, job.id)["shapes"]]
    return {names[shape["label_id"]] for shape in shapes}


def test_the_tasks_labels_are_asked_for(session, run, tmp_path):
    task = make_image_task(session, count=2, labels=LABELS)
    done = run("--task", task, "-p", "labels=task", "--report", tmp_path / "report.json")
    assert done.exit_code == 0, done.output
    found = found_in(session, task)
    assert found
    assert found <= {"red car", "dog"}, "a tag has no rectangle"
    # What was asked for is written down: a run that is resumed asks for the same, whatever the task has become.
    with Ledger(tmp_path / "l.sqlite3") as ledger:
        record = ledger.run(json.loads((tmp_path / "report.json").read_text())["run"])
    assert Options.from_json(record.options).params["labels"] == ["red car", "dog", "sky"]


def test_an_open_vocabulary_that_is_told_nothing_says_how(session, run):
    task = make_image_task(session, count=1, labels=LABELS)
    done = run("--task", task)
    assert done.exit_code != 0
    assert '`annotate` and rules take labels = "task"' in str(done.exception) + done.output


def wish(**options):
    return rule(model="owl", options={"threshold": 0.0, **options})


def test_a_rule_asks_each_task_for_its_labels_with_the_same_weights(sandbox, session, owl):
    tasks = [make_image_task(session, count=2, labels=labels) for labels in (LABELS, PLANTS)]
    with watching(sandbox, wish(), settings=[owl], models=Real()) as watch:
        assert [record.outcome for record in watch.ended(2)] == ["done"] * 2
        assert watch.shared.pool.record("owl").loads == 1
        asked = {tuple(record.options["params"]["labels"]) for record in watch.runs()}
        assert asked == {("red car", "dog", "sky"), ("tree", "small tree")}
        watch.look()
        assert watch.count == 2
    for task, names in zip(tasks, ({"red car", "dog"}, {"tree", "small tree"}), strict=True):
        found = found_in(session, task)
        assert found
        assert found <= names


def test_a_rules_run_goes_on_with_the_labels_that_it_began_with(sandbox, session, owl):
    task = make_image_task(session, count=2, labels=PLANTS)
    clock = Clock()
    server = ServerSettings(user="bot", password="secret", retries=0)
    sandbox.faults.add(method="PATCH", path="annotations", status=403)
    with watching(sandbox, wish(), settings=[owl], models=Real(), server=server, timing=clock.timing) as watch:
        assert [record.outcome for record in watch.ended(1)] != ["done"]
        watch.settle()
        session.request("PATCH", f"/api/tasks/{task}", body={"labels": [{"name": "bush", "type": "rectangle"}]})
        clock.ahead = 300
        watch.look()
        assert watch.ended(2)[1].outcome == "done"
        (record,) = watch.runs()
        assert record.options["params"]["labels"] == ["tree", "small tree"]
    assert found_in(session, task) <= {"tree", "small tree"}


def test_what_each_task_tells_is_not_in_menus(sandbox, owl, tmp_path):
    with shared(sandbox, [owl]) as around:
        with around.pool.use("owl") as hosted:
            description = Description.of(hosted.loaded)
        (why,) = Menu(around, dict).left_out().values()
    assert why.startswith('it finds the labels of each task (labels = "task")')
    with pytest.raises(ModelError, match=r"owl: it finds the labels of each task .* doors = \[\]"):
        function_body(owl, description, public=False)


def test_a_model_that_is_told_by_tasks_is_no_part_of_another(sandbox, owl):
    tiles = ModelSettings("tiled", "tiles:", options={"of": "owl"})
    with (
        shared(sandbox, [owl, tiles]) as around,
        pytest.raises(ConfigError, match="owl finds the labels of each task, allowed within another model: labels"),
        around.pool.use("tiled"),
    ):
        pass


def test_phrases_may_say_how_to_ask_for_some_of_a_tasks_labels(session, sandbox, tmp_path, owl):
    task = make_image_task(session, count=1, labels=PLANTS)
    told = ModelSettings("owl", owl.model, options={"labels": "task", "phrases": {"tree": ["a dog", "a red car"]}})
    with watching(sandbox, wish(), settings=[told], models=Real()) as watch:
        assert watch.ended(1)[0].outcome == "done"
    assert found_in(session, task) <= {"tree", "small tree"}
