"""What models that segment by queries are given, and which part of their maps shows the frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.huggingface.opening import NeedsTorchvision, Opened
from adapters.huggingface.pictures import Preparation, picture, size_text
from agent.contract import Frame


class Inputs:
    """transformers' own image processor; the pictures may be padded, or cut into tiles (EoMT's semantic models)."""

    def __init__(self, opened: Opened, segments: str) -> None:
        changes = {}
        if opened.preparation().get("do_split_image") and segments != "semantic":
            changes = {"do_split_image": False, "do_pad": True}
        self._processor = self._load(opened, changes)
        self.size = size_text(getattr(self._processor, "size", None))

    def _load(self, opened: Opened, changes: dict[str, Any]) -> Any:
        return opened.image_processor(**changes)

    def __call__(self, frames: Sequence[Frame]) -> dict[str, Any]:
        return dict(self._processor(images=[picture(frame) for frame in frames], return_tensors="pt"))

    def share(self, inputs: Mapping[str, Any], place: int, frame: Frame) -> tuple[float, float]:
        """How much of the height and width of the maps shows the frame; the rest is padding."""
        if (shown := inputs.get("pixel_mask")) is not None:
            height, width = shown.shape[-2:]
            return int(shown[place, :, 0].sum()) / height, int(shown[place, 0].sum()) / width
        size = dict(self._processor.size or {})
        if getattr(self._processor, "do_pad", False) and size.get("shortest_edge"):
            height, width = inputs["pixel_values"].shape[-2:]
            ratio = size["shortest_edge"] / min(frame.height, frame.width)
            if longest := size.get("longest_edge"):
                ratio = min(ratio, longest / max(frame.height, frame.width))
            return min(1.0, frame.height * ratio / height), min(1.0, frame.width * ratio / width)
        return 1.0, 1.0


class TaskInputs(Inputs):
    """OneFormer's (arXiv 2211.06220), which are told in words what to segment.

    Its own processor wants a list of classes from another repository, for training only.
    """

    def __init__(self, opened: Opened, segments: str) -> None:
        super().__init__(opened, segments)
        length = int(getattr(opened.config, "task_seq_len", 77))
        words = opened.tokenizer()(
            [f"the task is {segments}"], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        self._task = words["attention_mask"] * words["input_ids"]

    def _load(self, opened: Opened, changes: dict[str, Any]) -> Any:
        from transformers import Mask2FormerImageProcessorPil

        content = opened.preparation()
        taken = (
            "size",
            "resample",
            "do_resize",
            "do_rescale",
            "rescale_factor",
            "do_normalize",
            "image_mean",
            "image_std",
        )
        return Mask2FormerImageProcessorPil(**{key: content[key] for key in taken if key in content}, size_divisor=1)

    def __call__(self, frames: Sequence[Frame]) -> dict[str, Any]:
        return {**super().__call__(frames), "task_inputs": self._task.repeat(len(frames), 1)}


class StretchedInputs:
    """For models whose processor needs torchvision (RF-DETR)."""

    def __init__(self, opened: Opened) -> None:
        self._prepare = Preparation.read(opened.preparation(), opened.owner, antialias=False)
        self.size = f"{self._prepare.width}x{self._prepare.height}"

    def __call__(self, frames: Sequence[Frame]) -> dict[str, Any]:
        return {"pixel_values": self._prepare(frames)}

    def share(self, inputs: Mapping[str, Any], place: int, frame: Frame) -> tuple[float, float]:
        return 1.0, 1.0


def inputs_of(opened: Opened, segments: str) -> Inputs | StretchedInputs:
    """What fits the model."""
    if opened.config.model_type == "oneformer":
        return TaskInputs(opened, segments)
    try:
        return Inputs(opened, segments)
    except NeedsTorchvision:
        return StretchedInputs(opened)


def joined(tiles: Sequence[Any], offsets: Sequence[Any], frames: Sequence[Frame]) -> list[Any]:
    """(C, h, w) maps of frames from those of their tiles, which overlap along the longer side: their mean."""
    import torch

    from adapters.huggingface.masks import enlarged

    whole = []
    for number, frame in enumerate(frames):
        mine = [
            (tile, *map(int, place[1:])) for tile, place in zip(tiles, offsets, strict=True) if int(place[0]) == number
        ]
        side, length = mine[0][2] - mine[0][1], max(end for _, _, end in mine)
        upright = frame.height > frame.width
        shape = (length, side) if upright else (side, length)
        total = torch.zeros((len(mine[0][0]), *shape), device=mine[0][0].device)
        times = torch.zeros(shape, device=total.device)
        for tile, start, end in mine:
            place = (slice(start, end), slice(None)) if upright else (slice(None), slice(start, end))
            total[:, *place] += enlarged(tile, side, side)
            times[place] += 1
        whole.append(total / times.clamp(min=1))
    return whole
