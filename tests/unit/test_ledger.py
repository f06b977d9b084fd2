import pytest

from agent.errors import BadRequest, ConfigError
from agent.ledger.content import same_content
from agent.ledger.ledger import Ledger

SHAPE = {"type": "rectangle", "frame": 3, "label_id": 1, "points": [1, 2, 3, 4], "source": "auto"}


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "deep" / "ledger.sqlite3") as ledger:
        yield ledger


def begin(ledger, server="http://a", frames=None):
    return ledger.begin(
        server=server, user="bot", target="task 4", model="local:x.onnx", model_version="v1",
        options={"threshold": 0.5}, frames=frames or {7: [0, 1, 2]},
    )  # fmt: skip


def test_a_run_is_read_back_as_it_was_written(ledger):
    run = begin(ledger)
    ledger.end(run, "done", {"frames": 3})
    record = ledger.run(run[:5])
    assert (record.id, record.status, record.target, record.options) == (
        run,
        "done",
        "task 4",
        {"threshold": 0.5},
    )
    assert record.frames == {7: (0, 1, 2)}
    assert record.report == {"frames": 3}


@pytest.mark.parametrize(("status", "then"), [("failed", "interrupted"), ("undone", "undone"), ("running", "running")])
def test_what_failed_is_put_down_and_nothing_else(ledger, status, then):
    """Somebody may have undone the run meanwhile, or go on with it."""
    run = begin(ledger)
    ledger.end(run, status, {"frames": 3, "status": status})
    ledger.put_down(run)
    record = ledger.run(run)
    assert (record.status, record.report) == (then, {"frames": 3, "status": then})


def test_unknown_and_ambiguous_ids_are_refused(ledger):
    begin(ledger), begin(ledger)
    for text in ("nope", ""):
        with pytest.raises(BadRequest, match=r"no run|runs"):
            ledger.run(text)


def test_runs_come_newest_first(ledger):
    runs = [begin(ledger) for _ in range(3)]
    assert [record.id for record in ledger.runs()] == runs[::-1]
    assert [record.id for record in ledger.runs(2)] == runs[:0:-1]


def test_runs_can_be_had_without_their_frames(ledger):
    run = begin(ledger)
    (full,), (light,) = ledger.runs(), ledger.runs(frames=False)
    assert (light.id, light.frames, light.options) == (run, {}, full.options)


def test_an_upload_goes_from_sending_to_done(ledger):
    run = begin(ledger)
    payload = {"tags": [], "shapes": [SHAPE, SHAPE]}
    upload = ledger.write_upload(run, 7, [3, 4], payload, {"shapes": 9}, [("tags", 5)])
    (stored,) = ledger.uploads(run)
    assert stored == upload
    assert stored.removes == (("tags", 5),)
    ledger.mark_created(upload, {"shapes": [11, None]})
    assert [(m.kind, m.server_id) for m in ledger.made(run=run)] == [("shapes", 11)]
    assert [same_content(m.sent, {**SHAPE, "id": 11}) for m in ledger.made(run=run)] == [True]
    assert ledger.known_ids(7, "http://a") == {("shapes", 11)}
    assert ledger.known_ids(7, "http://b") == set()
    ledger.mark_resent(upload)
    ledger.mark_done(upload)
    (stored,) = ledger.uploads(run, job=7)
    assert (stored.state, stored.resent) == ("done", True)


def test_frames_are_finished_when_written_down_or_skipped(ledger):
    run = begin(ledger)
    ledger.write_upload(run, 7, [0, 1], {}, {}, [])
    ledger.skip(run, 8, 5, "corrupt")
    assert ledger.finished_frames(run) == {(7, 0), (7, 1), (8, 5)}
    assert ledger.skipped(run) == {(8, 5): "corrupt"}


def test_a_refused_upload_is_forgotten(ledger):
    run = begin(ledger)
    upload = ledger.write_upload(run, 7, [0], {"shapes": [SHAPE]}, {}, [])
    ledger.forget_upload(upload)
    assert ledger.uploads(run) == []


