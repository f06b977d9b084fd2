"""The watch door at a sandbox over real HTTP: what rules choose, how often, and in which state they leave jobs."""

import threading
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from agent.cvat.annotations_api import create, get_annotations
from agent.cvat.session import open_session
from agent.cvat.work import find_work
from agent.options import Target
from agent.settings.server import ServerSettings
from agent.settings.tables import ModelSettings, ServiceSettings, WatchSettings
from tests.support.material import make_image_task, make_video_task
from tests.support.watching import Clock, Models, boxes, rule, until, watching

LABELS = [{"name": "thing"}]


def jobs_of(session, task):
    return [job.id for part in find_work(session, Target("task", task)) for job in part.jobs]


def job_of(session, job):
    return session.request("GET", f"/api/jobs/{job}").json()


def patch(session, job, **values):
    session.request("PATCH", f"/api/jobs/{job}", body=values)


def new_task(session, count=2, name=None, **more):
    """The task and its only job."""
    task = make_image_task(session, count=count, **{"labels": LABELS, **more})
    if name is not None:
        session.request("PATCH", f"/api/tasks/{task}", body={"name": name})
    (job,) = jobs_of(session, task)
    return task, job


class TestOnce:
    def test_new_jobs_are_annotated_once_also_after_a_restart(self, sandbox, session, tmp_path):
        jobs = jobs_of(session, make_image_task(session, count=6, segment_size=3, labels=LABELS))
        with watching(sandbox, rule(), folder=tmp_path) as watch:
            records = watch.ended(2)
            told = {(record.door, record.kind, record.model, record.outcome) for record in records}
            assert told == {("watch", "rule", "finder", "done")}
            assert all(record.run and (record.done, record.total) == (3, 3) for record in records)
            watch.look()
        with watching(sandbox, rule(), folder=tmp_path) as again:
            again.look()
            assert (watch.count, again.count) == (2, 0)
            assert {record.status for record in again.runs()} == {"done"}
        assert boxes(session, *jobs) == dict.fromkeys(range(6), 1)

    def test_a_new_version_of_the_model_takes_the_place_of_the_old_one(self, sandbox, session, tmp_path):
        _, job = new_task(session)
        (label,) = session.request("GET", "/api/labels", query={"job_id": job}).json()["results"]
        drawn = {"type": "rectangle", "frame": 0, "label_id": label["id"], "points": [5, 5, 9, 9]}
        create(session, job, {"shapes": [drawn]})
        models = Models()
        with watching(sandbox, rule(), models=models, folder=tmp_path) as watch:
            watch.ended(1)
        models.version = "2"
        with watching(sandbox, rule(), models=models, folder=tmp_path) as watch:
            watch.look()
            assert watch.count == 0, "the description of the model is the one that is known"
            with watch.shared.pool.use("finder"):
                pass
            watch.look()
            assert [record.model_version for record in watch.runs()] == ["2", "1"]
        assert boxes(session, job) == {0: 2, 1: 1}, "what a person drew stays, what the old version made goes"

    def test_other_options_are_other_work_and_the_way_back_is_not(self, sandbox, session, tmp_path):
        _, job = new_task(session)
        for wish in ({}, {"frames": "0"}, {}, {"max_bad_frames": 3}):
            with watching(sandbox, rule(options=wish), folder=tmp_path) as watch:
                watch.look()
        assert [record.options["selection"] for record in watch.runs()] == ["0", "all"]
        assert boxes(session, job) == {0: 1, 1: 1}

    def test_two_rules_share_a_job_one_after_the_other(self, sandbox, session):
        _, job = new_task(session)
        with watching(sandbox, rule("one"), rule("two"), rule("three", enabled=False)) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            watch.settle_looks()
            assert len(watch.shared.activity.running()) == 1
            watch.finder.gate.set()
            watch.ended(1)
            watch.look()
            watch.ended(2)
            assert {record.options["rule"] for record in watch.runs()} == {"one", "two"}
        assert boxes(session, job) == {0: 2, 1: 2}, "they know nothing of each other"

    def test_a_run_that_was_undone_is_not_done_again(self, sandbox, session, tmp_path):
        from agent.runs.undo import undo_run

        _, job = new_task(session)
        with watching(sandbox, rule(), folder=tmp_path) as watch:
            (record,) = watch.ended(1)
            undo_run(record.run, session.settings, watch.shared.ledger)
            watch.look()
            assert watch.count == 1
        assert boxes(session, job) == {}


