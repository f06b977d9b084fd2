"""Frames with their detections drawn on them, one file each, and a contact sheet of some of them."""

from __future__ import annotations

import colorsys
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agent.contract import Cuboid, Detection, Ellipse, Frame, Mask, Points, Polygon, Rectangle, Shape, Skeleton
from agent.domain import Roi
from agent.shapes.geometry import bounds, corners

Colour: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

PICTURES = 200
"""How many frames are written."""
CELL = (320, 240)
"""Of a contact sheet, in pixels, without its caption."""
CAPTION = 20
_FACES = (0, 2, 3, 1, 0), (4, 6, 7, 5, 4), (0, 6), (1, 7), (2, 4), (3, 5)
"""Lines of a cuboid, whose corners come edge by edge: front left, front right, back right, back left."""


class Preview:
    """Writes pictures into a folder as frames come; memory does not grow with their number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sheet = ContactSheet()
        self._written = 0

    def add(self, task: int, frame: Frame, detections: Sequence[Detection], region: Roi | None = None) -> None:
        """Draws a frame, if it is among the first ones. Detections are in coordinates of this frame.

        Their labels are drawn as they are: a task's names are for the caller to put there. Outside of the `region`
        that the model saw, the picture is dark.
        """
        if self._written >= PICTURES:
            return
        self._written += 1
        picture = draw(frame, detections, region)
        name = re.sub(r"[^\w.-]+", "_", Path(frame.name).stem)[-60:]
        picture.save(self._folder / f"task-{task}-{frame.index:06}-{name}.jpg", quality=88)
        self._sheet.add(picture, f"{frame.name}: {len(detections)}")

    def close(self) -> Path | None:
        """Writes the contact sheet and tells where it is."""
        return self._sheet.save(self._folder / "contact-sheet.jpg") if len(self._sheet) else None


class ContactSheet:
    """A grid of small pictures, evenly spread over all that were added: when it is full, every other one goes."""

    def __init__(self, limit: int = 24) -> None:
        if limit < 2:
            raise ValueError(f"contact sheet: got a limit of {limit}, allowed: 2 and more")
        self._limit = limit
        self._cells: list[Image.Image] = []
        self._added = 0
        self._step = 1

    def __len__(self) -> int:
        return len(self._cells)

    def add(self, picture: Image.Image, caption: str) -> None:
        """Takes a picture into account; what is kept of it is small."""
        number, self._added = self._added, self._added + 1
        if number % self._step:
            return
        if len(self._cells) == self._limit:
            self._cells = self._cells[::2]
            self._step *= 2
            if number % self._step:
                return
        self._cells.append(_cell(picture, caption))

    def save(self, path: Path) -> Path:
        """Writes the sheet as a picture of up to four columns."""
        columns = max(1, min(len(self._cells), 4))
        width, height = CELL[0] + 6, CELL[1] + CAPTION + 6
        sheet = Image.new("RGB", (columns * width + 6, -(-len(self._cells) // columns) * height + 6), "white")
        for number, cell in enumerate(self._cells):
            sheet.paste(cell, (6 + number % columns * width, 6 + number // columns * height))
        sheet.save(path, quality=90)
        return path


def _cell(picture: Image.Image, caption: str) -> Image.Image:
    cell = Image.new("RGB", (CELL[0], CELL[1] + CAPTION), "white")
    small = picture.copy()
    small.thumbnail(CELL, Image.Resampling.LANCZOS)
    cell.paste(small, ((CELL[0] - small.width) // 2, (CELL[1] - small.height) // 2))
    ImageDraw.Draw(cell).text((4, CELL[1] + 3), caption[-48:], fill="black", font=ImageFont.load_default(size=12))
    return cell


def draw(frame: Frame, detections: Sequence[Detection], region: Roi | None = None) -> Image.Image:
    """The frame with shapes in their label's colour, and label and score beside them; it is not changed itself."""
    picture = Image.fromarray(frame.image).convert("RGB")
    if region is not None:
        picture = _shown_in(picture, (region.left, region.top, region.right, region.bottom))
    drawing = _Drawing(picture)
    # Insides first, so that they cover no line; captions last, so that no line covers them.
    for detection in detections:
        if isinstance(detection.shape, Mask | Polygon):
            drawing.fill(detection.shape, colour_of(detection.label))
    for detection in detections:
        if detection.shape is not None:
            drawing.outline(detection.shape, colour_of(detection.label))
    for detection in detections:
        score = "" if detection.score is None else f" {detection.score:.2f}"
        drawing.caption(detection.shape, detection.label + score, colour_of(detection.label))
    return picture


