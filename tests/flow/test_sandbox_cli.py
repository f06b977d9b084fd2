"""The official command line, cvat-cli, works against the sandbox."""

import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from agent.sandbox import Sandbox
from tests.support.tasks import Client, drawn, filmed

FUNCTION = """
import cvat_sdk.auto_annotation as cvataa

spec = cvataa.DetectionFunctionSpec(labels=[
    cvataa.label_spec("car", 0, type="rectangle"),
    cvataa.label_spec("scene", 1, type="tag"),
])

def detect(context, image):
    return [cvataa.rectangle(0, [1, 2, image.width / 2, image.height / 2]), cvataa.tag(1)]
"""
LABELS = [{"name": "car", "type": "rectangle"}, {"name": "scene", "type": "tag"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "func.py").write_text(FUNCTION)
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(drawn("JPEG", seed=number))
    filmed(folder / "clip.mp4", frames=12)
    with Sandbox({"bot": "secret"}) as sandbox, Client(sandbox, "bot", "secret") as client:
        yield sandbox, client, folder


def command(sandbox, *words):
    host, _, port = sandbox.url.rpartition(":")
    return [
        *(sys.executable, "-m", "cvat_cli", "--server-host", host, "--server-port", port),
        *("--auth", "bot:secret", *map(str, words)),
    ]


def cli(sandbox, *words):
    done = subprocess.run(
        command(sandbox, *words), capture_output=True, text=True, timeout=100, env={**os.environ, "PASS": "secret"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_task_create_ls_and_auto_annotate(place):
    sandbox, client, folder = place
    files = [folder / f"{number}.jpg" for number in range(5)]
    made = cli(sandbox, "task", "create", "by cli", "--labels", json.dumps(LABELS), "local", *files)
    task = int(re.findall(r"\d+", made.stdout)[-1])
    assert client.get(f"/api/tasks/{task}").json()["size"] == 5
    listed = json.loads(cli(sandbox, "task", "ls", "--json").stdout)
    assert task in [one["id"] for one in listed]
    cli(sandbox, "task", "auto-annotate", task, "--function-file", folder / "func.py")
    found = client.get(f"/api/tasks/{task}/annotations").json()
    assert [shape["frame"] for shape in found["shapes"]] == list(range(5))
    assert len(found["tags"]) == 5
    cli(sandbox, "task", "delete", task)
    assert client.get(f"/api/tasks/{task}").status_code == 404


def test_task_create_of_a_video(place):
    sandbox, client, folder = place
    made = cli(sandbox, "task", "create", "film", "--labels", json.dumps(LABELS), "local", folder / "clip.mp4")
    task = client.get(f"/api/tasks/{re.findall(r'[0-9]+', made.stdout)[-1]}").json()
    assert (task["size"], task["mode"], task["data_original_chunk_type"]) == (12, "interpolation", "video")


def test_native_function_and_agent(place):
    sandbox, client, folder = place
    files = [(f"{n}.jpg", drawn("JPEG", seed=n)) for n in range(4)]
    task = client.task(files, labels=LABELS, segment_size=2)
    made = cli(sandbox, "function", "create-native", "finder", "--function-file", folder / "func.py")
    function = int(re.findall(r"\d+", made.stdout)[-1])
    listed = client.get("/api/lambda/functions").json()
    assert [(f["id"], f["kind"]) for f in listed] == [(function, "detector")]
    order = client.post("/api/lambda/requests", json={"function": str(function), "task": task})
    assert order.json()["status"] == "queued"
    assert client.post("/api/lambda/requests", json={"function": function, "task": task}).status_code == 409
    # A direct call waits for the agent too, and is served before the batch.
    answers = []
    call = {"task": task, "frame": 3, "threshold": 0.5}
    asking = threading.Thread(
        target=lambda: answers.append(client.post(f"/api/lambda/functions/{function}", json=call))
    )
    asking.start()
    cli(sandbox, "function", "run-agent", function, "--function-file", folder / "func.py", "--burst")
    asking.join(timeout=60)
    (answer,) = answers
    assert [(s["type"], s["frame"], s["id"]) for s in answer.json()["shapes"]] == [("rectangle", 3, None)]
    ended = client.get(f"/api/lambda/requests/{order.json()['id']}").json()
    assert (ended["status"], ended["progress"]) == ("finished", 100)
    found = client.get(f"/api/tasks/{task}/annotations").json()
    assert [(s["frame"], s["source"]) for s in found["shapes"]] == [(n, "auto") for n in range(4)]
    assert len(found["tags"]) == 4
    cli(sandbox, "function", "delete", function)
    assert client.get(f"/api/functions/{function}").status_code == 404


def test_agent_hears_of_new_requests(place):
    sandbox, client, folder = place
    task = client.task([("0.jpg", drawn())], labels=LABELS)
    made = cli(sandbox, "function", "create-native", "finder", "--function-file", folder / "func.py")
    function = int(re.findall(r"\d+", made.stdout)[-1])
    words = ("function", "run-agent", function, "--function-file", folder / "func.py")
    sandbox.requests.clear()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command(sandbox, *words), **silent) as agent:
        try:
            end = time.monotonic() + 60
            while not (sandbox.requests.matching("GET", "/watch$") and sandbox.requests.matching("POST", "/acquire$")):
                assert time.monotonic() < end, "the agent does not listen"
                time.sleep(0.02)
            # It polls every ten minutes now: only the stream can tell it in time.
            ended = client.lambda_request({"function": str(function), "task": task})
            assert ended["status"] == "finished", ended["exc_info"]
        finally:
            agent.kill()
    assert len(client.get(f"/api/tasks/{task}/annotations").json()["shapes"]) == 1
