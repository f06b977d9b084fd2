"""How good boxes are: COCO's mean average precision (pycocotools) of boxes against a ground truth file."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

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
            drawn = one["segmentation"]
            if isinstance(drawn, list) or isinstance(drawn["counts"], list):
                drawn = rle.frPyObjects(drawn, image["height"], image["width"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                bitmap = rle.decode(rle.merge(drawn) if isinstance(drawn, list) else drawn).astype(bool)
            found.append(((labels[one["category_id"]], 1.0, _corners(one["bbox"])), bitmap))
        return found

    def people(self, name: str, least: int = 5) -> list[tuple[int, tuple[float, float, float, float]]]:
        """(id, corners of the box) of each person of a picture with at least so many points drawn."""
        image = next(image for image in self.content["images"] if image["file_name"] == name)
        return [
            (one["id"], _corners(one["bbox"]))
            for one in self.content["annotations"]
            if one["image_id"] == image["id"] and not one.get("iscrowd") and one.get("num_keypoints", 0) >= least
        ]


def load_ground_truth(folder: Path, file: str = "instances_val.json") -> GroundTruth:
    """The ground truth in a folder of pictures."""
    return GroundTruth(folder, json.loads((folder / file).read_text()))


def accuracy(truth: GroundTruth, boxes: Mapping[str, Sequence[Box]]) -> Accuracy:
    """The accuracy of `{picture name: boxes}` over just the pictures that it names, empty ones included.

    Labels are matched by name; a label that COCO does not know is an error, since it could only lower the figure.
    """
    places = {
        name: [
            (label, score, {"bbox": [left, top, right - left, bottom - top]})
            for label, score, (left, top, right, bottom) in found
        ]
        for name, found in boxes.items()
    }
    return _evaluated(truth, places, "bbox")


def mask_accuracy(truth: GroundTruth, masks: Mapping[str, Sequence[tuple[str, float, Any]]]) -> Accuracy:
    """As `accuracy`, of `{picture name: (label, score, (height, width) bool bitmap)}`."""
    from pycocotools import mask as rle

    places = {
        name: [
            (label, score, {"segmentation": rle.encode(np.asfortranarray(bitmap, np.uint8))})
            for label, score, bitmap in found
        ]
        for name, found in masks.items()
    }
    return _evaluated(truth, places, "segm")


def pose_accuracy(
    truth: GroundTruth, poses: Mapping[str, Sequence[tuple[int, Sequence[tuple[float, float]]]]]
) -> Accuracy:
    """COCO's precision of the points of `{picture name: (person's id, points)}`, among just these persons."""
    kind = truth.content["categories"][0]["name"]
    places = {
        name: [(kind, 1.0, {"keypoints": [value for x, y in points for value in (x, y, 1)]}) for _, points in found]
        for name, found in poses.items()
    }
    asked = {number for found in poses.values() for number, _ in found}
    some = [one for one in truth.content["annotations"] if one["id"] in asked]
    return _evaluated(replace(truth, content={**truth.content, "annotations": some}), places, "keypoints")


def _evaluated(
    truth: GroundTruth, places: Mapping[str, Sequence[tuple[str, float, dict[str, Any]]]], kind: str
) -> Accuracy:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ids = {image["file_name"]: image["id"] for image in truth.content["images"]}
    kinds = {category["name"]: category["id"] for category in truth.content["categories"]}
    results = [
        {"image_id": ids[name], "category_id": kinds[label], "score": score, **place}
        for name, found in places.items()
        for label, score, place in found
    ]
    if not results:
        return Accuracy(0.0, 0.0, len(places))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools copies arrays in numpy 1's way
        reference = COCO()
        reference.dataset = dict(truth.content)
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), kind)
        evaluation.params.imgIds = sorted(ids[name] for name in places)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Accuracy(float(evaluation.stats[0]), float(evaluation.stats[1]), len(places))


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, width, height = box
    return left, top, left + width, top + height
