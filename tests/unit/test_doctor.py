"""The frame of the doctor: what is skipped when something fails, how long a check may take, and what is printed."""

import json
import threading
import time
from pathlib import Path

import pytest

from agent.cvat.failures import Failure
from agent.doctor import child
from agent.doctor.agenda import checks_for
from agent.doctor.examination import examine, exit_code
from agent.doctor.findings import Check, failed, ok, skipped, warning
from agent.doctor.patient import Patient
from agent.doctor.probe import ProbeFailed, probe
from agent.errors import ConfigError, ServerUnavailable
from agent.settings.server import ServerSettings
from agent.settings.tables import Config, GatewaySettings, ModelSettings, QueueSettings, RuleSettings, WatchSettings


@pytest.fixture
def patient():
    return Patient(Config(Path("service.toml"), ServerSettings()), seconds=0.1)


def always(finding):
    return lambda patient: finding


def seen(patient, *checks, **more):
    return {line.check: str(line) for line in examine(checks, patient, **more)}


def test_what_needs_a_check_that_failed_is_skipped_with_the_first_cause(patient):
    lines = seen(
        patient,
        Check("a", always(failed("it is broken", "mend it"))),
        Check("b", always(ok("fine")), needs=("a",)),
        Check("c", always(ok("fine")), needs=("x", "b")),
        Check("d", always(ok("fine"))),
    )
    assert list(lines.values()) == [
        "failed   a: it is broken -> mend it",
        "skipped  b: a failed",
        "skipped  c: a failed",
        "ok       d: fine",
    ]


@pytest.mark.parametrize("finding", [warning("odd", "look"), ok("fine"), skipped("there is none")])
def test_a_check_may_be_needed_that_did_not_fail(patient, finding):
    lines = seen(patient, Check("a", always(finding)), Check("b", always(ok("fine")), needs=("a",)))
    assert lines["b"] == "ok       b: fine"


def test_a_check_can_be_impossible_for_those_after_it(patient):
    lines = seen(patient, Check("a", always(skipped("off", blocks=True))), Check("b", always(ok("")), needs=("a",)))
    assert lines["b"] == "skipped  b: a was not possible"


def test_a_check_that_does_not_come_back_costs_its_own_time_only(patient):
    gate = threading.Event()
    began = time.monotonic()
    lines = seen(
        patient,
        Check("a", lambda patient: gate.wait(60), seconds=0.2, mend="pull the plug"),
        Check("b", always(ok("fine"))),
        Check("c", lambda patient: gate.wait(60)),
    )
    assert time.monotonic() - began < 10
    gate.set()
    assert lines["a"] == "failed   a: no answer within 0.2 s -> pull the plug"
    assert lines["b"] == "ok       b: fine"
    assert "no answer within 0.4 s" in lines["c"]


@pytest.mark.parametrize(
    "error", [ConfigError("the key is wrong"), ServerUnavailable("the server is away"), Failure("the line broke")]
)
def test_errors_of_ours_are_findings(patient, error):
    def look(patient):
        raise error

    assert seen(patient, Check("a", look, mend="mend it")) == {"a": f"failed   a: {error} -> mend it"}


def test_a_check_with_a_defect_says_so_and_the_others_go_on(patient):
    lines = seen(patient, Check("a", lambda patient: 1 / 0), Check("b", always(ok("fine"))))
    assert "the check itself broke off: ZeroDivisionError: division by zero -> " in lines["a"]
    assert lines["b"] == "ok       b: fine"


def test_texts_are_one_line_without_secrets(patient):
    text = "first\nsecond\x1b[31m open sesame"
    (line,) = seen(patient, Check("a", always(failed(text, "say open sesame"))), redact=hide).values()
    assert line == "failed   a: first second?[31m *** -> say ***"


def hide(text):
    return text.replace("open sesame", "***")


@pytest.mark.parametrize(
    ("names", "code"),
    [((), 0), (("server.cvat",), 1), (("configuration.file",), 2), (("server.cvat", "configuration.secrets"), 2)],
)
def test_exit_codes(patient, names, code):
    checks = [Check("server.name", always(warning("odd", ""))), *(Check(n, always(failed("", ""))) for n in names)]
    assert exit_code(list(examine(checks, patient))) == code


