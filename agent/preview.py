"""Frames with their detections drawn on them, one file each, and a contact sheet of the first ones."""

from __future__ import annotations

import colorsys
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agent.contract import Detection, Ellipse, Frame, Mask, Polygon, Rectangle, Shape, Skeleton
from agent.geometry import bounds, corners

PICTURES, SHEET = 200, 24
"""How many frames are written, and how many of them stand on the sheet."""
CELL = (320, 240)


class Preview:
    """Writes pictures into a folder as frames come; memory does not grow with their number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._cells: list[Image.Image] = []
        self._written = 0

    def add(self, task: int, frame: Frame, detections: Sequence[Detection]) -> None:
        """Draws a frame, if it is among the first ones."""
        if self._written >= PICTURES:
            return
        self._written += 1
        picture = draw(frame, detections)
        name = re.sub(r"[^\w.-]+", "_", Path(frame.name).stem)[-60:]
        picture.save(self._folder / f"task-{task}-{frame.index:06}-{name}.jpg", quality=88)
        if len(self._cells) < SHEET:
            self._cells.append(_cell(picture, f"{frame.name}: {len(detections)}"))

    def close(self) -> Path | None:
        """Writes the contact sheet and tells where it is."""
        if not self._cells:
            return None
        path = self._folder / "contact-sheet.jpg"
        _sheet(self._cells).save(path, quality=90)
        return path


def draw(frame: Frame, detections: Sequence[Detection]) -> Image.Image:
    """The frame with shapes in their label's colour, and label and score beside them."""
    picture = Image.fromarray(frame.image).convert("RGB")
    line = max(2, round(max(picture.size) / 400))
    size = max(11, round(max(picture.size) / 55))
    font = ImageFont.load_default(size=size)
    for detection in detections:
        if isinstance(detection.shape, Mask | Polygon):
            picture = _tint(picture, detection.shape, colour_of(detection.label))
    pen = ImageDraw.Draw(picture)
    tags = 0
    for detection in detections:
        colour, text = colour_of(detection.label), detection.label
        if detection.score is not None:
            text += f" {detection.score:.2f}"
        if detection.shape is None:
            _caption(pen, (4, 4 + tags * (size * 1.4)), text, colour, font)
            tags += 1
            continue
        _outline(pen, detection.shape, colour, line)
        left, top, _, _ = bounds(detection.shape)
        _caption(pen, (max(left, 0), max(top - size * 1.3, 0)), text, colour, font)
    return picture


def colour_of(label: str) -> tuple[int, int, int]:
    """A vivid colour that is always the same for a label."""
    hue = zlib.crc32(label.encode()) % 360 / 360
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _outline(pen: ImageDraw.ImageDraw, shape: Shape, colour: tuple[int, int, int], line: int) -> None:
    if isinstance(shape, Rectangle):
        points = corners(shape)
        pen.line([*points, *points[:4]], fill=colour, width=line, joint="curve")
    elif isinstance(shape, Ellipse):
        points = [n for step in range(49) for n in _on_ellipse(shape, step / 48)]
        pen.line(points, fill=colour, width=line, joint="curve")
    elif isinstance(shape, Skeleton):
        for element in shape.elements:
            if not element.outside:
                _dot(pen, element.x, element.y, colour, line)
    elif isinstance(shape, Polygon):
        pen.line([*shape.points, *shape.points[:2]], fill=colour, width=line, joint="curve")
    elif not isinstance(shape, Mask):
        if shape.type != "points":
            pen.line(list(shape.points), fill=colour, width=line)
        for x, y in zip(shape.points[0::2], shape.points[1::2], strict=True):
            _dot(pen, x, y, colour, line)


def _on_ellipse(shape: Ellipse, share: float) -> tuple[float, float]:
    angle, turn = share * 2 * math.pi, math.radians(shape.rotation)
    x, y = shape.radius_x * math.cos(angle), shape.radius_y * math.sin(angle)
    return shape.x + x * math.cos(turn) - y * math.sin(turn), shape.y + x * math.sin(turn) + y * math.cos(turn)


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, colour: tuple[int, int, int], line: int) -> None:
    size = line * 1.5
    pen.ellipse((x - size, y - size, x + size, y + size), fill=colour)


def _tint(picture: Image.Image, shape: Mask | Polygon, colour: tuple[int, int, int]) -> Image.Image:
    """The picture with the shape's inside half covered by the colour."""
    stencil = Image.new("L", picture.size, 0)
    if isinstance(shape, Mask):
        stencil.paste(Image.fromarray(shape.bitmap.astype(np.uint8) * 115), (shape.left, shape.top))
    else:
        ImageDraw.Draw(stencil).polygon(list(shape.points), fill=115)
    return Image.composite(Image.new("RGB", picture.size, colour), picture, stencil)


def _caption(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, top, right, bottom = pen.textbbox(place, text, font=font)
    pen.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=colour)
    # Black or white, whichever reads better on the colour (Rec. 601 luma).
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    pen.text(place, text, fill="black" if luma > 140 else "white", font=font)


def _cell(picture: Image.Image, caption: str) -> Image.Image:
    cell = Image.new("RGB", (CELL[0], CELL[1] + 20), "white")
    small = picture.copy()
    small.thumbnail(CELL, Image.Resampling.LANCZOS)
    cell.paste(small, ((CELL[0] - small.width) // 2, (CELL[1] - small.height) // 2))
    ImageDraw.Draw(cell).text((4, CELL[1] + 3), caption[-48:], fill="black", font=ImageFont.load_default(size=12))
    return cell


def _sheet(cells: Sequence[Image.Image]) -> Image.Image:
    columns = min(len(cells), 4)
    width, height = cells[0].size
    sheet = Image.new("RGB", (columns * (width + 6) + 6, -(-len(cells) // columns) * (height + 6) + 6), "white")
    for number, cell in enumerate(cells):
        sheet.paste(cell, (6 + number % columns * (width + 6), 6 + number // columns * (height + 6)))
    return sheet
