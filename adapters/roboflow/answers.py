"""What inference servers answer, read into detections in pixels of the frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters._masks import connected_parts, tight_mask
from adapters.roboflow.forms import BACKGROUND, Task, class_of, form_of, number_in, score_of
from adapters.roboflow.masks import at_size, from_png, from_run_lengths
from agent.contract import (
    BadPrediction,
    Context,
    Detection,
    Frame,
    Keypoint,
    Label,
    Mask,
    Polygon,
    Rectangle,
    Shape,
    Skeleton,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How answers become detections."""

    task: Task | None
    """None: each answer tells by its form."""
    labels: Mapping[str, Label]
    top_k: int = 1
    """At most so many tags of a classifier whose classes exclude each other."""
    keypoint_threshold: float = 0.0
    split_regions: bool = False
    smallest_region: int = 1


def read(
    answer: Mapping[str, Any], frame: Frame, sent: tuple[int, int], reading: Reading, context: Context
) -> list[Detection]:
    """The detections of an answer, best first, for a frame that was sent at a size of (width, height).

    BadPrediction where the answer is not of the task's form, or says what makes no sense.
    """
    if answer.get("is_stub"):
        raise BadPrediction("the server answers with a stub: the project has no trained model")
    found = form_of(answer)
    task = reading.task or found
    if found is None or task is None:
        return []
    if found not in _FITTING[task]:
        raise BadPrediction(f"the server answers with {found}, its task is {task}; is it the right model, or task?")
    width, height = _seen(answer, sent)
    place = _Place(frame, frame.width / width, frame.height / height, reading, context)
    if found == "semantic-segmentation":
        detections = place.regions(answer["predictions"])
    elif found in ("classification", "multi-label-classification"):
        detections = place.tags(answer["predictions"])
    else:
        read_shape: Callable[[Mapping[str, Any], Label], list[Shape]] = getattr(place, _SHAPES[task])
        detections = place.shapes(answer["predictions"], read_shape)
    return sorted(detections, key=lambda one: -(one.score or 0))


