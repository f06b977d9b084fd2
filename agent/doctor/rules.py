"""The rules of service.toml: whether they make sense, what they name exists, and their models' labels have a place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

from agent.cvat.work import pages, task_labels
from agent.doctor.account import LOGIN, SIGHT
from agent.doctor.configuration import FILE
from agent.doctor.findings import Check, Finding, failed, ok, skipped, warning
from agent.doctor.patient import Patient
from agent.doors.watch.rules import Rule, read_rules
from agent.errors import LabelMismatch, ServerRefused
from agent.labels.advice import IN_MENU, IN_RULE
from agent.labels.maps import load_label_map
from agent.labels.matching import match_labels
from agent.settings.tables import Config, ModelSettings, RuleSettings

OPTIONS = "rules.options"
TASKS = 5
"""So many tasks are looked at for their labels."""


def checks(config: Config) -> list[Check]:
    found = [Check(OPTIONS, _options, needs=(FILE,), mend="put right the rule's table")] if config.rules else []
    for rule in config.rules:
        found += [
            Check(f"rules.places {rule.name}", partial(_places, rule=rule), needs=(SIGHT,)),
            Check(f"rules.assignee {rule.name}", partial(_assignee, rule=rule), needs=(LOGIN,)),
            Check(f"rules.labels {rule.name}", partial(_rule_labels, rule=rule), needs=(SIGHT, OPTIONS)),
        ]
    asked_by_people = [m for m in config.models if m.doors and m.id not in {rule.model for rule in config.rules}]
    found += [Check(f"labels {m.id}", partial(_model_labels, model=m), needs=(SIGHT,)) for m in asked_by_people]
    return found


def _options(patient: Patient) -> Finding:
    rules = read_rules(patient.config)
    off = [rule.name for rule in rules if not rule.settings.enabled]
    return ok("what they ask for makes sense" + (f"; switched off: {', '.join(off)}" if off else ""))


def _places(patient: Patient, rule: RuleSettings) -> Finding:
    """The projects and tasks that it names, by way of their jobs: an assignee may see nothing else of them."""
    missing = []
    for kind, numbers in (("project", rule.projects), ("task", rule.tasks)):
        for number in numbers:
            if not _sees(patient, kind, number):
                missing.append(f"{kind} {number}")
    if missing:
        mend = f"put right the number or the organization, or let {patient.username} see it"
        return failed(f"{patient.username} sees no {', no '.join(missing)}", mend)
    return ok("what it names is there" if rule.projects or rule.tasks else "it names no project and no task")


def _sees(patient: Patient, kind: str, number: int) -> bool:
    try:
        patient.session.request("GET", f"/api/{kind}s/{number}")
    except ServerRefused as error:
        if error.status not in (403, 404):
            raise
        return patient.count("/api/jobs", **{f"{kind}_id": number}) > 0
    return True


def _assignee(patient: Patient, rule: RuleSettings) -> Finding:
    if rule.assignee is None:
        return ok("it is for everybody's jobs")
    if rule.assignee == patient.username:
        return ok(f"{rule.assignee} is us")
    known = {str(row["username"]) for row in pages(patient.session, "/api/users", {"search": rule.assignee})}
    if rule.assignee in known:
        return ok(f"there is a user {rule.assignee}")
    mend = (
        f"is it spelled as in CVAT? Ordinary users see only themselves; to hand jobs to {patient.username} is simplest"
    )
    return warning(f"{patient.username} sees no user {rule.assignee!r}, and cannot tell whether there is one", mend)


# ----------------------------------------------------------------------- labels


def _rule_labels(patient: Patient, rule: RuleSettings) -> Finding:
    model = patient.config.model(rule.model)
    known = next(one for one in read_rules(patient.config) if one.name == rule.name)
    query: list[dict[str, Any]] = [{"project_id": number} for number in rule.projects]
    query += [{"task_id": number} for number in rule.tasks]
    return _labels(patient, model, query or [{}], known)


def _model_labels(patient: Patient, model: ModelSettings) -> Finding:
    return _labels(patient, model, [{}], None)


def _labels(patient: Patient, model: ModelSettings, queries: list[dict[str, Any]], rule: Rule | None) -> Finding:
    """Whether the model's labels have a place in the tasks that were changed last."""
    description = patient.describe(model)
    if description is None:
        return skipped("never loaded here; --load tells the labels")
    if description.kind != "detector":
        if rule is not None:
            mend = "a rule wants a detector, or a model that is built of some"
            return failed(f"{model.id} is a model of the kind {description.kind}", mend)
        return skipped(f"a model of the kind {description.kind} has no labels")
    if description.finds is not None and rule is None:
        return skipped("it finds the labels of each task, but only for rules and `annotate`")
    name = rule.options.label_map if rule else str(model.label_map) if model.label_map else None
    label_map = load_label_map(name) if name else None
    mapping = rule.options.mapping if rule else None
    good, bad, seen = [], [], 0
    for task, job in itertools.islice(_tasks(patient, queries), TASKS):
        seen += 1
        try:
            theirs, wording = task_labels(patient.session, job), IN_RULE if rule else IN_MENU
            ours = description.labels_for(label.name for label in theirs)
            found = match_labels(ours, theirs, request=mapping, label_map=label_map, wording=wording)
            good.append(f"task {task}: {len(found.targets)} of {len(ours)}")
        except LabelMismatch as error:
            bad.append((task, str(error).removeprefix("labels: ")))
    if not seen:
        return skipped("this user sees no task to hold the labels against")
    if bad:
        say = failed if rule is not None and not good else warning
        shown = patient.command(f"labels match --task {bad[0][0]} --model {model.id}")
        mend = f"{shown} shows it label by label"
        return say(f"{len(bad)} of {seen} tasks have no place for its labels; task {bad[0][0]}: {bad[0][1]}", mend)
    return ok(f"labels with a place: {'; '.join(good)}")


def _tasks(patient: Patient, queries: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """Tasks, and a job of each."""
    seen = set[int]()
    for query in queries:
        for row in pages(patient.session, "/api/jobs", {**query, "sort": "-updated_date"}):
            if row["task_id"] not in seen and row.get("start_frame") is not None:
                seen.add(row["task_id"])
                yield row["task_id"], row["id"]
