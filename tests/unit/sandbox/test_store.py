"""Tables: written through, ids never used again, changes complete."""

from dataclasses import dataclass, field

import pytest

from agent.sandbox.store import Store


@dataclass
class Thing:
    id: int
    name: str = ""
    parts: list[int] = field(default_factory=list)


def test_rows_are_there_after_opening_again(tmp_path):
    store = Store(tmp_path / "s")
    things = store.table("things", Thing)
    first, second = things.add(name="a"), things.add(name="b", parts=[1])
    second.parts.append(2)
    things.save(second)
    things.remove(first.id)
    # Not closed: a killed process does not close either.
    again = Store(tmp_path / "s").table("things", Thing)
    assert again.all() == [Thing(2, "b", [1, 2])]
    assert again.add().id == 3
    store.close()


def test_ids_of_removed_rows_are_not_used_again(tmp_path):
    things = Store(tmp_path / "s").table("things", Thing)
    things.remove(things.add().id)
    assert Store(tmp_path / "s").table("things", Thing).add().id == 2


def test_a_change_is_written_at_its_end(tmp_path):
    store = Store(tmp_path / "s")
    things = store.table("things", Thing)
    with store.change():
        things.add(name="a")
        with store.change():
            things.add(name="b")
        assert Store(tmp_path / "s").table("things", Thing).all() == []
    assert len(Store(tmp_path / "s").table("things", Thing)) == 2


def test_what_was_saved_before_an_error_is_written(tmp_path):
    store = Store(tmp_path / "s")
    things = store.table("things", Thing)

    def interrupted():
        with store.change():
            things.add(name="a")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        interrupted()
    # Memory has it, so the disk has to: they never differ.
    assert Store(tmp_path / "s").table("things", Thing).all() == things.all() == [Thing(1, "a")]


def test_finding_rows():
    things = Store().table("things", Thing)
    for name in "aba":
        things.add(name=name)
    assert [one.id for one in things.where(name="a")] == [1, 3]
    assert things.first(name="b").id == 2
    assert things.first(name="c") is None
    assert things.get(None) is None
