"""cvat-sidecar sandbox: the CVAT stand-in on its own."""

from __future__ import annotations

import click


def _users(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Names and passwords of the users that were given."""
    found: dict[str, str] = {}
    for value in values:
        name, colon, password = value.partition(":")
        if not (name and colon and password):
            raise click.BadParameter(f"{name or value!r} is not of the form NAME:PASSWORD")
        if name in found:
            raise click.BadParameter(f"the user {name!r} is given twice")
        found[name] = password
    return found


@click.command("sandbox")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; keep it on this machine.")
@click.option("--user", "users", multiple=True, metavar="NAME:PASSWORD", callback=_users, help="A user; repeatable.")
@click.option("--admin", "admins", multiple=True, metavar="NAME", help="A user who may do everything; repeatable.")
@click.option("--data", type=click.Path(file_okay=False), help="A folder that keeps the state; without it, none does.")
@click.option("--nuclio", metavar="URL", help="A Nuclio dashboard, for automatic annotation.")
@click.option(
    "--invoke",
    type=click.Choice(["dashboard", "direct"]),
    default="dashboard",
    show_default=True,
    help="How functions are called: through the dashboard, or at their own ports.",
)
def command(
    port: int,
    host: str,
    users: dict[str, str],
    admins: tuple[str, ...],
    data: str | None,
    nuclio: str | None,
    invoke: str,
) -> None:
    """Run a CVAT stand-in until it is interrupted.

    It holds tasks, pictures, videos and annotations as CVAT does, for trying things out. Never put work into it that
    matters.
    """
    import secrets
    import signal
    import threading

    from agent.errors import ConfigError
    from agent.sandbox import Sandbox

    made = {} if users else {"sandbox": secrets.token_urlsafe(12)}
    known = users or made
    if strangers := sorted(set(admins) - set(known)):
        raise ConfigError(f"--admin: {strangers[0]!r} is none of the users ({', '.join(known)})")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sandbox = Sandbox(known, port, data, nuclio, admins, host=host, invoke=invoke)
    try:
        sandbox.start()
    except OSError as error:
        raise ConfigError(f"--port: cannot listen at {host}:{port} ({error.strerror})") from error
    try:
        click.echo(f"CVAT sandbox at {sandbox.url}")
        click.echo(f"users: {', '.join(known)}")
        for name, password in made.items():
            click.echo(f"password of {name}: {password}")
        click.echo("Ctrl-C ends it." if data else "Ctrl-C ends it; what it holds is then gone.")
        stop.wait()
    finally:
        sandbox.stop()
