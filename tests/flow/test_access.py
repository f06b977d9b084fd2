"""Who may do what: logins of every kind, organizations, and somebody who is only the assignee of a job."""

import json
import os

import pytest

from agent.cli import main
from agent.cvat.session import open_session
from agent.cvat.work import find_work
from agent.errors import BadRequest, ConfigError, ServerRefused, ServerUnavailable
from agent.options import Target
from agent.settings.server import ServerSettings
from tests.support.material import make_image_task, make_video_task

LABELS = [{"name": "face", "type": "rectangle"}, {"name": "eye", "type": "rectangle"}]


@pytest.fixture
def organization(sandbox, session):
    """alice's session inside an organization of hers in which bot is a worker."""
    with open_session(ServerSettings(host=sandbox.url, user="alice", password="secret")) as alice:
        alice.request("POST", "/api/organizations", body={"slug": "lab"})
    with open_session(ServerSettings(host=sandbox.url, user="alice", password="secret", organization="lab")) as alice:
        email = session.request("GET", "/api/users/self").json()["email"]
        alice.request("POST", "/api/invitations", body={"email": email, "role": "worker"})
        yield alice


@pytest.fixture
def assigned(organization, session):
    """(task, job): a task of alice's organization, one of whose three jobs is bot's."""
    task = make_image_task(organization, count=6, labels=LABELS, segment_size=2)
    (work,) = find_work(organization, Target("task", task))
    bot = session.request("GET", "/api/users/self").json()["id"]
    organization.request("PATCH", f"/api/jobs/{work.jobs[1].id}", body={"assignee": bot})
    return task, work.jobs[1].id


def run(sandbox, *args):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, args), "--model", "opencv:face", "--server-host", sandbox.url, "--auth", "bot:secret"])
    return ended.value.code


def test_an_assignee_needs_job_endpoints_only(sandbox, assigned, tmp_path):
    _, job = assigned
    before = len(list(sandbox.requests))
    report = tmp_path / "report.json"
    assert run(sandbox, "annotate", "--job", job, "--organization", "lab", "--report", report) == 0
    used = [entry.path for entry in list(sandbox.requests)[before:]]
    assert not [path for path in used if path.startswith("/api/tasks")]
    assert json.loads(report.read_text())["frames"]["done"] == 2


def test_a_task_is_annotated_through_those_of_its_jobs_that_one_may_use(sandbox, assigned, tmp_path, capsys):
    task, job = assigned
    report = tmp_path / "report.json"
    assert run(sandbox, "annotate", "--task", task, "--organization", "lab", "--report", report) == 0
    assert json.loads(report.read_text())["frames"]["total"] == 2
    said = capsys.readouterr().err
    assert (
        f"task {task}: this user may not see all of it; annotated is only what is assigned to it: job {job}\n" in said
    )


def test_somebody_elses_job_is_a_clear_refusal(sandbox, organization, session, assigned, capsys):
    task, _ = assigned
    (work,) = find_work(organization, Target("task", task))
    assert run(sandbox, "annotate", "--job", work.jobs[0].id, "--organization", "lab") == 3
    assert "status 403" in capsys.readouterr().err


def test_an_unknown_organization_is_a_clear_refusal(sandbox, capsys):
    assert run(sandbox, "annotate", "--task", 1, "--organization", "nope") == 3
    assert "nope organization does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(("target", "said"), [("task", "status 404"), ("job", "status 404"), ("project", "status 404")])
def test_what_does_not_exist_is_told(sandbox, target, said, capsys):
    assert run(sandbox, "annotate", f"--{target}", 999) == 3
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("given", "said"), [("lab", "the organization 'lab'"), ("", "the personal workspace")])
def test_a_task_of_elsewhere_is_told(sandbox, organization, session, given, said, capsys):
    task = make_image_task(session if given else organization, count=1)
    assert run(sandbox, "annotate", "--task", task, "--organization", given) == 2
    text = capsys.readouterr().err
    assert f"Error: task {task}: " in text
    assert f", in {said}; is that the right one? (--organization, or [cvat] organization)" in text


