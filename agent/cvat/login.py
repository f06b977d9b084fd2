"""Where the server is and who we are: a personal access token, a password, or a profile of cvat-cli."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3
from cvat_sdk.api_client.rest import RESTClientObject
from cvat_sdk.core.auth import DEFAULT_SERVER, AuthStore, ProfileEntry
from cvat_sdk.core.client import Client, Config
from cvat_sdk.core.exceptions import AuthStoreError

from agent.errors import ConfigError, ServerRefused
from agent.settings.server import ServerSettings

log = logging.getLogger(__name__)

LOGIN_PATH = "/api/auth/login"
CONNECTIONS = 16
"""As many threads may call at once without opening and closing connections."""


def make_client(settings: ServerSettings) -> Client:
    """The SDK's client for the server that the settings or the profile name; nothing is sent yet."""
    _check(settings)
    profile = _profile(settings)
    url = profile.server if profile else _url(settings)
    config = Config(status_check_period=0.5, verify_ssl=settings.verify_ssl)
    try:
        client = Client(url, config=config, check_server_version=False)
    except Exception as error:
        raise ConfigError(f"--server-host {url!r}: cannot be used: {str(error)[:200]}") from error
    if settings.organization is not None:
        client.organization_slug = settings.organization
    configuration = client.api_client.configuration
    # No retries behind our back, and redirects come back as they are.
    configuration.retries = urllib3.Retry(0, redirect=0, raise_on_redirect=False)
    configuration.connection_pool_maxsize = CONNECTIONS
    if settings.ca_file is not None:
        configuration.ssl_ca_cert = str(settings.ca_file)
    if not settings.verify_ssl:
        log.warning("the certificate of %s is not checked", url)
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    client.api_client.rest_client = RESTClientObject(configuration)
    return client


def authorization(settings: ServerSettings, post: Callable[[str, Mapping[str, Any]], Any]) -> dict[str, str]:
    """The header that opens the API. A password is sent once: to hash it on every call costs the server a second."""
    if token := settings.token or _profile_token(settings):
        return {"Authorization": f"Bearer {token}"}
    if not (settings.user and settings.password):
        raise ConfigError(
            "login: got neither a token nor a user, allowed: a personal access token in $CVAT_ACCESS_TOKEN,"
            " --auth USER:PASS, --profile NAME, or [cvat] in service.toml"
        )
    key = (post(LOGIN_PATH, {"username": settings.user, "password": settings.password}) or {}).get("key")
    if not key:
        raise ServerRefused("login: the server gives no token for a password; use a personal access token", status=200)
    return {"Authorization": f"Token {key}"}


def has_login(settings: ServerSettings) -> bool:
    """Whether it is said who we are; whether that is right, only the server knows."""
    return bool(settings.token or (settings.user and settings.password) or _profile_token(settings))


def who(settings: ServerSettings) -> str:
    """Who we say that we are, and where the secret for it is; never the secret."""
    if settings.profile is not None:
        return f"the profile {settings.profile!r}"
    name = f"the user {settings.user!r}" if settings.user else "the holder of a token"
    return f"{name} ({settings.secret_from})" if settings.secret_from else name


def renewable(settings: ServerSettings) -> bool:
    """Whether another login can give another token."""
    return not settings.token and settings.password is not None and _profile(settings) is None


def _check(settings: ServerSettings) -> None:
    if settings.profile is not None and (settings.host or settings.port or settings.user or settings.token):
        raise ConfigError(f"--profile {settings.profile!r}: got a host, port, user or token too, allowed: one of them")
    if settings.ca_file is not None and not settings.ca_file.is_file():
        raise ConfigError(f"--ca-file {settings.ca_file}: there is no such file")


def _url(settings: ServerSettings) -> str:
    """The server's address. A bare name means https, as for cvat-cli."""
    try:
        host = settings.host or AuthStore().get_default_server() or DEFAULT_SERVER
        parts = urlsplit(host if "://" in host else f"https://{host}")
        parts, port = parts._replace(path=parts.path.rstrip("/")), parts.port
    except (AuthStoreError, ValueError) as error:
        raise ConfigError(f"--server-host: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"--server-host {host!r}: allowed: a name or an address like https://cvat.example.com:8443")
    if "@" in parts.netloc:
        raise ConfigError("--server-host: got a user or password in the address, allowed: --auth USER:PASS")
    if settings.port is None:
        return parts.geturl()
    if port is not None:
        raise ConfigError(f"--server-port {settings.port}: got a port in {host!r} too, allowed: one of them")
    return parts._replace(netloc=f"{parts.netloc}:{settings.port}").geturl()


def _profile_token(settings: ServerSettings) -> str | None:
    profile = _profile(settings)
    return profile.token if profile else None


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
