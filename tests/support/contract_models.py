"""The models that the contract is held against, beside those that are one file of weights: built on the spot.

Each function gives (reference, options) of a model; `shop` is where it is built, and what it may use.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import face_graphs

Built = tuple[str, dict[str, Any]]


@dataclass
class Shop:
    """A place for files, the assets, and a Roboflow on the loopback that is opened when it is needed."""

    folder: Path
    assets: Path
    stack: ExitStack = field(default_factory=ExitStack)
    server: Any = None

    def weights(self, name: str) -> str:
        return f"{self.assets}/weights/{name}"

    def roboflow(self) -> Any:
        if self.server is None:
            from tests.support.roboflow import RoboflowServer

            self.server = self.stack.enter_context(RoboflowServer())
        return self.server


# ------------------------------------------------------------------------------------------------ local


def torchscript(shop: Shop) -> Built:
    from tests.support.torch_programs import FaceFinder, script

    told = {"names": {0: "face"}, "imgsz": [64, 64], "task": "pose", "kpt_shape": [68, 3], "batch": 1}
    return f"local:{script(shop.folder / 'faces.torchscript', FaceFinder(), metadata=told)}", {}


def exported(shop: Shop) -> Built:
    from tests.support.torch_programs import FaceFinder, export

    path = export(shop.folder / "faces.pt2", FaceFinder(17), batch=True)
    return f"local:{path}", {"head": "yolov8-pose", "labels": ["face"], "batch_size": 2}


def landmarks(shop: Shop) -> Built:
    from tests.support.torch_programs import Landmarks, script

    path = script(shop.folder / "landmarks.torchscript", Landmarks(), side=32)
    return f"local:{path}", {"head": "landmarks", "input_size": 32}


def openvino(shop: Shop) -> Built:
    runtime = pytest.importorskip("openvino", reason="needs the package openvino")
    path = shop.folder / "yolox.xml"
    runtime.save_model(runtime.convert_model(shop.weights("yolox_nano_416.onnx")), str(path), compress_to_fp16=False)
    return f"local:{path}", {}


def tflite(shop: Shop, name: str, **options: Any) -> Built:
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs the package ai-edge-litert")
    return f"local:{shop.weights(name)}", options


def constant(shop: Shop, name: str, outputs: dict[str, np.ndarray], **options: Any) -> Built:
    """A graph that says the same of every frame."""
    from tests.support.onnx_graphs import constant_graph

    graph = {key: options.pop(key) for key in ("batched",) if key in options}
    return f"local:{constant_graph(shop.folder / f'{name}.onnx', outputs, **graph)}", options


def end2end(shop: Shop) -> Built:
    rows = np.zeros((20, 6), np.float32)
    rows[:2] = [(4, 20, 60, 44, 0.9, 1), (10, 24, 30, 40, 0.4, 0)]
    return constant(shop, "end2end", {"o": rows}, labels=["cat", "dog"])


def labelled(shop: Shop) -> Built:
    boxes = np.float32([(4, 20, 60, 44), (10, 24, 30, 40), (0, 0, 64, 64)])
    outputs = {"boxes": boxes, "labels": np.int64([1, 0, 1]), "scores": np.float32([0.9, 0.4, 0])}
    return constant(shop, "labelled", outputs, labels=["cat", "dog"])


def nanodet(shop: Shop) -> Built:
    rows = np.zeros((64 + 16 + 4, 2 + 32), np.float32)
    rows[27, :2] = 0.1, 0.8
    rows[27, 2 + 3 :: 8] = 50  # three strides to each side
    return constant(shop, "nanodet", {"o": rows}, labels=["cat", "dog"])


def scrfd(shop: Shop) -> Built:
    return constant(shop, "scrfd", face_graphs.scrfd_outputs(64, (8, 16, 32), 2, face_graphs.ONE))


def retinaface(shop: Shop) -> Built:
    return constant(shop, "retinaface", face_graphs.retinaface_outputs(logits=False))


def tensorflow(shop: Shop) -> Built:
    boxes = np.float32([(0.3, 0.1, 0.7, 0.9), (0.4, 0.2, 0.6, 0.5)])
    outputs = {
        "detection_boxes": boxes, "detection_classes": np.float32([2, 1]), "detection_scores": np.float32([0.9, 0.4]),
        "num_detections": np.float32(2),
    }  # fmt: skip
    return constant(shop, "tensorflow", outputs, labels=["cat", "dog"])


def caffe(shop: Shop) -> Built:
    rows = np.float32([(0, 2, 0.9, 0.1, 0.3, 0.9, 0.7), (0, 1, 0.4, 0.2, 0.4, 0.5, 0.6), (-1, 0, 0, 0, 0, 0, 0)])
    return constant(shop, "caffe", {"o": rows[None]}, labels=["cat", "dog"])


# ------------------------------------------------------------------------------------------------ hf


def hub(shop: Shop, kind: str, arguments: dict[str, Any] | None = None, **options: Any) -> Built:
    """A model of transformers, small and of random weights."""
    from tests.support import hub_models

    name = "-".join([kind, *map(str, (arguments or {}).values())])
    if not (folder := shop.folder / name).exists():
        folder.mkdir()
        getattr(hub_models, kind)(folder, **(arguments or {}))
    return f"hf:{folder}", options


# ------------------------------------------------------------------------------------------------ roboflow


def roboflow(shop: Shop, task: str) -> Built:
    """A project of a task; what is found lies in the middle of whatever picture comes."""
    from tests.support.roboflow import Model

    server = shop.roboflow()
    nodes = {"vertices": [{"id": 0, "name": "nose"}, {"id": 1, "name": "tail"}]}
    server.models[f"{task}/1"] = Model(
        task,
        lambda picture, asked: _answer(task, picture, asked),
        ("cat", "dog"),
        skeletons={"cat": nodes, "dog": nodes},
    )
    return f"roboflow:team/{task}/1", {"url": server.url, "platform_url": server.url, "retries": 0, "lossless": True}


def workflow(shop: Shop) -> Built:
    from tests.support.roboflow import Workflow

    server = shop.roboflow()

    def run(picture: np.ndarray, inputs: dict[str, Any]) -> dict[str, Any]:
        found = _drawn(picture, "object-detection")
        size = {"width": picture.shape[1], "height": picture.shape[0]}
        return {"predictions": {"image": size, "predictions": found}}

    server.workflows["team/find"] = Workflow(run, outputs={"predictions": ["object_detection_prediction"]})
    options = {"url": server.url, "platform_url": server.url, "retries": 0, "labels": ["cat", "dog"]}
    return "roboflow:workflow/team/find", options


def _drawn(picture: np.ndarray, task: str) -> list[dict[str, Any]]:
    from tests.support.roboflow import box

    high, wide = picture.shape[:2]

    def one(name: str, x: float, y: float, share: float, score: float) -> dict[str, Any]:
        left, right = (x - share / 2) * wide, (x + share / 2) * wide
        top, bottom = (y - share / 2) * high, (y + share / 2) * high
        corners = [{"x": a, "y": b} for a, b in ((left, top), (right, top), (right, bottom), (left, bottom))]
        points = [
            {"x": left, "y": top, "confidence": 0.9, "class": "nose", "class_id": 0},
            {"x": right, "y": bottom, "confidence": 0.8, "class": "tail", "class_id": 1},
        ]
        more = {"instance-segmentation": {"points": corners}, "keypoint-detection": {"keypoints": points}}
        return box(name, x * wide, y * high, share * wide, share * high, score, **more.get(task, {}))

    return [one("cat", 0.6, 0.5, 0.7, 0.9), one("dog", 0.3, 0.3, 0.4, 0.4)]


def _answer(task: str, picture: np.ndarray, asked: Any) -> dict[str, Any]:
    from tests.support.roboflow import above, png

    if task == "single-label-classification":
        ranking = [
            {"class": "dog", "class_id": 1, "confidence": 0.8},
            {"class": "cat", "class_id": 0, "confidence": 0.2},
        ]
        return {"predictions": ranking, "top": "dog", "confidence": 0.8}
    if task == "multi-label-classification":
        both = {"cat": {"confidence": 0.9, "class_id": 0}, "dog": {"confidence": 0.6, "class_id": 1}}
        return {"predictions": both, "predicted_classes": ["cat", "dog"]}
    if task == "semantic-segmentation":
        high, wide = picture.shape[:2]
        numbers = np.zeros((high, wide))
        numbers[high // 4 :, wide // 3 :] = 1
        sure = np.full((high, wide), 204)
        classes = {"0": "background", "1": "cat", "2": "dog"}
        return {"predictions": {"segmentation_mask": png(numbers), "confidence_mask": png(sure), "class_map": classes}}
    return above(_drawn(picture, task), asked)


# ------------------------------------------------------------------------------------------------ built of others


def composition(shop: Shop, scheme: str, **options: Any) -> Built:
    """A model built of others; {weights} in its options is the folder of the assets, {reader} a reader of text."""
    reader = hub(shop, "pp_ocr_reader")[0] if "{reader}" in json.dumps(options) else ""
    text = json.dumps(options).replace("{weights}", f"{shop.assets}/weights").replace("{reader}", reader)
    return f"{scheme}:", json.loads(text)


# ------------------------------------------------------------------------------------------------ cvat


def function(shop: Shop, name: str, source: str) -> Built:
    """A CVAT function in a file."""
    path = shop.folder / f"{name}.py"
    path.write_text(source)
    return f"cvat:{path}", {}


CLICKER = """
import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models as models
import numpy as np
from cvat_sdk.masks import encode_mask
spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

