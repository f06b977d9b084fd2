"""Rules that find their work by themselves, on CVAT servers of every edition.

Reading order: door, looking (one rule), attending (one job), endings; then what these ask: rules, claims, attended.
"""

from agent.doors.watch.door import Watch

__all__ = ["Watch"]
