"""The made-up sequences as pictures: crops of real persons and vehicles that move over a real picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from agent.contract import Frame
from tests.support.coco import load_ground_truth
from tests.support.sequences import Sequence as Made

Crop = tuple[Any, Any]
"""(h, w, 3) pixels, and (h, w) which of them are the thing's."""
_KINDS = {"person": "person", "car": "car", "truck": "car", "bus": "car"}


def crops_of(media: Path) -> dict[str, list[Crop]]:
    """Persons that stand, and vehicles, of the pictures with masks."""
    found: dict[str, list[Crop]] = {"person": [], "car": []}
    for folder in ("coco_val", "coco_pose"):
        truth = load_ground_truth(media / folder)
        for name in truth.names:
            picture = np.asarray(Image.open(truth.path(name)).convert("RGB"))
            for (label, _, corners), mask in truth.masks(name):
                left, top, right, bottom = (int(side) for side in corners)
                width, height, kind = right - left, bottom - top, _KINDS.get(label)
                stands = kind == "car" or (height >= 90 and 0.25 < width / height < 0.8)
                if kind and width >= 40 and height >= 40 and stands:
                    found[kind].append((picture[top:bottom, left:right], mask[top:bottom, left:right]))
    return found


def painted(made: Made, crops: Mapping[str, Sequence[Crop]], ground: Any) -> Iterator[Frame]:
    """The frames: nearer things in front. Things of a sequence look different as long as there are enough crops."""
    random = np.random.default_rng(made.things[0].crop)
    order = {label: random.permutation(len(own)) for label, own in crops.items()}
    looks = {}
    for label, own in crops.items():
        for place, thing in enumerate(thing for thing in made.things if thing.label == label):
            looks[thing.number] = own[order[label][place % len(own)]]
    width, height = made.size
    for frame in range(made.frames):
        picture = np.array(Image.fromarray(ground).resize((width, height)))
        here = [thing for thing in made.things if thing.begin <= frame < thing.begin + len(thing.boxes)]
        for thing in sorted(here, key=lambda thing: thing.depth):
            _paint(picture, thing.boxes[frame - thing.begin], *looks[thing.number])
        yield Frame(frame, f"{frame:04d}.png", picture)


def _paint(picture: Any, box: Any, pixels: Any, mask: Any) -> None:
    left, top, right, bottom = (round(float(side)) for side in box)
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if x0 >= x1 or y0 >= y1:
        return
    size = (right - left, bottom - top)
    seen = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    thing = cv2.resize(mask.astype(np.uint8), size)[seen] > 0
    picture[y0:y1, x0:x1][thing] = cv2.resize(pixels, size)[seen][thing]
