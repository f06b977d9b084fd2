"""`annotate --config service.toml --model ID`: models by the names that the configuration gives them."""

import json

from click.testing import CliRunner

from agent.cli import command
from agent.cvat.annotations_api import get_annotations
from agent.cvat.work import find_work
from agent.ledger.ledger import Ledger
from agent.options import Target
from tests.support.coco import load_ground_truth
from tests.support.material import make_task


def cli(sandbox, ledger, *words):
    args = [*words, "--server-host", sandbox.url, "--auth", "bot:secret", "--ledger", ledger]
    return CliRunner().invoke(command, [str(word) for word in args], catch_exceptions=False)


def test_an_ensemble_by_its_id_and_a_run_that_can_be_resumed_without_the_configuration(
    sandbox, session, assets, tmp_path
):
    weights, ledger = assets / "weights", tmp_path / "ledger.sqlite3"
    config = tmp_path / "service.toml"
    config.write_text(
        f"""
        [[models]]
        id = "nano"
        model = "local:{weights}/yolox_nano_416.onnx"
        [[models]]
        id = "both"
        model = "ensemble:"
        threshold = 0.35
        device = "cpu"
        options = {{ of = ["nano", "local:{weights}/deimv2_atto_coco_320.onnx"] }}
        """
    )
    truth = load_ground_truth(assets / "media" / "coco_val")
    labels = [{"name": name} for name in ("person", "car", "dog", "cat", "chair")]
    task = make_task(session, [truth.path(name) for name in truth.names[:6]], labels=labels)
    match = cli_match(sandbox, config, task)
    assert "person" in match
    done = cli(sandbox, ledger, "annotate", "--task", task, "--config", config, "--model", "both")
    assert done.exit_code == 0, done.output
    (work,) = find_work(session, Target("task", task))
    stored = get_annotations(session, work.jobs[0].id)["shapes"]
    assert stored
    assert all(shape["score"] >= 0.35 for shape in stored)
    with Ledger(ledger) as book:
        (run,) = book.runs()
    assert run.model == "ensemble:"
    parts = run.options["params"]["of"] if isinstance(run.options, dict) else json.loads(run.options)["params"]["of"]
    assert parts[0] == {"model": f"local:{weights}/yolox_nano_416.onnx", "options": {}}


def cli_match(sandbox, config, task):
    args = ["labels", "match", "--task", task, "--config", config, "--model", "both", "--server-host", sandbox.url]
    done = CliRunner().invoke(command, [str(a) for a in (*args, "--auth", "bot:secret")], catch_exceptions=False)
    return done.output
