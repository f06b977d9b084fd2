"""Pictures as CVAT shows them: (height, width, 3) uint8 RGB."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIXEL_LIMIT = 300_000_000
"""A picture that decodes to more is refused before it is decoded."""
ORIENTATION = 0x0112
"""EXIF's tag for how a picture is to be turned."""
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns, and large orthophotos are honest work


class BadPicture(Exception):
    """The bytes are no picture that can be decoded; the text says why."""


def decode_picture(content: bytes) -> NDArray[np.uint8]:
    """The picture in a file's bytes, turned as its EXIF orientation says.

    16-bit gray pictures are brought to 8 bits by their highest byte, as CVAT does when it makes its compressed copies;
    transparent ones lose their alpha, as the browser's canvas and CVAT's copies do.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.width * picture.height > PIXEL_LIMIT:
                raise BadPicture(f"{picture.width}x{picture.height} pixels, allowed: {PIXEL_LIMIT:,} in all")
            if (quick := _quick_jpeg(picture, content)) is not None:
                return quick
            picture.load()
            turned = ImageOps.exif_transpose(picture)
            return np.array(_rgb(turned))
    except BadPicture:
        raise
    except Exception as error:  # Pillow raises anything on damaged files: OSError, SyntaxError, struct.error, …
        raise BadPicture(f"cannot be decoded: {str(error)[:150] or type(error).__name__}") from error


def _quick_jpeg(picture: Image.Image, content: bytes) -> NDArray[np.uint8] | None:
    """A plain JPEG by OpenCV, which gives the same pixels as Pillow in two thirds of the time; None for other files.

    OpenCV fills up what is missing of a file that was cut short, so only whole ones are given to it.
    """
    whole = content.rfind(b"\xff\xd9", len(content) - 64) >= 0
    if picture.format != "JPEG" or picture.mode != "RGB" or not whole or picture.getexif().get(ORIENTATION, 1) != 1:
        return None
    import cv2

    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    return found if found is not None and found.shape[:2] == (picture.height, picture.width) else None


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I"):
        wide = np.asarray(picture).astype(np.int64)
        high = wide.max(initial=0)
        # "I" may hold anything; only what goes beyond a byte is scaled down.
        narrow = wide >> 8 if high > 255 else wide
        return Image.fromarray(narrow.clip(0, 255).astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")


def decode_video(content: bytes) -> Iterator[NDArray[np.uint8]]:
    """The frames of an mp4 chunk one after the other; BadPicture where the stream is damaged."""
    import av

    try:
        with av.open(io.BytesIO(content)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # the decoders of neighbouring chunks run side by side already
            for frame in container.decode(stream):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise BadPicture(f"the video chunk cannot be decoded: {str(error)[:150]}") from error
