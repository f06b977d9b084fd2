"""Model references turned into loaded models.

`scheme:name` names a model. The scheme names an adapter, found through the entry points of the group
`cvat_sidecar.adapters`; the built-in ones come in by the same door, and by a table where the program runs
from a bare clone without being installed. Adapters, and with them torch and the like, are imported when a
model of theirs is loaded, never before.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from agent.contract import Detector, Interactor, Label, Reidentifier, Tracker, facts_of
from agent.domain import LABEL_TYPES
from agent.errors import ModelError, ModelLoadFailed, ModelNotFound, SidecarError
from agent.models.equalized import Equalized, wanted_method
from agent.models.options import check_options
from agent.settings.parts import SCHEMES

GROUP = "cvat_sidecar.adapters"

_BUILT_IN = {
    "local": "adapters.local",
    "hf": "adapters.huggingface",
    "cvat": "adapters.cvat_function",
    "opencv": "adapters.opencv",
    "roboflow": "adapters.roboflow",
}
_KINDS = {"detector": Detector, "interactor": Interactor, "tracker": Tracker, "reid": Reidentifier}
_MENUS = "`serve` puts it into CVAT's menus"
_USES = {
    "detector": "`annotate` uses it",
    "interactor": f"{_MENUS}, `enrich --gives mask` asks it about rectangles",
    "tracker": _MENUS,
    "reid": f"`enrich --gives identity` and `track --reid` use it, {_MENUS}",
}
_REFERENCE = re.compile(r"([A-Za-z][A-Za-z0-9_+-]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ModelReference:
    """What a person writes to name a model."""

    scheme: str
    name: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.name}"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run, and what is known about it."""

    reference: ModelReference
    model: Any
    """What the adapter returned: a Detector, Interactor, Tracker or Reidentifier, as `kind` says."""
    kind: str
    """detector, interactor, tracker or reid: CVAT's function kinds."""
    labels: tuple[Label, ...] = ()
    version: str = "unknown"
    """Names the weights; the ledger keeps it."""
    facts: Mapping[str, str] = field(default_factory=dict)
    default_threshold: float = 0.0
    batch_size: int = 1
    """How many frames the model likes at once."""
    finds: str | None = None
    """The type of what it gives for labels that it is told; None for a model that has labels of its own only."""

    def told(self, names: Iterable[str]) -> LoadedModel:
        """The same model with labels of these names too."""
        return replace(self, labels=labels_told(self.labels, self.finds, names))

    def close(self) -> None:
        """Lets the model free what it holds."""
        if callable(close := getattr(self.model, "close", None)):
            close()


def labels_told(own: Sequence[Label], finds: str | None, names: Iterable[str]) -> tuple[Label, ...]:
    """A model's own labels, and those of the names that it `finds` as well."""
    if finds is None:
        return tuple(own)
    more = dict.fromkeys(names)
    return (*own, *(Label(name, finds) for name in more if name not in {label.name for label in own}))


def wrong_kind(name: str, kind: str, allowed: str) -> ModelError:
    """The error for a model that is none of the allowed kind; it tells what the model is good for."""
    return ModelError(f"{name}: it is a model of the kind {kind}, allowed here: {allowed}; {_USES.get(kind, _MENUS)}")


def parse_reference(text: str) -> ModelReference:
    """The scheme and the name of `scheme:name`; ModelNotFound, with a hint for a path or a bare id."""
    text = text.strip()
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ModelNotFound(f"model {text!r}: got no scheme, allowed: {_forms()}{_hint(text)}")
    return ModelReference(match[1].lower(), match[2])


def load_model(reference: str, *, device: str = "auto", options: Mapping[str, Any] | None = None) -> LoadedModel:
    """The model that a reference names, ready to run.

    Raises ModelNotFound, ModelLoadFailed, or ConfigError for an option that the adapter does not take.
    """
    parsed = parse_reference(reference)
    if not parsed.name:
        raise ModelNotFound(f"model {reference!r}: got no name after the scheme, allowed: {_forms()}")
    return load_with(adapter_of(parsed), parsed, device=device, options=options or {})


def load_with(
    load: Callable[..., Any], reference: ModelReference, *, device: str, options: Mapping[str, Any], **given: Any
) -> LoadedModel:
    """What a `load` function gives for a reference; `given` are arguments but no options. Raises as `load_model`."""
    options = dict(options)
    device = str(options.pop("device", device))
    method = wanted_method(options.pop("equalize", None), str(reference))
    values = check_options(load, options, str(reference).rstrip(":"), given)
    try:
        model = load(reference.name, device=device, **values, **given)
    except SidecarError:
        raise
    except (Exception, SystemExit) as error:  # foreign code may mean to end a program of its own
        raise ModelLoadFailed(f"{reference}: {_one_line(error)}") from error
    return _describe(reference, model if method is None else Equalized(model, method), method)


