"""One job for one rule: looked at again, claimed, begun or gone on with, and brought to an end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from agent.activity import Request
from agent.cvat.jobs import Job, find_job
from agent.doors.watch.attended import Attended, Watcher
from agent.doors.watch.claims import LATE, new_marker
from agent.doors.watch.endings import Endings
from agent.doors.watch.place import Place
from agent.doors.watch.rules import Rule
from agent.errors import BadRequest, ModelError, RequestCancelled, ServerRefused
from agent.ledger.ledger import Ledger, RunRecord
from agent.ledger.rules import PENDING, RuleJob
from agent.options import Target
from agent.plan import NoFramesChosen, Plan
from agent.pool.hosted import HostedModel
from agent.report import RunReport
from agent.runs.running import Surroundings, resume, start

log = logging.getLogger(__name__)

SOON = 30.0
"""Seconds after a failure before which not even a changed job is tried again."""


def is_due(row: RuleJob | None, job: Job, now: float) -> bool:
    """Whether a job that fits a rule is to be begun or gone on with, after what is remembered of it."""
    if row is None or row.status == "superseded":
        return True
    if row.status == "taking" and now < row.updated + LATE:
        # A second claim would take the state that the first one has sent, and that comes late, for somebody else's.
        return False
    changed = job.updated != row.job_updated
    if row.status == "cancelled":
        return changed
    if row.status == "failed" and changed and now >= row.updated + SOON:
        return True
    return row.status in PENDING and now >= row.next_try


class Attendant:
    """Attends to a job, which its caller holds. What goes wrong with the job is remembered, and does not leave here."""

    def __init__(self, place: Place, rule: Rule, job: int) -> None:
        self.error: Exception | None = None
        """What has ended the run, if something has."""
        self._place, self._rule, self._job = place, rule, job
        self._memory = place.memory
        self._endings = Endings(place, rule)

    def attend(self, hosted: HostedModel) -> bool:
        """Does what is to be done now; whether there was something. ModelError for a model of another kind."""
        if hosted.loaded.kind != "detector":
            raise ModelError(f"{self._rule.model}: it is a model of the kind {hosted.loaded.kind}, allowed: detector")
        version = hosted.loaded.version
        key = self._rule.key(version)
        rows = self._memory.of_job(self._rule.name, self._job)
        row = rows.get(key)
        if row is not None and row.owed is not None:
            self._endings.pay(row, row.owed)
        job = find_job(self._place.session, self._job)
        self._place.reach.answered()
        earlier = self._record(row)
        if row is not None and row.status != "done" and earlier is not None and earlier.status in ("done", "undone"):
            self._settle(row, job, earlier)
            return True
        step = self._step(row, rows, job)
        if step is None or job is None:
            return False
        goes_on = earlier is not None and earlier.status in ("running", "interrupted", "failed")
        known = row if row is not None else self._inherited(rows, key, version)
        return self._begin(hosted, self._new_row(known, goes_on, step), row, job, step)

    # -------------------------------------------------------------- deciding

    def _step(self, row: RuleJob | None, rows: Mapping[str, RuleJob], job: Job | None) -> str | None:
        """`claim` a job that is to be had, `go` on with one that is ours already; None: leave it."""
        ours = [one for one in rows.values() if one.status in PENDING]
        failed = any(map(self._may_be_marked, ours))
        if job is not None and (reason := self._rule.unfit(job, failed=failed)) is None:
            too_old = row is None and self._rule.is_too_old(job, self._place.now())
            if too_old or not is_due(row, job, self._place.timestamp()):
                return None
            return "go" if self._rule.held_state is None else "claim"
        reason = self._rule.taken_back(job, failed=failed)
        if reason is None and ours and job is not None:
            reason = next((why for one in ours if (why := self._not_claimed(one, job))), None)
            if reason is None:
                return "go" if any(self._place.timestamp() >= one.next_try for one in ours) else None
        for one in ours:
            self._endings.give_up(one, job, reason or "it is none of ours")
        return None

    def _may_be_marked(self, row: RuleJob) -> bool:
        """Whether the job may have the state that we gave it when it failed: until the next try has claimed it."""
        held = self._rule.held_state is not None and row.status in ("running", "interrupted")
        return row.tries > 0 and not held

    def _inherited(self, rows: Mapping[str, RuleJob], key: str, version: str) -> RuleJob:
        """A first row of this version; what people were told of another one's failure is told them by this one too."""
        row = RuleJob(self._rule.name, self._job, key, version, "running")
        failed = next((one for one in rows.values() if one.status in PENDING and one.tries), None)
        return row if failed is None else replace(row, tries=failed.tries, issue=failed.issue)

    def _not_claimed(self, row: RuleJob, job: Job) -> str | None:
        """Why a job that has the state of our claim is another's after all: we broke off in the middle of claiming."""
        if row.status not in ("claiming", "taking") or row.marker is None:
            return None
        if row.status == "taking" and self._place.claims.is_ours(job, row.marker):
            # In this order: without the note, nothing but our memory says that the job is ours.
            self._memory.change(row, status="running")
            self._place.claims.clear(job.id, row.marker)
            return None
        return "another sidecar has claimed it; if none has, set its state back to have it annotated"

    def _record(self, row: RuleJob | None) -> RunRecord | None:
        """The ledger's record of the row's run."""
        if row is None or row.run is None or row.status == "superseded":
            return None
        with Ledger(self._place.shared.ledger) as ledger:
            try:
                return ledger.run(row.run)
            except BadRequest:
                return None

    def _settle(self, row: RuleJob, job: Job | None, record: RunRecord) -> None:
        """Takes note of what became of a run without us: it was gone on with, or taken back, by hand."""
        if record.status == "done":
            self._endings.done(row)
        else:
            # That changed the job, but is no reason to begin anew; whatever changes it after this is.
            self._memory.change(row, run=None)
            self._endings.give_up(row, job, f"run {record.id} was undone")

    def _new_row(self, old: RuleJob, goes_on: bool, step: str) -> RuleJob:
        now = self._place.timestamp()
        return replace(
            old,
            status="claiming" if step == "claim" else "running",
            run=old.run if goes_on else None,
            begun=old.begun if goes_on else now,
            tries=0 if old.status == "superseded" else old.tries,
            updated=now,
            marker=new_marker() if step == "claim" else None,
        )

    # --------------------------------------------------------------- working

    def _begin(self, hosted: HostedModel, row: RuleJob, before: RuleJob | None, job: Job, step: str) -> bool:
        limit = self._rule.settings.jobs_per_hour if row.run is None else None
        if before is not None and before.marker is not None:
            self._place.claims.clear(job.id, before.marker)
        if not self._memory.begin(row, limit=limit):
            return False
        if step == "claim" and not self._claim(row, before, job):
            return False
        what = f"job {job.id} by rule {self._rule.name}"
        try:
            with self._place.shared.activity.begin("watch", "rule", self._rule.model, what) as request:
                self._work(hosted, row, request)
        except Exception as error:  # it is remembered, and activity has told it
            self.error = error
        return True

    def _claim(self, row: RuleJob, before: RuleJob | None, job: Job) -> bool:
        state = self._rule.held_state
        if state is None or row.marker is None:
            return True
        try:
            ours = self._place.claims.take(
                job,
                row.marker,
                state,
                lambda job: self._rule.unfit(job, failed=row.tries > 0),
                lambda step: self._memory.change(row, status=step),
            )
        except ServerRefused as error:
            self._place.claims.clear(job.id, row.marker)
            self._endings.failed(row, error)
            return False
        except RequestCancelled:
            self._restore(row, before)
            raise
        if ours:
            self._memory.change(row, marker=None)
        else:
            self._restore(row, before)
        return ours

    def _restore(self, row: RuleJob, before: RuleJob | None) -> None:
        if before is None:
            self._memory.forget(row)
        else:
            self._memory.write(before)

    def _work(self, hosted: HostedModel, row: RuleJob, request: Request) -> None:
        place = self._place
        attended = Attended(self._rule, row.job, request, place.shared.stop, failed=row.tries > 0)
        watcher = Watcher(attended, place.session, self._check_seconds)

        def started(run: str | None, plans: Sequence[Plan]) -> None:
            if run is not None:
                # Before the first upload: whatever is sent belongs to a run that we would find again.
                self._memory.change(row, run=run)
                request.belongs_to(run)
                self._tell_begun(row, run, plans)
            for warning in (warning for plan in plans for warning in plan.warnings):
                log.info("job %d: %s", row.job, warning.removeprefix(f"job {row.job}: "))

        around = Surroundings(
            server=place.shared.config.server,
            ledger=place.shared.ledger,
            stop=attended.cancelled,
            started=started,
            ended=lambda report: _tell_stages(request, report),
            session=place.session,
            borrow=lambda options: nullcontext(hosted),
            lease=attended,
            may_finish=attended.may_finish,
            before_upload=watcher.check,
        )
        try:
            with place.attending(attended), watcher:
                if row.run is not None:
                    resume(row.run, around)
                else:
                    start(Target("job", row.job), self._rule.options, around)
        except NoFramesChosen as error:
            log.info("job %d: there is nothing to do: %s", row.job, error)
        except BaseException as error:
            if (reason := self._endings.broke_off(row, attended, error)) is not None:
                self._put_down(request.record.run)
                raise RequestCancelled(reason) from error
            raise
        self._endings.done(row)

    def _tell_begun(self, row: RuleJob, run: str, plans: Sequence[Plan]) -> None:
        left, earlier = sum(len(plan.wanted) for plan in plans), sum(plan.earlier for plan in plans)
        begins = f"{left} frames" if row.run is None else f"{left} of {left + earlier} frames are left"
        what = "begins" if row.run is None else "goes on with"
        log.info("job %d: rule %s %s run %s with %s: %s", row.job, self._rule.name, what, run, self._rule.model, begins)

    def _put_down(self, run: str | None) -> None:
        """Takes note that a run, whose flow was ended by an error, is no failure."""
        if run is None:
            return
        with Ledger(self._place.shared.ledger) as ledger:
            ledger.put_down(run)

    def _check_seconds(self) -> float:
        return self._place.shared.config.watch.check_seconds


def _tell_stages(request: Request, report: RunReport) -> None:
    request.spent({stage: seconds for stage, seconds in report.seconds.items() if stage != "whole run"})
