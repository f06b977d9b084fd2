"""Agents that die or freeze with a request held: another one does it again, and nothing is there twice."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.settings.tables import ModelSettings
from tests.support.doors import shared
from tests.support.material import make_image_task
from tests.support.queue import registrar, until
from tests.support.tasks import Client

FRAMES = 12
FUNCTION = '''
"""A box for each frame, in a twentieth of a second; tells the world about it."""
import time
import cvat_sdk.auto_annotation as cvataa

spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("thing", 0, type="rectangle")])

def detect(context, image):
    print(context.frame_name, flush=True)
    time.sleep(0.05)
    return [cvataa.rectangle(0, [1, 2, 30, 40])]
'''
AGENT = """
import sys, threading
from pathlib import Path
from agent.doors.queue import QueueDoor
from agent.settings.tables import ModelSettings, QueueSettings
from tests.support.doors import shared

url, folder, function = sys.argv[1:]
queue = QueueSettings(poll_seconds=0.3, heartbeat_seconds=0.2)
with shared(url, [ModelSettings("finder", f"cvat:{function}")], folder=Path(folder), queue=queue) as around:
    QueueDoor(around).start()
    threading.Event().wait()
"""


@pytest.fixture
def stage(sandbox, session, tmp_path):
    """(a task, a function that starts an agent, a logged-in person, the function's id)."""
    file = tmp_path / "function.py"
    file.write_text(FUNCTION)
    with shared(sandbox, [ModelSettings("finder", f"cvat:{file}")], folder=tmp_path) as around:
        around.config = replace(around.config, service=replace(around.config.service, state_dir=tmp_path))
        (made,) = registrar(around).register()
    processes = []

    def agent():
        command = [sys.executable, "-c", AGENT, sandbox.url, str(tmp_path), str(file)]
        root = Path(__file__).parents[2]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root)
        processes.append(process)
        return process

    task = make_image_task(session, count=FRAMES, labels=[{"name": "thing"}])
    with Client(sandbox, "bot", "secret") as client:
        yield task, agent, client, made.function
    for process in processes:
        process.kill()
        process.wait(timeout=20)
        process.stdout.close()


def order(client, function, task):
    return client.post("/api/lambda/requests", json={"function": str(function), "task": task}).json()["id"]


def frames(client, task):
    return sorted(shape["frame"] for shape in client.get(f"/api/tasks/{task}/annotations").json()["shapes"])


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_another_agent_does_it_again(sandbox, stage, end):
    sandbox.state.lease_seconds = 1.0
    task, agent, client, function = stage
    first = agent()
    rq_id = order(client, function, task)
    assert first.stdout.readline()  # it is at work
    first.send_signal(end)
    second = agent()
    ended = client.until(
        f"/api/lambda/requests/{rq_id}", lambda got: got.json()["status"] in ("finished", "failed"), 60
    )
    assert ended["status"] == "finished", ended
    assert second.stdout.readline()
    assert frames(client, task) == list(range(FRAMES))
    if end == signal.SIGSTOP:
        # Back to life, it hears that the request is not its own any more, and hands nothing in.
        before = len(sandbox.requests.matching("POST", r"/complete$"))
        first.send_signal(signal.SIGCONT)
        until(lambda: [e for e in sandbox.requests.matching("POST", r"/update$") if e.status in (400, 403)])
        other = order(client, function, task)
        client.until(f"/api/lambda/requests/{other}", lambda got: got.json()["status"] == "finished", 60)
        assert len(sandbox.requests.matching("POST", r"/complete$")) == before + 1
        assert frames(client, task) == sorted([*range(FRAMES)] * 2)
