"""Everything that the sandbox knows: tables of records, the media folder, the workers.

Tests may make odd things with it. Hold the lock and save, and the change is seen by the next request:

    with sandbox.state.store.change():
        task = sandbox.state.tasks.rows[task_id]
        task.dimension = "3d"          # or: task.media_type = "audio"
        sandbox.state.tasks.save(task)
"""

from __future__ import annotations

import fcntl
import logging
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

from agent.errors import ConfigError
from agent.sandbox import records as r
from agent.sandbox.annotation_index import AnnotationIndex
from agent.sandbox.records import now
from agent.sandbox.store import Store

VERSION = "2.73.0"
log = logging.getLogger(__name__)


class State:
    """The state of one sandbox.

    `lease_seconds`: an acquired annotation request whose agent is silent for so long may be acquired again.
    `nuclio_timeout`: how long a call of a Nuclio function may take. `annotation_batch`: automatic annotation
    submits at every frame number that this divides. Times are seconds.
    """

    lease_seconds = 120.0
    interactive_timeout = 60.0
    nuclio_timeout = 120.0
    annotation_batch = 100

    def __init__(self, data: Path | None, nuclio: str | None, *, invoke: str = "dashboard") -> None:
        self._temporary = data is None
        self.root = Path(tempfile.mkdtemp(prefix="cvat-sandbox-")) if data is None else data
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._locked()
        self.nuclio = nuclio.rstrip("/") if nuclio else None
        self.invoke = invoke
        self.url = ""
        self.closing = threading.Event()
        self.store = Store(None if data is None else self.root / "state.sqlite3")
        self._tables()
        # One worker makes tasks, as many again annotate: the server's import and annotation workers.
        self.workers = {
            name: ThreadPoolExecutor(2, thread_name_prefix=f"sandbox-{name}")
            for name in ("create", "annotate", "webhooks")
        }
        self.doorbell = threading.Condition()  # rung whenever an annotation request is queued or ends
        self.rings = 0
        self.secret = self._secret()

    def _locked(self) -> TextIO:
        """Keeps the folder for this process; two that write to one would lose what they acknowledge."""
        lock = (self.root / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise ConfigError(f"--data: another sandbox uses {self.root}") from error
        return lock

    def _secret(self) -> bytes:
        """What trackers' states are signed with; kept, as clients keep the states."""
        path = self.root / "secret"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_bytes(secrets.token_bytes(32))
        return path.read_bytes()

    def _tables(self) -> None:
        table = self.store.table
        self.users = table("users", r.User)
        self.logins = table("logins", r.Login)
        self.access_tokens = table("access_tokens", r.AccessToken)
        self.organizations = table("organizations", r.Organization)
        self.memberships = table("memberships", r.Membership)
        self.projects = table("projects", r.Project)
        self.tasks = table("tasks", r.Task)
        self.data = table("data", r.Data)
        self.jobs = table("jobs", r.Job)
        self.labels = table("labels", r.Label)
        self.requests = table("requests", r.Request)
        self.uploads = table("uploads", r.Upload)
        self.lambda_requests = table("lambda_requests", r.LambdaRequest)
        self.functions = table("functions", r.Function)
        self.queued = table("queued", r.QueuedRequest)
        self.webhooks = table("webhooks", r.Webhook)
        self.deliveries = table("deliveries", r.Delivery)
        self.issues = table("issues", r.Issue)
        self.comments = table("comments", r.Comment)
        self.annotations = AnnotationIndex(self.store)

    def media(self, data_id: int) -> Path:
        """The folder of a task's pictures or video."""
        return self.root / "data" / str(data_id)

    def cache(self, data_id: int) -> Path:
        """The folder of its chunks."""
        return self.root / "cache" / str(data_id)

    def incoming(self, task_id: int) -> Path:
        """The folder of the files that a task is given."""
        return self.root / "incoming" / str(task_id)

    def jobs_of(self, task_id: int) -> list[r.Job]:
        """A task's jobs, in frame order, ground truth last."""
        return sorted(self.jobs.where(task_id=task_id), key=lambda job: (job.type != "annotation", job.start_frame))

    def labels_of(self, task: r.Task) -> list[r.Label]:
        """The labels of a task (those of its project, if it has one), without sublabels."""
        if task.project_id is not None:
            return self.labels.where(project_id=task.project_id, parent_id=None)
        return self.labels.where(task_id=task.id, parent_id=None)

    def touch(self, *rows: r.Job | r.Task | r.Project) -> None:
        """Sets the update date of jobs, tasks and projects, and saves them."""
        for row in rows:
            row.updated_date = now()
            if isinstance(row, r.Job):
                self.jobs.save(row)
            elif isinstance(row, r.Task):
                self.tasks.save(row)
            else:
                self.projects.save(row)

    def submit(self, worker: str, work: Callable[..., object], *args: object) -> None:
        """Runs something in the background."""

        def run() -> None:
            try:
                work(*args)
            except Exception:
                log.exception("sandbox: background work failed")

        if not self.closing.is_set():
            self.workers[worker].submit(run)

    def ring(self) -> None:
        """Wakes whoever waits for the agent queue."""
        with self.doorbell:
            self.rings += 1
            self.doorbell.notify_all()

    def close(self) -> None:
        """Stops the workers, closes the journal, removes a temporary folder."""
        self.closing.set()
        self.ring()
        for worker in self.workers.values():
            worker.shutdown(wait=True, cancel_futures=True)
        self.store.close()
        self._lock.close()
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)
