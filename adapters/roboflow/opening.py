"""From a reference and options to a detector that is ready: who is asked for what, and in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adapters.roboflow.about import About, as_task, from_options, from_platform, learn
from adapters.roboflow.answers import Reading
from adapters.roboflow.calls import Calls, Limits
from adapters.roboflow.client import HOSTED, PLATFORM, Server
from adapters.roboflow.detector import LOWEST, Predictor, RemoteDetector
from adapters.roboflow.forms import Task, Told, classes_in
from adapters.roboflow.memory import Memory
from adapters.roboflow.options import Options
from adapters.roboflow.pictures import Upload
from adapters.roboflow.reference import Reference
from adapters.roboflow.refusals import CallFailed
from adapters.roboflow.workflows import Wishes, Workflow
from agent.contract import BadPrediction, ConfigError, Frame, ModelLoadFailed, ModelNotFound

_GRAY = Frame(0, "gray", np.full((256, 256, 3), 128, np.uint8))
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_MOST_EXAMPLES = 100


def open_model(reference: Reference, options: Options) -> RemoteDetector:
    """The detector; ModelNotFound or ModelLoadFailed where the server, the key or the name are wrong."""
    key = options.key(reference.owner)
    limits = Limits(options.timeout, options.retries, options.requests_per_second)
    calls = Calls(reference.owner, key, limits)
    # Where nothing but the server of one's own can be reached, the platform must not take minutes to say so.
    platform = Calls(reference.owner, key, Limits(min(options.timeout, 15.0), min(options.retries, 1)))
    try:
        return _Opening(reference, options, calls, platform).detector()
    except BaseException as error:
        calls.close()
        if not isinstance(error, CallFailed | BadPrediction):
            raise
        kind = ModelNotFound if isinstance(error, CallFailed) and error.status == 404 else ModelLoadFailed
        owner = f"{reference.owner}: "
        raise kind(owner + str(error).removeprefix(owner)) from error
    finally:
        platform.close()


class _Opening:
    """One model being opened; it is also the `Sources` of what is to be learned of it."""

    def __init__(self, reference: Reference, options: Options, calls: Calls, platform: Calls) -> None:
        self._reference, self._options, self._calls, self._platform = reference, options, calls, platform
        self._owner = reference.owner
        self._url: str = (options.url or HOSTED).rstrip("/")
        self._server: Server | None = None
        self._predictor: Predictor
        if reference.is_workflow:
            wishes = Wishes(
                options.output,
                options.image_input,
                options.parameters or {},
                options.threshold_input,
                options.workflow_version,
            )
            self._predictor = Workflow(calls, self._url, reference, wishes)
        else:
            self._predictor = self._server = Server(
                calls,
                self._url,
                reference.model_id,
                disable_active_learning=not options.active_learning,
                iou_threshold=options.nms_iou,
                max_detections=options.max_detections,
                keypoint_confidence_threshold=options.keypoint_threshold,
                response_mask_format=options.masks,
            )

    def detector(self) -> RemoteDetector:
        options, owner = self._options, self._owner
        software = self._server.information() if self._server else ""
        about = self._about()
        if isinstance(self._predictor, Workflow) and not self._predictor.decided:
            self.probe()
        if options.split_regions and about.task not in ("semantic-segmentation", None):
            raise ConfigError(f"{owner}: split_regions is not for {about.task}, allowed: semantic-segmentation")
        labels = {label.name: label for label in about.labels(masks=options.masks == "rle")}
        reading = Reading(
            about.task,
            labels,
            options.top_k,
            options.keypoint_threshold,
            options.split_regions,
            options.smallest_region,
        )
        facts = {
            "source": owner.removeprefix("roboflow:"),
            "version": about.version or self._name(),
            "task": about.task or "told by each answer",
            "labels from": about.labels_from,
            "runs on": self._url + (f", {software}" if software else ""),
        }
        return RemoteDetector(
            self._predictor, [self._calls], reading, options.upload, in_flight=options.in_flight, facts=facts
        )

    def _name(self) -> str:
        """The version where nobody tells one: the name, and of a workflow its version."""
        name = self._owner.removeprefix("roboflow:")
        return f"{name}@{self._options.workflow_version}" if self._options.workflow_version else name

    def _about(self) -> About:
        options = self._options
        task = self._predictor.task if isinstance(self._predictor, Workflow) else None
        if self._server and self._server.task:
            task = as_task(self._server.task)
        known = from_options(options.task or task, options.class_names(self._owner), options.keypoints, self._owner)
        identity = [self._url, options.output or "", self._owner]
        return learn(known, self._owner, self, Memory(*identity), self._fingerprint())

    # ------------------------------------------------------------ Sources

    def platform(self) -> About:
        """What Roboflow's platform says of the model; nothing of a workflow."""
        if self._reference.is_workflow:
            return About()
        address = (self._options.platform_url or PLATFORM).rstrip("/")
        return from_platform(self._platform, address, self._reference)

    def probe(self) -> Told:
        """The classes in the answer to a gray picture."""
        return classes_in(self._predictor.predict(Upload(quality=80)(_GRAY), LOWEST))

    def registry(self) -> Task | None:
        """The task, from a server that lists the models it has loaded; Roboflow's own does not."""
        if self._server is None or self._options.is_hosted:
            return None
        found = self._server.description()
        return as_task(found.task_type) if found else None

    def examples(self) -> Told:
        """The classes and keypoints in the answers to the example pictures."""
        tasks: set[Task | None] = set()
        classes: dict[str, None] = {}
        keypoints: dict[str, tuple[str, ...]] = {}
        for frame in self._pictures():
            told = classes_in(self._predictor.predict(self._options.upload(frame), LOWEST))
            tasks |= {told.task} - {None}
            classes |= dict.fromkeys(told.classes)
            for name, points in told.keypoints.items():
                keypoints[name] = tuple(dict.fromkeys((*keypoints.get(name, ()), *points)))
        # Of a workflow that gives boxes or outlines each answer tells for itself.
        return Told(tasks.pop() if len(tasks) == 1 else None, tuple(classes), keypoints)

    def _files(self) -> list[Path]:
        if self._options.examples is None:
            return []
        place = Path(self._options.examples).expanduser()
        files = [place] if place.is_file() else sorted(p for p in place.glob("*") if p.suffix.lower() in _PICTURES)
        if not files:
            raise ConfigError(
                f"{self._owner}: examples: there are no pictures in {place}, allowed: {', '.join(_PICTURES)}"
            )
        return files[:_MOST_EXAMPLES]

    def _fingerprint(self) -> str:
        """Names the example pictures, so that others are looked at again; "" without any."""
        seen = [f"{file.name} {file.stat().st_size}" for file in self._files()]
        return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:16] if seen else ""

    def _pictures(self) -> Iterator[Frame]:
        from PIL import Image, ImageOps

        for number, file in enumerate(self._files()):
            try:
                with Image.open(file) as picture:
                    upright = ImageOps.exif_transpose(picture).convert("RGB")
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                raise ConfigError(f"{self._owner}: examples: {file}: cannot be read: {error}") from error
            yield Frame(number, file.name, np.asarray(upright))
