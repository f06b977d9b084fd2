"""cvat-sidecar track: rectangles of single frames become tracks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.commands.options import (
    check_config,
    ledger_option,
    ledger_path,
    model_params,
    server_options,
    server_settings,
)

if TYPE_CHECKING:
    from agent.commands.report_file import ReportFile
    from agent.options import Target
    from agent.report import RunReport
    from agent.runs.surroundings import Surroundings
    from agent.settings.server import ServerSettings

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("track")
@click.option("--task", type=click.IntRange(min=1), metavar="N", help="Link the rectangles of this task.")
@click.option("--job", type=click.IntRange(min=1), metavar="N", help="Of this job.")
@click.option("--project", type=click.IntRange(min=1), metavar="N", help="Of all tasks of this project.")
@click.option(
    "--of",
    type=click.Choice(["own", "auto", "all"]),
    default="own",
    show_default=True,
    help="What is linked: what cvat-sidecar made and nobody changed, what any model made, or everything.",
)
@click.option("--label", "labels", multiple=True, metavar="NAME", help="Only rectangles of this label; repeatable.")
@click.option(
    "--max-gap",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    metavar="FRAMES",
    help="Find a thing again that was lost for so long.",
)
@click.option(
    "--min-sightings",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Leave shorter tracks as rectangles.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    metavar="PIXELS",
    help="A keyframe less, where a straight line is as good.",
)
@click.option(
    "--bridge",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    metavar="FRAMES",
    help="Draw a thing over gaps up to so long; in longer ones it is outside.",
)
@click.option("--reid", metavar="REF", help="Tell things apart by their looks: a model of the kind reid.")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="An option of that model.")
@click.option("--device", default="auto", show_default=True, help="Where it runs.")
@click.option(
    "--max-distance",
    type=click.FloatRange(0, 2),
    default=0.4,
    show_default=True,
    help="Cosine distance above which two looks are of different things.",
)
@click.option("--keep-shapes", is_flag=True, help="Leave the rectangles beside the tracks.")
@click.option("--dry-run", is_flag=True, help="Do everything but upload.")
@click.option("--report", type=_FILE, metavar="FILE.json", help="Write the report as JSON.")
@ledger_option
@server_options
def command(**values: Any) -> int:
    """Link the rectangles of a task, a job or a project to tracks.

    Things are followed by motion, overlap and (--reid) looks, over gaps and the borders of jobs; keyframes that a
    straight line tells as well are left out. The rectangles go when the tracks are there; each job is backed up first.
    The run is remembered: `cvat-sidecar runs undo` takes the tracks back.
    """
    from agent.commands.options import reid_params
    from agent.commands.report_file import ReportFile
    from agent.compose.named import open_named
    from agent.errors import ConfigError
    from agent.models.host import Host
    from agent.options import Target
    from agent.runs.link_runs import link_target
    from agent.runs.linking import TrackOptions
    from agent.runs.surroundings import OwnModel
    from agent.settings.service import load_models
    from agent.tracks.keyframes import ThinOptions
    from agent.tracks.link import LinkOptions

    target = Target.of(**{kind: values.pop(kind) for kind in Target.KINDS})
    check_config(values)
    models = load_models(values["config"])
    ledger = ledger_path(values)
    server = server_settings(values)
    reference, device, given = (values.pop(name) for name in ("reid", "device", "params"))
    if given and reference is None:
        raise ConfigError(f"-p {given[0]!r}: got no --reid, allowed: with --reid REF, whose options they are")
    options = TrackOptions(
        of=values["of"],
        labels=values["labels"],
        link=LinkOptions(
            max_gap=values["max_gap"], min_sightings=values["min_sightings"], max_distance=values["max_distance"]
        ),
        thin=ThinOptions(tolerance=values["tolerance"], bridge=values["bridge"]),
        keep_shapes=values["keep_shapes"],
    )

    def work(around: Surroundings) -> RunReport:
        with ExitStack() as stack:
            reidentifier = None
            if reference is not None:
                params = reid_params(reference, model_params(given), models)
                loaded = open_named(reference, models, device=device, options=params)
                stack.callback(loaded.close)
                reidentifier = OwnModel(loaded, stack.enter_context(Host(loaded.model, name="reid")))
            return link_target(target, options, around, reidentifier=reidentifier, dry_run=values["dry_run"])

    return _linked(server, work, ledger, ReportFile(values["report"]))


def link_after(server: ServerSettings, target: Target, ledger: Path | None, report: ReportFile) -> int:
    """Links what a run has just annotated, and returns the exit code. The report file gets this run as `track`."""
    from agent.runs.link_runs import link_target
    from agent.runs.linking import TrackOptions

    def work(around: Surroundings) -> RunReport:
        return link_target(target, TrackOptions(), around)

    return _linked(server, work, ledger, report, key="track")


def _linked(
    server: ServerSettings,
    work: Callable[[Surroundings], RunReport],
    ledger: Path | None,
    report: ReportFile,
    key: str | None = None,
) -> int:
    """The exit code. That there is nothing to link is no error."""
    from agent.commands.running import nothing_to_do, watch_run
    from agent.errors import NothingToDo

    try:
        return watch_run(server, work, None, report, ledger, resumable=False, key=key)
    except NothingToDo as nothing:
        return nothing_to_do(f"no tracks   {nothing}", report, key)
