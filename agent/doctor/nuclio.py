"""The gateway door, as CVAT sees it: whether its menus are on, and whether its functions come from us."""

from __future__ import annotations

import json
import re
from typing import Any

from agent.cvat.work import media
from agent.doctor.account import LOGIN, SIGHT
from agent.doctor.findings import Check, Finding, counted, failed, ok, skipped, warning
from agent.doctor.patient import Answer, Patient
from agent.doctor.ports import GATEWAY as OWN
from agent.settings.tables import Config

FUNCTIONS, OURS = "gateway.dashboard", "gateway.functions"
CALL_SECONDS = 150.0
"""CVAT itself waits 120 s for a function."""
BOTH = "on cvat_server and cvat_worker_annotation"
METHOD = f"set CVAT_NUCLIO_INVOKE_METHOD=dashboard {BOTH}, or give gateway.direct_ports and let CVAT reach them"


def checks(config: Config) -> list[Check]:
    if config.gateway is None:
        return []
    return [
        Check("gateway.menus", _menus, needs=(LOGIN,)),
        Check(FUNCTIONS, _dashboard, needs=(LOGIN, OWN)),
        Check(OURS, _functions, needs=(FUNCTIONS,)),
        Check("gateway.call", _call, needs=(OURS, SIGHT), seconds=CALL_SECONDS + 30),
    ]


def _menus(patient: Patient) -> Finding:
    told = said(patient.ask("GET", "/api/server/plugins"))
    if isinstance(told, dict) and told.get("MODELS") is True:
        return ok("CVAT shows its AI tools")
    return failed("CVAT does not show its AI tools", "set CVAT_SERVERLESS=1 on cvat_server, and restart it")


def _dashboard(patient: Patient) -> Finding:
    answer = patient.ask("GET", "/api/lambda/functions")
    told = said(answer)
    if answer.status == 200 and isinstance(told, list):
        patient.functions = [entry for entry in told if isinstance(entry, dict)]
        return ok(f"CVAT reaches a dashboard, which has {counted(len(told), 'function')}")
    text = told if isinstance(told, str) else ""
    if answer.status == 503:
        return _unreachable(patient, text)
    if answer.status == 504:
        return failed("CVAT waits in vain for its dashboard", f"is it a firewall? {_point_at_us(patient)}")
    if "for url" in text and answer.status in (401, 403):
        mend = "add CVAT's address to gateway.allow; where a secret is set, CVAT_NUCLIO_HOST=any:SECRET@HOST"
        return failed(f"the dashboard does not let CVAT in ({answer.status})", mend)
    if answer.status in (401, 403):
        return failed(f"this user may not see CVAT's functions ({answer.status})", "use a login of a person or a bot")
    if "for url" in text or answer.status >= 500:
        what = f"what CVAT takes for its dashboard answers wrongly ({answer.status})"
        return failed(f"{what}: it may be another program", _point_at_us(patient))
    return failed(f"CVAT answers {answer.status} when asked for its functions", "look at the log of cvat_server")


def _unreachable(patient: Patient, text: str) -> Finding:
    """CVAT's own words name the host and the port that it has tried."""
    found = re.search(r"host='([^']*)', port='?(\d+)", text) or re.search(r"://([^/:\s]+):(\d+)", text)
    where = f" at {found[1]}:{found[2]}" if found else ""
    if patient.own_functions is None:
        mend = "start `cvat-sidecar serve`, then ask again; CVAT_NUCLIO_HOST and _PORT have to name this machine"
        return warning(f"nobody answers CVAT{where}, where it looks for functions; nor does our gateway run", mend)
    return failed(f"CVAT does not reach its dashboard{where}, while our gateway runs", _point_at_us(patient))


def _point_at_us(patient: Patient) -> str:
    gateway = patient.config.gateway
    port = gateway.port if gateway else 8070
    return f"let CVAT_NUCLIO_HOST and CVAT_NUCLIO_PORT={port} {BOTH} name this machine, and no_proxy its name"


def _functions(patient: Patient) -> Finding:
    """Whether what CVAT shows is what our gateway has, and not another dashboard's."""
    shown = {str(entry.get("id")): entry for entry in patient.functions}
    wanted = {model.id for model in patient.config.models if "gateway" in model.doors}
    own = patient.own_functions
    if own is None:
        if wanted & shown.keys():
            return ok(f"CVAT shows {', '.join(sorted(wanted & shown.keys()))}, from a gateway that is not here")
        return skipped("our gateway does not run here, or does not let us ask", blocks=True)
    if lost := sorted(own.keys() - shown.keys()):
        others = f"; it shows {', '.join(sorted(shown)[:5])}" if shown else ""
        return failed(f"CVAT does not show {', '.join(lost)}, which our gateway has{others}", _point_at_us(patient))
    other = [name for name, function in own.items() if not _same(function, shown[name])]
    if other:
        what = f"CVAT shows another {', '.join(other)} than our gateway has"
        return failed(f"{what}: another sidecar answers it", _point_at_us(patient))
    if not own:
        return skipped("our gateway has no functions to show yet", blocks=True)
    return ok(f"CVAT shows what our gateway has: {', '.join(own)}")


