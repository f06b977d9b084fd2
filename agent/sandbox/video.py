"""Reading and writing video with PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame


@dataclass(frozen=True)
class VideoIndex:
    """Size of the pictures as shown, and the presentation times of the frames, ascending."""

    width: int
    height: int
    times: list[int]


def index_video(path: Path) -> VideoIndex:
    """Finds the frames without decoding them (only the first one is); raises av.FFmpegError or ValueError."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        times = sorted({packet.pts for packet in packets if packet.pts is not None})
        # AVI has no presentation times; what stands for them is wrong where frames are reordered.
        whole = len(times) == len(packets) and container.format.name != "avi"
    with av.open(str(path)) as container:
        first = next(iter(container.decode(video=0)), None)
        if first is None:
            raise ValueError("no frames")
        if not whole:
            # Without times frames are counted, not looked up.
            times = list(range(1 + sum(1 for _ in container.decode(video=0))))
    width, height = first.width, first.height
    if _rotation(first) % 180:
        width, height = height, width
    return VideoIndex(width, height, times if whole else [-1] * len(times))


def _rotation(frame: VideoFrame) -> int:
    return int(getattr(frame, "rotation", 0)) % 360


def _upright(frame: VideoFrame) -> VideoFrame:
    """The frame as players show it."""
    turns = _rotation(frame) // 90
    if not turns:
        return frame
    return VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns)), "rgb24")


def read_frames(path: Path, times: Sequence[int], wanted: Sequence[int]) -> Iterator[VideoFrame]:
    """The wanted frames of the source (numbers, ascending), from the keyframe before the first one on."""
    if not wanted:
        return
    found = 0
    if times[0] >= 0:
        for frame in _sought(path, times, wanted):
            found += 1
            yield frame
    if found < len(wanted):
        # A file without usable times, or one whose seeking misses: decode from the start and count.
        yield from _counted(path, wanted[found:])


def _sought(path: Path, times: Sequence[int], wanted: Sequence[int]) -> Iterator[VideoFrame]:
    number_at = {time: number for number, time in enumerate(times)}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        container.seek(times[wanted[0]], stream=stream, backward=True)
        at = 0
        for frame in container.decode(stream):
            number = number_at.get(frame.pts) if frame.pts is not None else None
            if number == wanted[at]:
                yield _upright(frame)
                at += 1
                if at == len(wanted):
                    return
            elif number is not None and number > wanted[at]:
                return


def _counted(path: Path, wanted: Sequence[int]) -> Iterator[VideoFrame]:
    left = set(wanted)
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in left:
                yield _upright(frame)
                if number == wanted[-1]:
                    return


def write_video(path: Path, frames: Iterable[VideoFrame], *, quality: int, compressed: bool) -> None:
    """Writes a chunk: H.264, even sides; a compressed one is halved while 1080 high or more."""
    # As CVAT: quality 1..100 becomes a constant rate factor of 51..0.
    options = {"crf": str(round(51 * (100 - quality) / 99)), "preset": "ultrafast"}
    if compressed:
        options |= {"profile": "baseline", "coder": "0", "wpredp": "0", "flags": "-loop"}
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = None
        for frame in frames:
            if stream is None:
                factor = 1
                while compressed and frame.height / factor >= 1080:
                    factor *= 2
                width, height = frame.width // factor, frame.height // factor
                stream = container.add_stream("libx264", rate=25, options=options)
                stream.width, stream.height = width + width % 2, height + height % 2
                stream.pix_fmt = "yuv420p"
            plain = frame.reformat(stream.width, stream.height, "yuv420p")
            plain.pts, plain.time_base = None, Fraction(0, 1)
            container.mux(stream.encode(plain))
        if stream is None:
            raise ValueError("no frames for this chunk")
        container.mux(stream.encode())


def nth_picture(path: Path, number: int) -> np.ndarray[Any, Any]:
    """A frame of a chunk file as an RGB array."""
    with av.open(str(path)) as container:
        for at, frame in enumerate(container.decode(video=0)):
            if at == number:
                pixels: np.ndarray[Any, Any] = frame.to_ndarray(format="rgb24")
                return pixels
    raise ValueError(f"the chunk has no frame {number}")
