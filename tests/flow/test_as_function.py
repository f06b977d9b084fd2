"""Our models handed to the official client: its agent serves them, and people get what our own door answers."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from agent.settings.tables import ModelSettings
from tests.support.doors import shared
from tests.support.material import make_image_task
from tests.support.onnx_graphs import constant_graph, sam_pair
from tests.support.queue import FAST, QueueDoor, until
from tests.support.tasks import Client

NAMES = ["car", "bus", "cat"]
LABELS = [{"name": name, "type": "any"} for name in NAMES]
BOX = {"type": "rectangle", "points": [60, 50, 120, 110]}


def detections(call, task):
    yield call(task=task, frame=1, threshold=0.25)
    yield call(task=task, frame=2)


def clicks(call, task):
    yield call(task=task, frame=1, pos_points=[[100, 100]], neg_points=[], obj_bbox=[])
    yield call(task=task, frame=1, pos_points=[[100, 100]], neg_points=[[70, 60]], obj_bbox=[])
    yield call(task=task, frame=2, pos_points=[], neg_points=[], obj_bbox=[[60, 50], [220, 190]], roi=[9, 9, 300, 220])


def tracks(call, task):
    states = call(task=task, frame=0, shapes=[BOX, {**BOX, "points": [150, 90, 210, 150]}])["states"]
    for frame in (1, 2, 3):
        answer = call(task=task, frame=frame, states=states)
        states = answer["states"]
        yield answer["shapes"]


ASKED = {"detector": detections, "interactor": clicks, "tracker": tracks}


def graph(folder):
    rows = np.zeros((7, 84), np.float32)
    rows[:, 0] = (32, 32, 16, 24, 0.1, 0.2, 0.7)
    rows[:, 9] = (20, 40, 12, 12, 0.4, 0.1, 0.1)
    return constant_graph(folder / "yolo.onnx", {"o": rows}, metadata={"names": str(dict(enumerate(NAMES)))})


def reference(kind, folder, request):
    """(what cvat-cli is told, what our service is told) of a model of a kind."""
    if kind == "interactor":
        encoder, decoder = sam_pair(folder)
        return [f"model=str:local:{encoder}", f"decoder=str:{decoder}"], (f"local:{encoder}", {"decoder": str(decoder)})
    if kind == "tracker":
        weights = request.getfixturevalue("assets") / "weights"
        files = {"backbone": "nanotrackv2_backbone_dyn.onnx", "head": "nanotrackv2_head_sim.onnx"}
        options = {name: str(weights / file) for name, file in files.items()}
        told = [f"{name}=str:{value}" for name, value in options.items()]
        return ["model=str:opencv:nanotrack", *told], ("opencv:nanotrack", options)
    # A composition, by its id: what cannot be written on a command line.
    single = {"model": f"local:{graph(folder)}"}
    config = folder / "service.toml"
    config.write_text(
        f'[[models]]\nid = "one"\nmodel = "{single["model"]}"\n'
        '[[models]]\nid = "both"\nmodel = "ensemble:"\noptions = { of = ["one", "one"], iou = 0.5 }\n'
    )
    return [f"config=str:{config}", "model=str:both"], ("ensemble:", {"of": [single, single], "iou": 0.5})


def command(sandbox, *words):
    host, _, port = sandbox.url.rpartition(":")
    server = ("--server-host", host, "--server-port", port, "--auth", "bot:secret")
    return [sys.executable, "-m", "cvat_cli", *server, "function", *map(str, words)]


@pytest.fixture
def stage(sandbox):
    """`stage(kind, told)` gives the ids of two functions that the official client has made; its agent serves one."""
    running = []

    def make(kind, told):
        function = ["--function-module", "adapters.as_function", *(word for part in told for word in ("-p", part))]
        ids = []
        for _ in range(2):
            words = command(sandbox, "create-native", kind, *function)
            made = subprocess.run(
                words, capture_output=True, text=True, timeout=100, env={**os.environ, "PASS": "secret"}
            )
            assert made.returncode == 0, made.stderr
            ids.append(int(re.findall(r"\d+", made.stdout)[-1]))
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        agent = command(sandbox, "run-agent", ids[0], *function)
        running.append(subprocess.Popen(agent, **silent, env={**os.environ, "PASS": "secret"}))
        return ids

    yield make
    for process in running:
        process.kill()
        process.wait(timeout=20)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ASKED)
def test_their_agent_answers_as_our_door_does(sandbox, session, stage, kind, tmp_path, request):
    told, (name, options) = reference(kind, tmp_path, request)
    theirs, ours = stage(kind, told)
    task = make_image_task(session, count=4, labels=LABELS)
    model = ModelSettings(kind, name, function_id=ours, options=options)
    with Client(sandbox, "bot", "secret") as client, shared(sandbox, [model], folder=tmp_path, queue=FAST) as around:
        door = QueueDoor(around)
        door.start()
        try:
            until(lambda: door.health().ok)
            answers = {}
            for function in (theirs, ours):

                def call(function=function, **body):
                    reply = client.post(f"/api/lambda/functions/{function}", json=body)
                    assert reply.status_code == 200, reply.text
                    return reply.json()

                answers[function] = list(ASKED[kind](call, task))
            assert all(answers[ours])
            if kind == "tracker":  # their agent looks at original pictures, ours at compressed ones
                there, here = (
                    [shape["points"] for shapes in answers[function] for shape in shapes] for function in (theirs, ours)
                )
                assert np.shape(here) == (6, 4)
                np.testing.assert_allclose(there[:2], here[:2], atol=2)
                np.testing.assert_allclose(there, here, atol=20)
            else:
                assert answers[theirs] == answers[ours]
        finally:
            door.close()


def test_what_cannot_be_a_function(assets):
    from adapters.as_function import create
    from agent.errors import ModelLoadFailed

    with pytest.raises(ModelLoadFailed, match="is of the kind reid, allowed: detector, interactor, tracker"):
        create(f"local:{assets}/weights/osnet_x0_25_msmt17.onnx", kind="reid")
