"""Tasks in a sandbox, made through the real SDK from pictures and videos that carry their frame number."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from agent.cvat.session import Session

BITS, BLOCK = 12, 16
"""A number is drawn as a row of black and white blocks, large enough to survive JPEG and H.264."""
SIZE = (320, 240)


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    """(height, width, 3) uint8: a gradient with the number in its top rows."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    image = np.stack([x % 200, y % 200, (x + y + 7 * number) % 200], axis=-1).astype(np.uint8)
    for bit in range(BITS):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 if number >> bit & 1 else 0
    return image


def number_of(image: np.ndarray[Any, Any]) -> int:
    """The number that a picture carries."""
    centres = [image[BLOCK // 2, bit * BLOCK + BLOCK // 2].mean() > 127 for bit in range(BITS)]
    return sum(1 << bit for bit, white in enumerate(centres) if white)


def picture_bytes(number: int, kind: str = "JPEG", size: tuple[int, int] = SIZE, **more: Any) -> bytes:
    """A picture file that carries a number."""
    out = io.BytesIO()
    settings = {"quality": 92, **more} if kind == "JPEG" else more
    Image.fromarray(numbered(number, size)).save(out, format=kind, **settings)
    return out.getvalue()


def write_video(path: Path, frames: int, size: tuple[int, int] = SIZE) -> Path:
    """A video whose frames carry their number in the file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number, size), format="rgb24")))
        container.mux(stream.encode())
    return path


def make_task(
    session: Session, files: Sequence[Path], *, labels: Sequence[dict[str, Any]] | None, project: int | None = None,
    segment_size: int | None = None, overlap: int | None = None, **data: Any,
) -> int:  # fmt: skip
    """A task of these files."""
    session.log_in()
    spec: dict[str, Any] = {"name": f"task of {len(files)} files"}
    chosen = list(labels) if labels is not None else None
    more = {"labels": chosen, "project_id": project, "segment_size": segment_size, "overlap": overlap}
    spec |= {name: value for name, value in more.items() if value is not None}
    session.client.config.status_check_period = 0.05
    params = {"image_quality": 95, "chunk_size": 4, **data}
    return int(session.client.tasks.create_from_data(spec, [str(file) for file in files], data_params=params).id)


def make_image_task(
    session: Session, *, count: int, labels: Sequence[dict[str, Any]] | None = ({"name": "thing"},),
    size: tuple[int, int] = SIZE, **more: Any,
) -> int:  # fmt: skip
    """A task of `count` JPEG pictures; picture n carries the number n."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number:04}.jpg" for number in range(count)]
        for number, file in enumerate(files):
            file.write_bytes(picture_bytes(number, size=size))
        return make_task(session, files, labels=labels, **more)


def make_video_task(
    session: Session, *, frames: int, labels: Sequence[dict[str, Any]] | None = ({"name": "thing"},),
    size: tuple[int, int] = SIZE, **more: Any,
) -> int:  # fmt: skip
    """A video task; frame n of the file carries the number n."""
    with tempfile.TemporaryDirectory() as folder:
        return make_task(session, [write_video(Path(folder) / "clip.mp4", frames, size)], labels=labels, **more)
