"""The YOLO families whose output is one array of boxes: YOLOv5/7, YOLOv6, YOLOX, YOLOv8/9/11, and NMS-free exports.

D is the number of values for a box, C the number of classes, N the number of boxes.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adapters._onnx.candidates import Candidates, from_centres
from adapters._onnx.head import Head, Outputs
from adapters._onnx.pictures import Recipe
from adapters._onnx.signature import Signature, grid

Array: TypeAlias = NDArray[Any]
LETTERBOX = Recipe(resize="letterbox", pad=114)
_MASK_COEFFICIENTS = 32


def yolov5(signature: Signature) -> Head | None:
    """(1, N, 5 + C): centre, size in input pixels, objectness, classes; three anchors a cell (ultralytics/yolov5)."""
    name = _single(signature)
    if name is None:
        return None
    _, boxes, depth = signature.outputs[name].shape
    if depth < 6 or boxes not in [3 * cells for cells in signature.anchors]:
        return None
    masks = _MASK_COEFFICIENTS if _has_prototypes(signature) else 0
    return _objectness_head("yolov5", name, depth - 5 - masks, LETTERBOX, _note(masks))


def yolox(signature: Signature) -> Head | None:
    """(1, N, 5 + C), one box a cell: YOLOX, as raw grid offsets or decoded in the graph; decoded YOLOv6 as well.

    Raw and decoded are told apart by the values of a gray picture: offsets are a few cells, decoded centres are
    spread over the picture (Megvii-BaseDetection/YOLOX, yolox/utils/demo_utils.py).
    """
    name = _single(signature)
    if name is None:
        return None
    _, boxes, depth = signature.outputs[name].shape
    if depth < 6 or boxes not in signature.anchors or not _fits(depth, 5, signature.classes):
        return None
    sample = signature.outputs[name][0]
    if np.median(np.abs(sample[:, :2])) > 8:
        if np.all(sample[:, 4] == 1):  # YOLOv6 has no objectness and writes 1
            return _objectness_head("yolox", name, depth - 5, LETTERBOX, "as YOLOv6 exports")
        return _objectness_head("yolox", name, depth - 5, _YOLOX, "decoded in the graph")
    strides = (8, 16, 32) if boxes == signature.anchors[0] else (8, 16, 32, 64)
    cells, sizes = grid(signature.width, signature.height, strides)

    def decode(outputs: Outputs, floor: float) -> Candidates:
        rows, scores, classes, places = _by_objectness(outputs[name], floor)
        centres = (rows[:, :2] + cells[places]) * sizes[places]
        extents = np.exp(np.minimum(rows[:, 2:4], 12)) * sizes[places]
        return Candidates(from_centres(np.concatenate([centres, extents], axis=1)), scores, classes)

    return Head("yolox", decode, _YOLOX, classes=depth - 5, threshold=0.3)


_YOLOX = Recipe(resize="letterbox-top-left", colour="bgr", scale=1.0, pad=114)


def yolov8(signature: Signature) -> Head | None:
    """(1, 4 + C, N) or its transpose: centre, size in input pixels, class scores (ultralytics).

    Segmentation models have 32 mask coefficients behind the classes and a second output of prototypes: their
    boxes are used, their masks are not.
    """
    name = _single(signature)
    if name is None:
        return None
    shape = signature.outputs[name].shape[1:]
    masks = _MASK_COEFFICIENTS if _has_prototypes(signature) else 0
    channel_first = shape[1] in signature.anchors and shape[0] > 4 + masks
    if not channel_first and not (
        shape[0] in signature.anchors and shape[1] > 4 and _fits(shape[1] - masks, 4, signature.classes)
    ):
        return None
    classes = min(shape) - 4 - masks if not channel_first else shape[0] - 4 - masks

    def decode(outputs: Outputs, floor: float) -> Candidates:
        table = outputs[name] if channel_first else outputs[name].T
        scores = table[4 : 4 + classes]
        best = scores.max(axis=0)
        places = np.flatnonzero(best >= floor)
        chosen = table[:, places]
        return Candidates(from_centres(chosen[:4].T), best[places], chosen[4 : 4 + classes].argmax(axis=0))

    return Head("yolov8", decode, LETTERBOX, classes=classes, iou=0.7, note=_note(masks))


def end2end(signature: Signature) -> Head | None:
    """Boxes that the graph has already chosen: (1, N, 6) or (N, 7), corners in input pixels.

    Six values: left, top, right, bottom, score, class (YOLOv10, YOLO26, ultralytics `nms=True`). Seven: number in
    the batch, corners, class, score (YOLOv7 `--end2end`).
    """
    if len(signature.outputs) != 1:
        return None
    (name,) = signature.outputs
    shape = signature.outputs[name].shape
    seven = len(shape) == 2 and shape[1] == 7
    if not seven and (len(shape) != 3 or shape[2] != 6):
        return None
    if not seven and shape[1] in [times * cells for cells in signature.anchors for times in (1, 3)]:
        return None

    def decode(outputs: Outputs, floor: float) -> Candidates:
        table = outputs[name]
        boxes, score, kind = (table[:, 1:5], 6, 5) if seven else (table[:, :4], 4, 5)
        keep = table[:, score] >= floor
        return Candidates(boxes[keep], table[keep, score], table[keep, kind].astype(np.int64))

    return Head("end2end", decode, LETTERBOX, overlapping=False, joined=seven)


def _single(signature: Signature) -> str | None:
    """The one (1, N, D) output; YOLOv5's training outputs (5-D) and mask prototypes (4-D) may stand beside it."""
    names = signature.shaped(3)
    others = [value for name, value in signature.outputs.items() if name not in names]
    return names[0] if len(names) == 1 and all(value.ndim in (4, 5) for value in others) else None


def _has_prototypes(signature: Signature) -> bool:
    return any(signature.outputs[name].shape[1] == _MASK_COEFFICIENTS for name in signature.shaped(4))


def _note(masks: int) -> str:
    return "a segmentation model: its boxes are used, its masks are not" if masks else ""


def _fits(depth: int, fixed: int, classes: int | None) -> bool:
    """Whether a depth is `fixed` values and the classes; COCO's 80 where the number of classes is not known."""
    return depth - fixed == (80 if classes is None else classes)


def _objectness_head(family: str, name: str, classes: int, recipe: Recipe, note: str) -> Head:
    def decode(outputs: Outputs, floor: float) -> Candidates:
        rows, scores, kinds, _ = _by_objectness(outputs[name][:, : 5 + classes], floor)
        return Candidates(from_centres(rows[:, :4]), scores, kinds)

    return Head(family, decode, recipe, classes=classes, threshold=0.3 if family == "yolox" else 0.25, note=note)


def _by_objectness(table: Array, floor: float) -> tuple[Array, Array, Array, Array]:
    """(rows, scores, classes, places) of the (N, 5 + C) rows whose objectness times best class is at least `floor`."""
    # No class lifts a score above the objectness: most of the rows are gone after one look at one column.
    places = np.flatnonzero(table[:, 4] >= floor)
    rows = table[places]
    classes = rows[:, 5:].argmax(axis=1)
    scores = rows[:, 4] * rows[np.arange(len(rows)), 5 + classes]
    keep = scores >= floor
    return rows[keep], scores[keep], classes[keep], places[keep]
