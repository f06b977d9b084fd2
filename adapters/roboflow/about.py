"""What a model is for, and the classes that it has: a detector must say so before it has seen a picture.

Inference servers do not tell classes. Who does, in this order: the options; Roboflow's platform, which knows the
project; what was learned before; the answer to a gray picture (classifiers and semantic segmentation name all their
classes in every answer); example pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from adapters.roboflow.calls import Calls
from adapters.roboflow.forms import BACKGROUND, TASKS, Task, Told
from adapters.roboflow.memory import Learned, Memory
from adapters.roboflow.reference import Reference
from adapters.roboflow.refusals import CallFailed
from agent.contract import ConfigError, Label, ModelLoadFailed

_TYPES: Mapping[Task | None, str] = {
    "object-detection": "rectangle",
    "instance-segmentation": "polygon",
    "keypoint-detection": "skeleton",
    "classification": "tag",
    "multi-label-classification": "tag",
    "semantic-segmentation": "mask",
    None: "any",
}
_TELLS_ALL = ("classification", "multi-label-classification", "semantic-segmentation")
"""The tasks whose answers name every class of the model."""


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a model."""

    task: Task | None = None
    classes: tuple[str, ...] = ()
    keypoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class -> the names of its keypoints, in the model's order."""
    version: str | None = None
    """As the platform says it."""
    labels_from: str = ""

    @property
    def complete(self) -> bool:
        """Whether labels can be made of it."""
        points = self.task != "keypoint-detection" or all(self.keypoints.get(name) for name in self.classes)
        return bool(self.task and self.classes and points)

    def filled(self, other: About) -> About:
        """With what the other one knows and this one does not."""
        return About(
            self.task or other.task,
            self.classes or other.classes,
            {**other.keypoints, **self.keypoints},
            self.version or other.version,
            self.labels_from if self.classes else other.labels_from,
        )

    def labels(self, *, masks: bool = False) -> list[Label]:
        """The labels of a detector; `masks` for outlines that come as run lengths."""
        kind = "mask" if masks and self.task == "instance-segmentation" else _TYPES[self.task]
        wanted = [name for name in self.classes if self.task != "semantic-segmentation" or not is_background(name)]
        if kind != "skeleton":
            return [Label(name, kind) for name in wanted]
        return [
            Label(name, kind, sublabels=tuple(Label(point, "points") for point in self.keypoints[name]))
            for name in wanted
        ]


def is_background(name: str) -> bool:
    """Whether a class stands for what is no class."""
    return name.lower() in BACKGROUND


def as_task(name: Any) -> Task | None:
    """The task of a name that the platform or a server uses; None where it does not tell what answers look like.

    Plain "classification" does not tell whether classes exclude each other.
    """
    if name == "single-label-classification":
        return "classification"
    return next((task for task in TASKS if task == name and name != "classification"), None)


class Sources(Protocol):
    """Who may know something of a model; each is asked only while something lacks."""

    def platform(self) -> About:
        """Roboflow's platform; CallFailed where it cannot be asked."""
        ...

    def probe(self) -> Told:
        """The answer to a gray picture."""
        ...

    def registry(self) -> Task | None:
        """The list of the server's loaded models."""
        ...

    def examples(self) -> Told:
        """The answers to the example pictures."""
        ...


def learn(known: About, owner: str, sources: Sources, memory: Memory, examples: str) -> About:
    """Everything that is needed of a model; ModelLoadFailed where no classes are found.

    `examples` names the example pictures, "" where there are none.
    """
    about, reason = known, ""
    if not about.complete:
        try:
            about = about.filled(sources.platform())
        except CallFailed as error:
            reason = str(error).removeprefix(f"{owner}: ")
    before = memory.read()
    fresh = before is not None and (not examples or before.examples == examples)
    if before is not None and fresh and not about.complete:
        origin = "what was learned before"
        about = about.filled(About(before.task, before.classes, before.keypoints, before.version, origin))
    # A gray picture says nothing more of a model that is known to be a detector.
    if not about.complete and about.task in (None, *_TELLS_ALL):
        told = sources.probe()
        if told.task in _TELLS_ALL:
            about = about.filled(About(told.task, told.classes, labels_from="an answer of the server"))
    if about.task is None:
        about = replace(about, task=sources.registry())
    if examples and not about.complete:
        told = sources.examples()
        seen = _with(told, before)
        about = about.filled(About(told.task, seen.classes, seen.keypoints, labels_from="the example pictures"))
    _check(about, owner, reason)
    if about.labels_from not in ("options", "what was learned before"):
        memory.write(Learned(about.task, about.classes, about.keypoints, about.version, examples))
    return about