def test_what_runs_made_in_a_job_is_told_by_server(ledger):
    for server in ("http://a", "http://b"):
        run = begin(ledger, server)
        ledger.mark_created(ledger.write_upload(run, 7, [3], {"shapes": [SHAPE]}, {}, []), {"shapes": [1]})
    assert len(ledger.made(job=7)) == 2
    assert len(ledger.made(job=7, server="http://b")) == 1


def test_a_run_is_held_by_one(ledger, tmp_path):
    run = begin(ledger)
    refused = pytest.raises(BadRequest, match="another process")
    with ledger.hold(run), Ledger(ledger.path) as other, refused, other.hold(run):
        pass
    with ledger.hold(run):
        pass


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(b"this is no database, not at all, not one bit" * 100)
    with pytest.raises(ConfigError, match="cannot use"):
        Ledger(path)


def test_a_newer_ledger_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    with Ledger(path) as ledger:
        ledger._db.execute("PRAGMA user_version=99")
    with pytest.raises(ConfigError, match="newer cvat-sidecar"):
        Ledger(path)


def test_what_was_removed_is_nobodys_any_more(ledger):
    old, other = begin(ledger), begin(ledger, "http://b")
    for run in (old, other):
        ledger.mark_created(ledger.write_upload(run, 7, [3], {"shapes": [SHAPE]}, {}, []), {"shapes": [1]})
    run = begin(ledger)
    ledger.mark_done(ledger.write_upload(run, 7, [3], {}, {}, [("shapes", 1)]), [("shapes", 1)])
    assert ledger.made(run=old) == []
    assert len(ledger.made(run=other)) == 1, "an equal id of another server is another thing"
    ledger.forget_made(other, 7, [("shapes", 1)])
    assert ledger.made_counts(other) == {"tags": 0, "shapes": 0, "tracks": 0}


def test_only_unsettled_uploads_are_looked_at_again(ledger):
    run = begin(ledger)
    done, resent, sending = (ledger.write_upload(run, 7, [n], {}, {}, []) for n in range(3))
    ledger.mark_resent(resent)
    for upload in (done, resent):
        ledger.mark_done(upload)
    assert [upload.number for upload in ledger.uploads(run, 7, unsettled=True)] == [resent.number, sending.number]


def test_labels_are_counted_by_job(ledger):
    run = begin(ledger)
    for job in (7, 7, 8):
        ledger.write_upload(run, job, [3], {"shapes": [SHAPE, {**SHAPE, "label_id": 2}], "tags": [SHAPE]}, {}, [])
    assert ledger.label_counts(run, 7) == {1: 4, 2: 2}
    assert ledger.jobs(run) == [7, 8]


def test_a_full_disk_is_told_and_leaves_the_ledger_usable(ledger):
    run = begin(ledger)
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count={pages}")
    numbers = list(range(100_000))
    with pytest.raises(ConfigError, match=r"cannot use .* full"):
        begin(ledger, frames={1: numbers})
    ledger._db.execute(f"PRAGMA max_page_count={pages * 1000}")
    begin(ledger, frames={1: numbers})
    assert len(ledger.runs()) == 2
    assert ledger.run(run).status == "running"


def test_a_closed_ledger_is_no_defect(ledger):
    ledger.close()
    with pytest.raises(ConfigError, match="cannot use"):
        ledger.runs()


def test_a_lock_whose_holder_has_just_ended_is_not_taken_over(ledger):
    """Its file is gone: whoever comes next locks a new one, and would not see ours."""
    run = begin(ledger)
    path = ledger.path.with_name(f"{ledger.path.name}.{run}.lock")
    opened = type(path).open

    def open_late(self, *args, **more):
        file = opened(self, *args, **more)
        self.unlink()
        return file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(path), "open", open_late)
        with pytest.raises(BadRequest, match="another process"), ledger.hold(run):
            pass
