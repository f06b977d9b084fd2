"""A network that takes pictures: its input, how it is run, and what it gives for a gray picture."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.files import WeightsFile
from adapters._networks.options import PREPARATION, Running
from adapters._networks.pictures import Recipe
from adapters._networks.session import Port, Session, open_session, short
from adapters._networks.signature import Signature
from agent.contract import BadPrediction, ConfigError, ModelLoadFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
_USUAL_SIZE = 640
_MEAN_GRAY = 116
"""ImageNet's mean, which a network that normalises its pictures itself sees as about 0."""


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
    batched: bool
    """Whether the input has an axis for several pictures."""
    quantised: bool
    """Whether the input's bytes stand for other numbers, and the session can be given those."""
    any_sides: bool
    """Whether width and height are only what was asked for, and a picture may have others."""
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

    def blank(self, count: int, size: tuple[int, int] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """An input for `count` pictures, and a (count, 3, H, W) view of it to write them through.

        `size`: another (width, height), for graphs that take any.
        """
        count = self.batch or count
        width, height = size or (self.width, self.height)
        if self.channels_last:
            blob = np.zeros((count, height, width, 3), self.dtype)
            view = blob.transpose(0, 3, 1, 2)
        else:
            view = blob = np.zeros((count, 3, height, width), self.dtype)
        return (blob if self.batched else blob[0]), view

    def run(self, blob: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The outputs by name, with the batch axis."""
        count = len(blob) if self.batched else 1
        feeds = {self.image: blob, **{name: self._extra(kind, count) for name, kind in self.others.items()}}
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


def open_graph(
    file: WeightsFile, owner: str, run: Running, *, threads: int, usual: int = _USUAL_SIZE, alone: bool = False
) -> Graph:
    """The network of a file; ModelLoadFailed where it cannot be run, ConfigError where options cannot be met.

    `usual`: the side of the input where nobody says it. `alone`: the input may do without an axis for the batch.
    """
    session = open_session(file, owner, run, threads=threads)
    image, others = _inputs(session.inputs, owner, alone)
    if (dtype := _DTYPES.get(image.dtype)) is None:
        raise ModelLoadFailed(f"{owner}: its input is {image.dtype}, allowed: {', '.join(_DTYPES)}")
    batched = len(image.shape) == 4
    shape = image.shape if batched else (1, *image.shape)
    channels_last = shape[3] == 3 and shape[1] != 3
    sides = shape[1:3] if channels_last else shape[2:4]
    width, height = _size(sides, run.size, session.metadata, owner, usual)
    return Graph(
        session=session,
        image=image.name,
        dtype=dtype,
        width=width,
        height=height,
        batch=shape[0],
        channels_last=channels_last,
        batched=batched,
        quantised=image.quantised,
        any_sides=not any(sides),
        others=others,
        owner=owner,
    )


def prepared(graph: Graph, recipe: Recipe, given: Mapping[str, Any]) -> tuple[Graph, Recipe]:
    """A family's recipe with what the (checked) options say otherwise, and the graph that takes such pictures.

    Inputs of bytes, and of bare pictures, get pixels as they are: what they are made of was built into the graph.
    Where options say what the numbers are, a quantised input is given those.
    """
    if graph.quantised and any(name in given for name in ("scale", "mean", "std")):
        graph = replace(graph, dtype=np.float32)
    elif graph.dtype is np.uint8 or not graph.batched:
        recipe = replace(
            recipe, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3, pad=_MEAN_GRAY if recipe.pad is None else recipe.pad
        )
    return graph, replace(recipe, **{name: given[name] for name in PREPARATION if name in given})


def _inputs(inputs: Sequence[Port], owner: str, alone: bool) -> tuple[Port, dict[str, str]]:
    """The picture input, and what the further inputs want."""
    pictures = [port for port in inputs if len(port.shape) == 4 and 3 in (port.shape[1], port.shape[3])]
    if alone and not pictures:
        pictures = [port for port in inputs if len(port.shape) == 3 and 3 in (port.shape[0], port.shape[2])]
    listing = ", ".join(map(str, inputs))
    if len(pictures) != 1:
        # People point at the second file of a pair, too.
        second = (
            "; a decoder is the option `decoder` of its encoder, a tracker's head the option `head` of opencv:nanotrack"
            if not pictures and len(inputs) > 1
            else ""
        )
        raise ModelLoadFailed(
            f"{owner}: got the inputs {listing}, allowed: one of (N, 3, H, W) or (N, H, W, 3){second}"
        )
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
    sides: Sequence[Any], wanted: tuple[int, int] | None, metadata: Mapping[str, str], owner: str, otherwise: int
) -> tuple[int, int]:
    """(width, height) of the input: fixed by the graph, said in the options, left by the exporter, or the usual one."""
    height, width = sides
    if wanted is not None:
        if (width or wanted[0], height or wanted[1]) != wanted:
            raise ConfigError(f"{owner}: input_size: got {list(wanted)}, the graph takes only [{width}, {height}]")
        return wanted
    try:
        left = ast.literal_eval(metadata.get("imgsz", "None")) or otherwise
        usual = [left, left] if isinstance(left, int) else [int(side) for side in left]
    except (ValueError, SyntaxError, TypeError):
        usual = [otherwise] * 2
    return width or usual[-1], height or usual[0]
