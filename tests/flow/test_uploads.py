"""Every annotation arrives exactly once: lost answers, refusals, killed processes, twins, and what is taken back."""

import pytest

from agent.cvat.annotations_api import create, get_annotations
from agent.cvat.uploads import JobUploads
from agent.cvat.work import find_work
from agent.errors import BadRequest, ServerRefused, ServerUnavailable
from agent.ledger.ledger import Ledger
from agent.options import Target
from agent.runs.undo import undo_run
from tests.support.material import make_image_task

CREATE = {"method": "PATCH", "path": r"/api/jobs/\d+/annotations"}


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        yield ledger


@pytest.fixture
def job(session):
    task = make_image_task(session, count=4, labels=[{"name": "thing"}, {"name": "scene", "type": "tag"}])
    (work,) = find_work(session, Target("task", task))
    (job,) = work.jobs
    return Job(job.id, task, {label.name: label.id for label in work.labels})


class Job:
    def __init__(self, number, task, labels):
        self.id, self.task, self.labels = number, task, labels

    def payload(self, *frames, left=10.0):
        shapes = [
            {"type": "rectangle", "frame": frame, "label_id": self.labels["thing"], "points": [left, 20.5, 60.25, 80],
             "source": "auto", "score": 0.5, "attributes": []}
            for frame in frames
        ]  # fmt: skip
        tags = [
            {"frame": frame, "label_id": self.labels["scene"], "source": "auto", "attributes": []} for frame in frames
        ]
        return {"shapes": shapes, "tags": tags, "tracks": []}


def begin(ledger, session):
    return ledger.begin(
        server=session.url, user="bot", target="task 1", model="m", model_version="1", options={}, frames={}
    )


def uploads(session, ledger, run, job, waits=None, **more):
    return JobUploads(session, ledger, run, job.id, wait=(waits if waits is not None else []).append, **more)


def count(session, job):
    stored = get_annotations(session, job.id)
    return len(stored["shapes"]), len(stored["tags"])


