"""A GPU where there is none: tensors of the processor that say they are on cuda:0, and refuse what a GPU's would.

They are not to be mixed with the processor's own (but for single numbers, and for indices), and numpy cannot read them.
All is computed by the processor: what is found are tensors on the wrong device, not kernels that a GPU lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from adapters._torch import import_torch

torch = import_torch()

from torch.overrides import TorchFunctionMode  # noqa: E402

_GPU = torch.device("cuda", 0)
_MOVES = ("to", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")
_ANYWHERE = ("to", "copy_", "set_")
"""What copies from one device to another by itself."""
_TELL = {
    torch.Tensor.device.__get__: lambda tensor: _GPU,
    torch.Tensor.is_cuda.__get__: lambda tensor: True,
    torch.Tensor.is_cpu.__get__: lambda tensor: False,
}


class OnGpu(torch.Tensor):  # type: ignore[misc]
    """A tensor of the pretended GPU."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Watched(TorchFunctionMode):  # type: ignore[misc]
    """Sees what makes tensors on a device, and what mixes those of both."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        concerned = any(isinstance(one, OnGpu) or _device(one) == "cuda" for one in _flat((args, given)))
        return _run(func, args, given) if concerned else func(*args, **given)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Within it, PyTorch has a device `cuda`."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(torch.cuda, "is_available", lambda: True))
        stack.enter_context(patch.object(torch.cuda, "device_count", lambda: 1))
        stack.enter_context(patch.object(torch.cuda, "is_bf16_supported", lambda: True))
        stack.enter_context(patch.object(torch.nn.Module, "to", _module_to(torch.nn.Module.to)))
        stack.enter_context(_Watched())
        yield


def _module_to(real: Callable[..., Any]) -> Callable[..., Any]:
    def to(module: Any, *args: Any, **kwargs: Any) -> Any:
        where = next((kind for one in _flat((args, kwargs)) if (kind := _device(one))), None)
        if where not in ("cuda", "meta"):
            return real(module, *args, **kwargs)
        for part in module.modules():
            for held in (part._parameters, part._buffers):
                for name, tensor in held.items():
                    if tensor is not None:
                        held[name] = moved = _on_gpu(tensor.detach()) if where == "cuda" else tensor.detach().to("meta")
                        moved._is_param = held is part._parameters
        return module

    return to


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    name = getattr(func, "__name__", "")
    tensors = [one for one in _flat((args, kwargs)) if isinstance(one, torch.Tensor)]
    first_on_gpu = bool(tensors) and isinstance(tensors[0], OnGpu)
    if first_on_gpu and func in _TELL:
        return _TELL[func](tensors[0])
    if first_on_gpu and name in ("numpy", "__array__"):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")
    _check(name, args, tensors)
    wanted = next((kind for one in _flat((args[1:], kwargs)) if (kind := _device(one))), None)
    if name == "to" and wanted is None and len(tensors) > 1:
        wanted = "cuda" if isinstance(tensors[1], OnGpu) else "cpu"
    with torch._C.DisableTorchFunction():
        found = func(*_each(args, _here), **_each(kwargs, _here))
    if name == "cpu" or (name in _MOVES and wanted in ("cpu", "meta")):
        return found
    if name.endswith("_") and not name.startswith("_"):
        return args[0]  # in its own place
    stays = wanted is None and any(isinstance(one, OnGpu) for one in tensors)
    return _each(found, _on_gpu) if wanted == "cuda" or stays else found


def _check(name: str, args: Any, tensors: list[Any]) -> None:
    """RuntimeError where tensors of both devices meet that a GPU would not let meet."""
    there = [one for one in tensors if isinstance(one, OnGpu)]
    with torch._C.DisableTorchFunction():
        # A single number may come from anywhere, but for what puts tensors together.
        here = [one for one in tensors if not isinstance(one, OnGpu) and (one.dim() or name in ("cat", "stack"))]
    if not there or not here or name in _ANYWHERE:
        return
    if name in ("__getitem__", "__setitem__") and isinstance(args[0], OnGpu):
        # Indices may come from anywhere. What is written has to be there, unless a slice is copied over.
        indexed = any(isinstance(one, torch.Tensor) for one in _flat(args[1]))
        if name == "__getitem__" or not indexed or isinstance(args[2], OnGpu):
            return
    raise RuntimeError(f"{name}: expected all tensors to be on the same device, found cuda:0 and cpu")


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_each(one, change) for one in value))
    if isinstance(value, list | tuple):
        return type(value)(_each(one, change) for one in value)
    if isinstance(value, dict):
        return {key: _each(one, change) for key, one in value.items()}
    return change(value)


def _device(value: Any) -> str | None:
    """The kind of a device, None for what is none."""
    if isinstance(value, torch.device):
        return str(value.type)
    kind = value.partition(":")[0] if isinstance(value, str) else None
    return kind if kind in ("cuda", "cpu", "meta") else None


def _here(value: Any) -> Any:
    """What the processor is really given."""
    if isinstance(value, OnGpu):
        return value.as_subclass(torch.Tensor)
    return "cpu" if _device(value) == "cuda" else value


def _on_gpu(value: Any) -> Any:
    return value.as_subclass(OnGpu) if isinstance(value, torch.Tensor) else value
