"""Who may do what, lists, and the forms of requests."""

import base64
import json

import httpx
import pytest

from agent.sandbox import Sandbox
from tests.support.tasks import Client, drawn

USERS = {"bot": "secret", "alice": "secret", "eve": "secret", "root": "secret"}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(USERS, admins=["root"]) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def users(sandbox):
    clients = {name: Client(sandbox, name, "secret") for name in USERS}
    yield clients
    for client in clients.values():
        client.http.close()


@pytest.fixture(scope="module")
def task(users):
    return users["bot"].task([("0.jpg", drawn())])


def test_ways_to_say_who_one_is(sandbox):
    def ask(method="GET", path="/api/users/self", **more):
        return httpx.request(method, sandbox.url + path, trust_env=False, **more)

    login = ask("POST", "/api/auth/login", json={"username": "bot", "password": "secret"})
    cookies = {name: login.cookies[name] for name in ("sessionid", "csrftoken")}
    basic = "Basic " + base64.b64encode(b"bot:secret").decode()
    for way in ({"cookies": cookies}, {"headers": {"Authorization": basic}}):
        assert ask(**way).json()["username"] == "bot"
    for wrong in (base64.b64encode(b"bot:wrong").decode(), "%%%"):
        assert ask(headers={"Authorization": f"Basic {wrong}"}).status_code == 401
    body = {"name": "by cookie", "labels": []}
    assert ask("POST", "/api/tasks", cookies=cookies, json=body).status_code == 403
    proof = {"X-CSRFToken": cookies["csrftoken"]}
    assert ask("POST", "/api/tasks", cookies=cookies, json=body, headers=proof).status_code == 201
    assert ask("POST", "/api/auth/logout", cookies=cookies, headers=proof).status_code == 200
    assert ask(cookies=cookies).status_code == 401


def test_strangers_see_and_touch_nothing(users, task):
    eve, bot = users["eve"], users["bot"]
    job = bot.jobs(task)[0]["id"]
    for path in (
        f"/api/tasks/{task}",
        f"/api/tasks/{task}/annotations",
        f"/api/jobs/{job}",
        f"/api/jobs/{job}/data/meta",
    ):
        assert eve.get(path).status_code == 403
    assert eve.get("/api/labels", params={"task_id": task}).status_code == 403
    assert eve.delete(f"/api/tasks/{task}").status_code == 403
    assert eve.get("/api/tasks").json()["count"] == 0
    assert eve.get("/api/jobs", params={"task_id": task}).json()["count"] == 0
    assert eve.post("/api/lambda/requests", json={"function": "x", "task": task}).status_code == 404
    assert users["root"].get(f"/api/tasks/{task}").status_code == 200


def test_an_assignee_has_the_job_and_nothing_of_the_task(users):
    bot, alice, root = users["bot"], users["alice"], users["root"]
    task = bot.task([(f"{n}.jpg", drawn(seed=n)) for n in range(2)], segment_size=1)
    mine, other = (job["id"] for job in bot.jobs(task))
    who = alice.get("/api/users/self").json()["id"]
    assert bot.patch(f"/api/jobs/{mine}", json={"assignee": who}).status_code == 403  # bot may not even see her
    assert root.patch(f"/api/jobs/{mine}", json={"assignee": who}).status_code == 200
    assert alice.get(f"/api/jobs/{mine}").json()["task_name"] is None
    assert alice.get("/api/labels", params={"job_id": mine}).status_code == 200
    issue = {"frame": 0, "position": [1, 2], "job": mine, "message": "here"}
    assert alice.post("/api/issues", json=issue).status_code == 201
    assert alice.post("/api/issues", json={**issue, "job": other}).status_code == 403
    assert alice.get(f"/api/tasks/{task}/data/meta").status_code == 403
    assert alice.get(f"/api/jobs/{other}").status_code == 403
    assert alice.patch(f"/api/jobs/{mine}", json={"state": "completed"}).status_code == 200
    assert alice.patch(f"/api/jobs/{mine}", json={"stage": "acceptance"}).status_code == 403
    assert [job["id"] for job in alice.get("/api/jobs").json()["results"]] == [mine]
    assert alice.get(f"/api/jobs/{mine}/validation_layout").status_code == 403


