"""CVAT's tracking functions as trackers of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters._cvat.annotations import plain_shape
from adapters._cvat.calling import called
from adapters._cvat.shapes import flat_points
from adapters._cvat.states import FunctionStates
from agent.contract import BadPrediction, Frame, Shape


class FunctionTracker:
    """Asks a CVAT tracking function shape by shape, and looks at each picture once."""

    def __init__(self, owner: str, function: Any, facts: Mapping[str, str]) -> None:
        self.facts = facts
        self.shape_types = sorted(function.spec.supported_shape_types)
        self._owner, self._function = owner, function
        self._states = FunctionStates()

    def begin(self, frame: Frame, shapes: Sequence[Shape]) -> list[bytes]:
        for shape in shapes:
            if shape.type not in self.shape_types:
                raise ValueError(f"{self._owner}: got a {shape.type}, allowed: {', '.join(self.shape_types)}")
        image = self._prepared(frame)
        return [self._states.pack(shape.type, self._begun(image, frame, shape)) for shape in shapes]

    def follow(self, frame: Frame, states: Sequence[bytes]) -> list[tuple[bytes, Shape | None]]:
        known = [self._states.unpack(state) for state in states]
        image = self._prepared(frame)
        return [
            self._followed(image, frame, data, shape_type, state)
            for data, (shape_type, state) in zip(states, known, strict=True)
        ]

    def _begun(self, image: Any, frame: Frame, shape: Shape) -> Any:
        from cvat_sdk.auto_annotation import TrackableShape

        given = TrackableShape(type=shape.type, points=flat_points(shape, frame))
        context = _shape_context(shape.type)
        return called(self._owner, lambda: self._function.init_tracking_state(context, image, given))

    def _followed(
        self, image: Any, frame: Frame, data: bytes, shape_type: str, state: Any
    ) -> tuple[bytes, Shape | None]:
        context = _shape_context(shape_type)
        found = called(self._owner, lambda: self._function.track(context, image, state))
        # The function may have changed the state that it was given.
        packed = self._states.pack(shape_type, state, data)
        if found is None:
            return packed, None
        if getattr(found, "type", None) != shape_type:
            got = getattr(found, "type", type(found).__name__)
            raise BadPrediction(f"{self._owner}: a shape of the type {got}, it began as {shape_type}")
        try:
            return packed, plain_shape(shape_type, tuple(found.points), frame.width, frame.height)
        except (ValueError, TypeError, IndexError) as error:
            raise BadPrediction(f"{self._owner}: a {shape_type}: {error}") from error

    def _prepared(self, frame: Frame) -> Any:
        from cvat_sdk.auto_annotation import TrackingFunctionContext
        from PIL import Image

        class Context(TrackingFunctionContext):  # type: ignore[misc]
            pass

        image = Image.fromarray(frame.image)
        prepare = getattr(self._function, "preprocess_image", None)
        return image if prepare is None else called(self._owner, lambda: prepare(Context(), image))


def _shape_context(shape_type: str) -> Any:
    from cvat_sdk.auto_annotation import TrackingFunctionShapeContext

    class Context(TrackingFunctionShapeContext):  # type: ignore[misc]
        original_shape_type = shape_type

    return Context()
