"""Roboflow's workflows: which of their outputs has the predictions, and how they are run.

Source: roboflow/inference, inference/core/interfaces/http/http_api.py (release 1.5.0): `/workspace/workflows/id`, and
`/describe_interface` after it, which tells the kinds of inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.roboflow.calls import Calls
from adapters.roboflow.forms import Task, form_of, looks_like_predictions
from adapters.roboflow.pictures import Picture
from adapters.roboflow.reference import Reference
from adapters.roboflow.refusals import CallFailed
from agent.contract import BadPrediction, ConfigError, ModelLoadFailed

_KINDS: Mapping[str, Task | None] = {
    "object_detection_prediction": "object-detection",
    "instance_segmentation_prediction": "instance-segmentation",
    "rle_instance_segmentation_prediction": "instance-segmentation",
    "keypoint_detection_prediction": "keypoint-detection",
    "classification_prediction": None,
    "semantic_segmentation_prediction": "semantic-segmentation",
}
"""The kinds of outputs that can be read; None: the answers tell whether classes exclude each other."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options say of a workflow."""

    output: str | None = None
    """The output with the predictions; `name.part` for a part of one."""
    image_input: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    threshold_input: str | None = None
    """The workflow's parameter that takes the lowest confidence."""
    version: str | None = None


class Workflow:
    """A workflow at an inference server."""

    def __init__(self, calls: Calls, url: str, reference: Reference, wishes: Wishes) -> None:
        self.calls = calls
        self._address = f"{url}/{reference.workspace}/workflows/{reference.project}"
        self._wishes = wishes
        self._output = wishes.output
        self.task: Task | None = None
        inputs, outputs = self._interface()
        self._image = wishes.image_input or self._image_input(inputs)
        if outputs is not None:
            self._choose_by_kinds(outputs)
        named = [name for name in (*wishes.parameters, wishes.image_input, wishes.threshold_input) if name]
        if inputs is not None and (strangers := [name for name in named if name not in inputs]):
            unknown = ", ".join(map(repr, strangers))
            raise ConfigError(f"{calls.owner}: the workflow has no input {unknown}, allowed: {_list(inputs)}")

    @property
    def decided(self) -> bool:
        """Whether it is known which output has the predictions."""
        return self._output is not None

    def predict(self, picture: Picture, threshold: float) -> Mapping[str, Any]:
        """The predictions for a picture, in the form of an inference server's answer for a model."""
        inputs: dict[str, Any] = {**self._wishes.parameters}
        inputs[self._image] = {"type": "base64", "value": picture.text}
        if self._wishes.threshold_input:
            inputs[self._wishes.threshold_input] = threshold
        content: dict[str, Any] = {"inputs": inputs, "use_cache": True, "enable_profiling": False}
        if self._wishes.version:
            content["workflow_version_id"] = self._wishes.version
        told = self.calls.post(self._address, content)
        outputs = told.get("outputs") if isinstance(told, Mapping) else None
        if not isinstance(outputs, list) or len(outputs) != 1 or not isinstance(outputs[0], Mapping):
            got = f"{len(outputs)} results" if isinstance(outputs, list) else "no outputs"
            raise BadPrediction(f"{self.calls.owner}: the workflow answered with {got}, allowed: one for one picture")
        return self._chosen(outputs[0])

    def _interface(self) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
        """Inputs and outputs with their kinds; None of a server that is too old to tell them."""
        content = {"workflow_version_id": self._wishes.version} if self._wishes.version else {}
        try:
            told = self.calls.post(f"{self._address}/describe_interface", content)
        except CallFailed as error:
            if error.status in (404, 405, 422):
                return None, None  # a workflow that does not exist is said by the first run
            raise
        tables = [told.get(name) if isinstance(told, Mapping) else None for name in ("inputs", "outputs")]
        inputs, outputs = (table if isinstance(table, Mapping) else None for table in tables)
        return inputs, outputs

    def _image_input(self, inputs: Mapping[str, Any] | None) -> str:
        if inputs is None:
            return "image"
        images = [name for name, kinds in inputs.items() if "image" in kinds]
        if len(images) != 1:
            raise ConfigError(
                f"{self.calls.owner}: the workflow takes {_list(images) or 'no picture'}; which one is the frame?"
                " (option image_input)"
            )
        return images[0]

    def _choose_by_kinds(self, outputs: Mapping[str, Any]) -> None:
        """The output that is said to have predictions; where none is said to, the first answer will tell."""
        kinds = dict(_flat_kinds(outputs))
        readable = {name: known for name, found in kinds.items() if (known := [k for k in found if k in _KINDS])}
        if self._output is None:
            if len(readable) > 1:
                named = {name: " or ".join(known) for name, known in readable.items()}
                raise ConfigError(f"{self.calls.owner}: {_several(named)}")
            if not readable and not any("*" in found for found in kinds.values()):
                told = ", ".join(f"{name} ({' or '.join(found)})" for name, found in kinds.items()) or "nothing"
                raise ModelLoadFailed(f"{self.calls.owner}: none of its outputs has predictions, it has {told}")
            self._output = next(iter(readable), None)
        elif self._output not in kinds:
            inside = [name for name in readable if name.startswith(f"{self._output}.")]
            if len(inside) != 1:
                raise ConfigError(f"{self.calls.owner}: output: got {self._output!r}, allowed: {_list(kinds)}")
            self._output = inside[0]
        # A union of boxes and outlines is told apart by the answers.
        tasks = {_KINDS[kind] for kind in readable.get(self._output or "", ())}
        self.task = next(iter(tasks)) if len(tasks) == 1 else None

    def _chosen(self, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The predictions among the outputs of one run."""
        if self._output is None:
            found = {name: value for name, value in _flat(outputs) if looks_like_predictions(value)}
            if not found:
                told = ", ".join(f"{name} ({type(value).__name__})" for name, value in outputs.items()) or "nothing"
                raise BadPrediction(f"{self.calls.owner}: none of its outputs looks like predictions, it has {told}")
            if len(found) > 1:
                named = {name: form_of(value) or "nothing found" for name, value in found.items()}
                raise BadPrediction(f"{self.calls.owner}: {_several(named)}")
            ((self._output, only),) = found.items()
            return only
        places = dict(_flat(outputs))
        value = places.get(self._output)
        if not looks_like_predictions(value):
            inside = [one for name, one in places.items() if name.startswith(f"{self._output}.")]
            readable = [one for one in inside if looks_like_predictions(one)]
            if len(readable) != 1:
                got = "no such output" if value is None else f"a {type(value).__name__} without predictions"
                raise BadPrediction(f"{self.calls.owner}: output {self._output!r}: got {got}, it has {_list(outputs)}")
            return readable[0]
        return value


def _several(outputs: Mapping[str, str]) -> str:
    told = ", ".join(f"{name} ({kind})" for name, kind in outputs.items())
    return f"several outputs have predictions: {told}; choose one by output"


def _flat(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each output, and the parts of one that is all that a step gives."""
    for name, value in outputs.items():
        yield name, value
        if isinstance(value, Mapping) and not looks_like_predictions(value):
            yield from ((f"{name}.{part}", one) for part, one in value.items())


def _flat_kinds(outputs: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for name, kinds in outputs.items():
        inside = isinstance(kinds, Mapping)
        for place, found in kinds.items() if inside else ((name, kinds),):
            path = f"{name}.{place}" if inside else name
            yield path, [str(kind) for kind in found] if isinstance(found, list) else []


def _list(names: Any) -> str:
    return ", ".join(map(str, names))