_FITTING: Mapping[Task, tuple[Task, ...]] = {
    # Boxes are part of what the others answer; what a workflow calls semantic has a mask for each class.
    "object-detection": ("object-detection", "instance-segmentation", "keypoint-detection"),
    "instance-segmentation": ("instance-segmentation",),
    "keypoint-detection": ("keypoint-detection",),
    "classification": ("classification",),
    "multi-label-classification": ("multi-label-classification",),
    "semantic-segmentation": ("semantic-segmentation", "instance-segmentation"),
}
_SHAPES: Mapping[Task, str] = {
    "object-detection": "rectangle",
    "instance-segmentation": "outline",
    "keypoint-detection": "skeleton",
    "semantic-segmentation": "outline",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """One frame, and how the server's pixels lie on it."""

    frame: Frame
    scale_x: float
    scale_y: float
    reading: Reading
    context: Context

    def shapes(
        self, predictions: Sequence[Any], read_shape: Callable[[Mapping[str, Any], Label], list[Shape]]
    ) -> list[Detection]:
        found = []
        for one in predictions:
            if (label := self._wanted(class_of(one))) is not None:
                score = score_of(one, label.name)
                if score >= self.context.threshold:
                    found += [Detection(label.name, shape, score) for shape in read_shape(one, label)]
        return found

    def rectangle(self, one: Mapping[str, Any], label: Label) -> list[Shape]:
        """From the centre and the size; what is outside of the frame is cut off."""
        x, y, width, height = (number_in(one, name, label.name) for name in ("x", "y", "width", "height"))
        if width < 0 or height < 0:
            raise BadPrediction(f"{label.name!r}: got a box of {width:g} by {height:g}")
        left, right = ((x + side * width / 2) * self.scale_x for side in (-1, 1))
        top, bottom = ((y + side * height / 2) * self.scale_y for side in (-1, 1))
        left, right = max(left, 0.0), min(right, float(self.frame.width))
        top, bottom = max(top, 0.0), min(bottom, float(self.frame.height))
        return [Rectangle(left, top, right, bottom)] if left < right and top < bottom else []

    def outline(self, one: Mapping[str, Any], label: Label) -> list[Shape]:
        """From a polygon's points, or from run lengths; servers send the one or the other."""
        rle = one.get("rle", one.get("rle_mask"))
        if rle is not None:
            bitmap = at_size(from_run_lengths(rle), self.frame.width, self.frame.height)
            return list(self._cut(tight_mask(bitmap)))
        points = one.get("points")
        if not isinstance(points, list):
            raise BadPrediction(f"{label.name!r}: got neither points nor run lengths of its outline")
        flat = [value for point in points for value in self._point(point, label.name)]
        # Two points are what is left of a speck: there is nothing to draw.
        return [Polygon(tuple(flat))] if len(flat) >= 6 else []

    def skeleton(self, one: Mapping[str, Any], label: Label) -> list[Shape]:
        """The keypoints that the server sees well enough; the others count as outside."""
        points = one.get("keypoints")
        if not isinstance(points, list):
            raise BadPrediction(f"{label.name!r}: got no keypoints")
        names = [sublabel.name for sublabel in label.sublabels]
        elements: dict[str, Keypoint] = {}
        for point in points:
            name = class_of(point)
            if name not in names:
                raise BadPrediction(
                    f"{label.name!r}: got the keypoint {name!r}, allowed: {', '.join(names)} (option keypoints)"
                )
            if name in elements:
                raise BadPrediction(f"{label.name!r}: got the keypoint {name!r} twice")
            if score_of(point, name) >= self.reading.keypoint_threshold:
                elements[name] = Keypoint(name, *self._point(point, name))
        return [Skeleton(tuple(elements.values()))] if elements else []

    def tags(self, predictions: Any) -> list[Detection]:
        """All of several labels that pass the threshold; of classes that exclude each other the best ones."""
        exclusive = not isinstance(predictions, Mapping)
        pairs = [(class_of(one), one) for one in predictions] if exclusive else list(predictions.items())
        found = [(score_of(one, name), name) for name, one in pairs if self._known(name)]
        found = sorted(found, key=lambda pair: -pair[0])[: self.reading.top_k if exclusive else None]
        return [
            Detection(name, None, score)
            for score, name in found
            if score >= self.context.threshold and self._wanted(name) is not None
        ]

    def regions(self, predictions: Mapping[str, Any]) -> list[Detection]:
        """A mask for each class that a map of class numbers shows, its score the mean of its pixels' confidence."""
        names = predictions.get("class_map")
        if not isinstance(names, Mapping):
            raise BadPrediction("a map of classes without class_map, which names them")
        width, height = self.frame.width, self.frame.height
        classes = at_size(from_png(predictions["segmentation_mask"], "segmentation_mask"), width, height)
        confidence = None
        if predictions.get("confidence_mask") is not None:
            confidence = at_size(from_png(predictions["confidence_mask"], "confidence_mask"), width, height)
        found = []
        for number in np.unique(classes).tolist():
            name = names.get(str(number), "background" if number == 0 else None)
            if name is None:
                raise BadPrediction(f"a map of classes with the number {number}, which class_map does not name")
            if name.lower() in BACKGROUND or (label := self._wanted(name)) is None:
                continue
            for mask in self._cut(tight_mask(classes == number)):
                score = None if confidence is None else _mean(confidence, mask)
                if score is None or score >= self.context.threshold:
                    found.append(Detection(label.name, mask, score))
        return found

    def _cut(self, mask: Mask | None) -> Sequence[Mask]:
        """The mask, or its parts where a task of regions is to be split."""
        if mask is None:
            return ()
        if self.reading.split_regions:
            return tuple(connected_parts(mask, self.reading.smallest_region))
        return (mask,) if int(mask.bitmap.sum()) >= self.reading.smallest_region else ()

    def _known(self, name: str) -> Label:
        label = self.reading.labels.get(name)
        if label is None:
            known = list(self.reading.labels)
            some = ", ".join(map(repr, known[:8])) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
            raise BadPrediction(f"got the class {name!r}, which is none of its labels: {some} (option labels)")
        return label

    def _wanted(self, name: str) -> Label | None:
        """The label of a class, None where it has no place in the task."""
        label = self._known(name)
        return label if self.context.labels is None or name in self.context.labels else None

    def _point(self, point: Any, name: str) -> tuple[float, float]:
        return number_in(point, "x", name) * self.scale_x, number_in(point, "y", name) * self.scale_y


def _seen(answer: Mapping[str, Any], sent: tuple[int, int]) -> tuple[float, float]:
    """The size of the picture that coordinates are in: what the server says that it saw, else what was sent."""
    image = answer.get("image")
    if isinstance(image, list) and image:
        image = image[0]
    if not isinstance(image, Mapping) or image.get("width") is None or image.get("height") is None:
        return sent  # workflows that found nothing say so
    width, height = number_in(image, "width", "image"), number_in(image, "height", "image")
    if width < 1 or height < 1:
        raise BadPrediction(f"the server saw a picture of {width:g} by {height:g}, sent were {sent[0]} by {sent[1]}")
    return width, height


def _mean(confidence: Any, mask: Mask) -> float:
    height, width = mask.bitmap.shape
    part = confidence[mask.top : mask.top + height, mask.left : mask.left + width]
    return float(part[mask.bitmap].mean()) / 255
