"""kill -9 in the middle of a rule's run: after a restart the annotations equal those of an undisturbed run."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.ledger.ledger import Ledger
from tests.flow.test_kill import FUNCTION, JOBS, Runs
from tests.flow.test_watch import job_of, jobs_of
from tests.support.watching import until

ROOT = Path(__file__).resolve().parents[2]


class Doors:
    """Watch doors in processes, which can be killed."""

    def __init__(self, sandbox, session, folder):
        self.sandbox, self.session, self.folder = sandbox, session, folder
        self.function = folder / "function.py"
        self.function.write_text(FUNCTION)
        self.runs = Runs(sandbox, session, folder)

    def spawn(self):
        command = [sys.executable, "-m", "tests.support.watch_process", self.sandbox.url, self.folder, self.function]
        process = subprocess.Popen(
            [*map(str, command)], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout.readline() == "open\n", process.communicate()[1]
        return process

    def finish(self, process, jobs):
        """Waits until all is done, and ends the process in peace."""
        until(lambda: {job_of(self.session, job)["state"] for job in jobs} == {"completed"})
        _, said = process.communicate("", timeout=30)
        assert process.returncode == 0, said


@pytest.fixture
def doors(sandbox, session, tmp_path):
    return Doors(sandbox, session, tmp_path)


def test_killed_doors_end_like_undisturbed_ones(doors, session, sandbox):
    rng = random.Random(5)
    task = doors.runs.task()
    doors.finish(doors.spawn(), jobs_of(session, task))
    undisturbed = doors.runs.stored(task)
    assert undisturbed.total() == 60 * 41

    sandbox.faults.add(method="PATCH", path=r"/api/jobs/\d+/annotations", delay=0.1, when="after", count=10**6)
    task = doors.runs.task()
    jobs = jobs_of(session, task)
    for _ in range(3):
        process = doors.spawn()
        process.stdout.readline() if rng.random() < 0.3 else None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=rng.uniform(0.3, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    doors.finish(doors.spawn(), jobs)
    assert doors.runs.stored(task) == undisturbed
    assert [job_of(session, job)["issues"]["count"] for job in jobs] == [0] * JOBS
    with Ledger(doors.folder / "ledger.sqlite3") as ledger:
        done = [record for record in ledger.runs() if record.status == "done"]
    assert len(done) == 2 * JOBS


def test_two_processes_on_one_ledger_do_nothing_twice(doors, session):
    task = doors.runs.task()
    processes = [doors.spawn(), doors.spawn()]
    for process in processes:
        doors.finish(process, jobs_of(session, task))
    assert doors.runs.stored(task).total() == 60 * 41
