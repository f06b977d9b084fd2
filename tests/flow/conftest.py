"""Services for the tests of the status page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.service import PASSWORD, Annotated, Running, running, written

if TYPE_CHECKING:
    from agent.cvat.session import Session
    from agent.sandbox import Sandbox

FUNCTION = """
import cvat_sdk.auto_annotation as a

spec = a.DetectionFunctionSpec(labels=[a.label_spec("thing", 0, type="rectangle")])

def detect(context, image):
    return [a.rectangle(0, [1, 2, 30, 40])]
"""


@pytest.fixture
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """What service.toml's of tests name: the sandbox's password, and the status page's."""
    monkeypatch.setenv("BOT_PASSWORD", "secret")
    monkeypatch.setenv("STATUS_WORD", PASSWORD)


@pytest.fixture
def service(tmp_path: Path, passwords: None) -> Iterator[Running]:
    """A service with a small door, and a model that needs no weights."""
    from tests.unit.test_pool import Loader

    with running(written(tmp_path), load=Loader()) as opened:
        yield opened
        opened.door.end.set()


@pytest.fixture
def annotated(tmp_path: Path, passwords: None, sandbox: Sandbox, session: Session) -> Iterator[Annotated]:
    """A service of the sandbox, and a run in its ledger that made two shapes there."""
    from agent.cvat.work import find_work
    from agent.options import Options, Target
    from agent.runs.running import start
    from agent.runs.surroundings import Surroundings
    from tests.support.material import make_image_task
    from tests.unit.test_pool import Loader

    with running(written(tmp_path, host=sandbox.url), load=Loader()) as opened:
        task = make_image_task(session, count=2, labels=[{"name": "thing"}])
        function = tmp_path / "function.py"
        function.write_text(FUNCTION)
        around = Surroundings(server=session.settings, ledger=opened.shared.ledger)
        report = start(Target("task", task), Options(model=f"cvat:{function}"), around)
        (work,) = find_work(session, Target("task", task))
        yield Annotated(opened, str(report.run), session, work.jobs[0].id)
        opened.door.end.set()
