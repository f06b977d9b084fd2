"""Which rectangle of one frame is which of the next."""

import numpy as np

from agent.contract import Rectangle
from agent.doors.gateway.reid import match


def boxes(*places):
    return [Rectangle(x, y, x + 10, y + 10) for x, y in places]


def looks(*angles):
    return np.array([(np.cos(angle), np.sin(angle)) for angle in angles], np.float32)


def test_those_that_look_alike_belong_together():
    found = match(boxes((0, 0), (50, 0)), boxes((40, 0), (10, 0)), looks(0, 1), looks(1, 0), 0.2, 50)
    assert found == [1, 0]


def test_each_is_given_once_and_the_best_in_all_wins():
    found = match(boxes((0, 0), (1, 0)), boxes((0, 0)), looks(0.3, 0.1), looks(0), 0.5, 50)
    assert found == [-1, 0]


def test_too_far_or_too_different():
    one = boxes((0, 0))
    assert match(one, boxes((30, 40)), looks(0), looks(0), 0.5, 50) == [0]
    assert match(one, boxes((30, 41)), looks(0), looks(0), 0.5, 50) == [-1]
    assert match(one, one, looks(0), looks(np.pi / 3), 0.501, 50) == [0]
    assert match(one, one, looks(0), looks(np.pi / 3), 0.499, 50) == [-1]


def test_of_those_that_look_the_same_the_nearer():
    found = match(boxes((0, 0), (20, 0)), boxes((21, 0), (1, 0)), looks(0, 0), looks(0, 0), 0.5, 50)
    assert found == [1, 0]


def test_what_cannot_be_seen_is_nobody():
    blind = np.zeros((1, 2), np.float32)
    assert match(boxes((0, 0)), boxes((0, 0)), blind, looks(0), 2, 50) == [-1]
    assert match(boxes((0, 0)), boxes((0, 0)), np.zeros((1, 0), np.float32), looks(0), 2, 50) == [-1]
