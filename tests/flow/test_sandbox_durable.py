"""The sandbox as a program of its own: what it acknowledged is there after it was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.sandbox import Sandbox
from tests.support.dashboard import Dashboard
from tests.support.tasks import Client, drawn, filmed

ROOT = Path(__file__).resolve().parents[2]
RUN = "from agent.commands.sandbox import command; command()"


class Program:
    """`cvat-sidecar sandbox` in a process."""

    def __init__(self, *words):
        command = [sys.executable, "-u", "-c", RUN, "--port", "0", *map(str, words)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.lines = [self.process.stdout.readline().strip()]
        self.url = self.lines[0].rpartition(" ")[2]
        while not self.lines[-1].startswith("Ctrl-C"):
            self.lines.append(self.process.stdout.readline().strip())
            assert self.lines[-1], "the sandbox ended"

    def end(self, number):
        self.process.send_signal(number)
        self.process.stdout.close()
        return self.process.wait(timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.end(signal.SIGKILL)


def everything(client, task):
    names = ("", "/data/meta", "/annotations", "/validation_layout")
    found = {name: client.get(f"/api/tasks/{task}{name}").json() for name in names}
    found["jobs"] = client.jobs(task)
    for path in ("/api/labels", "/api/issues", "/api/comments", "/api/webhooks", "/api/auth/access_tokens"):
        found[path] = client.get(path).json()["results"]
    for one in found["/api/auth/access_tokens"]:
        one["last_used_date"] = None
    query = {"type": "chunk", "number": 0, "quality": "original"}
    found["chunk"] = client.get(f"/api/tasks/{task}/data", params=query).content
    return found


def without_addresses(found, url):
    import json

    chunk = found.pop("chunk")
    return json.loads(json.dumps(found).replace(url, "")), chunk


def test_acknowledged_writes_survive_a_kill(tmp_path):
    words = ("--user", "bot:secret", "--data", tmp_path / "state")
    with Program(*words) as program, Client(program.url, "bot", "secret") as client:
        film = filmed(tmp_path / "clip.mp4", frames=8, size=(64, 48)).read_bytes()
        task = client.task([("clip.mp4", film)], segment_size=4)
        job = client.jobs(task)[0]
        box = {"type": "rectangle", "frame": 0, "label_id": client.labels(task)["thing"], "points": [1, 2, 3, 4]}
        track = {"frame": 0, "label_id": box["label_id"], "shapes": [{k: box[k] for k in ("type", "frame", "points")}]}
        client.put(f"/api/tasks/{task}/annotations", json={"shapes": [box, box], "tracks": [track]})
        first = client.get(f"/api/jobs/{job['id']}/annotations").json()["shapes"][0]
        delete = {"action": "delete"}
        client.patch(f"/api/jobs/{job['id']}/annotations", params=delete, json={"shapes": [first]})
        client.patch(f"/api/tasks/{task}/data/meta", json={"deleted_frames": [2]})
        client.post("/api/issues", json={"frame": 0, "position": [1, 2], "job": job["id"], "message": "look"})
        value = client.post("/api/auth/access_tokens", json={"name": "kept"}).json()["value"]
        gone = client.post("/api/tasks", json={"name": "gone", "labels": []}).json()["id"]
        client.delete(f"/api/tasks/{gone}")
        function = {"provider": "native", "name": "f", "kind": "detector", "labels_v2": [{"name": "thing"}]}
        function = client.post("/api/functions", json=function).json()["id"]
        order = client.post("/api/lambda/requests", json={"function": function, "task": task}).json()["id"]
        before = without_addresses(everything(client, task), program.url)
        client.patch(f"/api/jobs/{job['id']}", json={"state": "completed"})
        program.end(signal.SIGKILL)
    with Program(*words) as program, Client(program.url, "bot", "secret") as client:
        assert client.jobs(task)[0]["state"] == "completed"
        client.patch(f"/api/jobs/{job['id']}", json={"state": "new"})
        after = without_addresses(everything(client, task), program.url)
        for one in (before, after):
            for job in one[0]["jobs"]:
                job.pop("updated_date")
            one[0][""].pop("updated_date")
        assert after == before
        bearer = {"Authorization": f"Bearer {value}"}
        assert client.get("/api/users/self", headers=bearer).json()["username"] == "bot"
        made = client.post("/api/tasks", json={"name": "new", "labels": []}).json()["id"]
        assert made > gone, "ids are never used again"
        body = {"agent_id": "a" * 32, "request_category": "batch"}
        held = client.post(f"/api/functions/queues/function:{function}/requests/acquire", json=body).json()
        assert held["ar_assignment"]["ar_params"]["task"] == task
        assert client.get(f"/api/lambda/requests/{order}").json()["status"] == "started"
        assert program.end(signal.SIGTERM) == 0


def test_a_creation_that_was_interrupted_is_done_again(tmp_path):
    folder = tmp_path / "state"
    with Sandbox({"bot": "secret"}, data=folder) as sandbox, Client(sandbox, "bot", "secret") as client:
        sandbox.state.workers["create"].shutdown()
        task = client.post("/api/tasks", json={"name": "slow", "labels": []}).json()["id"]
        sandbox.state.submit = lambda *_: None  # as if the process ended before the worker began
        form = [("client_files[0]", ("0.jpg", drawn()))]
        rq_id = client.post(f"/api/tasks/{task}/data", data={"image_quality": "70"}, files=form).json()["rq_id"]
        assert client.get(f"/api/requests/{rq_id}").json()["status"] == "queued"
    with Sandbox({"bot": "secret"}, data=folder) as sandbox, Client(sandbox, "bot", "secret") as client:
        client.until(f"/api/requests/{rq_id}", lambda got: got.json()["status"] == "finished")
        assert client.get(f"/api/tasks/{task}").json()["size"] == 1


def test_an_upload_in_pieces_goes_on_after_a_restart(tmp_path):
    content, tus = drawn("PNG", (300, 200)), {"Tus-Resumable": "1.0.0"}
    with Sandbox({"bot": "secret"}, data=tmp_path / "s") as sandbox, Client(sandbox, "bot", "secret") as client:
        task = client.post("/api/tasks", json={"name": "tus", "labels": []}).json()["id"]
        client.post(f"/api/tasks/{task}/data", headers={"Upload-Start": ""})
        announced = {**tus, "Upload-Length": str(len(content)), "Upload-Metadata": "filename MC5wbmc="}
        place = client.post(f"/api/tasks/{task}/data/", headers=announced).headers["location"]
        place = place.removeprefix(sandbox.url)
        client.patch(place, content=content[:100], headers={**tus, "Upload-Offset": "0"})
    with Sandbox({"bot": "secret"}, data=tmp_path / "s") as sandbox, Client(sandbox, "bot", "secret") as client:
        assert client.http.head(place, headers=tus).headers["upload-offset"] == "100"
        client.patch(place, content=content[100:], headers={**tus, "Upload-Offset": "100"})
        client.post(f"/api/tasks/{task}/data", headers={"Upload-Finish": ""}, json={"image_quality": 70})
        client.until(f"/api/tasks/{task}", lambda got: got.json().get("size") == 1)


def test_a_folder_belongs_to_one_sandbox(tmp_path):
    with Sandbox({"bot": "secret"}, data=tmp_path), pytest.raises(ConfigError, match="another sandbox"):
        Sandbox({"bot": "secret"}, data=tmp_path)


def test_without_a_folder_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Sandbox({"bot": "secret"}) as sandbox, Client(sandbox, "bot", "secret") as client:
        client.task([("0.jpg", drawn())])
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_up_a_user():
    with Program() as program:
        password = program.lines[2].removeprefix("password of sandbox: ")
        with Client(program.url, "sandbox", password) as client:
            assert client.get("/api/users/self").json()["username"] == "sandbox"
        assert program.end(signal.SIGINT) == 0


def test_the_command_tells_names_not_passwords():
    with Program("--user", "bot:top-secret", "--user", "alice:also:secret", "--admin", "alice") as program:
        assert program.lines[1] == "users: bot, alice"
        assert not [line for line in program.lines if "secret" in line]
        with Client(program.url, "alice", "also:secret") as client:
            assert client.get("/api/users/self").json()["is_superuser"] is True


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--user", "bot"], "NAME:PASSWORD"),
        (["--user", "bot:a", "--user", "bot:b"], "twice"),
    ],
)
def test_wrong_users_are_refused(words, complaint):
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert complaint in done.stderr


def test_the_package_is_cheap_to_import():
    code = (
        "import sys, agent.sandbox, agent.commands.sandbox; print([m for m in ('starlette', 'av') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_port_in_use_is_told():
    with Sandbox({"bot": "secret"}) as sandbox:
        port = int(sandbox.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            Sandbox({"bot": "secret"}, port=port).start()


def test_stopping_does_not_wait_for_streams_or_agents(sandbox):
    with Client(sandbox, "bot", "secret") as client:
        body = {"provider": "native", "name": "f", "kind": "detector", "labels_v2": []}
        function = client.post("/api/functions", json=body).json()["id"]
        with client.http.stream("GET", f"/api/functions/queues/function:{function}/watch") as stream:
            next(stream.iter_lines())
            began = time.monotonic()
            sandbox.stop()
            assert time.monotonic() - began < 5
    assert not os.path.exists(sandbox.state.root)


def test_a_creation_that_was_done_when_the_process_ended_is_not_done_twice(tmp_path):
    with Sandbox({"bot": "secret"}, data=tmp_path) as sandbox, Client(sandbox, "bot", "secret") as client:
        task = client.task([("0.jpg", drawn())])
        with sandbox.state.store.change():
            request = sandbox.state.requests.first(task_id=task)
            request.status = "started"  # as if the end of the request had not been written any more
            sandbox.state.requests.save(request)
    with Sandbox({"bot": "secret"}, data=tmp_path) as sandbox, Client(sandbox, "bot", "secret") as client:
        client.until(f"/api/requests/{request.rq_id}", lambda got: got.json()["status"] == "finished")
        assert len(client.jobs(task)) == 1


def test_an_annotation_that_was_interrupted_has_failed_after_the_restart(tmp_path):
    with Dashboard(seconds=0.2) as dashboard:
        with (
            Sandbox({"bot": "secret"}, data=tmp_path, nuclio=dashboard.url) as sandbox,
            Client(sandbox, "bot", "secret") as client,
        ):
            task = client.task([(f"{n}.png", drawn("PNG", (200, 150))) for n in range(20)], labels=[{"name": "car"}])
            made = client.post("/api/lambda/requests", json={"function": "fake-detector", "task": task}).json()
            path = f"/api/lambda/requests/{made['id']}"
            client.until(path, lambda got: got.json()["progress"])
        with Sandbox({"bot": "secret"}, data=tmp_path) as sandbox, Client(sandbox, "bot", "secret") as client:
            ended = client.get(path).json()
            assert (ended["status"], bool(ended["exc_info"])) == ("failed", True)