def _with(told: Told, before: Learned | None) -> Told:
    """What pictures show, and what other pictures have shown before."""
    if before is None:
        return Told(told.task, tuple(sorted(told.classes)), told.keypoints)
    classes = tuple(sorted({*told.classes, *before.classes}))
    return Told(told.task, classes, {**before.keypoints, **told.keypoints})


def _check(about: About, owner: str, reason: str) -> None:
    because = f" ({reason})" if reason else ""
    if not about.classes:
        raise ModelLoadFailed(
            f"{owner}: nobody tells its classes{because}; give them by labels, or pictures that show them by examples"
        )
    lacking = [name for name in about.classes if not about.keypoints.get(name)]
    if about.task == "keypoint-detection" and lacking:
        raise ModelLoadFailed(
            f"{owner}: nobody tells the keypoints of {', '.join(map(repr, lacking[:5]))}{because};"
            " give them by keypoints, or pictures that show them by examples"
        )


def from_options(
    task: Task | None,
    labels: list[str] | None,
    keypoints: list[str] | Mapping[str, list[str]] | None,
    owner: str,
) -> About:
    """What the options say; `keypoints` is one list for all classes, or one for each."""
    classes = tuple(name for name in labels or () if name)
    if isinstance(keypoints, Mapping):
        points = {str(name): _points(names, owner) for name, names in keypoints.items()}
        classes = classes or tuple(points)
    elif keypoints is not None:
        if not classes:
            raise ConfigError(f"{owner}: keypoints: got one list, allowed with labels only; or a list for each class")
        points = dict.fromkeys(classes, _points(keypoints, owner))
    else:
        points = {}
    return About(task, classes, points, labels_from="options" if classes else "")


def _points(names: Any, owner: str) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{owner}: keypoints: got {names!r}, allowed: a list of names")
    return tuple(names)


def from_platform(calls: Calls, address: str, reference: Reference) -> About:
    """What Roboflow's platform tells of a project's version, or of a model with a name of its own.

    Routes: `/` names the workspace of the key, `/workspace/project/version` the classes and, of keypoints, the
    skeletons; `/models/v1/external/stat` the task of any model. Source: docs.roboflow.com, "View a Version".
    """
    if reference.is_version:
        workspace = reference.workspace or _table(calls.get(f"{address}/")).get("workspace")
        if isinstance(workspace, str) and workspace:
            path = f"{workspace}/{reference.project}/{reference.version}"
            return _of_version(_table(calls.get(f"{address}/{path}")), path)
    told = _table(calls.get(f"{address}/models/v1/external/stat", {"modelId": reference.model_id}))
    return About(as_task(_table(told.get("modelMetadata")).get("taskType")))


def _of_version(told: Mapping[str, Any], path: str) -> About:
    project, version = _table(told.get("project")), _table(told.get("version"))
    classes = _names(version.get("classes")) or tuple(sorted(_names(project.get("classes"))))
    skeletons = version.get("skeletons", project.get("skeletons"))
    stated = version.get("id")
    return About(
        as_task(project.get("type")),
        classes,
        _skeletons(skeletons),
        stated if isinstance(stated, str) else path,
        "Roboflow's project",
    )


def _names(told: Any) -> tuple[str, ...]:
    """Class names of a list, of a list of tables with names, or of a table by names."""
    if isinstance(told, Mapping):
        return tuple(map(str, told))
    listed = told if isinstance(told, list) else []
    found = [one.get("name", one.get("class")) if isinstance(one, Mapping) else one for one in listed]
    return tuple(name for name in found if isinstance(name, str) and name)


def _skeletons(told: Any) -> dict[str, tuple[str, ...]]:
    """Class -> keypoints, of a table by classes or of a list of tables that name theirs."""
    listed = told if isinstance(told, list) else []
    pairs = told.items() if isinstance(told, Mapping) else [(_first(one), one) for one in listed]
    return {str(name): points for name, one in pairs if name and (points := _names(_table(one).get("vertices")))}


def _first(skeleton: Any) -> Any:
    table = _table(skeleton)
    return next((table[key] for key in ("class", "className", "name") if isinstance(table.get(key), str)), None)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
