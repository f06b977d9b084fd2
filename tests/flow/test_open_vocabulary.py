"""Models that find what they are told to, told by the task itself."""

import json

import pytest
from click.testing import CliRunner

from agent.cli import command
from agent.cvat.annotations_api import get_annotations
from agent.cvat.work import find_work
from agent.ledger.ledger import Ledger
from agent.options import Options, Target
from tests.support import hub_models
from tests.support.material import make_image_task

LABELS = [
    {"name": "red car", "type": "rectangle"},
    {"name": "dog", "type": "rectangle"},
    {"name": "sky", "type": "tag"},
]


@pytest.fixture
def run(sandbox, tmp_path):
    folder = tmp_path / "owl"
    folder.mkdir()
    hub_models.owl(folder)

    def annotate(*words):
        access = ["--server-host", sandbox.url, "--auth", "bot:secret", "--ledger", tmp_path / "l.sqlite3"]
        given = ["annotate", "--model", f"hf:{folder}", "--threshold", 0, *access, *words]
        return CliRunner().invoke(command, [str(word) for word in given])

    return annotate


def test_the_tasks_labels_are_asked_for(session, run, tmp_path):
    task = make_image_task(session, count=2, labels=LABELS)
    done = run("--task", task, "-p", "labels=task", "--report", tmp_path / "report.json")
    assert done.exit_code == 0, done.output
    (work,) = find_work(session, Target("task", task))
    names = {label.id: label.name for label in work.labels}
    shapes = [shape for job in work.jobs for shape in get_annotations(session, job.id)["shapes"]]
    found = {names[shape["label_id"]] for shape in shapes}
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
    assert 'annotate` takes labels = "task"' in str(done.exception) + done.output
