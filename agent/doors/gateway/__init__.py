"""The gateway: a stand-in for a Nuclio dashboard and its functions, which CVAT of every edition can call.

Reading order: `door` (start and stop), `app` (HTTP), `answering` (a call, from its body to the reply), then one module
for each kind of function: `detector`, `interactor`, `tracker`, `reid`. `listing` and `naming` are what menus show.
"""

from agent.doors.gateway.door import Gateway

__all__ = ["Gateway"]
