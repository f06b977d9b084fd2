"""What rules remember, and when a job is due again."""

import sqlite3
from contextlib import closing
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
    assert memory.of_job("r", 7) == {"k1": row}
    memory.change(row, status="done", owed=None)
    assert memory.row("r", 7, "k1") == replace(row, status="done", owed=None)
    assert memory.row("r", 7, "k2") is None
    memory.forget(row)
    assert memory.of_job("r", 7) == {}


def test_servers_and_rules_are_kept_apart(memory, tmp_path):
    memory.begin(ROW)
    with RuleMemory(tmp_path / "ledger.sqlite3", "http://b") as other:
        assert other.of_job("r", 7) == {}
        assert other.left("r", 1e9) == set()
        assert other.begin(ROW)
        with other.hold_job(7), memory.hold_job(7):
            pass
    assert memory.of_job("s", 7) == {}
    assert memory.of_job("r", 8) == {}
    assert memory.left("s", 1e9) == set()


def test_what_is_left_is_what_is_begun_or_owed(memory):
    for job, status in enumerate(("claiming", "taking", "running", "interrupted", "failed")):
        memory.write(replace(ROW, job=job, status=status))
        memory.write(replace(ROW, job=job + 10, status=status, next_try=500.5))
    for job, status in enumerate(("done", "cancelled", "superseded"), 20):
        memory.write(replace(ROW, job=job, status=status))
    memory.write(replace(ROW, job=30, status="done", owed="new", next_try=900.0))
    assert memory.left("r", 500.0) == {*range(5), 30}
    assert memory.left("r", 500.5) == {*range(5), *range(10, 15), 30}


def test_what_nobody_has_touched_is_gone_through_in_turns(memory):
    for rule in ("r", "s"):
        for job, updated in ((1, 50.0), (2, 100.0), (3, 50.0)):
            memory.write(replace(ROW, rule=rule, job=job, updated=updated))
    memory.write(replace(ROW, job=2, key="k2", updated=60.0))
    assert memory.untouched(100.0, ("", -1), 2) == [("r", 1), ("r", 2)]
    assert memory.untouched(100.0, ("r", 2), 9) == [("r", 3), ("s", 1), ("s", 3)]
    assert memory.forget_untouched("r", 2, 100.0)
    assert list(memory.of_job("r", 2)) == ["k1"], "what was touched since stays"
    assert not memory.forget_untouched("r", 2, 100.0)


def test_nothing_reads_all_that_is_known(memory, tmp_path):
    """As SQLite itself says it, of each statement: by an index on more than the rule, or by what it is to give."""
    said = []
    memory._db.set_trace_callback(said.append)
    memory.begin(ROW, limit=5)
    memory.change(ROW, status="done")
    memory.left("r", 500.0)
    memory.row("r", 7, "k1")
    memory.of_job("r", 7)
    memory.begun_since("r", 50.0)
    memory.untouched(500.0, ("r", 3), 9)
    memory.forget_untouched("r", 7, 50.0)
    memory._db.set_trace_callback(None)
    asked = [text for text in said if "rule_jobs" in text and not text.startswith("INSERT")]
    assert len(asked) == 9
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as db:
        plans = [row[3] for text in asked for row in db.execute(f"EXPLAIN QUERY PLAN {text}")]
    searches = [plan for plan in plans if "rule_jobs" in plan]
    assert len(searches) == 10, "one of them asks twice"
    narrow = ("rule=? AND job=?", "rule=? AND status=?", "rule=? AND begun>?", "(rule,job)>(?,?)", "rule_jobs_that_owe")
    assert [plan for plan in searches if not any(part in plan for part in narrow)] == []


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
        ({"status": "claiming"}, 0, True),
        ({"status": "taking"}, 179, False),
        ({"status": "taking"}, 180, True),
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
