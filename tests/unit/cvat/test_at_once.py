import threading
import time

import pytest

from agent.cvat.at_once import at_once


def test_answers_come_in_the_order_of_the_items():
    def work(item):
        time.sleep(0.002 * (9 - item))
        return -item

    assert at_once(work, range(10)) == [-item for item in range(10)]


@pytest.mark.parametrize("items", [[], [7]])
def test_few_items_need_no_thread(items):
    assert at_once(lambda item: (item, threading.current_thread()), items) == [
        (item, threading.main_thread()) for item in items
    ]


def test_no_more_at_once_than_threads():
    at_work, most = threading.Semaphore(3), []

    def work(item):
        most.append(at_work.acquire(blocking=False))
        time.sleep(0.005)
        at_work.release()

    at_once(work, range(12), threads=3)
    assert most == [True] * 12


def test_the_first_error_ends_it():
    begun = []

    def work(item):
        begun.append(item)
        if item == 1:
            raise ZeroDivisionError
        time.sleep(0.01)

    with pytest.raises(ZeroDivisionError):
        at_once(work, range(1000), threads=2)
    assert len(begun) < 20


def test_an_error_is_not_kept_waiting_by_others():
    gate = threading.Event()

    def work(item):
        if item:
            gate.wait(20)
        else:
            raise ZeroDivisionError

    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        at_once(work, range(4))
    assert time.monotonic() - began < 10
    gate.set()
