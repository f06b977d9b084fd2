"""Object detectors from ONNX files: `local:weights/yolo.onnx`.

What kind of detector a file holds is told by its inputs, outputs and metadata (`adapters/_onnx/heads.py`); how it
wants its pictures goes with the kind. Options say otherwise where a network was trained otherwise.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from adapters._names import Names, as_names, names_from_file, names_from_metadata, vocabulary
from adapters._onnx.detector import OnnxDetector
from adapters._onnx.files import OnnxFile, open_onnx
from adapters._onnx.graph import Graph, open_graph
from adapters._onnx.head import Head
from adapters._onnx.heads import choose_head
from adapters._onnx.pictures import Colour, Recipe, Resize, Three
from agent.contract import ConfigError, ModelLoadFailed

MOST_LANES = 4
"""How many frames are worked on side by side on a processor."""
_COCO = "coco-80"


def load(
    name: str,
    *,
    device: str,
    head: str = "auto",
    labels: str | list[str] | None = None,
    labels_file: str | None = None,
    input_size: int | list[int] | None = None,
    resize: Resize | None = None,
    colour: Colour | None = None,
    scale: float | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    pad: int | None = None,
    nms_iou: float | None = None,
    max_detections: int = 300,
    batch_size: int | None = None,
    providers: list[str] | None = None,
    threads: int = 0,
) -> OnnxDetector:
    """The detector in an ONNX file.

    `labels`: a list of class names, or a vocabulary such as "coco-80"; `labels_file`: a file with them.
    `input_size`: a side, or width and height, for graphs that take any. Pixels become (pixel * scale - mean) / std
    in the order of `colour`. `batch_size` is for graphs that take any (on a processor 1, which gains nothing from more,
    else 4). `threads` is how many processors may be used, 0 all of them.
    """
    owner = f"local:{name}"
    _check_ranges(
        owner,
        nms_iou=nms_iou,
        max_detections=max_detections,
        batch_size=1 if batch_size is None else batch_size,
        threads=threads,
    )
    size = _size(input_size, owner)
    given: dict[str, Any] = {"resize": resize, "colour": colour, "scale": scale, "pad": pad}
    given |= {"mean": _three(mean, "mean", owner), "std": _three(std, "std", owner)}
    file = open_onnx(name)
    cores = threads or len(os.sched_getaffinity(0))
    lanes = min(cores, MOST_LANES)
    graph = open_graph(file.path, owner, device=device, providers=providers, threads=cores // lanes, size=size)
    on_processor = graph.session.get_providers()[0] == "CPUExecutionProvider"
    names, source = _names(labels, labels_file, graph, owner)
    found = choose_head(graph.signature(len(names) if names else None), head, owner)
    names, source = _matched(names, source, found, owner)
    recipe = replace(found.recipe, **{key: value for key, value in given.items() if value is not None})
    return OnnxDetector(
        graph,
        found,
        recipe,
        names,
        _facts(file, graph, found, recipe, source),
        iou=found.iou if nms_iou is None else nms_iou,
        limit=max_detections,
        batch_size=batch_size or (1 if on_processor else 4),
        # Frames side by side, each by few threads, use a processor better than one frame by many.
        lanes=lanes if on_processor else 1,
    )


def _names(
    labels: str | list[str] | None, labels_file: str | None, graph: Graph, owner: str
) -> tuple[Names | None, str]:
    """The class names and where they come from, as far as known before the head is."""
    if labels is not None and labels_file is not None:
        raise ConfigError(f"{owner}: got labels and labels_file, allowed: one of them")
    if isinstance(labels, str):
        return vocabulary(labels, owner), f"vocabulary {labels}"
    if labels is not None:
        return as_names(labels, f"{owner}: labels"), "option labels"
    if labels_file is not None:
        return names_from_file(labels_file, owner), labels_file
    return names_from_metadata(graph.metadata, owner), "the file's metadata"


def _matched(names: Names | None, source: str, head: Head, owner: str) -> tuple[Names, str]:
    """The names held against the number of classes that the head tells apart; COCO's where nobody says."""
    count = head.classes
    if names is None and head.names:
        return list(head.names), f"the {head.family} head"
    if names is None and count == 80:
        return vocabulary(_COCO, owner), f"{_COCO}, assumed because there are 80 classes and no names"
    if names is None:
        what = "an unknown number of" if count is None else str(count)
        raise ModelLoadFailed(
            f"{owner}: its {head.family} head tells {what} classes apart, and the file has no names for them;"
            ' give them: labels = ["car", "bus"], labels = "coco-80", or labels_file = "names.txt"'
        )
    if count is not None and len(names) == count + 1 and not names[0]:
        names = names[1:]  # the lists of networks with a background class name it first
    if count is not None and len(names) != count:
        raise ConfigError(f"{owner}: {source}: got {len(names)} names, its {head.family} head has {count} classes")
    return names, source


def _facts(file: OnnxFile, graph: Graph, head: Head, recipe: Recipe, source: str) -> dict[str, str]:
    facts = {
        "source": file.path.name,
        "version": file.version,
        "head": head.family + (f" ({head.note})" if head.note else ""),
        "input size": f"{graph.width}x{graph.height}",
        "preparation": str(recipe),
        "labels from": source,
        "format": f"ONNX, opset {file.opset}" + (f", by {file.producer}" if file.producer else ""),
        "runs on": ", ".join(graph.session.get_providers()),
    }
    if licence := graph.metadata.get("license") or graph.metadata.get("licence"):
        facts["licence"] = licence
    return facts


def _check_ranges(owner: str, *, nms_iou: float | None, max_detections: int, batch_size: int, threads: int) -> None:
    if nms_iou is not None and not 0 <= nms_iou <= 1:
        raise ConfigError(f"{owner}: nms_iou: got {nms_iou}, allowed: 0 to 1")
    for option, value, least in (
        ("max_detections", max_detections, 1),
        ("batch_size", batch_size, 1),
        ("threads", threads, 0),
    ):
        if value < least:
            raise ConfigError(f"{owner}: {option}: got {value}, allowed: {least} or more")


def _size(value: int | list[int] | None, owner: str) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = [value, value] if isinstance(value, int) else value
    if len(sides) != 2 or not all(8 <= side <= 8192 for side in sides):
        raise ConfigError(f"{owner}: input_size: got {value}, allowed: a side, or [width, height], 8 to 8192")
    return sides[0], sides[1]


def _three(values: list[float] | None, option: str, owner: str) -> Three | None:
    if values is None:
        return None
    if len(values) not in (1, 3) or (option == "std" and not all(values)):
        raise ConfigError(f"{owner}: {option}: got {values}, allowed: one number, or one for each of 3 channels")
    first, second, third = values * 3 if len(values) == 1 else values
    return float(first), float(second), float(third)
