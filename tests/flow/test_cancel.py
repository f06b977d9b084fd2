"""Cancelled while the server keeps somebody waiting for a chunk: over within a second, whoever was asked and how."""

import signal
import threading
import time
from dataclasses import replace

import pytest

from agent.errors import RequestCancelled
from agent.ledger.ledger import Ledger
from agent.options import Options, Target
from agent.runs.link_runs import link_target
from agent.runs.linking import TrackOptions
from agent.runs.running import resume, start
from agent.runs.surroundings import Surroundings
from tests.flow.test_kill import Runs
from tests.flow.test_watch import new_task, patch
from tests.support.material import make_image_task
from tests.support.models import Finder
from tests.support.queue import FAST, serving
from tests.support.serving import serve, sidecar
from tests.support.tasks import Client
from tests.support.watching import boxes, rule, until, watching

SILENT = 30.0
"""Seconds that a chunk takes."""
SOON = 1.0
"""Within which a cancellation has to be over."""
FUNCTION = """
import cvat_sdk.auto_annotation as a

spec = a.DetectionFunctionSpec(labels=[a.label_spec("thing", 0, type="rectangle")])

def detect(context, image):
    return [a.rectangle(0, [1, 2, 30, 40])]
"""

CLASSIFIER = FUNCTION.replace("rectangle", "tag").replace("(0, [1, 2, 30, 40])", "(0)")


@pytest.fixture
def silence(sandbox):
    """Lets all chunks take long from now on; waits until somebody has asked for one."""
    faults = []

    class Silence:
        def fall(self):
            faults.append(sandbox.faults.add(path=r"/data$", delay=SILENT, count=None))

        def is_met(self):
            until(lambda: faults and faults[-1].struck)
            return time.monotonic()

    yield Silence()
    sandbox.faults.clear()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "function.py"
    path.write_text(FUNCTION)
    return f"cvat:{path}"


class TestQueue:
    @pytest.mark.parametrize("by", ["the page", "the person who asked", "the end of the service"])
    def test_a_request(self, sandbox, session, silence, by):
        task = make_image_task(session, count=8, labels=[{"name": "thing"}])
        beat = 0.1 if by == "the person who asked" else 60.0
        with serving(sandbox, {"finder": Finder()}, queue=replace(FAST, heartbeat_seconds=beat)) as served:
            silence.fall()
            rq_id = served.order(task)
            began = silence.is_met()
            if by == "the page":
                (record,) = served.shared.activity.running()
                served.shared.activity.cancel(record.id)
            elif by == "the person who asked":
                served.client.delete(f"/api/lambda/requests/{rq_id}")
            else:
                served.shared.stop.set()
            (record,) = served.finished()
            until(lambda: not served.shared.lanes.batch.taken)
            assert time.monotonic() - began < SOON
            assert record.outcome == "cancelled"
            said = {
                "the page": "cancelled on the status page",
                "the person who asked": "the server does not want it any more (cancelled, or given to another agent)",
                "the end of the service": "the service ends; another agent may take it",
            }
            assert record.error == said[by]


class TestRule:
    @pytest.mark.parametrize("by", ["the page", "the server", "the end of the service"])
    def test_a_run(self, sandbox, session, silence, by):
        me = session.request("GET", "/api/users/self").json()["id"]
        _, job = new_task(session, count=8)
        with watching(sandbox, rule(assignee="bot")) as watch:
            silence.fall()
            patch(session, job, assignee=me)
            for looker in watch.door._all():
                looker.look()
            began = silence.is_met()
            if by == "the page":
                watch.shared.activity.cancel(watch.shared.activity.running()[0].id)
            elif by == "the server":
                patch(session, job, assignee=None)
            else:
                watch.shared.stop.set()
            (record,) = watch.ended(1)
            until(lambda: not watch.shared.lanes.batch.taken)
            assert time.monotonic() - began < SOON
            assert record.outcome == "cancelled"
            (run,) = watch.runs()
            assert run.status == "interrupted"
            memory = "interrupted" if by == "the end of the service" else "cancelled"
            assert watch.remembered(job, memory).run == run.id

    def test_a_run_that_was_stopped_so_is_gone_on_with(self, sandbox, session, silence, tmp_path):
        _, job = new_task(session, count=8)
        silence.fall()
        with watching(sandbox, rule(), folder=tmp_path) as watch:
            silence.is_met()
            watch.shared.stop.set()
            watch.ended(1)
        sandbox.faults.clear()
        with watching(sandbox, rule(), folder=tmp_path) as watch:
            assert watch.ended(1)[0].outcome == "done"
            assert len(watch.runs()) == 1
        assert boxes(session, job) == dict.fromkeys(range(8), 1)


