"""How decoders want to be asked: SAM's points with labels, or maps of what was marked.

A style is told by the names and shapes of the decoder's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from adapters._networks.pictures import IMAGENET_MEAN, IMAGENET_STD, Placement, Recipe
from adapters._networks.session import Port
from agent.contract import PromptNeeds, Prompts

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGMA = 2.5
"""Cells: how far a click reaches in a map of clicks."""

_POINTS, _LABELS = ("point_coords", "input_points"), ("point_labels", "input_labels")
_SAM = Recipe(resize="letterbox-top-left", mean=IMAGENET_MEAN, std=IMAGENET_STD, pad=None, smooth=True)
_SAM2 = Recipe(resize="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD, smooth=True)
_STRETCHED = Recipe(resize="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD)


Answer: TypeAlias = "tuple[NDArray[Any], float | None, bool]"
"""(h, w) logits, the model's opinion of them, and whether they are over the frame, not over the encoder's input."""


class Style(Protocol):
    """A way of asking."""

    name: str
    recipe: Recipe
    needs: PromptNeeds
    help_message: str
    asked: frozenset[str]
    """The decoder's inputs that carry the prompts; all others are of the encoder."""

    def feeds(
        self, prompts: Prompts, placement: Placement, size: tuple[int, int], frame: tuple[int, int]
    ) -> dict[str, NDArray[Any]]:
        """The inputs of the prompts; `size` (width, height) of the encoder's input, `frame` that of the frame."""
        ...

    def answer(self, outputs: Mapping[str, NDArray[Any]], clicks: int) -> Answer:
        """What the decoder gave."""
        ...


def recognise(inputs: Sequence[Port]) -> Style | None:
    """The style of a decoder with these inputs."""
    by_name = {node.name: node for node in inputs}
    points = next((by_name[name] for name in _POINTS if name in by_name), None)
    labels = next((by_name[name] for name in _LABELS if name in by_name), None)
    if points is not None and labels is not None:
        return PointPrompts(points, labels, by_name)
    maps = [node for node in inputs if len(node.shape) == 4 and node.shape[1] == 4 and "prompt" in node.name.lower()]
    return MapPrompts(maps[0]) if len(maps) == 1 else None