class TestConditions:
    @pytest.mark.parametrize(
        "condition",
        [
            {"task_name": "night-*"},
            {"task_name": "night-1[0-9]"},
            {"label": "thi*"},
            {"media": "image"},
            {"stages": ("validation",), "states": ("new", "completed")},
            {"states": ("rejected",)},
            {"assignee": "bot"},
        ],
        ids=str,
    )
    def test_all_that_are_given_must_hold(self, sandbox, session, condition):
        me = session.request("GET", "/api/users/self").json()["id"]
        _, wanted = new_task(session, name="night-12")
        _, other = new_task(session, name="day-12", labels=[{"name": "thong"}])
        _, video = (task := make_video_task(session, frames=2, labels=LABELS)), jobs_of(session, task)[0]
        if "label" in condition:
            session.request("DELETE", f"/api/tasks/{task}")
        if condition.get("media") == "image":
            session.request("DELETE", f"/api/tasks/{job_of(session, other)['task_id']}")
        if "assignee" in condition:
            patch(session, wanted, assignee=me)
        if "stages" in condition:
            patch(session, wanted, stage="validation")
        if condition.get("states") == ("rejected",):
            patch(session, wanted, state="rejected")
        with watching(sandbox, rule(**condition, options={"mapping": {"thing": "thing"}})) as watch:
            watch.look()
            assert [record.target for record in watch.runs()] == [f"job {wanted}"]
        assert video not in (wanted, other)

    def test_projects_and_tasks(self, sandbox, session):
        project = session.request("POST", "/api/projects", body={"name": "p", "labels": LABELS}).json()["id"]
        _, inside = new_task(session, project=project, labels=None)
        task, outside = new_task(session)
        with watching(sandbox, rule(projects=(project, 999))) as watch:
            watch.look()
            assert [record.target for record in watch.runs()] == [f"job {inside}"]
        with watching(sandbox, rule(tasks=(task,))) as watch:
            watch.look()
            assert [record.target for record in watch.runs()] == [f"job {outside}"]
        with watching(sandbox, rule(tasks=(task,), projects=(project,))) as watch:
            watch.look()
            assert watch.runs() == []

    def test_what_has_not_changed_for_long_is_left(self, sandbox, session):
        new_task(session)
        clock = Clock()
        clock.ahead = 7200
        with watching(sandbox, rule(updated_within_hours=1.0), timing=clock.timing) as watch:
            watch.look()
            assert watch.count == 0
            clock.ahead = 0
            watch.look()
            assert watch.count == 1

    def test_ground_truth_is_annotated_where_that_is_said(self, sandbox, session):
        task, job = new_task(session, count=4)
        body = {"task_id": task, "type": "ground_truth", "frame_selection_method": "manual", "frames": [1, 2]}
        truth = session.request("POST", "/api/jobs", body=body).json()["id"]
        with watching(sandbox, rule()) as watch:
            watch.look()
            assert [record.target for record in watch.runs()] == [f"job {job}"]
        with watching(sandbox, rule(options={"ground_truth": True}, states=("new",), tasks=(task,))) as watch:
            watch.look()
            assert {record.target for record in watch.runs()} == {f"job {job}", f"job {truth}"}

    def test_a_task_without_data_and_a_point_cloud_are_left(self, sandbox, session):
        session.request("POST", "/api/tasks", body={"name": "empty", "labels": LABELS})
        task, _ = new_task(session)
        sandbox.state.tasks.rows[task].dimension = "3d"
        with watching(sandbox, rule()) as watch:
            watch.look()
            assert watch.count == 0
            assert watch.door.health().ok

    def test_the_server_filters_and_turns_pages(self, sandbox, session, monkeypatch):
        monkeypatch.setattr("agent.cvat.jobs.PAGE_SIZE", 2)
        task = make_image_task(session, count=5, segment_size=1, labels=LABELS)
        make_image_task(session, count=5, segment_size=1, labels=LABELS)
        before = len(list(sandbox.requests))
        with watching(sandbox, rule(tasks=(task,))) as watch:
            watch.ended(5)
            watch.settle()
        lists = [entry for entry in list(sandbox.requests)[before:] if entry.path == "/api/jobs"]
        assert len(lists) >= 3
        assert len(watch.finder.seen) == 5

    @pytest.mark.parametrize("frames", ["empty", "7-9"])
    def test_a_job_without_a_frame_to_annotate_is_done(self, sandbox, session, frames):
        _, job = new_task(session)
        (label,) = session.request("GET", "/api/labels", query={"job_id": job}).json()["results"]
        create(session, job, {"tags": [{"frame": frame, "label_id": label["id"]} for frame in (0, 1)]})
        wish = rule(options={"frames": frames}, issue_on_failure=True, state_when_done="completed")
        with watching(sandbox, wish) as watch:
            watch.look()
            assert [record.outcome for record in watch.ended(1)] == ["done"]
            assert watch.memory()[job].status == "done"
        assert (job_of(session, job)["state"], job_of(session, job)["issues"]["count"]) == ("completed", 0)
        assert boxes(session, job) == {}


