"""A detector put together from a file and options: the graph, its head, its recipe, its class names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters._names import Names, as_names, names_from_file, names_from_metadata, vocabulary
from adapters._networks.detector import NetworkDetector
from adapters._networks.files import WeightsFile, open_weights
from adapters._networks.graph import Graph, open_graph, prepared
from adapters._networks.head import Head, Reader
from adapters._networks.heads import choose_head
from adapters._networks.options import at_least, running, share
from adapters._networks.pictures import Recipe
from agent.contract import ConfigError, ModelLoadFailed

MOST_LANES = 4
"""How many frames are worked on side by side on a processor."""
ANSWERS = (
    "nms_iou", "max_detections", "shape", "points", "point_threshold", "split_regions", "smallest_region", "top_k",
    "multi_label",
)  # fmt: skip
"""Options about what becomes of a graph's outputs; each kind of head has some of them."""
_USUAL = {"classifier": {1000: "imagenet-1k"}, "semantic": {21: "pascal-voc-segmentation"}}
"""By head, the vocabularies that a network without names, and with so many classes, is taken to be trained on."""
_USUAL_OF_BOXES = {80: "coco-80"}


def load_detector(name: str, device: str, given: Mapping[str, Any]) -> NetworkDetector:
    """The detector in a file: boxes, masks, skeletons, regions or tags, as its head says."""
    owner = f"local:{name}"
    for option in ("nms_iou", "point_threshold"):
        share(owner, option, given.get(option))
    for option in ("max_detections", "batch_size"):
        at_least(owner, option, given.get(option, 1), 1)
    run = running(device, given, owner)
    file = open_weights(name, allow_pickle=given.get("allow_pickle", False))
    lanes = min(run.cores, MOST_LANES)
    graph = open_graph(file, owner, run, threads=run.cores // lanes)
    beside = graph.session.on_processor and graph.session.side_by_side
    names, source = _names(given.get("labels"), given.get("labels_file"), graph, owner)
    found = choose_head(graph.signature(len(names) if names else None), given.get("head", "auto"), owner)
    if strangers := [option for option in ANSWERS if option in given and option not in found.options]:
        allowed = ", ".join(found.options)
        raise ConfigError(f"{owner}: option {strangers[0]!r} is not for its {found.family} head, allowed: {allowed}")
    names, source = _matched(names, source, found, owner)
    reader = found.reader(names, given, owner)
    graph, recipe = prepared(graph, found.recipe, given)
    return NetworkDetector(
        graph,
        found,
        reader,
        recipe,
        _facts(file, graph, found, recipe, source + _joined(names, reader)),
        batch_size=given.get("batch_size") or (1 if graph.session.on_processor else 4),
        # Frames side by side, each by few threads, use a processor better than one frame by many.
        lanes=lanes if beside else 1,
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
    """The names held against the number of classes that the head tells apart; the usual ones where nobody says."""
    count = head.classes
    if names is None and head.names:
        return list(head.names), f"the {head.family} head"
    if names is None and count == 1001 and head.family == "classifier":  # TensorFlow's: first is the background
        return ["", *vocabulary("imagenet-1k", owner)], "imagenet-1k, assumed because of 1001 classes"
    if names is None and (usual := _USUAL.get(head.family, _USUAL_OF_BOXES).get(count or 0)) is not None:
        return vocabulary(usual, owner), f"{usual}, assumed because there are {count} classes and no names"
    if names is None:
        what = "an unknown number of" if count is None else str(count)
        raise ModelLoadFailed(
            f"{owner}: its {head.family} head tells {what} classes apart, and the file has no names for them;"
            " give them by the option labels (a list, or a vocabulary such as coco-80) or labels_file (one name a line)"
        )
    if count is not None and len(names) == count + 1 and not names[0]:
        names = names[1:]  # the lists of networks with a background class name it first
    if count is not None and len(names) != count:
        raise ConfigError(f"{owner}: {source}: got {len(names)} names, its {head.family} head has {count} classes")
    return names, source


def _facts(file: WeightsFile, graph: Graph, head: Head, recipe: Recipe, source: str) -> dict[str, str]:
    return {
        "source": file.path.name,
        "version": file.version,
        "head": head.family + (f" ({head.note})" if head.note else ""),
        "input size": f"{graph.width}x{graph.height}",
        "preparation": str(recipe),
        "labels from": source,
        **running_facts(file, graph),
    }


def _joined(names: Names, reader: Reader) -> str:
    """What to tell of classes that have a name in common, and are one label."""
    if len(reader.labels) == sum(map(bool, names)):
        return ""
    same = {name: [str(i) for i, other in enumerate(names) if other == name] for name in names if name}
    told = [f"{name!r} is the classes {', '.join(places)}" for name, places in same.items() if len(places) > 1]
    return f"; {', '.join(told[:3])}{', …' if len(told) > 3 else ''}"


def running_facts(file: WeightsFile, graph: Graph) -> dict[str, str]:
    """What is worth telling of any graph: its format, where it runs, its licence."""
    facts = {
        "format": file.detail,
        "runs on": graph.session.runs_on,
    }
    if licence := graph.metadata.get("license") or graph.metadata.get("licence"):
        facts["licence"] = licence
    return facts
