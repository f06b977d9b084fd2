"""The command line: which commands there are, and what an error looks like. Commands live in agent/commands/."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
from typing import Any

import click

COMMANDS = {
    "annotate": "Annotate a task, a job or a project with a model.",
    "demo": "Annotate pictures on an embedded CVAT stand-in.",
    "doctor": "Find the broken hop between models and CVAT, and what mends it.",
    "enrich": "Look again at shapes: attributes, texts, masks, identities.",
    "functions": "Make, list and remove the functions of your models in CVAT.",
    "labels": "See how a model's labels match a task's.",
    "models": "See what a model reference stands for.",
    "runs": "List, show, undo, resume and prune runs.",
    "sandbox": "Run the CVAT stand-in on its own.",
    "serve": "Serve models to CVAT until interrupted.",
    "track": "Link the rectangles of a task to tracks.",
}
"""Name -> help: `cvat-sidecar --help` must not import the commands."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"agent.commands.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if near:
                raise click.UsageError(f"{error.format_message()} Did you mean {near[0]!r}?", ctx) from error
            raise


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"cvat-sidecar {version('cvat-sidecar')}")
        ctx.exit()


@click.group("cvat-sidecar", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Show the version.")
@click.option("-v", "--verbose", count=True, help="Log more to standard error; twice: everything.")
def command(verbose: int) -> None:
    """Models from local weights, Hugging Face or anywhere else, connected to your CVAT server."""
    level = (logging.ERROR, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if verbose < 2:
        # Both are chatty, and neither says anything that a person could act on.
        for name in ("httpx", "urllib3", "cvat_sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)


def main(args: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 done with skipped frames, 2 wrong use or configuration, 3 server,
    4 model, 130 interrupted."""
    try:
        code: Any = command.main(args=args, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); as other programs do, we end quietly.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        code = 128 + signal.SIGPIPE
    except Exception as error:
        code = _report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception) -> int:
    from agent.errors import ConfigError, SidecarError

    if isinstance(error, SidecarError):
        logging.getLogger(__name__).info("where it came from", exc_info=error)
        for text in error.mistakes if isinstance(error, ConfigError) else (error,):
            click.echo(f"Error: {text}", err=True)
        return error.exit_code
    if isinstance(error, OSError):
        # A full disk, a folder that cannot be written: this machine's matter, and the error says which.
        logging.getLogger(__name__).info("where it came from", exc_info=error)
        click.echo(f"Error: {error}", err=True)
        return 2
    logging.getLogger(__name__).critical("this is a defect in cvat-sidecar", exc_info=error)
    click.echo(f"Error: {type(error).__name__}: {error} (a defect in cvat-sidecar; please report it)", err=True)
    return 70


if __name__ == "__main__":
    main()