class TestAssignee:
    def test_a_mere_assignee_needs_job_endpoints_only(self, sandbox, session):
        with open_session(ServerSettings(host=sandbox.url, user="alice", password="secret")) as alice:
            alice.request("POST", "/api/organizations", body={"slug": "lab"})
        at_lab = ServerSettings(host=sandbox.url, user="alice", password="secret", organization="lab")
        with open_session(at_lab) as alice:
            me = session.request("GET", "/api/users/self").json()
            alice.request("POST", "/api/invitations", body={"email": me["email"], "role": "worker"})
            jobs = jobs_of(alice, make_image_task(alice, count=6, labels=LABELS, segment_size=2))
            patch(alice, jobs[1], assignee=me["id"])
            before = len(list(sandbox.requests))
            wish = rule(assignee="bot", label="th*", state_when_started="in progress", state_when_done="completed")
            with watching(sandbox, wish, server=ServerSettings(user="bot", password="secret")) as watch:
                watch.look()
                assert [record.target for record in watch.runs()] == [f"job {jobs[1]}"]
                assert watch.ended(1)[0].outcome == "done"
            used = {entry.path for entry in list(sandbox.requests)[before:]}
            assert not [path for path in used if path.startswith(("/api/tasks", "/api/projects"))]
            assert job_of(alice, jobs[1])["state"] == "completed"
            assert boxes(alice, *jobs) == {2: 1, 3: 1}

    def test_the_name_of_a_task_that_is_hidden_fits_nothing(self, sandbox, session):
        with open_session(ServerSettings(host=sandbox.url, user="alice", password="secret")) as alice:
            task, job = new_task(alice)
            sandbox.state.jobs.rows[job].assignee_id = session.request("GET", "/api/users/self").json()["id"]
        with watching(sandbox, rule(task_name="*"), rule("other", tasks=(task,))) as watch:
            watch.look()
            assert [record.options["rule"] for record in watch.runs()] == ["other"]


class TestWhen:
    def test_no_run_begins_in_quiet_hours(self, sandbox, session):
        new_task(session)
        time = [datetime(2026, 3, 1, 23, 30)]
        wish = rule(quiet_hours=("22:00", "06:00"))
        with watching(sandbox, wish, timing={"now": lambda: time[0].astimezone()}) as watch:
            watch.look()
            time[0] += timedelta(hours=6)
            watch.look()
            assert watch.count == 0
            assert "1 of 1 rules look for work; rule things: quiet until 06:00" in watch.door.health().text
            time[0] += timedelta(hours=1)
            watch.look()
            assert watch.count == 1
            assert "quiet" not in watch.door.health().text

    def test_so_many_jobs_an_hour(self, sandbox, session, tmp_path):
        make_image_task(session, count=5, segment_size=1, labels=LABELS)
        clock = Clock()
        for _ in range(2):
            with watching(sandbox, rule(jobs_per_hour=2), timing=clock.timing, folder=tmp_path) as watch:
                watch.look()
                watch.look()
        assert len(watch.runs()) == 2, "the ledger remembers"
        clock.ahead = 3700
        with watching(sandbox, rule(jobs_per_hour=2), timing=clock.timing, folder=tmp_path) as watch:
            watch.look()
            assert len(watch.runs()) == 4

    def test_no_more_at_once_than_there_are_places(self, sandbox, session):
        make_image_task(session, count=5, segment_size=1, labels=LABELS)
        with watching(sandbox, rule(), rule("more"), service=ServiceSettings(batch_lanes=2)) as watch:
            watch.finder.gate.clear()
            watch.settle_looks()
            assert watch.shared.lanes.batch.taken == 2
            watch.finder.gate.set()
            watch.ended(10)
        assert len(watch.finder.seen) == 10


