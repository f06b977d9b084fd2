"""inference-sdk's client, its requests sent by `Calls`.

The SDK forms the requests of both dialects (the hosted one, one picture a request, and that of self-hosted servers) and
reads the answers. What it would send itself has no time-out: the one method that sends is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from inference_sdk import InferenceConfiguration, InferenceHTTPClient, __version__
from inference_sdk.config import RF_API_BASE_URL
from inference_sdk.http.entities import ModelDescription
from inference_sdk.http.errors import HTTPClientError
from inference_sdk.http.utils.aliases import resolve_roboflow_model_alias
from inference_sdk.http.utils.request_building import RequestData
from inference_sdk.regions import resolve_roboflow_service_url

from adapters.roboflow.calls import Answer, Calls
from adapters.roboflow.pictures import Picture
from adapters.roboflow.refusals import CallFailed
from agent.contract import BadPrediction, ModelLoadFailed, ModelNotFound

PLATFORM = RF_API_BASE_URL
"""Where projects and their classes are told. ROBOFLOW_REGION chooses another one, and another HOSTED with it."""
HOSTED = resolve_roboflow_service_url("serverless")
_SENDS = "_execute_infer_from_api_request"


class Client(InferenceHTTPClient):  # type: ignore[misc]
    """Asks one server for the predictions of one model."""

    def __init__(
        self, calls: Calls, url: str, settings: InferenceConfiguration, description: ModelDescription | None
    ) -> None:
        """`description` is needed where the key travels in the body: the newer dialect has a route for each task."""
        super().__init__(api_url=url, api_key=calls.key.value or "")
        self.configure(settings)
        if calls.key.in_body:
            self.select_api_v1()
        else:
            # Self-hosted servers speak the hosted dialect too, and it knows all tasks.
            self.select_api_v0()
        self._calls, self._description = calls, description

    def get_model_description(self, model_id: str, allow_loading: bool = True) -> ModelDescription:
        """What was found at the beginning; the SDK would ask before each picture."""
        return self._description

    def _execute_infer_from_api_request(self, requests_data: Sequence[RequestData]) -> list[Answer]:
        return [self._sent(request) for request in requests_data]

    def _sent(self, request: RequestData) -> Answer:
        content = json.dumps(request.payload) if request.data is None else request.data
        body = content.encode() if isinstance(content, str) else content
        answer = self._calls.send("POST", request.url, params=_parameters(request.parameters), body=body)
        if not isinstance(answer.body, dict):
            got = type(answer.body).__name__
            raise BadPrediction(f"{self._calls.owner}: the server answered with a {got}, allowed: an object")
        return answer


def _parameters(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The query, without the key, should a version of the SDK put it there after all."""
    return None if given is None else {name: value for name, value in given.items() if name != "api_key"}


class Server:
    """An inference server as one model sees it."""

    def __init__(self, calls: Calls, url: str, model_id: str, **settings: Any) -> None:
        """`settings` are fields of inference-sdk's InferenceConfiguration."""
        if _SENDS not in vars(InferenceHTTPClient):
            raise ModelLoadFailed(
                f"{calls.owner}: inference-sdk {__version__} cannot be held to a time-out; allowed: 1.8"
            )
        transport = "legacy" if calls.key.in_body else "header"
        self.calls, self.url = calls, url
        self.model_id: str = resolve_roboflow_model_alias(model_id=model_id)
        if "/" not in self.model_id:
            raise ModelNotFound(f"{calls.owner}: got no name that inference-sdk {__version__} knows, e.g. yolov8n-640")
        self._settings = InferenceConfiguration(api_key_transport=transport, **settings)
        self._description = self.description(load=True) if calls.key.in_body else None

    @property
    def task(self) -> str | None:
        """What the server's registry calls the model's task, where it had to be asked."""
        return None if self._description is None else str(self._description.task_type)

    def predict(self, picture: Picture, threshold: float) -> Mapping[str, Any]:
        """The server's answer for a picture, of all with at least this confidence."""
        settings = replace(self._settings, confidence_threshold=threshold)
        client = Client(self.calls, self.url, settings, self._description)
        try:
            answer: Mapping[str, Any] = client.infer(picture.text, model_id=self.model_id)
        except HTTPClientError as error:
            raise BadPrediction(f"{self.calls.owner}: {self.calls.key.clean(str(error))}") from error
        except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            raise BadPrediction(f"{self.calls.owner}: the server's answer cannot be read: {error!r}") from error
        return answer

    def information(self) -> str:
        """The server's name and version; "" where it does not tell them."""
        try:
            told = self.calls.get(f"{self.url}/info")
        except CallFailed as error:
            if error.status == 0:
                raise
            return ""
        return f"{told.get('name')} {told.get('version')}" if isinstance(told, dict) and told.get("version") else ""

    def description(self, *, load: bool = False) -> ModelDescription | None:
        """The model as the server's registry has it, loaded where wanted; None where there is no registry."""
        try:
            if load:
                told = self.calls.post(f"{self.url}/model/add", {"model_id": self.model_id})
            else:
                told = self.calls.get(f"{self.url}/model/registry")
        except CallFailed:
            if load:
                raise
            return None
        models = told.get("models") if isinstance(told, dict) else None
        found = [one for one in models or () if isinstance(one, dict) and one.get("model_id") == self.model_id]
        if not found or not isinstance(found[0].get("task_type"), str):
            if load:
                raise ModelLoadFailed(f"{self.calls.owner}: {self.url} loaded the model, but its registry lacks it")
            return None
        return ModelDescription(self.model_id, found[0]["task_type"])
