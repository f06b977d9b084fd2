"""What a run needs besides its options: where it goes, what it borrows, and who watches it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agent.compose.named import open_named
from agent.cvat.login import has_login
from agent.cvat.session import Session, open_session
from agent.errors import ConfigError, RequestCancelled
from agent.lease import Lease, LocalLease
from agent.ledger.ledger import Ledger
from agent.models.host import Host
from agent.models.loading import LoadedModel, wrong_kind
from agent.options import Options
from agent.plan import Plan
from agent.report import RunReport
from agent.settings.server import ServerSettings


class ReadyModel(Protocol):
    """A loaded model and the thread that runs it; the pool's HostedModel is one."""

    @property
    def loaded(self) -> LoadedModel: ...

    @property
    def host(self) -> Host: ...


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A model as one run sees it."""

    loaded: LoadedModel
    host: Host


@contextmanager
def load_own(options: Options) -> Iterator[OwnModel]:
    """The model of the options, loaded for the block and closed after it."""
    loaded = open_named(options.model, device=options.device, options=options.params)
    host: Host | None = None
    try:
        with Host(loaded.model, batch_size=options.batch_size or loaded.batch_size) as host:
            yield OwnModel(loaded, host)
    finally:
        if host is None or host.ended:  # a model that is still in its batch must not be taken apart under it
            loaded.close()


def check_server(session: Session, server: str, what: str) -> None:
    """ConfigError where a session is not at the server that something of old belongs to."""
    if session.url == server:
        return
    how = "--auth or $CVAT_ACCESS_TOKEN logs in there"
    if not has_login(session.settings):
        raise ConfigError(f"{what} {server}, and nothing says who we are; {how}")
    raise ConfigError(f"{what} {server}, not to {session.url}; {how}, or name a server")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The server, the ledger, and how a person or a door takes part in the run."""

    server: ServerSettings
    ledger: Path | None = None
    preview: Path | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    """Ends the run after the batch at hand, and the waiting for a server that does not answer."""
    progress: Callable[[int, int], None] = lambda done, total: None
    started: Callable[[str | None, Sequence[Plan]], None] = lambda run, plans: None
    """Hears the run's id (None: a dry run) and its plans, before the first frame."""
    ended: Callable[[RunReport], None] = lambda report: None
    """Hears the report, however the run ended after it had started."""
    session: Session | None = None
    """One that is open already; without it the run logs in by itself."""
    borrow: Callable[[Options], AbstractContextManager[ReadyModel]] = load_own
    """Gives the model for the time of the run."""
    lease: Lease | None = None
    """Whoever asked, where that is not the person at this terminal."""
    may_finish: Callable[[], bool] = lambda: True
    """Whether, once the run was stopped, finished frames that are not uploaded yet still may be."""

    before_upload: Callable[[], None] = lambda: None
    """Called before each upload; raises where nothing may be uploaded any more."""

    def open(self, server: str | None = None) -> AbstractContextManager[Session]:
        """A session for the run (of old, at `server`); one that was given stays open."""
        if self.session is not None:
            return nullcontext(self.session)
        return open_session(self.server if server is None else self.server.for_run_at(server))

    @contextmanager
    def detector(self, options: Options) -> Iterator[ReadyModel]:
        """The run's model; ModelError for one of another kind."""
        with self.borrow(options) as ready:
            if (kind := ready.loaded.kind) != "detector":
                raise wrong_kind(options.model, kind, "detector")
            names = options.params.get("labels")
            if ready.loaded.finds is None or isinstance(names, str | None):
                yield ready
            else:
                # The weights are everybody's, the labels this run's.
                yield OwnModel(ready.loaded.told(names), ready.host)

    def the_lease(self) -> Lease:
        return self.lease or LocalLease(self.stop, self.progress)

    def wait(self, seconds: float) -> None:
        """Waits for a server that does not answer; RequestCancelled where nobody waits any longer.

        Then nothing must be sent again either: a resumed run looks what arrived, and takes its time.
        """
        if self.stop.wait(seconds):
            raise RequestCancelled("interrupted while the server did not answer")

    @contextmanager
    def concluding(self, report: RunReport, ledger: Ledger | None = None) -> Iterator[None]:
        """Tells the ledger, and whoever watches, how what is done inside ended."""
        report.status = "failed"
        try:
            yield
            report.status = "done"
        except (RequestCancelled, KeyboardInterrupt):
            report.status = "interrupted"
            raise
        finally:
            if ledger is not None and report.run is not None:
                ledger.end(report.run, report.status, report.as_json())
            self.ended(report)
