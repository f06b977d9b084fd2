"""Heads with scores and boxes as outputs of their own: DETR and its kin, SSD and its kin, finished detections.

Q is the number of queries or priors, C the number of classes. How the boxes are written (corners or centres, pixels or
fractions) and whether scores are logits is read off the values for a gray picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.boxes import BoxHead
from adapters._networks.candidates import Candidates, from_centres
from adapters._networks.head import Outputs
from adapters._networks.pictures import IMAGENET_MEAN, IMAGENET_STD, Recipe
from adapters._networks.signature import Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLAIN = Recipe(resize="stretch")
IMAGENET = Recipe(resize="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD)
ULTRAFACE = Recipe(resize="stretch", scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)
_MOST_QUERIES = 1000


def detr(signature: Signature) -> BoxHead | None:
    """scores or logits (1, Q, C) and boxes (1, Q, 4), at most 1000 queries, no suppression needed.

    RT-DETR, D-FINE, DEIM, RF-DETR and others have a sigmoid for each class, so that a query can name several;
    DETR and YOLOS (arXiv 2005.12872) a softmax whose last class is "no object".
    """
    pair = _pair(signature)
    if pair is None:
        return None
    scores, boxes = pair
    sample = signature.outputs[scores][0]
    logits = _are_logits(scores, sample)
    width = sample.shape[1]
    softmax = (logits and width == (91 if signature.classes is None else signature.classes) + 1) or (
        not logits and rows_sum_to_one(sample)
    )
    if sample.shape[0] > _MOST_QUERIES:
        return None
    to_pixels = _to_pixels(signature, signature.outputs[boxes][0])
    classes = width - 1 if softmax else width

    def decode(outputs: Outputs, floor: float) -> Candidates:
        table = probabilities(outputs[scores], logits, softmax)[:, :classes]
        if softmax:
            kinds = table.argmax(axis=1)
            places = np.flatnonzero(table[np.arange(len(table)), kinds] >= floor)
            kinds = kinds[places]
        else:
            places, kinds = np.nonzero(table >= floor)
        return Candidates(to_pixels(outputs[boxes][places]), table[places, kinds], kinds)

    # Only the exports that take the normalised picture are known to give bare logits: DETR and RF-DETR.
    imagenet = softmax or "dets" in signature.outputs
    recipe = IMAGENET if imagenet else PLAIN
    return BoxHead("detr", decode, recipe, classes=classes, overlapping=False, threshold=0.4)


def ssd(signature: Signature) -> BoxHead | None:
    """scores (1, Q, 1 + C), softmax with the background first, and decoded boxes (1, Q, 4): SSD's priors.

    The Ultra-Light face detector (Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB) is told by its priors.
    """
    pair = _pair(signature)
    if pair is None:
        return None
    scores, boxes = pair
    sample = signature.outputs[scores][0]
    if sample.shape[1] < 2 or (_are_logits(scores, sample) or not rows_sum_to_one(sample)):
        return None
    if sample[:, 0].mean() < sample[:, -1].mean():  # a gray picture is background: it is not the first class
        return None
    to_pixels = _to_pixels(signature, signature.outputs[boxes][0])

    def decode(outputs: Outputs, floor: float) -> Candidates:
        table = outputs[scores][:, 1:]
        kinds = table.argmax(axis=1)
        best = table[np.arange(len(table)), kinds]
        places = np.flatnonzero(best >= floor)
        return Candidates(to_pixels(outputs[boxes][places]), best[places], kinds[places])

    cells = [signature.cells(stride) for stride in (8, 16, 32, 64)]
    face = sample.shape == (3 * cells[0] + 2 * cells[1] + 2 * cells[2] + 3 * cells[3], 2)
    return BoxHead(
        "ssd",
        decode,
        ULTRAFACE,
        classes=sample.shape[1] - 1,
        threshold=0.7 if face else 0.4,
        iou=0.3 if face else 0.5,
        names=("face",) if face else (),
        note="the Ultra-Light face detector" if face else "",
    )


def labelled(signature: Signature) -> BoxHead | None:
    """Finished detections: boxes (1, Q, 4) or (Q, 4), scores and class numbers of the same length.

    RT-DETR, D-FINE and DEIM with their post-processor in the graph, torchvision's detectors, YOLO-NAS and others
    with suppression in the graph. Rows below the highest score that matters are left out, padding as well.
    """
    boxes = next((n for n in signature.outputs if signature.outputs[n].shape[-1:] == (4,)), None)
    labels = next(iter(signature.named("label", "class", "cls")), None)
    scores = next(iter(signature.named("score", "conf", "prob")), None)
    if boxes is None or labels is None or scores is None or len({boxes, labels, scores}) < 3:
        return None
    ranks = [signature.outputs[name].ndim for name in (boxes, labels, scores)]
    if ranks not in ([3, 2, 2], [2, 1, 1]):
        return None
    to_pixels = _to_pixels(signature, signature.outputs[boxes].reshape(-1, 4))

    def decode(outputs: Outputs, floor: float) -> Candidates:
        keep = (outputs[scores] >= floor) & (outputs[labels] >= 0)
        kinds = outputs[labels][keep].astype(np.int64)
        return Candidates(to_pixels(outputs[boxes][keep]), outputs[scores][keep], kinds)

    return BoxHead("labelled", decode, PLAIN, overlapping=False, threshold=0.4, joined=ranks[0] == 2)


def _pair(signature: Signature) -> tuple[str, str] | None:
    """The names of the (1, Q, C) scores and the (1, Q, 4) boxes, where these are the float outputs there are."""
    floats = signature.shaped(3)
    boxes = [name for name in floats if signature.outputs[name].shape[2] == 4]
    if len(boxes) == 2:  # four classes: names have to tell
        boxes = [name for name in boxes if "box" in name.lower() or "det" in name.lower()]
    if len(floats) != 2 or len(boxes) != 1:
        return None
    (scores,) = set(floats) - set(boxes)
    same = signature.outputs[scores].shape[:2] == signature.outputs[boxes[0]].shape[:2]
    return (scores, boxes[0]) if same else None


def _are_logits(name: str, sample: NDArray[Any]) -> bool:
    return "logit" in name.lower() or float(sample.min()) < 0 or float(sample.max()) > 1


def rows_sum_to_one(sample: NDArray[Any]) -> bool:
    return bool(np.allclose(sample.sum(axis=1), 1, atol=1e-2))


def probabilities(table: NDArray[Any], logits: bool, softmax: bool) -> NDArray[Any]:
    if not logits:
        return table
    if not softmax:
        odds: NDArray[Any] = np.exp(-np.clip(table, -80, 80))
        odds += 1
        np.reciprocal(odds, out=odds)
        return odds
    powers: NDArray[Any] = np.exp(table - table.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _to_pixels(signature: Signature, sample: NDArray[Any]) -> Any:
    """Boxes as the graph writes them -> (n, 4) corners in input pixels."""
    told = sample[sample.any(axis=1)]  # rows of zeros are padding
    # Every box of a gray picture has its corners in order only if they are corners.
    corners = bool(np.all(told[:, 2:] >= told[:, :2]))
    size = np.array([signature.width, signature.height] * 2, np.float32)

    def convert(boxes: NDArray[Any]) -> NDArray[Any]:
        # Graphs that suppress may see nothing in a gray picture: then each picture's own boxes tell.
        values = told if told.size else boxes
        boxes = boxes * size if values.size and float(np.abs(values).max()) <= 2 else boxes
        return boxes if corners else from_centres(boxes)

    return convert
