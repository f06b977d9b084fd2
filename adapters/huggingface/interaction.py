"""Interactors: SAM, SAM-HQ, SAM 2, EdgeTAM and SAM 3 segment what is clicked, boxed or (SAM 3) said in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters.huggingface.concepts import Concepts, OneLook
from adapters.huggingface.masks import enlarged, mask_of
from adapters.huggingface.opening import Opened
from adapters.huggingface.pictures import Preparation
from agent.contract import ConfigError, Detection, Frame, Mask, ModelLoadFailed, PromptNeeds, Prompts

_MODELS = (
    "sam", "sam_hq", "sam2", "sam2_video", "edgetam", "edgetam_video",
    "sam3_tracker", "sam3_tracker_video", "sam3_video",
)  # fmt: skip
_OBJECT = "object"
"""The label of what is clicked: a person gives it its own."""


class PromptSegmenter:
    """Embeds a frame once, and answers each click with a mask; its score is the IoU that the model expects."""

    def __init__(
        self, opened: Opened, *, texts: bool = False, alternatives: int = 1, text_threshold: float = 0.5
    ) -> None:
        """`texts`: load SAM 3's part for words as well. `alternatives`: masks for one click, best first (1 to 3)."""
        if not 1 <= alternatives <= 3:
            raise ConfigError(f"{opened.owner}: alternatives: got {alternatives}, allowed: 1 to 3")
        if not 0 <= text_threshold <= 1:
            raise ConfigError(f"{opened.owner}: text_threshold: got {text_threshold}, allowed: 0 to 1")
        kind = opened.config.model_type
        if kind not in _MODELS:
            raise ModelLoadFailed(f"{opened.owner}: task interaction: got {kind}, allowed: {', '.join(_MODELS)}")
        if texts and kind != "sam3_video":
            raise ConfigError(f"{opened.owner}: texts: {kind} understands no words, allowed: with facebook/sam3")
        self._opened, self._most, self._least = opened, alternatives, text_threshold
        self._first = kind in ("sam", "sam_hq")
        side = int(_prompt_config(opened.config).image_size)
        self._prepare = Preparation.read(opened.preparation(), opened.owner, side=side, keep_shape=self._first)
        self._model = _model(opened)
        self._concepts = Concepts(opened) if texts else None
        self._once = OneLook(self._model, self._concepts.model) if self._concepts is not None else None
        # A box is enough, too; CVAT would ask for a point even after one if points were required.
        self.needs = PromptNeeds(positive=0, negative=0, box="optional", texts=texts)
        self.help_message = "Click on the object, or draw a box around it" + (", or say what to find" if texts else "")
        self.facts = opened.facts(self._model, "interaction", f"{side}x{side}")

    def embed(self, frame: Frame) -> dict[str, Any]:
        """The feature maps, in the memory of the machine: that of a GPU is too small for a cache."""
        import torch

        pixels = self._opened.placed({"pixel_values": self._prepare([frame])})["pixel_values"]
        with torch.inference_mode():
            found = self._model.get_image_embeddings(pixel_values=pixels)
        embedding: dict[str, Any] = {"size": torch.tensor([frame.height, frame.width])}
        if isinstance(found, torch.Tensor):
            embedding["maps"] = found.cpu()
        else:
            # SAM-HQ adds a list of earlier maps to its own; the later models give one for each scale.
            for name, part in zip(("maps", "deep"), (found if self._first else [found]), strict=False):
                embedding[name] = part.cpu() if isinstance(part, torch.Tensor) else tuple(one.cpu() for one in part)
        if self._concepts is not None and self._once is not None:
            embedding["concepts"] = tuple(one.cpu() for one in self._concepts.look_at(pixels))
            self._once.forget()
        return embedding

    def segment(self, embedding: Any, prompts: Prompts) -> list[Detection]:
        """The mask of what is marked, or the masks of what is said in words as far as they agree with the marks."""
        height, width = (int(side) for side in embedding["size"])
        size = (height, width)
        if prompts.texts and self._concepts is not None:
            return self._said(self._concepts, embedding, prompts, size)
        if not prompts.positive and prompts.box is None:
            return []
        outputs = self._run(embedding, prompts, size)
        scores = outputs.iou_scores[0, 0].float().clamp(0, 1)
        masks = outputs.pred_masks[0, 0].float()
        self._opened.check(scores=scores, masks=masks)
        found = []
        for place in scores.argsort(descending=True, stable=True)[: self._most].tolist():
            if (mask := self._mask(masks[place], size)) is not None:
                found.append(Detection(_OBJECT, mask, float(scores[place])))
        return found

    def _run(self, embedding: Any, prompts: Prompts, size: tuple[int, int]) -> Any:
        import torch

        height, width = self._prepare.filled(*size)
        scale = torch.tensor([width / size[1], height / size[0]])
        given: dict[str, Any] = {}
        # Coordinates stay float32: half precision cannot tell neighbouring pixels apart.
        if points := [*prompts.positive, *prompts.negative]:
            kinds = [1] * len(prompts.positive) + [0] * len(prompts.negative)
            given["input_points"] = (torch.tensor(points, dtype=torch.float32) * scale)[None, None]
            given["input_labels"] = torch.tensor(kinds, dtype=torch.int32)[None, None]
        if (box := prompts.box) is not None:
            corners = torch.tensor([[box.left, box.top], [box.right, box.bottom]], dtype=torch.float32) * scale
            given["input_boxes"] = corners.reshape(1, 1, 4)
        given["image_embeddings"] = embedding["maps"]
        if "deep" in embedding:
            given["intermediate_embeddings"] = list(embedding["deep"])
        # One click can mean a part or the whole; anything more says which.
        alone = len(points) == 1 and box is None
        with torch.inference_mode():
            return self._model(**_moved(given, self._opened.device), multimask_output=alone or self._most > 1)

    def _mask(self, logits: Any, size: tuple[int, int]) -> Mask | None:
        """The mask in the frame, from logits of the network's whole square."""
        if self._first:
            logits = enlarged(logits[None], self._prepare.height, self._prepare.width)[0]
            height, width = self._prepare.filled(*size)
            logits = logits[:height, :width]
        return mask_of(enlarged(logits[None], *size)[0] > 0)

    def _said(self, concepts: Concepts, embedding: Any, prompts: Prompts, size: tuple[int, int]) -> list[Detection]:
        maps = _moved({"maps": embedding["concepts"]}, self._opened.device)["maps"]
        found = []
        for words in prompts.texts:
            (instances,) = concepts.find(maps, words, size, self._least)
            found += [Detection(words, mask, score) for score, mask in instances if _holds(mask, prompts)]
        return sorted(found, key=lambda one: -(one.score or 0))


