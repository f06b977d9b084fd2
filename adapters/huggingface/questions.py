"""How each family of open-vocabulary detectors is asked with words, and how its answer reads.

Each answers with (N, Q, P) scores of its queries for the phrases and (N, Q, 4) boxes: centre, width and height as
shares of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from adapters.huggingface.opening import Opened
from adapters.huggingface.pictures import picture
from agent.contract import Frame


class Questions(Protocol):
    """One family."""

    default_threshold: float

    def ask(self, frames: Sequence[Frame], words: Sequence[str]) -> tuple[Any, Any]:
        """Scores and boxes of frames of one size."""
        ...


class _Asking:
    """The model, its words and its pictures."""

    def __init__(self, opened: Opened) -> None:
        opened.preparation()
        self._opened = opened
        self._processor = opened.image_processor()
        self._tokenizer = opened.tokenizer()
        self.model = opened.model("AutoModelForZeroShotObjectDetection")
        self.size = getattr(self._processor, "size", None)

    def _pixels(self, frames: Sequence[Frame]) -> dict[str, Any]:
        return dict(self._processor(images=[picture(frame) for frame in frames], return_tensors="pt"))

    def _run(self, **inputs: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self.model(**self._opened.placed(inputs))

    def _tokens(self, words: Sequence[str], length: int) -> Any:
        return self._tokenizer(
            list(words), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )


class GroundingDino(_Asking):
    """One text for all phrases, `cat. red car.` (arXiv 2303.05499); a phrase's score is that of its best token."""

    default_threshold = 0.25

    def ask(self, frames: Sequence[Frame], words: Sequence[str]) -> tuple[Any, Any]:
        import torch

        pixels = self._pixels(frames)
        scores, boxes = [], []
        for phrases in self._fitting(words):
            found, places = self._ask(pixels, len(frames), phrases)
            scores.append(found)
            boxes.append(places)
        # Each text has queries of its own, which say nothing about the phrases of the others.
        whole = torch.zeros((len(frames), sum(part.shape[1] for part in scores), len(words)))
        row = column = 0
        for part in scores:
            whole[:, row : row + part.shape[1], column : column + part.shape[2]] = part.cpu()
            row, column = row + part.shape[1], column + part.shape[2]
        return whole, torch.cat(boxes, 1)

    def _ask(self, pixels: dict[str, Any], count: int, phrases: Sequence[list[int]]) -> tuple[Any, Any]:
        import torch

        tokenizer = self._tokenizer
        text = [tokenizer.cls_token_id]
        places = []
        for phrase in phrases:
            places.append(range(len(text), len(text) + len(phrase)))
            text += [*phrase, self._stop]
        ids = torch.tensor([[*text, tokenizer.sep_token_id]]).repeat(count, 1)
        words = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
        outputs = self._run(**pixels, **words)
        logits = outputs.logits.float()
        self._opened.check(scores=logits, boxes=outputs.pred_boxes)
        chances = logits.sigmoid()
        best = [chances[..., place.start : place.stop].amax(-1) for place in places]
        return torch.stack(best, -1), outputs.pred_boxes.float()

    @property
    def _stop(self) -> int:
        stop: int = self._tokenizer.convert_tokens_to_ids(".")
        return stop

    def _fitting(self, words: Sequence[str]) -> Iterator[list[list[int]]]:
        """The tokens of the phrases, as many together as a text may have."""
        room = int(self._opened.config.max_text_len) - 2
        text: list[list[int]] = []
        for one in words:
            # Stops would end the phrase.
            plain = one.lower().replace(".", " ").replace("?", " ")
            ids = self._tokenizer(plain, add_special_tokens=False)["input_ids"][: room - 1] or [self._stop]
            if text and sum(len(other) + 1 for other in text) + len(ids) + 1 > room:
                yield text
                text = []
            text.append(ids)
        yield text


class Owl(_Asking):
    """OWL-ViT (arXiv 2205.06230) and OWLv2 (2306.09683): each phrase on its own."""

    default_threshold = 0.1

    def ask(self, frames: Sequence[Frame], words: Sequence[str]) -> tuple[Any, Any]:
        tokens = self._tokens(words, int(self._opened.config.text_config.max_position_embeddings))
        repeated = {name: tokens[name].repeat(len(frames), 1) for name in ("input_ids", "attention_mask")}
        outputs = self._run(**self._pixels(frames), **repeated)
        logits, boxes = outputs.logits.float(), outputs.pred_boxes.float()
        self._opened.check(scores=logits, boxes=boxes)
        if self._opened.config.model_type == "owlv2":
            # Its pictures are padded to a square, which its boxes are shares of.
            side = max(frames[0].height, frames[0].width)
            boxes = boxes * boxes.new_tensor([side / frames[0].width, side / frames[0].height] * 2)
        return logits.sigmoid(), boxes


class OmDet(_Asking):
    """OmDet-Turbo (arXiv 2403.06892): the phrases, and a task that names them all."""

    default_threshold = 0.3

    def ask(self, frames: Sequence[Frame], words: Sequence[str]) -> tuple[Any, Any]:
        import torch

        length = min(77, int(self._opened.config.text_config.max_position_embeddings))
        classes, tasks = self._tokens(words, length), self._tokens([f"Detect {', '.join(words)}."], length)
        count = len(frames)
        outputs = self._run(
            pixel_values=self._pixels(frames)["pixel_values"],
            classes_input_ids=classes["input_ids"].repeat(count, 1),
            classes_attention_mask=classes["attention_mask"].repeat(count, 1),
            tasks_input_ids=tasks["input_ids"].repeat(count, 1),
            tasks_attention_mask=tasks["attention_mask"].repeat(count, 1),
            classes_structure=torch.full((count,), len(words)),
        )
        logits, boxes = outputs.decoder_class_logits.float(), outputs.decoder_coord_logits.float()
        self._opened.check(scores=logits, boxes=boxes)
        return logits.sigmoid()[..., : len(words)], boxes


def questions_of(opened: Opened) -> GroundingDino | Owl | OmDet:
    """What fits the model."""
    kind = opened.config.model_type
    if "grounding" in kind:
        return GroundingDino(opened)
    return OmDet(opened) if "omdet" in kind else Owl(opened)
