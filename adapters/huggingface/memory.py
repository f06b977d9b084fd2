"""What a tracker remembers of one object, as bytes: safetensors, since pickles can run code.

SAM 2 (arXiv 2408.00714, section 4) remembers the frame that it was shown and the last few: of each a map of features
and a pointer, a vector that stands for the object. Pointers of some more frames are kept without their maps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FORMAT = "sam2-memory-1"
_MAP, _POINTER, _ABOUT = "map", "pointer", "memory"


@dataclass(frozen=True, slots=True)
class Memory:
    """One object's memory; frames are counted from that on which it began, which is 0."""

    kind: str
    """The type of the shape that it began with: what its answers are."""
    frame: int
    """The last frame that it has seen."""
    maps: Mapping[int, Any]
    """Frame -> features."""
    pointers: Mapping[int, Any]
    """Frame -> vector."""

    def bounded(self, maps: int, pointers: int) -> Memory:
        """The memory without what is too old for the next frame: so many at most, of which that of frame 0 is one."""
        later = self.frame + 1
        return Memory(
            self.kind,
            self.frame,
            {frame: one for frame, one in self.maps.items() if frame == 0 or later - frame < maps},
            {frame: one for frame, one in self.pointers.items() if frame == 0 or later - frame < pointers},
        )


def pack(memory: Memory, version: str) -> bytes:
    """The bytes of a memory; `version` names the weights that its numbers mean something to."""
    from safetensors.torch import save

    tensors = {f"{_MAP}.{frame}": one.contiguous() for frame, one in memory.maps.items()}
    tensors |= {f"{_POINTER}.{frame}": one.contiguous() for frame, one in memory.pointers.items()}
    about = {"format": FORMAT, "version": version, "kind": memory.kind, "frame": memory.frame}
    # One entry: several would stand in another order each time, and the same memory is to have the same bytes.
    packed: bytes = save(tensors, {_ABOUT: json.dumps(about)})
    return packed


def unpack(state: bytes, version: str, shapes: tuple[Any, Any]) -> Memory:
    """The memory; ValueError for bytes that are none, or another model's.

    `shapes`: those of a map and of a pointer. States may come over a network from anyone.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        length = int.from_bytes(state[:8], "little")
        about = json.loads(json.loads(state[8 : 8 + length])["__metadata__"][_ABOUT])
        if (about["format"], about["version"]) != (FORMAT, version):
            raise ValueError(f"it is of {about['format']} by {about['version']}")
        maps: dict[int, Any] = {}
        pointers: dict[int, Any] = {}
        for name, tensor in load(state).items():
            what, _, frame = name.partition(".")
            {_MAP: maps, _POINTER: pointers}[what][int(frame)] = tensor
        memory = Memory(about["kind"], int(about["frame"]), maps, pointers)
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, RecursionError) as error:
        raise ValueError(f"state: got no memory of this model: {type(error).__name__}: {error}") from error
    _check(memory, shapes)
    return memory


def _check(memory: Memory, shapes: tuple[Any, Any]) -> None:
    """ValueError where a memory is not what this model could have packed."""
    frames = [*memory.maps, *memory.pointers]
    if 0 not in memory.maps or 0 not in memory.pointers or not set(memory.maps) <= set(memory.pointers):
        raise ValueError("state: got no first frame, or a map without its pointer")
    if not all(0 <= frame <= memory.frame for frame in frames):
        raise ValueError(f"state: got the frames {sorted(frames)}, allowed: 0 to {memory.frame}")
    for part, shape in zip((memory.maps, memory.pointers), shapes, strict=True):
        for tensor in part.values():
            if tensor.shape != shape or not tensor.is_floating_point() or not tensor.isfinite().all():
                raise ValueError(
                    f"state: got {tensor.dtype} of {tuple(tensor.shape)}, allowed: floats of {tuple(shape)}"
                )
