"""Clicks and boxes answered by an interactor, whose embeddings are kept by the picture's content."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, get_args

import numpy as np

from agent.contract import Detection, Frame, PromptNeeds, Prompts, Shape
from agent.errors import BadPrediction, BadRequest, ModelError
from agent.filters import Filters, filter_detections
from agent.flat_shapes import write_shape
from agent.labels.matching import Thresholds
from agent.models.line import INTERACTIVE
from agent.pool.pool import HostedModel
from agent.predict import check_predictions
from agent.shapes.editor_masks import as_mask

ENTRY = 256
"""Bytes that keeping anything costs, so that even empty embeddings do not grow without end."""
SCORE = 0
"""The number of the attribute by which an interactor tells how sure it is."""
_SHAPES: tuple[type, ...] = get_args(Shape)
_EVERYTHING = Filters(Thresholds(0.0, {}, 0.0))


@dataclass(slots=True)
class Embeddings:
    """The embeddings used last, up to a number of bytes; a picture is embedded once, whoever asks for it how often."""

    limit: int
    bytes: int = 0
    _kept: OrderedDict[Hashable, tuple[Any, int]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Hashable, embed: Callable[[], Any]) -> Any:
        """What is kept under `key`, else what `embed` gives."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        found = embed()
        size = size_of(found) + ENTRY
        with self._lock:
            if key not in self._kept and size <= self.limit:
                self._kept[key] = (found, size)
                self.bytes += size
                self._trim()
        return found

    def resize(self, limit: int) -> None:
        """Another number of bytes."""
        with self._lock:
            self.limit = limit
            self._trim()

    def forget(self, model: str) -> None:
        """Drops what is kept for a model that was unloaded."""
        with self._lock:
            for key in [key for key in self._kept if isinstance(key, tuple) and key[0] == model]:
                self.bytes -= self._kept.pop(key)[1]

    def _trim(self) -> None:
        while self.bytes > self.limit:
            _, (_, gone) = self._kept.popitem(last=False)
            self.bytes -= gone


def interact(
    hosted: HostedModel, embeddings: Embeddings, frame: Frame, prompts: Prompts, *, digest: str | None = None
) -> Future[list[Detection]]:
    """What the interactor finds under the prompts, best first; in the model's thread, before any batch that waits.

    `digest` names the picture's content where the caller knows it already. The future raises BadPrediction where the
    model fails or answers outside its contract.
    """
    model = hosted.loaded.model
    # An embedding is good for the load that made it: the next one may have other options, or another device.
    key = (hosted.id, hosted.loaded.version, hosted.load, digest or content_digest(frame))

    def work() -> list[Detection]:
        try:
            found = list(model.segment(embeddings.get(key, lambda: model.embed(frame)), prompts))
        except ModelError:
            raise
        except Exception as error:
            raise BadPrediction(f"{hosted.id}: the model failed: {type(error).__name__}: {error}") from error
        return _checked(found, frame, hosted)

    return hosted.host.call(work, INTERACTIVE)


def check_prompts(prompts: Prompts, needs: PromptNeeds) -> None:
    """BadRequest where an interactor cannot answer to what was marked."""
    marked, unmarked = len(prompts.positive), len(prompts.negative)
    if marked < needs.positive:
        raise BadRequest(f"pos_points: got {marked} points, allowed: at least {needs.positive}")
    if needs.negative is None and unmarked:
        raise BadRequest(f"neg_points: got {unmarked} points, allowed: none")
    if unmarked < (needs.negative or 0):
        raise BadRequest(f"neg_points: got {unmarked} points, allowed: at least {needs.negative}")
    if needs.box == "no" and prompts.box is not None:
        raise BadRequest("obj_bbox: got a box, allowed: none")
    if needs.box == "required" and prompts.box is None:
        raise BadRequest("obj_bbox: got none, allowed: a box")


def editor_shapes(found: Sequence[Detection], size: tuple[int, int]) -> list[dict[str, Any]]:
    """What CVAT's editor takes of an interactor's answer for a picture of `size` (width, height), the best first.

    Masks, as run lengths; points and lines, which no mask can tell, as they are.
    """
    shapes = []
    for detection in filter_detections(found, *size, _EVERYTHING)[0]:
        if detection.shape is None or (shape := as_mask(detection.shape, size)) is None:
            continue
        score = detection.score
        sure = [] if score is None else [{"spec_id": SCORE, "value": f"{float(score):.4g}"}]
        shapes.append({**write_shape(shape), "attributes": sure})
    return shapes


def content_digest(frame: Frame) -> str:
    """Names the pixels of a frame."""
    name = hashlib.blake2b(f"{frame.width}x{frame.height}".encode(), digest_size=16)
    name.update(np.ascontiguousarray(frame.image).data)
    return name.hexdigest()


def size_of(value: Any) -> int:
    """The bytes of the arrays and tensors in a value, however they are nested; what is there twice counts once."""
    return _size_of(value, set())


def _size_of(value: Any, seen: set[int]) -> int:
    if id(value) in seen or value is None or isinstance(value, int | float):
        return 0
    seen.add(id(value))
    if isinstance(value, bytes | bytearray):
        return len(value)
    if isinstance(value, str):
        return len(value.encode())
    if isinstance((size := getattr(value, "nbytes", None)), int):
        return size
    return sum(_size_of(part, seen) for part in _parts(value))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, Sequence | AbstractSet):
        return value
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in slots)]


def _checked(found: Sequence[Any], frame: Frame, hosted: HostedModel) -> list[Detection]:
    """Held to the contract; an interactor that names no labels may call its answer what it likes."""
    if hosted.loaded.labels:
        (checked,) = check_predictions([found], [frame], hosted.loaded.labels)
        if isinstance(checked, BadPrediction):
            raise checked
        return checked
    for detection in found:
        if not isinstance(detection, Detection):
            raise BadPrediction(f"{hosted.id}: got {type(detection).__name__}, allowed: Detection")
        if not isinstance(detection.shape, (*_SHAPES, type(None))):
            raise BadPrediction(f"{hosted.id}: got a {type(detection.shape).__name__}, allowed: a shape, or None")
        score = detection.score
        if score is not None and not (isinstance(score, Real) and 0 <= score <= 1):
            raise BadPrediction(f"{hosted.id}: got the score {score!r}, allowed: 0 to 1, or None")
    return list(found)
