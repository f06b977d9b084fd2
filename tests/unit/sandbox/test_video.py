"""Frames of videos are found by number, whatever the container says of their times."""

import av
import numpy as np
import pytest

from agent.sandbox.video import index_video, nth_picture, read_frames, write_video


@pytest.fixture(params=["mp4", "matroska", "mpegts", "avi"])
def film(tmp_path, request):
    """40 frames, keyframes ten apart, reordered frames between; frame n is a grey of 6 n."""
    path = tmp_path / f"film.{request.param}"
    with av.open(str(path), "w", format=request.param) as container:
        stream = container.add_stream("libx264", rate=12, options={"g": "10", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            grey = np.full((48, 64, 3), 6 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("wanted", [[0], [0, 1, 2], [13, 14, 15], [5, 25], [39], list(range(40))], ids=str)
def test_wanted_frames_are_read(film, wanted):
    index = index_video(film)
    assert (index.width, index.height, len(index.times)) == (64, 48, 40)
    found = [frame.to_ndarray(format="rgb24").mean() for frame in read_frames(film, index.times, wanted)]
    assert found == pytest.approx([6 * number for number in wanted], abs=2)


def test_a_chunk_is_written_and_read(film, tmp_path):
    index = index_video(film)
    write_video(tmp_path / "chunk", read_frames(film, index.times, [20, 21]), quality=70, compressed=True)
    assert nth_picture(tmp_path / "chunk", 1).mean() == pytest.approx(126, abs=3)
    with pytest.raises(ValueError, match="no frame 2"):
        nth_picture(tmp_path / "chunk", 2)


def test_odd_sides_are_made_even(tmp_path):
    frames = [av.VideoFrame.from_ndarray(np.zeros((33, 51, 3), np.uint8), format="rgb24")]
    write_video(tmp_path / "chunk", frames, quality=67, compressed=False)
    assert nth_picture(tmp_path / "chunk", 0).shape == (34, 52, 3)


def test_no_frames_make_no_chunk(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "chunk", [], quality=67, compressed=False)