class TestStates:
    def test_the_jobs_state_tells_how_far_we_are(self, sandbox, session):
        _, job = new_task(session)
        wish = rule(state_when_started="in progress", state_when_done="completed")
        with watching(sandbox, wish) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            assert job_of(session, job)["state"] == "in progress"
            watch.finder.gate.set()
            watch.settle()
            assert job_of(session, job)["state"] == "completed"
            assert job_of(session, job)["issues"]["count"] == 0, "the note of the claim is gone"

    @pytest.mark.parametrize("status", [503, 401])
    def test_a_state_that_the_server_did_not_take_is_set_later(self, sandbox, session, status):
        _, job = new_task(session)
        clock = Clock()
        settings = ServerSettings(user="bot", password="secret", retries=0)
        wish = rule(state_when_started="in progress", state_when_done="completed")
        with watching(sandbox, wish, server=settings, timing=clock.timing) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            # Who is not known any more logs in again, and is told once more.
            sandbox.faults.add(
                method="PATCH", path=rf"/api/jobs/{job}$", status=status, count=2 if status == 401 else 1
            )
            watch.finder.gate.set()
            watch.settle()
            assert (job_of(session, job)["state"], watch.memory()[job].owed) == ("in progress", "completed")
            clock.ahead = 600
            watch.look()
            assert (job_of(session, job)["state"], watch.memory()[job].owed) == ("completed", None)
            assert watch.count == 1

    def test_a_login_that_has_run_out_is_no_failure_of_the_job(self, sandbox, session):
        _, job = new_task(session)
        clock = Clock()
        wish = rule(state_when_started="in progress", state_when_failed="rejected", issue_on_failure=True)
        with watching(sandbox, wish, timing=clock.timing) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            fault = sandbox.faults.add(method="PATCH", path=rf"/api/jobs/{job}/annotations", status=401, count=2)
            watch.finder.gate.set()
            until(lambda: watch.memory()[job].status == "interrupted")
            assert (job_of(session, job)["state"], job_of(session, job)["issues"]["count"]) == ("in progress", 0)
            assert "401" in watch.door.health().text
            assert fault.struck == 2
            clock.ahead = 600
            watch.look()
            assert watch.memory()[job].status == "done"
            assert boxes(session, job)

    def test_a_state_that_somebody_has_set_meanwhile_is_theirs(self, sandbox, session):
        _, job = new_task(session)
        seldom = WatchSettings(check_seconds=99)
        with watching(sandbox, rule(state_when_done="completed"), watch=seldom) as watch:
            upload = sandbox.faults.add(method="PATCH", path=rf"/api/jobs/{job}/annotations", delay=1.0, when="after")
            until(lambda: upload.struck)
            patch(session, job, state="rejected")
            watch.settle()
            assert watch.memory()[job].status == "done"
        assert job_of(session, job)["state"] == "rejected"


class TestModels:
    def test_a_broken_model_begins_nothing_and_is_tried_later(self, sandbox, session):
        _, job = new_task(session)
        models, clock = Models(), Clock()
        models.broken = True
        wish = rule(state_when_started="in progress", state_when_failed="rejected", issue_on_failure=True)
        with watching(sandbox, wish, models=models, timing=clock.timing) as watch:
            watch.look()
            assert (job_of(session, job)["state"], job_of(session, job)["issues"]["count"]) == ("new", 0)
            assert watch.memory() == {}
            assert not watch.door.health().ok
            assert "torn" in watch.door.health().text
            (told,) = watch.shared.activity.errors()
            assert (told.what, told.error) == ("rule things", "The model could not be used")
            models.broken = False
            watch.shared.pool.replace(watch.shared.config.models, watch.shared.config.engine)
            watch.look()
            assert watch.count == 1, "it rests"
            clock.ahead = 100
            watch.look()
            assert watch.door.health().ok
            assert watch.memory()[job].status == "done"

    def test_a_door_is_well_while_one_rule_can_work(self, sandbox, session):
        new_task(session)
        both = [ModelSettings("finder", "fake:finder"), ModelSettings("clicks", "fake:clicks")]
        with watching(sandbox, rule(), rule("other", model="clicks"), settings=both) as watch:
            watch.look()
            health = watch.door.health()
            assert health.ok
            assert "rule other: model clicks" in health.text

    def test_a_model_of_another_kind_is_told(self, sandbox, session):
        new_task(session)
        with watching(sandbox, rule(), settings=[ModelSettings("finder", "fake:clicks")]) as watch:
            watch.look()
            assert "of the kind interactor, allowed: detector" in watch.door.health().text
            assert watch.memory() == {}

    def test_a_model_that_fails_with_every_job_does_not_go_through_all_of_them(self, sandbox, session):
        make_image_task(session, count=20, segment_size=1, labels=LABELS)
        models = Models()
        models.finder.fails = True
        with watching(sandbox, rule(), models=models) as watch:
            watch.look()
            assert 1 <= watch.count <= 4
            assert "the model failed" in watch.door.health().text


