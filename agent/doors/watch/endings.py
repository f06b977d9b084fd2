"""How a rule's run on a job ends: what is remembered of it, the job's state, and what people are told."""

from __future__ import annotations

import logging
from typing import Any

from agent.cvat.issues import leave_issue, resolve_issue
from agent.cvat.jobs import Job, find_job, set_state
from agent.doors.watch.attended import Attended, Stop
from agent.doors.watch.hours import pause_after
from agent.doors.watch.place import FIRST_WAIT, LONGEST_WAIT, Place
from agent.doors.watch.rules import Rule
from agent.errors import (
    ConfigError,
    RequestCancelled,
    ServerError,
    ServerRefused,
    ServerUnavailable,
    public_message,
)
from agent.lease import NOT_ABOUT_US
from agent.ledger.file import HeldElsewhere
from agent.ledger.rules import RuleJob

log = logging.getLogger(__name__)


class Endings:
    """Ends what a rule did on one job."""

    def __init__(self, place: Place, rule: Rule) -> None:
        self._place, self._rule = place, rule

    def done(self, row: RuleJob) -> None:
        """The job is annotated."""
        owed = self._rule.settings.state_when_done
        self._place.put_off.pop((row.rule, row.job), None)
        self._change(row, status="done", next_try=0.0, owed=owed, error=None, marker=None)
        self.pay(row, owed)
        if row.issue is not None:
            self._at_server(row.job, "the issue stays open", resolve_issue, self._place.session, row.issue)

    def broke_off(self, row: RuleJob, attended: Attended, error: BaseException) -> str | None:
        """The run ended by an error. Why that is no failure: the server is away, the job not ours any more."""
        if attended.why is Stop.ENDING or self._place.shared.stop.is_set():
            self._change(row, status="interrupted", next_try=0.0)
        elif attended.why is not None:
            self._given_up(row, str(error), again=attended.why is Stop.TAKEN_BACK)
        elif isinstance(error, RequestCancelled):
            self._change(row, status="interrupted", next_try=0.0)  # the model was taken away under it
        elif isinstance(error, ServerUnavailable | HeldElsewhere) or _is_about_us(error):
            return self.later(row, error)
        else:
            return self._look_why(row, error)
        return None

    def later(self, row: RuleJob, error: BaseException) -> str:
        """Nobody's fault but the server's, or somebody else is at it: go on with it after a while. Says so."""
        wait, reason = pause_after(1, self._place.jitter()), "somebody else is at it; it goes on after that"
        if isinstance(error, ServerError):
            self._place.reach.failed(error, self._place.now())
            refused = isinstance(error, ServerRefused)
            reason = f"the server {'refuses us' if refused else 'is away'}; it goes on when it answers"
            wait = self._wait_for_server(row)
        next_try = self._place.timestamp() + wait if wait else 0.0
        self._change(row, status="interrupted", next_try=next_try, error=str(error)[:500])
        return reason

    def _wait_for_server(self, row: RuleJob) -> float:
        """Seconds that the job waits beyond the server's silence: none at first, as that may be all that was wrong.

        Where it answers, but never to what this job needs, the job is tried ever more seldom.
        """
        self._place.put_off[row.rule, row.job] += 1
        times = self._place.put_off[row.rule, row.job]
        if times == 1:
            return 0.0
        return pause_after(times - 1, self._place.jitter(), first=FIRST_WAIT, longest=LONGEST_WAIT)

    def failed(self, row: RuleJob, error: BaseException) -> None:
        """The job could not be annotated."""
        tries, owed = row.tries + 1, self._rule.settings.state_when_failed
        wait = pause_after(tries, self._place.jitter())
        next_try = self._place.timestamp() + wait
        text = str(error) or type(error).__name__
        self._change(row, status="failed", tries=tries, next_try=next_try, owed=owed, error=text[:500])
        self.pay(row, owed)
        if self._rule.settings.issue_on_failure and row.issue is None:
            self._leave_issue(row, error)
        job = self._at_server(row.job, "it may be tried again too soon", find_job, self._place.session, row.job)
        self._change(row, job_updated=job.updated if isinstance(job, Job) else None)
        listed = not isinstance(job, Job) or job.state in self._rule.settings.states
        sooner = "it changes" if listed else self._set_back
        log.info("job %d: rule %s tries it again in %.0f s, or when %s", row.job, self._rule.name, wait, sooner)

    @property
    def _set_back(self) -> str:
        return f"its state is set back to {' or '.join(map(repr, self._rule.settings.states))}"

    def give_up(self, row: RuleJob, job: Job | None, reason: str, *, here: bool = False) -> None:
        """The job is not ours (any more); it may be again when it changes. `here`: nobody at the server wanted that."""
        held = here and job is not None and job.state == self._rule.held_state
        more = f"; it goes on when {self._set_back}" if held else ""
        log.info("job %d: rule %s leaves it, %s%s", row.job, self._rule.name, reason, more)
        if row.marker is not None:
            self._place.claims.clear(row.job, row.marker)
        self._change(row, status="cancelled", error=reason[:500], owed=None, marker=None,
                     job_updated=None if job is None else job.updated)  # fmt: skip

    def pay(self, row: RuleJob, owed: str | None) -> None:
        """Gives the job the state that it is to have, unless somebody has changed it meanwhile."""
        if owed is None:
            return
        session = self._place.session
        try:
            job = find_job(session, row.job)
            if job is None or job.state != owed:
                if (reason := self._rule.taken_back(job, failed=row.tries > 0)) is not None:
                    log.info("job %d: its state is left as it is: %s", row.job, reason)
                else:
                    set_state(session, row.job, owed)
        except ServerUnavailable as error:
            log.warning("job %d: its state %r has to wait: %s", row.job, owed, error)
            return
        except ServerError as error:
            log.warning("job %d: its state could not be set to %r: %s", row.job, owed, error)
            if _is_about_us(error):
                return  # a token that has run out, for example; the job would stay as if we were at it for ever
        self._change(row, owed=None)

    # ---------------------------------------------------------------- inside

    def _given_up(self, row: RuleJob, reason: str, *, again: bool) -> None:
        """Somebody has stopped the run. `again`: at the server, where it may have been handed to us again since."""
        job = self._at_server(row.job, "it may be begun again", find_job, self._place.session, row.job)
        if not isinstance(job, Job) or (again and self._rule.unfit(job) is None):
            job = None
        self.give_up(row, job, reason, here=not again)

    def _look_why(self, row: RuleJob, error: BaseException) -> str | None:
        """A refused upload can mean that the job is somebody else's now: that is no failure."""
        job = self._at_server(row.job, "why it failed stays open", find_job, self._place.session, row.job)
        gone = job is None or isinstance(job, Job)
        reason = self._rule.taken_back(job, failed=row.tries > 0) if gone else None
        if isinstance(error, ServerError) and reason is not None:
            self._given_up(row, reason, again=True)
            return reason
        self.failed(row, error)
        return None

    def _leave_issue(self, row: RuleJob, error: BaseException) -> None:
        # A configuration's errors name files of this machine.
        public = "The sidecar's configuration is wrong" if isinstance(error, ConfigError) else public_message(error)
        message = f"cvat-sidecar could not annotate this job for the rule {self._rule.name!r}: {public}"
        job = self._at_server(row.job, "no issue is left", find_job, self._place.session, row.job)
        if not isinstance(job, Job):
            return
        frame = job.first_frame or 0
        issue = self._at_server(row.job, "no issue is left", leave_issue, self._place.session, job.id, frame, message)
        if isinstance(issue, int):
            self._change(row, issue=issue)

    def _at_server(self, job: int, consequence: str, call: Any, *values: Any) -> Any:
        """What the server answers; the ServerError itself where it does not."""
        try:
            return call(*values)
        except ServerError as error:
            log.warning("job %d: %s: %s", job, consequence, error)
            return error

    def _change(self, row: RuleJob, **values: Any) -> None:
        self._place.memory.change(row, updated=self._place.timestamp(), **values)


def _is_about_us(error: BaseException) -> bool:
    """Whether the server says no to who we are, whatever the job: a token that has run out, for example."""
    return isinstance(error, ServerRefused) and error.status in NOT_ABOUT_US
