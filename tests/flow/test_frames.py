"""Frames as they come from a server: the right picture for every number, ahead, in bounded memory, whatever breaks."""

import threading

import numpy as np
import pytest
from PIL import Image

from agent.cvat.chunks import BadFrame
from agent.cvat.frames import ChunkFrames, fetch_frame
from agent.cvat.session import open_session
from agent.cvat.work import find_work
from agent.errors import ServerUnavailable
from agent.options import Target
from agent.settings.server import ServerSettings
from tests.support.material import make_image_task, make_task, make_video_task, number_of, picture_bytes

DATA = {"method": "GET", "path": r"/api/jobs/\d+/data"}


def places(session, task, **more):
    """(job, frame) of all that is to be annotated in a task."""
    (work,) = find_work(session, Target("task", task), **more)
    return [(job, frame) for job in work.jobs for frame in job.frames]


def numbers(session, wanted, **more):
    return [(frame.index, number_of(frame.image)) for frame in ChunkFrames(session, **more).read(wanted)]


@pytest.mark.parametrize("quality", ["compressed", "original"])
@pytest.mark.parametrize("segment_size", [None, 5])
def test_image_tasks(session, quality, segment_size):
    task = make_image_task(session, count=13, segment_size=segment_size)
    wanted = places(session, task)
    assert numbers(session, wanted, quality=quality) == [(n, n) for n in range(13)]


@pytest.mark.parametrize("quality", ["compressed", "original"])
def test_a_video_task_whose_jobs_overlap(session, quality):
    task = make_video_task(session, frames=30, segment_size=10, overlap=3, chunk_size=6)
    wanted = places(session, task)
    assert len({job.id for job, _ in wanted}) == 4
    assert [frame for _, frame in wanted] == list(range(30)), "a frame that two jobs share is wanted once"
    assert numbers(session, wanted, quality=quality) == [(n, n) for n in range(30)]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_video_task_with_start_stop_and_step(session, zipped):
    task = make_video_task(
        session, frames=60, start_frame=10, stop_frame=52, frame_step=3, chunk_size=4, segment_size=8,
        use_zip_chunks=zipped,
    )  # fmt: skip
    found = numbers(session, places(session, task))
    assert found == [(n, 10 + 3 * n) for n in range(15)]


def test_only_the_chunks_that_are_needed_are_downloaded(sandbox, session):
    task = make_image_task(session, count=20)
    wanted = [place for place in places(session, task) if place[1] in (1, 2, 17)]
    before = len(list(sandbox.requests))
    assert numbers(session, wanted) == [(1, 1), (2, 2), (17, 17)]
    assert sum("/data" in entry.path for entry in list(sandbox.requests)[before:]) == 2


def test_deleted_frames_are_left_out_and_the_others_keep_their_places(session):
    task = make_image_task(session, count=9)
    session.request("PATCH", f"/api/tasks/{task}/data/meta", body={"deleted_frames": [0, 5]})
    assert numbers(session, places(session, task)) == [(n, n) for n in (1, 2, 3, 4, 6, 7, 8)]


def test_ground_truth_jobs_are_left_out_unless_asked_for(session):
    task = make_image_task(session, count=10)
    body = {"type": "ground_truth", "task_id": task, "frame_selection_method": "manual", "frames": [7, 2, 5]}
    session.request("POST", "/api/jobs", body=body)
    assert len(places(session, task)) == 10
    wanted = places(session, task, ground_truth=True)
    by_kind = {kind: [frame for job, frame in wanted if job.type == kind] for kind in ("annotation", "ground_truth")}
    assert by_kind == {"annotation": [*range(10)], "ground_truth": [2, 5, 7]}
    assert [n for n, carried in numbers(session, wanted) if n != carried] == []


def test_a_ground_truth_job_of_a_video_with_start_and_step(session):
    task = make_video_task(session, frames=60, start_frame=10, frame_step=3, chunk_size=4)
    body = {"type": "ground_truth", "task_id": task, "frame_selection_method": "manual", "frames": [1, 4, 9, 12, 15]}
    session.request("POST", "/api/jobs", body=body)
    wanted = [place for place in places(session, task, ground_truth=True) if place[0].type == "ground_truth"]
    assert numbers(session, wanted) == [(n, 10 + 3 * n) for n in (1, 4, 9, 12, 15)]


