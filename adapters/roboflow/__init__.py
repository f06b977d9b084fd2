"""Models and workflows at Roboflow or on an inference server of one's own, through inference-sdk.

`roboflow:workspace/project/version`, `roboflow:workflow/workspace/workflow-id`. Pictures go to the server; nothing
runs here. How a server is asked is in `calls.py`, what an answer becomes in `answers.py`.
"""

from __future__ import annotations

from typing import Any

from adapters.roboflow.forms import Task
from adapters.roboflow.options import MaskForm, Options, Transport
from adapters.roboflow.reference import parse_name
from agent.contract import Detector


def load(
    name: str,
    *,
    device: str,
    url: str | None = None,
    api_key_env: str = "ROBOFLOW_API_KEY",
    api_key_in: Transport = "header",
    platform_url: str | None = None,
    task: Task | None = None,
    labels: str | list[str] | None = None,
    keypoints: list[str] | dict[str, Any] | None = None,
    examples: str | None = None,
    output: str | None = None,
    image_input: str | None = None,
    parameters: dict[str, Any] | None = None,
    threshold_input: str | None = None,
    workflow_version: str | None = None,
    masks: MaskForm = "polygon",
    split_regions: bool = False,
    smallest_region: int = 1,
    top_k: int = 1,
    keypoint_threshold: float = 0.0,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    active_learning: bool = False,
    in_flight: int = 4,
    timeout: float = 60.0,
    retries: int = 4,
    requests_per_second: float = 0.0,
    quality: int = 95,
    lossless: bool = False,
    max_size: int = 0,
) -> Detector:
    """The model or workflow that a name names, at the server `url`, or at Roboflow where there is none.

    What the options mean stands in docs/models.md. `device` is the server's own matter. `api_key_env` is the NAME of
    the environment variable that has the key.
    """
    given = {option: value for option, value in locals().items() if option not in ("name", "device")}
    reference = parse_name(name)
    options = Options(**given)
    options.check(reference)
    # inference-sdk and httpx take a second to import.
    from adapters.roboflow.opening import open_model

    return open_model(reference, options)
