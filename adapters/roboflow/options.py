"""What can be asked of a model at a server, held to ranges before anything is sent."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from adapters._names import vocabulary
from adapters.roboflow.forms import Task
from adapters.roboflow.pictures import Upload
from adapters.roboflow.reference import Reference
from adapters.roboflow.refusals import Key
from agent.contract import ConfigError

Transport: TypeAlias = Literal["header", "body"]
MaskForm: TypeAlias = Literal["polygon", "rle"]

_FOR_WORKFLOWS = ("output", "image_input", "parameters", "threshold_input", "workflow_version")
_FOR_MODELS = ("nms_iou", "max_detections", "active_learning")
_LEAST = {"in_flight": 1, "top_k": 1, "smallest_region": 1, "max_detections": 1, "retries": 0, "requests_per_second": 0}


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `load`, as they are given."""

    url: str | None
    api_key_env: str
    api_key_in: Transport
    platform_url: str | None
    task: Task | None
    labels: str | list[str] | None
    keypoints: list[str] | Mapping[str, Any] | None
    examples: str | None
    output: str | None
    image_input: str | None
    parameters: Mapping[str, Any] | None
    threshold_input: str | None
    workflow_version: str | None
    masks: MaskForm
    split_regions: bool
    smallest_region: int
    top_k: int
    keypoint_threshold: float
    nms_iou: float | None
    max_detections: int | None
    active_learning: bool
    in_flight: int
    timeout: float
    retries: int
    requests_per_second: float
    quality: int
    lossless: bool
    max_size: int

    @property
    def upload(self) -> Upload:
        """How frames are encoded."""
        return Upload(self.quality, self.lossless, self.max_size)

    @property
    def is_hosted(self) -> bool:
        """Whether the server is Roboflow's own, which wants a key and has no list of loaded models."""
        if self.url is None:
            return True
        host = urlsplit(self.url).hostname or ""
        return host.endswith((".roboflow.com", ".roboflow.eu", ".roboflow.one", ".roboflow-eu.one"))

    def check(self, reference: Reference) -> None:
        """ConfigError for a value that is out of its range, or for an option that the name has no use for."""
        owner = reference.owner
        strangers = _FOR_MODELS if reference.is_workflow else _FOR_WORKFLOWS
        for name in strangers:
            if getattr(self, name):
                kind = "workflow" if reference.is_workflow else "model"
                raise ConfigError(f"{owner}: option {name!r} is not for a {kind}")
        for name, least in _LEAST.items():
            if (value := getattr(self, name)) is not None and not value >= least:
                raise ConfigError(f"{owner}: {name}: got {value:g}, allowed: {least} or more")
        for name in ("keypoint_threshold", "nms_iou"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 1:
                raise ConfigError(f"{owner}: {name}: got {value:g}, allowed: 0 to 1")
        if not 0 < self.timeout < 86400:
            raise ConfigError(f"{owner}: timeout: got {self.timeout:g}, allowed: more than 0 seconds")
        self.upload.check(owner)
        for name in ("url", "platform_url"):
            if (value := getattr(self, name)) is not None:
                _check_address(value, f"{owner}: {name}")

    def key(self, owner: str) -> Key:
        """The API key; ConfigError where the server surely wants one and there is none."""
        variable = self.api_key_env
        # Somebody who pastes the key in place of the name must not find it in a log.
        shown = variable if re.fullmatch(r"[A-Z][A-Z0-9_]*", variable) else "the variable that api_key_env names"
        value = os.environ.get(variable, "").strip() or None
        if value is not None and not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{owner}: {shown} has characters that no API key has")
        if value is None and (self.is_hosted or self.api_key_in == "body"):
            raise ConfigError(f"{owner}: {shown} is not set; it has to have the workspace's API key")
        return Key(value, shown, in_body=self.api_key_in == "body")

    def class_names(self, owner: str) -> list[str] | None:
        """The names that the option `labels` gives."""
        if self.labels is None:
            return None
        if isinstance(self.labels, str):
            return [name for name in vocabulary(self.labels, owner) if name]
        names = list(dict.fromkeys(self.labels))
        if not names or not all(name.strip() for name in names):
            raise ConfigError(f"{owner}: labels: got {self.labels!r}, allowed: a list of names")
        return names


def _check_address(url: str, place: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{place}: got no address of a server: {error}") from error
    if parts.username or parts.password or parts.query or parts.fragment:
        # Not repeated here: what stands before an @ or after a ? can be a secret.
        raise ConfigError(f"{place}: got a user, a query or a fragment, allowed: http(s)://host:port only")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{place}: got {url!r}, allowed: http(s)://host:port, e.g. http://localhost:9001")
