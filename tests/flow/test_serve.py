"""`cvat-sidecar serve` from outside: whole processes, real models, all doors, signals and exit codes."""

import json
import re
import signal
import time
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.cvat.annotations_api import get_annotations
from agent.sandbox import Sandbox
from tests.support.gateway import free_port
from tests.support.material import make_image_task
from tests.support.serving import serve, sidecar
from tests.support.tasks import Client

SLOW = """
import time
import cvat_sdk.auto_annotation as a

spec = a.DetectionFunctionSpec(labels=[a.label_spec("thing", 0, type="rectangle")])

def detect(context, image):
    time.sleep(0.2)
    return [a.rectangle(0, [1, 2, 30, 40])]
"""
SERVICE = """
[cvat]
host = "{host}"
user = "bot"
password_env = "BOT_PASSWORD"
retries = 2
timeout = 5
[service]
port = 0
state_dir = "state"
{service}
[queue]
poll_seconds = 0.5
heartbeat_seconds = 0.2
[[models]]
id = "slow"
model = "cvat:slow.py"
batch_size = 1
"""


@pytest.fixture
def person(sandbox):
    with Client(sandbox, "bot", "secret") as opened:
        yield opened


class Slow:
    """A service.toml with a model that takes its time."""

    def __init__(self, folder, sandbox, session):
        self.folder, self.session = folder, session
        (folder / "slow.py").write_text(SLOW)
        self.file = folder / "service.toml"
        self.write(sandbox.url)

    def write(self, host, service=""):
        text = SERVICE.format(host=host, service=service).replace("cvat:slow.py", f"cvat:{self.folder / 'slow.py'}")
        self.file.write_text(text)

    def function(self):
        done = sidecar("functions", "register", "--json", "--config", self.file)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        return str(row["function"])

    def task(self, count=10):
        return make_image_task(self.session, count=count, labels=[{"name": "thing"}])


@pytest.fixture
def slow(tmp_path, sandbox, session):
    return Slow(tmp_path, sandbox, session)


def ordered(person, function, task):
    made = person.post("/api/lambda/requests", json={"function": function, "task": task})
    assert made.status_code == 200, made.text
    return f"/api/lambda/requests/{made.json()['id']}"


