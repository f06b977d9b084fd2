"""What was read ahead, and how calls find it."""

import pytest

from agent.doors.gateway.budget import Budget
from agent.doors.gateway.window import KEPT, Answer, Entry, Window

ANSWER = Answer([], (1, 1), b"[]")


def window(digests, at=0):
    made = Window()
    made.open(at)
    for place, digest in enumerate(digests, at + 1):
        made.add(Entry(place, digest, 10))
    return made


def test_calls_find_their_entries_and_move_on():
    found = window("abc")
    assert found.current == 0
    assert found.find("a").place == 1
    assert found.find("c").place == 3
    assert found.current == 3
    assert found.find("b").place == 2, "late, and still there"
    assert found.current == 3


def test_calls_that_find_nothing_move_on_too():
    found = window("ab")
    assert found.find("x") is None
    assert found.find("y") is None
    assert (found.at, found.since, found.current) == (0, 2, 2)
    assert found.find("b").place == 2
    assert (found.since, found.current) == (0, 2)


def test_calls_from_before_the_first_was_recognised_count():
    found = Window()
    assert found.find("x") is None
    assert found.find("y") is None
    found.open(10)
    assert found.current == 12


def test_of_pictures_that_are_the_same_the_next_one():
    found = window("aabaa")
    assert [found.find(digest).place for digest in "aabaa"] == [1, 2, 3, 4, 5]
    assert found.find("a").place == 5


def test_what_was_passed_is_dropped_when_it_is_answered():
    found = window("abcdefghij")
    entries = {digest: found.find(digest) for digest in "abcdefghij"}
    for digest, entry in entries.items():
        if digest != "c":
            entry.answer.set_result(ANSWER)
    dropped = [entry.place for entry in found.drop_passed()]
    assert dropped == [place for place in range(1, 10 - KEPT) if place != 3]
    assert found.find("a") is None
    entries["c"].answer.set_result(ANSWER)
    assert [entry.place for entry in found.drop_passed()] == [3]


def test_the_end_tells_who_waits():
    found = window("ab")
    waiting = found.find("a")
    assert sorted(entry.place for entry in found.clear()) == [1, 2]
    assert waiting.answer.cancelled()
    assert found.find("b") is None


@pytest.mark.parametrize("size", [5, 500])
def test_a_budget_is_kept_but_for_a_single_thing(size):
    budget = Budget(100)
    assert budget.take(size)
    assert budget.take(95) is (size == 5)
    budget.take(1000, always=True)
    assert not budget.take(1)
    budget.give(1000 + size + (95 if size == 5 else 0))
    assert budget.used == 0
    assert budget.take(100)