def known_schemes() -> tuple[str, ...]:
    """The schemes that can be loaded, installed plug-ins included."""
    return tuple(sorted(set(_BUILT_IN) | {entry.name for entry in _entry_points()}))


def _entry_points() -> Sequence[importlib.metadata.EntryPoint]:
    return tuple(importlib.metadata.entry_points(group=GROUP))


def adapter_of(reference: ModelReference) -> Callable[..., Any]:
    """The adapter's `load`: of a module, of an object, or the callable itself."""
    scheme = reference.scheme
    places = {entry.value for entry in _entry_points() if entry.name == scheme}
    if not places and scheme in _BUILT_IN:
        places = {_BUILT_IN[scheme]}
    if not places:
        near = difflib.get_close_matches(scheme, known_schemes(), n=1)
        hint = f"; did you mean '{near[0]}:{reference.name}'?" if near else _hint(str(reference))
        raise ModelNotFound(f"model {str(reference)!r}: unknown scheme {scheme!r}, allowed: {_forms()}{hint}")
    if len(places) > 1:
        raise ModelLoadFailed(
            f"{reference}: several packages offer the scheme {scheme!r}: {', '.join(sorted(places))};"
            " uninstall all but one"
        )
    (place,) = places
    try:
        adapter = importlib.metadata.EntryPoint(name=scheme, value=place, group=GROUP).load()
    except ImportError as error:
        raise ModelLoadFailed(f"{reference}: its adapter {place} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise ModelLoadFailed(f"{reference}: its adapter {place} is broken: {_one_line(error)}") from error
    load: Any = getattr(adapter, "load", adapter)
    if not callable(load):
        raise ModelLoadFailed(
            f"{reference}: its adapter {place} has no load(name, *, device, …) (see agent/contract.py)"
        )
    return load  # type: ignore[no-any-return]


def _describe(reference: ModelReference, model: Any, equalize: str | None = None) -> LoadedModel:
    kind = next((kind for kind, protocol in _KINDS.items() if isinstance(model, protocol)), None)
    if kind is None:
        raise ModelLoadFailed(
            f"{reference}: its adapter gave a {type(model).__name__}, which is none of {', '.join(_KINDS)}"
            " (see agent/contract.py)"
        )
    facts = {str(name): str(value) for name, value in facts_of(model).items()}
    if equalize is not None:
        facts |= {"equalize": equalize, "version": f"{facts.get('version', 'unknown')} equalize={equalize}"}
    return LoadedModel(
        reference=reference,
        model=model,
        kind=kind,
        labels=_labels(reference, model, kind),
        finds=_finds(reference, model, kind),
        version=facts.get("version", "unknown"),
        facts=facts,
        default_threshold=_number(reference, model, "default_threshold", 0.0, 0.0, 1.0),
        batch_size=int(_number(reference, model, "batch_size", 1, 1, 4096)),
    )


def _labels(reference: ModelReference, model: Any, kind: str) -> tuple[Label, ...]:
    labels = tuple(getattr(model, "labels", ()))
    if wrong := [label for label in labels if not isinstance(label, Label)]:
        raise ModelLoadFailed(f"{reference}: labels: got {wrong[0]!r}, allowed: agent.contract.Label")
    if twice := [name for name, count in Counter(label.name for label in labels).items() if count > 1]:
        raise ModelLoadFailed(f"{reference}: labels: {', '.join(map(repr, twice[:5]))} more than once")
    if kind == "detector" and not labels and getattr(model, "finds", None) is None:
        raise ModelLoadFailed(f"{reference}: labels: got none; a detector has to name what it can find")
    return labels


def _finds(reference: ModelReference, model: Any, kind: str) -> str | None:
    finds = getattr(model, "finds", None) if kind == "detector" else None
    if finds is not None and finds not in LABEL_TYPES:
        raise ModelLoadFailed(f"{reference}: finds: got {finds!r}, allowed: {', '.join(LABEL_TYPES)}")
    return finds


def _number(reference: ModelReference, model: Any, name: str, default: float, low: float, high: float) -> float:
    value = getattr(model, name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ModelLoadFailed(f"{reference}: {name}: got {value!r}, allowed: {low:g} to {high:g}")
    return value


def _forms() -> str:
    built = ", ".join(f"{scheme}:" for scheme in SCHEMES)
    return f"{', '.join(f'{scheme}:NAME' for scheme in known_schemes())}, {built}, or an id of [[models]] (--config)"


def _hint(text: str) -> str:
    path = PurePath(text)
    if path.suffix == ".py":
        return f"; did you mean 'cvat:{text}'?"
    if path.suffix.lower() in (".onnx", ".torchscript", ".pt2", ".pt", ".pth", ".tflite", ".xml", ".engine"):
        return f"; did you mean 'local:{text}'?"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        return f"; did you mean 'hf:{text}'?"
    return ""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
