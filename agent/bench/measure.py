"""How good a model is beside a job that people finished, how quick, and what it takes: for `models bench`."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.contract import Context, Frame, Mask, Polygon, Shape
from agent.cvat.chunks import BadFrame
from agent.domain import TaskLabel
from agent.errors import BadPrediction, BadRequest, ConfigError
from agent.existing import shapes_by_frame
from agent.filters import stored_bounds
from agent.labels.matching import LabelMatch
from agent.models.host import Host
from agent.models.loading import LoadedModel
from agent.predict import check_predictions
from agent.shapes.clipping import clip
from agent.shapes.geometry import bounds, coordinates
from agent.shapes.outlines import polygon_to_mask

LOWEST = 0.01
"""Scores below this change no average precision."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What people drew, frame by frame: CVAT's shapes."""

    labels: tuple[TaskLabel, ...]
    shapes: Mapping[int, Sequence[Mapping[str, Any]]]


@dataclass(slots=True)
class BenchResult:
    """Mean average precision over IoU 0.50 to 0.95, of rectangles and (where both have masks) of masks."""

    frames: int
    precision: float
    precision_50: float
    by_label: dict[str, float] = field(default_factory=dict)
    mask_precision: float | None = None
    frames_per_second: float = 0.0
    """Of the model alone, without download and decoding."""
    failed: int = 0
    why_failed: str = ""
    """What the model said of the last of these frames."""


def measure(
    loaded: LoadedModel,
    frames: Iterable[Frame | BadFrame],
    truth: Truth,
    match: LabelMatch,
    batch_size: int | None = None,
) -> BenchResult:
    """Runs the model over the frames and holds what it finds against the truth. The first batch warms the model up."""
    sizes: dict[int, tuple[int, int]] = {}
    found: list[dict[str, Any]] = []
    counted, failed, why = 0, 0, ""
    context = Context(LOWEST, frozenset(match.targets))
    with Host(loaded.model, batch_size=batch_size or loaded.batch_size, name="bench") as host:
        readable = (frame for frame in frames if isinstance(frame, Frame))
        for number, (batch, predictions) in enumerate(host.stream(_batches(readable, host.batch_size), context)):
            if number == 0:
                # The first look is slower than all others; it is not timed, and done again.
                host.busy_seconds = 0.0
                host.submit(batch, context).result()
            counted += len(batch)
            for frame, seen in zip(batch, check_predictions(predictions, batch, loaded.labels), strict=True):
                sizes[frame.index] = (frame.width, frame.height)
                if isinstance(seen, BadPrediction):
                    failed, why = failed + 1, str(seen)
                    continue
                for detection in seen:
                    if (target := match.targets.get(detection.label)) is not None:
                        score = 1.0 if detection.score is None else detection.score
                        item = {"image_id": frame.index, "category_id": target.label.id, "score": score}
                        found += [{**item, **drawn} for drawn in _seen(detection.shape, frame)]
        busy = host.busy_seconds
    if not sizes:
        raise BadRequest("bench: none of the frames could be read")
    result = _evaluated(found, truth, sizes)
    result.frames_per_second = counted / busy if busy and counted else 0.0
    result.failed, result.why_failed = failed, why
    return result


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _seen(shape: Shape | None, frame: Frame) -> list[dict[str, Any]]:
    """What of a shape would be uploaded: nothing of one that is no place at all, else its part of the picture."""
    if shape is None or not all(map(math.isfinite, coordinates(shape))):
        return []
    return [_shape(part, (frame.width, frame.height)) for part in clip(shape, frame.width, frame.height)]


def _shape(shape: Any, size: tuple[int, int]) -> dict[str, Any]:
    left, top, right, bottom = (float(side) for side in bounds(shape))
    box = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
    mask = shape if isinstance(shape, Mask) else None
    if isinstance(shape, Polygon):
        mask = polygon_to_mask(shape.points, *size)
    return box if mask is None else {**box, "segmentation": _rle(mask, size)}