def test_ids_are_kept(session, ledger, job):
    run = begin(ledger, session)
    uploads(session, ledger, run, job).add([0, 1], job.payload(0, 1))
    stored = get_annotations(session, job.id)
    made = {(item.kind, item.server_id) for item in ledger.made(run=run)}
    assert made == {(kind, item["id"]) for kind in ("shapes", "tags") for item in stored[kind]}
    assert count(session, job) == (2, 2)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "when": "before"},
        {"status": 500, "when": "after"},
        {"status": 502, "when": "after"},
        {"cut": True, "when": "before"},
        {"cut": True, "when": "after"},
        {"status": 429, "when": "before"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
@pytest.mark.parametrize("times", [1, 3])
def test_annotations_arrive_once_whatever_happens_to_the_answer(sandbox, session, ledger, job, fault, times):
    run = begin(ledger, session)
    sender = uploads(session, ledger, run, job)
    sender.add([0], job.payload(0))  # the same content is there already on another frame
    sandbox.faults.add(**CREATE, **fault, count=times)
    sender.add([1, 2], job.payload(1, 2))
    sender.settle()
    assert count(session, job) == (3, 3)
    assert len(ledger.made(run=run)) == 6
    assert {upload.state for upload in ledger.uploads(run)} == {"done"}


def test_equal_annotations_of_an_earlier_run_are_not_taken_for_ours(sandbox, session, ledger, job):
    first = begin(ledger, session)
    uploads(session, ledger, first, job).add([1], job.payload(1))
    run = begin(ledger, session)
    sandbox.faults.add(**CREATE, cut=True, when="before", count=1)
    uploads(session, ledger, run, job).add([1], job.payload(1))
    assert count(session, job) == (2, 2)


def test_equal_annotations_that_a_person_drew_before_are_not_taken_for_ours(sandbox, session, ledger, job):
    create(session, job.id, job.payload(1))
    run = begin(ledger, session)
    sandbox.faults.add(**CREATE, cut=True, when="before", count=1)
    uploads(session, ledger, run, job).add([1], job.payload(1))
    assert count(session, job) == (2, 2)


def test_a_refused_create_is_forgotten_and_reported(session, ledger, job):
    run = begin(ledger, session)
    payload = job.payload(0)
    payload["shapes"][0]["label_id"] = 999_999
    with pytest.raises(ServerRefused, match="label"):
        uploads(session, ledger, run, job).add([0], payload)
    assert ledger.uploads(run) == []
    assert count(session, job) == (0, 0)


def test_a_server_that_never_answers_leaves_the_upload_to_be_recovered(sandbox, session, ledger, job):
    run = begin(ledger, session)
    sandbox.faults.add(**CREATE, status=503, when="before", count=1000)
    with pytest.raises(ServerUnavailable):
        uploads(session, ledger, run, job).add([0], job.payload(0))
    assert [upload.state for upload in ledger.uploads(run)] == ["sending"]
    sandbox.faults.clear()
    uploads(session, ledger, run, job).recover()
    assert count(session, job) == (1, 1)


@pytest.mark.parametrize("arrived", [False, True])
def test_a_process_killed_while_sending_is_recovered(session, ledger, job, arrived):
    run, payload = begin(ledger, session), job.payload(0, 3)
    ledger.write_upload(run, job.id, [0, 3], payload, {"shapes": 0, "tags": 0, "tracks": 0}, [])
    if arrived:
        create(session, job.id, payload)
    waits = []
    uploads(session, ledger, run, job, waits).recover()
    assert count(session, job) == (2, 2)
    assert len(ledger.made(run=run)) == 4
    assert bool(waits) == (not arrived), "absence is believed on the second look only"


def test_a_process_killed_before_removing_what_it_replaces_is_recovered(session, ledger, job):
    old = begin(ledger, session)
    uploads(session, ledger, old, job).add([0], job.payload(0, left=1.0))
    replaced = [(made.kind, made.server_id) for made in ledger.made(run=old)]
    run = begin(ledger, session)
    upload = ledger.write_upload(run, job.id, [0], job.payload(0), {}, replaced)
    answer = create(session, job.id, upload.payload)
    ledger.mark_created(upload, {kind: [item["id"] for item in answer[kind]] for kind in ("shapes", "tags")})
    uploads(session, ledger, run, job).recover()
    assert [shape["points"][0] for shape in get_annotations(session, job.id)["shapes"]] == [10.0]
    assert [upload.state for upload in ledger.uploads(run)] == ["done"]


def test_a_twin_that_arrives_late_is_removed(session, ledger, job):
    run, payload = begin(ledger, session), job.payload(0)
    upload = ledger.write_upload(run, job.id, [0], payload, {}, [])
    sender = uploads(session, ledger, run, job)
    sender.recover()  # finds nothing, sends
    create(session, job.id, upload.payload)  # the first call, slow on the server, lands now
    assert count(session, job) == (2, 2)
    sender.settle()
    assert count(session, job) == (1, 1)
    assert {m.server_id for m in ledger.made(run=run) if m.kind == "shapes"} == {
        shape["id"] for shape in get_annotations(session, job.id)["shapes"]
    }


def test_a_tag_that_a_person_sets_meanwhile_is_not_taken_for_ours(sandbox, session, ledger, job):
    run = begin(ledger, session)
    tags = {**job.payload(1), "shapes": []}
    ledger.write_upload(run, job.id, [1], tags, {}, [])
    create(session, job.id, {"tags": [{**tags["tags"][0], "source": "manual"}]})
    sender = uploads(session, ledger, run, job)
    sender.recover()
    sender.settle()
    assert sorted(tag["source"] for tag in get_annotations(session, job.id)["tags"]) == ["auto", "manual"]


def test_an_answer_that_is_no_json_is_a_lost_answer(sandbox, session, ledger, job):
    run = begin(ledger, session)
    sandbox.faults.add(**CREATE, status=200, body=b"<html>welcome</html>", when="after")
    uploads(session, ledger, run, job).add([0], job.payload(0))
    assert count(session, job) == (1, 1)
    assert len(ledger.made(run=run)) == 2


def test_what_a_person_has_changed_meanwhile_is_not_replaced(session, ledger, job):
    old = begin(ledger, session)
    uploads(session, ledger, old, job).add([0, 1], job.payload(0, 1))
    replaced = [(made.kind, made.server_id) for made in ledger.made(run=old)]
    change_a_shape(session, job)
    sender = uploads(session, ledger, begin(ledger, session), job, keep_changed=True)
    sender.add([0, 1], job.payload(0, 1, left=1.0), replaced)
    assert sender.removed == 3
    assert sorted(s["points"][0] for s in get_annotations(session, job.id)["shapes"]) == [0.0, 1.0, 1.0]


def change_a_shape(session, job):
    """As CVAT's editor does it."""
    shape = get_annotations(session, job.id)["shapes"][0]
    moved = {**shape, "points": [0, 0, 5, 5], "source": "semi-auto"}
    session.request("PATCH", f"/api/jobs/{job.id}/annotations", query={"action": "update"}, body={"shapes": [moved]})


class TestUndo:
    def test_takes_back_what_the_run_made_and_nothing_else(self, sandbox, session, ledger, job):
        create(session, job.id, job.payload(0, 1))
        run = begin(ledger, session)
        uploads(session, ledger, run, job).add([0, 1], job.payload(0, 1))
        ledger.end(run, "done", {})
        result = undo_run(run, session.settings, ledger.path)
        assert (result.removed, result.changed, result.gone) == (4, 0, 0)
        assert count(session, job) == (2, 2)
        assert ledger.run(run).status == "undone"

    def test_keeps_what_a_person_has_changed(self, session, ledger, job):
        run = begin(ledger, session)
        uploads(session, ledger, run, job).add([0, 1], job.payload(0, 1))
        change_a_shape(session, job)
        result = undo_run(run, session.settings, ledger.path)
        assert (result.removed, result.changed) == (3, 1)
        assert [s["points"] for s in get_annotations(session, job.id)["shapes"]] == [[0, 0, 5, 5]]

    def test_removes_what_was_changed_when_told_to(self, session, ledger, job):
        run = begin(ledger, session)
        uploads(session, ledger, run, job).add([0], job.payload(0))
        change_a_shape(session, job)
        assert undo_run(run, session.settings, ledger.path, changed_too=True).removed == 2
        assert count(session, job) == (0, 0)

    def test_knows_its_own_under_new_ids(self, session, ledger, job):
        run = begin(ledger, session)
        uploads(session, ledger, run, job).add([0], job.payload(0))
        stored = get_annotations(session, job.id)
        session.request("PUT", f"/api/jobs/{job.id}/annotations", body={**stored, "version": 0})
        assert undo_run(run, session.settings, ledger.path).removed == 2
        assert count(session, job) == (0, 0)

    def test_tells_what_is_gone(self, session, ledger, job):
        run = begin(ledger, session)
        uploads(session, ledger, run, job).add([0], job.payload(0))
        session.request("DELETE", f"/api/jobs/{job.id}/annotations")
        assert undo_run(run, session.settings, ledger.path).gone == 2

    @pytest.mark.parametrize("arrived", [False, True])
    def test_finds_what_was_sent_and_never_answered(self, session, ledger, job, arrived):
        run, payload = begin(ledger, session), job.payload(0)
        ledger.write_upload(run, job.id, [0], payload, {}, [])
        if arrived:
            create(session, job.id, payload)
        assert undo_run(run, session.settings, ledger.path).removed == (2 if arrived else 0)
        assert count(session, job) == (0, 0)

    def test_leaves_equal_annotations_of_another_run_alone(self, session, ledger, job):
        """The other run's are not ours under new ids, although they say the same."""
        first, second = begin(ledger, session), begin(ledger, session)
        uploads(session, ledger, first, job).add([0], job.payload(0))
        own = {item.server_id for item in ledger.made(run=first) if item.kind == "shapes"}
        uploads(session, ledger, second, job).add([0], job.payload(0))
        stored = get_annotations(session, job.id)
        mine = [shape for shape in stored["shapes"] if shape["id"] in own]
        session.request(
            "PATCH", f"/api/jobs/{job.id}/annotations", query={"action": "delete"}, body={"shapes": mine}
        )  # fmt: skip
        assert undo_run(first, session.settings, ledger.path).removed == 1
        assert count(session, job) == (1, 1)

    def test_takes_nothing_back_that_a_later_run_has_replaced(self, session, ledger, job):
        first, second = begin(ledger, session), begin(ledger, session)
        uploads(session, ledger, first, job).add([0], job.payload(0))
        replaced = [(made.kind, made.server_id) for made in ledger.made(run=first)]
        uploads(session, ledger, second, job).add([0], job.payload(0), replaced)
        stored = get_annotations(session, job.id)
        session.request("PUT", f"/api/jobs/{job.id}/annotations", body={**stored, "version": 0})
        assert undo_run(first, session.settings, ledger.path).removed == 0
        assert count(session, job) == (1, 1)

    def test_can_go_on_to_what_was_changed(self, session, ledger, job):
        run = begin(ledger, session)
        uploads(session, ledger, run, job).add([0], job.payload(0))
        change_a_shape(session, job)
        assert undo_run(run, session.settings, ledger.path).changed == 1
        with pytest.raises(BadRequest, match="undone already"):
            undo_run(run, session.settings, ledger.path)
        assert undo_run(run, session.settings, ledger.path, changed_too=True).removed == 1
        assert count(session, job) == (0, 0)

    def test_copes_with_a_job_that_is_gone(self, session, ledger, job):
        run = begin(ledger, session)
        uploads(session, ledger, run, job).add([0], job.payload(0))
        ledger.write_upload(run, job.id, [1], job.payload(1), {}, [])
        session.request("DELETE", f"/api/tasks/{job.task}")
        assert undo_run(run, session.settings, ledger.path).jobs_gone == 1
        assert ledger.run(run).status == "undone"

    def test_a_page_of_a_proxy_does_not_mean_that_a_job_is_gone(self, sandbox, session, ledger, job):
        run = begin(ledger, session)
        uploads(session, ledger, run, job).add([0], job.payload(0))
        sandbox.faults.add(path=rf"/api/jobs/{job.id}/annotations", status=404, headers={"Content-Type": "text/html"})
        with pytest.raises(ServerRefused):
            undo_run(run, session.settings, ledger.path)
        assert ledger.run(run).status != "undone"
        assert undo_run(run, session.settings, ledger.path).removed == 2
