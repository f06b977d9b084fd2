"""Poses of one person, or the landmarks of one face: heat maps of where each point may be, or the points themselves.

`estimate` is for who knows where the persons are; alone, a frame is taken for one person. Crops and decoding are those
of Xiao et al., "Simple Baselines for Human Pose Estimation" (ECCV 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.boxes import point_names
from adapters._networks.detectors import running_facts
from adapters._networks.files import open_weights
from adapters._networks.graph import Graph, open_graph, prepared
from adapters._networks.options import at_least, running, share
from adapters._networks.pictures import IMAGENET_MEAN, IMAGENET_STD, Recipe, place
from adapters._networks.signature import Signature
from agent.contract import (
    BadPrediction,
    ConfigError,
    Context,
    Detection,
    Frame,
    Keypoint,
    Label,
    ModelLoadFailed,
    Rectangle,
    Skeleton,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECIPE = Recipe(resize="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD)
_AROUND = 1.25
"""How much more than the person a crop shows, as in training."""
_Read = Callable[["NDArray[np.float32]"], "NDArray[np.float64]"]
"""One person's output -> (K, 3) x and y as shares of the window, and score."""


def load_poses(name: str, device: str, given: Mapping[str, Any]) -> OnePersonPoses:
    """The pose model in a file."""
    owner = f"local:{name}"
    at_least(owner, "batch_size", given.get("batch_size", 1), 1)
    share(owner, "point_threshold", given.get("point_threshold"))
    if not 0.5 <= (around := given.get("around", _AROUND)) <= 4:
        raise ConfigError(f"{owner}: around: got {around}, allowed: 0.5 to 4 times the rectangle")
    run = running(device, given, owner)
    file = open_weights(name)
    graph = open_graph(file, owner, run, threads=run.cores)
    signature = graph.signature(None)
    head = str(given["head"])
    told = _reader(head, signature)
    if told is None:
        raise ModelLoadFailed(f"{owner}: this is no {head} head: the graph gives {signature}")
    output, count, read = told
    points = point_names(count, (), given.get("points"), head, owner)
    graph, recipe = prepared(graph, RECIPE, given)
    facts = {
        "source": file.path.name,
        "version": file.version,
        "head": f"{head} ({len(points)} points of one person)",
        "input size": f"{graph.width}x{graph.height}",
        "preparation": str(recipe),
        **running_facts(file, graph),
    }
    least, step = given.get("point_threshold", 0.3), given.get("batch_size", 8)
    label = given.get("label", "face" if head == "landmarks" else "person")
    return OnePersonPoses(graph, output, read, points, recipe, facts, label, least, step, around)


def _reader(head: str, signature: Signature) -> tuple[str, int, _Read] | None:
    """(output, number of points, how it is read) of a head; None where the graph is not of its kind."""
    if len(signature.outputs) != 1:
        return None
    ((name, value),) = signature.outputs.items()
    if value.dtype.kind != "f" or value.shape[0] != 1:
        return None
    if head == "landmarks":
        values = value.shape[2] if value.ndim == 3 else 2
        if value.ndim not in (2, 3) or values not in (2, 3) or value.size % values or value.size < 2 * values:
            return None
        return name, value.size // values, partial(_landmarks, values=values, span=_span(value, values, signature))
    if value.ndim != 4 or (head == "movenet" and value.shape[3] != 3):
        return None
    return (name, int(value.shape[2]), _regressed) if head == "movenet" else (name, int(value.shape[1]), _peaks)