def test_what_an_organization_changes(users):
    bot, alice, eve = users["bot"], users["alice"], users["eve"]
    assert bot.post("/api/organizations", json={"slug": "acme"}).status_code == 201
    inside = {"X-Organization": "acme"}
    for name, role in (("alice", "worker"), ("eve", "maintainer")):
        invite = {"email": f"{name}@example.com", "role": role}
        assert bot.post("/api/invitations", json=invite, headers=inside).status_code == 201
    made = bot.post("/api/projects", json={"name": "ours", "labels": [{"name": "x"}]}, headers=inside).json()
    assert alice.post("/api/tasks", json={"name": "no", "labels": []}, headers=inside).status_code == 403
    task = bot.post("/api/tasks", json={"name": "t", "project_id": made["id"]}).json()
    assert task["organization_id"] == made["organization_id"]
    assert eve.get(f"/api/tasks/{task['id']}").status_code == 200
    assert alice.get(f"/api/tasks/{task['id']}").status_code == 403
    count = {"headers": inside, "params": {"page_size": 1}}
    assert bot.get("/api/tasks", **count).json()["count"] == 1
    personal = bot.get("/api/tasks", params={"org": "", "page_size": 1000}).json()["results"]
    assert task["id"] not in [one["id"] for one in personal]
    assert bot.get("/api/tasks", params={"org": "nope"}).status_code == 404
    members = bot.get("/api/memberships", headers=inside).json()["results"]
    worker = next(one for one in members if one["role"] == "worker")
    assert alice.delete(f"/api/memberships/{worker['id']}").status_code == 204
    assert alice.get("/api/tasks", headers=inside).status_code == 404
    assert bot.delete(f"/api/organizations/{made['organization_id']}").status_code == 204
    assert bot.get(f"/api/projects/{made['id']}").status_code == 404


def test_lists(users):
    bot = users["bot"]
    for name in ("aa", "ab", "b"):
        bot.post("/api/tasks", json={"name": f"list-{name}", "labels": [], "subset": name})

    def names(**query):
        found = bot.get("/api/tasks", params={"search": "list-", "sort": "name", **query})
        assert found.status_code == 200, found.text
        return [one["name"][5:] for one in found.json()["results"]]

    assert names() == ["aa", "ab", "b"]
    assert names(sort="-name") == ["b", "ab", "aa"]
    assert names(subset="ab") == ["ab"]
    assert names(owner="bot") == ["aa", "ab", "b"]
    assert names(owner="alice") == []
    since = bot.get("/api/tasks", params={"search": "list-ab"}).json()["results"][0]["updated_date"]
    for rule, wanted in (
        ({"and": [{">": [{"var": "updated_date"}, since]}]}, ["b"]),
        ({"or": [{"==": [{"var": "name"}, "list-b"]}, {"in": ["aa", {"var": "name"}]}]}, ["aa", "b"]),
        ({"!": {"in": [{"var": "subset"}, ["aa", "b"]]}}, ["ab"]),
        ({"<=": [{"var": "updated_date"}, since]}, ["aa", "ab"]),
        ({"!=": [{"var": "subset"}, "b"]}, ["aa", "ab"]),
    ):
        assert names(filter=json.dumps(rule)) == wanted, rule
    for wrong in ({"var": "password"}, {"mystery": [1]}, {"==": [1]}, [{"a": 1, "b": 2}][0]):
        assert bot.get("/api/tasks", params={"filter": json.dumps(wrong)}).status_code == 400, wrong


def test_labels_are_changed_and_annotations_of_removed_ones_go(users):
    bot = users["bot"]
    task = bot.task([("0.jpg", drawn())], labels=[{"name": "keep"}, {"name": "drop"}])
    ids, path = bot.labels(task), f"/api/tasks/{task}"
    boxes = [{"type": "rectangle", "frame": 0, "label_id": ids[name], "points": [1, 2, 3, 4]} for name in ids]
    bot.put(f"{path}/annotations", json={"shapes": boxes})
    change = [{"id": ids["keep"], "name": "kept"}, {"id": ids["drop"], "deleted": True}, {"name": "new"}]
    assert bot.patch(path, json={"labels": change}).status_code == 200
    assert set(bot.labels(task)) == {"kept", "new"}
    assert [s["label_id"] for s in bot.get(f"{path}/annotations").json()["shapes"]] == [ids["keep"]]
    assert bot.patch(f"/api/labels/{ids['keep']}", json={"color": "#00ff00"}).json()["color"] == "#00ff00"
    assert bot.patch(path, json={"labels": [{"id": 999_999}]}).status_code == 404


