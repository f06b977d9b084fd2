"""How good boxes are: COCO's mean average precision (pycocotools) of boxes against a ground truth file."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Box: TypeAlias = tuple[str, float, tuple[float, float, float, float]]
"""(label, score, (left, top, right, bottom) in pixels)."""


@dataclass(frozen=True)
class Accuracy:
    """`map` is the mean average precision over IoU 0.50 to 0.95, `ap50` that at IoU 0.50."""

    map: float
    ap50: float
    pictures: int


@dataclass(frozen=True)
class GroundTruth:
    """A folder of pictures and their annotations in COCO's form."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """The pictures' file names, in the file's order."""
        return [image["file_name"] for image in self.content["images"]]

    @property
    def labels(self) -> list[str]:
        return [category["name"] for category in self.content["categories"]]

    def path(self, name: str) -> Path:
        """Where a picture lies."""
        return next(self.folder.rglob(Path(name).name))

    def boxes(self, name: str) -> list[Box]:
        """The true boxes of a picture; their score is 1."""
        numbers = {image["file_name"]: image["id"] for image in self.content["images"]}
        labels = {category["id"]: category["name"] for category in self.content["categories"]}
        return [
            (labels[one["category_id"]], 1.0, _corners(one["bbox"]))
            for one in self.content["annotations"]
            if one["image_id"] == numbers[name] and not one.get("iscrowd")
        ]

    def masks(self, name: str) -> list[tuple[Box, Any]]:
        """(box, (height, width) bool bitmap) of each true mask of a picture, crowds left out."""
        from pycocotools import mask as rle

        image = next(image for image in self.content["images"] if image["file_name"] == name)
        labels = {category["id"]: category["name"] for category in self.content["categories"]}
        found = []
        for one in self.content["annotations"]:
            if one["image_id"] != image["id"] or one.get("iscrowd"):
                continue
            parts = rle.frPyObjects(one["segmentation"], image["height"], image["width"])
            with warnings.catch_warnings():  # pycocotools copies arrays in numpy 1's way
                warnings.simplefilter("ignore", DeprecationWarning)
                bitmap = rle.decode(rle.merge(parts)).astype(bool)
            found.append(((labels[one["category_id"]], 1.0, _corners(one["bbox"])), bitmap))
        return found


def load_ground_truth(folder: Path, file: str = "instances_val.json") -> GroundTruth:
    """The ground truth in a folder of pictures."""
    return GroundTruth(folder, json.loads((folder / file).read_text()))


def accuracy(truth: GroundTruth, boxes: Mapping[str, Sequence[Box]]) -> Accuracy:
    """The accuracy of `{picture name: boxes}` over just the pictures that it names, empty ones included.

    Labels are matched by name; a label that COCO does not know is an error, since it could only lower the figure.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ids = {image["file_name"]: image["id"] for image in truth.content["images"]}
    kinds = {category["name"]: category["id"] for category in truth.content["categories"]}
    results = [
        {
            "image_id": ids[name],
            "category_id": kinds[label],
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
        }
        for name, found in boxes.items()
        for label, score, (left, top, right, bottom) in found
    ]
    if not results:
        return Accuracy(0.0, 0.0, len(boxes))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = dict(truth.content)
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
        evaluation.params.imgIds = sorted(ids[name] for name in boxes)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Accuracy(float(evaluation.stats[0]), float(evaluation.stats[1]), len(boxes))


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, width, height = box
    return left, top, left + width, top + height
