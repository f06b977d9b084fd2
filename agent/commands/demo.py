"""cvat-sidecar demo: the main job on this machine, without a CVAT server."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agent.cvat.session import Session


@click.command("demo")
@click.option("--model", default="opencv:face", show_default=True, metavar="REF", help="The model to try.")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="An option of the model.")
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Your pictures [default: a portrait that comes with matplotlib, in four variations].",
)
@click.option("--threshold", type=click.FloatRange(0, 1), help="Keep what scores at least this [default: the model's].")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.json")
@click.option(
    "--preview",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("cvat-sidecar-demo"),
    show_default=True,
    metavar="DIR",
    help="Where the pictures with the shapes drawn go.",
)
def command(**values: Any) -> int:
    """Annotate pictures on an embedded CVAT stand-in, and draw what came of it.

    Starts the stand-in on a free port, makes a task from the pictures, annotates it as `annotate` would, reads the
    annotations back through the CVAT SDK, prints the table, and leaves a contact sheet.
    """
    from agent.commands.options import model_params

    with tempfile.TemporaryDirectory(prefix="cvat-sidecar-demo-") as folder:
        return _run(Path(folder), params=model_params(values.pop("params")), **values)


def _run(
    folder: Path,
    *,
    model: str,
    params: dict[str, Any],
    device: str,
    images: Path | None,
    threshold: float | None,
    report: Path | None,
    preview: Path,
) -> int:
    from agent.commands.report_file import ReportFile
    from agent.commands.running import run_annotation
    from agent.cvat.create import create_image_task
    from agent.cvat.session import open_session
    from agent.demo import pictures_in, portraits, task_label
    from agent.models.loading import load_model
    from agent.options import Options, Target
    from agent.sandbox import Sandbox
    from agent.settings.server import ServerSettings

    pictures = pictures_in(images) if images else portraits(folder)
    labels = [task_label(label) for label in load_model(model, device=device, options=params).labels]
    password = secrets.token_urlsafe(12)
    with Sandbox(users={"demo": password}, port=0) as sandbox:
        server = ServerSettings(host=sandbox.url, user="demo", password=password)
        with open_session(server) as session:
            task = create_image_task(session, "demo", labels, pictures)
            click.echo(f"a CVAT stand-in at {sandbox.url}, task {task}: {len(pictures)} pictures", err=True)
            options = Options(model=model, params=params, device=device, threshold=threshold, quality="original")
            target, ledger, file = Target("task", task), folder / "ledger.sqlite3", ReportFile(report)
            code = run_annotation(server, target, options, preview=preview, report=file, ledger=ledger, kept=False)
            click.echo(f"read back   {_count_stored(session, task)} annotations from the server")
    return code


def _count_stored(session: Session, task: int) -> int:
    from agent.cvat.annotations_api import get_annotations
    from agent.cvat.work import find_work
    from agent.options import Target

    jobs = [job for part in find_work(session, Target("task", task)) for job in part.jobs]
    stored = [get_annotations(session, job.id) for job in jobs]
    return sum(len(annotations.get(kind, [])) for annotations in stored for kind in ("tags", "shapes", "tracks"))