def test_project_tasks_share_labels(users):
    bot = users["bot"]
    project = bot.post("/api/projects", json={"name": "p", "labels": [{"name": "car"}]}).json()["id"]
    tasks = [bot.task([("0.jpg", drawn())], project_id=project) for _ in range(2)]
    first, second = (bot.labels(task) for task in tasks)
    assert first == second
    listed = bot.get("/api/tasks", params={"project_id": project}).json()["results"]
    assert [one["id"] for one in listed] == tasks[::-1]
    assert bot.get("/api/jobs", params={"project_id": project}).json()["count"] == 2
    assert (
        bot.post("/api/tasks", json={"name": "x", "project_id": project, "labels": [{"name": "y"}]}).status_code == 400
    )
    assert bot.delete(f"/api/projects/{project}").status_code == 204
    assert bot.get(f"/api/tasks/{tasks[0]}").status_code == 404


def test_issues_and_comments(users, task):
    bot = users["bot"]
    job = bot.jobs(task)[0]["id"]
    issue = bot.post("/api/issues", json={"frame": 0, "position": [1, 2, 3, 4], "job": job, "message": "first"}).json()
    assert bot.get(f"/api/jobs/{job}").json()["issues"]["count"] == 1
    comment = bot.post("/api/comments", json={"issue": issue["id"], "message": "second"}).json()
    found = bot.get("/api/comments", params={"issue_id": issue["id"], "sort": "id"}).json()["results"]
    assert [one["message"] for one in found] == ["first", "second"]
    assert bot.patch(f"/api/issues/{issue['id']}", json={"resolved": True}).json()["resolved"] is True
    assert bot.patch(f"/api/comments/{comment['id']}", json={"message": "third"}).json()["message"] == "third"
    assert bot.delete(f"/api/issues/{issue['id']}").status_code == 204
    assert bot.get(f"/api/comments/{comment['id']}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/tasks", {"name": "x", "segment_size": "many"}),
        ("POST", "/api/tasks", ["x"]),
        ("POST", "/api/tasks", {"labels": []}),
        ("POST", "/api/tasks", {"name": "x", "labels": "car"}),
        ("PATCH", "{job}/annotations?action=create", {"shapes": "x"}),
        ("PATCH", "{job}/annotations?action=create", {"shapes": ["x"]}),
        ("PATCH", "{job}/annotations?action=create", {"tracks": [{"label_id": 1, "frame": 0, "shapes": []}]}),
        ("PATCH", "{job}/annotations?action=create", {"tags": [{"label_id": 1, "frame": 0.5}]}),
        ("PATCH", "{job}", {"state": 7}),
        ("POST", "/api/issues", {"frame": "x", "position": [1, 2], "job": "{job_id}", "message": "m"}),
        ("POST", "/api/jobs", {"type": "annotation"}),
    ],
)
def test_malformed_requests_are_400(users, task, method, path, body):
    bot = users["bot"]
    job = bot.jobs(task)[0]["id"]
    body = {k: job if v == "{job_id}" else v for k, v in body.items()} if isinstance(body, dict) else body
    answer = bot.http.request(method, path.format(job=f"/api/jobs/{job}"), json=body)
    assert answer.status_code == 400, answer.text
    assert "json" in answer.headers["content-type"]


def test_a_body_that_is_no_json(users):
    answer = users["bot"].post("/api/tasks", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("JSON parse error")


def test_a_task_can_be_made_odd_by_its_state(sandbox, users):
    bot = users["bot"]
    task_id = bot.task([("0.jpg", drawn())])
    with sandbox.state.store.change():
        task = sandbox.state.tasks.rows[task_id]
        task.dimension = "3d"
        sandbox.state.tasks.save(task)
    assert bot.get(f"/api/tasks/{task_id}").json()["dimension"] == "3d"
    assert bot.jobs(task_id)[0]["dimension"] == "3d"