def preprocess_image(context, image):
    return np.asarray(image).mean(axis=2)

def detect(context, gray, prompts):
    \"\"\"What is about as bright as the first point that was clicked, or all of the box.\"\"\"
    high, wide = gray.shape
    mask = np.zeros(gray.shape, bool)
    if prompts.bounding_box:
        (left, top), (right, bottom) = prompts.bounding_box
        mask[max(0, int(top)):max(0, int(bottom)), max(0, int(left)):max(0, int(right))] = True
    else:
        x, y = prompts.pos_points[0]
        if 0 <= x < wide and 0 <= y < high:
            mask = abs(gray - gray[int(y), int(x)]) < 20
    if not mask.any():
        return []
    opinion = models.AttributeValRequest(spec_id=0, value="0.5")
    return [cvataa.InteractionResultShape(type="mask", points=encode_mask(mask), attributes=[opinion])]
"""
FOLLOWER = """
import cv2
import numpy as np
import cvat_sdk.auto_annotation as cvataa
spec = cvataa.TrackingFunctionSpec(supported_shape_types=["rectangle"])

def preprocess_image(context, image):
    return np.ascontiguousarray(image)

def init_tracking_state(context, picture, shape):
    high, wide = picture.shape[:2]
    left, top, right, bottom = (round(value) for value in shape.points)
    left, top = min(max(left, 0), wide - 1), min(max(top, 0), high - 1)
    return {"part": picture[top:max(bottom, top + 1), left:max(right, left + 1)].copy()}

