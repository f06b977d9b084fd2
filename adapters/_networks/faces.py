"""Face detectors, which give five landmarks beside their boxes: YuNet, SCRFD, RetinaFace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.boxes import BoxHead
from adapters._networks.candidates import Candidates, from_centres
from adapters._networks.head import Outputs
from adapters._networks.pictures import Recipe
from adapters._networks.queries import probabilities, rows_sum_to_one
from adapters._networks.signature import Signature, grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

LANDMARKS = ("right_eye", "left_eye", "nose", "right_mouth_corner", "left_mouth_corner")
"""The points in the order that all three have; right and left are the person's own."""
_STRIDES = (8, 16, 32)


def yunet(signature: Signature) -> BoxHead | None:
    """cls, obj, bbox (and kps) at strides 8, 16, 32: YuNet's faces (ShiqiYu/libfacedetection.train).

    Centre = (cell + offset) * stride, size = exp(size) * stride, score = sqrt(cls * obj).
    """
    if not all(f"{part}_{s}" in signature.outputs for part in ("cls", "obj", "bbox") for s in _STRIDES):
        return None
    cells, sizes = grid(signature.width, signature.height, _STRIDES)
    landmarks = all(f"kps_{stride}" in signature.outputs for stride in _STRIDES)

    def decode(outputs: Outputs, floor: float) -> Candidates:
        kinds, objects, boxes = (
            np.concatenate([outputs[f"{part}_{s}"] for s in _STRIDES]) for part in ("cls", "obj", "bbox")
        )
        scores = np.sqrt(np.clip(kinds[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
        places = np.flatnonzero(scores >= floor)
        rows, stride = boxes[places], sizes[places]
        centres = (cells[places] + rows[:, :2]) * stride
        extents = np.exp(np.minimum(rows[:, 2:], 12)) * stride
        corners = from_centres(np.concatenate([centres, extents], axis=1))
        points = None
        if landmarks:
            offsets = np.concatenate([outputs[f"kps_{s}"] for s in _STRIDES])[places].reshape(-1, 5, 2)
            points = (cells[places][:, None] + offsets) * stride[:, None]
        return _faces(corners, scores[places], points)

    recipe = Recipe(resize="letterbox-top-left", colour="bgr", scale=1.0, pad=0)
    head = BoxHead("yunet", decode, recipe, 1, threshold=0.6, iou=0.3, names=("face",), note="the YuNet face detector")
    return _with_landmarks(head) if landmarks else head


def scrfd(signature: Signature) -> BoxHead | None:
    """At each stride scores (N, 1), boxes (N, 4) and perhaps points (N, 10), with or without a batch axis.

    Two anchors a cell at strides 8, 16, 32, or one at 8 to 128. The sides of a box are distances from the cell's
    corner, points are offsets from it, both in strides (deepinsight/insightface, detection/scrfd; arXiv 2105.04714).
    """
    for strides, anchors in ((_STRIDES, 2), ((*_STRIDES, 64, 128), 1)):
        levels = [_level(signature, anchors * signature.cells(stride)) for stride in strides]
        if all(levels) and sum(map(len, levels)) == len(signature.outputs) and len({len(one) for one in levels}) == 1:
            return _scrfd(signature, strides, anchors, levels)
    return None


def _level(signature: Signature, count: int) -> dict[int, str]:
    """The names of the outputs of a stride, by what they have for each of `count` anchors: 1, 4 or 10 numbers."""
    shapes = {name: value.shape[-2:] for name, value in signature.outputs.items() if value.ndim in (2, 3)}
    found = {depth: [name for name, shape in shapes.items() if shape == (count, depth)] for depth in (1, 4, 10)}
    if [len(found[depth]) for depth in (1, 4)] != [1, 1] or len(found[10]) > 1:
        return {}
    return {depth: names[0] for depth, names in found.items() if names}


def _scrfd(signature: Signature, strides: tuple[int, ...], anchors: int, levels: list[dict[int, str]]) -> BoxHead:
    cells, sizes = (np.repeat(one, anchors, axis=0) for one in grid(signature.width, signature.height, strides))
    corners = cells * sizes

    def decode(outputs: Outputs, floor: float) -> Candidates:
        scores, sides = (np.concatenate([outputs[level[depth]] for level in levels]) for depth in (1, 4))
        places = np.flatnonzero(scores[:, 0] >= floor)
        origin, stride = corners[places], sizes[places]
        far = sides[places] * stride
        boxes = np.concatenate([origin - far[:, :2], origin + far[:, 2:]], axis=1)
        points = None
        if 10 in levels[0]:
            offsets = np.concatenate([outputs[level[10]] for level in levels])[places].reshape(-1, 5, 2)
            points = origin[:, None] + offsets * stride[:, None]
        return _faces(boxes, np.clip(scores[places, 0], 0, 1), points)

    # Around the picture its network sees black, as in training.
    recipe = Recipe("letterbox-top-left", scale=1.0, mean=(127.5,) * 3, std=(128.0,) * 3, pad=0)
    joined = signature.outputs[levels[0][1]].ndim == 2
    head = BoxHead(
        "scrfd",
        decode,
        recipe,
        1,
        threshold=0.5,
        iou=0.4,
        names=("face",),
        joined=joined,
        note="the SCRFD face detector",
    )
    return _with_landmarks(head) if 10 in levels[0] else head


def retinaface(signature: Signature) -> BoxHead | None:
    """Boxes (1, N, 4), background and face (1, N, 2), points (1, N, 10) about priors: two a cell at strides 8, 16, 32.

    Centres move by a tenth of a prior's size, sizes by exp of a fifth (biubug6/Pytorch_Retinaface; arXiv 1905.00641).
    """
    count = 2 * signature.cells(*_STRIDES)
    named = {value.shape[2]: name for name, value in signature.outputs.items() if value.ndim == 3}
    if len(signature.outputs) != 3 or set(named) != {2, 4, 10}:
        return None
    if any(value.shape[1] != count for value in signature.outputs.values()):
        return None
    cells, strides = (np.repeat(one, 2, axis=0) for one in grid(signature.width, signature.height, _STRIDES))
    # Sides of 16 and 32 pixels at stride 8, of 64 and 128 at 16, of 256 and 512 at 32.
    sizes = strides**2 / 4 * np.tile([[1.0], [2.0]], (count // 2, 1)).astype(np.float32)
    centres = (cells + 0.5) * strides
    logits = not rows_sum_to_one(signature.outputs[named[2]][0])

    def decode(outputs: Outputs, floor: float) -> Candidates:
        scores = probabilities(outputs[named[2]], logits, softmax=True)[:, 1]
        places = np.flatnonzero(scores >= floor)
        rows, size, middle = outputs[named[4]][places], sizes[places], centres[places]
        extents = size * np.exp(np.minimum(rows[:, 2:] * 0.2, 12))
        boxes = from_centres(np.concatenate([middle + rows[:, :2] * 0.1 * size, extents], axis=1))
        offsets = outputs[named[10]][places].reshape(-1, 5, 2)
        return _faces(boxes, scores[places], middle[:, None] + offsets * 0.1 * size[:, None])

    recipe = Recipe("letterbox-top-left", "bgr", 1.0, (104.0, 117.0, 123.0), pad=None)
    note = "the RetinaFace face detector"
    return _with_landmarks(BoxHead("retinaface", decode, recipe, 1, threshold=0.5, iou=0.4, names=("face",), note=note))


def _faces(boxes: NDArray[Any], scores: NDArray[Any], points: NDArray[Any] | None) -> Candidates:
    """Candidates of one class, with (n, 5, 2) points. A landmark has no score of its own: it is as sure as the face."""
    more = None
    if points is not None:
        more = np.concatenate([points, np.ones_like(points[..., :1])], axis=2).reshape(-1, 15)
    return Candidates(boxes, scores, np.zeros(len(scores), np.int64), more)


def _with_landmarks(head: BoxHead) -> BoxHead:
    return replace(head, points=5, point_names=LANDMARKS, shapes=("skeleton", "rectangle"))
