"""cvat-sidecar enrich: shapes and tracks that a task already has, looked at again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.commands.options import (
    check_config,
    ledger_option,
    ledger_path,
    model_options,
    model_params,
    server_options,
    server_settings,
)

_FILE = click.Path(dir_okay=False, path_type=Path)
GIVES = ("attribute", "text", "label", "mask", "skeleton", "identity")


@click.command("enrich")
@click.option("--task", type=click.IntRange(min=1), metavar="N", help="Look at the shapes and tracks of this task.")
@click.option("--job", type=click.IntRange(min=1), metavar="N", help="Of this job.")
@click.option("--project", type=click.IntRange(min=1), metavar="N", help="Of all tasks of this project.")
@model_options
@click.option(
    "--gives",
    type=click.Choice(GIVES),
    required=True,
    help="attribute or label: a classifier's best; text: a reader's words; mask: an interactor's answer to the"
    " rectangle; skeleton: a pose; identity: the same number for the same face or person, by a reidentifier.",
)
@click.option("--attribute", default="", metavar="NAME", help="The attribute that it goes into.")
@click.option(
    "--into", default="", metavar="NAME", help="The label of masks and skeletons [default: that of the rectangle]."
)
@click.option("--label", "labels", multiple=True, metavar="NAME", help="Only those of this label; repeatable.")
@click.option(
    "--of",
    type=click.Choice(["own", "auto", "all"]),
    default="own",
    show_default=True,
    help="Which of them: what cvat-sidecar made and nobody changed, what any model made, or all.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 2),
    default=0.0,
    show_default=True,
    help="Show the model so much around a shape, in parts of its sides.",
)
@click.option(
    "--max-distance",
    type=click.FloatRange(0, 2),
    default=0.4,
    show_default=True,
    help="Of identities: the cosine distance up to which two are the same one.",
)
@click.option("--quality", type=click.Choice(["compressed", "original"]), default="compressed", show_default=True)
@click.option("--dry-run", is_flag=True, help="Do everything but change.")
@click.option("--report", type=_FILE, metavar="FILE.json", help="Write the report as JSON.")
@ledger_option
@server_options
def command(**values: Any) -> int:
    """Look again at the shapes and tracks of a task, a job or a project with a second model.

    Attributes, texts, labels and identities are written into the shapes and tracks, which keep their ids; masks and
    skeletons take the place of the rectangles. A track is looked at on several of its frames, and has what most of them
    say. Each job is backed up before it is changed.
    """
    from agent.commands.options import reid_params
    from agent.commands.report_file import ReportFile
    from agent.commands.running import nothing_to_do, watch_run
    from agent.compose.named import opener_for
    from agent.enrich.places import ON_FRAMES, EnrichOptions
    from agent.enrich.runs import enrich_target
    from agent.errors import ConfigError, NothingToDo
    from agent.options import Target
    from agent.report import RunReport
    from agent.runs.surroundings import Surroundings
    from agent.settings.service import load_models

    target = Target.of(**{kind: values.pop(kind) for kind in Target.KINDS})
    check_config(values)
    models = load_models(values["config"])
    opener = opener_for(models)
    ledger = ledger_path(values)
    server = server_settings(values)
    params, device, dry_run = model_params(values.pop("params")), values.pop("device"), values.pop("dry_run")
    report = values.pop("report")
    if values["gives"] == "identity":
        params = reid_params(values["model"], params, models)
    options = EnrichOptions(**values)
    if options.gives in ("attribute", "identity") and not options.attribute:
        raise ConfigError(f"--gives {options.gives}: got no --attribute, allowed: the name of one of the labels'")
    if options.into and options.gives not in ON_FRAMES:
        raise ConfigError(f"--into: got {options.into!r} with --gives {options.gives}, allowed: with mask and skeleton")

    def work(around: Surroundings) -> RunReport:
        return enrich_target(target, options, around, device=device, params=params, opener=opener, dry_run=dry_run)

    file = ReportFile(report)
    try:
        return watch_run(server, work, None, file, ledger, resumable=False)
    except NothingToDo as nothing:
        return nothing_to_do(f"nothing     {nothing}", file)
