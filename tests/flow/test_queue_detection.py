"""Detectors behind the agent queue: whole tasks and single frames, from a person's order to CVAT's annotations."""

import pytest

from tests.support.material import make_image_task, make_video_task
from tests.support.models import Finder
from tests.support.queue import serving

THING = [{"name": "thing"}]


def left_edges(shapes):
    return [(shape["frame"], round(shape["points"][0])) for shape in shapes]


@pytest.mark.parametrize("make", ["pictures", "video"])
def test_a_task_is_annotated(sandbox, session, make):
    if make == "pictures":
        task = make_image_task(session, count=10, segment_size=4, labels=THING)
    else:
        task = make_video_task(session, frames=10, segment_size=6, overlap=2, labels=THING)
    finder = Finder()
    with serving(sandbox, {"finder": finder}) as served:
        ended = served.ended(served.order(task))
        assert (ended["status"], ended["progress"], ended["exc_info"]) == ("finished", 100, None)
        shapes = served.shapes(task)
        assert left_edges(shapes) == [(n, n) for n in range(10)]
        assert {(s["source"], s["score"], s["type"]) for s in shapes} == {("auto", 0.9, "rectangle")}
        assert sorted(n for call in finder.calls for n in call) == list(range(10))
        (record,) = served.shared.activity.finished()
        assert (record.door, record.kind, record.model, record.what) == (
            "queue",
            "annotate_task",
            "finder",
            f"task {task}",
        )
        assert (record.outcome, record.done, record.total) == ("done", 10, 10)