class TestServer:
    def test_a_server_that_cannot_be_reached_is_told_and_found_again(self, sandbox, session):
        new_task(session)
        clock = Clock()
        sandbox.faults.add(path=r"/api/jobs$", status=502, count=None)
        settings = ServerSettings(user="bot", password="secret", retries=0)
        with watching(sandbox, rule(), server=settings, timing=clock.timing) as watch:
            watch.look()
            health = watch.door.health()
            assert not health.ok
            assert "waiting for the server since" in health.text
            asked = len(list(sandbox.requests))
            watch.look()
            assert len(list(sandbox.requests)) == asked, "it is left alone for a while"
            sandbox.faults.clear()
            clock.ahead = 60
            watch.look()
            assert watch.door.health().ok
            assert watch.count == 1

    def test_thirty_percent_of_faults(self, sandbox, session):
        jobs = jobs_of(session, make_image_task(session, count=6, segment_size=2, labels=LABELS))
        clock = Clock()
        for seed, fault in enumerate(({"status": 500}, {"status": 503}, {"cut": True})):
            for when in ("before", "after"):
                sandbox.faults.add(path=r"/api/.*", probability=0.06, seed=seed, when=when, count=10_000, **fault)
        wish = rule(state_when_started="in progress", state_when_done="completed")
        with watching(sandbox, wish, timing=clock.timing) as watch:
            for round_ in range(20):
                clock.ahead += 7200
                watch.look()
                if round_ == 4:
                    sandbox.faults.clear()
                states = {job_of(session, job)["state"] for job in jobs} if round_ >= 4 else set()
                if states == {"completed"}:
                    break
        assert states == {"completed"}
        assert boxes(session, *jobs) == dict.fromkeys(range(6), 1)
        assert [job_of(session, job)["issues"]["count"] for job in jobs] == [0, 0, 0]


class TestFailure:
    def test_a_failed_job_is_told_once_and_tried_again_after_a_while(self, sandbox, session):
        task, job = new_task(session)
        models, clock = Models(), Clock()
        models.finder.fails = True
        wish = rule(issue_on_failure=True)
        with watching(sandbox, wish, models=models, timing=clock.timing) as watch:
            watch.look()
            (record,) = watch.ended(1)
            assert (record.outcome, record.error) == ("failed", "The model failed on this request")
            (comment,) = session.request("GET", "/api/comments", query={"job_id": job}).json()["results"]
            assert "for the rule 'things': The model failed on this request" in comment["message"]
            assert "secret" not in comment["message"]
            watch.look()
            assert watch.count == 1, "not at once"
            clock.ahead = 61
            watch.look()
            assert (watch.count, job_of(session, job)["issues"]["count"]) == (2, 1)
            assert watch.memory()[job].tries == 2
            models.finder.fails = False
            clock.ahead += 121
            watch.look()
            assert [r.outcome for r in watch.ended(3)] == ["failed", "failed", "done"]
            assert len(watch.runs()) == 1, "it goes on with the same run"
            assert watch.memory()[job].status == "done"
            (issue,) = session.request("GET", "/api/issues", query={"job_id": job}).json()["results"]
            assert issue["resolved"]
        assert boxes(session, job) == {0: 1, 1: 1}
        assert task

    def test_a_failed_job_that_changes_is_tried_at_once(self, sandbox, session):
        _, job = new_task(session, labels=[{"name": "other"}])
        clock = Clock()
        with watching(sandbox, rule(), timing=clock.timing) as watch:
            watch.look()
            assert watch.memory()[job].status == "failed"
            clock.ahead = 31
            watch.look()
            assert watch.count == 1
            patch(session, job, stage="annotation")
            watch.look()
            assert watch.count == 2

    def test_a_failed_job_gets_the_state_that_the_rule_says(self, sandbox, session):
        _, job = new_task(session, labels=[{"name": "other"}])
        clock = Clock()
        wish = rule(state_when_started="in progress", state_when_failed="rejected")
        with watching(sandbox, wish, timing=clock.timing) as watch:
            watch.look()
            assert (watch.memory()[job].status, job_of(session, job)["state"]) == ("failed", "rejected")
            clock.ahead = 31
            watch.look()
            assert watch.count == 1
            patch(session, job, state="new")
            watch.look()
            assert (watch.count, job_of(session, job)["state"]) == (2, "rejected")

    def test_a_failed_job_that_keeps_its_state_is_tried_again_though_no_list_has_it(self, sandbox, session):
        _, job = new_task(session)
        models, clock = Models(), Clock()
        models.finder.fails = True
        with watching(sandbox, rule(state_when_started="in progress"), models=models, timing=clock.timing) as watch:
            watch.look()
            assert (watch.memory()[job].status, job_of(session, job)["state"]) == ("failed", "in progress")
            models.finder.fails = False
            clock.ahead = 100
            watch.look()
            assert watch.memory()[job].status == "done"
        assert boxes(session, job) == {0: 1, 1: 1}

    def test_what_was_begun_is_there_and_can_be_undone(self, sandbox, session):
        from agent.runs.undo import undo_run

        _, job = new_task(session)
        with watching(sandbox, rule()) as watch:
            (record,) = watch.ended(1)
            assert undo_run(record.run, session.settings, watch.shared.ledger).removed == 2
        assert get_annotations(session, job)["shapes"] == []


