"""cvat-sidecar models: what a model reference stands for, and how good it is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.commands.options import check_config, model_params, server_options, server_settings

if TYPE_CHECKING:
    from agent.domain import Label

FEW_LABELS, FEW_POINTS = 12, 21
"""So many names are told without --all-labels; 21 are the points of a hand."""
NOT_ALL = 4
"""Exit code where some of the models could not be measured."""


@click.group("models")
def command() -> None:
    """See what a model reference stands for, and measure it."""


@command.command("show")
@click.argument("reference", metavar="REF")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="An option of the model.")
@click.option("--device", default="auto", show_default=True, help="Where to load it.")
@click.option("--all-labels", is_flag=True, help="Print every label, point and value.")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CVAT_SIDECAR_CONFIG",
    help="REF may be the id of one of the [[models]] of this service.toml.",
)
def show(reference: str, params: tuple[str, ...], device: str, all_labels: bool, config: Path | None) -> None:
    """Load a model and print its kind, labels with their points and attributes, input size, and where it came from."""
    from agent.compose.named import open_named
    from agent.settings.service import load_models

    models = load_models(config)
    settings = next((one for one in models if one.id == reference), None)
    loaded = open_named(reference, models, device=device, options=model_params(params))
    rows = {"model": str(loaded.reference), "kind": loaded.kind, **loaded.facts, "batch size": str(loaded.batch_size)}
    if loaded.labels:
        own = f"{loaded.default_threshold:g}"
        named = settings.threshold if settings is not None else None
        rows["threshold"] = own if named is None else f"{named:g} by {config}, {own} by itself"
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        click.echo(f"{name:<{width}}{value}")
    for name, value in _label_rows(loaded.labels, all_labels):
        click.echo(f"{name:<{width}}{value}")
    loaded.close()


def _label_rows(labels: Sequence[Label], every: bool) -> Iterator[tuple[str, str]]:
    """What a model finds: its labels, how many of each type where these differ, and their points and attributes."""
    if not labels:
        return
    yield "labels", f"{len(labels)}: {_few([f'{label.name} ({label.type})' for label in labels], FEW_LABELS, every)}"
    types = Counter(label.type for label in labels)
    if len(types) > 1:
        yield "types", ", ".join(f"{count} {kind}" for kind, count in types.most_common())
    points, attributes = dict[str, list[str]](), dict[str, list[str]]()
    for label in labels:
        if label.sublabels:
            own = [point.name for point in label.sublabels]
            points.setdefault(f"{len(own)}: {_few(own, FEW_POINTS, every)}", []).append(label.name)
        for attribute in label.attributes:
            values = attribute.values if attribute.input_type in ("select", "radio") else ()
            kind = f"{attribute.input_type}: {_few(values, FEW_LABELS, every)}" if values else attribute.input_type
            attributes.setdefault(f"{attribute.name} ({kind})", []).append(label.name)
    for title, found in (("points", points), ("attributes", attributes)):
        for text, names in found.items():
            yield title, text if len(names) == len(labels) else f"{text}, of {_few(names, FEW_LABELS, every)}"


def _few(names: Sequence[str], most: int, every: bool) -> str:
    """All of a few names; of many the first, and how many more there are."""
    if every or len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 2])}, … and {len(names) - most + 2} more (--all-labels)"


@command.command("bench")
@click.argument("references", metavar="REF…", nargs=-1, required=True)
@click.option("--truth", type=click.IntRange(min=1), required=True, metavar="JOB", help="A job that is right.")
@click.option("--task", type=click.IntRange(min=1), help="The task of the job; only to be sure that it is this one.")
@click.option("--map", "mapping", multiple=True, metavar='"A=B"', help="Model label A is the task's B; 'A=' drops it.")
@click.option("--label-map", metavar="NAME|FILE", help="Match labels by this label map.")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="An option of a single REF.")
@click.option("--device", default="auto", show_default=True, help="Where the models run.")
@click.option("--quality", type=click.Choice(["original", "compressed"]), default="original", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def bench(
    references: tuple[str, ...],
    truth: int,
    task: int | None,
    mapping: tuple[str, ...],
    label_map: str | None,
    params: tuple[str, ...],
    device: str,
    quality: str,
    as_json: bool,
    **values: Any,
) -> int:
    """Hold models against a ground truth job, or one that people have finished.

    Prints for each REF (a model reference, or an id of the [[models]] of --config) the mean average precision over IoU
    0.50 to 0.95, at 0.50, and by label; how many frames a second the model takes, and how much memory (MiB of a process
    with this model alone, and the libraries that it needs). All scores from 0.01 up count: no threshold does.
    """
    from agent.bench.models import bench_models
    from agent.options import parse_mapping

    check_config(values)
    config = values["config"]
    pairs, options = parse_mapping(mapping), model_params(params)
    rows = bench_models(
        references, server_settings(values), truth, task,
        config=config, mapping=pairs, label_map=label_map, options=options, device=device, quality=quality,
        says=lambda line: click.echo(line, err=True),
    )  # fmt: skip
    measured = [row for row in rows if "error" not in row]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _show(measured)
        for row in rows:
            if "error" in row:
                click.echo(f"Error: {row['error']}", err=True)
    return 0 if len(measured) == len(rows) else NOT_ALL


def _show(rows: Sequence[dict[str, Any]]) -> None:
    """A line for each model, then one for each label."""
    width = max(len(row["model"]) for row in rows)
    click.echo(f"{'model':<{width}}    mAP   mAP50   masks  frames/s     MiB  failed")
    for row in rows:
        masks = "     –" if row["mask_precision"] is None else f"{row['mask_precision']:6.3f}"
        memory = "     –" if row["memory"] is None else f"{row['memory'] / 2**20:6.0f}"
        click.echo(
            f"{row['model']:<{width}} {row['precision']:6.3f}  {row['precision_50']:6.3f}  {masks}"
            f"  {row['frames_per_second']:8.1f}  {memory}  {row['failed']:6}"
        )
    columns = "  ".join(f"{row['model'].rpartition('/')[2][-20:]:>20}" for row in rows)
    click.echo(f"mAP by label{'':<{max(0, width - 10)}}  {columns}")
    for label in sorted({name for row in rows for name in row["by_label"]}):
        shown = "  ".join(f"{row['by_label'].get(label, 0.0):20.3f}" for row in rows)
        click.echo(f"  {label:<{max(12, width)}}  {shown}")
    for row in rows:
        if row["failed"]:
            click.echo(f"{row['model']}: it failed on {row['failed']} of {row['frames']} frames: {row['why_failed']}")
