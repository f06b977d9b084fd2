"""What a repository is for: from the class that its config names to the module that runs it.

A new task is a line here and a module with `build(opened, *, options…)`, which gives a model of `agent/contract.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.contract import ConfigError, ModelLoadFailed


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of work, and how to tell a model that does it."""

    name: str
    """What the option `task` says."""
    module: str
    """The module in this package."""
    endings: tuple[str, ...] = ()
    """How the names of transformers' classes end; the longest one that fits decides."""
    auto: str | None = None
    """The Auto class, for configs without architectures and for code that a repository brings."""


TASKS = (
    Task("detection", "detection", ("ForObjectDetection",), "AutoModelForObjectDetection"),
    Task(
        "zero-shot-detection",
        "zero_shot",
        (
            "GroundingDinoForObjectDetection",
            "Owlv2ForObjectDetection",
            "OwlViTForObjectDetection",
            "OmDetTurboForObjectDetection",
        ),
        "AutoModelForZeroShotObjectDetection",
    ),
    Task("zero-shot-segmentation", "concepts", ("Sam3Model", "Sam3LiteTextModel")),
    Task("text-detection", "text_detection", ("DetForObjectDetection",)),
    Task("text-reading", "reading", ("VisionEncoderDecoderModel", "ForTextRecognition"), "AutoModelForTextRecognition"),
    Task(
        "segmentation",
        "segmentation",
        ("ForUniversalSegmentation", "ForInstanceSegmentation", "DetrForSegmentation"),
        "AutoModelForUniversalSegmentation",
    ),
    Task("semantic-segmentation", "semantic", ("ForSemanticSegmentation",), "AutoModelForSemanticSegmentation"),
    Task(
        "classification",
        "classification",
        ("ForImageClassification", "ForImageClassificationWithTeacher"),
        "AutoModelForImageClassification",
    ),
    Task("pose", "pose", ("ForPoseEstimation",), "AutoModelForPoseEstimation"),
    Task(
        "interaction",
        "interaction",
        (
            "SamModel", "SamHQModel", "Sam2Model", "Sam2VideoModel", "EdgeTamModel", "EdgeTamVideoModel",
            "Sam3TrackerModel", "Sam3TrackerVideoModel", "Sam3VideoModel",
        ),
        "AutoModelForMaskGeneration",
    ),
    # The same repositories as for interaction; nobody gets a tracker without asking for one.
    Task("tracking", "tracking"),
)  # fmt: skip


def choose(config: Any, owner: str, wanted: str | None) -> Task:
    """The task that is wanted, or that the config's class is for; ModelLoadFailed where nothing here runs it."""
    if wanted is not None:
        found = next((task for task in TASKS if task.name == wanted), None)
        if found is None:
            names = ", ".join(task.name for task in TASKS)
            raise ConfigError(f"{owner}: task: got {wanted!r}, allowed: {names}")
        return found
    classes = list(getattr(config, "architectures", None) or [])
    found = _by_ending(classes) or _by_own_code(config) or (None if classes else _by_mapping(config))
    if found is None:
        got = ", ".join(classes) or f"model type {config.model_type}"
        allowed = ", ".join(f"…{ending}" for task in TASKS for ending in task.endings[:1])
        raise ModelLoadFailed(f"{owner}: got {got}, which nothing here runs, allowed: {allowed}")
    return found


def _by_ending(classes: list[str]) -> Task | None:
    fits = [
        (len(ending), task) for name in classes for task in TASKS for ending in task.endings if name.endswith(ending)
    ]
    return max(fits, key=lambda fit: fit[0])[1] if fits else None


def _by_own_code(config: Any) -> Task | None:
    offered = getattr(config, "auto_map", None) or {}
    return next((task for task in TASKS if task.auto in offered), None)


def _by_mapping(config: Any) -> Task | None:
    import transformers

    for task in TASKS:
        auto = getattr(transformers, task.auto, None) if task.auto else None
        if auto is not None and type(config) in auto._model_mapping:
            return task
    return None
