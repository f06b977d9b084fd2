"""What all behind the watch door share, and the door's end."""

import pytest

from agent.doors.watch.place import Place
from agent.errors import RequestCancelled
from agent.ledger.rules import RuleMemory
from tests.support.doors import shared


def test_nobody_comes_in_any_more_once_the_door_ends(tmp_path):
    with shared("http://cvat.test") as around, RuleMemory(tmp_path / "ledger.sqlite3", "http://cvat.test") as memory:
        place = Place(around, memory, settle=0.0)
        with place.visited():
            assert not place.end(0.01), "somebody is still here"
        assert place.end(0.01)
        with pytest.raises(RequestCancelled, match="the service ends"), place.visited():
            raise AssertionError("what all share may be closed by now")
