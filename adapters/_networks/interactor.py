"""Interactors of two graphs, in the way of SAM: an encoder sees a frame once, a decoder answers each prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._masks import tight_mask
from adapters._networks.detectors import running_facts
from adapters._networks.files import open_weights
from adapters._networks.graph import Graph, open_graph, prepared
from adapters._networks.maps import to_frame
from adapters._networks.options import running
from adapters._networks.pictures import Recipe, place, placement
from adapters._networks.prompts import Style, recognise
from adapters._networks.session import Session, open_session, short
from agent.contract import BadPrediction, Detection, Frame, ModelError, ModelLoadFailed, Prompts

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABEL = "object"
"""The name of whatever was marked; the person who marks says what it is."""

USUAL_SIZE = 1024
"""The side of SAM's pictures, for encoders that take any."""
_FRAME = "frame size"


def load_interactor(name: str, device: str, given: Mapping[str, Any]) -> PromptedSegmenter:
    """The interactor in an encoder's file and the decoder's that the options name."""
    owner = f"local:{name}"
    run = running(device, given, owner)
    files = [open_weights(name), open_weights(given["decoder"])]
    encoder = open_graph(files[0], owner, run, threads=run.cores, usual=USUAL_SIZE, alone=True)
    if not encoder.outputs:
        encoder.signature(None)  # PyTorch's programs tell their outputs by giving them
    part = f"local:{given['decoder']}"
    decoder = Decoder(open_session(files[1], part, replace(run, size=None), threads=run.cores), encoder, part)
    encoder, recipe = prepared(encoder, decoder.style.recipe, given)
    facts = {
        "source": " + ".join(file.path.name for file in files),
        "version": " + ".join(file.version for file in files),
        "prompts": decoder.style.name,
        "input size": f"{encoder.width}x{encoder.height}",
        "preparation": str(recipe),
        **running_facts(files[0], encoder),
    }
    model = PromptedSegmenter(encoder, decoder, recipe, facts)
    model.try_out()
    return model


class Decoder:
    """The decoder's graph, and which of its inputs come from where."""

    def __init__(self, session: Session, encoder: Graph, owner: str) -> None:
        self._session, self._owner = session, owner
        listing = ", ".join(map(str, session.inputs))
        style = recognise(session.inputs)
        if style is None:
            raise ModelLoadFailed(
                f"{owner}: got the inputs {listing}, allowed for a decoder: point_coords and point_labels"
                " (SAM, SAM 2), or maps named prompts of shape (N, 4, h, w)"
            )
        self.style: Style = style
        self._dtypes = {port.name: port.dtype for port in session.inputs}
        self.sources = self._match([port.name for port in session.inputs if port.name not in style.asked], encoder)

    def _match(self, wanted: list[str], encoder: Graph) -> dict[str, str]:
        """For each input that is of the encoder the output that it takes: by name, or the only one."""
        sources = {name: name for name in wanted if name in encoder.outputs}
        if len(wanted) == len(encoder.outputs) == 1:
            sources = {wanted[0]: encoder.outputs[0]}
        if missing := [name for name in wanted if name not in sources]:
            raise ModelLoadFailed(
                f"{self._owner}: wants {missing[0]!r}, the encoder gives {', '.join(encoder.outputs)}: not a pair"
            )
        return sources

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name."""
        typed = {name: value.astype(self._dtypes[name], copy=False) for name, value in feeds.items()}
        try:
            return self._session.run(typed)
        except Exception as error:
            raise BadPrediction(f"{self._owner}: the graph failed: {short(error)}") from error


class PromptedSegmenter:
    """Masks of what was clicked on or boxed."""

    def __init__(self, encoder: Graph, decoder: Decoder, recipe: Recipe, facts: Mapping[str, str]) -> None:
        self.facts = facts
        self.needs, self.help_message = decoder.style.needs, decoder.style.help_message
        self._encoder, self._decoder, self._recipe = encoder, decoder, recipe
        self._fits = encoder.any_sides and not encoder.batched
        """Whether it takes a bare picture of any sides, and puts the bars around it itself."""

    def embed(self, frame: Frame) -> dict[str, NDArray[Any]]:
        blob, view = self._encoder.blank(1, self._size_of(frame) if self._fits else None)
        # An input that was made for the frame has no bars.
        place(frame.image, replace(self._recipe, resize="stretch") if self._fits else self._recipe, view[0])
        outputs = self._encoder.run(blob)
        wanted = set(self._decoder.sources.values())
        # One picture, even where the graph takes only batches of several.
        kept = {name: value[:1] for name, value in outputs.items() if name in wanted}
        return {**kept, _FRAME: np.array([frame.width, frame.height])}

    def _size_of(self, frame: Frame) -> tuple[int, int]:
        """(width, height) of a frame that fills the encoder's input as far as its shape allows."""
        where = placement(frame.width, frame.height, self._encoder.width, self._encoder.height, self._recipe)
        return round(frame.width * where.scale_x), round(frame.height * where.scale_y)

    def segment(self, embedding: dict[str, NDArray[Any]], prompts: Prompts) -> list[Detection]:
        if not prompts.positive and prompts.box is None:
            return []  # nothing was marked
        logits, score = self._ask(embedding, prompts)
        found = tight_mask(logits > 0)
        return [] if found is None else [Detection(LABEL, found, score)]

    def try_out(self) -> None:
        """Asks once about a gray picture, so that files that do not belong together are told at once."""
        gray = Frame(0, "gray", np.full((48, 64, 3), 128, np.uint8))
        try:
            self._ask(self.embed(gray), Prompts(positive=((32.0, 24.0),)))
        except ModelError as error:
            raise ModelLoadFailed(f"{error} (tried with a gray picture and one click)") from error

    def _ask(self, embedding: dict[str, NDArray[Any]], prompts: Prompts) -> tuple[NDArray[np.float32], float | None]:
        """Logits for each pixel of the frame, and the model's opinion of them."""
        style, size = self._decoder.style, (self._encoder.width, self._encoder.height)
        width, height = (int(side) for side in embedding[_FRAME])
        where = placement(width, height, *size, self._recipe)
        feeds = style.feeds(prompts, where, size, (width, height))
        feeds |= {name: embedding[source] for name, source in self._decoder.sources.items()}
        clicks = len(prompts.positive) + len(prompts.negative) + 2 * (prompts.box is not None)
        logits, score, over_frame = style.answer(self._decoder.run(feeds), clicks)
        if not np.isfinite(logits).all() or not (score is None or np.isfinite(score)):
            raise BadPrediction(f"{self._encoder.owner}: the decoder gave numbers that are none (NaN or infinite)")
        if not over_frame:
            logits = to_frame(logits, where, size, (0, 0, width, height))
        elif logits.shape != (height, width):
            got = f"{logits.shape[1]}x{logits.shape[0]}"
            raise BadPrediction(f"{self._encoder.owner}: got a mask of {got} for a frame of {width}x{height}")
        return logits, None if score is None else min(1.0, max(0.0, score))
