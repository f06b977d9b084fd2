"""Pictures as CVAT shows them: (height, width, 3) uint8 RGB, of the size that annotations are drawn in."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from agent.cvat.buffers import BUFFERS
from agent.errors import SidecarError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

PIXEL_LIMIT = 300_000_000
"""A picture that decodes to more is refused before it is decoded."""
ORIENTATION = 0x0112
"""EXIF's tag for how a picture is to be turned."""

Size = tuple[int, int]
"""Width and height."""


class BadPicture(Exception):
    """The bytes are no picture that can be decoded; the text says why."""


class TooLarge(BadPicture):
    """The picture has more pixels than are allowed; it was not decoded."""


def decode_picture(
    content: bytes,
    size: Size | None = None,
    *,
    limit: int = PIXEL_LIMIT,
    formats: tuple[str, ...] | None = None,
    admit: Callable[[int], None] = lambda pixels: None,
) -> NDArray[np.uint8]:
    """The picture in a file's bytes, turned as its EXIF orientation says, in the size that the server says it has.

    Transparent pictures lose their alpha, as the browser's canvas and CVAT's compressed copies do. `limit` bounds the
    pixels, before they are decoded; `formats` are Pillow's names of those that may come (all where it is not said).
    `admit(pixels)` is asked before they are decoded; what it raises is raised.
    """
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < PIXEL_LIMIT:
        # Pillow's own limit is lower; maps and panoramas are larger than that, and CVAT shows them.
        Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT
    try:
        with Image.open(io.BytesIO(content), formats=formats) as picture:
            if picture.width * picture.height > (limit := min(limit, PIXEL_LIMIT)):
                raise TooLarge(f"got {picture.width}x{picture.height} pixels, allowed: {limit:,} in all")
            admit(picture.width * picture.height)
            if (image := _quick_jpeg(picture, content)) is None:
                picture.load()
                image = np.array(as_rgb(ImageOps.exif_transpose(picture)))
            return _fitted(image, size)
    except (BadPicture, SidecarError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"it has far too many pixels, allowed: {limit:,} in all") from error
    except UnidentifiedImageError as error:
        raise BadPicture("cannot be decoded: it is no picture, or of a format that is not known here") from error
    except Exception as error:  # Pillow raises anything on damaged files: OSError, SyntaxError, struct.error, …
        raise BadPicture(f"cannot be decoded: {str(error)[:150] or type(error).__name__}") from error


def _quick_jpeg(picture: Image.Image, content: bytes) -> NDArray[np.uint8] | None:
    """A plain JPEG by libjpeg-turbo, right into memory that was used before: the pixels that Pillow gives, in less than
    half of the time. None for other files, and for damaged ones, which Pillow may still read.
    """
    if picture.format != "JPEG" or picture.mode != "RGB" or picture.getexif().get(ORIENTATION, 1) != 1:
        return None
    pixels = BUFFERS.empty(picture.height, picture.width)
    try:
        found: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, buffer=pixels)
    except ValueError:
        return None
    return found if found.shape == pixels.shape else None


def _fitted(image: NDArray[np.uint8], size: Size | None) -> NDArray[np.uint8]:
    got = (image.shape[1], image.shape[0])
    if size is None or got == size:
        return image
    _check_shape(got, size)
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _check_shape(got: Size, size: Size) -> None:
    """Refuses what is another picture than the server speaks of; its shapes would land anywhere."""
    across, down = got[0] / size[0], got[1] / size[1]
    if min(across, down) < 1 / 16 or not 0.9 < across / down < 1.1:
        raise BadPicture(f"it is {got[0]}x{got[1]}, the server says {size[0]}x{size[1]}")


def as_rgb(picture: Image.Image) -> Image.Image:
    """Three channels of eight bits; deep grays become what CVAT makes of them in its compressed copies.

    Source: _compress_image in cvat/apps/engine/media_extractors.py.
    """
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16"):
        # Often only a small part of the range is in use: it is stretched, and then equalized.
        deep = np.asarray(picture).astype(np.float64)
        low, high = deep.min(), deep.max()
        gray = ((deep - low) * (255 / max(high - low, 1))).astype(np.uint8)
        return ImageOps.equalize(Image.fromarray(gray)).convert("RGB")
    if picture.mode == "I":
        deep = np.asarray(picture).astype(np.float64)
        gray = (deep * (256 / max(deep.max(), 1))).clip(0, 255).astype(np.uint8)
        return Image.fromarray(gray).convert("RGB")
    return picture.convert("RGB")


def decode_video(
    content: bytes, places: Collection[int], size: Size | None = None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(place, picture) of the frames at these places of an mp4 chunk, one after the other.

    A chunk can be smaller than its video: the compressed ones of 1080 lines and more are halved, and odd sides are
    made even. BadPicture where the stream is damaged.
    """
    import av

    last = max(places)
    try:
        with av.open(io.BytesIO(content)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # the decoders of neighbouring chunks run side by side already
            for place, frame in enumerate(container.decode(stream)):
                if place in places:
                    yield place, _pixels(frame, size)
                if place == last:
                    return
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise BadPicture(f"the video chunk cannot be decoded: {str(error)[:150]}") from error


def _pixels(frame: VideoFrame, size: Size | None) -> NDArray[np.uint8]:
    if size is not None and size != (frame.width, frame.height):
        _check_shape((frame.width, frame.height), size)
        frame = frame.reformat(width=size[0], height=size[1], format="rgb24")
    (plane,) = frame.reformat(format="rgb24").planes
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
    pixels = BUFFERS.empty(frame.height, frame.width)
    pixels[:] = rows[:, : 3 * frame.width].reshape(pixels.shape)
    return pixels
