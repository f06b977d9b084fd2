"""Several sidecars with the same rules, on one ledger and on ledgers of their own: nothing is annotated twice."""

import threading
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from agent.cvat.issues import comments_on, leave_issue
from agent.cvat.jobs import get_job, set_state
from agent.cvat.session import open_session
from agent.doors.watch.claims import Claims
from agent.errors import RequestCancelled, ServerUnavailable
from agent.ledger.rules import RuleMemory
from agent.settings.server import ServerSettings
from tests.flow.test_watch import LABELS, job_of, jobs_of, new_task, patch
from tests.support.material import make_image_task
from tests.support.watching import Clock, Models, boxes, rule, until, watching

STATES = {"state_when_started": "in progress", "state_when_done": "completed"}


def notes(sandbox):
    """How many claims have been begun."""
    return [(request.method, request.path) for request in sandbox.requests].count(("POST", "/api/issues"))


def both(sandbox, stack, folders, wish, **more):
    """A door on each of these ledgers."""
    return [stack.enter_context(watching(sandbox, wish, folder=folder, **more)) for folder in folders]


@pytest.mark.parametrize("shared", [True, False], ids=["one ledger", "two ledgers"])
def test_two_sidecars_share_the_work(sandbox, session, tmp_path, shared):
    jobs = jobs_of(session, make_image_task(session, count=12, segment_size=2, labels=LABELS))
    folders = [tmp_path / "a", tmp_path / ("a" if shared else "b")]
    # A state that is long on its way is what two that only look at it would both find unchanged.
    sandbox.faults.add(method="PATCH", path=r"/api/jobs/\d+$", delay=0.2, count=None)
    # With one ledger, the job's state has nothing to tell.
    wish = rule(every_seconds=1.0, **({} if shared else STATES))
    with ExitStack() as stack:
        doors = both(sandbox, stack, folders, wish)
        until(lambda: sum(door.count for door in doors) >= len(jobs))
        for door in doors:
            door.settle()
        assert all(door.count for door in doors), "both have had some"
        assert sum(door.count for door in doors) == len(jobs)
    assert boxes(session, *jobs) == dict.fromkeys(range(12), 1)
    if not shared:
        assert {job_of(session, job)["state"] for job in jobs} == {"completed"}
        assert [job_of(session, job)["issues"]["count"] for job in jobs] == [0] * len(jobs)


def test_many_claims_of_one_job_at_once_have_one_winner(sandbox, session):
    jobs = jobs_of(session, make_image_task(session, count=4, segment_size=1, labels=LABELS))
    wish = ("new",)
    for job in jobs:
        row, won, lock = get_job(session, job), [], threading.Barrier(4)

        def claim(number, row=row, won=won, lock=lock):
            claims = Claims(session, threading.Event(), settle=0.5)
            lock.wait()
            if claims.take(row, f"{number:016x}", "in progress", lambda j: None if j.state in wish else "taken"):
                won.append(number)

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert job_of(session, job)["state"] == "in progress"
        assert job_of(session, job)["issues"]["count"] == 0