def track(context, picture, state):
    \"\"\"Where the part of the first picture fits best.\"\"\"
    part = state["part"]
    if part.shape[0] > picture.shape[0] or part.shape[1] > picture.shape[1]:
        return None
    fits = cv2.matchTemplate(picture, part, cv2.TM_SQDIFF)
    _, _, (left, top), _ = cv2.minMaxLoc(fits)
    points = [left, top, left + part.shape[1], top + part.shape[0]]
    return cvataa.TrackableShape(type="rectangle", points=[float(value) for value in points])
"""


def programs(shop: Shop, form: str) -> Built:
    """An interactor of two PyTorch programs."""
    from tests.support.torch_programs import sam_pair

    encoder, decoder = sam_pair(shop.folder, form)
    return f"local:{encoder}", {"decoder": str(decoder), "input_size": 64}


def samexporter(shop: Shop) -> Built:
    from tests.support.onnx_graphs import bare_encoder, cropping_decoder

    encoder, decoder = bare_encoder(shop.folder / "bare.onnx"), cropping_decoder(shop.folder / "crops.onnx")
    return f"local:{encoder}", {"decoder": str(decoder), "input_size": 64}


def looks(shop: Shop, **options: Any) -> Built:
    """The mean colours of both halves, as a descriptor."""
    from tests.support.torch_programs import MeanColour, script

    path = script(shop.folder / "looks.torchscript", MeanColour(), side=16)
    return f"local:{path}", {"kind": "reid", "input_size": 16, **options}


def openvino_looks(shop: Shop) -> Built:
    runtime = pytest.importorskip("openvino", reason="needs the package openvino")
    path = shop.folder / "osnet.xml"
    graph = runtime.convert_model(shop.weights("osnet_x0_25_msmt17.onnx"))
    runtime.save_model(graph, str(path), compress_to_fp16=False)
    return f"local:{path}", {"kind": "reid"}
