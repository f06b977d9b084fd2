"""Waiting with a caller."""

import threading
from concurrent.futures import Future

import pytest

from agent.activity import Activity
from agent.doors.gateway.call import Call, Refused, status_of
from agent.errors import (
    BadPrediction,
    BadRequest,
    ModelLoadFailed,
    ModelNotFound,
    RequestCancelled,
    ServerUnavailable,
)


def done(value):
    future = Future()
    future.set_result(value)
    return future


def test_an_answer_in_time():
    assert Call(5).wait(done(7)) == 7


def test_an_answer_that_comes_while_we_wait():
    future = Future()
    threading.Timer(0.02, lambda: future.set_result(8)).start()
    assert Call(5).wait(future) == 8


def test_late():
    future, call = Future(), Call(0.01)
    with pytest.raises(Refused) as told:
        call.wait(future)
    assert (told.value.status, future.cancelled()) == (504, True)
    with pytest.raises(Refused):
        call.check()


def test_what_others_wait_for_is_not_cancelled():
    future = Future()
    with pytest.raises(Refused):
        Call(0.01).wait(future, keep=True)
    assert not future.cancelled()


def test_given_up_while_it_waits_or_before():
    call, future = Call(5), Future()
    threading.Timer(0.02, lambda: call.give_up(Refused("the service ends", 503))).start()
    with pytest.raises(Refused, match="the service ends"):
        call.wait(future)
    assert future.cancelled()
    with pytest.raises(Refused, match="the service ends"):
        call.wait(Future())


def test_cancelled_on_the_status_page():
    activity, future = Activity(), Future()
    with activity.begin("gateway", "detect", "m", "a picture") as request:
        activity.cancel(request.id)
        with pytest.raises(RequestCancelled):
            Call(5).wait(future, request)
    assert future.cancelled()


def test_a_host_that_closes():
    future = Future()
    future.cancel()
    with pytest.raises(Refused, match="the service ends") as told:
        Call(5).wait(future)
    assert told.value.status == 503


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Refused("no", 429), 429, "no"),
        (BadRequest("no such thing"), 400, "no such thing"),
        (BadPrediction("at /secret"), 500, "The model failed on this request"),
        (ModelLoadFailed("at /secret"), 503, "The model could not be used"),
        (ModelNotFound("at /secret"), 503, "The model could not be used"),
        (ServerUnavailable("at host"), 503, "The CVAT server could not be used"),
        (ValueError("at /secret"), 500, "Internal error"),
    ],
)
def test_what_callers_may_read(error, status, text):
    assert status_of(error) == (status, text)
