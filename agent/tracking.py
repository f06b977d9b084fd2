"""Shapes followed from frame to frame: begun once, then one step with each picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.contract import Frame, Shape
from agent.errors import BadPrediction, BadRequest, ModelError
from agent.models.line import INTERACTIVE
from agent.pool.pool import HostedModel
from agent.track_states import LIFETIME, Kept, TrackStates

__all__ = ["LIFETIME", "Followed", "TrackStates", "begin_tracking", "follow"]

T = TypeVar("T")


class StateRefused(BadPrediction):
    """The model cannot read a state that it has given: it was another version of it, or a process that has ended."""

    @property
    def public(self) -> str:
        return "tracker state: the model cannot go on with it; begin the track again"


@dataclass(frozen=True, slots=True)
class Followed:
    """Where the shapes of some states are now."""

    names: list[str]
    shapes: list[Shape | None]


def begin_tracking(
    hosted: HostedModel, states: TrackStates, frame: Frame, shapes: Sequence[Shape], about: str
) -> Future[list[str]]:
    """Names of the states of these shapes; `about` is what they may be followed on (a task), with the frame's size.

    BadRequest at once for a shape that the tracker cannot follow; the future raises BadPrediction where it fails.
    """
    model = hosted.loaded.model
    for shape in shapes:
        if shape.type not in model.shape_types:
            allowed = ", ".join(model.shape_types)
            raise BadRequest(f"{hosted.settings.title}: it cannot follow a {shape.type}, allowed: {allowed}")

    def work() -> list[str]:
        made = _guarded(hosted, lambda: list(model.begin(frame, shapes)))
        if len(made) != len(shapes):
            raise BadPrediction(f"{hosted.id}: the model gave {len(made)} states for {len(shapes)} shapes")
        _hold_to(all(isinstance(state, bytes) for state in made), hosted, "states that are bytes", made)
        return states.add(_scope(hosted, frame, about), made)

    return hosted.host.call(work, INTERACTIVE)


def follow(
    hosted: HostedModel, states: TrackStates, frame: Frame, names: Sequence[str], about: str, seen: str
) -> Future[Followed]:
    """Where the shapes are on this frame; the names stay good for the next one.

    `seen` tells this picture from others of the track. Asked again for the picture of the last step (the answer was
    lost, or the request given to another agent), the answer is the one of the first time, and no state moves on.
    BadRequest at once for a name that is unknown or of something else.
    """
    scope = _scope(hosted, frame, about)
    states.get(scope, names)

    def work() -> Followed:
        # Looked up again: the same question may have been answered while this one waited for its turn.
        known = dict(zip(names, states.get(scope, names), strict=True))
        new = {name: kept for name, kept in known.items() if kept.seen != seen}
        if new:
            found = _followed(hosted, frame, list(new.values()))
            taken = {name: (kept, *one) for (name, kept), one in zip(new.items(), found, strict=True)}
            known |= states.step(scope, seen, taken)
        return Followed(list(names), [known[name].answer for name in names])

    return hosted.host.call(work, INTERACTIVE)


def _followed(hosted: HostedModel, frame: Frame, known: Sequence[Kept]) -> list[tuple[bytes, Shape | None]]:
    """The next states, and where the shapes are on the frame. BadPrediction for what is no such answer."""
    model = hosted.loaded.model

    def ask() -> list[Any]:
        try:
            return list(model.follow(frame, [kept.state for kept in known]))
        except ValueError as error:  # as the contract has it
            raise StateRefused(f"{hosted.id}: the model refuses a state: {error}") from error

    found = _guarded(hosted, ask)
    if len(found) != len(known):
        raise BadPrediction(f"{hosted.id}: the model gave {len(found)} shapes for {len(known)} states")
    allowed = f"a state of bytes with a shape ({', '.join(model.shape_types)}) or None, for each"
    _hold_to(all(_is_followed(one, model.shape_types) for one in found), hosted, allowed, found)
    return [(state, shape) for state, shape in found]


def _scope(hosted: HostedModel, frame: Frame, about: str) -> str:
    """What a state is good for; it outlives the process, so that it has to name all that the model depends on."""
    model = [str(hosted.loaded.reference), hosted.loaded.version, hosted.settings.options]
    name = hashlib.sha256(json.dumps(model, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return f"{hosted.id} {name} {about} {frame.width}x{frame.height}"


def _is_followed(one: Any, types: Sequence[str]) -> bool:
    if not (isinstance(one, Sequence) and len(one) == 2):
        return False
    state, shape = one
    return isinstance(state, bytes) and (shape is None or getattr(shape, "type", None) in types)


def _hold_to(right: bool, hosted: HostedModel, allowed: str, got: object) -> None:
    if not right:
        raise BadPrediction(f"{hosted.id}: got {repr(got)[:100]}, allowed: {allowed}")


def _guarded(hosted: HostedModel, work: Callable[[], T]) -> T:
    try:
        return work()
    except ModelError:
        raise
    except Exception as error:
        raise BadPrediction(f"{hosted.id}: the model failed: {type(error).__name__}: {error}") from error