@pytest.fixture
def odd_pictures(tmp_path):
    """Pictures of every mode, all showing a gray ramp whose top left corner is dark."""
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    rgb = Image.fromarray(np.stack([ramp] * 3, -1))
    made = {
        "a-gray.png": Image.fromarray(ramp),
        "b-rgba.png": rgb.convert("RGBA"),
        "c-palette.png": rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=256),
        "d-sixteen.png": Image.fromarray(ramp.astype(np.uint16) * 257),
        "e-cmyk.jpg": rgb.convert("CMYK"),
        "f-plain.jpg": rgb,
    }
    for name, picture in made.items():
        picture.save(tmp_path / name)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees to be shown upright
    rgb.save(tmp_path / "g-turned.jpg", exif=exif)
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize("quality", ["compressed", "original"])
def test_pictures_of_every_mode_come_as_cvat_shows_them(session, odd_pictures, quality):
    task = make_task(session, odd_pictures, labels=[{"name": "thing"}])
    frames = list(ChunkFrames(session, quality=quality).read(places(session, task)))
    assert [type(frame).__name__ for frame in frames] == ["Frame"] * 7
    for frame in frames[:-1]:
        assert frame.image.shape == (48, 64, 3), frame.name
        row = frame.image[24].mean(axis=-1)
        assert row[2] < 40, frame.name
        assert row[-2] > 200, frame.name
        assert (np.diff(row[::8]) > 0).all(), frame.name
    turned = frames[-1].image
    assert turned.shape == (64, 48, 3)
    assert turned[2].mean() < 40 < 200 < turned[-2].mean()


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 429}, {"status": 502}, {"cut": True}, {"cut": True, "when": "after"}], ids=str
)
def test_a_fault_is_outlived(sandbox, session, fault):
    task = make_image_task(session, count=9)
    wanted = places(session, task)
    sandbox.faults.add(**DATA, **{"when": "before", **fault}, count=2)
    assert numbers(session, wanted) == [(n, n) for n in range(9)]


def test_a_server_that_has_no_chunk_is_an_error(sandbox, session):
    task = make_image_task(session, count=9)
    wanted = places(session, task)
    sandbox.faults.add(**DATA, status=500, when="before", count=10_000)
    settings = ServerSettings(host=sandbox.url, user="bot", password="secret", retries=1)
    with open_session(settings) as impatient, pytest.raises(ServerUnavailable, match="status 500"):
        list(ChunkFrames(impatient).read(wanted))


def test_an_iterator_that_is_left_early_leaves_no_thread(session):
    task = make_image_task(session, count=40)
    before = set(threading.enumerate())
    source = ChunkFrames(session, ahead_bytes=1).read(places(session, task))
    assert next(source).index == 0
    source.close()
    assert {t for t in set(threading.enumerate()) - before if t.name.startswith(("download", "decode"))} == set()


def test_decoded_frames_that_wait_are_bounded_in_bytes(session, monkeypatch):
    task = make_image_task(session, count=40, chunk_size=20)
    decoded, taken, most = [0], 0, 0
    import agent.cvat.reading_ahead as module

    original = module.decode_chunk

    def counting(chunk, content, **more):
        for frame in original(chunk, content, **more):
            decoded[0] += 1
            yield frame

    monkeypatch.setattr(module, "decode_chunk", counting)
    size = 320 * 240 * 3
    for _ in ChunkFrames(session, ahead_bytes=6 * size).read(places(session, task)):
        taken += 1
        most = max(most, decoded[0] - taken)
    assert taken == 40
    assert most <= 6 + 2, "what fits, and one in the hands of each decoder"


def test_one_corrupt_picture_does_not_cost_its_chunk(sandbox, session, tmp_path):
    """The server keeps the uploaded bytes; a picture cut short after its header passes its check."""
    files = []
    for number in range(6):
        files.append(tmp_path / f"{number}.jpg")
        files[-1].write_bytes(picture_bytes(number))
    task = make_task(session, files, labels=[{"name": "thing"}])
    stored = sandbox.state.media(sandbox.state.tasks.rows[task].data_id)
    (victim,) = [path for path in stored.rglob("*") if path.name == "3.jpg"]
    victim.write_bytes(victim.read_bytes()[:300])
    frames = list(ChunkFrames(session, quality="original").read(places(session, task)))
    assert [frame.index for frame in frames] == list(range(6))
    assert [frame.index for frame in frames if isinstance(frame, BadFrame)] == [3]
    assert "cannot be decoded" in frames[3].reason


def test_a_single_frame(session):
    task = make_video_task(session, frames=12, segment_size=6, overlap=0)
    job, frame = places(session, task)[8]
    assert number_of(fetch_frame(session, job, frame).image) == 8