class TestServe:
    SERVICE = """
[cvat]
host = "{host}"
user = "bot"
password_env = "BOT_PASSWORD"
[service]
port = 0
state_dir = "state"
[queue]
heartbeat_seconds = 60
[[models]]
id = "things"
model = "{model}"
"""

    def test_the_second_signal(self, sandbox, session, silence, model, tmp_path):
        file = tmp_path / "service.toml"
        file.write_text(self.SERVICE.format(host=sandbox.url, model=model))
        done = sidecar("functions", "register", "--config", file)
        assert done.returncode == 0, done.stderr
        task = make_image_task(session, count=8, labels=[{"name": "thing"}])
        with serve(file) as process, Client(sandbox, "bot", "secret") as person:
            process.ready()
            silence.fall()
            (function,) = person.get("/api/lambda/functions").json()
            person.post("/api/lambda/requests", json={"function": str(function["id"]), "task": task})
            silence.is_met()
            process.signal(signal.SIGTERM)
            process.until(lambda: "stopping: what is held" in process.log)
            began = time.monotonic()
            process.signal(signal.SIGTERM)
            process.until(lambda: "the service ends; another agent may take it" in process.log)
            assert time.monotonic() - began < SOON
            assert process.ended() == 130
            assert time.monotonic() - began < 3 * SOON


class Interrupted:
    """What a run of the command line needs; `stop` is its first Ctrl-C."""

    def __init__(self, session, silence):
        self.stop = threading.Event()
        self.around = Surroundings(server=session.settings, stop=self.stop)
        self.silence = silence

    def ends(self, work):
        """The seconds from the stop, which comes while a chunk is waited for, to the end."""
        began = []

        def stop():
            began.append(self.silence.is_met())
            self.stop.set()

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises(RequestCancelled):
            work()
        ended = time.monotonic()
        thread.join()
        return ended - began[0]


class TestCommandLine:
    def test_annotate_and_resume(self, sandbox, session, silence, model):
        task = make_image_task(session, count=8, chunk_size=4, labels=[{"name": "thing"}])
        silence.fall()
        first = Interrupted(session, silence)
        assert first.ends(lambda: start(Target("task", task), Options(model=model), first.around)) < SOON
        with Ledger() as ledger:
            (record,) = ledger.runs()
        assert record.status == "interrupted"
        again = Interrupted(session, silence)
        assert again.ends(lambda: resume(record.id, again.around)) < SOON
        sandbox.faults.clear()
        assert resume(record.id, Surroundings(server=session.settings)).annotations.total() == 8

    def test_enrich(self, sandbox, session, silence, model, tmp_path):
        from agent.compose.named import opener_for
        from agent.enrich.places import EnrichOptions
        from agent.enrich.runs import enrich_target

        task = make_image_task(session, count=8, labels=[{"name": "thing"}])
        start(Target("task", task), Options(model=model), Surroundings(server=session.settings))
        (tmp_path / "classifier.py").write_text(CLASSIFIER)
        silence.fall()
        run, options = Interrupted(session, silence), EnrichOptions(f"cvat:{tmp_path}/classifier.py", "label")
        more = {"device": "cpu", "params": {}, "opener": opener_for(())}
        assert run.ends(lambda: enrich_target(Target("task", task), options, run.around, **more)) < SOON

    def test_track(self, sandbox, session, silence, model):
        from agent.models.host import Host
        from agent.models.loading import LoadedModel, ModelReference
        from agent.runs.surroundings import OwnModel

        task = make_image_task(session, count=8, labels=[{"name": "thing"}])
        start(Target("task", task), Options(model=model), Surroundings(server=session.settings))
        silence.fall()
        run = Interrupted(session, silence)
        with Host(object()) as host:
            looks = OwnModel(LoadedModel(ModelReference("fake", "looks"), object(), "reid", version="1"), host)
            target = Target("task", task)
            assert run.ends(lambda: link_target(target, TrackOptions(), run.around, reidentifier=looks)) < SOON

    @pytest.mark.parametrize("signals", [1, 2])
    def test_ctrl_c(self, sandbox, session, silence, tmp_path, signals):
        runs = Runs(sandbox, session, tmp_path)
        task = runs.task()
        silence.fall()
        process = runs.annotate(task)
        silence.is_met()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        if signals == 2:
            while "stop at once" not in process.stderr.readline():
                pass
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
        while "interrupted" not in (said := process.stderr.readline()):
            assert said, "it ended without a word"
        assert time.monotonic() - began < SOON
        assert process.wait(10) == 130
        assert time.monotonic() - began < 3 * SOON
        process.communicate()
        assert runs.run_of(task).status == "interrupted"

    def test_the_second_ctrl_c_while_jobs_are_looked_at(self, sandbox, session, tmp_path):
        runs = Runs(sandbox, session, tmp_path)
        task = runs.task()
        fault = sandbox.faults.add(path=r"/data/meta$", delay=SILENT, count=None)
        process = runs.annotate(task)
        until(lambda: fault.struck)
        process.send_signal(signal.SIGINT)
        while "stop at once" not in process.stderr.readline():
            pass
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - began < 3 * SOON
        process.communicate()
        sandbox.faults.clear()
        assert runs.run_of(task) is None

    def test_the_second_ctrl_c_does_not_wait_for_the_batch_at_hand(self, sandbox, session, tmp_path):
        runs = Runs(sandbox, session, tmp_path)
        runs.function.write_text(
            FUNCTION.replace("    return", '    print("begun", flush=True); time.sleep(60)\n    return')
        )
        runs.function.write_text("import time\n" + runs.function.read_text())
        process = runs.annotate(runs.task())
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        while "stop at once" not in process.stderr.readline():
            pass
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        while "interrupted" not in (said := process.stderr.readline()):
            assert said, "it ended without a word"
        assert time.monotonic() - began < SOON
        assert process.wait(10) == 130
        process.communicate()