class PointPrompts:
    """Points with labels, as exports of SAM have them.

    Labels: 1 and 0 for positive and negative clicks, 2 and 3 for a box's corners, -1 for a point that is none
    (facebookresearch/segment-anything, segment_anything/utils/onnx.py). SAM 2 and the exports by Hugging Face's optimum
    differ in names, and in an axis more.
    """

    def __init__(self, points: Port, labels: Port, inputs: Mapping[str, Port]) -> None:
        self._points, self._labels, self._inputs = points, labels, inputs
        fixed = {"mask_input", "has_mask_input", "orig_im_size", "input_boxes"} & set(inputs)
        self.asked = frozenset({points.name, labels.name} | fixed)
        stretched = any("high_res" in name for name in inputs) or any(name.endswith(".2") for name in inputs)
        self.recipe = _SAM2 if stretched else _SAM
        self.name = "points with labels, as SAM has them"
        # In optimum's export of the first SAM, only the clicks go in.
        self._corners = points.name == "point_coords" or stretched
        self.needs = PromptNeeds(
            positive=0 if self._corners else 1, negative=0, box="optional" if self._corners else "no"
        )
        box = ", or draw a box around it" if self._corners else ""
        self.help_message = f"Click on the object{box}; negative clicks take away what does not belong to it."

    def feeds(
        self, prompts: Prompts, placement: Placement, size: tuple[int, int], frame: tuple[int, int]
    ) -> dict[str, NDArray[Any]]:
        places = [placement.to_input(x, y) for x, y in (*prompts.positive, *prompts.negative)]
        labels = [1] * len(prompts.positive) + [0] * len(prompts.negative)
        if prompts.box is not None and self._corners:
            box = prompts.box
            places += [placement.to_input(box.left, box.top), placement.to_input(box.right, box.bottom)]
            labels += [2, 3]
        else:  # SAM was trained with a point that is none in the place of a box
            places.append((0.0, 0.0))
            labels.append(-1)
        more = max(1, len(self._points.shape) - 2)  # TorchScript does not tell shapes: SAM's own has one axis more
        feeds = {
            self._points.name: np.array(places, np.float32).reshape(*[1] * more, -1, 2),
            self._labels.name: np.array(labels, np.float32).reshape(*[1] * more, -1),
            "orig_im_size": np.array([frame[1], frame[0]], np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }
        if (mask := self._inputs.get("mask_input")) is not None:
            sides = [side or 256 for side in mask.shape[2:]] or [256, 256]
            feeds["mask_input"] = np.zeros((1, 1, *sides), np.float32)
        if "input_boxes" in self._inputs:
            feeds["input_boxes"] = np.zeros((1, 0, 4), np.float32)
        return {name: value for name, value in feeds.items() if name in self.asked}

    def answer(self, outputs: Mapping[str, NDArray[Any]], clicks: int) -> Answer:
        # Of masks in both sizes the small ones: large ones are cut out by the shape of the picture that some exports
        # were traced with, and CVAT's own decoder crops them to the object.
        found = next((name for name in ("low_res_masks", "masks", "pred_masks") if name in outputs), None)
        found = found or next(name for name, value in outputs.items() if value.ndim >= 4)
        over_frame = found != "low_res_masks" and "orig_im_size" in self.asked
        masks = outputs[found].reshape(-1, *outputs[found].shape[-2:])
        scores = self._opinions(outputs, len(masks))
        if scores is None:
            return masks[0], None, over_frame
        # Of four masks, the first is meant for several clicks, the others for one that may mean part or whole.
        first = 1 if len(masks) == 4 and clicks == 1 else 0
        last = 1 if len(masks) == 4 and clicks > 1 else len(masks)
        best = first + int(np.argmax(scores[first:last]))
        return masks[best], float(scores[best]), over_frame

    def _opinions(self, outputs: Mapping[str, NDArray[Any]], count: int) -> NDArray[Any] | None:
        """One number for each mask; PyTorch's programs do not name their outputs."""
        named = [name for name in outputs if "iou" in name.lower() or "score" in name.lower()]
        bare = [name for name in outputs if name.startswith("output")]
        return next((outputs[name].ravel() for name in named or bare if outputs[name].size == count), None)


class MapPrompts:
    """Maps over the encoder's input: positive clicks, negative clicks, the inside of the box, whether there is one."""

    name = "maps of clicks and of a box"
    recipe = _STRETCHED
    needs = PromptNeeds(positive=0, negative=0, box="optional")
    help_message = "Draw a box around the object, or click on it; negative clicks take away what does not belong to it."

    def __init__(self, maps: Port) -> None:
        self._maps = maps
        self.asked = frozenset({maps.name})

    def feeds(
        self, prompts: Prompts, placement: Placement, size: tuple[int, int], frame: tuple[int, int]
    ) -> dict[str, NDArray[Any]]:
        high, wide = (side or 96 for side in self._maps.shape[2:])
        cells = np.array([wide / size[0], high / size[1]])
        rows, columns = np.mgrid[0:high, 0:wide]
        maps = np.zeros((4, high, wide), np.float32)
        for layer, points in ((maps[0], prompts.positive), (maps[1], prompts.negative)):
            for x, y in points:
                column, row = np.array(placement.to_input(x, y)) * cells - 0.5
                away = (columns - column) ** 2 + (rows - row) ** 2
                np.maximum(layer, np.exp(-away / (2 * SIGMA**2)), out=layer, casting="unsafe")
        if prompts.box is not None:
            left, top = np.array(placement.to_input(prompts.box.left, prompts.box.top)) * cells
            right, bottom = np.array(placement.to_input(prompts.box.right, prompts.box.bottom)) * cells
            maps[2, int(max(top, 0)) : int(np.ceil(bottom)), int(max(left, 0)) : int(np.ceil(right))] = 1
            maps[3] = 1
        return {self._maps.name: maps[None]}

    def answer(self, outputs: Mapping[str, NDArray[Any]], clicks: int) -> Answer:
        (logits,) = outputs.values()
        return logits.reshape(-1, *logits.shape[-2:])[0], None, False