def everything():
    models = tuple(ModelSettings(id=name, model="opencv:face", label_map=Path("coco-80")) for name in ("a", "b"))
    rules = (RuleSettings(name="r", model="a"),)
    return Config(
        Path("service.toml"), ServerSettings(), models, rules,
        queue=QueueSettings(), gateway=GatewaySettings(direct_ports=9000), watch=WatchSettings(webhook_secret_env="X"),
    )  # fmt: skip


@pytest.mark.parametrize("config", [Config(Path("x"), ServerSettings()), everything()], ids=["nothing", "everything"])
def test_the_agenda_is_in_order(config):
    """Whatever a check needs stands before it, and no name is there twice."""
    before = set()
    for check in checks_for(config):
        assert set(check.needs) <= before, check.name
        assert check.name not in before
        before.add(check.name)


def test_the_document_names_every_check():
    text = (Path(__file__).resolve().parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    names = {check.name.partition(" ")[0] for check in checks_for(everything())}
    # Only where models are of these schemes:
    names |= {"accelerator.onnxruntime", "machine.weights"}
    assert {name for name in names if f"`{name}`" not in text} == set()


# ------------------------------------------------------------------------ processes


def test_a_process_answers():
    assert probe("opencv", seconds=60)["whole"] is True


def test_adapters_and_options_are_looked_at_without_loading():
    wrong = probe(
        "adapters",
        [
            ["good", "opencv:face", {}],
            ["option", "opencv:face", {"treshold": 1}],
            ["scheme", "onnx:x", {}],
            ["bare", "x.onnx", {}],
            ["composed", "flips:x", {"of": "good"}],
            ["half", "tiles:x", {}],
        ],
        seconds=60,
    )
    assert (wrong["good"], wrong["composed"]) == (None, None)
    assert "unknown option 'treshold'" in wrong["option"]
    assert "unknown scheme 'onnx'" in wrong["scheme"]
    assert "did you mean 'local:x.onnx'?" in wrong["bare"]
    assert "option 'of' is missing" in wrong["half"]


WRONG = """
import cvat_sdk.auto_annotation as a

spec = a.DetectionFunctionSpec(labels=[a.label_spec("thing", 0)])
{}
def detect(context, image):
    {}
    return []
"""


@pytest.mark.parametrize(
    ("at_start", "at_work", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "pass", "it took too much memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "pass", "segmentation fault"),
        ("import os; os._exit(7)", "pass", "code 7"),
        ("import threading; threading.Event().wait(100)", "pass", "no answer within 3 s"),
    ],
    ids=["killed", "crashed", "left", "hangs"],
)
def test_a_model_that_takes_its_process_with_it(tmp_path, at_start, at_work, said):
    file = _config(tmp_path, at_start, at_work)
    with pytest.raises(ProbeFailed, match=said):
        probe("load", str(file), "own", "cpu", seconds=3)


@pytest.mark.parametrize(
    ("at_start", "at_work", "said"),
    [("raise KeyError('weights')", "pass", "weights"), ("pass", "raise ValueError('a bad day')", "a bad day")],
    ids=["cannot be loaded", "fails on a picture"],
)
def test_a_model_that_fails_in_an_orderly_way(tmp_path, at_start, at_work, said):
    told = probe("load", str(_config(tmp_path, at_start, at_work)), "own", "cpu", seconds=60)
    assert said in told["error"]


def test_a_model_is_loaded_and_run_although_it_prints(tmp_path):
    told = probe("load", str(_config(tmp_path, "print('hello')", "print('{}')")), "own", "cpu", seconds=60)
    assert told["came"] == "0 detections"
    assert [label["name"] for label in told["description"]["labels"]] == ["thing"]
    assert json.dumps(told)


def _config(folder, at_start, at_work):
    (folder / "function.py").write_text(WRONG.format(at_start, at_work))
    file = folder / "service.toml"
    file.write_text(f'[[models]]\nid = "own"\nmodel = "cvat:{folder}/function.py"\n')
    return file


def test_every_question_is_one_of_the_child():
    with pytest.raises(ProbeFailed, match="KeyError: 'nonsense'"):
        probe("nonsense", seconds=60)
    assert set(child.QUESTIONS) == {"torch", "onnxruntime", "opencv", "adapters", "load"}
