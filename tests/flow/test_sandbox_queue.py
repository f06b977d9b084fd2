"""The agents' queue, as agents of any kind meet it."""

import threading

import pytest

from agent.sandbox import Sandbox
from tests.support.tasks import Client, drawn

LABELS = [{"name": "car", "type": "rectangle"}]
DETECTOR = {
    "provider": "native",
    "name": "det",
    "visibility": "private",
    "kind": "detector",
    "labels_v2": [{"name": "car", "attributes": [], "type": "rectangle"}],
}
ME, OTHER = "a" * 32, "b" * 32


class Queue:
    """A function's queue and a task to annotate."""

    def __init__(self, sandbox, client, form):
        self.sandbox, self.client = sandbox, client
        self.function = client.post("/api/functions", json=DETECTOR).json()["id"]
        self.path = f"/api/functions/queues/function{form}{self.function}"
        self.task = client.task([(f"{n}.jpg", drawn(seed=n)) for n in range(3)], labels=LABELS)
        self.label = client.labels(self.task)["car"]

    def order(self, **more):
        return self.client.post(
            "/api/lambda/requests", json={"function": str(self.function), "task": self.task, **more}
        )

    def acquire(self, agent=ME, category="batch"):
        body = {"agent_id": agent, "request_category": category}
        return self.client.post(f"{self.path}/requests/acquire", json=body).json()["ar_assignment"]

    def tell(self, ar_id, verb, agent=ME, **more):
        return self.client.post(f"{self.path}/requests/{ar_id}/{verb}", json={"agent_id": agent, **more})

    def box(self, frame, **more):
        return {"type": "rectangle", "label_id": self.label, "frame": frame, "points": [1, 2, 30, 40], **more}

    def stored(self):
        return self.client.get(f"/api/tasks/{self.task}/annotations").json()["shapes"]


@pytest.fixture(params=[":", "%3A"], ids=["plain", "encoded"])
def queue(sandbox, request):
    with Client(sandbox, "bot", "secret") as client:
        yield Queue(sandbox, client, request.param)


def test_a_batch_request_from_acquire_to_complete(queue):
    rq_id = queue.order(threshold=0.3).json()["id"]
    held = queue.acquire()
    assert held["ar_params"] == {
        "type": "annotate_task",
        "task": queue.task,
        "mapping": {"car": {"name": "car", "attributes": {}}},
        "threshold": 0.3,
        "conv_mask_to_poly": False,
    }
    assert queue.acquire() is None
    assert queue.tell(held["ar_id"], "update", progress=0.5).status_code == 200
    shown = queue.client.get(f"/api/lambda/requests/{rq_id}").json()
    assert (shown["status"], shown["progress"]) == ("started", 50)
    result = {"tags": [], "shapes": [queue.box(n, score=0.5, source="manual") for n in (0, 2)]}
    assert queue.tell(held["ar_id"], "complete", annotations=result).status_code == 200
    assert [(s["frame"], s["source"], s["score"]) for s in queue.stored()] == [(0, "auto", 0.5), (2, "auto", 0.5)]
    assert queue.client.get(f"/api/lambda/requests/{rq_id}").json()["status"] == "finished"


def test_who_may_say_what_of_a_request(queue):
    queue.order()
    ar_id = queue.acquire()["ar_id"]
    nothing = {"tags": [], "shapes": []}
    assert queue.tell(ar_id, "update", agent=OTHER, progress=0.1).status_code == 403
    assert queue.tell(ar_id, "complete", agent=OTHER, annotations=nothing).status_code == 403
    assert queue.tell("no-such", "update", progress=0.1).status_code == 404
    assert queue.tell(ar_id, "complete", annotations=nothing).status_code == 200
    for verb, more in (
        ("update", {"progress": 1}),
        ("complete", {"annotations": nothing}),
        ("fail", {"exc_info": "x"}),
    ):
        assert queue.tell(ar_id, verb, **more).status_code == 400