def _shown_in(picture: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The picture, half as bright outside of the box, and with a thin line around it."""
    right, bottom = min(box[2], picture.width), min(box[3], picture.height)
    dark = picture.point([value // 2 for value in range(256)] * 3)
    dark.paste(picture.crop((box[0], box[1], right, bottom)), (box[0], box[1]))
    ImageDraw.Draw(dark).rectangle((box[0], box[1], right - 1, bottom - 1), outline=(255, 255, 255))
    return dark


def colour_of(label: str) -> Colour:
    """A vivid colour that is always the same for a label."""
    hue = zlib.crc32(label.encode()) % 360 / 360
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


class _Drawing:
    """A picture that is drawn on, with lines and letters that suit its size."""

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture
        self._pen = ImageDraw.Draw(picture)
        self._line = max(2, round(max(picture.size) / 400))
        self._size = max(11, round(max(picture.size) / 55))
        self._font: Font = ImageFont.load_default(size=self._size)
        self._tags = 0

    def fill(self, shape: Mask | Polygon, colour: Colour) -> None:
        """Half covers the inside, in the shape's own box only: a frame may have hundreds."""
        left, top, right, bottom = bounds(shape)
        left, top = max(0, math.floor(left)), max(0, math.floor(top))
        right, bottom = min(self._picture.width, math.ceil(right)), min(self._picture.height, math.ceil(bottom))
        if left >= right or top >= bottom:
            return
        stencil = Image.new("L", (right - left, bottom - top), 0)
        if isinstance(shape, Mask):
            bitmap = Image.fromarray(shape.bitmap.astype(np.uint8) * 115)
            stencil.paste(bitmap, (shape.left - left, shape.top - top))
        else:
            moved = [n - (top if place % 2 else left) for place, n in enumerate(shape.points)]
            ImageDraw.Draw(stencil).polygon(moved, fill=115)
        self._picture.paste(colour, (left, top), stencil)

    def outline(self, shape: Shape, colour: Colour) -> None:
        for points in _lines(shape):
            # A dark rim makes the line visible on a background of its own colour.
            self._pen.line(points, fill=(0, 0, 0), width=self._line + 2, joint="curve")
            self._pen.line(points, fill=colour, width=self._line, joint="curve")
        for x, y in _dots(shape):
            size = self._line * 2.0
            self._pen.ellipse((x - size, y - size, x + size, y + size), fill=colour, outline=(0, 0, 0))

    def caption(self, shape: Shape | None, text: str, colour: Colour) -> None:
        """Writes above the shape, within the picture; tags one below the other in the corner."""
        if shape is None:
            x, y = 4.0, 4 + self._tags * self._size * 1.4
            self._tags += 1
        else:
            x, y, _, _ = bounds(shape)
            y -= self._size * 1.3
        text = " ".join(text.split())
        width = self._pen.textlength(text, font=self._font)
        place = (
            max(2.0, min(x, self._picture.width - width - 2)),
            max(2.0, min(y, self._picture.height - self._size - 4)),
        )
        left, top, right, bottom = self._pen.textbbox(place, text, font=self._font)
        self._pen.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=colour)
        # Black or white, whichever reads better on the colour (Rec. 601 luma).
        luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        self._pen.text(place, text, fill="black" if luma > 140 else "white", font=self._font)


def _lines(shape: Shape) -> list[list[float]]:
    """The lines that show a shape; masks, points and skeletons have none."""
    if isinstance(shape, Rectangle):
        points = corners(shape)
        return [[*points, *points[:2]]]
    if isinstance(shape, Ellipse):
        return [[n for step in range(49) for n in _on_ellipse(shape, step / 48)]]
    if isinstance(shape, Polygon):
        return [[*shape.points, *shape.points[:2]]]
    if isinstance(shape, Cuboid):
        return [[n for corner in line for n in shape.points[2 * corner : 2 * corner + 2]] for line in _FACES]
    return [] if isinstance(shape, Mask | Points | Skeleton) else [list(shape.points)]


def _on_ellipse(shape: Ellipse, share: float) -> tuple[float, float]:
    angle, turn = share * 2 * math.pi, math.radians(shape.rotation)
    x, y = shape.radius_x * math.cos(angle), shape.radius_y * math.sin(angle)
    return shape.x + x * math.cos(turn) - y * math.sin(turn), shape.y + x * math.sin(turn) + y * math.cos(turn)


def _dots(shape: Shape) -> list[tuple[float, float]]:
    if isinstance(shape, Skeleton):
        return [(element.x, element.y) for element in shape.elements if not element.outside]
    return list(zip(shape.points[0::2], shape.points[1::2], strict=True)) if isinstance(shape, Points) else []
