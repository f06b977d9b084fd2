"""A network that takes pictures: its input, how it is run, and what it gives for a gray picture."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.files import WeightsFile
from adapters._networks.options import Running
from adapters._networks.session import Port, Session, open_session, short
from adapters._networks.signature import Signature
from agent.contract import BadPrediction, ConfigError, ModelLoadFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
_USUAL_SIZE = 640


@dataclass(frozen=True, slots=True)
class Graph:
    """A network that is ready to run on batches of pictures of one size."""

    session: Session
    image: str
    """The name of the input that takes pictures."""
    dtype: Any
    width: int
    height: int
    batch: int | None
    """The only batch size that the graph takes; None where it takes any."""
    channels_last: bool
    others: Mapping[str, str]
    """The further inputs, and what each of them wants."""
    owner: str

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the exporter left."""
        return self.session.metadata

    @property
    def outputs(self) -> Sequence[str]:
        """The names of the outputs."""
        return self.session.outputs

    def blank(self, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """An input for `count` pictures, and a (count, 3, H, W) view of it to write them through."""
        count = self.batch or count
        if self.channels_last:
            blob = np.zeros((count, self.height, self.width, 3), self.dtype)
            return blob, blob.transpose(0, 3, 1, 2)
        blob = np.zeros((count, 3, self.height, self.width), self.dtype)
        return blob, blob

    def run(self, blob: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The outputs by name, with the batch axis."""
        feeds = {self.image: blob, **{name: self._extra(kind, len(blob)) for name, kind in self.others.items()}}
        try:
            return self.session.run(feeds)
        except Exception as error:
            raise BadPrediction(f"{self.owner}: the graph failed: {short(error)}") from error

    def signature(self, classes: int | None) -> Signature:
        """What the graph gives for a gray picture."""
        blob, view = self.blank(1)
        view[:] = 128 if self.dtype is np.uint8 else 0.5
        try:
            outputs = self.run(blob)
        except BadPrediction as error:
            raise ModelLoadFailed(f"{error} (tried with a gray {self.width}x{self.height} picture)") from error
        return Signature(self.width, self.height, outputs, self.metadata, classes)

    def _extra(self, kind: str, count: int) -> NDArray[Any]:
        if kind == "size":  # boxes come back in pixels of the input, as from every other head
            return np.array([[self.width, self.height]] * count, np.int64)
        return np.ones((count, self.height, self.width), np.int64)


def open_graph(file: WeightsFile, owner: str, run: Running, *, threads: int) -> Graph:
    """The network of a file; ModelLoadFailed where it cannot be run, ConfigError where options cannot be met."""
    session = open_session(file, owner, run, threads=threads)
    image, others = _inputs(session.inputs, owner)
    if (dtype := _DTYPES.get(image.dtype)) is None:
        raise ModelLoadFailed(f"{owner}: its input is {image.dtype}, allowed: {', '.join(_DTYPES)}")
    shape = image.shape
    channels_last = shape[3] == 3 and shape[1] != 3
    sides = shape[1:3] if channels_last else shape[2:4]
    width, height = _size(sides, run.size, session.metadata, owner)
    return Graph(
        session=session,
        image=image.name,
        dtype=dtype,
        width=width,
        height=height,
        batch=shape[0],
        channels_last=channels_last,
        others=others,
        owner=owner,
    )


def _inputs(inputs: Sequence[Port], owner: str) -> tuple[Port, dict[str, str]]:
    """The picture input, and what the further inputs want."""
    pictures = [port for port in inputs if len(port.shape) == 4 and 3 in (port.shape[1], port.shape[3])]
    listing = ", ".join(map(str, inputs))
    if len(pictures) != 1:
        raise ModelLoadFailed(f"{owner}: got the inputs {listing}, allowed: one of (N, 3, H, W) or (N, H, W, 3)")
    others = {}
    for port in inputs:
        name = port.name.lower()
        if port is pictures[0]:
            continue
        if "size" in name and port.dtype == "int64" and port.shape[-1] == 2:
            others[port.name] = "size"
        elif "mask" in name and port.dtype == "int64" and len(port.shape) == 3:
            others[port.name] = "mask"
        else:
            raise ModelLoadFailed(f"{owner}: cannot tell what its input {port.name!r} wants; inputs: {listing}")
    return pictures[0], others


def _size(
    sides: Sequence[Any], wanted: tuple[int, int] | None, metadata: Mapping[str, str], owner: str
) -> tuple[int, int]:
    """(width, height) of the input: fixed by the graph, said in the options, left by the exporter, or 640."""
    height, width = sides
    if wanted is not None:
        if (width or wanted[0], height or wanted[1]) != wanted:
            raise ConfigError(f"{owner}: input_size: got {list(wanted)}, the graph takes only [{width}, {height}]")
        return wanted
    try:
        left = ast.literal_eval(metadata.get("imgsz", "None")) or [_USUAL_SIZE] * 2
        usual = [left, left] if isinstance(left, int) else [int(side) for side in left]
    except (ValueError, SyntaxError, TypeError):
        usual = [_USUAL_SIZE] * 2
    return width or usual[-1], height or usual[0]