def test_a_failed_request_tells_why(queue):
    rq_id = queue.order().json()["id"]
    assert queue.tell(queue.acquire()["ar_id"], "fail", exc_info="The model failed").status_code == 200
    shown = queue.client.get(f"/api/lambda/requests/{rq_id}").json()
    assert (shown["status"], shown["exc_info"]) == ("failed", "The model failed")


def test_a_cancelled_request_is_unknown_to_its_agent(queue):
    rq_id = queue.order().json()["id"]
    ar_id = queue.acquire()["ar_id"]
    assert queue.client.delete(f"/api/lambda/requests/{rq_id}").status_code == 204
    assert queue.tell(ar_id, "update", progress=0.1).status_code == 404
    assert queue.tell(ar_id, "complete", annotations={"shapes": [queue.box(0)]}).status_code == 404
    assert queue.stored() == []


def test_results_that_make_no_sense_are_refused_and_nothing_is_stored(queue):
    queue.order()
    ar_id = queue.acquire()["ar_id"]
    for wrong in ({"label_id": 999_999}, {"points": [1, 2]}, {"score": None}):
        sent = {"shapes": [queue.box(0), queue.box(1, **wrong)]}
        assert queue.tell(ar_id, "complete", annotations=sent).status_code == 400
    assert queue.stored() == []


def test_cleanup_takes_the_old_annotations_away_at_the_end(queue):
    queue.client.put(f"/api/tasks/{queue.task}/annotations", json={"shapes": [queue.box(1)]})
    queue.order(cleanup=True)
    held = queue.acquire()
    assert len(queue.stored()) == 1
    queue.tell(held["ar_id"], "complete", annotations={"shapes": [queue.box(0)]})
    assert [shape["frame"] for shape in queue.stored()] == [0]


def test_the_request_of_a_silent_agent_is_given_to_another(queue):
    queue.order()
    first = queue.acquire()
    queue.sandbox.state.lease_seconds = 0.0
    second = queue.acquire(agent=OTHER)
    assert second["ar_id"] == first["ar_id"]
    queue.sandbox.state.lease_seconds = 60.0
    assert queue.tell(first["ar_id"], "update", progress=0.5).status_code == 403
    assert queue.tell(first["ar_id"], "complete", agent=OTHER, annotations={"shapes": []}).status_code == 200


def test_a_direct_call_waits_for_an_agent(queue):
    answers = []
    call = {"task": queue.task, "frame": 1, "conv_mask_to_poly": True, "roi": [10, 10, 40, 40]}
    path = f"/api/lambda/functions/{queue.function}"
    asking = threading.Thread(target=lambda: answers.append(queue.client.post(path, json=call)))
    asking.start()
    with queue.client.http.stream("GET", f"{queue.path}/watch") as stream:
        lines = stream.iter_lines()
        while (line := next(lines)) != 'data: {"request_category": "interactive"}':
            assert not line.startswith("data"), line
    held = queue.acquire(category="interactive")
    assert held["ar_params"]["type"] == "annotate_frame"
    assert (held["ar_params"]["frame"], held["ar_params"]["roi"]) == (1, [10, 10, 40, 40])
    queue.tell(held["ar_id"], "complete", annotations={"shapes": [queue.box(1)]})
    asking.join(timeout=30)
    (shape,) = answers[0].json()["shapes"]
    assert shape["points"] == [11, 12, 40, 50]  # the agent answers for the part, the server moves it
    assert queue.stored() == []


def test_nobody_answers_a_direct_call(queue):
    queue.sandbox.state.interactive_timeout = 0.05
    answer = queue.client.post(f"/api/lambda/functions/{queue.function}", json={"task": queue.task, "frame": 0})
    assert answer.status_code == 504
    assert queue.acquire(category="interactive") is None


