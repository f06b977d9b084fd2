"""The tables of service.toml, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from agent.settings.server import ServerSettings

Port = Annotated[int, Field(ge=1, le=65535)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Minutes = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
_ID, _HOSTNAME, _CLOCK = r"^[A-Za-z0-9_.-]{1,64}$", r"^[A-Za-z0-9_.-]+$", r"^([01]\d|2[0-3]):[0-5]\d$"
FORMS = {
    _ID: "1 to 64 letters (a to z), digits, '_', '.' and '-', like 'night-2'",
    _HOSTNAME: "a name alone: letters (a to z), digits, '_', '.' and '-', like 'sidecar.example'",
    _CLOCK: "a time of the day from 00:00 to 23:59, like '22:00' or '06:30'",
}
"""What the patterns of texts mean, for a person."""
Id = Annotated[str, Field(pattern=_ID)]
Hostname = Annotated[str, Field(pattern=_HOSTNAME)]
Clock = Annotated[str, Field(pattern=_CLOCK)]


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One of `[[models]]`: a model that the service offers."""

    id: Id
    """Names it in rules, in the gateway's function ids, in metrics and on the status page."""
    model: str
    """The model reference."""
    name: str | None = None
    """As CVAT's menus show it; the id where it is not said."""
    description: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the adapter."""
    device: str | None = None
    batch_size: Count | None = None
    threshold: Share | None = None
    """For requests that bring none."""
    label_map: Path | None = None
    load: Literal["start", "use"] = "start"
    idle_minutes: Minutes | None = None
    """Unloaded after so long without work; 0 means never, None what [engine] says."""
    doors: tuple[Literal["queue", "gateway"], ...] = ("queue", "gateway")
    """Where people may find it; rules name models themselves."""
    function_id: Count | None = None
    """Of the native function that stands for it in CVAT; `functions register` remembers it without this."""

    @property
    def title(self) -> str:
        return self.name or self.id


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`[engine]`: where and how models run."""

    device: str = "auto"
    memory_mb: Positive | None = None
    """What loaded models may take together; the one unused for longest goes first. None: no limit."""
    idle_minutes: Minutes = 0.0
    embeddings_mb: Positive = 512.0
    """What interactors may keep of the frames that people clicked on."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """`[service]`: the process and its status page."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8090
    secret_env: str | None = None
    """Variable with the password of the status page and its buttons; needed where `host` is not loopback."""
    allowed_hosts: tuple[Hostname, ...] = ()
    """Names (besides localhost and addresses) under which a browser may reach the status page."""
    state_dir: Path | None = None
    """Ledger, descriptions of models, tracking states. None: the folder that the commands use."""
    grace_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    """How long a stop waits for what is held."""
    keep_runs_days: Annotated[float, Field(ge=0, le=36500)] = 365.0
    """Runs that ended longer ago are forgotten, with their backups; 0: never."""
    batch_lanes: Count = 2
    interactive_lanes: Count = 8
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """`[queue]`: requests of CVAT Online and Enterprise."""

    poll_seconds: Positive = 60.0
    """How often we ask where the event stream is not there; with one, ten times as rarely."""
    heartbeat_seconds: Positive = 10.0
    frames_mb: Positive = 256.0
    """What is kept of the frames that people work on."""
    max_bad_frames: Annotated[int, Field(ge=0)] = 50


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """`[gateway]`: calls in Nuclio's dialect, from CVAT's own menus."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8070
    direct_ports: Port | None = None
    """The first port of `direct` mode: each model gets one, in the order of service.toml. None: `dashboard` only."""
    secret_env: str | None = None
    """Variable with a secret that callers must show, as `X-Sidecar-Secret` or as the first part of the path."""
    allow: tuple[str, ...] = ()
    """Addresses or networks that may call; empty: all that reach us."""
    score_attribute: str | None = "score"
    """Name of an attribute that carries the score in percent, where a label of the task has one; "": none."""
    prefetch: bool = True
    """Read the frames of a running request ahead; needs a login to CVAT."""
    prefetch_mb: Positive = 256.0
    max_body_mb: Positive = 64.0
    max_megapixels: Positive = 100.0
    memory_mb: Positive = 1024.0
    """What the bodies and decoded pictures of all calls together may hold."""
    timeout: Positive = 110.0
    """Seconds for one call; CVAT waits 120 and its proxy 60 for people."""
    concurrency: Count = 32


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """One of `[[rules]]`: work that is annotated by itself, and with which model. All conditions given must hold."""

    name: Id
    model: str
    """The id of one of the [[models]]."""
    projects: tuple[Annotated[int, Field(ge=1)], ...] = ()
    tasks: tuple[Annotated[int, Field(ge=1)], ...] = ()
    task_name: str | None = None
    """A pattern as the shell's: `night-*`."""
    label: str | None = None
    """A pattern; one of the task's labels must fit."""
    assignee: str | None = None
    """The job's; a bot user whom people hand jobs to, for example."""
    stages: tuple[Literal["annotation", "validation", "acceptance"], ...] = ("annotation",)
    states: tuple[Literal["new", "in progress", "rejected", "completed"], ...] = ("new",)
    media: Literal["image", "video"] | None = None
    updated_within_hours: Positive | None = None
    every_seconds: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 60.0
    quiet_hours: tuple[Clock, Clock] | None = None
    """No run begins between these times of the day, in the machine's time zone; ["22:00", "06:00"] is a night."""
    jobs_per_hour: Count | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """As of `annotate`: threshold, label_map, mapping, frames, replace, skip_overlapping, roi, …"""
    state_when_started: Literal["new", "in progress", "rejected", "completed"] | None = None
    state_when_done: Literal["new", "in progress", "rejected", "completed"] | None = None
    state_when_failed: Literal["new", "in progress", "rejected", "completed"] | None = None
    issue_on_failure: bool = False
    """Leave a comment issue on the job that says what went wrong."""
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """`[watch]`: the receiver of webhooks that wakes the rules at once."""

    webhook_secret_env: str | None = None
    """Variable with the webhook's secret; without it no webhook is received."""
    check_seconds: Positive = 1.0
    """How often a running job is looked at: whether somebody has taken it back. Before an upload it always is."""


@dataclass(frozen=True, slots=True)
class Config:
    """service.toml, read and checked."""

    file: Path
    server: ServerSettings
    models: tuple[ModelSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = ()
    engine: EngineSettings = field(default_factory=EngineSettings)
    service: ServiceSettings = field(default_factory=ServiceSettings)
    queue: QueueSettings | None = None
    """None where the table is not there: the door stays shut."""
    gateway: GatewaySettings | None = None
    watch: WatchSettings = field(default_factory=WatchSettings)

    def model(self, id_: str) -> ModelSettings:
        """The model of this id. KeyError where there is none."""
        return {model.id: model for model in self.models}[id_]
