"""Which family a detector is of, told by what its graph gives; the list to extend for a new one.

A family is a function from a Signature to a Head, or to None where the graph is not of its kind. The first that
recognises the graph is taken; `head=` in the options names one instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from adapters._onnx import grids, queries, yolo
from adapters._onnx.head import Head
from adapters._onnx.signature import Signature
from agent.contract import ConfigError, ModelLoadFailed

FAMILIES: Mapping[str, Callable[[Signature], Head | None]] = {
    "yunet": grids.yunet,
    "end2end": yolo.end2end,
    "yolov5": yolo.yolov5,
    "yolox": yolo.yolox,
    "yolov8": yolo.yolov8,
    "nanodet": grids.nanodet,
    "fastestdet": grids.fastestdet,
    "labelled": queries.labelled,
    "ssd": queries.ssd,
    "detr": queries.detr,
}
_OTHER_TASKS = {
    "classify": "a classifier",
    "pose": "a pose model",
    "obb": "a detector of turned boxes",
    "semantic": "a semantic segmentation model",
}


def choose_head(signature: Signature, head: str, owner: str) -> Head:
    """The head of the graph; ModelLoadFailed says what the graph gives where no family fits."""
    task = signature.metadata.get("task", "")
    if task in _OTHER_TASKS:
        raise ModelLoadFailed(f"{owner}: got {_OTHER_TASKS[task]} (metadata: task = {task}), allowed: box detectors")
    if head != "auto":
        if head not in FAMILIES:
            raise ConfigError(f"{owner}: head: got {head!r}, allowed: auto, {', '.join(FAMILIES)}")
        if (found := FAMILIES[head](signature)) is None:
            raise ModelLoadFailed(f"{owner}: this is no {head} head: the graph gives {signature}")
        return found
    for recognise in FAMILIES.values():
        if (found := recognise(signature)) is not None:
            return found
    raise ModelLoadFailed(
        f"{owner}: unknown kind of head: for a {signature.width}x{signature.height} picture the graph gives"
        f" {signature}{_guess(signature)}; known heads: {', '.join(FAMILIES)} (option 'head')"
    )


def _guess(signature: Signature) -> str:
    """What the graph seems to be, for the message."""
    shapes = [value.shape for value in signature.outputs.values()]
    wide = signature.width
    if len(shapes) == 1 and len(shapes[0]) == 2:
        return ", like a classifier or an embedding"
    if len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][-1] * 8 >= wide:
        return ", like a segmentation or heat map model"
    if len(shapes) == 1 and len(shapes[0]) == 3 and signature.classes is None:
        return " (with class names given, more can be told: option 'labels')"
    return ""