class TestSignals:
    def test_the_first_finishes_what_is_held(self, slow, person):
        function, task = slow.function(), slow.task()
        with serve(slow.file) as process:
            process.ready()
            request = ordered(person, function, task)
            process.until(lambda: process.page.status()["running"])
            process.signal(signal.SIGTERM)
            process.until(lambda: "stopping" in process.log)
            later = ordered(person, function, slow.task(1))
            assert process.ended() == 0
        assert person.get(request).json()["status"] == "finished"
        assert person.get(later).json()["status"] == "queued", "nothing new was taken"
        assert len(person.get(f"/api/tasks/{task}/annotations").json()["shapes"]) == 10
        assert "stopping: what is held is finished first, within 60 s" in process.log
        assert process.lines[-1] == "stopped"
        assert "Traceback" not in process.log

    def test_the_second_gives_up_what_is_held(self, slow, person):
        function, task = slow.function(), slow.task(200)
        with serve(slow.file) as process:
            process.ready()
            request = ordered(person, function, task)
            process.until(lambda: process.page.status()["running"])
            process.signal(signal.SIGINT)
            process.until(lambda: "stopping" in process.log)
            began = time.monotonic()
            process.signal(signal.SIGINT)
            assert process.ended() == 130
            assert time.monotonic() - began < 10
        assert person.get(request).json()["status"] != "failed", "another agent may take it"
        assert "Traceback" not in process.log

    def test_so_does_the_end_of_the_grace_period(self, slow, person):
        slow.write(slow.session.url, service="grace_seconds = 0.5")
        function, task = slow.function(), slow.task(200)
        with serve(slow.file) as process:
            process.ready()
            request = ordered(person, function, task)
            process.until(lambda: process.page.status()["running"])
            process.signal(signal.SIGTERM)
            assert process.ended() == 130
        assert person.get(request).json()["status"] != "failed"
        assert "0.5 s are over" in process.log

    def test_after_a_kill_the_next_one_goes_on(self, slow, person):
        function, task = slow.function(), slow.task(20)
        with serve(slow.file) as process:
            process.ready()
            first = ordered(person, function, slow.task(200))
            process.until(lambda: process.page.status()["running"])
            process.signal(signal.SIGKILL)
            assert process.ended() == -signal.SIGKILL
        assert person.get(first).json()["status"] == "started"
        with serve(slow.file) as process:
            process.ready()
            assert process.page.status()["models"][0]["kind"] == "detector"
            person.delete(first)
            request = ordered(person, function, task)
            person.until(request, lambda got: got.json()["status"] == "finished")
            process.signal(signal.SIGTERM)
            assert process.ended() == 0

    def test_signals_that_come_too_early_are_not_lost(self, slow):
        with serve(slow.file) as process:
            process.until(lambda: "queue: agent" in process.log)  # the doors are just being opened
            process.signal(signal.SIGHUP)
            process.signal(signal.SIGTERM)
            assert process.ended() == 0
        assert process.lines[-1] == "stopped"

    def test_the_third_ends_it_on_the_spot(self, slow, person):
        (slow.folder / "slow.py").write_text(SLOW.replace("time.sleep(0.2)", "time.sleep(1000)"))
        function, task = slow.function(), slow.task(1)
        with serve(slow.file) as process:
            process.ready()
            ordered(person, function, task)
            process.until(lambda: process.page.status()["running"])
            for said in ("stopping: what is held", "stopping at once", ""):
                process.signal(signal.SIGTERM)
                if said:
                    process.until(lambda said=said: said in process.log)
            began = time.monotonic()
            assert process.ended() == 130
            assert time.monotonic() - began < 2

    def test_a_hangup_reads_service_toml_again(self, slow):
        slow.function()
        with serve(slow.file) as process:
            process.ready()
            good = slow.file.read_text()
            slow.file.write_text("[[[")
            process.signal(signal.SIGHUP)
            process.until(lambda: "everything stays as it is" in process.log)
            more = '[[models]]\nid = "faces"\nmodel = "opencv:face"\ndoors = []\n[gateway]\nport = '
            slow.file.write_text(f"{good}{more}{free_port()}")
            process.signal(signal.SIGHUP)
            process.until(lambda: len(process.page.status()["models"]) == 2)
            process.until(lambda: process.page.status()["models"][1]["status"] == "ready")
            process.until(lambda: {door["name"] for door in process.page.status()["doors"]} == {"queue", "gateway"})
            assert "changed: models faces: added" in process.log
            process.signal(signal.SIGTERM)
            assert process.ended() == 0

    def test_after_a_hangup_with_other_labels_requests_are_judged_by_them(self, slow, person):
        function = slow.function()
        with serve(slow.file) as process:
            process.ready()
            request = ordered(person, function, slow.task(1))
            person.until(request, lambda got: got.json()["status"] == "finished")
            good, other = slow.file.read_text(), slow.folder / "other.py"
            other.write_text(SLOW.replace('"thing"', '"something else"'))
            slow.file.write_text(good.replace(str(slow.folder / "slow.py"), str(other)))
            process.signal(signal.SIGHUP)
            said = "label 'thing': the model does not have it"
            process.until(lambda: said in str(process.page.status()))
            request = ordered(person, function, slow.task(1))
            time.sleep(1)
            assert person.get(request).json()["status"] == "queued"
            slow.file.write_text(good)
            process.signal(signal.SIGHUP)
            person.until(request, lambda got: got.json()["status"] == "finished")
            process.signal(signal.SIGTERM)
            assert process.ended() == 0

    def test_a_function_is_served_as_soon_as_it_is_registered(self, slow, person):
        with serve(slow.file) as process:
            process.until(lambda: "without a function: slow" in str(process.page.status()))
            request = ordered(person, slow.function(), slow.task(1))
            person.until(request, lambda got: got.json()["status"] == "finished")
            process.signal(signal.SIGTERM)
            assert process.ended() == 0

    def test_a_model_that_never_comes_back_does_not_keep_it_alive(self, slow, person):
        (slow.folder / "slow.py").write_text(SLOW.replace("time.sleep(0.2)", "time.sleep(1000)"))
        function, task = slow.function(), slow.task(1)
        with serve(slow.file) as process:
            process.ready()
            request = ordered(person, function, task)
            process.until(lambda: process.page.status()["running"])
            process.signal(signal.SIGTERM)
            process.until(lambda: "stopping" in process.log)
            process.signal(signal.SIGTERM)
            assert process.ended(30) == 130
        assert person.get(request).json()["status"] != "failed"


