"""All that is wrong in service.toml is told at once, a line each, by every command that reads it."""

import json
import signal

import pytest

from agent.cli import main
from tests.support.service import written
from tests.support.serving import serve, sidecar

WRONG = """
[cvat]
host = "{host}"
user = "bot"
password_env = "NOT_SET"
token_evn = "X"
[service]
port = 0
state_dir = "state"
batch_lanes = "two"
[queue]
pol_seconds = 3
[[models]]
id = "faces"
model = "opencv:face"
threshold = 1.5
[[models]]
id = "eyes"
model = "opencv:eye"
[[models]]
id = "eyes"
model = "opencv:eye"
[[models]]
model = "opencv:eye"
load = "never"
[[rules]]
name = "r"
model = "faces"
"""
SAID = {
    "cvat": (
        "cvat: password_env: the environment has no variable NOT_SET",
        "cvat: unknown key 'token_evn'; did you mean 'token_env'?",
    ),
    "models": (
        "models 'faces': threshold: got 1.5, allowed: 1 or less",
        "models[3]: the key 'id' is missing",
        "models[3]: load: got 'never', allowed: 'start' or 'use'",
    ),
    "service": ("service: batch_lanes: got 'two', allowed: a whole number",),
    "queue": (
        "queue: unknown key 'pol_seconds'; did you mean 'poll_seconds'?",
        "models: 'eyes' is there 2 times, allowed: once",
    ),
}
EVERYTHING = sum(SAID.values(), ())


@pytest.fixture
def wrong(tmp_path, sandbox, monkeypatch):
    """A service.toml with mistakes in each of its tables."""
    monkeypatch.setenv("BOT_PASSWORD", "secret")
    monkeypatch.delenv("NOT_SET", raising=False)
    file = tmp_path / "service.toml"
    file.write_text(WRONG.format(host=sandbox.url))
    return file


def errors(file, *tables):
    """What the command line says of these tables."""
    return "".join(f"Error: {file}: {text}\n" for table in tables for text in SAID[table])


@pytest.mark.parametrize("command", [["serve"], ["functions", "list"]], ids=" ".join)
def test_before_any_request(wrong, sandbox, command):
    before = len(list(sandbox.requests))
    done = sidecar(*command, "--config", wrong)
    assert (done.returncode, done.stderr) == (2, errors(wrong, *SAID))
    assert (done.stdout, len(list(sandbox.requests))) == ("", before)


@pytest.mark.parametrize(
    ("command", "tables"),
    [
        (["annotate", "--task", "1", "--model", "faces"], ["cvat", "models", "service"]),
        (["annotate", "--task", "1", "--model", "faces", "--ledger", "x.sqlite3"], ["cvat", "models"]),
        (["track", "--task", "1"], ["cvat", "models", "service"]),
        (["enrich", "--task", "1", "--model", "faces", "--gives", "identity"], ["cvat", "models", "service"]),
        (["labels", "match", "--task", "1", "--model", "faces"], ["cvat", "models"]),
        (["models", "bench", "faces", "--truth", "1"], ["cvat", "models"]),
        (["models", "show", "faces"], ["models"]),
        (["runs", "undo", "x"], ["cvat", "service"]),
        (["runs", "resume", "x"], ["cvat", "service"]),
        (["runs", "list"], ["service"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_commands_tell_all_of_the_tables_that_they_need(wrong, sandbox, capsys, monkeypatch, command, tables):
    monkeypatch.chdir(wrong.parent)
    before = len(list(sandbox.requests))
    with pytest.raises(SystemExit) as ended:
        main([*command, "--config", str(wrong)])
    assert (ended.value.code, capsys.readouterr().err) == (2, errors(wrong, *tables))
    assert len(list(sandbox.requests)) == before


def test_the_doctor_has_a_mend_for_each(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", "--config", str(wrong)])
    found = json.loads(capsys.readouterr().out)
    assert (ended.value.code, found["exit_code"], found["failed"]) == (2, 2, len(EVERYTHING))
    told = [line for line in found["checks"] if line["check"] == "configuration.file"]
    assert [line["text"] for line in told] == [f"{wrong}: {text}" for text in EVERYTHING]
    assert {line["state"] for line in told} == {"failed"}
    mends = [line["mend"] for line in told]
    assert mends[0].startswith("set it where the service starts")
    assert {mend.partition(";")[0] for mend in mends[1:]} == {"put right the key that is named"}


def test_a_service_that_reads_again_logs_each_and_goes_on(wrong, tmp_path, sandbox):
    folder = tmp_path / "good"
    folder.mkdir()
    file = written(folder, sandbox.url)
    with serve(file) as process:
        process.until(lambda: "status page" in process.log)
        file.write_text(wrong.read_text())
        process.signal(signal.SIGHUP)
        process.until(lambda: EVERYTHING[-1] in process.log)
        told = [line.partition("everything stays as it is: ")[2] for line in process.lines if " ERROR " in line]
        assert told == [f"{file}: {text}" for text in EVERYTHING]
        assert process.page.get("/healthz").status_code == 200


RIGHT = """
[cvat]
host = "{host}"
[service]
secret_env = "NOT_SET"
[gateway]
secret_env = "NOT_SET_EITHER"
[[models]]
id = "faces"
model = "opencv:face"
[[rules]]
name = "one"
model = "faces"
states = []
options = {{ zebra = 1, replace = "mine" }}
[[rules]]
name = "two"
model = "faces"
quiet_hours = ["22:00", "22:00"]
options = {{ frames = "some", label_map = "none-such", roi = [5, 0, 5, 9] }}
"""


def test_what_a_service_needs_beside_right_tables_is_told_at_once_too(wrong, sandbox, monkeypatch, capsys):
    for name in ("NOT_SET_EITHER", "CVAT_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    wrong.write_text(RIGHT.format(host=sandbox.url))
    done = sidecar("serve", "--config", wrong)
    starts = [
        "cvat: got nothing that says who we are, allowed: ",
        "service: secret_env: the environment has no variable NOT_SET,",
        "gateway: secret_env: the environment has no variable NOT_SET_EITHER,",
        "rules 'one': states: got none, allowed: one or more",
        "rules 'one': options: unknown key 'zebra'; allowed: ",
        "rules 'one': options: replace: got 'mine', allowed: ",
        "rules 'two': quiet_hours: got ['22:00', '22:00'], allowed: two different times",
        "rules 'two': options: --frames 'some': got 'some'",
        "rules 'two': options: label map 'none-such': ",
        "rules 'two': options: roi: got [5, 0, 5, 9], allowed: ",
    ]
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (2, len(starts)), done.stderr
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(f"Error: {wrong}: {start}")
    with pytest.raises(SystemExit):
        main(["doctor", "--json", "--config", str(wrong)])
    told = [line["text"] for line in json.loads(capsys.readouterr().out)["checks"] if line["check"] == "rules.options"]
    assert [f"Error: {text}" for text in told] == lines[3:]
