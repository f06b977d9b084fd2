"""Poses: ViTPose gives a skeleton for each person whose rectangle it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from adapters._names import vocabulary
from adapters.huggingface.class_names import class_names
from adapters.huggingface.opening import Opened
from adapters.huggingface.pictures import picture, size_text
from agent.contract import ConfigError, Context, Detection, Frame, Keypoint, Label, Rectangle, Skeleton

_COCO = "coco-17-keypoints"


class PoseEstimator:
    """Finds the points of persons. `estimate` is for who knows where they are; alone, a frame is one person."""

    default_threshold = 0.0

    def __init__(
        self,
        opened: Opened,
        *,
        labels: str | list[str] | None = None,
        label: str = "person",
        boxes: Literal["frame"] = "frame",
        point_threshold: float = 0.3,
        expert: int = 0,
    ) -> None:
        """`labels`: the names of the points. `expert`: which data set's part of a ViTPose++ answers (0: COCO's)."""
        if not 0 <= point_threshold <= 1:
            raise ConfigError(f"{opened.owner}: point_threshold: got {point_threshold}, allowed: 0 to 1")
        self._opened, self._label, self._least = opened, label, point_threshold
        self._points, points_from = _points(opened, labels)
        experts = int(getattr(getattr(opened.config, "backbone_config", None), "num_experts", 1))
        if not 0 <= expert < experts:
            raise ConfigError(f"{opened.owner}: expert: got {expert}, allowed: 0 to {experts - 1}")
        self._expert = expert if experts > 1 else None
        opened.preparation()
        self._processor = opened.image_processor()
        self._model = opened.model("AutoModelForPoseEstimation")
        self.labels = [Label(label, "skeleton", sublabels=tuple(Label(name, "points") for name in self._points))]
        self.batch_size = opened.batch_size
        size = size_text(getattr(self._processor, "size", None))
        self.facts = opened.facts(self._model, "pose", size, points_from=points_from, looks_at=f"the whole {boxes}")

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
        import torch

        boxes = [
            [one.left, one.top, max(1.0, one.right - one.left), max(1.0, one.bottom - one.top)] for one in rectangles
        ]
        found = []
        for start in range(0, len(boxes), self.batch_size):
            part = [boxes[start : start + self.batch_size]]
            inputs = dict(self._processor(images=[picture(_large_enough(frame))], boxes=part, return_tensors="pt"))
            if self._expert is not None:
                inputs["dataset_index"] = torch.full((len(part[0]),), self._expert)
            with torch.inference_mode():
                outputs = self._model(**self._opened.placed(inputs))
            outputs.heatmaps = outputs.heatmaps.float()
            self._opened.check(heatmaps=outputs.heatmaps)
            (poses,) = self._processor.post_process_pose_estimation(outputs, boxes=part)
            found += [self._skeleton(pose, frame) for pose in poses]
        return found

    def _skeleton(self, pose: Any, frame: Frame) -> tuple[Skeleton, float]:
        scores = pose["scores"].clamp(0, 1).tolist()
        width, height = float(frame.width), float(frame.height)
        points = [
            Keypoint(name, min(max(0.0, x), width), min(max(0.0, y), height), outside=score < self._least)
            for name, (x, y), score in zip(self._points, pose["keypoints"].tolist(), scores, strict=True)
            if name
        ]
        return Skeleton(tuple(points)), sum(scores) / len(scores)


def _large_enough(frame: Frame) -> Frame:
    """transformers takes a picture of up to four rows for one of so many channels."""
    missing = max(0, 8 - frame.height)
    return Frame(frame.index, frame.name, np.pad(frame.image, ((0, missing), (0, 0), (0, 0)))) if missing else frame


def _points(opened: Opened, labels: str | list[str] | None) -> tuple[list[str], str]:
    """The names of the points: COCO's where there are as many of them, since configs spell those in many ways."""
    if labels is None and int(opened.config.num_labels) == 17:
        return vocabulary(_COCO, opened.owner), f"the vocabulary {_COCO}"
    return class_names(opened, labels)


build = PoseEstimator