class TestBeginning:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (("port = 0", "porto = 0"), "service: unknown key 'porto'; did you mean 'port'?"),
            (("[queue]\npoll_seconds = 0.5\nheartbeat_seconds = 0.2", ""), "got no door"),
            (("BOT_PASSWORD", "NOT_SET"), "the environment has no variable NOT_SET"),
            (("port = 0", 'port = 0\nsecret_env = "NOT_SET"'), "the environment has no variable NOT_SET"),
            (("port = 0", 'port = 0\nhost = "0.0.0.0"'), "service: secret_env: got none"),
            (("batch_size = 1", "batch_size = 0"), "models 'slow': batch_size: got 0, allowed: 1 or more"),
        ],
    )
    def test_what_is_wrong_is_one_line_before_any_request(self, slow, sandbox, change, said):
        slow.file.write_text(slow.file.read_text().replace(*change))
        before = len(list(sandbox.requests))
        done = sidecar("serve", "--config", slow.file)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("Error: ")
        assert said in line
        assert len(list(sandbox.requests)) == before

    def test_a_port_that_is_taken_is_one_line_before_any_request(self, slow, sandbox):
        slow.file.write_text(slow.file.read_text().replace("port = 0", f"port = {sandbox.url.rsplit(':', 1)[1]}"))
        before = len(list(sandbox.requests))
        done = sidecar("serve", "--config", slow.file)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "Address already in use" in done.stderr
        assert len(list(sandbox.requests)) == before

    def test_a_file_that_is_not_there(self, tmp_path):
        missing = tmp_path / "nothing.toml"
        done = sidecar("serve", "--config", missing)
        assert (done.returncode, f"Error: {missing}: cannot be read: " in done.stderr) == (2, True)

    def test_it_says_what_it_opens(self, slow):
        slow.function()
        with serve(slow.file) as process:
            process.ready()
            process.until(lambda: "status page" in process.log)
            said = process.log
            assert f"server       {slow.session.url}" in said
            assert re.search(r"^door         queue: ", said, re.MULTILINE)
            assert re.search(r"^model        slow: cvat:.*slow\.py, being loaded", said, re.MULTILINE)
            assert f"status page  {process.url}" in said

    def test_a_server_that_comes_later(self, slow, tmp_path):
        """It is not there when the service begins: that is told, and mended by itself."""
        port = free_port()
        slow.write(f"http://127.0.0.1:{port}")
        text = slow.file.read_text().replace('id = "slow"', 'id = "slow"\nfunction_id = 1')
        slow.file.write_text(text)
        with serve(slow.file) as process:
            process.until(lambda: process.page.get("/readyz").status_code == 503)
            process.until(lambda: "cannot be reached" in process.page.get("/readyz").text)
            assert process.page.get("/healthz").status_code == 200
            with Sandbox(users={"bot": "secret"}, port=port):
                assert process.page.get("/healthz").status_code == 200
                process.until(lambda: "cannot be reached" not in process.page.get("/readyz").text)
                process.signal(signal.SIGTERM)
                assert process.ended() == 0

    def test_the_log_is_json_where_that_is_wanted_and_has_no_secret(self, slow, person):
        slow.write(slow.session.url, service='log_format = "json"\nlog_level = "debug"')
        function, task = slow.function(), slow.task(1)
        with serve(slow.file) as process:
            process.ready()
            request = ordered(person, function, task)
            person.until(request, lambda got: got.json()["status"] == "finished")
            person.until(request, lambda got: process.page.status()["finished"])
            process.signal(signal.SIGTERM)
            assert process.ended() == 0
        records = process.records()
        assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
        (ended,) = [r for r in records if "annotate_task" in r["message"] and "done after" in r["message"]]
        assert ended["model"] == "slow"
        assert ended["request"]
        assert any(record["message"].startswith("status page") for record in records)
        key = slow.session.client.api_client.default_headers["Authorization"].split()[1]
        assert key not in process.log

    def test_verbose_is_more_than_the_file_asks_for(self, slow):
        slow.write(slow.session.url, service='log_level = "error"')
        with serve(slow.file, "-v") as process:
            process.until(lambda: " INFO agent." in process.log)

    def test_the_example_runs_as_it_stands(self, tmp_path):
        from tests.support.serving import ROOT

        text = (ROOT / "service.toml").read_text()
        text = text.replace("# port = 8090", "port = 0").replace("# port = 8070", f"port = {free_port()}")
        (tmp_path / "service.toml").write_text(text)
        with serve(tmp_path / "service.toml") as process:
            process.ready()
            (model,) = process.page.status()["models"]
            assert (model["id"], model["status"], model["kind"]) == ("faces", "ready", "detector")
            process.signal(signal.SIGTERM)
            assert process.ended() == 0


ALL_DOORS = """
[cvat]
host = "{host}"
user = "bot"
password_env = "BOT_PASSWORD"
[service]
port = 0
state_dir = "state"
log_format = "json"
[queue]
poll_seconds = 0.5
heartbeat_seconds = 0.5
[gateway]
port = {gateway}
[watch]
webhook_secret_env = "HOOK"
[[models]]
id = "yolox"
model = "local:{weights}/yolox_nano_416.onnx"
name = "YOLOX nano"
device = "cpu"
threshold = 0.3
options = {{ labels = "coco-80" }}
[[rules]]
name = "auto"
model = "yolox"
projects = [{project}]
every_seconds = 3600
state_when_done = "completed"
options = {{ quality = "original" }}
"""