def test_tracking_states_are_signed_and_given_back(queue):
    body = {"provider": "native", "name": "t", "kind": "tracker", "supported_shape_types": ["rectangle"]}
    function = queue.client.post("/api/functions", json=body).json()["id"]
    queue.path, path = f"/api/functions/queues/function:{function}", f"/api/lambda/functions/{function}"

    def agent(result):
        with queue.client.http.stream("GET", f"{queue.path}/watch") as stream:
            next(line for line in stream.iter_lines() if line.startswith("data"))
        held = queue.acquire(category="interactive")
        queue.tell(held["ar_id"], "complete", **result)
        params.append(held["ar_params"])

    params, shape = [], {"type": "rectangle", "points": [1, 2, 3, 4]}
    serving = threading.Thread(target=agent, args=({"states": ["s1"]},))
    serving.start()
    begun = queue.client.post(path, json={"task": queue.task, "frame": 0, "shapes": [shape]}).json()
    serving.join(timeout=30)
    serving = threading.Thread(target=agent, args=({"states": ["s2"], "shapes": [shape]},))
    serving.start()
    call = {"task": queue.task, "frame": 1, "states": begun["states"]}
    followed = queue.client.post(path, json=call).json()
    serving.join(timeout=30)
    assert [p["type"] for p in params] == ["init_tracking", "track"]
    assert params[1]["states"] == ["s1"]
    assert followed["shapes"] == [shape]
    forged = {"task": queue.task, "frame": 1, "states": ["foreign:1:2"]}
    assert queue.client.post(path, json=forged).status_code == 400


def test_the_stream_ends_when_the_function_is_deleted(queue):
    with queue.client.http.stream("GET", f"{queue.path}/watch") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert next(lines) == "retry: 1000"
        assert queue.client.delete(f"/api/functions/{queue.function}").status_code == 204
        assert all(not line for line in lines)
    body = {"agent_id": ME, "request_category": "batch"}
    assert queue.client.post(f"{queue.path}/requests/acquire", json=body).status_code == 404


def test_functions_are_private_and_agents_are_the_owners(queue):
    with Client(queue.sandbox, "alice", "secret") as alice:
        assert alice.get(f"/api/functions/{queue.function}").status_code == 403
        assert alice.get("/api/lambda/functions").json() == []
        body = {"agent_id": ME, "request_category": "batch"}
        assert alice.post(f"{queue.path}/requests/acquire", json=body).status_code == 403
    public = {**DETECTOR, "visibility": "public"}
    assert queue.client.post("/api/functions", json=public).status_code == 403
    for wrong in ({"provider": "x"}, {"kind": "reid"}, {"name": ""}):
        assert queue.client.post("/api/functions", json={**DETECTOR, **wrong}).status_code == 400
    assert queue.client.get("/api/functions").status_code == 404


def test_an_organization_shares_its_functions():
    users = {"bot": "secret", "alice": "secret"}
    with (
        Sandbox(users) as sandbox,
        Client(sandbox, "bot", "secret") as bot,
        Client(sandbox, "alice", "secret") as alice,
    ):
        bot.post("/api/organizations", json={"slug": "lab"})
        inside = {"X-Organization": "lab"}
        invite = {"email": "alice@example.com", "role": "worker"}
        assert bot.post("/api/invitations", json=invite, headers=inside).status_code == 201
        function = bot.post("/api/functions", json=DETECTOR, headers=inside).json()["id"]
        assert alice.get(f"/api/functions/{function}").status_code == 200
        assert alice.post("/api/functions", json=DETECTOR, headers=inside).status_code == 403
        assert [f["id"] for f in alice.get("/api/lambda/functions", headers=inside).json()] == [function]
        assert alice.get("/api/lambda/functions", headers={"X-Organization": ""}).json() == []


def test_a_deleted_task_takes_its_requests_along(queue):
    queue.order()
    held = queue.acquire()
    assert queue.client.delete(f"/api/tasks/{queue.task}").status_code == 204
    assert queue.tell(held["ar_id"], "update", progress=0.5).status_code == 404
    assert queue.acquire() is None
