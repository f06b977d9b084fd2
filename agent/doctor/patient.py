"""What is examined, and what checks have learned of it for those after them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.cvat.calls import Call, answer
from agent.cvat.login import make_client
from agent.cvat.session import Session
from agent.errors import ConfigError
from agent.functions.ids import state_folder
from agent.models.descriptions import Description, Descriptions
from agent.settings.server import ServerSettings
from agent.settings.tables import Config, ModelSettings


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said, whatever it said."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_json(self) -> bool:
        return "json" in self.headers.get("Content-Type", "")


@dataclass(slots=True)
class Patient:
    """A configuration, its server and this machine."""

    config: Config
    seconds: float = 10.0
    """How long one call may take."""
    load: bool = False
    """Load the models and run them."""
    try_call: bool = False
    """Have CVAT call a model of the gateway's."""
    error: ConfigError | None = None
    """What is wrong with service.toml; `config` is then an empty one."""

    # What checks have learned:
    username: str = ""
    functions: list[dict[str, Any]] = field(default_factory=list)
    """Those that CVAT shows in its menus."""
    own_functions: dict[str, Any] | None = None
    """Those that our gateway shows to CVAT; None where it does not run, or does not tell us."""
    loaded: dict[str, Description] = field(default_factory=dict)
    """Of models that were loaded just now."""
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes that each of them took."""
    libraries: dict[str, Any] = field(default_factory=dict)
    """Name -> what a process that imported it has told."""
    _session: Session | None = None

    @property
    def server(self) -> ServerSettings:
        """The settings, for somebody who does not wait long."""
        return replace(self.config.server, timeout=self.seconds, retries=0)

    @property
    def session(self) -> Session:
        """The connection that the service would have."""
        if self._session is None:
            self._session = Session(self.server)
        return self._session

    def command(self, what: str) -> str:
        """What to type, with the service.toml that is examined."""
        return f"cvat-sidecar {what} --config {shlex.quote(str(self.config.file))}"

    def url(self) -> str:
        """The server's address. ConfigError for one that is none."""
        return str(make_client(self.server).api_client.configuration.host).rstrip("/")

    def ask_as_nobody(self, path: str) -> Answer:
        """A GET without a login. Failure where there is no answer."""
        return Answer(*answer(make_client(self.server), Call("GET", path, self.seconds), time.monotonic))

    def ask(self, method: str, path: str, body: Any = None, seconds: float | None = None) -> Answer:
        """The answer to a call with a login, also where it is no. SidecarError or Failure where there is none."""
        call = Call(method, path, seconds or self.seconds, body=body)
        return Answer(*answer(self.session.client, call, time.monotonic))

    def count(self, path: str, **query: Any) -> int:
        """How many things a list of the API has for us."""
        return int(self.session.request("GET", path, query={**query, "page_size": 1}).json()["count"])

    def describe(self, model: ModelSettings) -> Description | None:
        """What is known of a model: from now, or from the last time that it was loaded here."""
        return self.loaded.get(model.id) or Descriptions(state_folder(self.config) / "models").read(model)

    @property
    def writes(self) -> bool:
        """Whether the service is to write annotations by itself."""
        return self.config.queue is not None or bool(self.config.rules)


def scheme_of(model: ModelSettings) -> str:
    """What stands before the colon of a model reference, whether it makes sense or not."""
    return model.model.partition(":")[0].strip().lower()