def _model(opened: Opened) -> Any:
    if opened.config.model_type == "sam3_video":
        # transformers 5.23 takes SAM 3's tracker for clicks without its prefix, and does not find it.
        return opened.model("Sam3TrackerModel", {r"^tracker_model\.": ""})
    return opened.model("AutoModelForMaskGeneration")


def _prompt_config(config: Any) -> Any:
    """The part of a config that knows the side of the network's pictures."""
    inner = getattr(config, "tracker_config", None) or config
    return inner.prompt_encoder_config


def _holds(mask: Mask, prompts: Prompts) -> bool:
    """Whether a mask has all positive points inside, no negative one, and most of its pixels in the box.

    SAM 3 would take a box for an example of what is meant, which it cannot without torchvision.
    """
    height, width = mask.bitmap.shape

    def inside(point: Sequence[float]) -> bool:
        x, y = int(point[0]) - mask.left, int(point[1]) - mask.top
        return 0 <= x < width and 0 <= y < height and bool(mask.bitmap[y, x])

    if (box := prompts.box) is not None:
        left, top = max(0, round(box.left) - mask.left), max(0, round(box.top) - mask.top)
        right, bottom = max(0, round(box.right) - mask.left), max(0, round(box.bottom) - mask.top)
        if 2 * mask.bitmap[top:bottom, left:right].sum() < mask.bitmap.sum():
            return False
    return all(map(inside, prompts.positive)) and not any(map(inside, prompts.negative))


def _moved(given: dict[str, Any], device: str) -> dict[str, Any]:
    """Tensors, and lists of them, on a device."""
    return {
        name: [one.to(device) for one in value] if isinstance(value, list | tuple) else value.to(device)
        for name, value in given.items()
    }


build = PromptSegmenter
