import contextvars
import logging
import threading

import pytest

from agent.activity import REMEMBERED, Activity
from agent.errors import BadRequest, ModelLoadFailed, RequestCancelled, ServerRefused, SidecarError
from agent.log_fields import current_fields, log_fields


@pytest.fixture
def ended():
    return []


@pytest.fixture
def activity(ended):
    return Activity(on_end=ended.append)


def begin(activity, **more):
    return activity.begin("queue", "annotate_task", "yolo", "task 4", **more)


def test_a_request_runs_until_its_block_is_left(activity, ended):
    with begin(activity) as request:
        request.progress(3, 10)
        request.belongs_to("abcd")
        (record,) = activity.running()
        assert (record.door, record.kind, record.model, record.what) == ("queue", "annotate_task", "yolo", "task 4")
        assert (record.done, record.total, record.run, record.outcome) == (3, 10, "abcd", "running")
        assert record.seconds >= 0
        assert activity.finished() == []
    assert activity.running() == []
    (record,) = activity.finished()
    assert (record.outcome, record.done, record.error) == ("done", 3, None)
    assert record.ended >= record.began
    assert ended == [record]
    assert activity.errors() == []


@pytest.mark.parametrize(
    ("error", "outcome", "public", "detail"),
    [
        (BadRequest("frame 7: there is none"), "failed", "frame 7: there is none", "frame 7: there is none"),
        (ModelLoadFailed("/secret/path"), "failed", "The model could not be used", "/secret/path"),
        (OSError("/secret/path"), "failed", "Internal error", "OSError: /secret/path"),
        (ServerRefused("no: 401", status=401), "failed", "The CVAT server could not be used", "no: 401"),
        (RequestCancelled("by alice"), "cancelled", "by alice", None),
        (KeyboardInterrupt(), "failed", "Internal error", "KeyboardInterrupt"),
    ],
)
def test_how_it_ends_is_told(activity, ended, error, outcome, public, detail, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(type(error)), begin(activity):
        raise error
    (record,) = activity.finished()
    assert (record.outcome, record.error, record.detail) == (outcome, public, detail)
    assert ended == [record]
    assert (activity.errors() == [record]) == (outcome == "failed")
    (line,) = caplog.records
    assert line.levelname == ("WARNING" if outcome == "failed" else "INFO")
    assert f"queue annotate_task of task 4 for yolo: {outcome} after" in line.getMessage()
    told_by_its_text = isinstance(error, SidecarError)
    assert (line.exc_info is not None) == (outcome == "failed" and not told_by_its_text)
    assert not told_by_its_text or str(error) in line.getMessage()


def test_cancelling_sets_the_flag_and_the_next_check_ends_it(activity):
    with begin(activity) as request:
        request.check()
        assert not request.record.cancelling
        assert activity.cancel(request.id)
        assert activity.running()[0].cancelling
        assert request.cancelled.is_set()
        assert activity.cancel(request.id, "a second reason"), "the first one stays"
        with pytest.raises(RequestCancelled, match="cancelled on the status page"):
            request.check()
    assert not activity.cancel(request.id), "it is not running any more"
    assert not activity.cancel("nothing")


def test_quiet_ones_are_not_listed_unless_they_fail(activity, ended):
    with begin(activity, quiet=True):
        assert len(activity.running()) == 1
    assert activity.finished() == []
    assert len(ended) == 1, "but they are counted"
    with pytest.raises(OSError), begin(activity, quiet=True):
        raise OSError
    assert len(activity.finished()) == len(activity.errors()) == 1


def test_the_latest_are_remembered_and_no_more(activity):
    for number in range(REMEMBERED + 20):
        with activity.begin("queue", "x", "m", f"task {number}"):
            pass
    finished = activity.finished()
    assert len(finished) == REMEMBERED
    assert finished[0].what == f"task {REMEMBERED + 19}"
    many = [activity.begin("queue", "x", "m", str(n)) for n in range(REMEMBERED + 5)]
    assert len(activity.running()) == REMEMBERED + 5, "what runs is never forgotten"
    assert len({request.id for request in many}) == len(many)


def test_who_listens_cannot_break_a_request(caplog):
    def broken(record):
        raise ZeroDivisionError

    activity = Activity(on_end=broken)
    with begin(activity):
        pass
    with pytest.raises(BadRequest), begin(activity):
        raise BadRequest("its own error")
    assert len(activity.finished()) == 2
    assert "ZeroDivisionError" in caplog.text


def test_log_lines_name_the_request_the_model_and_the_run(activity):
    with log_fields(door="queue"):
        with begin(activity) as request:
            fields = {"door": "queue", "request": request.id, "model": "yolo"}
            assert current_fields() == fields
            elsewhere = contextvars.copy_context()
            request.belongs_to("abcd")
            assert current_fields() == {**fields, "run": "abcd"}
            assert elsewhere.run(current_fields) == current_fields(), "threads that were begun earlier hear of it"
        assert current_fields() == {"door": "queue"}
    assert current_fields() == {}


def test_progress_and_run_told_by_two_threads_are_both_kept(activity):
    with begin(activity) as request:
        for number in range(300):
            both = threading.Barrier(2)

            def name(both=both, number=number):
                both.wait(5)
                request.belongs_to(f"run {number}")

            thread = threading.Thread(target=name, daemon=True)
            thread.start()
            both.wait(5)
            request.progress(number, 300)
            thread.join(5)
            assert (request.record.done, request.record.run) == (number, f"run {number}")


def test_what_is_told_after_the_end_changes_nothing(activity):
    with begin(activity) as request:
        request.progress(1, 2)
    request.progress(2, 2)
    request.belongs_to("late")
    assert (request.record.outcome, request.record.done, request.record.run) == ("done", 1, None)


def test_time_spent_by_stage_adds_up(activity, ended):
    with begin(activity) as request:
        request.spent({"encode": 1.5, "upload": 2})
        request.spent({"encode": 0.5})
    assert ended[0].stages == {"encode": 2.0, "upload": 2}


def test_many_threads(activity, ended):
    def work():
        for number in range(100):
            try:
                with begin(activity) as request:
                    request.progress(number, 100)
                    activity.running(), activity.cancel(request.id)
                    request.check()
            except RequestCancelled:
                pass

    threads = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert activity.running() == []
    assert [record.outcome for record in ended] == ["cancelled"] * 600
