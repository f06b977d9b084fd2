import numpy as np
import pytest

from agent.enrich import identities as module
from agent.enrich.identities import identities
from agent.errors import BadRequest


def looks(who, noise=0.1, seed=0, size=32):
    random = np.random.default_rng(seed)
    faces = random.normal(size=(max(who) + 1, size))
    found = faces[list(who)] / np.linalg.norm(faces[list(who)], axis=1, keepdims=True)
    found += random.normal(0, noise / np.sqrt(size), found.shape)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_the_same_one_has_the_same_number_in_the_order_of_appearance():
    who = [3, 3, 1, 3, 0, 1, 1, 0, 3]
    assert identities(looks(who), [(frame,) for frame in range(len(who))], 0.4) == [1, 1, 2, 1, 3, 2, 2, 3, 1]


def test_two_on_one_frame_are_never_the_same():
    who = [0, 0, 0, 0]
    numbers = identities(looks(who), [[0], [0], [1], [1]], 0.4)
    assert sorted(numbers[:2]) == [1, 2]
    assert sorted(numbers[2:]) == [1, 2]


def test_who_is_together_somewhere_on_the_way_is_never_the_same():
    assert identities(looks([0, 0, 0]), [range(10), range(9, 30), range(40, 50)], 0.4) in ([1, 2, 1], [1, 2, 2])
    assert identities(looks([0, 0, 0]), [range(10), range(10, 30), range(40, 50)], 0.4) == [1, 1, 1]


def test_one_frame_together_outweighs_any_likeness():
    """However many looks the groups have."""
    who, frames = [0] * 400, [(frame,) for frame in range(200)] * 2
    numbers = identities(looks(who), [*frames[:200], *((1000 + f,) for f in range(199)), (0,)], 0.4)
    assert numbers[0] != numbers[-1]
    assert len(set(numbers)) == 2


def test_few_looks():
    assert identities(np.zeros((0, 8), np.float32), [], 0.4) == []
    assert identities(looks([0]), [[7]], 0.4) == [1]
    assert identities(looks([0, 1]), [[0], [1]], 0.4) == [1, 2]


def test_too_many_looks_are_told(monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    with pytest.raises(BadRequest, match="got 4 shapes and tracks, allowed: up to 3"):
        identities(looks([0, 1, 2, 3]), [[0], [1], [2], [3]], 0.4)