class TestClaims:
    @pytest.fixture
    def job(self, session):
        return get_job(session, new_task(session)[1])

    def claims(self, session, settle=0.2, **more):
        return Claims(session, threading.Event(), settle=settle, **more)

    def take(self, claims, job, unfit=lambda job: None):
        return claims.take(job, "a" * 16, "in progress", unfit)

    def mark(self, session, job, marker="b" * 16):
        return leave_issue(session, job.id, 0, f"somebody [cvat-sidecar claim {marker}]")

    def test_who_came_first_has_it(self, session, job):
        self.mark(session, job)
        assert not self.take(self.claims(session), job)
        assert get_job(session, job.id).state == "new"
        assert len(comments_on(session, job.id)) == 1, "ours is gone, theirs stays"

    def test_an_old_note_is_of_somebody_who_died(self, sandbox, session, job):
        self.mark(session, job)
        for comment in sandbox.state.comments.all():
            comment.created_date = comment.created_date.replace("20", "19", 1)
        assert self.take(self.claims(session), job)

    def test_what_people_write_is_no_claim(self, session, job):
        leave_issue(session, job.id, 0, "cvat-sidecar claim? [cvat-sidecar claim me]")
        assert self.take(self.claims(session), job)

    def test_a_job_that_has_changed_meanwhile_is_not_to_be_had(self, session, job):
        set_state(session, job.id, "completed")
        assert not self.take(self.claims(session), job, lambda job: None if job.state == "new" else "taken")
        assert get_job(session, job.id).state == "completed"
        assert comments_on(session, job.id) == []

    def test_a_slow_server_is_not_claimed_from(self, session, job):
        times = iter([0.0, 3.0])
        assert not self.take(self.claims(session, settle=2.0, clock=lambda: next(times)), job)
        assert comments_on(session, job.id) == []

    def test_a_claim_that_takes_too_long_is_given_up(self, session, job):
        times = iter([0.0, 0.0, 21.0])
        assert not self.take(self.claims(session, clock=lambda: next(times)), job)
        assert get_job(session, job.id).state == "new"

    def test_whoever_is_stopped_leaves_nothing(self, session, job):
        stop = threading.Event()
        stop.set()
        with pytest.raises(RequestCancelled):
            self.take(Claims(session, stop, settle=0.05), job)
        assert comments_on(session, job.id) == []

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_claim_that_breaks_off_tells_later_whose_the_job_is(self, sandbox, session, job, when):
        with open_session(replace(session.settings, retries=0)) as hasty:
            hasty.log_in()
            claims, steps = self.claims(hasty, settle=0.3), []
            sandbox.faults.add(method="PATCH", path=rf"/api/jobs/{job.id}$", status=503, when=when)
            with pytest.raises(ServerUnavailable):
                claims.take(job, "a" * 16, "in progress", lambda job: None, steps.append)
            assert steps == ["taking"]
            now = get_job(session, job.id)
            assert now.state == ("in progress" if when == "after" else "new")
            assert claims.is_ours(now, "a" * 16)
            assert not claims.is_ours(now, "b" * 16)
            claims.clear(job.id, "a" * 16)
            assert comments_on(session, job.id) == []
            assert not claims.is_ours(now, "a" * 16)

    def test_an_old_note_says_nothing_about_a_later_change(self, sandbox, session, job):
        self.mark(session, job, "a" * 16)
        for comment in sandbox.state.comments.all():
            comment.created_date = comment.created_date.replace("20", "19", 1)
        assert not self.claims(session).is_ours(job, "a" * 16)

    def test_a_note_that_could_not_be_taken_away_is_swept_up_later(self, sandbox, session, job):
        with open_session(replace(session.settings, retries=0)) as hasty:
            hasty.log_in()
            claims = self.claims(hasty, settle=0.3)
            sandbox.faults.add(method="DELETE", path="/api/issues", status=503, count=2)
            assert self.take(claims, job)
            claims.sweep()
            assert len(comments_on(session, job.id)) == 1
            claims.sweep()
            assert comments_on(session, job.id) == []
            asked = len(sandbox.requests)
            claims.sweep()
            assert len(sandbox.requests) == asked


def test_a_note_whose_sending_broke_off_is_no_right_to_what_another_has_claimed(sandbox, session, tmp_path):
    """Our note is there although nobody said so, and alone by now; but we had never been first."""
    _, job = new_task(session)
    clock = Clock()
    settings = ServerSettings(user="bot", password="secret", retries=0)
    sandbox.faults.add(method="POST", path="/api/issues", status=503, when="after")
    with watching(sandbox, rule(**STATES), server=settings, timing=clock.timing, folder=tmp_path) as watch:
        watch.look()
        assert (watch.memory()[job].status, job_of(session, job)["issues"]["count"]) == ("claiming", 1)
        patch(session, job, state="in progress")  # by the one that was first
        clock.ahead = 30
        watch.look()
        assert (watch.count, watch.memory()[job].status) == (0, "cancelled")
    assert job_of(session, job)["issues"]["count"] == 0
    assert boxes(session, job) == {}


def test_a_door_whose_claim_broke_off_goes_on_with_it(sandbox, session, tmp_path):
    """The server did not tell that the job's state was set; the note on the job does."""
    _, job = new_task(session)
    clock = Clock()
    settings = ServerSettings(user="bot", password="secret", retries=0)
    sandbox.faults.add(method="PATCH", path=rf"/api/jobs/{job}$", status=503, when="after")
    with watching(sandbox, rule(**STATES), server=settings, timing=clock.timing, folder=tmp_path) as watch:
        watch.look()
        assert (watch.count, watch.memory()[job].status) == (0, "taking")
        assert job_of(session, job)["state"] == "in progress"
        clock.ahead = 30
        watch.look()
        assert [record.outcome for record in watch.ended(1)] == ["done"]
    assert job_of(session, job)["state"] == "completed"
    assert job_of(session, job)["issues"]["count"] == 0


def test_a_state_that_arrives_long_after_it_was_given_up_finds_us_there(sandbox, session, tmp_path):
    """The call breaks off, and reaches the server when we have looked at the job again."""
    _, job = new_task(session)
    clock = Clock()
    settings = ServerSettings(user="bot", password="secret", retries=0)
    sandbox.faults.add(method="PATCH", path=rf"/api/jobs/{job}$", cut=True)
    with watching(sandbox, rule(**STATES), server=settings, timing=clock.timing, settle=1.0, folder=tmp_path) as watch:
        watch.look()
        assert (watch.memory()[job].status, job_of(session, job)["state"]) == ("taking", "new")
        clock.ahead = 30
        for looker in watch.door._all():
            looker.look()
        # Where a second claim is begun, the state comes in the middle of it.
        until(lambda: watch._is_still() or notes(sandbox) > 1)
        patch(session, job, state="in progress")
        watch.settle()
        clock.ahead = 60
        watch.look()
        assert [record.outcome for record in watch.ended(1)] == ["done"]
    assert job_of(session, job)["state"] == "completed"
    assert job_of(session, job)["issues"]["count"] == 0


