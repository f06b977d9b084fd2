"""Fixtures that every part of the suite may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from agent.cvat.session import Session
    from agent.sandbox import Sandbox

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def assets() -> Path:
    """Real weights, pictures and videos; they lie beside the project, never in it."""
    folder = SHARED / "assets"
    if not folder.is_dir():
        pytest.skip(f"needs the test assets in {folder.name}/ beside the project")
    return folder


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what belongs to the person who runs it."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CVAT_SIDECAR_LEDGER", str(home / "ledger.sqlite3"))
    for name in ("CVAT_ACCESS_TOKEN", "PASS", "CVAT_SIDECAR_CONFIG", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    # Proxies of the machine must not come between a test and its sandbox.
    monkeypatch.setenv("no_proxy", ",".join(filter(None, [os.environ.get("no_proxy"), "127.0.0.1", "localhost"])))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A CVAT stand-in with the users bot and alice, whose password is `secret`."""
    from agent.sandbox import Sandbox

    with Sandbox(users={"bot": "secret", "alice": "secret"}, port=0) as running:
        yield running


@pytest.fixture
def session(sandbox: Sandbox) -> Iterator[Session]:
    """bot's session at the sandbox."""
    from agent.cvat.session import open_session
    from agent.settings.server import ServerSettings

    with open_session(ServerSettings(host=sandbox.url, user="bot", password="secret")) as opened:
        yield opened
