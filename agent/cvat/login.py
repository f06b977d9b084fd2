"""Who we are: a personal access token, a password that is turned into a token once, or a profile of cvat-cli."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from cvat_sdk.core.auth import DEFAULT_SERVER, AuthStore, ProfileEntry
from cvat_sdk.core.client import Client, Config
from cvat_sdk.core.exceptions import AuthStoreError

from agent.config import ServerSettings
from agent.errors import ConfigError


def make_client(settings: ServerSettings) -> Client:
    """The SDK's client for the server that the settings or the profile name; nothing is sent yet."""
    profile = _profile(settings)
    url = profile.server if profile else _url(settings)
    config = attrs.evolve(Config(), status_check_period=0.5, verify_ssl=settings.verify_ssl)
    try:
        # With a scheme in the URL the SDK does not try both; without one it asks the server.
        client = Client(url, config=config, check_server_version=False)
    except Exception as error:
        raise ConfigError(f"--server-host {url!r}: cannot be used: {str(error)[:200]}") from error
    if settings.organization is not None:
        client.organization_slug = settings.organization
    return client


def token_for(
    settings: ServerSettings, client: Client, post: Callable[[str, Mapping[str, Any]], Any]
) -> dict[str, str]:
    """The header that opens the API. A password is sent once: to hash it on every call costs the server a second."""
    profile = _profile(settings)
    if settings.token or profile:
        header = {"Authorization": f"Bearer {settings.token or (profile and profile.token)}"}
    elif settings.user and settings.password:
        body = {"username": settings.user, "password": settings.password}
        header = {"Authorization": f"Token {post('/api/auth/login', body)['key']}"}
    else:
        raise ConfigError(
            "login: got neither a token nor a user, allowed: a personal access token in $CVAT_ACCESS_TOKEN,"
            " --auth USER:PASS, --profile NAME, or [cvat] in service.toml"
        )
    # What the SDK sends on its own (uploads) goes by the same credentials.
    client.api_client.default_headers.update(header)
    return header


def _url(settings: ServerSettings) -> str:
    host = (settings.host or AuthStore().get_default_server() or DEFAULT_SERVER).rstrip("/")
    if "://" not in host:
        host = f"https://{host}"
    if settings.port is None:
        return host
    if ":" in host.split("://", 1)[1]:
        raise ConfigError(f"--server-port {settings.port}: got a port in {host!r} too, allowed: one of them")
    return f"{host}:{settings.port}"


def _profile(settings: ServerSettings) -> ProfileEntry | None:
    """The profile that is asked for, or cvat-cli's default one where nothing else says who we are or where to go."""
    try:
        if settings.profile is not None:
            found = AuthStore().get_profile(settings.profile)
            if found is None:
                raise ConfigError(
                    f"--profile {settings.profile!r}: there is none of that name; see `cvat-cli profile list`"
                )
            return found
        if settings.host or settings.port or settings.user or settings.token:
            return None
        default = AuthStore().get_default_profile()
        return default[1] if default else None
    except AuthStoreError as error:
        raise ConfigError(f"profile: {error}") from error