class OnePersonPoses:
    """Finds the points of persons that it is shown one by one."""

    default_threshold = 0.0

    def __init__(
        self,
        graph: Graph,
        output: str,
        read: _Read,
        points: Sequence[str],
        recipe: Recipe,
        facts: Mapping[str, str],
        label: str,
        least: float,
        step: int,
        around: float,
    ) -> None:
        sublabels = tuple(Label(name, "points") for name in points if name)
        self.labels: Sequence[Label] = [Label(label, "skeleton", sublabels=sublabels)]
        self.facts = facts
        self._graph, self._output, self._read, self._points, self._recipe = graph, output, read, points, recipe
        self._label, self._least, self._step, self._around = label, least, graph.batch or step, around

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        found = []
        for frame in frames:
            poses = self._poses(frame, [Rectangle(0.0, 0.0, float(frame.width), float(frame.height))])
            found.append([Detection(self._label, pose, score) for pose, score in poses if score >= context.threshold])
        return found

    def estimate(self, frame: Frame, rectangles: Sequence[Rectangle]) -> list[Skeleton]:
        """The skeleton in each rectangle, in pixels of the frame; unsure points are `outside`."""
        return [skeleton for skeleton, _ in self._poses(frame, rectangles)]

    def _poses(self, frame: Frame, rectangles: Sequence[Rectangle]) -> list[tuple[Skeleton, float]]:
        """The skeletons and the mean scores of their points."""
        found = []
        for start in range(0, len(rectangles), self._step):
            windows = [self._window(one) for one in rectangles[start : start + self._step]]
            blob, view = self._graph.blank(len(windows))
            for number, window in enumerate(windows):
                place(self._cropped(frame.image, window), self._recipe, view[number])
            maps = self._graph.run(blob)[self._output][: len(windows)].astype(np.float32, copy=False)
            if not np.isfinite(maps).all():
                raise BadPrediction(f"{self._graph.owner}: the points have numbers that are none (NaN or infinite)")
            found += [self._skeleton(one, window, frame) for one, window in zip(maps, windows, strict=True)]
        return found

    def _window(self, box: Rectangle) -> tuple[float, float, float, float]:
        """(left, top, width, height) of what the network sees: the box made as wide as its input, and some more."""
        width, height = max(1.0, box.right - box.left), max(1.0, box.bottom - box.top)
        ratio = self._graph.width / self._graph.height
        width, height = max(width, height * ratio) * self._around, max(height, width / ratio) * self._around
        return (box.left + box.right - width) / 2, (box.top + box.bottom - height) / 2, width, height

    def _cropped(self, image: NDArray[np.uint8], window: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        import cv2

        left, top, width, height = window
        scale_x, scale_y = self._graph.width / width, self._graph.height / height
        matrix = np.array([[scale_x, 0, -left * scale_x], [0, scale_y, -top * scale_y]])
        crop = cv2.warpAffine(image, matrix, (self._graph.width, self._graph.height), flags=cv2.INTER_LINEAR)
        return np.asarray(crop, np.uint8)

    def _skeleton(
        self, maps: NDArray[np.float32], window: tuple[float, float, float, float], frame: Frame
    ) -> tuple[Skeleton, float]:
        left, top, width, height = window
        points, scores = [], []
        for name, (across, down, score) in zip(self._points, self._read(maps).tolist(), strict=True):
            x = min(max(left + across * width, 0.0), float(frame.width))
            y = min(max(top + down * height, 0.0), float(frame.height))
            scores.append(min(1.0, max(0.0, score)))
            if name:
                points.append(Keypoint(name, x, y, outside=scores[-1] < self._least))
        return Skeleton(tuple(points)), sum(scores) / len(scores)


def _peaks(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """(K, 3) x, y as shares of the window, and height, of the highest cell of each of (K, h, w) maps.

    A quarter of a cell towards the higher of its neighbours.
    """
    count, high, wide = maps.shape
    rows, columns = np.divmod(maps.reshape(count, -1).argmax(axis=1), wide)
    found = np.zeros((count, 3))
    for number, (heat, row, column) in enumerate(zip(maps, rows.tolist(), columns.tolist(), strict=True)):
        x, y = float(column), float(row)
        if 0 < column < wide - 1:
            x += 0.25 * float(np.sign(heat[row, column + 1] - heat[row, column - 1]))
        if 0 < row < high - 1:
            y += 0.25 * float(np.sign(heat[row + 1, column] - heat[row - 1, column]))
        found[number] = x / wide, y / high, heat[row, column]
    return found


def _regressed(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """(K, 3) of MoveNet's (1, K, 3) y, x, score."""
    return np.asarray(rows[0][:, [1, 0, 2]], np.float64)


def _span(value: NDArray[Any], values: int, signature: Signature) -> tuple[NDArray[np.float64], float]:
    """(scale, shift) that make coordinates shares of the window: they are shares, -1 to 1, or pixels of the input."""
    places = value.reshape(-1, values)[:, :2]
    if float(places.min()) < -0.05 and float(np.abs(places).max()) <= 2:
        return np.array([0.5, 0.5]), 0.5
    if float(np.abs(places).max()) <= 2:
        return np.array([1.0, 1.0]), 0.0
    return 1 / np.array([signature.width, signature.height]), 0.0


def _landmarks(
    row: NDArray[np.float32], *, values: int, span: tuple[NDArray[np.float64], float]
) -> NDArray[np.float64]:
    """(K, 3) of a regressor's x, y (and score); points without a score are certain."""
    table = row.reshape(-1, values).astype(np.float64)
    scores = table[:, 2:] if values == 3 else np.ones((len(table), 1))
    return np.concatenate([table[:, :2] * span[0] + span[1], scores], axis=1)
