"""cvat-sidecar labels: what would become of a model's labels."""

from __future__ import annotations

from typing import Any

import click

from agent.commands.options import check_config, chosen_model, model_options, server_options, server_settings

MOST = 20
"""Names of labels in a line."""


@click.group("labels")
def command() -> None:
    """See how a model's labels match a task's."""


@command.command("match")
@click.option("--task", type=click.IntRange(min=1), metavar="N")
@click.option("--job", type=click.IntRange(min=1), metavar="N")
@click.option("--project", type=click.IntRange(min=1), metavar="N")
@model_options
@click.option(
    "--map", "mapping", multiple=True, metavar='"A=B"', help="Model label A becomes task label B; 'A=' drops it."
)
@click.option("--label-map", metavar="NAME|FILE", help="A label map by name or a TOML file.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="As for annotate.")
@click.option("--all-labels", is_flag=True, help="Name every dropped label.")
@server_options
def match(**values: Any) -> None:
    """Print the match, what will be dropped and why, and what may be meant instead."""
    from agent.compose.named import open_named
    from agent.cvat.session import open_session
    from agent.cvat.work import find_work
    from agent.errors import LabelMismatch, ModelError
    from agent.labels.maps import load_label_map
    from agent.labels.matching import check_match, find_match
    from agent.options import Target, parse_mapping

    target = Target.of(**{kind: values[kind] for kind in Target.KINDS})
    check_config(values)
    values = chosen_model(values)
    server = server_settings(values)
    request = parse_mapping(values["mapping"])
    label_map = load_label_map(values["label_map"]) if values["label_map"] else None
    with open_session(server) as session:
        work = find_work(session, target)
    model = open_named(values["model"], device=values["device"], options=values["params"])
    model.close()
    if not model.labels:
        raise ModelError(f"{values['model']}: it is a model of the kind {model.kind}, which has no labels")
    hopeless: LabelMismatch | None = None
    for part in work:
        click.echo(f"task {part.task_id} {part.name!r}")
        found = find_match(model.labels, part.labels, request=request, label_map=label_map)
        most = len(model.labels) if values["all_labels"] else MOST
        for line in found.lines(found.thresholds(values["threshold"], model.default_threshold), most):
            click.echo(f"  {line}")
        try:
            check_match(found, model.labels, part.labels)
        except LabelMismatch as error:
            hopeless = error
    if hopeless is not None:
        raise hopeless
