"""Small detectors that give a grid of raw values: FastestDet, NanoDet-Plus."""

from __future__ import annotations

import numpy as np

from adapters._networks.boxes import BoxHead
from adapters._networks.candidates import Candidates, from_centres
from adapters._networks.head import Outputs
from adapters._networks.pictures import Recipe
from adapters._networks.signature import Signature, grid

_BINS = 8


def fastestdet(signature: Signature) -> BoxHead | None:
    """(1, 5 + C, h, w) at stride 16: objectness, two offsets, two sizes, classes (dog-qiuqiu/FastestDet).

    Centre = (cell + tanh(offset)) / cells, size = sigmoid(size), score = objectness^0.6 * class^0.4.
    """
    names = list(signature.outputs)
    value = signature.outputs[names[0]]
    if len(names) != 1 or value.ndim != 4 or value.shape[1] < 6:
        return None
    name, (high, wide) = names[0], value.shape[2:]
    if (wide, high) != (signature.width // 16, signature.height // 16):
        return None
    if not np.allclose(value[0, 5:].sum(axis=0), 1, atol=1e-2):  # its classes went through a softmax
        return None
    size = np.array([signature.width, signature.height], np.float32)

    def decode(outputs: Outputs, floor: float) -> Candidates:
        table = outputs[name].reshape(value.shape[1], -1)
        # The class is at most 1, so the objectness alone rules most cells out.
        places = np.flatnonzero(np.maximum(table[0], 0) ** 0.6 >= floor)
        chosen = table[:, places]
        scores = np.maximum(chosen[0], 0) ** 0.6 * np.maximum(chosen[5:].max(axis=0), 0) ** 0.4
        cells = np.stack([places % wide, places // wide])
        centres = (cells + np.tanh(chosen[1:3])) / np.array([[wide], [high]])
        extents = 1 / (1 + np.exp(-np.clip(chosen[3:5], -80, 80)))
        boxes = from_centres(np.concatenate([centres.T * size, extents.T * size], axis=1))
        found = Candidates(boxes, scores, chosen[5:].argmax(axis=0))
        return found.at(scores >= floor)

    recipe = Recipe(resize="stretch", colour="bgr")
    return BoxHead("fastestdet", decode, recipe, classes=value.shape[1] - 5, threshold=0.5, iou=0.45)


def nanodet(signature: Signature) -> BoxHead | None:
    """(1, N, C + 4 * 8): class scores, then for each side a distribution over 0..7 strides (RangiLyu/nanodet).

    The distance to a side is the distribution's mean (generalised focal loss, arXiv 2006.04388).
    """
    names = list(signature.outputs)
    value = signature.outputs[names[0]]
    if len(names) != 1 or value.ndim != 3 or value.shape[1] not in signature.anchors:
        return None
    name, classes = names[0], value.shape[2] - 4 * _BINS
    if classes != (80 if signature.classes is None else signature.classes):
        return None
    strides = (8, 16, 32) if value.shape[1] == signature.anchors[0] else (8, 16, 32, 64)
    cells, sizes = grid(signature.width, signature.height, strides)

    def decode(outputs: Outputs, floor: float) -> Candidates:
        table = outputs[name]
        best = table[:, :classes].max(axis=1)
        places = np.flatnonzero(best >= floor)
        sides = table[places, classes:].reshape(-1, 4, _BINS)
        weights = np.exp(sides - sides.max(axis=2, keepdims=True))
        distances = (weights * np.arange(_BINS)).sum(axis=2) / weights.sum(axis=2) * sizes[places]
        centres = cells[places] * sizes[places]
        boxes = np.concatenate([centres - distances[:, :2], centres + distances[:, 2:]], axis=1)
        return Candidates(boxes, best[places], table[places, :classes].argmax(axis=1))

    recipe = Recipe("stretch", "bgr", 1.0, (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
    return BoxHead("nanodet", decode, recipe, classes=classes, threshold=0.35, iou=0.6)
