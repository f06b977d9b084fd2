"""A model run once on a picture that we make ourselves: whether it answers at all, and within its contract."""

from __future__ import annotations

import numpy as np

from agent.contract import Context, Frame, PromptNeeds, Prompts, Rectangle
from agent.doctor.findings import counted
from agent.errors import BadPrediction, SidecarError
from agent.models.loading import LoadedModel
from agent.predict import check_predictions

WIDTH, HEIGHT = 320, 240
BOX = Rectangle(80.0, 60.0, 240.0, 180.0)


def picture() -> Frame:
    """A grey gradient with a bright box in its middle."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    image = np.stack([x * 200 // WIDTH, y * 200 // HEIGHT, (x + y) % 200], axis=-1).astype(np.uint8)
    image[60:180, 80:240] = (230, 210, 180)
    return Frame(0, "doctor", image)


def try_model(loaded: LoadedModel) -> str:
    """What the model said of a picture, in words. BadPrediction where it failed."""
    try:
        return _try(loaded, picture())
    except SidecarError:
        raise
    except Exception as error:
        raise BadPrediction(f"it failed on a test picture: {type(error).__name__}: {str(error)[:300]}") from error


def _try(loaded: LoadedModel, frame: Frame) -> str:
    model = loaded.model
    if loaded.kind == "detector":
        (found,) = check_predictions(model.detect([frame], Context()), [frame], loaded.labels)
        if isinstance(found, BadPrediction):
            raise found
        return counted(len(found), "detection")
    if loaded.kind == "interactor":
        needs = getattr(model, "needs", PromptNeeds())
        marked = Prompts(
            positive=tuple((150.0 + 5 * n, 120.0) for n in range(max(needs.positive, 1))),
            negative=tuple((10.0, 10.0 + 5 * n) for n in range(needs.negative or 0)),
            box=None if needs.box == "no" else BOX,
            texts=("box",) if needs.texts else (),
        )
        return f"{counted(len(model.segment(model.embed(frame), marked)), 'shape')} for a click"
    if loaded.kind == "tracker":
        if "rectangle" not in model.shape_types:
            return "not run: it follows no rectangles"
        ((_, shape),) = model.follow(frame, model.begin(frame, [BOX]))
        return "followed a rectangle" if shape is not None else "lost a rectangle at once"
    described = model.describe(frame, [BOX])
    return f"{described.shape[1]} numbers for a rectangle"