def test_a_state_that_never_arrives_is_set_by_another_claim(sandbox, session, tmp_path):
    _, job = new_task(session)
    clock = Clock()
    settings = ServerSettings(user="bot", password="secret", retries=0)
    sandbox.faults.add(method="PATCH", path=rf"/api/jobs/{job}$", cut=True)
    with watching(sandbox, rule(**STATES), server=settings, timing=clock.timing, folder=tmp_path) as watch:
        watch.look()
        for clock.ahead in (20, 40, 60):
            watch.look()
            assert (watch.memory()[job].status, job_of(session, job)["state"]) == ("taking", "new")
        clock.ahead = 81
        watch.look()
        assert [record.outcome for record in watch.ended(1)] == ["done"]
    assert job_of(session, job)["state"] == "completed"
    assert job_of(session, job)["issues"]["count"] == 0


def test_a_job_whose_claim_broke_off_stays_ours_while_the_rule_has_begun_enough(sandbox, session, tmp_path):
    _, job = new_task(session)
    clock = Clock()
    settings = ServerSettings(user="bot", password="secret", retries=0)
    sandbox.faults.add(method="PATCH", path=rf"/api/jobs/{job}$", status=503, when="after")
    wish = rule(**STATES, jobs_per_hour=1)
    with watching(sandbox, wish, server=settings, timing=clock.timing, folder=tmp_path) as watch:
        watch.look()
        taking = watch.memory()[job]
        assert taking.status == "taking"
        with RuleMemory(watch.shared.ledger, watch.shared.session.url) as memory:
            memory.write(replace(taking, job=999, status="done", marker=None, begun=taking.begun + 20))
        for clock.ahead in (30, 60):
            watch.look()
            assert (watch.count, watch.memory()[job].status) == (0, "running")
        clock.ahead = 3700
        watch.look()
        assert [record.outcome for record in watch.ended(1)] == ["done"]
    assert job_of(session, job)["state"] == "completed"


def test_a_job_that_another_may_have_claimed_is_left_and_told(sandbox, session, tmp_path, caplog):
    _, job = new_task(session)
    clock = Clock()
    settings = ServerSettings(user="bot", password="secret", retries=0)
    sandbox.faults.add(method="PATCH", path=rf"/api/jobs/{job}$", status=503)
    with watching(sandbox, rule(**STATES), server=settings, timing=clock.timing, folder=tmp_path) as watch:
        watch.look()
        assert watch.memory()[job].status == "taking"
        for comment in sandbox.state.comments.all():
            sandbox.state.issues.remove(comment.issue_id)
            sandbox.state.comments.remove(comment.id)
        patch(session, job, state="in progress")  # by another sidecar
        clock.ahead = 30
        watch.look()
        assert (watch.count, watch.memory()[job].status) == (0, "cancelled")
    assert boxes(session, job) == {}


def test_a_claim_that_is_lost_is_forgotten(sandbox, session, tmp_path):
    _, job = new_task(session)
    leave_issue(session, job, 0, f"[cvat-sidecar claim {'b' * 16}]")
    models = Models()
    with watching(sandbox, rule(**STATES), models=models, folder=tmp_path) as watch:
        watch.look()
        assert (watch.count, watch.memory()) == (0, {})
        (issue,) = session.request("GET", "/api/issues").json()["results"]
        session.request("DELETE", f"/api/issues/{issue['id']}")
        watch.look()
        assert watch.count == 1


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(5))
def test_three_sidecars_at_a_server_that_fails_all_the_time(sandbox, session, tmp_path, seed):
    """A third of all calls fail, before or after they were done, or come late; then the server recovers."""
    jobs = jobs_of(session, make_image_task(session, count=24, segment_size=2, labels=LABELS))
    for number, fault in enumerate(({"status": 500}, {"status": 503}, {"cut": True})):
        for when in ("before", "after"):
            more = {"seed": 10 * seed + number, "when": when, "count": 10**6}
            sandbox.faults.add(path="/api/.*", probability=0.05, **more, **fault)
    sandbox.faults.add(path="/api/.*", probability=0.05, seed=seed, delay=0.3, count=10**6)
    clocks = [Clock() for _ in range(3)]
    hasty = ServerSettings(user="bot", password="secret", retries=2)
    with ExitStack() as stack:
        for number, clock in enumerate(clocks):
            more = {"folder": tmp_path / str(number), "timing": clock.timing, "server": hasty, "settle": 0.5}
            stack.enter_context(watching(sandbox, rule(every_seconds=1.0, **STATES), **more))

        def done():
            for clock in clocks:
                clock.ahead += 2  # pauses pass quickly
            return {job_of(session, job)["state"] for job in jobs} == {"completed"}

        with suppress(ServerUnavailable):
            for _ in range(30):
                done()
        sandbox.faults.clear()
        until(done, 120)
    assert boxes(session, *jobs) == dict.fromkeys(range(24), 1)
    assert [job_of(session, job)["issues"]["count"] for job in jobs] == [0] * len(jobs)
