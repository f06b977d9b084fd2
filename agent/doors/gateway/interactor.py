"""Interactors: clicks, boxes and words in, masks out."""

from __future__ import annotations

import json

from agent.contract import Detection, PromptNeeds, Prompts
from agent.doors.gateway.call import Refused
from agent.doors.gateway.payload import Payload
from agent.interaction import check_prompts, editor_shapes


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
    reply = {"shapes": editor_shapes(found, size)}
    return json.dumps(reply, separators=(",", ":"), allow_nan=False).encode()
