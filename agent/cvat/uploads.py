"""Annotations brought to a job exactly once, whatever happens to the connection, the server or this process.

A create call cannot be repeated blindly: when its answer is lost, the annotations may be there. So every upload is
written to the ledger first, and after silence we look for what we sent: items with ids above those that the job had
before, with our content, that nobody else is known to have made. If they are there, the upload is done; if not, it is
sent again, and at the end of the job a twin that arrived late is looked for and removed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from agent.cvat.annotations_api import create, delete, get_annotations
from agent.cvat.ours import Annotations, find_sent
from agent.cvat.session import Session
from agent.errors import ServerRefused, ServerUnavailable
from agent.ledger.ledger import KINDS, Ledger, Upload

log = logging.getLogger(__name__)

ATTEMPTS = 8
LONGEST_WAIT = 60.0


class JobUploads:
    """The uploads of one run to one job.

    `wait` may raise to end the waiting for a server that does not answer; a resumed run then looks what arrived.
    `before` is called before anything is sent, and raises where it must not be.
    `keep_changed`: of what is to be replaced, what a person has changed meanwhile stays.
    """

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        run: str,
        job: int,
        *,
        wait: Callable[[float], None],
        before: Callable[[], None] = lambda: None,
        keep_changed: bool = False,
    ) -> None:
        self._session = session
        self._ledger = ledger
        self._run = run
        self._job = self.job = job
        self._wait, self._before = wait, before
        self._keep_changed = keep_changed
        self.removed = 0
        """How many annotations were replaced."""
        self._above: dict[str, int] | None = None
        self._resent: dict[int, Upload] = {}

    def add(self, frames: Sequence[int], payload: Annotations, removes: Iterable[tuple[str, int]] = ()) -> None:
        """Creates the annotations of these frames, then takes away what they replace."""
        if self._above is None:
            self._before()  # looking through a large job takes its time
        above = self._highest() if any(payload.values()) else {}
        self._before()
        upload = self._ledger.write_upload(self._run, self._job, frames, dict(payload), above, removes)
        self._bring(upload, sent_before=False)

    def recover(self) -> None:
        """Brings uploads to their end that an earlier process of this run did not."""
        for upload in self._unsettled():
            if upload.state == "sending":
                self._bring(upload, sent_before=True)
            elif upload.state == "created":
                self._finish(upload)

    def adopt(self) -> None:
        """Finds out what became of uploads that were never answered, and sends nothing; before a run is undone."""
        for upload in self._unsettled():
            if upload.state != "sending":
                continue
            if (found := self._arrived(upload)) is None:
                self._ledger.forget_upload(upload)
            else:
                self._ledger.mark_created(upload, found)
        self.settle()

    def settle(self) -> None:
        """Removes twins: what we sent again after silence, and what then arrived twice after all."""
        if not self._resent:
            return
        stored = get_annotations(self._session, self._job)
        twins: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        known_ids = self._known_ids()
        for upload in self._resent.values():
            known = known_ids | {(kind, item["id"]) for kind in KINDS for item in twins[kind]}
            for kind, items in find_sent(upload, stored, known).items():
                twins[kind] += [item for item in items if item is not None]
        if count := sum(map(len, twins.values())):
            log.warning("job %d: %d annotations had arrived twice; the second ones are removed", self._job, count)
            delete(self._session, self._job, twins)
        self._resent.clear()

    # ------------------------------------------------------------------ steps

    def _unsettled(self) -> list[Upload]:
        uploads = self._ledger.uploads(self._run, self._job, unsettled=True)
        self._resent |= {upload.number: upload for upload in uploads if upload.resent}
        return uploads

    def _bring(self, upload: Upload, *, sent_before: bool) -> None:
        ids = self._create(upload, sent_before=sent_before) if any(upload.payload.values()) else {}
        self._note_highest(ids)
        self._ledger.mark_created(upload, ids)
        self._finish(upload)

    def _finish(self, upload: Upload) -> None:
        self._ledger.mark_done(upload, self._remove(set(upload.removes)) if upload.removes else ())

    def _remove(self, ids: Collection[tuple[str, int]]) -> Collection[tuple[str, int]]:
        """Deletes the job's annotations with these (kind, id), and tells which of them are there no more."""
        stored = get_annotations(self._session, self._job)
        leaving: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        kept = set()
        for kind in KINDS:
            for item in stored.get(kind, ()):
                if (kind, item["id"]) not in ids:
                    continue
                if self._keep_changed and item.get("source") != "auto":
                    kept.add((kind, item["id"]))
                else:
                    leaving[kind].append(item)
        if count := sum(map(len, leaving.values())):
            delete(self._session, self._job, leaving)
            self.removed += count
        return set(ids) - kept

    def _create(self, upload: Upload, *, sent_before: bool) -> Mapping[str, Sequence[int | None]]:
        """The ids of the upload's annotations, which are on the server exactly once afterwards."""
        may_go_on = sent_before
        for attempt in range(ATTEMPTS):
            if sent_before and (found := self._arrived(upload, may_go_on)) is not None:
                return found
            if sent_before or attempt:
                self._ask_again(upload, sent_before=sent_before)
            if sent_before:
                self._ledger.mark_resent(upload)
                self._resent[upload.number] = upload
            try:
                answer = create(self._session, self._job, upload.payload)
                return ids_in_order(upload.payload, answer)
            except ServerRefused as error:
                if not 200 <= error.status < 300:
                    self._ledger.forget_upload(upload)
                    raise
                # Done, as its status says, and answered by something that cannot be read: a lost answer.
                lost = ServerUnavailable(str(error))
                lost.__cause__ = error
            except ServerUnavailable as error:
                lost = error
            if attempt == ATTEMPTS - 1:
                raise lost
            sent_before, may_go_on = sent_before or lost.maybe_done, lost.may_go_on
            self._wait(min(lost.retry_after or 0.25 * 2**attempt, LONGEST_WAIT))
        raise AssertionError("the last attempt returns or raises")

    def _ask_again(self, upload: Upload, *, sent_before: bool) -> None:
        """Time has gone by since it was looked whether the upload may be sent."""
        try:
            self._before()
        except BaseException:
            if not sent_before:
                self._ledger.forget_upload(upload)
            raise

    def _arrived(self, upload: Upload, may_go_on: bool = True) -> Mapping[str, Sequence[int | None]] | None:
        """The ids of what we sent, if it is there; None if not.

        Where the server may still be working on a call whose client is gone, absence is believed on the second look.
        """
        for look in range(2 if may_go_on else 1):
            if look:
                self._wait(1.0)
            found = find_sent(upload, get_annotations(self._session, self._job), self._known_ids())
            if any(item is not None for items in found.values() for item in items):
                # A create is all or nothing: what is missing has been removed by somebody since.
                return {k: [item["id"] if item else None for item in items] for k, items in found.items()}
        return None

    # -------------------------------------------------------------------- ids

    def _known_ids(self) -> set[tuple[str, int]]:
        return self._ledger.known_ids(self._job, self._session.url)

    def _highest(self) -> dict[str, int]:
        if self._above is None:
            stored = get_annotations(self._session, self._job)
            self._above = {kind: max((item["id"] for item in stored.get(kind, ())), default=0) for kind in KINDS}
        return dict(self._above)

    def _note_highest(self, ids: Mapping[str, Sequence[int | None]]) -> None:
        above = self._above or dict.fromkeys(KINDS, 0)
        for kind, numbers in ids.items():
            above[kind] = max([above[kind], *(number for number in numbers if number is not None)])
        if self._above is not None:
            self._above = above


def ids_in_order(payload: Annotations, answer: Annotations) -> dict[str, list[int | None]]:
    """The ids that a create call gave, in the payload's order, which is the answer's too."""
    ids: dict[str, list[int | None]] = {}
    for kind, sent in payload.items():
        got = answer.get(kind, [])
        if len(got) != len(sent):
            raise ServerUnavailable(f"create: sent {len(sent)} {kind}, the server answered with {len(got)}")
        ids[kind] = [item["id"] for item in got]
    return ids
