"""What a function has promised of its model, and whether the model that is there now keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import ModelError
from agent.functions.bodies import KINDS, check_compatible
from agent.models.descriptions import Description
from agent.models.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class Promise:
    """A function, and the description of the model that was held to it."""

    function: Mapping[str, Any]
    """As the server tells it."""
    description: Description

    @classmethod
    def of(cls, model: str, function: Mapping[str, Any], description: Description) -> Promise:
        """ModelError where the model does not do what the function promises."""
        if description.kind not in KINDS:
            raise ModelError(f"model {model}: a {description.kind} cannot serve a function")
        check_compatible(function, description)
        return cls(function, description)

    @property
    def kind(self) -> str:
        """The model's: detector, interactor or tracker."""
        return self.description.kind

    def check(self, loaded: LoadedModel) -> None:
        """NotCompatible where another model is loaded now, which does not keep it: requests outlive a SIGHUP."""
        found = Description.of(loaded)
        if found != self.description:
            check_compatible(self.function, found)
