"""The result of a whole task: JSON in pieces, in memory or in a file, as often as it is sent."""

import json

import pytest

from agent.annotations import FrameAnnotations
from agent.cvat.calls import JsonObject, JsonPieces
from agent.doors.queue import result
from agent.doors.queue.result import ResultSink
from agent.errors import BadRequest


def shape(number):
    return {"type": "rectangle", "label_id": 1, "frame": number, "points": [1.5, 2, 3, number], "name": "ä"}


def filled(frames, each=3):
    sink = ResultSink()
    for frame in range(frames):
        tags = [{"label_id": 2, "frame": frame}] if frame % 2 else []
        sink.add(1, frame, FrameAnnotations(tags, [shape(frame)] * each))
    return sink


@pytest.mark.parametrize("frames", [0, 1, 2, 500])
@pytest.mark.parametrize("in_memory", [100, 1 << 24])
def test_it_is_the_json_of_its_annotations(monkeypatch, frames, in_memory):
    monkeypatch.setattr(result, "IN_MEMORY", in_memory)
    with filled(frames) as sink:
        sink.skip(1, 7, "no picture")
        sink.close()
        assert isinstance(sink, JsonPieces)
        for _ in range(2):
            content = b"".join(sink)
            assert len(content) == sink.length
            found = json.loads(content)
            assert found["shapes"] == [shape(frame) for frame in range(frames) for _ in range(3)]
            assert found["tags"] == [{"label_id": 2, "frame": frame} for frame in range(1, frames, 2)]
        assert sink.count == len(found["shapes"]) + len(found["tags"])
        body = JsonObject({"agent_id": "a" * 32, "annotations": sink, "none": None})
        content = b"".join(body)
        assert len(content) == body.length
        assert json.loads(content) == {"agent_id": "a" * 32, "annotations": found, "none": None}


def test_what_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(result, "LARGEST", 1 << 20)
    many = FrameAnnotations([], [shape(1)] * 15_000)
    with ResultSink() as sink, pytest.raises(BadRequest, match="larger than 1 MiB; annotate the task in parts"):
        sink.add(1, 1, many)


def test_memory_does_not_grow_with_the_task(monkeypatch):
    import tracemalloc

    monkeypatch.setattr(result, "IN_MEMORY", 1 << 16)
    tracemalloc.start()
    try:
        with filled(2000, each=20) as sink:
            for _ in sink:
                pass
            _, peak = tracemalloc.get_traced_memory()
            assert sink.length > 3_000_000
            assert peak < 1_500_000
    finally:
        tracemalloc.stop()


def test_numbers_that_json_does_not_have():
    bad = {**shape(1), "points": [float("nan")]}
    with ResultSink() as sink, pytest.raises(ValueError, match="JSON"):
        sink.add(1, 1, FrameAnnotations([], [bad]))


def test_an_empty_object():
    assert b"".join(JsonObject({})) == b"{}"
