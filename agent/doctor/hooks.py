"""The watch door's webhook: whether CVAT has one that comes here, and how its last delivery went."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from agent.cvat.work import pages
from agent.doctor.account import ORGANIZATION
from agent.doctor.findings import Check, Finding, counted, ok, skipped, warning
from agent.doctor.patient import Patient
from agent.errors import ServerRefused
from agent.settings.tables import Config

PATH = "/webhook"


def checks(config: Config) -> list[Check]:
    if not config.rules or config.watch.webhook_secret_env is None:
        return []
    return [Check("watch.webhook", _webhook, needs=(ORGANIZATION,))]


def _webhook(patient: Patient) -> Finding:
    port, word = patient.config.service.port, patient.config.watch.webhook_secret_env
    mend = f"make one in the project's settings: http://THIS-MACHINE:{port}{PATH}, with the secret of ${word}"
    try:
        known = list(pages(patient.session, "/api/webhooks", {}))
    except ServerRefused as error:
        return skipped(f"this user may not see webhooks ({error.status})")
    hooks = [hook for hook in known if urlsplit(str(hook.get("target_url"))).path.rstrip("/").endswith(PATH)]
    if not hooks:
        return warning("this user sees no webhook in CVAT that comes here; rules look for work by themselves", mend)
    if not any(hook.get("is_active") for hook in hooks):
        return warning(f"{counted(len(hooks), 'webhook')} here, all of them switched off", "switch one on in CVAT")
    last = [(hook, delivery) for hook in hooks if (delivery := _last(patient, hook["id"])) is not None]
    wrong = [(hook, delivery) for hook, delivery in last if not 200 <= (delivery.get("status_code") or 0) < 300]
    if wrong:
        hook, delivery = wrong[0]
        status = delivery.get("status_code")
        return warning(f"the last delivery to {hook['target_url']} came back with {status}", _mend(status))
    state = "the last deliveries went well" if last else "nothing was delivered yet"
    return ok(f"{counted(len(hooks), 'webhook')} of CVAT come here, {state}")


def _last(patient: Patient, hook: int) -> dict[str, Any] | None:
    try:
        found = patient.session.request("GET", f"/api/webhooks/{hook}/deliveries").json()["results"]
    except ServerRefused:
        return None
    return max(found, key=lambda delivery: int(delivery["id"]), default=None)


def _mend(status: int | None) -> str:
    if status in (401, 403):
        return "give the webhook in CVAT the secret that webhook_secret_env names here"
    if status == 404:
        return "is that address the status page of `cvat-sidecar serve`?"
    if status == 407:
        # CVAT delivers by way of Smokescreen, which knows public addresses only (cvat-ai/cvat#6362).
        return "CVAT delivers to no private address but SMOKESCREEN_OPTS=--allow-address=… on cvat_worker_webhooks"
    return "can cvat_worker_webhooks reach that address?"
