"""What the replies of functions become: annotations of a frame, a mask of the whole picture, signed states.

Replies outside their form raise KeyError, TypeError and the like, as they do at CVAT: a server error page for a direct
call, a failed request for a batch.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
from typing import Any

from agent.sandbox.annotation_form import TaskLabels, checked
from agent.sandbox.exchange import Refusal
from agent.sandbox.lambda_labels import LabelMatch
from agent.sandbox.records import JSON, Task
from agent.sandbox.state import State

_STATE_AGE = 8 * 3600


def detections(
    reply: Any, matches: dict[str, LabelMatch], labels: TaskLabels, frame: int, *, to_polygons: bool, roi: Any
) -> dict[str, list[JSON]]:
    """Tags and shapes from a detector's reply, checked as a client's would be; items of other labels are dropped."""
    if not isinstance(reply, list):
        raise TypeError("a detector answers with a list")
    sent: dict[str, list[JSON]] = {"tags": [], "shapes": []}
    for item in reply:
        match = matches.get(item["label"])
        if match is None:
            continue
        if item["type"] == "tag":
            attributes = match.attribute_values(item.get("attributes", []))
            sent["tags"].append(
                {"label_id": match.label.id, "frame": frame, "source": "auto", "attributes": attributes}
            )
            continue
        shape = _shape(item, match, labels, frame, to_polygons)
        if shape is not None:
            sent["shapes"].append(shape)
    found = checked(sent, labels)
    if roi:
        for shape in found["shapes"]:
            shift(shape, roi[0], roi[1])
    return found


def _shape(item: JSON, match: LabelMatch, labels: TaskLabels, frame: int, to_polygons: bool) -> JSON | None:
    kind = item["type"]
    shape: JSON = {
        "label_id": match.label.id,
        "type": kind,
        "frame": frame,
        "source": "auto",
        "group": item.get("group_id", 0),
        "attributes": match.attribute_values(item.get("attributes", [])),
        "points": item.get("points", []),
    }
    if kind in ("rectangle", "ellipse"):
        shape["rotation"] = item.get("rotation", 0.0)
    if kind == "mask":
        if to_polygons and item.get("points"):
            shape["type"] = "polygon"
        else:
            shape["points"] = _run_lengths(item["mask"])
    if kind == "skeleton":
        shape["points"] = []
        shape["elements"] = _elements(item["elements"], match, labels, frame)
        if all(element["outside"] for element in shape["elements"]):
            return None
    return shape


def _elements(sent: list[JSON], match: LabelMatch, labels: TaskLabels, frame: int) -> list[JSON]:
    """A skeleton's elements; those that are not found lie hidden in the middle of the others."""
    found: dict[int, JSON] = {}
    for element in sent:
        sub = match.sublabels.get(element["label"])
        if sub is not None:
            found[sub.label.id] = {
                "label_id": sub.label.id,
                "type": element["type"],
                "frame": frame,
                "source": "auto",
                "points": element.get("points", []),
                "outside": bool(element.get("outside", False)),
                "attributes": sub.attribute_values(element.get("attributes", [])),
            }
    all_points = [element["points"] for element in found.values()]
    xs = [x for points in all_points for x in points[0::2]]
    ys = [y for points in all_points for y in points[1::2]]
    middle = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2] if xs else [0.0, 0.0]
    hidden = {"type": "points", "frame": frame, "source": "auto", "points": middle, "outside": True}
    subs = [label for label in labels.by_id.values() if label.parent_id == match.label.id]
    return [found.get(sub.id) or {**hidden, "label_id": sub.id, "attributes": []} for sub in subs]


def _run_lengths(mask: list[Any]) -> list[float]:
    """CVAT's run lengths (zeros first) and box, from a flat list of zeros and ones and its box."""
    bits, box = mask[:-4], mask[-4:]
    if not bits:
        raise ValueError("a mask needs pixels and its box")
    runs: list[float] = [] if not bits[0] else [0]
    runs += [len(list(run)) for _, run in itertools.groupby(bits, key=bool)]
    return [*runs, *(int(number) for number in box)]


def shift(shape: JSON, x: float, y: float) -> None:
    """Moves a shape; of a mask only the box."""
    points = shape.get("points") or []
    start = len(points) - 4 if shape.get("type") == "mask" else 0
    moved = [number + (x, y)[at % 2] for at, number in enumerate(points[start:])]
    shape["points"] = [*points[:start], *moved]
    for element in shape.get("elements", []):
        shift(element, x, y)


def agent_annotations(state: State, task: Task, params: JSON, result: JSON) -> dict[str, list[JSON]]:
    """An agent's detections, checked, of source auto, moved to their place in the frame."""
    sent = result.get("annotations")
    if not isinstance(sent, dict):
        raise Refusal(400, {"annotations": ["This field is required."]})
    found = checked({**sent, "tracks": []}, TaskLabels(state, task))
    for item in [*found["tags"], *found["shapes"]]:
        item["source"] = "auto"
        for element in item.get("elements", []):
            element["source"] = "auto"
    if params.get("roi"):
        for shape in found["shapes"]:
            shift(shape, params["roi"][0], params["roi"][1])
    return found


def as_answer(found: dict[str, list[JSON]]) -> JSON:
    """The annotations of a direct call: nothing is stored, so there are no ids, and scores are not told."""
    for shape in found["shapes"]:
        shape["score"] = 1
        if not shape["elements"]:
            del shape["elements"]
    return {"version": 0, "tags": found["tags"], "shapes": found["shapes"], "tracks": [], "intervals": []}


def interaction(reply: Any, roi: Any, size: tuple[int, int]) -> Any:
    """An interactor's reply, unchecked; with a region its mask is put into the whole picture, shapes are moved."""
    if not roi or not isinstance(reply, dict):
        return reply
    if "mask" in reply:
        left, top, right, bottom = (int(number) for number in roi)
        rows = reply["mask"]
        if len(rows) != bottom - top or any(len(row) != right - left for row in rows):
            raise ValueError("the mask is not of the region's size")
        width, height = size
        full = [[0] * width for _ in range(height)]
        for at, row in enumerate(rows):
            full[top + at][left:right] = row
        return {**reply, "mask": full}
    for shape in reply.get("shapes", []):
        shift(shape, roi[0], roi[1])
    return reply


def _signature(state: State, salt: str, text: str) -> str:
    return hmac.new(state.secret, f"{salt}:{text}".encode(), hashlib.sha256).hexdigest()


def sign_state(state: State, salt: str, value: Any) -> str:
    """A tracker's state as clients keep it: readable, bound to the function and the time."""
    text = f"{json.dumps(value, separators=(',', ':'))}:{int(time.time())}"
    return f"{text}:{_signature(state, salt, text)}"


def read_state(state: State, salt: str, signed: Any) -> Any:
    """The state that was signed; refuses those of other functions and old ones."""
    text, _, signature = str(signed).rpartition(":")
    value, _, moment = text.rpartition(":")
    right = hmac.compare_digest(signature.encode(), _signature(state, salt, text).encode())
    if not right or not moment.isdigit() or int(moment) + _STATE_AGE < time.time():
        raise Refusal(400, "Invalid or expired tracker state")
    return json.loads(value)
