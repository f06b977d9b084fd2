"""Text recognition: TrOCR and PP-OCR read the line of text in a rectangle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from adapters._crops import crop
from adapters.huggingface.opening import Opened
from adapters.huggingface.pictures import picture, size_text
from adapters.huggingface.recognition import LineRecognizer
from agent.contract import Attribute, ConfigError, Context, Detection, Frame, Label, Rectangle

Line = tuple[str, float]
"""What a line says, and how sure that is."""


class Recognizer(Protocol):
    """Reads pictures of single lines."""

    model: Any
    size: str

    def lines(self, pictures: Sequence[Frame]) -> list[Line]:
        """What each of a batch of pictures says."""
        ...


class TextReader:
    """Reads lines. `read` is for who knows where they are; alone, a frame is one line."""

    default_threshold = 0.0

    def __init__(
        self,
        opened: Opened,
        *,
        label: str = "text",
        attribute: str = "text",
        boxes: Literal["frame"] = "frame",
        max_length: int = 128,
    ) -> None:
        """`label` and `attribute`: where the text goes. `max_length`: the most tokens of a line (TrOCR)."""
        if max_length < 1:
            raise ConfigError(f"{opened.owner}: max_length: got {max_length}, allowed: 1 or more")
        encoder_decoder = opened.config.model_type == "vision-encoder-decoder"
        self._recognizer: Recognizer = _Written(opened, max_length) if encoder_decoder else LineRecognizer(opened)
        self._label, self._attribute = label, attribute
        self.labels = [Label(label, "rectangle", (Attribute(attribute, "text"),))]
        self.batch_size = opened.batch_size
        model = self._recognizer.model
        self.facts = opened.facts(model, "text reading", self._recognizer.size, looks_at=f"the whole {boxes}")

    def read(self, frame: Frame, rectangles: Sequence[Rectangle]) -> list[str]:
        """The text in each rectangle; rectangles may be turned."""
        return [text for text, _ in self.lines(frame, rectangles)]

    def lines(self, frame: Frame, rectangles: Sequence[Rectangle]) -> list[Line]:
        """The text in each rectangle, and its score."""
        found: list[Line] = []
        for start in range(0, len(rectangles), self.batch_size):
            part = rectangles[start : start + self.batch_size]
            found += self._recognizer.lines([Frame(frame.index, frame.name, crop(frame.image, one)) for one in part])
        return found

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        found = []
        for frame in frames:
            whole = Rectangle(0.0, 0.0, float(frame.width), float(frame.height))
            ((text, score),) = self.lines(frame, [whole])
            said = text and score >= context.threshold
            found.append([Detection(self._label, whole, score, {self._attribute: text})] if said else [])
        return found


class _Written:
    """TrOCR (arXiv 2109.10282): a decoder writes what an encoder sees, token by token."""

    def __init__(self, opened: Opened, max_length: int) -> None:
        opened.preparation()
        room = int(getattr(opened.config.decoder, "max_position_embeddings", max_length + 2)) - 2
        self._opened, self._most = opened, min(max_length, room)
        self._processor = opened.image_processor()
        self._tokenizer = opened.tokenizer()
        self.model = opened.model("VisionEncoderDecoderModel")
        self.size = size_text(getattr(self._processor, "size", None))

    def lines(self, pictures: Sequence[Frame]) -> list[Line]:
        import torch

        inputs = self._processor(images=[picture(one) for one in pictures], return_tensors="pt")
        with torch.inference_mode():
            answer = self.model.generate(
                **self._opened.placed({"pixel_values": inputs["pixel_values"]}),
                max_new_tokens=self._most,
                do_sample=False,
                num_beams=1,
                output_scores=True,
                return_dict_in_generate=True,
            )
        chances = self.model.compute_transition_scores(answer.sequences, answer.scores, normalize_logits=True).float()
        self._opened.check(scores=chances)
        texts = self._tokenizer.batch_decode(answer.sequences, skip_special_tokens=True)
        # What follows the end of a line counts as certain.
        written = answer.sequences[:, -chances.shape[1] :] != self._tokenizer.pad_token_id
        means = (chances.masked_fill(~written, 0).sum(1) / written.sum(1).clamp(min=1)).exp()
        return [(text.strip(), float(mean)) for text, mean in zip(texts, means.clamp(0, 1), strict=True)]


build = TextReader
