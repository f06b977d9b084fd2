"""Interactors: clicks, boxes and words in, masks out."""

from __future__ import annotations

import json
from typing import Any

from agent.contract import Detection, PromptNeeds, Prompts
from agent.doors.gateway.call import Refused
from agent.doors.gateway.payload import Payload
from agent.doors.gateway.replies import drawn
from agent.filters import Filters, filter_detections
from agent.interaction import check_prompts
from agent.labels.matching import Thresholds
from agent.shapes.editor_masks import as_mask

CONFIDENCE = 0
"""The id of the attribute by which an interactor tells its score."""
_EVERYTHING = Filters(Thresholds(0.0, {}, 0.0))


def asked_prompts(payload: Payload, needs: PromptNeeds) -> Prompts:
    """What was marked. Refused where it is nothing that the model understands."""
    prompts = Prompts(
        positive=payload.points("pos_points"),
        negative=payload.points("neg_points"),
        box=payload.box("obj_bbox"),
        texts=payload.texts("text_prompts"),
    )
    if prompts.texts and not needs.texts:
        raise Refused("text_prompts: this model understands no words, allowed: points or a box")
    if not (prompts.positive or prompts.box is not None or prompts.texts):
        raise Refused("prompts: got none, allowed: at least a positive point, a box or, for some models, words")
    if not prompts.texts:  # words can stand alone
        check_prompts(prompts, needs)
    return prompts


def write_masks(found: list[Detection], size: tuple[int, int]) -> bytes:
    """The reply for a picture of `size` (width, height), the best first.

    Masks as run lengths and not as rows of the whole picture, which CVAT would take too: they are a thousandth of it.
    """
    kept, _ = filter_detections(found, *size, _EVERYTHING)
    shapes = []
    for detection in kept:
        if detection.shape is None or (shape := as_mask(detection.shape, size)) is None:
            continue
        item = drawn(shape)
        if detection.score is not None:
            item["attributes"] = [{"spec_id": CONFIDENCE, "value": f"{float(detection.score):.4f}"}]
        shapes.append(item)
    reply: dict[str, Any] = {"shapes": shapes}
    return json.dumps(reply, separators=(",", ":"), allow_nan=False).encode()
