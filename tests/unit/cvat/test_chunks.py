"""Which chunks hold which frames, and what is in their bytes."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from agent.cvat.chunks import BadFrame, Chunk, chunks_of, decode_chunk
from agent.cvat.work import JobWork
from agent.errors import ServerUnavailable


def job(start=0, stop=9, *, chunk_size=4, included=None, names=None, number=1):
    positions = tuple(range(start, stop + 1)) if included is None else included
    names = names or tuple(f"{frame}.png" for frame in positions)
    return JobWork(
        id=number, task_id=1, type="annotation", start=start, stop=stop, frames=positions, positions=positions,
        chunk_size=chunk_size, names=names, sizes=((8, 6),) * len(names), state="new", stage="annotation",
    )  # fmt: skip


def planned(job, *frames):
    return [(chunk.index, *chunk.wanted) for chunk in chunks_of((job, frame) for frame in frames)]


def test_chunks_count_from_the_jobs_start():
    assert planned(job(20, 44, chunk_size=10), 20, 29, 30, 44) == [
        (0, (20, 0), (29, 9)), (1, (30, 0)), (2, (44, 4)),
    ]  # fmt: skip


def test_places_in_a_chunk_ascend():
    assert planned(job(), 1, 0, 0, 2) == [(0, (1, 1)), (0, (0, 0)), (0, (0, 0), (2, 2))]


def test_a_job_of_some_frames_has_them_side_by_side():
    some = job(0, 99, chunk_size=2, included=(5, 40, 41, 99))
    assert planned(some, 5, 41, 99) == [(0, (5, 0)), (1, (41, 0), (99, 1))]


def test_jobs_do_not_share_chunks():
    one, other = job(number=1), job(number=2)
    assert [(c.job.id, c.index) for c in chunks_of([(one, 0), (other, 0), (other, 1), (one, 0)])] == [
        (1, 0), (2, 0), (1, 0),
    ]  # fmt: skip


def test_nothing_wanted():
    assert list(chunks_of([])) == []


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (job(5, 9), "7.png"),
        (job(0, 9, included=(1, 7)), "7.png"),
        (job(0, 9, included=(1, 7), names=tuple(f"of task {n}" for n in range(10))), "of task 7"),
        (job(0, 9, names=("clip.mp4",)), "clip.mp4#7"),
        (job(7, 7, names=("7.png",)), "7.png"),
    ],
)
def test_names_and_sizes(work, name):
    assert work.name_of(7) == name
    assert work.size_of(7) == (8, 6)


def zipped(*members):
    """A chunk of (name, gray or bytes)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members:
            if isinstance(content, int):
                picture = io.BytesIO()
                Image.fromarray(np.full((6, 8), content, np.uint8)).save(picture, format="PNG")
                content = picture.getvalue()
            archive.writestr(name, content)
    return out.getvalue()


def decoded(chunk, content):
    return {
        frame.index: frame.reason if isinstance(frame, BadFrame) else int(frame.image[0, 0, 0])
        for frame in decode_chunk(chunk, content)
    }


def test_members_stand_in_frame_order():
    chunk = Chunk(job(), 2, ((8, 0), (9, 1)))
    assert decoded(chunk, zipped(("000000.jpeg", 10), ("000001.png", 20))) == {8: 10, 9: 20}
    assert decoded(chunk, zipped(("z.png", 10), ("a.png", 20))) == {8: 10, 9: 20}


def test_where_members_are_missing_their_numbers_tell():
    chunk = Chunk(job(), 0, ((0, 0), (1, 1), (3, 3)))
    found = decoded(chunk, zipped(("000001.jpeg", 10), ("000003.jpeg", 30)))
    assert "2 pictures, expected 4" in found.pop(0)
    assert found == {1: 10, 3: 30}


def test_a_damaged_picture_does_not_cost_its_neighbours():
    chunk = Chunk(job(), 2, ((8, 0), (9, 1)))
    found = decoded(chunk, zipped(("000000.png", b"no picture"), ("000001.png", 20)))
    assert "cannot be decoded" in found[8]
    assert found[9] == 20


def test_a_member_whose_bytes_changed():
    content = bytearray(zipped(("000000.png", 10), ("000001.png", 20)))
    content[70] ^= 0xFF
    found = decoded(Chunk(job(), 2, ((8, 0), (9, 1))), bytes(content))
    assert isinstance(found[8], str)
    assert found[9] == 20


def test_placeholders_are_no_frames():
    chunk = Chunk(job(), 2, ((8, 0), (9, 1)))
    out = io.BytesIO()
    Image.new("RGB", (1, 1)).save(out, format="JPEG")
    found = decoded(chunk, zipped(("000000.jpeg", out.getvalue()), ("000001.jpeg", 20)))
    assert "1x1, the server says 8x6" in found[8]
    assert found[9] == 20


def test_a_zip_that_is_none():
    with pytest.raises(ServerUnavailable, match="job 1, chunk 0: it is no readable zip"):
        decoded(Chunk(job(), 0, ((0, 0),)), b"PK\x03\x04 and no more")


@pytest.mark.parametrize("content", [b"", b"<html>", b"\0\0\0\x20ftypisom"])
def test_what_is_no_video(content):
    assert "video chunk" in decoded(Chunk(job(), 0, ((0, 0),)), content)[0]