@pytest.mark.timeout(300)
def test_a_real_model_through_all_doors_at_once(tmp_path, assets):
    """One process, one loaded model: CVAT's queue, CVAT's menus and a rule annotate the same pictures; the run of the
    rule is taken back from the page."""
    gateway = free_port()
    pictures = sorted((assets / "media/coco_val/images").glob("*.jpg"))[:6]
    labels = [{"name": name, "type": "rectangle"} for name in ("person", "car", "dog", "cat", "chair", "bus", "train")]
    file = tmp_path / "service.toml"
    with (
        Sandbox(users={"bot": "secret"}, port=0, nuclio=f"http://127.0.0.1:{gateway}") as sandbox,
        Client(sandbox, "bot", "secret") as person,
    ):
        project = person.post("/api/projects", json={"name": "automatic", "labels": labels}).json()["id"]
        weights = assets / "weights"
        file.write_text(ALL_DOORS.format(host=sandbox.url, gateway=gateway, weights=weights, project=project))
        done = sidecar("functions", "register", "--json", "--config", file, HOOK="hook-word")
        assert done.returncode == 0, done.stderr
        native = str(json.loads(done.stdout)[0]["function"])
        files = [(picture.name, picture.read_bytes()) for picture in pictures]
        tasks = {name: person.task(files, labels=labels, name=name) for name in ("queue", "gateway")}

        def shapes(task):
            found = person.get(f"/api/tasks/{task}/annotations").json()["shapes"]
            return sorted(
                (s["frame"], s["label_id"] - first_label(person, task), *map(round, s["points"])) for s in found
            )

        with serve(file, HOOK="hook-word") as process:
            process.ready()
            assert {door["name"] for door in process.page.status()["doors"]} == {"queue", "gateway", "watch"}
            for door, function in (("queue", native), ("gateway", "yolox")):
                ended = person.lambda_request({"function": function, "task": tasks[door], "threshold": 0.3})
                assert ended["status"] == "finished", ended["exc_info"]
            # The rule looks once an hour; it is the webhook that wakes it.
            hook = {"target_url": f"{process.url}/webhook", "type": "project", "project_id": project,
                    "events": ["create:job", "update:job"], "secret": "hook-word"}  # fmt: skip
            assert person.post("/api/webhooks", json=hook).status_code == 201
            tasks["watch"] = person.task(files, project_id=project)
            process.until(lambda: any(run["status"] == "done" for run in process.page.status()["runs"]))
            found = {door: shapes(task) for door, task in tasks.items()}
            assert len(found["queue"]) >= 5
            assert found["gateway"] == found["watch"], "both see the original pictures"
            alike = Counter(shape[:2] for shape in found["queue"]) & Counter(shape[:2] for shape in found["watch"])
            assert alike.total() >= 0.8 * len(found["watch"]), "the queue's are CVAT's compressed copies"

            process.until(lambda: not process.page.status()["running"])  # people are answered a moment before
            (run,) = process.page.status()["runs"]
            counted = Counter()
            for family in text_string_to_metric_families(process.page.get("/metrics").text):
                for sample in family.samples:
                    if sample.labels.get("model") == "yolox":
                        labels = (sample.labels.get(key) for key in ("door", "kind", "outcome"))
                        counted[sample.name.removeprefix("cvat_sidecar_"), *labels] += sample.value
            assert counted["requests_total", "queue", "annotate_task", "done"] == 1
            assert counted["requests_total", "watch", "rule", "done"] == 1
            assert counted["requests_total", "gateway", "detect", "done"] == len(pictures)
            assert counted["frames_total", None, None, None] == 3 * len(pictures)
            assert counted["model_loads_total", None, None, None] == 1

            process.page.post(f"/runs/{run['id']}/undo", token=token_of(process.page, run["id"]))
            process.until(lambda: process.page.status()["runs"][0]["status"] == "undone")
            assert shapes(tasks["watch"]) == []
            assert shapes(tasks["queue"]) == found["queue"], "nothing else"

            process.signal(signal.SIGTERM)
            assert process.ended() == 0
        failures = [record for record in process.records() if record["level"] in ("error", "critical")]
        assert failures == []


def first_label(person, task):
    return min(person.labels(task).values())


def token_of(page, run):
    return re.search(r'name="token" value="([^"]+)"', page.get(f"/runs/{run}").text)[1]


def test_annotations_can_be_read_by_the_sdk_too(slow, person):
    """What the service stores is what the SDK reads."""
    function, task = slow.function(), slow.task(2)
    with serve(slow.file) as process:
        process.ready()
        request = ordered(person, function, task)
        person.until(request, lambda got: got.json()["status"] == "finished")
        (job,) = person.jobs(task)
        assert len(get_annotations(slow.session, job["id"])["shapes"]) == 2
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
