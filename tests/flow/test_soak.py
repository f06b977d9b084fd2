"""The soak: requests of all kinds through all doors, one of twenty calls goes wrong, and kill -9 now and then.

    pytest tests/flow/test_soak.py -m full -s

Every request is completed, fails with a reason, or is taken over by the next process; nothing is stored twice.
"""

import json
import re
import time
from collections import Counter

import pytest

from agent.sandbox.queue import OVER
from tests.support.queue import until
from tests.support.soak import WATCHED, Sizes, add_faults, soaked, unfinished
from tests.support.soak_load import Load

MIB = 2**20


def _running(sandbox, category):
    return bool(sandbox.state.queued.where(status="running", category=category))


def _jobs_at_work(sandbox):
    tasks = {task.id for task in sandbox.state.tasks.all() if task.name.startswith(WATCHED)}
    return any(job.task_id in tasks and job.state == "in progress" for job in sandbox.state.jobs.all())


MOMENTS = (
    lambda sandbox: _running(sandbox, "batch"),
    lambda sandbox: _running(sandbox, "interactive"),
    _jobs_at_work,
    lambda sandbox: any(r.status == "started" and not r.queued_id for r in sandbox.state.lambda_requests.all()),
    lambda sandbox: _running(sandbox, "batch") and _running(sandbox, "interactive"),
)
"""What is under way at a kill, by turns."""


def kill_at(load, service, share, moment):
    until(lambda: load.done >= share * load.requests, 3600)
    until(lambda: moment(service.sandbox), 60)
    service.kill()


def check_ends(load, service):
    """Every request ended, in a way that may be told."""
    sandbox = service.sandbox
    assert load.tally.wrong == []
    until(lambda: not unfinished(sandbox), 30)
    until(lambda: not service.running(), 30)
    load.check_stored()
    assert len(sandbox.state.issues) == 0, "notes of claims that broke off stayed on the jobs"
    assert re.findall("^.* ERROR .*$", service.log.read_text(), re.MULTILINE) == []
    assert all(ending.reason for ending in load.tally.endings if ending.outcome in ("failed", "refused"))
    alone = [ending for ending in load.tally.failed() if not service.was_away(ending.began, ending.ended)]
    # A server that fails three times in a row may cost a click; more must not get lost.
    assert len(alone) <= max(1, load.requests // 1000), alone
    assert not [ending for ending in load.tally.failed() if "Internal error" in ending.reason]


def check_taken_over(load, service):
    """How much of what was held at the kills was taken over; the rest was being handed in, or nobody wants it."""
    queued = service.sandbox.state.queued
    left = [held.request for held in service.held if not held.taken_over and queued.get(held.request.id) is not None]
    assert [request for request in left if request.status not in OVER] == []
    return sum(held.taken_over for held in service.held)


def report(load, service, seconds, faults, **more):
    """The figures, for whoever looks at the output."""
    kinds = {f"{kind}: {outcome}": number for (kind, outcome), number in sorted(load.tally.counts().items())}
    figures = {
        "requests": load.done,
        "seconds": round(seconds),
        "kills": len(service.away),
        "away_seconds": [round(back - gone, 1) for gone, back in service.away],
        "held_at_kills": len(service.held),
        "faults": faults,
        "outcomes": dict(Counter(ending.outcome for ending in load.tally.endings)),
        "kinds": kinds,
        "reasons": dict(Counter(ending.reason[-80:] for ending in load.tally.failed()).most_common(8)),
        **more,
    }
    print(json.dumps(figures, indent=2))


def test_mixed_requests_with_faults_and_kills(tmp_path):
    with (
        soaked(tmp_path) as (sandbox, service),
        Load(sandbox, service, tmp_path, requests=300, watched=4) as load,
    ):
        faults = add_faults(sandbox)
        began = time.monotonic()
        with load.at_work(people=8):
            kill_at(load, service, 0.3, MOMENTS[4])
            kill_at(load, service, 0.6, MOMENTS[2])
        sandbox.faults.clear()
        check_ends(load, service)
        taken_over = check_taken_over(load, service)
        report(load, service, time.monotonic() - began, sum(fault.struck for fault in faults), taken_over=taken_over)
        assert taken_over
        assert service.stop() == 0


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_ten_thousand_mixed_requests_and_a_flat_memory(tmp_path):
    with (
        soaked(tmp_path) as (sandbox, service),
        Load(sandbox, service, tmp_path, requests=10_000, watched=100) as load,
    ):
        faults = add_faults(sandbox)
        began = time.monotonic()
        with load.at_work(people=10):
            for number, moment in enumerate(MOMENTS):
                kill_at(load, service, 0.07 * (number + 1), moment)
            sizes = Sizes(service)
            with sizes:
                until(lambda: load.done >= load.requests, 3600)
        sandbox.faults.clear()
        second, last = sizes.tenth(1), sizes.tenth(9)
        told = {name: f"{size.resident / MIB:.1f} MiB, {size.files} files, {size.threads} threads"
                for name, size in (("second_tenth", second), ("last_tenth", last))}  # fmt: skip
        taken_over = check_taken_over(load, service)
        struck = sum(fault.struck for fault in faults)
        report(load, service, time.monotonic() - began, struck, taken_over=taken_over, **told)
        check_ends(load, service)
        assert taken_over >= len(MOMENTS) - 2
        assert last.resident <= 1.05 * second.resident
        assert last.files <= second.files + 10
        assert last.threads <= second.threads + 10
        assert service.stop() == 0
