"""cvat-sidecar labels: what would become of a model's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.commands.options import model_options, model_params, server_options, server_settings

if TYPE_CHECKING:
    from agent.labels import LabelMatch


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
@server_options
def match(**values: Any) -> None:
    """Print the match, what will be dropped and why, and what may be meant instead."""
    from agent.cvat.session import open_session
    from agent.cvat.work import find_work
    from agent.label_map import load_label_map
    from agent.labels import match_labels
    from agent.models import load_model
    from agent.options import Target, parse_mapping

    server = server_settings(values)
    target = Target.of(**{kind: values[kind] for kind in Target.KINDS})
    request = parse_mapping(values["mapping"])
    label_map = load_label_map(values["label_map"]) if values["label_map"] else None
    with open_session(server) as session:
        work = find_work(session, target)
    model = load_model(values["model"], device=values["device"], options=model_params(values["params"]))
    for part in work:
        click.echo(f"task {part.task_id} {part.name!r}")
        found = match_labels(model.labels, part.labels, request=request, label_map=label_map)
        for line in _lines(found, values["threshold"], model.default_threshold):
            click.echo(f"  {line}")


def _lines(found: LabelMatch, request: float | None, default: float) -> list[str]:
    thresholds = found.thresholds(request, default)
    rows = [(name, target.label.name, target) for name, target in found.targets.items()]
    width = max([len(name) for name, _, _ in rows] + [len(dropped.name) for dropped in found.dropped])
    lines = []
    for name, task_label, target in rows:
        more = f", attributes {', '.join(target.attributes)}" if target.attributes else ""
        lines.append(
            f"{name:<{width}}  ->  {task_label} ({target.label.type}), {target.how},"
            f" threshold {thresholds.of(name):g}{more}"
        )
    for dropped in found.dropped:
        advice = f"; did you mean {' or '.join(map(repr, dropped.suggestions))}?" if dropped.suggestions else ""
        lines.append(f"{dropped.name:<{width}}  dropped: {dropped.reason}{advice}")
    if found.unused:
        lines.append(f"labels of the task that stay unused: {', '.join(label.name for label in found.unused)}")
    return lines
