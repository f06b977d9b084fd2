"""What the name in a model reference says: a trained model, or a workflow."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.contract import ModelNotFound

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.~-]*[A-Za-z0-9_~-])?")
_FORMS = "workspace/project/version, project/version, workspace/model, workflow/workspace/workflow-id"


@dataclass(frozen=True, slots=True)
class Reference:
    """A model or a workflow at Roboflow."""

    owner: str
    """How messages name it: the whole model reference."""
    workspace: str | None
    project: str
    """Of a workflow: its id."""
    version: str | None = None
    """A number; of a model with a name of its own (`workspace/model`) that name; None for a workflow or an alias."""
    is_workflow: bool = False

    @property
    def model_id(self) -> str:
        """What inference servers call the model."""
        return self.project if self.version is None else f"{self.project}/{self.version}"

    @property
    def is_version(self) -> bool:
        """Whether it is a project's numbered version."""
        return self.version is not None and self.version.isdigit()


def parse_name(name: str) -> Reference:
    """The reference for what follows `roboflow:`; ModelNotFound for any other form."""
    owner, parts = f"roboflow:{name}", name.split("/")
    if not all(_PART.fullmatch(part) for part in parts):
        raise ModelNotFound(f"{owner}: got no Roboflow name, allowed: {_FORMS}")
    match parts:
        case ["workflow", workspace, workflow]:
            return Reference(owner, workspace, workflow, is_workflow=True)
        case [workspace, project, version] if version.isdigit():
            return Reference(owner, workspace, project, version)
        case [project, version]:
            # `workspace/model` is addressed in the same form as `project/version`.
            return Reference(owner, None, project, version)
        case [alias]:
            return Reference(owner, None, alias)
    raise ModelNotFound(f"{owner}: got no Roboflow name, allowed: {_FORMS}")
