"""CVAT's interaction functions as interactors of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from adapters._cvat.annotations import plain_shape
from adapters._cvat.calling import called
from agent.contract import BadPrediction, Detection, Frame, PromptNeeds, Prompts

LABEL = "object"
"""What is found has no name: the person who clicks knows what it is."""
_BOXES: Mapping[int | None, Literal["no", "optional", "required"]] = {None: "no", 0: "optional", 1: "required"}


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What a function made of a picture. It can be anything, so that its size is taken for that of the picture."""

    value: Any
    width: int
    height: int
    nbytes: int


class FunctionInteractor:
    """Asks a CVAT interaction function, and keeps what it makes of a picture between two clicks."""

    def __init__(self, owner: str, function: Any, facts: Mapping[str, str]) -> None:
        self.facts = facts
        self.needs = PromptNeeds(
            positive=function.spec.min_pos_points,
            negative=function.spec.min_neg_points,
            box=_BOXES[function.spec.min_bounding_boxes],
        )
        self._owner, self._function = owner, function

    def embed(self, frame: Frame) -> _Prepared:
        from PIL import Image

        image: Any = Image.fromarray(frame.image)
        if (prepare := getattr(self._function, "preprocess_image", None)) is not None:
            picture = image
            image = called(self._owner, lambda: prepare(self._context, picture))
        return _Prepared(image, frame.width, frame.height, int(frame.image.nbytes))

    def segment(self, embedding: _Prepared, prompts: Prompts) -> list[Detection]:
        given = _prompts(prompts)
        found = called(self._owner, lambda: self._function.detect(self._context, embedding.value, given))
        if isinstance(found, str | bytes) or not isinstance(found, Sequence):
            raise BadPrediction(
                f"{self._owner}: detect answered with a {type(found).__name__}, allowed: a list of shapes"
            )
        return [self._detection(shape, embedding) for shape in found]

    def _detection(self, shape: Any, embedding: _Prepared) -> Detection:
        kind, points = getattr(shape, "type", None), getattr(shape, "points", None)
        try:
            read = plain_shape(str(kind), tuple(points or ()), embedding.width, embedding.height)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise BadPrediction(f"{self._owner}: a {kind}: {error}") from error
        return Detection(LABEL, read, self._score(shape))

    def _score(self, shape: Any) -> float | None:
        for attribute in getattr(shape, "attributes", None) or ():
            if attribute.spec_id == 0:  # InteractionResultAttributes.CONFIDENCE, the only one that there is
                try:
                    return float(attribute.value)
                except ValueError as error:
                    raise BadPrediction(
                        f"{self._owner}: a confidence of {attribute.value!r}, allowed: 0 to 1"
                    ) from error
        return None

    @cached_property
    def _context(self) -> Any:
        from cvat_sdk.auto_annotation import InteractionFunctionContext

        class Context(InteractionFunctionContext):  # type: ignore[misc]
            pass

        return Context()


def _prompts(prompts: Prompts) -> Any:
    from cvat_sdk.auto_annotation import InteractionPrompts

    box = prompts.box

    class Given(InteractionPrompts):  # type: ignore[misc]
        pos_points = prompts.positive
        neg_points = prompts.negative
        bounding_box = None if box is None else ((box.left, box.top), (box.right, box.bottom))

    return Given()
