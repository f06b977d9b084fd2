"""The status page as HTML, made of the values of `agent.web.status`; without its script it loads itself again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from agent.web.markup import Child, Html, join, table, tag

Values = Mapping[str, Any]
UNDOABLE = ("done", "interrupted", "failed")


def status_page(values: Values, token: str, refusal: str | None = None) -> Html:
    """The page with all its parts."""
    found = parts(values, token)
    sections = [tag("section", found[name], id=name, aria_labelledby=f"{name}-title") for name in PARTS]
    return _document("cvat-sidecar", tag("p", refusal, class_="bad", role="alert") if refusal else None, sections)


def parts(values: Values, token: str) -> dict[str, Html]:
    """The inside of each section by its id; the script fetches them again and again."""
    return {name: join([tag("h2", title, id=f"{name}-title"), make(values, token)])
            for name, (title, make) in PARTS.items()}  # fmt: skip


def run_page(run: Values, made: Mapping[str, int], undo: Values | None, token: str, refusal: str | None = None) -> Html:
    """One run, and the button that takes it back."""
    rows = [
        ("status", run["status"]), ("target", run["target"]), ("server", run["server"]), ("user", run["user"]),
        ("model", f"{run['model']} (version {run['model_version']})"), ("begun", _moment(run["created"])),
        ("frames", _frames(run)), ("annotations created", _annotations(run)),
        ("of these still there, as far as we know", ", ".join(f"{n} {kind}" for kind, n in made.items())),
    ]  # fmt: skip
    undoing = bool(undo and undo["running"])
    body = [
        tag("p", tag("a", "Back to the status page", href="/")),
        tag("h2", f"Run {run['id']}"),
        tag("p", refusal, class_="bad", role="alert") if refusal else None,
        table(f"Run {run['id']}", ("what", "value"), rows, ""),
        tag("h2", "Undo"),
        _undo_result(undo) if undo else None,
        None if undoing else _undo_form(run, token),
    ]
    # Until it is done, the page loads itself again; there is nothing on it that could be lost by that.
    return _document(f"Run {run['id']} – cvat-sidecar", body, [], refresh=2 if undoing else None)


# ------------------------------------------------------------------ the parts


def _service(values: Values, token: str) -> Child:
    state = tag("strong", "ready", class_="good") if values["ready"] else tag("strong", "not ready", class_="bad")
    memory = _bytes(sum(model["memory"] for model in values["models"]))
    if values["memory_budget"]:
        memory += f" of {_bytes(values['memory_budget'])}"
    lanes = ", ".join(f"{lane['name']} {lane['taken']} of {lane['places']}" for lane in values["lanes"])
    facts = [
        ("Version", values["version"]), ("CVAT server", values["server"]), ("Up for", _span(values["seconds_up"])),
        ("Places taken", lanes), ("Memory of models", memory),
        ("Memory of embeddings", f"{_bytes(values['embeddings']['bytes'])} of {_bytes(values['embeddings']['limit'])}"),
    ]  # fmt: skip
    return [
        tag("p", "The service is ", state, "."),
        tag("ul", [tag("li", line) for line in values["obstacles"]]) if values["obstacles"] else None,
        _not_taken(values["not_taken"]),
        tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts]),
    ]


def _not_taken(lines: Sequence[str]) -> Child:
    if not lines:
        return None
    text = "service.toml was changed, and is not taken; what held before still does:"
    return [tag("p", text, class_="bad", role="alert"), tag("ul", [tag("li", line) for line in lines])]


def _doors(values: Values, token: str) -> Child:
    rows = [(door["name"], _word("well" if door["ok"] else "not well"), door["text"]) for door in values["doors"]]
    return table("Ways in for requests", ("door", "state", "what it says"), rows, "No door is open.")


def _running(values: Values, token: str) -> Child:
    rows = [
        (row["what"], f"{row['door']} {row['kind']}", row["model"], _progress(row), _span(row["seconds"]),
         _cancel_form(row, token))
        for row in values["running"]
    ]  # fmt: skip
    columns = ("request", "kind", "model", "progress", "for", "stop")
    return table("Requests that are worked on", columns, rows, "Nothing is being worked on.")


def _models(values: Values, token: str) -> Child:
    rows = [
        (
            [tag("span", row["title"]), tag("small", f" {row['id']}") if row["title"] != row["id"] else None],
            _word(row["status"]),
            row["kind"] or "not known yet",
            tag("code", row["reference"]),
            _bytes(row["memory"]) if row["memory"] else "–",
            f"{row['users']} ({row['depth']} waiting)" if row["depth"] else str(row["users"]),
            tag("span", row["error"], class_="bad") if row["error"] else "",
        )
        for row in values["models"]
    ]
    columns = ("model", "state", "kind", "reference", "memory", "users", "error")
    return table("Models that this service offers", columns, rows, "No model is configured.")


def _runs(values: Values, token: str) -> Child:
    if values["runs_error"]:
        return tag("p", values["runs_error"], class_="bad")
    rows = [
        (
            tag("a", row["id"], href=f"/runs/{row['id']}", id=f"run-{row['id']}"),
            row["target"],
            row["model"],
            _word(row["status"]),
            _frames(row),
            _annotations(row),
            _moment(row["created"]),
            _undo_link(row, values["undoing"].get(row["id"])),
        )
        for row in values["runs"]
    ]
    columns = ("run", "target", "model", "state", "frames", "annotations", "begun", "undo")
    return table("The last runs of the ledger", columns, rows, "No runs yet.")


def _finished(values: Values, token: str) -> Child:
    rows = [
        (row["what"], f"{row['door']} {row['kind']}", row["model"], _word(row["outcome"]), _span(row["seconds"]),
         _ended(row))
        for row in values["finished"][:20]
    ]  # fmt: skip
    return table(
        "Requests that ended lately", ("request", "kind", "model", "outcome", "took", "ended"), rows, "None yet."
    )


def _errors(values: Values, token: str) -> Child:
    rows = [
        (row["what"], f"{row['door']} {row['kind']}", row["model"], row["detail"] or row["error"], _ended(row),
         tag("code", row["id"]))
        for row in values["errors"][:20]
    ]  # fmt: skip
    columns = ("request", "kind", "model", "error", "when", "in the log as")
    return table("Requests that failed lately", columns, rows, "None.")


PARTS: dict[str, tuple[str, Callable[[Values, str], Child]]] = {
    "service": ("Service", _service),
    "running": ("Running", _running),
    "models": ("Models", _models),
    "doors": ("Doors", _doors),
    "runs": ("Runs", _runs),
    "errors": ("Errors", _errors),
    "finished": ("Finished", _finished),
}


# ------------------------------------------------------------------- elements


def _document(title: str, above: Child, sections: Iterable[Child], refresh: int | None = None) -> Html:
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="refresh", content=refresh) if refresh else None,
        None if refresh else tag("noscript", tag("meta", http_equiv="refresh", content=10)),
        tag("title", title),
        tag("link", rel="icon", href="/icon.svg", type="image/svg+xml"),
        tag("link", rel="stylesheet", href="/status.css"),
        tag("script", src="/status.js", defer=True),
    ]
    notice = tag("p", "", id="notice", role="status", class_="bad", hidden=True)
    body = [tag("header", tag("h1", "cvat-sidecar"), notice), tag("main", above, sections)]
    return Html("<!doctype html>" + tag("html", tag("head", head), tag("body", body), lang="en"))


def _progress(row: Values) -> Child:
    if row["cancelling"]:
        return "is being cancelled"
    if not row["total"]:
        return "begun"
    text = f"{row['done']} of {row['total']}"
    bar = tag("progress", text, value=row["done"], max=row["total"], aria_label=f"progress of {row['what']}")
    return [bar, tag("span", f" {text}")]


def _cancel_form(row: Values, token: str) -> Child:
    if not row["can_be_cancelled"] or row["cancelling"]:
        return "–"
    button = tag("button", "Cancel", tag("span", f" {row['what']}", class_="unseen"), id=f"cancel-{row['id']}")
    return _form(f"/requests/{row['id']}/cancel", token, button)


def _undo_link(row: Values, undo: Values | None) -> Child:
    if undo and undo["running"]:
        return "is being undone"
    if row["status"] not in UNDOABLE:
        return f"{row['undone']} removed" if row["undone"] is not None else "–"
    return tag("a", "Undo…", tag("span", f" run {row['id']}", class_="unseen"), href=f"/runs/{row['id']}",
               id=f"undo-{row['id']}")  # fmt: skip


def _undo_form(run: Values, token: str) -> Child:
    if run["status"] == "running":
        return tag("p", "It is still going; cancel it first.")
    checkbox = tag("input", type="checkbox", name="changed_too", value="yes", id="changed-too")
    question = (
        "This removes from the server what the run created, and nothing else. What somebody has changed since stays."
    )
    return _form(
        f"/runs/{run['id']}/undo",
        token,
        tag("p", question),
        tag("p", checkbox, tag("label", "Remove what somebody has changed, too", for_="changed-too")),
        tag("p", tag("button", f"Undo run {run['id']}", id="undo")),
    )


def _undo_result(undo: Values) -> Child:
    if undo["running"]:
        return tag("p", "The run is being undone…", role="status")
    if undo["error"]:
        return tag("p", f"It could not be undone: {undo['error']}", class_="bad", role="alert")
    return tag("div", [tag("p", line) for line in undo["lines"]], role="status", id="undone")


def _form(action: str, token: str, *children: Child) -> Html:
    hidden = tag("input", type="hidden", name="token", value=token)
    return tag("form", hidden, *children, method="post", action=action)


def _word(word: str) -> Html:
    kinds = {"ready": "good", "done": "good", "well": "good", "failed": "bad", "not well": "bad"}
    return tag("span", word, class_=kinds.get(word))


def _frames(row: Values) -> str:
    frames = row["frames"]
    if frames["total"] is None:
        return "–"
    return f"{frames['done']} of {frames['total']}" + (f", {frames['skipped']} skipped" if frames["skipped"] else "")


def _annotations(row: Values) -> str:
    return f"{row['annotations']} uploaded so far" if row["status"] == "running" else str(row["annotations"])


def _ended(row: Values) -> Child:
    return _moment(datetime.fromtimestamp(row["ended"]).astimezone().isoformat()) if row["ended"] else ""


def _moment(text: str) -> Child:
    """A time of the machine's own zone, which it tells to whoever points at it."""
    at = datetime.fromisoformat(text).astimezone()
    whole = at.isoformat(timespec="seconds")
    return tag("time", at.strftime("%Y-%m-%d %H:%M:%S"), datetime=whole, title=f"{at:%Z}, {whole}")


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours < 1:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