def test_a_jobs_number_in_place_of_its_tasks_is_noticed(sandbox, session, capsys):
    task = make_image_task(session, count=4, segment_size=1)
    (work,) = find_work(session, Target("task", task))
    job = work.jobs[-1].id
    assert job != task
    assert run(sandbox, "annotate", "--task", job) == 3
    assert f"did you mean --job {job}, of task {task}?" in capsys.readouterr().err


def test_a_task_without_data_is_told(session):
    task = session.request("POST", "/api/tasks", body={"name": "empty", "labels": []}).json()["id"]
    with pytest.raises(BadRequest, match="no data yet"):
        find_work(session, Target("task", task))


@pytest.mark.parametrize(("field", "value"), [("dimension", "3d"), ("media_type", "audio")])
def test_three_dimensional_and_audio_tasks_are_refused(sandbox, session, field, value):
    task = make_image_task(session, count=1)
    row = sandbox.state.tasks.rows[task]
    holder = row if hasattr(row, field) else sandbox.state.data.rows[row.data_id]
    setattr(holder, field, value)
    with pytest.raises(BadRequest, match="allowed: pictures and video"):
        find_work(session, Target("task", task))


class TestLogin:
    def test_a_password_is_sent_once(self, sandbox, session):
        session.request("GET", "/api/users/self")
        session.request("GET", "/api/users/self")
        assert sum(entry.path == "/api/auth/login" for entry in sandbox.requests) == 1

    def test_a_wrong_password_is_told(self, sandbox):
        refused = pytest.raises(ServerRefused, match="Unable to log in")
        with open_session(ServerSettings(host=sandbox.url, user="bot", password="wrong")) as session, refused as caught:
            session.request("GET", "/api/users/self")
        assert "wrong" not in str(caught.value)

    def test_a_personal_access_token(self, sandbox, session):
        token = session.request("POST", "/api/auth/access_tokens", body={"name": "t", "read_only": False}).json()[
            "value"
        ]
        with open_session(ServerSettings(host=sandbox.url, token=token)) as other:
            assert other.user == "bot"

    def test_a_bad_token_is_told_and_not_repeated(self, sandbox):
        refused = pytest.raises(ServerRefused, match="status 401")
        with open_session(ServerSettings(host=sandbox.url, token="s3cret-token")) as session, refused as caught:
            session.request("GET", "/api/users/self")
        assert "s3cret" not in str(caught.value)
        assert sum(entry.path == "/api/users/self" for entry in sandbox.requests) == 1

    def test_a_login_that_expires_is_renewed_once(self, sandbox, session):
        session.request("GET", "/api/users/self")
        sandbox.faults.add(path="/api/users/self", status=401, count=1)
        assert session.request("GET", "/api/users/self").json()["username"] == "bot"
        assert sum(entry.path == "/api/auth/login" for entry in sandbox.requests) == 2

    def test_nothing_said_is_a_clear_error(self, sandbox):
        with open_session(ServerSettings(host=sandbox.url)) as session, pytest.raises(ConfigError, match="--auth USER"):
            session.request("GET", "/api/users/self")

    def test_a_profile_of_cvat_cli(self, sandbox, session):
        from cvat_sdk.core.auth import get_auth_store_path

        token = session.request("POST", "/api/auth/access_tokens", body={"name": "t", "read_only": False}).json()[
            "value"
        ]
        store = get_auth_store_path()
        store.parent.mkdir(parents=True, mode=0o700)
        entry = {"server": sandbox.url, "token": token, "created_date": "2026-01-01T00:00:00Z"}
        store.write_text(json.dumps({"version": 1, "profiles": {"work": entry}, "default_profile": "work"}))
        os.chmod(store, 0o600)
        for settings in (ServerSettings(profile="work"), ServerSettings()):
            with open_session(settings) as other:
                assert (other.url, other.user) == (sandbox.url, "bot")
        with pytest.raises(ConfigError, match="there is none of that name"):
            open_session(ServerSettings(profile="home"))


