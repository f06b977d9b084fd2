"""Faults strike as asked, before or after the work; requests are remembered."""

import httpx
import pytest

from tests.support.tasks import Client, drawn

ANNOTATIONS = r"/api/jobs/\d+/annotations"


@pytest.fixture
def client(sandbox):
    with Client(sandbox, "bot", "secret") as client:
        yield client


@pytest.fixture
def job(client):
    task = client.task([("0.jpg", drawn())])
    box = {"type": "rectangle", "frame": 0, "label_id": client.labels(task)["thing"], "points": [1, 2, 3, 4]}
    path = f"/api/jobs/{client.jobs(task)[0]['id']}/annotations"

    class Job:
        def create(self):
            return client.patch(path, params={"action": "create"}, json={"shapes": [box]})

        def stored(self):
            return len(client.get(path).json()["shapes"])

    return Job()


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 2)])
def test_a_wrong_status(sandbox, job, when, kept):
    fault = sandbox.faults.add(method="PATCH", path=ANNOTATIONS, status=500, when=when, count=2)
    for _ in range(2):
        answer = job.create()
        assert answer.status_code == 500
        assert "html" in answer.headers["content-type"]
    assert fault.struck == 2
    assert job.stored() == kept
    assert job.create().status_code == 200


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
def test_a_cut_connection(sandbox, job, when, kept):
    sandbox.faults.add(method="PATCH", path=ANNOTATIONS, cut=True, when=when)
    with pytest.raises(httpx.TransportError):
        job.create()
    assert job.stored() == kept
    assert sandbox.requests.matching("PATCH", ANNOTATIONS, status=0)


def test_an_answer_that_breaks_off(sandbox, client):
    task = client.task([("0.png", drawn("PNG", (400, 300)))])
    query = {"type": "frame", "number": 0, "quality": "original"}
    whole = client.get(f"/api/tasks/{task}/data", params=query).content
    sandbox.faults.add(path="/data$", cut=True, after_bytes=100)
    with client.http.stream("GET", f"/api/tasks/{task}/data", params=query) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == whole[:100]
        with pytest.raises(httpx.RemoteProtocolError):
            next(pieces)


def test_an_event_stream_that_breaks_off(sandbox, client):
    detector = {"provider": "native", "name": "det", "kind": "detector", "labels_v2": []}
    function = client.post("/api/functions", json=detector).json()["id"]
    sandbox.faults.add(path="/watch$", cut=True, after_bytes=9)
    path = f"/api/functions/queues/function:{function}/watch"
    with client.http.stream("GET", path, timeout=10) as stream:
        pieces = stream.iter_raw()
        assert next(pieces) == b"retry: 10"
        with pytest.raises(httpx.RemoteProtocolError):
            next(pieces)


def test_too_many_requests_says_when_to_come_back(sandbox, client):
    sandbox.faults.add(status=429, headers={"Retry-After": "7"})
    answer = client.get("/api/users/self")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json() == {"detail": "Request was throttled."}
    sandbox.faults.add(status=429)
    assert client.get("/api/users/self").headers["retry-after"] == "1"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_delay(sandbox, client, when):
    sandbox.faults.add(path="/users/self", delay=0.2, when=when, count=None)
    answer = client.get("/api/users/self")
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() > 0.2
    sandbox.faults.clear()
    assert client.get("/api/users/self").elapsed.total_seconds() < 0.2


def test_chance_has_a_seed(sandbox, client):
    def run():
        sandbox.faults.clear()
        sandbox.faults.add(path="/about", status=502, probability=0.3, seed=7)
        return [client.get("/api/server/about").status_code for _ in range(30)]

    first = run()
    assert set(first) == {200, 502}
    assert run() == first


@pytest.mark.parametrize("wrong", [{}, {"when": "later", "status": 500}])
def test_faults_that_make_no_sense(sandbox, wrong):
    with pytest.raises(ValueError, match=r"when|needs"):
        sandbox.faults.add(**wrong)


def test_requests_are_remembered(sandbox, client):
    sandbox.requests.clear()
    client.get("/api/users/self", params={"x": "1"})
    client.get("/api/nope")
    httpx.get(sandbox.url + "/api/server/about", trust_env=False)
    seen = [(r.method, r.path, r.query, r.status, r.user) for r in sandbox.requests]
    assert seen == [
        ("GET", "/api/users/self", "x=1", 200, "bot"),
        ("GET", "/api/nope", "", 404, None),
        ("GET", "/api/server/about", "", 200, None),
    ]
    assert len(sandbox.requests) == 3
    assert sandbox.requests[-1].path == "/api/server/about"
    assert [r.status for r in sandbox.requests.matching("GET", "/users/")] == [200]
