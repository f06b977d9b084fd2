"""The YOLO families whose output is one array of boxes: YOLOv5/7, YOLOv6, YOLOX, YOLOv8/9/11, and NMS-free exports.

D is the number of values for a box, C the number of classes, N the number of boxes. Behind the classes there may be
32 coefficients of masks, the points of a pose, or the angle of a turned box.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adapters._networks.boxes import BoxHead
from adapters._networks.candidates import Candidates, from_centres
from adapters._networks.head import Outputs
from adapters._networks.pictures import Recipe
from adapters._networks.signature import Signature, grid

Array: TypeAlias = NDArray[Any]
LETTERBOX = Recipe(resize="letterbox", pad=114)
_MASK_COEFFICIENTS = 32


def yolov5(signature: Signature) -> BoxHead | None:
    """(1, N, 5 + C): centre, size in input pixels, objectness, classes; three anchors a cell (ultralytics/yolov5)."""
    name = _single(signature)
    if name is None:
        return None
    _, boxes, depth = signature.outputs[name].shape
    if depth < 6 or boxes not in [3 * cells for cells in signature.anchors]:
        return None
    extras = _extras(signature, pose=False)
    return _objectness_head("yolov5", signature, name, depth - 5 - extras.count, LETTERBOX, "", extras)


def yolox(signature: Signature) -> BoxHead | None:
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
            return _objectness_head("yolox", signature, name, depth - 5, LETTERBOX, "as YOLOv6 exports")
        return _objectness_head("yolox", signature, name, depth - 5, _YOLOX, "decoded in the graph")
    strides = (8, 16, 32) if boxes == signature.anchors[0] else (8, 16, 32, 64)
    cells, sizes = grid(signature.width, signature.height, strides)

    def decode(outputs: Outputs, floor: float) -> Candidates:
        rows, scores, classes, places = _by_objectness(outputs[name], floor)
        centres = (rows[:, :2] + cells[places]) * sizes[places]
        extents = np.exp(np.minimum(rows[:, 2:4], 12)) * sizes[places]
        return Candidates(from_centres(np.concatenate([centres, extents], axis=1)), scores, classes)

    return BoxHead("yolox", decode, _YOLOX, classes=depth - 5, threshold=0.3)


_YOLOX = Recipe(resize="letterbox-top-left", colour="bgr", scale=1.0, pad=114)


def yolov8(signature: Signature) -> BoxHead | None:
    """(1, 4 + C + X, N) or its transpose: centre, size in input pixels, class scores, extras (ultralytics).

    Extras: 32 mask coefficients where there are prototypes; the points of a pose and the angle of turned boxes where
    the metadata or the option `head` says so (yolov8-pose, yolov8-obb).
    """
    name = _single(signature)
    if name is None:
        return None
    shape = signature.outputs[name].shape[1:]
    extras = _extras(signature, pose=True)
    channel_first = shape[1] in signature.anchors and shape[0] > 4 + extras.count
    if not channel_first and not (
        shape[0] in signature.anchors and shape[1] > 4 and _fits(shape[1] - extras.count, 4, signature.classes)
    ):
        return None
    classes = (shape[0] if channel_first else shape[1]) - 4 - extras.count
    sample = signature.outputs[name][0] if channel_first else signature.outputs[name][0].T
    scale = _to_pixels(sample[:4].T, signature)

    def decode(outputs: Outputs, floor: float) -> Candidates:
        table = outputs[name] if channel_first else outputs[name].T
        scores = table[4 : 4 + classes]
        best = scores.max(axis=0)
        places = np.flatnonzero(best >= floor)
        chosen = table[:, places]
        kinds = chosen[4 : 4 + classes].argmax(axis=0)
        more = extras.of(chosen[4 + classes :].T, scale)
        return Candidates(from_centres(chosen[:4].T) * scale, best[places], kinds, more)

    return replace(extras.fitted(BoxHead("yolov8", decode, LETTERBOX, classes=classes, iou=0.7)), family=extras.family)


def end2end(signature: Signature) -> BoxHead | None:
    """Boxes that the graph has already chosen: (1, N, 6 + X) or (N, 7), corners in input pixels.

    Six values: left, top, right, bottom, score, class (YOLOv10, YOLO26, ultralytics `nms=True`), and extras as
    `yolov8`'s; turned boxes have centre and size in place of corners. Seven: number in the batch, corners, class,
    score (YOLOv7 `--end2end`).
    """
    extras = _extras(signature, pose=True)
    names = signature.shaped(3)
    if len(signature.outputs) != 1 and not (extras.prototypes and len(names) == 1):
        return None
    name = names[0] if names else next(iter(signature.outputs))
    shape = signature.outputs[name].shape
    seven = len(shape) == 2 and shape[1] == 7
    if not seven and (len(shape) != 3 or shape[2] != 6 + extras.count):
        return None
    if not seven and shape[1] in [times * cells for cells in signature.anchors for times in (1, 3)]:
        return None

    def decode(outputs: Outputs, floor: float) -> Candidates:
        table = outputs[name]
        boxes, score, kind = (table[:, 1:5], 6, 5) if seven else (table[:, :4], 4, 5)
        keep = table[:, score] >= floor
        chosen = from_centres(boxes[keep]) if extras.turned else boxes[keep]
        # Told by each picture: a gray one may have no box at all.
        scale = _to_pixels(chosen, signature)
        more = None if seven else extras.of(table[keep, 6:], scale)
        return Candidates(chosen * scale, table[keep, score], table[keep, kind].astype(np.int64), more)

    return extras.fitted(BoxHead("end2end", decode, LETTERBOX, overlapping=False, joined=seven))


def _to_pixels(sample: Array, signature: Signature) -> Array:
    """What makes boxes pixels of the input: TensorFlow's exports give them as shares of it."""
    shares = bool(sample.size) and 0 < float(np.abs(sample).max()) <= 2
    return np.array([signature.width, signature.height] * 2 if shares else [1] * 4, np.float32)