class TestWork:
    def test_honeypots_are_left_out_unless_asked_for(self, session):
        validation = {
            "mode": "gt_pool", "frame_selection_method": "manual", "frames": ["0002.jpg", "0005.jpg"],
            "frames_per_job_count": 1,
        }  # fmt: skip
        task = make_image_task(session, count=10, segment_size=4, validation_params=validation, sorting_method="random")
        some = find_work(session, Target("task", task))[0]
        every = find_work(session, Target("task", task), honeypots=True)[0]
        assert all(len(a.frames) == len(b.frames) - 1 for a, b in zip(some.jobs, every.jobs, strict=True))

    def test_jobs_come_in_frame_order_and_share_no_frame(self, session):
        task = make_video_task(session, frames=20, segment_size=8, overlap=2)
        (work,) = find_work(session, Target("task", task))
        frames = [frame for job in work.jobs for frame in job.frames]
        assert frames == list(range(20))
        (alone,) = find_work(session, Target("job", work.jobs[1].id))
        assert alone.jobs[0].frames == tuple(range(6, 14)), "asked for by itself, a job has all its frames"

    def test_labels_carry_attributes_and_sublabels(self, session):
        attribute = {
            "name": "kind",
            "input_type": "select",
            "values": ["a", "b"],
            "default_value": "a",
            "mutable": True,
        }
        task = make_image_task(
            session, count=1, labels=[{"name": "car", "type": "rectangle", "attributes": [attribute]}]
        )
        (label,) = find_work(session, Target("task", task))[0].labels
        assert (label.name, label.type, label.attributes[0].values) == ("car", "rectangle", ("a", "b"))


class TestRetries:
    """The schedule, with a clock of our own."""

    @pytest.fixture
    def waiting(self, sandbox):
        waits = []
        settings = ServerSettings(host=sandbox.url, user="bot", password="secret", retries=4)
        with open_session(settings, sleep=waits.append, jitter=lambda: 1.0) as session:
            session.log_in()
            yield session, waits

    def test_back_off_doubles(self, sandbox, waiting):
        session, waits = waiting
        sandbox.faults.add(path="/api/users/self", status=500, count=3)
        session.request("GET", "/api/users/self")
        assert waits == pytest.approx([0.3, 0.6, 1.2])

    def test_retry_after_is_honoured(self, sandbox, waiting):
        session, waits = waiting
        sandbox.faults.add(path="/api/users/self", status=429, count=1, headers={"Retry-After": "7"})
        session.request("GET", "/api/users/self")
        assert waits == pytest.approx([7.3])

    def test_it_ends(self, sandbox, waiting):
        session, waits = waiting
        sandbox.faults.add(path="/api/users/self", status=502, count=100)
        with pytest.raises(ServerUnavailable, match=r"the proxy cannot reach CVAT \(5 tries\)"):
            session.request("GET", "/api/users/self")
        assert len(waits) == 4

    def test_what_may_not_be_repeated_is_not(self, sandbox, waiting):
        session, waits = waiting
        sandbox.faults.add(path="/api/projects", cut=True, when="after", count=1)
        with pytest.raises(ServerUnavailable) as caught:
            session.request("POST", "/api/projects", body={"name": "once", "labels": []})
        assert caught.value.maybe_done
        assert waits == []
        assert session.request("GET", "/api/projects").json()["count"] == 1

    def test_a_refusal_is_not_repeated(self, sandbox, waiting):
        session, waits = waiting
        with pytest.raises(ServerRefused):
            session.request("GET", "/api/tasks/999")
        assert waits == []

    def test_an_answer_that_breaks_off_is_asked_for_again(self, sandbox, waiting):
        session, waits = waiting
        sandbox.faults.add(path="/api/users/self", cut=True, after_bytes=20, when="after", count=1)
        assert session.request("GET", "/api/users/self").json()["username"] == "bot"
        assert len(waits) == 1

    def test_every_call_has_a_time_out(self, sandbox, waiting):
        session, _ = waiting
        sandbox.faults.add(path="/api/users/self", delay=5.0, count=10)
        with pytest.raises(ServerUnavailable, match="no answer in time"):
            session.request("GET", "/api/users/self", timeout=0.05)
