"""cvat-sidecar models: what a model reference stands for."""

from __future__ import annotations

import click

from agent.commands.options import model_params


@click.group("models")
def command() -> None:
    """See what a model reference stands for."""


@command.command("show")
@click.argument("reference", metavar="REF")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="An option of the model.")
@click.option("--device", default="auto", show_default=True, help="Where to load it.")
@click.option("--all-labels", is_flag=True, help="Print every label.")
def show(reference: str, params: tuple[str, ...], device: str, all_labels: bool) -> None:
    """Load a model and print its kind, labels, input size, and where it came from."""
    from agent.models import load_model

    loaded = load_model(reference, device=device, options=model_params(params))
    rows = {"model": str(loaded.reference), "kind": loaded.kind, **loaded.facts}
    rows |= {"batch size": str(loaded.batch_size), "threshold": f"{loaded.default_threshold:g}"}
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        click.echo(f"{name:<{width}}{value}")
    names = [label.name if label.type == "any" else f"{label.name} ({label.type})" for label in loaded.labels]
    shown = names if all_labels or len(names) <= 12 else [*names[:10], f"… and {len(names) - 10} more (--all-labels)"]
    click.echo(f"{'labels':<{width}}{len(names)}: {', '.join(shown)}")
