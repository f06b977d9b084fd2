"""What of a project is annotated: every task with something to look at."""

import pytest

from agent.cvat.work import find_work
from agent.errors import BadRequest
from agent.options import Target
from tests.support.material import make_image_task


@pytest.fixture
def project(session):
    reply = session.request("POST", "/api/projects", body={"name": "p", "labels": [{"name": "thing"}]})
    return reply.json()["id"]


@pytest.fixture
def tasks(session, project):
    return [make_image_task(session, count=2, project=project, labels=None) for _ in range(3)]


def test_tasks_come_in_order_with_the_projects_labels(session, project, tasks):
    found = find_work(session, Target("project", project))
    assert [work.task_id for work in found] == tasks
    assert {label.name for work in found for label in work.labels} == {"thing"}


def test_a_task_without_data_is_nothing_to_annotate(session, project, tasks):
    session.request("POST", "/api/tasks", body={"name": "empty", "project_id": project})
    assert [work.task_id for work in find_work(session, Target("project", project))] == tasks


def test_a_point_cloud_does_not_keep_the_pictures_from_being_annotated(sandbox, session, project, tasks, caplog):
    sandbox.state.tasks.rows[tasks[1]].dimension = "3d"
    found = find_work(session, Target("project", project))
    assert [work.task_id for work in found] == [tasks[0], tasks[2]]
    assert f"task {tasks[1]} is left out, it holds 3D data" in caplog.text


def test_a_project_of_nothing_but_point_clouds(sandbox, session, project, tasks):
    for task in tasks:
        sandbox.state.tasks.rows[task].dimension = "3d"
    with pytest.raises(BadRequest, match="holds 3D data, allowed: pictures and video"):
        find_work(session, Target("project", project))


def test_more_jobs_than_a_page_holds(session, monkeypatch):
    monkeypatch.setattr("agent.cvat.work.PAGE_SIZE", 2)
    (work,) = find_work(session, Target("task", make_image_task(session, count=7, segment_size=1)))
    assert [job.frames for job in work.jobs] == [(n,) for n in range(7)]
