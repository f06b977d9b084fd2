"""What rules remember, and when a job is due again."""

from dataclasses import replace

import pytest

from agent.doors.watch.attending import is_due
from agent.ledger.file import HeldElsewhere
from agent.ledger.rules import RuleJob, RuleMemory
from tests.unit.watch.test_rules import JOB

ROW = RuleJob("r", 7, "k1", "1", "running", begun=100.0, updated=100.0)


@pytest.fixture
def memory(tmp_path):
    with RuleMemory(tmp_path / "ledger.sqlite3", "http://a") as memory:
        yield memory


def test_a_row_is_read_back_as_it_was_written(memory):
    row = replace(ROW, run="abc", tries=2, next_try=5.5, job_updated="x", marker="m", owed="new", issue=3, error="e")
    assert memory.begin(row)
    assert memory.of_rule("r") == [row]
    assert memory.of_job("r", 7) == {"k1": row}
    memory.change(row, status="done", owed=None)
    assert memory.of_rule("r") == [replace(row, status="done", owed=None)]
    memory.forget(row)
    assert memory.of_rule("r") == []


def test_servers_and_rules_are_kept_apart(memory, tmp_path):
    memory.begin(ROW)
    with RuleMemory(tmp_path / "ledger.sqlite3", "http://b") as other:
        assert other.of_rule("r") == []
        assert other.begin(ROW)
        with other.hold_job(7), memory.hold_job(7):
            pass
    assert memory.of_rule("s") == []
    assert memory.of_job("r", 8) == {}


def test_other_work_takes_the_place_of_what_was_left(memory):
    for key, status in (("k1", "interrupted"), ("k2", "done"), ("k3", "failed")):
        memory.write(replace(ROW, key=key, status=status, owed="new"))
    memory.begin(replace(ROW, key="k4"))
    found = {key: (row.status, row.owed) for key, row in memory.of_job("r", 7).items()}
    assert found == {
        "k1": ("superseded", None), "k2": ("done", "new"), "k3": ("superseded", None), "k4": ("running", None),
    }  # fmt: skip


def test_so_many_an_hour(memory):
    for job in range(3):
        assert memory.begin(replace(ROW, job=job, begun=100.0 + job), limit=3)
    assert not memory.begin(replace(ROW, job=3, begun=200.0), limit=3)
    assert memory.begin(replace(ROW, job=2, begun=200.0), limit=3), "it is one of them already"
    assert memory.begin(replace(ROW, job=3, begun=3701.5), limit=3)
    assert memory.begun_since("r", 150.0) == 2


def test_a_job_is_held_by_one(memory, tmp_path):
    with RuleMemory(tmp_path / "ledger.sqlite3", "http://a") as other:
        with memory.hold_job(7), pytest.raises(HeldElsewhere, match="job 7"), other.hold_job(7):
            pass
        with memory.hold_job(7), other.hold_job(8):
            pass


@pytest.mark.parametrize(
    ("row", "now", "due"),
    [
        (None, 0, True),
        ({"status": "done"}, 1e9, False),
        ({"status": "superseded"}, 0, True),
        ({"status": "running"}, 0, True),
        ({"status": "interrupted", "next_try": 500.0}, 499, False),
        ({"status": "interrupted", "next_try": 500.0}, 500, True),
        ({"status": "failed", "next_try": 500.0, "job_updated": JOB.updated}, 499, False),
        ({"status": "failed", "next_try": 500.0, "job_updated": JOB.updated}, 500, True),
        ({"status": "failed", "next_try": 500.0, "job_updated": "before"}, 129, False),
        ({"status": "failed", "next_try": 500.0, "job_updated": "before"}, 130, True),
        ({"status": "cancelled", "job_updated": JOB.updated}, 1e9, False),
        ({"status": "cancelled", "job_updated": "before"}, 0, True),
        ({"status": "cancelled", "job_updated": None}, 0, True),
    ],
)
def test_when_a_job_is_due(row, now, due):
    assert is_due(None if row is None else replace(ROW, **row), JOB, now) is due