def _same(function: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether CVAT's entry was made of our function object."""
    notes = function["metadata"].get("annotations", {})
    description = function.get("spec", {}).get("description")
    names = [label.get("name") for label in entry.get("labels_v2", ())]
    own = [label.get("name") for label in json.loads(notes.get("spec") or "[]")]
    said_of_it = (entry.get("name"), entry.get("kind"), entry.get("description"), names)
    return said_of_it == (notes.get("name"), notes.get("type"), description, own)


# ------------------------------------------------------------------- one call


def _call(patient: Patient) -> Finding:
    """One frame through CVAT and back. Nothing is stored; which way CVAT calls can be told from its errors only."""
    if not patient.try_call:
        return skipped("calling a model takes a while; --try-call does it")
    ours = {model.id for model in patient.config.models if "gateway" in model.doors}
    entry = next((e for e in _by_kind(patient.functions) if str(e.get("id")) in ours), None)
    if entry is None:
        return skipped("none of our functions can be called for one frame")
    jobs = patient.session.request("GET", "/api/jobs", query={"page_size": 50, "sort": "-updated_date"}).json()
    job = next((row for row in jobs["results"] if _has_pictures(row)), None)
    if job is None:
        return skipped("this user sees no job with pictures")
    body = {"job": job["id"], "frame": job["start_frame"], **_marks(entry)}
    answer = patient.ask("POST", f"/api/lambda/functions/{entry['id']}", body, CALL_SECONDS)
    what = f"{entry['id']} on frame {job['start_frame']} of job {job['id']}"
    if answer.status == 200:
        return ok(f"{what} answers; batch runs go out from cvat_worker_annotation, whose settings cannot be seen here")
    return _went_wrong(what, answer)


def _has_pictures(job: dict[str, Any]) -> bool:
    return media(job) in ("image", "video") and job.get("start_frame") is not None and job.get("type") == "annotation"


def _by_kind(functions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    order = {"detector": 0, "interactor": 1, "tracker": 2}
    return sorted((e for e in functions if e.get("kind") in order), key=lambda entry: order[entry["kind"]])


def _marks(entry: dict[str, Any]) -> dict[str, Any]:
    """What a person would have marked."""
    box = [10.0, 10.0, 40.0, 40.0]
    if entry["kind"] == "tracker":
        return {"shapes": [{"type": "rectangle", "points": box}]}
    if entry["kind"] == "detector":
        return {}
    marks: dict[str, Any] = {"pos_points": [[20.0, 20.0]] * max(1, entry.get("min_pos_points") or 0)}
    marks["neg_points"] = [[2.0, 2.0]] * max(0, entry.get("min_neg_points") or 0)
    if entry.get("startswith_box"):
        marks["obj_bbox"] = [box[:2], box[2:]]
    return marks


def _went_wrong(what: str, answer: Answer) -> Finding:
    text = said(answer)
    text = text if isinstance(text, str) else ""
    if "/api/function_invocations" in text:
        mend = "look at the log of `cvat-sidecar serve`: it has the reason, CVAT loses it"
        return failed(
            f"{what}: the gateway answers {answer.status}; CVAT calls by way of the dashboard, as it should", mend
        )
    if answer.status == 503:
        return failed(f"{what}: CVAT does not reach the function ({text[:120]}): it calls in `direct` mode", METHOD)
    if answer.status == 504:
        return failed(f"{what}: no answer in time", "use a smaller model, or a faster machine; CVAT waits 120 s")
    if "for url" in text:
        return failed(f"{what}: CVAT calls in `direct` mode, and {answer.status} comes back ({text[:120]})", METHOD)
    if answer.status >= 500:
        return failed(f"{what}: CVAT itself fails ({answer.status}), as it does when a function has no port", METHOD)
    return failed(f"{what}: CVAT answers {answer.status} {text[:120]}", "look at the log of cvat_server")


def said(answer: Answer) -> Any:
    """The JSON of an answer; None where it is none."""
    try:
        return json.loads(answer.content)
    except ValueError:
        return None
