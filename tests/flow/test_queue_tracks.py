"""Tracks over the agent queue: answers that are lost, and several agents that follow the same shapes."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.settings.tables import ModelSettings
from tests.support.doors import shared
from tests.support.material import make_video_task
from tests.support.models import Follower
from tests.support.queue import Calling, registrar, serving, until
from tests.support.tasks import Client

BOX = [10.0, 20.0, 30.0, 40.0]
FUNCTION = """
import cvat_sdk.auto_annotation as cvataa

spec = cvataa.TrackingFunctionSpec(supported_shape_types=["rectangle"])

def init_tracking_state(context, image, shape):
    return {"points": shape.points, "steps": 0}

def track(context, image, state):
    state["steps"] += 1
    print("step", state["steps"], flush=True)
    return cvataa.TrackableShape(type="rectangle", points=[number + state["steps"] for number in state["points"]])
"""
LIVE = """
import threading
""" + FUNCTION.replace('"steps": 0}', '"steps": 0, "lock": threading.Lock()}')
AGENT = """
import sys, threading
from pathlib import Path
from agent.doors.queue import QueueDoor
from agent.settings.tables import ModelSettings, QueueSettings
from tests.support.doors import shared

url, folder, function = sys.argv[1:]
queue = QueueSettings(poll_seconds=0.3, heartbeat_seconds=0.2)
with shared(url, [ModelSettings("follower", f"cvat:{function}")], folder=Path(folder), queue=queue) as around:
    QueueDoor(around).start()
    print("open", flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def video(session):
    return make_video_task(session, frames=8, segment_size=8)


def began(served, video):
    body = [{"type": "rectangle", "points": BOX}]
    return served.call(task=video, frame=0, shapes=body).json()["states"]


def moved(steps):
    return [{"type": "rectangle", "points": [number + steps for number in BOX]}]


# --------------------------------------------------------------- answers that are lost


def test_a_person_who_asks_again_gets_what_was_lost_and_the_track_goes_on_from_there(sandbox, video):
    follower = Follower()
    with serving(sandbox, {"follower": follower}) as served:
        states = began(served, video)
        sandbox.state.interactive_timeout = 0.5
        late = sandbox.faults.add(method="POST", path=r"/complete$", delay=1.5)
        assert served.call(task=video, frame=1, states=states).status_code == 504
        assert late.struck == 1
        sandbox.state.interactive_timeout = 30.0
        for _ in range(3):
            assert served.call(task=video, frame=1, states=states).json()["shapes"] == moved(1)
        assert served.call(task=video, frame=2, states=states).json()["shapes"] == moved(2)
        assert follower.frames == [0, 1, 2]


@pytest.mark.parametrize("fault", [{"cut": True}, {"status": 503}], ids=str)
def test_an_answer_that_is_handed_in_again_is_the_same(sandbox, video, fault):
    follower = Follower()
    with serving(sandbox, {"follower": follower}) as served:
        states = began(served, video)
        struck = sandbox.faults.add(method="POST", path=r"/complete$", count=2, **fault)
        assert served.call(task=video, frame=1, states=states).json()["shapes"] == moved(1)
        assert struck.struck == 2
        assert follower.frames == [0, 1]


# --------------------------------------------------------------------- several agents


class Agents:
    """Agents in processes of their own, and a person who tracks."""

    def __init__(self, sandbox, folder, client, video):
        self.sandbox, self.folder, self.client, self.video = sandbox, folder, client, video
        self.processes = []
        self.write(FUNCTION)
        with shared(sandbox, [self.model], folder=self.home("one")) as around:
            around.config = replace(around.config, service=replace(around.config.service, state_dir=self.home("one")))
            (made,) = registrar(around).register()
        self.function = made.function

    @property
    def model(self):
        return ModelSettings("follower", f"cvat:{self.folder}/function.py")

    def write(self, text):
        (self.folder / "function.py").write_text(text)

    def home(self, name):
        return self.folder / name

    def spawn(self, home="one"):
        """An agent with this state folder, which is at the server."""
        if home != "one":
            shutil.copytree(self.home("one"), self.home(home), ignore=shutil.ignore_patterns("tracks*"))
        command = [sys.executable, "-c", AGENT, self.sandbox.url, str(self.home(home)), f"{self.folder}/function.py"]
        asked = len(self.asked())
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[2]
        )
        self.processes.append(process)
        assert process.stdout.readline() == "open\n"
        until(lambda: len(self.asked()) >= asked + 2)
        return process

    def asked(self):
        return self.sandbox.requests.matching("POST", r"/acquire$")

    def call(self, **body):
        return self.client.post(f"/api/lambda/functions/{self.function}", json={"task": self.video, **body})

    def begin(self):
        answer = self.call(frame=0, shapes=[{"type": "rectangle", "points": BOX}])
        assert answer.status_code == 200, answer.text
        return answer.json()["states"]

    def step(self, frame, states):
        answer = self.call(frame=frame, states=states)
        assert answer.status_code == 200, answer.text
        return answer.json()["shapes"]

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait(timeout=20)
            process.stdout.close()


@pytest.fixture
def agents(sandbox, video, tmp_path):
    sandbox.state.lease_seconds = 1.0
    with Client(sandbox, "bot", "secret") as client:
        made = Agents(sandbox, tmp_path, client, video)
        yield made
        made.end()


def test_agents_that_share_a_folder_follow_each_others_tracks(agents):
    first, second = agents.spawn(), agents.spawn()
    second.send_signal(signal.SIGSTOP)
    tracks = [agents.begin() for _ in range(3)]
    for frame in range(1, 7):
        # They take turns: whoever is stopped cannot be the one that answers.
        awake, asleep = (first, second) if frame % 2 else (second, first)
        awake.send_signal(signal.SIGCONT)
        asleep.send_signal(signal.SIGSTOP)
        for states in tracks:
            assert agents.step(frame, states) == moved(frame)
            assert awake.stdout.readline() == f"step {frame}\n"


def test_a_step_of_an_agent_that_was_killed_is_not_taken_twice(agents, sandbox):
    first = agents.spawn()
    states = agents.begin()
    struck = sandbox.faults.add(method="POST", path=r"/complete$", status=503, count=None)
    call = Calling(lambda: agents.call(frame=1, states=states))
    until(lambda: struck.struck)
    first.kill()
    sandbox.faults.clear()
    second = agents.spawn()
    assert call.answer().json()["shapes"] == moved(1)
    assert agents.step(2, states) == moved(2)
    assert second.stdout.readline() == "step 2\n", "the first step was its predecessor's"


def test_agents_with_folders_of_their_own_tell_the_annotator_in_one_sentence(agents):
    first = agents.spawn()
    states = agents.begin()
    first.kill()
    agents.spawn("two")
    answer = agents.call(frame=1, states=states)
    assert answer.status_code == 500
    assert json.loads(answer.text) == (
        "tracker state: this track was begun at another sidecar, which does not share its state folder with this one;"
        " begin the track again, and have only one of them serve this tracker"
    )
    assert agents.step(1, agents.begin()) == moved(1)


def test_a_function_whose_states_end_with_its_process_says_so(agents):
    """Its states hold a lock: they are kept in the process, whoever shares the folder."""
    agents.write(LIVE)
    first = agents.spawn()
    states = agents.begin()
    first.kill()
    agents.spawn()
    answer = agents.call(frame=1, states=states)
    assert (answer.status_code, json.loads(answer.text)) == (
        500,
        "tracker state: the model cannot go on with it; begin the track again",
    )
