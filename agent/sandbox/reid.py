"""Re-identification: rectangles of neighbouring frames become tracks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from agent.sandbox import labeled_data, nuclio
from agent.sandbox.annotation_form import TaskLabels
from agent.sandbox.lambda_functions import picture
from agent.sandbox.records import JSON, Data, Job, Task
from agent.sandbox.state import State


def run(
    state: State,
    function: JSON,
    task: Task,
    job: Job | None,
    data: Data,
    params: JSON,
    progress: Callable[[int], None],
) -> None:
    """Asks for each pair of neighbouring frames which boxes are the same, then replaces all rectangles by tracks."""
    labels = TaskLabels(state, task)
    kept = labeled_data.read_job(state, job, labels) if job else labeled_data.read_task(state, task)
    numbers = job.numbers if job else list(range(data.size))
    boxes: dict[int, list[JSON]] = {number: [] for number in numbers}
    for shape in kept["shapes"]:
        if shape["type"] == "rectangle" and shape["frame"] in boxes:
            boxes[shape["frame"]].append(copy.deepcopy(shape))
    paths: dict[int, list[JSON]] = {}
    settings = {"threshold": params.get("threshold", 0.5), "max_distance": params.get("max_distance", 50)}
    for frame, following in pairwise(numbers):
        _begin_paths(paths, boxes[frame])
        if boxes[frame] and boxes[following]:
            pictures = {"image0": picture(state, data, frame), "image1": picture(state, data, following)}
            payload = {**settings, **pictures, "boxes0": boxes[frame], "boxes1": boxes[following]}
            _follow_paths(paths, boxes[frame], boxes[following], nuclio.invoke(state, function, payload))
        progress(frame + 1)
    if numbers:
        _begin_paths(paths, boxes[numbers[-1]])
    tracks = [_track(path, numbers[-1]) for path in paths.values()]
    rest = [shape for shape in kept["shapes"] if shape["type"] != "rectangle" or shape["frame"] not in boxes]
    found = {"tags": kept["tags"], "shapes": rest, "tracks": [*kept["tracks"], *tracks]}
    _replace(state, task, job, found)


def _begin_paths(paths: dict[int, list[JSON]], boxes: list[JSON]) -> None:
    for box in boxes:
        if "path_id" not in box:
            box["path_id"] = len(paths)
            paths[box["path_id"]] = [box]


def _follow_paths(paths: dict[int, list[JSON]], boxes: list[JSON], following: list[JSON], matching: Any) -> None:
    for at, match in enumerate(matching):
        if match >= 0:
            path_id = boxes[at]["path_id"]
            following[match]["path_id"] = path_id
            paths[path_id].append(following[match])


def _track(path: list[JSON], last: int) -> JSON:
    names = ("type", "frame", "occluded", "z_order", "rotation", "points", "attributes")
    for box in path:
        box.pop("path_id")  # a box of two paths is an error: an index was answered twice
    shapes = [{**{name: box[name] for name in names}, "id": None, "outside": False} for box in path]
    if shapes[-1]["frame"] < last:
        shapes.append({**shapes[-1], "frame": shapes[-1]["frame"] + 1, "outside": True})
    head = {name: path[0][name] for name in ("label_id", "frame", "group")}
    for shape in shapes:
        shape["attributes"] = []
    return {"id": None, **head, "source": "auto", "attributes": [], "shapes": shapes, "elements": []}


def _replace(state: State, task: Task, job: Job | None, found: dict[str, list[JSON]]) -> None:
    with state.store.change():
        if job is None:
            labeled_data.clear_task(state, task)
            labeled_data.add_to_task(state, task, found)
            return
        state.annotations.clear(job.id)
        for kind, items in found.items():
            for item in items:
                labeled_data.store(state, job, kind, item)
        state.touch(job)