def _single(signature: Signature) -> str | None:
    """The one (1, N, D) output; YOLOv5's training outputs (5-D) and mask prototypes (4-D) may stand beside it."""
    names = signature.shaped(3)
    others = [value for name, value in signature.outputs.items() if name not in names]
    return names[0] if len(names) == 1 and all(value.ndim in (4, 5) for value in others) else None


@dataclass(frozen=True, slots=True)
class Extras:
    """What stands behind the classes of a box."""

    count: int = 0
    prototypes: str = ""
    points: int = 0
    turned: bool = False

    @property
    def family(self) -> str:
        return "yolov8" + ("-seg" if self.prototypes else "-pose" if self.points else "-obb" if self.turned else "")

    def of(self, values: Array, scale: Array) -> Array | None:
        """(n, X) values as `Candidates.more`; points without a score are certain."""
        if not self.points:
            return values if self.count else None
        rows = values.reshape(len(values), self.points, self.count // self.points)
        places = rows[..., :2] * scale[:2]
        sure = rows[..., 2:] if rows.shape[2] == 3 else np.ones_like(places[..., :1])
        found: Array = np.concatenate([places, sure], axis=2)
        return found.reshape(-1, 3 * self.points)

    def fitted(self, head: BoxHead) -> BoxHead:
        """The head with what its boxes can become."""
        if self.prototypes:
            return replace(head, prototypes=self.prototypes, shapes=("mask", "rectangle"))
        if self.points:
            return replace(head, points=self.points, shapes=("skeleton", "rectangle"))
        return replace(head, turned=self.turned)


_NONE = Extras()


def _extras(signature: Signature, *, pose: bool) -> Extras:
    """Told by prototypes (a second output of 32 maps), or by the metadata's task, or by the option `head`."""
    for name in signature.shaped(4):
        if signature.outputs[name].shape[1] == _MASK_COEFFICIENTS:
            return Extras(_MASK_COEFFICIENTS, prototypes=name)
    task = signature.metadata.get("task", "")
    if pose and (task == "pose" or signature.asked == "yolov8-pose"):
        points, values = _point_shape(signature)
        return Extras(points * values, points=points)
    if pose and (task == "obb" or signature.asked == "yolov8-obb"):
        return Extras(1, turned=True)
    return Extras()


def _point_shape(signature: Signature) -> tuple[int, int]:
    """(points, values of each) that the exporter left, or COCO's 17 of x, y, score."""
    try:
        points, values = ast.literal_eval(signature.metadata.get("kpt_shape", "(17, 3)"))
    except (ValueError, SyntaxError, TypeError):
        return 17, 3
    return (int(points), int(values)) if values in (2, 3) and 0 < points < 1000 else (17, 3)


def _fits(depth: int, fixed: int, classes: int | None) -> bool:
    """Whether a depth is `fixed` values and the classes; COCO's 80 where the number of classes is not known."""
    return depth - fixed == (80 if classes is None else classes)


def _objectness_head(
    family: str, signature: Signature, name: str, classes: int, recipe: Recipe, note: str, extras: Extras = _NONE
) -> BoxHead:
    scale = _to_pixels(signature.outputs[name][0, :, :4], signature)

    def decode(outputs: Outputs, floor: float) -> Candidates:
        table = outputs[name]
        rows, scores, kinds, places = _by_objectness(table[:, : 5 + classes], floor)
        more = extras.of(table[places, 5 + classes :], scale)
        return Candidates(from_centres(rows[:, :4]) * scale, scores, kinds, more)

    threshold = 0.3 if family == "yolox" else 0.25
    return extras.fitted(BoxHead(family, decode, recipe, classes=classes, threshold=threshold, note=note))


def _by_objectness(table: Array, floor: float) -> tuple[Array, Array, Array, Array]:
    """(rows, scores, classes, places) of the (N, 5 + C) rows whose objectness times best class is at least `floor`."""
    # No class lifts a score above the objectness: most of the rows are gone after one look at one column.
    places = np.flatnonzero(table[:, 4] >= floor)
    rows = table[places]
    classes = rows[:, 5:].argmax(axis=1)
    scores = rows[:, 4] * rows[np.arange(len(rows)), 5 + classes]
    keep = scores >= floor
    return rows[keep], scores[keep], classes[keep], places[keep]
