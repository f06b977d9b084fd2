"""A CVAT stand-in over real HTTP, for the demo, the tests and the benchmarks.

    with Sandbox(users={"bot": "secret"}) as sandbox:
        requests.get(sandbox.url + "/api/server/about")

Reading order: `server` (start and stop), `app` (routes), `exchange` (one call), `state` and `records` (what
is kept), then one module for each resource. Importing this package is cheap: the server is loaded when
`Sandbox` is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.sandbox.server import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> object:
    """The Sandbox class, loaded at first use."""
    if name == "Sandbox":
        from agent.sandbox.server import Sandbox

        return Sandbox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
