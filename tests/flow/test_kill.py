"""kill -9 at any point, then `runs resume`: the annotations equal those of an undisturbed run."""

import random
import signal
import subprocess
import sys
from collections import Counter

import pytest

from agent.cvat.annotations_api import get_annotations
from agent.cvat.work import find_work
from agent.ledger.content import content_key
from agent.ledger.ledger import Ledger
from agent.options import Target
from tests.support.material import make_image_task

FRAMES, JOBS = 60, 3
FUNCTION = '''
"""Forty boxes a frame that depend on its name, in about ten milliseconds."""
import time, zlib
import cvat_sdk.auto_annotation as cvataa

thing, scene = cvataa.label_spec("thing", 0, type="rectangle"), cvataa.label_spec("scene", 1, type="tag")
spec = cvataa.DetectionFunctionSpec(labels=[thing, scene])

def detect(context, image):
    time.sleep(0.01)
    seed = zlib.crc32(context.frame_name.encode())
    boxes = [(seed * (n + 3) % 200, seed * (n + 7) % 150) for n in range(40)]
    return [cvataa.rectangle(0, [x, y, x + 20, y + 20]) for x, y in boxes] + [cvataa.tag(1)]
'''


class Runs:
    """Annotates tasks of equal pictures by a process of its own, which can be killed."""

    def __init__(self, sandbox, session, folder):
        self.sandbox, self.session, self.ledger = sandbox, session, folder / "ledger.sqlite3"
        self.function = folder / "function.py"
        self.function.write_text(FUNCTION)

    def task(self):
        labels = [{"name": "thing"}, {"name": "scene", "type": "tag"}]
        return make_image_task(self.session, count=FRAMES, segment_size=FRAMES // JOBS, labels=labels, size=(240, 180))

    def spawn(self, *args):
        command = [sys.executable, "-m", "agent.cli", *map(str, args), "--ledger", str(self.ledger)]
        server = ["--server-host", self.sandbox.url, "--auth", "bot:secret"]
        return subprocess.Popen([*command, *server], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def annotate(self, task):
        return self.spawn("annotate", "--task", task, "--model", f"cvat:{self.function}")

    def stored(self, task):
        """The content of every annotation, with how often it is there."""
        (work,) = find_work(self.session, Target("task", task))
        names = {label.id: label.name for label in work.labels}
        found = Counter()
        for job in work.jobs:
            annotations = get_annotations(self.session, job.id)
            for kind in ("tags", "shapes"):
                for item in annotations[kind]:
                    found[names[item["label_id"]], content_key({**item, "label_id": 0})] += 1
        return found

    def run_of(self, task):
        """The task's run in the ledger, or None."""
        with Ledger(self.ledger) as ledger:
            return next((record for record in ledger.runs() if record.target == f"task {task}"), None)


@pytest.fixture
def runs(sandbox, session, tmp_path):
    return Runs(sandbox, session, tmp_path)


def kill_and_resume(runs, rng, undisturbed, task):
    process = runs.annotate(task)
    kills = 0
    while True:
        assert process.stderr.readline(), "the process said what it is about to do"
        try:
            # From the first request to well after the last one; uploads lag so that some kills hit them in flight.
            process.wait(timeout=rng.uniform(0.0, 2.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, said = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
        run = runs.run_of(task)
        if run is not None and run.status == "done":
            break
        process = runs.spawn("runs", "resume", run.id) if run else runs.annotate(task)
    assert runs.stored(task) == undisturbed
    return kills


@pytest.mark.timeout(900)
@pytest.mark.parametrize("points", [3, pytest.param(20, marks=pytest.mark.full)])
def test_killed_runs_end_like_undisturbed_ones(runs, points):
    rng = random.Random(points)
    task = runs.task()
    process = runs.annotate(task)
    _, said = process.communicate()
    assert process.returncode == 0, said
    undisturbed = runs.stored(task)
    assert undisturbed.total() == FRAMES * 41
    runs.sandbox.faults.add(method="PATCH", path=r"/api/jobs/\d+/annotations", delay=0.1, when="after", count=10**6)
    kills = 0
    while kills < points:
        kills += kill_and_resume(runs, rng, undisturbed, runs.task())
    with Ledger(runs.ledger) as ledger:
        assert {record.status for record in ledger.runs()} == {"done"}


def test_a_second_ctrl_c_does_not_wait_for_a_slow_model(runs):
    runs.function.write_text(FUNCTION.replace("time.sleep(0.01)", 'print("begun", flush=True); time.sleep(60)'))
    task = runs.task()
    process = runs.annotate(task)
    assert process.stdout.readline() == "begun\n"
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        said = process.stderr.readline()
        while "stop at once" not in said and "interrupted" not in said:
            said = process.stderr.readline()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert runs.run_of(task).status == "interrupted"


def test_ctrl_c_leaves_a_run_that_can_be_resumed(runs):
    task = runs.task()
    process = runs.annotate(task)
    assert process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "runs resume" in said
    run = runs.run_of(task).id
    before = runs.stored(task).total()
    assert before < FRAMES * 41
    process = runs.spawn("runs", "resume", run)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert runs.stored(task).total() == FRAMES * 41
