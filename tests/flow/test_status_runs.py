"""The table of runs on the status page, while a run is going on."""

import pytest

from agent.ledger.ledger import Ledger
from tests.support.html import text_of

pytestmark = pytest.mark.usefixtures("passwords")
FRAMES = 5


@pytest.fixture
def going(annotated):
    """(service, run): a run of five frames, two of which were uploaded and one skipped, and of which no report is."""
    service, _, session, job = annotated
    shapes = [{"type": "rectangle", "label_id": 1, "frame": frame, "points": [1, 2, 9, 8]} for frame in range(2)]
    with Ledger(service.shared.ledger) as ledger:
        run = ledger.begin(
            server=session.url, user="bot", target=f"job {job}", model="x:y", model_version="1", options={},
            frames={job: list(range(FRAMES))},
        )  # fmt: skip
        upload = ledger.write_upload(run, job, [0, 1], {"tags": [], "shapes": shapes, "tracks": []}, {}, [])
        ledger.mark_created(upload, {"shapes": [901, 902]})
        ledger.skip(run, job, 2, "it is torn")
        yield service, run


def shown(service, run):
    return next(row for row in service.page.status()["runs"] if row["id"] == run)


def test_a_run_of_another_process_is_shown_as_far_as_the_ledger_knows_it(going):
    service, run = going
    row = shown(service, run)
    assert (row["status"], row["annotations"]) == ("running", 2)
    assert row["frames"] == {"total": 5, "done": 3, "skipped": 1}
    for page in ("/", f"/runs/{run}"):
        text = text_of(service.page.get(page).text)
        assert "3 of 5, 1 skipped" in text
        assert "2 uploaded so far" in text


def test_a_run_of_this_service_is_shown_as_far_as_its_request_has_come(going):
    service, run = going
    with service.shared.activity.begin("watch", "rule", "faces", "job 1 by rule bot") as request:
        request.belongs_to(run)
        request.progress(4, 5)
        row = shown(service, run)
        assert row["frames"] == {"total": 5, "done": 4, "skipped": 1}
        assert row["annotations"] == 2


def test_a_run_that_has_ended_is_shown_by_its_report(annotated):
    service, run, _, _ = annotated
    row = shown(service, run)
    assert (row["status"], row["annotations"], row["frames"]["done"]) == ("done", 2, 2)
    assert "so far" not in text_of(service.page.get("/").text)
