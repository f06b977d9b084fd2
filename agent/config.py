"""service.toml, flags and environment turned into frozen values; nothing else reads them.

Flags win over the environment, the environment over service.toml. Secrets come by the name of an environment variable
or of a file, never by value in service.toml.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where CVAT is and who we are there."""

    host: str | None = None
    """Name or URL; None means the profile's, else http://localhost."""
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    """A personal access token."""
    profile: str | None = None
    """A profile saved by cvat-cli; cannot stand beside host, port or credentials."""
    organization: str | None = None
    """A slug; "" is the personal workspace, None everything that the user may see."""
    verify_ssl: bool = True
    ca_file: Path | None = None
    timeout: float = 60.0
    """Seconds that one call may take."""
    retries: int = 6
    """How often a call that may be repeated is tried again."""
