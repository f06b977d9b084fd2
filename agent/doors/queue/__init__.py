"""Requests of the agent queue of CVAT Online and Enterprise.

Reading order: door, server (one function), promise, reach; held (one request); then detection, prompting.
"""

from agent.doors.queue.door import QueueDoor

__all__ = ["QueueDoor"]
