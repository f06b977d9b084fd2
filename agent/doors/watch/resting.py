"""What keeps a rule from its work, and for how long: a broken model would fail with one job after the other."""

from __future__ import annotations

import logging

from agent.doors.watch.hours import is_quiet, pause_after
from agent.doors.watch.place import Place
from agent.doors.watch.rules import Rule
from agent.errors import ModelError, ServerError, ServerRefused, SidecarError

log = logging.getLogger(__name__)

LONGEST_PAUSE = 3600.0
"""Seconds that a rule rests at most because its model is broken."""


class Rest:
    """Whether a rule may look for work now."""

    def __init__(self, place: Place, rule: Rule) -> None:
        self.trouble: str | None = None
        """What is wrong, for a person."""
        self._place, self._rule = place, rule
        self._strikes = 0
        self._until = 0.0

    def rests(self) -> bool:
        return (
            self._place.closing.is_set()
            or not self._rule.settings.enabled
            or self._place.clock() < self._until
            or self._place.reach.wait > 0
            or self.quiet_until is not None
        )

    @property
    def quiet_until(self) -> str | None:
        """When the quiet hours end, as the rule says it; None outside of them."""
        hours = self._rule.settings.quiet_hours
        return hours[1] if hours is not None and is_quiet(hours, self._place.now()) else None

    def forget(self) -> None:
        """Settings were changed: whatever was wrong may have been put right."""
        self._until, self.trouble = 0.0, None

    def listed(self) -> None:
        """The server has answered. What was wrong with the model may still be."""
        self._place.reach.answered()
        if not self._strikes:
            self.trouble = None

    def worked(self) -> None:
        """A job was annotated."""
        self._strikes, self.trouble = 0, None

    def failed(self, error: SidecarError) -> None:
        """Takes note of what went wrong with more than one job."""
        if isinstance(error, ModelError):
            self.model_failed(error)
            self._show(error)
        elif isinstance(error, ServerError):
            self._place.reach.failed(error, self._place.now())
            if isinstance(error, ServerRefused):
                self.trouble = str(error)
        else:
            self.trouble = str(error)
            log.error("rule %s: %s", self._rule.name, error)

    def model_failed(self, error: ModelError) -> None:
        """Lets the rule rest, the longer the more often this has happened."""
        if self._place.clock() < self._until:
            return  # another job, which was at work when it happened
        self._strikes += 1
        wait = pause_after(self._strikes, self._place.jitter(), longest=LONGEST_PAUSE)
        self._until = self._place.clock() + wait
        self.trouble = f"model {self._rule.model}: {error}"
        log.warning("rule %s: %s; it rests for %.0f s", self._rule.name, self.trouble, wait)

    def _show(self, error: ModelError) -> None:
        """Lets the status page know."""
        try:
            with self._place.shared.activity.begin("watch", "rule", self._rule.model, f"rule {self._rule.name}"):
                raise error
        except ModelError:
            pass
