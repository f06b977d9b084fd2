"""The records that the sandbox keeps: dataclasses whose fields are JSON values, in CVAT's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

JSON = dict[str, Any]


def now() -> str:
    """The time as CVAT writes it."""
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    """A moment as CVAT writes it: UTC, microseconds, Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class User:
    """A person or a bot with a password."""

    id: int
    username: str
    password: str  # salt and scrypt hash, see accounts.py
    email: str
    is_superuser: bool = False
    first_name: str = ""
    last_name: str = ""
    date_joined: str = field(default_factory=now)
    last_login: str | None = None


@dataclass
class Login:
    """A login: the API key ("token") of a user, or a browser session with its CSRF token."""

    id: int
    user_id: int
    kind: str
    key: str
    csrf: str = ""


@dataclass
class AccessToken:
    """A personal access token; only the hash of its value is kept."""

    id: int
    user_id: int
    name: str
    digest: str
    read_only: bool = False
    created_date: str = field(default_factory=now)
    updated_date: str = field(default_factory=now)
    expiry_date: str | None = None
    last_used_date: str | None = None


@dataclass
class Organization:
    """An organization; its members are memberships."""

    id: int
    slug: str
    name: str
    owner_id: int
    description: str = ""
    contact: JSON = field(default_factory=dict)
    created_date: str = field(default_factory=now)
    updated_date: str = field(default_factory=now)


@dataclass
class Membership:
    """A user's role in an organization: worker, supervisor, maintainer or owner."""

    id: int
    organization_id: int
    user_id: int
    role: str
    key: str = ""  # the invitation's
    inviter_id: int | None = None
    created_date: str = field(default_factory=now)


@dataclass
class Project:
    """A project: labels that its tasks share."""

    id: int
    name: str
    owner_id: int
    assignee_id: int | None = None
    organization_id: int | None = None
    bug_tracker: str = ""
    created_date: str = field(default_factory=now)
    updated_date: str = field(default_factory=now)
    assignee_updated_date: str | None = None


@dataclass
class Task:
    """A task. `data_id` is None until it has been made of files; until then mode and the like are empty."""

    id: int
    name: str
    owner_id: int
    project_id: int | None = None
    assignee_id: int | None = None
    organization_id: int | None = None
    bug_tracker: str = ""
    subset: str = ""
    segment_size: int = 0
    overlap: int | None = None
    data_id: int | None = None
    dimension: str = ""
    mode: str = ""
    media_type: str = ""
    validation_mode: str | None = None
    created_date: str = field(default_factory=now)
    updated_date: str = field(default_factory=now)
    assignee_updated_date: str | None = None


@dataclass
class Data:
    """The media of a task.

    `frames` has an entry for each picture (a video has one): name, width, height, file (in the data's
    folder), and rotated: whether EXIF says that the file's pixels have to be turned.
    """

    id: int
    size: int = 0
    kind: str = "images"
    frames: list[JSON] = field(default_factory=list)
    chunk_size: int = 0
    image_quality: int = 70
    start_frame: int = 0
    stop_frame: int = 0
    frame_filter: str = ""
    original_chunk_type: str = "imageset"
    compressed_chunk_type: str = "imageset"
    deleted_frames: list[int] = field(default_factory=list)
    validation: JSON | None = None
    updated_date: str = field(default_factory=now)

    @property
    def step(self) -> int:
        """Every how many source frames a frame was taken."""
        return int(self.frame_filter.partition("=")[2] or 1)


@dataclass
class Job:
    """A job; bounds are task-relative and inclusive. `frames` are those of a ground truth, else None."""

    id: int
    task_id: int
    start_frame: int
    stop_frame: int
    frames: list[int] | None = None
    type: str = "annotation"
    state: str = "new"
    stage: str = "annotation"
    assignee_id: int | None = None
    created_date: str = field(default_factory=now)
    updated_date: str = field(default_factory=now)
    assignee_updated_date: str | None = None

    @property
    def numbers(self) -> list[int]:
        """The job's frame numbers, ascending."""
        return self.frames if self.frames is not None else list(range(self.start_frame, self.stop_frame + 1))

    @property
    def status(self) -> str:
        """The old word for stage and state together."""
        if self.stage == "acceptance":
            return "completed" if self.state == "completed" else "validation"
        return self.stage


@dataclass
class Label:
    """A label of a task or project, or (with a parent) a sublabel of a skeleton."""

    id: int
    name: str
    type: str = "any"
    color: str = ""
    task_id: int | None = None
    project_id: int | None = None
    parent_id: int | None = None
    attributes: list[JSON] = field(default_factory=list)
    svg: str = ""


@dataclass
class Annotation:
    """A tag, shape or track of a job; `body` is what the API says of it, id included."""

    id: int
    job_id: int
    body: JSON


@dataclass
class Request:
    """A background request of /api/requests; only the making of tasks runs in the background here."""

    id: int
    rq_id: str
    task_id: int
    owner_id: int
    params: JSON
    status: str = "queued"
    message: str = ""
    created_date: str = field(default_factory=now)
    started_date: str | None = None
    finished_date: str | None = None


@dataclass
class Upload:
    """A file that arrives in pieces by the TUS protocol."""

    id: int
    task_id: int
    key: str
    filename: str
    length: int


@dataclass
class LambdaRequest:
    """An automatic annotation request of /api/lambda/requests."""

    id: int
    rq_id: str
    task_id: int
    owner_id: int
    function: JSON
    params: JSON
    status: str = "queued"
    progress: int | None = None
    enqueued: str = field(default_factory=now)
    started: str | None = None
    ended: str | None = None
    exc_info: str | None = None
    cancelled: bool = False
    queued_id: int | None = None  # the agent queue's request that does the work, if one does


@dataclass
class Function:
    """A native function: served by agents through its queue."""

    id: int
    owner_id: int
    organization_id: int | None
    body: JSON


@dataclass
class QueuedRequest:
    """An annotation request in a function's queue."""

    id: int
    ar_id: str
    function_id: int
    category: str
    params: JSON
    status: str = "queued"  # running, completed, failed
    agent_id: str | None = None
    beat: float = 0.0
    progress: float = 0.0
    result: JSON | None = None
    exc_info: str | None = None


@dataclass
class Webhook:
    """A webhook of a project or an organization."""

    id: int
    owner_id: int
    target_url: str
    type: str
    events: list[str]
    project_id: int | None = None
    organization_id: int | None = None
    description: str = ""
    content_type: str = "application/json"
    is_active: bool = True
    enable_ssl: bool = True
    secret: str = ""
    created_date: str = field(default_factory=now)
    updated_date: str = field(default_factory=now)


@dataclass
class Delivery:
    """One delivery of a webhook."""

    id: int
    webhook_id: int
    event: str
    request: JSON
    status_code: int | None = None
    redelivery: bool = False
    request_duration: int = 0
    changed_fields: str = ""
    response: str = ""
    created_date: str = field(default_factory=now)
    updated_date: str = field(default_factory=now)


@dataclass
class Issue:
    """A review issue at a place in a frame of a job."""

    id: int
    job_id: int
    frame: int
    position: list[float]
    owner_id: int
    assignee_id: int | None = None
    resolved: bool = False
    created_date: str = field(default_factory=now)
    updated_date: str = field(default_factory=now)


@dataclass
class Comment:
    """A comment in an issue."""

    id: int
    issue_id: int
    owner_id: int
    message: str
    created_date: str = field(default_factory=now)
    updated_date: str = field(default_factory=now)
