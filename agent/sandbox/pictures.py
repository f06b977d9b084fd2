"""Pictures: what an uploaded file is, how it is shown, and its JPEG of lower quality."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

_ORIENTATION = 0x0112
# CVAT shows panoramas and maps; a decompression bomb is still refused.
MAX_PIXELS = 300_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2


@dataclass(frozen=True)
class PictureInfo:
    """Size as shown, and whether EXIF says that the stored pixels have to be turned for that."""

    width: int
    height: int
    rotated: bool


def probe(path: Path) -> PictureInfo:
    """What a picture file is, from its header; raises PIL.UnidentifiedImageError where it is none."""
    with Image.open(path) as image:
        turn = image.getexif().get(_ORIENTATION, 1)
        width, height = image.size
        if turn in (5, 6, 7, 8):
            width, height = height, width
        return PictureInfo(width, height, turn not in (0, 1))


def original(path: Path, *, rotated: bool) -> bytes:
    """A picture of original quality: the file itself, or a turned copy of it in the same format."""
    if not rotated:
        return path.read_bytes()
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        out = io.BytesIO()
        more: dict[str, Any] = {"quality": 100, "subsampling": 0} if image.format == "JPEG" else {}
        upright.save(out, format=image.format, **more)
    return out.getvalue()


def compressed(source: Path | np.ndarray[Any, Any], quality: int) -> bytes:
    """A JPEG of the picture as shown."""
    return jpeg(shown(source), quality)


def shown(source: Path | np.ndarray[Any, Any]) -> Image.Image:
    """The picture as CVAT shows it: upright, eight bits, RGB."""
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    with Image.open(source) as image:
        return _eight_bit(ImageOps.exif_transpose(image)).convert("RGB")


def jpeg(image: Image.Image, quality: int) -> bytes:
    """The JPEG of an RGB picture."""
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """The PNG of an RGB array."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def preview(source: Path | np.ndarray[Any, Any]) -> bytes:
    """A JPEG of at most 256x256."""
    image = shown(source)
    image.thumbnail((256, 256))
    return jpeg(image, 85)


def _eight_bit(image: Image.Image) -> Image.Image:
    """16 and 32 bit greys scaled to what a JPEG can hold (PIL would clip them)."""
    if not image.mode.startswith(("I", "F")):
        return image
    pixels = np.asarray(image).astype(np.float64)
    peak = float(pixels.max()) or 1.0
    grey = Image.fromarray((pixels.clip(0) * (255 / peak)).astype(np.uint8))
    # CVAT equalizes 16-bit pictures, which often use a small part of their range only.
    return ImageOps.equalize(grey) if image.mode.startswith("I;16") else grey
