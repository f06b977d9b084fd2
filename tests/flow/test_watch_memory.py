"""What rules remember for years: each job that they have annotated, as long as there is the job."""

import pytest

from agent.settings.tables import ServiceSettings
from tests.flow.test_watch import LABELS, jobs_of, new_task
from tests.support.material import make_image_task
from tests.support.watching import Clock, boxes, rule, watching

DAY = 86400
FIVE_DAYS = ServiceSettings(keep_runs_days=5)


def delete(session, task):
    session.request("DELETE", f"/api/tasks/{task}")


def test_jobs_that_are_gone_are_forgotten_and_no_others(sandbox, session, tmp_path, caplog):
    caplog.set_level("INFO")
    task, first = new_task(session)
    stay = jobs_of(session, make_image_task(session, count=4, segment_size=2, labels=LABELS))
    clock = Clock()
    with watching(sandbox, rule(), folder=tmp_path, timing=clock.timing, service=FIVE_DAYS) as watch:
        watch.ended(3)
        watch.settle()
        delete(session, task)
        clock.ahead = 4 * DAY
        watch.look()
        assert set(watch.memory()) == {first, *stay}, "an accident of yesterday may still be put right at the server"
        clock.ahead = 6 * DAY
        watch.look()
        assert set(watch.memory()) == set(stay)
        asked = len(sandbox.requests)
        watch.look()
        assert len(sandbox.requests) == asked + 1, "the next turn is an hour later"
        assert watch.count == 3
    assert boxes(session, *stay) == dict.fromkeys(range(4), 1)
    said = [r.getMessage() for r in caplog.records if "are gone" in r.getMessage()]
    assert said == ["1 jobs are gone from the server: what rules remembered of them is forgotten"]


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 403},
        {"status": 404, "headers": {"Content-Type": "text/html"}},
        {"status": 400},
        {"status": 503},
    ],
    ids=["hidden", "a proxy's page", "refused", "away"],
)
def test_a_job_that_may_still_be_there_is_remembered(sandbox, session, tmp_path, answer):
    task, job = new_task(session)
    clock = Clock()
    with watching(sandbox, rule(), folder=tmp_path, timing=clock.timing, service=FIVE_DAYS) as watch:
        watch.ended(1)
        watch.settle()
        delete(session, task)
        fault = sandbox.faults.add(path=rf"/api/jobs/{job}$", count=None, **answer)
        clock.ahead = 6 * DAY
        watch.look()
        assert fault.struck
        assert watch.memory()[job].status == "done"
        sandbox.faults.clear()
        clock.ahead += 3601
        watch.look()
        assert watch.memory() == {}


def test_all_is_remembered_where_runs_are_kept_for_ever(sandbox, session, tmp_path):
    task, job = new_task(session)
    clock = Clock()
    kept = ServiceSettings(keep_runs_days=0)
    with watching(sandbox, rule(), folder=tmp_path, timing=clock.timing, service=kept) as watch:
        watch.ended(1)
        watch.settle()
        delete(session, task)
        clock.ahead = 9999 * DAY
        watch.look()
        assert watch.memory()[job].status == "done"


@pytest.mark.parametrize("known", [False, True], ids=["from the start", "in the middle"])
def test_an_outage_is_two_lines_of_the_log(sandbox, session, caplog, known):
    new_task(session)
    clock = Clock()
    if not known:
        sandbox.faults.add(path="^/api/", status=502, count=None)
    with watching(sandbox, rule("one"), rule("two"), timing=clock.timing) as watch:
        watch.settle()
        if known:
            watch.ended(2)
            sandbox.faults.add(path="^/api/", status=502, count=None)
        caplog.set_level("INFO")
        caplog.clear()
        for _ in range(4):
            clock.ahead += 400
            watch.look()
        assert watch.door.health().text.startswith(("cannot use the server", "waiting for the server"))
        sandbox.faults.clear()
        clock.ahead += 400
        watch.look()
        watch.ended(2)
    said = [
        r.getMessage()
        for r in caplog.records
        if r.levelname != "DEBUG" and r.name.startswith(("agent.doors", "agent.cvat"))
        if " begins run " not in r.getMessage()
    ]
    if known:
        assert said[0].startswith("watch: the server is away: ")
    assert said[known:] == ["watch: the server answers again" if known else "watch: the server is reached"]
