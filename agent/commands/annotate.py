"""cvat-sidecar annotate: a model's detections for a task, a job or a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.commands.options import (
    check_config,
    chosen_model,
    ledger_option,
    ledger_path,
    model_options,
    server_options,
    server_settings,
)

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("annotate")
@click.option("--task", type=click.IntRange(min=1), metavar="N", help="Annotate this task.")
@click.option("--job", type=click.IntRange(min=1), metavar="N", help="Annotate this job.")
@click.option("--project", type=click.IntRange(min=1), metavar="N", help="Annotate all tasks of this project.")
@model_options
@click.option("--threshold", type=click.FloatRange(0, 1), help="Keep what scores at least this [default: the model's].")
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar='"A=B"',
    help="Model label A becomes task label B; 'A=' drops it.",
)
@click.option("--label-map", metavar="NAME|FILE", help="A label map by name (see label_maps/) or a TOML file.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Frames that the model gets at once [default: the model's].",
)
@click.option("--quality", type=click.Choice(["compressed", "original"]), default="compressed", show_default=True)
@click.option(
    "--frames",
    "selection",
    default="all",
    show_default=True,
    metavar="WHICH",
    help="all, empty (no annotations yet), 0-99,200, every:10, random:50; or several joined by '+', one after the"
    " other: each narrows what those before it have left, so that every:5+10-12 is frame 10.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="For --frames random:N.")
@click.option("--roi", metavar="L,T,R,B", help="Show the model this part of each frame only, in pixels.")
@click.option(
    "--masks-as-polygons",
    is_flag=True,
    help="Turn masks into polygons: a group, where a mask has several parts. A slit of a pixel leads into each hole.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Of these polygons, in pixels.",
)
@click.option(
    "--skip-overlapping",
    type=click.FloatRange(0, 1),
    metavar="IOU",
    help="Leave out what overlaps a shape of the same label.",
)
@click.option(
    "--min-area",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Leave out smaller shapes, and parts of masks that become polygons, in square pixels.",
)
@click.option("--max-per-frame", type=click.IntRange(min=1), help="Keep the best N of a frame.")
@click.option(
    "--replace",
    type=click.Choice(["none", "own", "all"]),
    default="none",
    show_default=True,
    help="What makes room: nothing, what cvat-sidecar made and nobody changed, or everything (after a backup).",
)
@click.option("--ground-truth", is_flag=True, help="Ground truth jobs too.")
@click.option("--honeypots", is_flag=True, help="Honeypot frames too.")
@click.option(
    "--max-bad-frames",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Give up after more than this many.",
)
@click.option(
    "--track",
    is_flag=True,
    help="Link the rectangles to tracks afterwards; `cvat-sidecar track` does it with more options.",
)
@click.option("--dry-run", is_flag=True, help="Do everything but upload.")
@click.option(
    "--preview",
    type=_FOLDER,
    metavar="DIR",
    help="Write pictures with the shapes drawn, and a contact sheet.",
)
@click.option(
    "--report",
    type=_FILE,
    metavar="FILE.json",
    help="Write the report as JSON; with --track, that of linking is in it.",
)
@ledger_option
@server_options
def command(**values: Any) -> int:
    """Annotate a task, a job or a project with a model.

    The run is remembered: `cvat-sidecar runs` lists, resumes and undoes runs. Ctrl-C stops after the batch at hand and
    leaves a run that can be resumed; a second Ctrl-C stops at once.
    """
    from agent.commands.report_file import ReportFile
    from agent.commands.running import INTERRUPTED, run_annotation
    from agent.options import Options, Target

    target = Target.of(**{kind: values.pop(kind) for kind in Target.KINDS})
    check_config(values)
    ledger, preview, report = ledger_path(values), values.pop("preview"), ReportFile(values.pop("report"))
    values = chosen_model(values)
    server = server_settings(values)
    dry_run, track = values.pop("dry_run"), values.pop("track")
    options = Options.of(**values)
    code = run_annotation(server, target, options, dry_run=dry_run, preview=preview, report=report, ledger=ledger)
    if track and dry_run:
        click.echo("no tracks   a dry run uploads no rectangles that could be linked")
    elif track and code != INTERRUPTED:
        from agent.commands.track import link_after

        return link_after(server, target, ledger, report) or code
    return code
