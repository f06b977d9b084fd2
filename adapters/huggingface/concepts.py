"""SAM 3 (arXiv 2511.16719) finds every instance of what is said in words: `hf:facebook/sam3`."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from adapters.huggingface.class_names import labels_of
from adapters.huggingface.masks import enlarged, mask_of
from adapters.huggingface.opening import Opened
from adapters.huggingface.phrases import Vocabulary
from adapters.huggingface.pictures import Preparation, in_batches
from agent.contract import Context, Detection, Frame, Mask

LOWEST_SCORE = 0.01
"""Below this an instance is noise to everyone, and its mask is not worth enlarging."""
_MOST_TOKENS = 32
_MOST_WORDS = 256
"""Whose features are kept."""


class Concepts:
    """The model, the features of frames and those of words."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        detector = getattr(opened.config, "detector_config", None) or opened.config
        side = int(detector.vision_config.backbone_config.image_size)
        self._prepare = Preparation.read(opened.preparation(), opened.owner, side=side)
        self._tokenizer = opened.tokenizer()
        self.model = opened.model("Sam3LiteTextModel" if "lite" in opened.config.model_type else "Sam3Model")
        self.size = f"{side}x{side}"
        self._known: dict[str, tuple[Any, Any]] = {}

    def look(self, frames: Sequence[Frame]) -> tuple[Any, ...]:
        """The feature maps of frames of one size, which all words share."""
        return self.look_at(self._opened.placed({"pixel_values": self._prepare(frames)})["pixel_values"])

    def look_at(self, pixels: Any) -> tuple[Any, ...]:
        """The feature maps of pictures that are prepared already."""
        import torch

        with torch.inference_mode():
            maps = self.model.get_vision_features(pixel_values=pixels).fpn_hidden_states
        return tuple(maps[:-1])  # the smallest is not used

    def find(
        self, maps: Sequence[Any], words: str, size: tuple[int, int], threshold: float
    ) -> list[list[tuple[float, Mask]]]:
        """For each frame, the instances and their scores, best first. `size` is the frames' height and width."""
        import torch

        embedding, attention = self._words(words)
        count = len(maps[0])
        with torch.inference_mode():
            outputs = self.model(
                vision_embeds=self._features(maps),
                text_embeds=_Pooled(embedding.expand(count, -1, -1)),
                attention_mask=attention.expand(count, -1),
            )
        scores = outputs.pred_logits.float().sigmoid() * outputs.presence_logits.float().sigmoid()
        self._opened.check(scores=scores, masks=outputs.pred_masks)
        return [self._instances(*pair, size, threshold) for pair in zip(scores, outputs.pred_masks, strict=True)]

    def _instances(self, scores: Any, masks: Any, size: tuple[int, int], threshold: float) -> list[tuple[float, Mask]]:
        order = scores.argsort(descending=True, stable=True)
        found = []
        for place in order[scores[order] >= max(threshold, LOWEST_SCORE)].tolist():
            if (mask := mask_of(enlarged(masks[place : place + 1], *size)[0] > 0)) is not None:
                found.append((float(scores[place]), mask))
        return found

    def _words(self, words: str) -> tuple[Any, Any]:
        """The features of words; those of the last few hundred are kept."""
        if words not in self._known:
            if len(self._known) == _MOST_WORDS:
                del self._known[next(iter(self._known))]
            self._known[words] = self._encode(words)
        return self._known[words]

    def _encode(self, words: str) -> tuple[Any, Any]:
        import torch

        length = min(_MOST_TOKENS, int(self.model.config.text_config.max_position_embeddings))
        tokens = self._tokenizer(
            [words], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).to(self._opened.device)
        with torch.inference_mode():
            features = self.model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], return_dict=True
            )
        return features.pooler_output, tokens["attention_mask"]

    def _features(self, maps: Sequence[Any]) -> Any:
        """The maps as the model's own class has them, with the positions that go with their shapes."""
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        whole = (*maps, maps[-1])
        position = self.model.vision_encoder.neck.position_encoding
        return Sam3VisionEncoderOutput(
            fpn_hidden_states=whole,
            fpn_position_encoding=tuple(position(one.shape, one.device, one.dtype) for one in whole),
        )


class _Pooled:
    """The features of words, as the model's forward looks at them."""

    def __init__(self, pooler_output: Any) -> None:
        self.pooler_output = pooler_output


class OneLook:
    """Lets SAM 3's part for clicks and its part for words share what is the same in both: nearly all of the weights,
    and nearly all of the time for a picture."""

    def __init__(self, clicks: Any, words: Any) -> None:
        backbone = words.vision_encoder.backbone
        # Weak, or the weights would wait for the garbage collector when the model is no longer needed.
        self._backbone = weakref.ref(backbone)
        self._seen: tuple[Any, ...] = ()
        clicks.vision_encoder.backbone = backbone
        backbone.forward = self._once

    def forget(self) -> None:
        """Lets go of the last picture."""
        self._seen = ()

    def _once(self, pixel_values: Any, **more: Any) -> Any:
        if not self._seen or self._seen[0] is not pixel_values:
            backbone: Any = self._backbone()
            self._seen = (pixel_values, type(backbone).forward(backbone, pixel_values, **more))
        return self._seen[1]


class ConceptSegmenter:
    """Gives a mask for each instance of each phrase; its labels are those of the options, or of each task."""

    default_threshold = 0.5

    def __init__(
        self, opened: Opened, *, labels: str | list[str] | None = None, phrases: dict[str, Any] | None = None
    ) -> None:
        self._vocabulary = Vocabulary(labels, phrases, opened.owner)
        self._concepts = Concepts(opened)
        self.labels = labels_of((phrase.label for phrase in self._vocabulary.phrases), "mask")
        self.finds = "mask" if self._vocabulary.open else None
        self.batch_size = opened.batch_size
        self.facts = opened.facts(
            self._concepts.model,
            "zero-shot segmentation",
            self._concepts.size,
            asked_for=", ".join(phrase.words for phrase in self._vocabulary.phrases[:20]),
        )

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        phrases = self._vocabulary.asked(context)
        if not phrases:
            return [[] for _ in frames]

        def run(batch: Sequence[Frame]) -> list[list[Detection]]:
            maps, size = self._concepts.look(batch), (batch[0].height, batch[0].width)
            found: list[list[Detection]] = [[] for _ in batch]
            for phrase in phrases:
                answers = self._concepts.find(maps, phrase.words, size, context.threshold)
                for place, instances in enumerate(answers):
                    found[place] += [Detection(phrase.label, mask, score) for score, mask in instances]
            return [sorted(one, key=lambda detection: -(detection.score or 0)) for one in found]

        return in_batches(frames, self.batch_size, run)


build = ConceptSegmenter
