"""What doors share, put together for a test against a sandbox."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.activity import Activity
from agent.cvat.session import open_session
from agent.doors import Shared
from agent.interaction import Embeddings
from agent.lanes import Lanes
from agent.models.loading import LoadedModel, load_model
from agent.pool.pool import ModelPool
from agent.settings.server import ServerSettings
from agent.settings.tables import Config, EngineSettings, ModelSettings
from agent.tracking import TrackStates

if TYPE_CHECKING:
    from agent.sandbox import Sandbox


def config_for(
    sandbox: Sandbox | str, models: Sequence[ModelSettings] = (), *, server: ServerSettings | None = None, **tables: Any
) -> Config:
    """A service.toml's worth of settings for a sandbox, as bot; `tables` are those of Config: queue, gateway, rules."""
    url = sandbox if isinstance(sandbox, str) else sandbox.url
    server = server or ServerSettings(user="bot", password="secret")
    return Config(file=Path("service.toml"), server=replace(server, host=url), models=tuple(models), **tables)


@contextmanager
def shared(
    sandbox: Sandbox | str,
    models: Sequence[ModelSettings] = (),
    *,
    folder: Path | None = None,
    load: Callable[..., LoadedModel] = load_model,
    server: ServerSettings | None = None,
    session: dict[str, Any] | None = None,
    **tables: Any,
) -> Iterator[Shared]:
    """What doors share. `folder` is the state directory (a temporary one where it is not said), `load` what loads the
    models, `session` more arguments of the session; the rest as for `config_for`."""
    config = config_for(sandbox, models, server=server, **tables)
    engine: EngineSettings = config.engine
    with ExitStack() as stack:
        state_dir = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="state-")))
        opened = stack.enter_context(open_session(config.server, **(session or {})))
        pool = ModelPool(config.models, engine, state_dir / "models", load=load)
        states = TrackStates(state_dir / "tracks.sqlite3")
        lanes = Lanes(interactive=config.service.interactive_lanes, batch=config.service.batch_lanes)
        made = Shared(
            config=config,
            session=opened,
            pool=pool,
            lanes=lanes,
            activity=Activity(),
            embeddings=Embeddings(int(engine.embeddings_mb * 2**20)),
            track_states=states,
            state_dir=state_dir,
            ledger=state_dir / "ledger.sqlite3",
        )
        try:
            yield made
        finally:
            made.stop.set()
            lanes.close()
            lanes.join(10)
            pool.close(2)
            states.close()
