"""Rules of service.toml: which jobs they are for, what they ask of the server's list, and what their runs are to do."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from agent.cvat.jobs import Filter, Job
from agent.doors.watch.rule_options import read_options, run_options
from agent.doors.watch.webhooks import Event
from agent.options import Options
from agent.settings.mistakes import Mistakes
from agent.settings.tables import Config, RuleSettings

NOT_IN_KEY = ("device", "batch_size", "max_bad_frames", "replace", "rule")
"""Options that change how a job is annotated, but not with what."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that was checked, with all that its runs need to know."""

    settings: RuleSettings
    options: Options

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def model(self) -> str:
        """The id of its model."""
        return self.settings.model

    @property
    def held_state(self) -> str | None:
        """The state that says to others that we are at it."""
        return self.settings.state_when_started

    def key(self, version: str) -> str:
        """Names the work that a job is to get once: the model, its version, and what is asked of it."""
        options = {name: value for name, value in self.options.as_json().items() if name not in NOT_IN_KEY}
        said = json.dumps([version, options], sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    # --------------------------------------------------------------- listing

    def conditions(self, now: datetime) -> Iterator[Filter]:
        """What the server can filter by. It may give more than fits, never less."""
        wish = self.settings
        yield _one_of("state", wish.states)
        yield _one_of("stage", wish.stages)
        if not self.options.ground_truth:
            yield {"==": [{"var": "type"}, "annotation"]}
        if wish.assignee is not None:
            yield {"==": [{"var": "assignee"}, wish.assignee]}
        if wish.projects:
            yield _one_of("project_id", wish.projects)
        if wish.tasks:
            yield _one_of("task_id", wish.tasks)
        if literal := _longest_literal(wish.task_name):
            yield {"in": [literal, {"var": "task_name"}]}
        if (since := self._since(now)) is not None:
            yield {">=": [{"var": "updated_date"}, since]}

    def _since(self, now: datetime) -> str | None:
        hours = self.settings.updated_within_hours
        if hours is None:
            return None
        return (now - timedelta(hours=hours)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    # -------------------------------------------------------------- deciding

    def unfit(self, job: Job, *, failed: bool = False) -> str | None:
        """Why the job is none of the rule's, None if it is one (but for its labels and age).

        `failed`: it may have the state that we gave it when it failed.
        """
        if job.state not in self._looked_for(failed):
            return f"its state is {job.state!r}"
        return self._stranger(job)

    def is_too_old(self, job: Job, now: datetime) -> bool:
        """Whether nothing has changed about the job for longer than the rule looks back."""
        since = self._since(now)
        return since is not None and job.updated < since

    def taken_back(self, job: Job | None, *, failed: bool = False) -> str | None:
        """Why a job that we are working on is not ours any more, None if it still is; `failed` as in `unfit`."""
        if job is None:
            return "the job is gone, or this user may not see it any more"
        allowed = self._looked_for(failed) if self.held_state is None else (self.held_state,)
        if job.state not in allowed:
            return f"somebody has set the job's state to {job.state!r}"
        return self._stranger(job)

    def _looked_for(self, failed: bool) -> tuple[str, ...]:
        """States of jobs that are to be had. Nobody can tell who has set the one that says that it failed."""
        mark = self.settings.state_when_failed
        if not failed or mark is None or mark == self.held_state:
            return self.settings.states
        return (*self.settings.states, mark)

    def _stranger(self, job: Job) -> str | None:
        """Why the job can be none of the rule's, whatever its state."""
        wish = self.settings
        if wish.assignee is not None and job.assignee != wish.assignee:
            return f"it is assigned to {job.assignee or 'nobody'}, not to {wish.assignee}"
        if job.stage not in wish.stages:
            return f"its stage is {job.stage!r}"
        if job.type != "annotation" and not (job.type == "ground_truth" and self.options.ground_truth):
            return f"it is a job of the type {job.type!r}"
        if wish.projects and job.project_id not in wish.projects:
            return f"its project is {job.project_id}"
        if wish.tasks and job.task_id not in wish.tasks:
            return f"its task is {job.task_id}"
        if job.first_frame is None or job.media not in (("image", "video") if wish.media is None else (wish.media,)):
            return f"it holds {job.media or 'no'} data"
        if wish.task_name is not None and job.task_name is None:
            return "its task's name is hidden from this user"
        if wish.task_name is not None and not fnmatchcase(job.task_name or "", wish.task_name):
            return f"its task's name is {job.task_name!r}"
        return None

    def wants_labels(self, names: Iterable[str]) -> bool:
        """Whether a task with these labels is one of the rule's."""
        return self.settings.label is None or any(fnmatchcase(name, self.settings.label) for name in names)

    def concerns(self, event: Event) -> bool:
        """Whether an event can be about one of the rule's jobs."""
        wish = self.settings
        other_project = bool(wish.projects) and event.project is not None and event.project not in wish.projects
        other_task = bool(wish.tasks) and event.task is not None and event.task not in wish.tasks
        return not (other_project or other_task)


def read_rules(config: Config) -> tuple[Rule, ...]:
    """The rules of service.toml; ConfigError names the rule and the key for each that is wrong."""
    folder = config.file.resolve().parent
    rules = []
    with Mistakes() as mistakes:
        for settings in config.rules:
            place = f"{config.file}: rules {settings.name!r}"
            for text in _wrong(settings):
                mistakes.add(f"{place}: {text}")
            with mistakes.kept():
                wish = read_options(settings.options, f"{place}: options", folder)
                rules.append(Rule(settings, run_options(settings, wish, config)))
    return tuple(rules)


def _wrong(settings: RuleSettings) -> Iterator[str]:
    for key in ("stages", "states"):
        if not getattr(settings, key):
            yield f"{key}: got none, allowed: one or more"
    if settings.state_when_started in settings.states:
        yield (
            f"state_when_started: got {settings.state_when_started!r}, allowed: a state that is none of"
            f" `states` ({', '.join(settings.states)}), so that others see that the job is taken"
        )
    if settings.quiet_hours is not None and settings.quiet_hours[0] == settings.quiet_hours[1]:
        yield f"quiet_hours: got {list(settings.quiet_hours)}, allowed: two different times"


def _one_of(name: str, values: Iterable[Any]) -> Filter:
    return {"in": [{"var": name}, list(values)]}


def _longest_literal(pattern: str | None) -> str:
    """The longest part of a shell's pattern that stands for itself; names that fit have it in them."""
    plain = re.sub(r"\[[^\]]*\]|[*?\[\]]", "\0", pattern or "")
    return max(plain.split("\0"), key=len)