class TestEnd:
    def test_a_closed_door_goes_on_where_it_was_when_it_is_opened_again(self, sandbox, session, tmp_path):
        _, job = new_task(session, count=4)
        with watching(sandbox, rule(state_when_started="in progress"), folder=tmp_path) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            closing = threading.Thread(target=watch.door.close)
            closing.start()
            until(lambda: watch.door._place.closing.is_set())
            watch.finder.gate.set()
            closing.join()
            (record,) = watch.ended(1)
            assert (record.outcome, record.error) == ("cancelled", "the service ends")
            assert watch.memory()[job].status == "interrupted"
            done = sorted(boxes(session, job))
            assert 0 < len(done) < 4
        with watching(sandbox, rule(state_when_started="in progress"), folder=tmp_path) as watch:
            watch.ended(1)
            assert watch.finder.seen == [frame for frame in range(4) if frame not in done]
            (run,) = watch.runs()
            assert run.status == "done"
        assert boxes(session, job) == dict.fromkeys(range(4), 1)

    def test_an_end_at_once_leaves_a_run_that_is_gone_on_with_at_once(self, sandbox, session):
        _, job = new_task(session, count=4)
        with watching(sandbox, rule()) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            watch.shared.stop.set()
            watch.finder.gate.set()
            (record,) = watch.ended(1)
            assert record.outcome == "cancelled"
            row = watch.remembered(job, "interrupted")
            assert (row.next_try, row.tries) == (0, 0)

    def test_a_drained_door_finishes_what_it_holds_and_takes_nothing_new(self, sandbox, session):
        new_task(session)
        with watching(sandbox, rule()) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            new_task(session)
            watch.door.drain()
            watch.door.wake("things")
            watch.finder.gate.set()
            (record,) = watch.ended(1)
            assert record.outcome == "done"
            assert watch.shared.lanes.batch.join(5)
            assert watch.count == 1


class TestReload:
    def take(self, watch, *rules):
        watch.shared.config = replace(watch.shared.config, rules=rules)
        watch.door.reload()
        watch.settle_looks()

    def test_rules_come_change_and_go_without_a_restart(self, sandbox, session):
        first, one = new_task(session)
        second, two = new_task(session)
        with watching(sandbox, rule(tasks=(first,))) as watch:
            watch.settle()
            self.take(watch, rule(tasks=(first,)), rule("more", tasks=(second,), enabled=False))
            watch.look()
            assert watch.count == 1
            self.take(watch, rule(tasks=(first,)), rule("more", tasks=(second,)))
            watch.look()
            assert [record.target for record in watch.runs()] == [f"job {two}", f"job {one}"]
            self.take(watch)
            new_task(session)
            watch.look()
            assert watch.count == 2
            assert watch.door.health().text == "0 of 0 rules look for work"

    def test_a_running_job_of_a_rule_that_goes_is_finished(self, sandbox, session):
        new_task(session)
        with watching(sandbox, rule(), rule("other", tasks=(999,))) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            self.take(watch, rule("other", tasks=(999,)))
            watch.finder.gate.set()
            (record,) = watch.ended(1)
            assert record.outcome == "done"
            until(lambda: watch.memory().popitem()[1].status == "done")
