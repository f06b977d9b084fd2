"""The queue door: whether the server has agents' queues, and the functions that were registered for our models."""

from __future__ import annotations

from functools import partial

from agent.cvat.functions_api import get_function
from agent.doctor.account import ORGANIZATION
from agent.doctor.findings import Check, Finding, failed, ok, skipped, warning
from agent.doctor.machine import STATE
from agent.doctor.patient import Patient
from agent.errors import ServerRefused
from agent.functions.bodies import KINDS, NotCompatible, check_compatible, kind_of
from agent.functions.ids import FunctionIds, state_folder
from agent.settings.tables import Config, ModelSettings

SERVER = "queue.server"


def checks(config: Config) -> list[Check]:
    if config.queue is None:
        return []
    models = [model for model in config.models if "queue" in model.doors]
    return [
        Check(SERVER, _server, needs=(ORGANIZATION,)),
        *(
            # Registering a model that cannot be loaded would mend nothing.
            Check(
                f"queue.function {model.id}",
                partial(_function, model=model),
                needs=(STATE, SERVER, f"models.options {model.id}"),
            )
            for model in models
        ),
    ]


def _server(patient: Patient) -> Finding:
    """The open-source server has no such route; the others answer JSON, whether the function exists or not."""
    answer = patient.ask("GET", "/api/functions/1")
    if answer.status == 404 and not answer.is_json:
        mend = "this is the open-source CVAT: take [queue] out of service.toml, and use [gateway]"
        return failed("the server has no native functions and no queue of requests", mend)
    if answer.status >= 500:
        return failed(f"the server answers {answer.status} when asked for functions", "look at the server's log")
    return ok("the server has native functions (CVAT Online or Enterprise)")


def _function(patient: Patient, model: ModelSettings) -> Finding:
    known = FunctionIds(state_folder(patient.config), patient.session).of(model)
    register = patient.command(f"functions register {model.id}")
    description = patient.describe(model)
    if known is None:
        if (kind := kind_of(model, description)) not in KINDS:
            return skipped(f"CVAT has no native functions of the kind {kind}; the other doors have it")
        return failed(f"no function of {patient.url()} stands for it", patient.command("functions register"))
    try:
        function = get_function(patient.session, known)
    except ServerRefused as error:
        return failed(f"function {known}: {error}", f"use the login that it was made with, or {register}")
    if function is None:
        return failed(f"function {known} is not there any more", register)
    if description is None:
        return skipped(f"function {known} is there; whether it fits the model is not known before --load")
    if description.kind not in KINDS:
        mend = f'give the model doors = ["gateway"]: CVAT has no native functions of the kind {description.kind}'
        return failed(f"function {known} stands for a {description.kind}", mend)
    delete = patient.command(f"functions delete {model.id}")
    try:
        check_compatible(function, description)
    except NotCompatible as error:
        if model.function_id is not None:
            register = f"take function_id out of service.toml, and {register}"
        return failed(str(error), f"{delete}, and {register}")
    if function.get("name") != model.title:
        mend = f"{delete}, and register it again, if it is to have the new name"
        return warning(f"function {known} fits; people see it as {function.get('name')!r}, not {model.title!r}", mend)
    return ok(f"function {known}, {description.kind} {function.get('name')!r}, fits the model")