def _stored_shape(item: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any] | None:
    if item["type"] == "mask":
        runs, edges = item["points"][:-4], [int(edge) for edge in item["points"][-4:]]
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, np.asarray(runs, dtype=int))
        return _shape(Mask(flat.reshape(edges[3] - edges[1] + 1, edges[2] - edges[0] + 1), edges[0], edges[1]), size)
    if item["type"] == "polygon":
        return _shape(Polygon(tuple(item["points"])), size)
    if (box := stored_bounds(item)) is None:
        return None
    left, top, right, bottom = (float(side) for side in box)
    return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}


def _rle(mask: Mask, size: tuple[int, int]) -> Any:
    coco = _pycocotools()[2]
    whole = np.zeros((size[1], size[0]), np.uint8, order="F")
    for part in clip(mask, *size):
        assert isinstance(part, Mask)  # as what it is a part of
        rows, columns = part.bitmap.shape
        whole[part.top : part.top + rows, part.left : part.left + columns] = part.bitmap
    with _quiet():
        return coco.encode(whole)


def _evaluated(found: list[dict[str, Any]], truth: Truth, sizes: Mapping[int, tuple[int, int]]) -> BenchResult:
    """COCO's evaluation, over the labels that the model can find or that people drew."""
    drawn = []
    for frame, size in sizes.items():
        for item in truth.shapes.get(frame, ()):
            if (shape := _stored_shape(item, size)) is not None:
                drawn.append({"image_id": frame, "category_id": item["label_id"], "iscrowd": 0, **shape})
    if not drawn:
        raise BadRequest("bench: the truth has no shapes on these frames")
    wanted = {item["category_id"] for item in drawn}
    content = {
        "images": [{"id": frame, "width": width, "height": height} for frame, (width, height) in sizes.items()],
        "categories": [{"id": label.id, "name": label.name} for label in truth.labels if label.id in wanted],
        "annotations": [{"id": number, **item} for number, item in enumerate(drawn, 1)],
    }
    own = [item for item in found if item["category_id"] in wanted]
    mean, half, by_label = _scores(content, own, "bbox")
    result = BenchResult(len(sizes), mean, half, by_label)
    if own and all("segmentation" in item for item in (*drawn, *own)):
        result.mask_precision = _scores(content, own, "segm")[0]
    return result


def _scores(content: Mapping[str, Any], own: list[dict[str, Any]], kind: str) -> tuple[float, float, dict[str, float]]:
    names = {category["id"]: category["name"] for category in content["categories"]}
    if not own:
        return 0.0, 0.0, dict.fromkeys(names.values(), 0.0)
    coco, evaluator, _ = _pycocotools()
    with _quiet():
        reference = coco()
        reference.dataset = dict(content)
        reference.createIndex()
        evaluation = evaluator(reference, reference.loadRes([dict(item) for item in own]), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # (IoU thresholds, recalls, labels, areas, detections): all areas, 100 detections a frame
    table, by_label = evaluation.eval["precision"][:, :, :, 0, -1], defaultdict(float)
    for place, category in enumerate(evaluation.params.catIds):
        own_table = table[:, :, place]
        by_label[names[category]] = float(own_table[own_table > -1].mean()) if (own_table > -1).any() else 0.0
    return float(evaluation.stats[0]), float(evaluation.stats[1]), dict(by_label)


def _pycocotools() -> tuple[Any, Any, Any]:
    try:
        with _quiet():
            from pycocotools import mask
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ConfigError("bench: it needs the package pycocotools: pip install 'cvat-sidecar[bench]'") from error
    return COCO, COCOeval, mask


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pycocotools prints what it does, and copies arrays in numpy 1's way."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def truth_of(labels: Sequence[TaskLabel], annotations: Mapping[str, Any], stop: int) -> Truth:
    """The shapes of a job whose last frame is `stop`, by frame, those of tracks as CVAT draws them.

    Those that are drawn without area (points, lines) are not asked.
    """
    lines = ("points", "polyline")
    drawn = shapes_by_frame(annotations, stop).items()
    return Truth(tuple(labels), {frame: [one for one in own if one["type"] not in lines] for frame, own in drawn})
