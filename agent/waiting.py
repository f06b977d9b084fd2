"""Waiting for what others do, as long as it is wanted: who waits looks up from it now and then, and may leave."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.1
"""How often whoever waits looks whether the work is still wanted."""


def await_result(future: Future[T], check: Callable[[], None], every: float = LOOK_SECONDS) -> T:
    """What a future gives; `check` is asked now and then meanwhile, and ends the waiting by what it raises."""
    while True:
        try:
            return future.result(every)
        except TimeoutError:
            if future.done():
                return future.result()  # it came just then, or the error is its own
        check()


def begin_apart(work: Callable[[], T], name: str) -> Future[T]:
    """Does `work` in a thread of its own, which nobody has to wait for; its log lines belong to whoever began it."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:  # raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
