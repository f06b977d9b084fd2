"""Which family a network is of, told by what its graph gives; the list to extend for a new one.

A family is a function from a Signature to a head, or to None where the graph is not of its kind. The first that
recognises the graph is taken; `head=` in the options names one instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from adapters._networks import faces, finished, grids, queries, regions, tags, yolo
from adapters._networks.head import Head
from adapters._networks.signature import Signature
from agent.contract import ConfigError, ModelLoadFailed

FAMILIES: Mapping[str, Callable[[Signature], Head | None]] = {
    "yunet": faces.yunet,
    "scrfd": faces.scrfd,
    "retinaface": faces.retinaface,
    "end2end": yolo.end2end,
    "yolov5": yolo.yolov5,
    "yolox": yolo.yolox,
    "yolov8": yolo.yolov8,
    "nanodet": grids.nanodet,
    "fastestdet": grids.fastestdet,
    "tensorflow": finished.tensorflow,
    "caffe": finished.caffe,
    "labelled": queries.labelled,
    "ssd": queries.ssd,
    "detr": queries.detr,
    "classifier": tags.classifier,
    "semantic": regions.semantic,
}
_ELSEWHERE = ("reid", "heatmaps", "movenet", "landmarks")
"""Heads of models that are no such detectors: `adapters/local.py` knows them."""
_ENCODER = "the encoder of an interactor (option decoder: the other file of the pair)"
_VARIANTS = {"yolov8-seg": "yolov8", "yolov8-pose": "yolov8", "yolov8-obb": "yolov8"}
"""Names that say more than the family: what stands behind the classes."""


def choose_head(signature: Signature, head: str, owner: str) -> Head:
    """The head of the graph; ModelLoadFailed says what the graph gives where no family fits."""
    if head != "auto":
        family = _VARIANTS.get(head, head)
        if family not in FAMILIES:
            raise ConfigError(
                f"{owner}: head: got {head!r}, allowed: auto, {', '.join((*FAMILIES, *_VARIANTS, *_ELSEWHERE))}"
            )
        found = FAMILIES[family](replace(signature, asked=head))
        if found is None or (head in _VARIANTS and found.family != head):
            raise ModelLoadFailed(f"{owner}: this is no {head} head: the graph gives {signature}")
        return found
    for recognise in FAMILIES.values():
        if (found := recognise(signature)) is not None:
            return found
    raise ModelLoadFailed(
        f"{owner}: unknown kind of head: for a {signature.width}x{signature.height} picture the graph gives"
        f" {signature}{_guess(signature)}{_named(signature)}; known heads: {', '.join((*FAMILIES, *_ELSEWHERE))}"
        " (option 'head')"
    )


def _named(signature: Signature) -> str:
    """How many names there are, where they are what does not fit."""
    return "" if signature.classes is None else f"; {signature.classes} class names were given"


def _guess(signature: Signature) -> str:
    """What the graph seems to be, for the message."""
    shapes = [value.shape for value in signature.outputs.values()]
    wide = signature.width
    if len(shapes) == 1 and len(shapes[0]) == 2:
        return ", like a classifier (option labels, or head=classifier) or an embedding (option kind=reid)"
    if any(len(shape) == 4 for shape in shapes) and signature.named("embed", "feat"):
        return f", like {_ENCODER}"
    if len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][-1] * 8 >= wide:
        return ", like a map of classes (option labels, or head=semantic) or heat maps (option head=heatmaps)"
    if len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][1] >= 32:
        return f", like features: {_ENCODER}, or NanoTrack's backbone (opencv:nanotrack with options backbone and head)"
    if len(shapes) == 1 and len(shapes[0]) == 3 and signature.classes is None:
        return " (with class names given, more can be told: option 'labels')"
    return ""
