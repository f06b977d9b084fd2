"""A service in this process, with small doors of a test's own, and an HTTP client of its status page."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

from agent.doors import DoorHealth, Shared
from agent.errors import ConfigError, SidecarError
from agent.models.loading import LoadedModel, load_model
from agent.process.service import Service
from agent.settings.service import load_config

if TYPE_CHECKING:
    from agent.cvat.session import Session


PASSWORD = "open sesame"
"""Of status pages that want one."""


class SmallDoor:
    """A door that a test holds in its hands: `work` runs a request until it is told to end."""

    name = "queue"

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.heard: list[str] = []
        self.state = DoorHealth(True, "is well")
        self.end = threading.Event()
        self.refuses: SidecarError | None = None
        """What starting or reloading it raises."""

    def start(self) -> None:
        self.heard.append("start")
        if self.refuses:
            raise self.refuses

    def drain(self) -> None:
        self.heard.append("drain")

    def close(self) -> None:
        self.heard.append("close")

    def reload(self) -> None:
        self.heard.append("reload")
        if self.refuses:
            raise self.refuses

    def health(self) -> DoorHealth:
        return self.state

    def work(self, what: str = "task 4", total: int = 10, model: str = "faces") -> threading.Thread:
        """Holds a request in the batch lane until `end` is set, it is cancelled, or the service ends."""
        claim = self.shared.lanes.batch.claim()
        assert claim is not None, "the lane has room"
        begun = threading.Event()

        def run() -> None:
            with self.shared.activity.begin(self.name, "annotate_task", model, what) as request:
                request.progress(3, total)
                begun.set()
                while not (self.end.is_set() or self.shared.stop.is_set()):
                    request.check()
                    self.end.wait(0.01)

        claim.run(lambda: _quietly(run))
        assert begun.wait(5)
        return threading.current_thread()


def _quietly(work: Callable[[], None]) -> None:
    try:
        work()
    except SidecarError:
        return


class Page:
    """The status page as a browser or a program sees it."""

    def __init__(self, url: str, password: str | None = None) -> None:
        auth = ("anybody", password) if password else None
        self.http = httpx.Client(base_url=url, timeout=20, trust_env=False, auth=auth)
        self.get = self.http.get

    @property
    def token(self) -> str:
        """The token that the page's forms carry, as of a form for undoing or cancelling."""
        found = re.search(r'name="token" value="([^"]+)"', self.get("/").text)
        assert found, "the page has a form"
        return found[1]

    def post(self, path: str, token: str | None = None, headers: dict[str, str] | None = None, **form: str) -> Any:
        data = {"token": self.token if token is None else token, **form}
        return self.http.post(path, data=data, headers=headers)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/api/status").raise_for_status().json()
        return found

    def until(self, done: Callable[[dict[str, Any]], Any], seconds: float = 20) -> dict[str, Any]:
        """Asks for the status until it is as wanted."""
        end = time.monotonic() + seconds
        while not done(found := self.status()):
            assert time.monotonic() < end, f"it never became what it should: {found}"
            time.sleep(0.02)
        return found


class Running:
    """An open service, its small doors by name, and its page."""

    def __init__(self, service: Service, doors: dict[str, SmallDoor], file: Path) -> None:
        self.service, self.doors, self.file = service, doors, file
        self.shared, self.url = service.shared, service.url
        self.page = Page(service.url)

    @property
    def door(self) -> SmallDoor:
        return self.doors["queue"]


class Annotated(NamedTuple):
    """A service, a run in its ledger, a session at the server it went to, and the job that it annotated."""

    service: Running
    run: str
    session: Session
    job: int


BASIC = """
[cvat]
host = "{host}"
user = "bot"
password_env = "BOT_PASSWORD"
[service]
port = 0
state_dir = "state"
{service}
[queue]
[[models]]
id = "faces"
model = "opencv:face"
{more}
"""


def written(folder: Path, host: str = "http://cvat.test", more: str = "", service: str = "") -> Path:
    """A service.toml with the queue door."""
    file = folder / "service.toml"
    file.write_text(BASIC.format(host=host, more=more, service=service), encoding="utf-8")
    return file


@contextmanager
def running(
    file: Path, *, load: Callable[..., LoadedModel] = load_model, prepare: Callable[[SmallDoor], None] | None = None
) -> Iterator[Running]:
    """The service of this file with small doors, open."""
    doors: dict[str, SmallDoor] = {}

    def maker(name: str) -> Callable[[Shared], SmallDoor]:
        def make(shared: Shared) -> SmallDoor:
            doors[name] = SmallDoor(shared)
            doors[name].name = name
            if prepare:
                prepare(doors[name])
            return doors[name]

        return make

    makers = {name: maker(name) for name in ("queue", "gateway", "watch")}
    service = Service(load_config(file), lambda: load_config(file), doors=makers, load=load)
    try:
        service.open()
        opened = Running(service, doors, file)
        try:
            yield opened
        finally:
            opened.page.http.close()
    finally:
        service.close()


def refusing(why: str) -> Callable[[SmallDoor], None]:
    """Prepares a door that cannot be opened."""

    def prepare(door: SmallDoor) -> None:
        door.refuses = ConfigError(why)

    return prepare
