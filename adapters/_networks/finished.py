"""Detections that the graph has finished, as TensorFlow's and Caffe's tools write them: classes from 1, or y first.

torchvision's and others' are in `queries.py` (labelled), the YOLO families' in `yolo.py` (end2end).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.boxes import BoxHead
from adapters._networks.candidates import Candidates
from adapters._networks.head import Outputs
from adapters._networks.pictures import Recipe
from adapters._networks.signature import Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOBILE = Recipe(resize="stretch", scale=1.0, mean=(127.5,) * 3, std=(127.5,) * 3)
"""-1 to 1, as the MobileNets were trained; inputs of bytes take pixels as they are."""
CAFFE = Recipe(resize="stretch", colour="bgr", scale=1.0)
_Y_FIRST = [1, 0, 3, 2]
_NAMELESS = ("detection_postprocess", "partitionedcall", "identity")
"""What TensorFlow calls outputs that nobody has named."""


def tensorflow(signature: Signature) -> BoxHead | None:
    """boxes (1, Q, 4) as shares, top, left, bottom, right; classes and scores (1, Q), and how many there are.

    The Object Detection API's exports (detection_boxes, …; classes from 1), and TFLite_Detection_PostProcess, whose
    outputs have no telling names (classes from 0): models/research/object_detection/exporter_lib_v2.py.
    """
    named = {name.partition(":")[0]: name for name in signature.outputs}
    if {"detection_boxes", "detection_classes", "detection_scores"} <= named.keys():
        boxes, classes, scores = (named[f"detection_{what}"] for what in ("boxes", "classes", "scores"))
        return _head(signature, boxes, classes, scores, 0, "TensorFlow's Object Detection API")
    told = _by_shape(signature)
    return None if told is None else _head(signature, *told, 1, "TFLite_Detection_PostProcess")


def _by_shape(signature: Signature) -> tuple[str, str, str] | None:
    """The names of boxes, classes and scores among four nameless outputs: classes are whole numbers."""
    outputs = signature.outputs
    boxes = [name for name, value in outputs.items() if value.ndim == 3 and value.shape[2] == 4]
    if len(outputs) != 4 or len(boxes) != 1 or len(signature.named(*_NAMELESS)) != 4:
        return None
    count = outputs[boxes[0]].shape[1]
    rows = [name for name, value in outputs.items() if value.shape == (1, count)]
    if len(rows) != 2 or sum(value.size == 1 for value in outputs.values()) < 1:
        return None
    # Where a gray picture leaves all at 0, the order is the operation's: boxes, classes, scores, count.
    classes, scores = sorted(rows, key=lambda name: bool(np.any(outputs[name] % 1)))
    return boxes[0], classes, scores


def _head(signature: Signature, boxes: str, classes: str, scores: str, more: int, note: str) -> BoxHead:
    """`more` makes classes count from 1, as lists of names do that begin with the background."""
    size = np.array([signature.width, signature.height] * 2, np.float32)

    def decode(outputs: Outputs, floor: float) -> Candidates:
        keep = outputs[scores] >= floor
        kinds = outputs[classes][keep].astype(np.int64) + more
        return Candidates(outputs[boxes][keep][:, _Y_FIRST] * size, outputs[scores][keep], kinds)

    return BoxHead("tensorflow", decode, MOBILE, overlapping=False, threshold=0.4, note=note, first_class=1)


def caffe(signature: Signature) -> BoxHead | None:
    """(1, 1, N, 7): number in the batch, class (0 is background), score, corners as shares: SSD's DetectionOutput.

    OpenVINO's Open Model Zoo, and OpenCV's face detector. Rows after a number of -1 are none.
    """
    if len(signature.outputs) != 1:
        return None
    ((name, value),) = signature.outputs.items()
    if value.ndim != 4 or value.shape[:2] != (1, 1) or value.shape[3] != 7:
        return None
    size = np.array([signature.width, signature.height] * 2, np.float32)

    def decode(outputs: Outputs, floor: float) -> Candidates:
        table: NDArray[Any] = outputs[name].reshape(-1, 7)
        ends = np.flatnonzero(table[:, 0] < 0)
        table = table[: ends[0]] if len(ends) else table
        table = table[table[:, 2] >= floor]
        return Candidates(table[:, 3:] * size, table[:, 2], table[:, 1].astype(np.int64))

    return BoxHead("caffe", decode, CAFFE, overlapping=False, threshold=0.4, joined=True, first_class=1)
