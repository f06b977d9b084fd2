"""Trackers: SAM 2, EdgeTAM and SAM 3 follow masks, polygons and rectangles from frame to frame."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.huggingface.masks import enlarged, filled, mask_of, polygon_of, rectangle_of
from adapters.huggingface.memory import Memory, pack, unpack
from adapters.huggingface.opening import Opened
from adapters.huggingface.pictures import Preparation
from agent.contract import ConfigError, Frame, Mask, ModelLoadFailed, Polygon, Rectangle, Shape

_MODELS = {
    "sam2_video": "Sam2VideoModel",
    "edgetam_video": "EdgeTamVideoModel",
    "sam3_tracker_video": "Sam3TrackerVideoModel",
    "sam3_video": "Sam3TrackerVideoModel",
}
_CORNERS = (2, 3)
"""The kinds of points that are the corners of a box."""


class VideoTracker:
    """Remembers each object in bytes of its own; whatever is asked for together shares the features of the frame."""

    shape_types = ("rectangle", "polygon", "mask")

    def __init__(self, opened: Opened, *, memory_frames: int | None = None) -> None:
        """`memory_frames`: how many frames an object is remembered by (as many as the model can use).

        A state grows with it, for SAM 2 by half a megabyte a frame.
        """
        if (kind := _MODELS.get(opened.config.model_type)) is None:
            allowed = ", ".join(_MODELS)
            raise ModelLoadFailed(f"{opened.owner}: task tracking: got {opened.config.model_type}, allowed: {allowed}")
        self._opened = opened
        self._config = getattr(opened.config, "tracker_config", None) or opened.config
        most = int(self._config.num_maskmem)
        if memory_frames is not None and not 1 <= memory_frames <= most:
            raise ConfigError(f"{opened.owner}: memory_frames: got {memory_frames}, allowed: 1 to {most}")
        self._maps, self._pointers = memory_frames or most, int(self._config.max_object_pointers_in_encoder)
        side = int(self._config.image_size)
        self._prepare = Preparation.read(opened.preparation(), opened.owner, side=side)
        self._model = opened.model(kind)
        module = importlib.import_module(type(self._model).__module__)
        self._session_class = getattr(module, kind.removesuffix("Model") + "InferenceSession")
        self._learn_shapes(side)
        self.facts = opened.facts(self._model, "tracking", f"{side}x{side}", remembers=f"{self._maps} frames")

    def begin(self, frame: Frame, shapes: Sequence[Shape]) -> list[bytes]:
        """The state of each shape. ValueError for a shape that cannot be followed."""
        states: dict[int, bytes] = {}
        # transformers' EdgeTAM cannot take boxes and masks in one call.
        for boxes in (True, False):
            group = {place: one for place, one in enumerate(shapes) if isinstance(one, Rectangle) is boxes}
            states.update(self._begin(frame, group) if group else {})
        return [states[place] for place in range(len(shapes))]

    def _begin(self, frame: Frame, shapes: Mapping[int, Shape]) -> dict[int, bytes]:
        session = self._session(frame)
        for place, shape in shapes.items():
            self._show(session, session.obj_id_to_idx(place), shape, frame)
        session.obj_with_new_inputs = list(shapes)
        self._run(session, frame, 0)
        states = {}
        for index, (place, shape) in enumerate(shapes.items()):
            answer = session.output_dict_per_obj[index]["cond_frame_outputs"][0]
            features, pointer = _stored(answer["maskmem_features"]), _stored(answer["object_pointer"])
            states[place] = pack(Memory(shape.type, 0, {0: features}, {0: pointer}), self._opened.source.version)
        return states

    def follow(self, frame: Frame, states: Sequence[bytes]) -> list[tuple[bytes, Shape | None]]:
        memories = [unpack(state, self._opened.source.version, self._shapes) for state in states]
        if not memories:
            return []
        # Objects that began on different frames share a session: what counts is how long ago something was.
        now = max(memory.frame for memory in memories) + 1
        session = self._session(frame)
        for number, memory in enumerate(memories):
            self._remind(session, session.obj_id_to_idx(number), memory, now)
        answers = self._run(session, frame, now)
        found = []
        for number, memory in enumerate(memories):
            answer = session.output_dict_per_obj[number]["non_cond_frame_outputs"][now]
            later = Memory(
                memory.kind,
                memory.frame + 1,
                {**memory.maps, memory.frame + 1: _stored(answer["maskmem_features"])},
                {**memory.pointers, memory.frame + 1: _stored(answer["object_pointer"])},
            ).bounded(self._maps, self._pointers)
            seen = float(answer["object_score_logits"].float().max()) > 0
            shape = self._shape(answers[number], frame, memory.kind) if seen else None
            found.append((pack(later, self._opened.source.version), shape))
        return found

    def _session(self, frame: Frame) -> Any:
        device = self._opened.device
        return self._session_class(
            video_height=frame.height,
            video_width=frame.width,
            inference_device=device,
            inference_state_device=device,
            video_storage_device=device,
            dtype=self._opened.dtype,
        )

    def _show(self, session: Any, index: int, shape: Shape, frame: Frame) -> None:
        """A box by its corners, anything else by its pixels."""
        import torch

        if isinstance(shape, Rectangle):
            left, top, right, bottom = _around(shape)
            corners = torch.tensor([[left, top], [right, bottom]], dtype=torch.float32)
            corners *= torch.tensor([self._prepare.width / frame.width, self._prepare.height / frame.height])
            kinds = torch.tensor([[_CORNERS]], dtype=torch.int32)
            session.add_point_inputs(index, 0, {"point_coords": corners[None, None], "point_labels": kinds})
        elif isinstance(shape, Mask | Polygon):
            pixels = torch.from_numpy(filled(shape, frame.height, frame.width).copy())
            if not pixels.any():
                raise ValueError(f"{shape.type}: it has no pixel in the frame of {frame.width}x{frame.height}")
            size = (self._prepare.height, self._prepare.width)
            small = torch.nn.functional.interpolate(
                pixels[None, None].float(), size=size, mode="bilinear", antialias=True, align_corners=False
            )
            # An object that is too small for half a pixel is at least where most of it is.
            session.add_mask_inputs(index, 0, (small >= min(0.5, float(small.max()))).float())
        else:
            raise ValueError(f"shape: got a {shape.type}, allowed: {', '.join(self.shape_types)}")

    def _remind(self, session: Any, index: int, memory: Memory, now: int) -> None:
        """Puts a memory where the model looks for what it has seen."""
        outputs, shift = session.output_dict_per_obj[index], now - (memory.frame + 1)
        for frame, pointer in memory.pointers.items():
            features = memory.maps.get(frame)
            # Of frames this near the model wants the map as well: one that is not remembered is left out altogether.
            if features is None and memory.frame + 1 - frame < int(self._config.num_maskmem):
                continue
            part = outputs["cond_frame_outputs" if frame == 0 else "non_cond_frame_outputs"]
            part[frame + shift] = {"object_pointer": pointer.to(self._opened.device, self._opened.dtype)}
            if features is not None:
                part[frame + shift] |= {
                    "maskmem_features": features.to(self._opened.device, self._opened.dtype),
                    "maskmem_pos_enc": self._positions,
                }

    def _run(self, session: Any, frame: Frame, number: int) -> Any:
        """(N, 1, h, w) logits of the objects' masks."""
        pixels = self._opened.placed({"pixels": self._prepare([frame])})["pixels"]
        outputs = self._model(inference_session=session, frame=pixels, frame_idx=number)
        self._opened.check(masks=outputs.pred_masks, scores=outputs.object_score_logits)
        return outputs.pred_masks

    def _shape(self, logits: Any, frame: Frame, kind: str) -> Shape | None:
        mask = mask_of(enlarged(logits, frame.height, frame.width)[0] > 0)
        if mask is None or kind == "mask":
            return mask
        return polygon_of(mask) if kind == "polygon" else rectangle_of(mask)

    def _learn_shapes(self, side: int) -> None:
        """What memories look like, from that of an empty frame; positions in it are the same for all."""
        import numpy as np

        empty = Frame(0, "", np.zeros((side, side, 3), np.uint8))
        session = self._session(empty)
        self._show(session, session.obj_id_to_idx(0), Rectangle(0, 0, side, side), empty)
        session.obj_with_new_inputs = [0]
        self._run(session, empty, 0)
        answer = session.output_dict_per_obj[0]["cond_frame_outputs"][0]
        self._shapes = (answer["maskmem_features"].shape, answer["object_pointer"].shape)
        self._positions = answer["maskmem_pos_enc"]


def _stored(tensor: Any) -> Any:
    """Half the size. What SAM 2 has rounded already (to bfloat16) stays as it is."""
    import torch

    return tensor.cpu() if tensor.dtype == torch.bfloat16 else tensor.cpu().to(torch.float16)


def _around(rectangle: Rectangle) -> tuple[float, float, float, float]:
    """The upright box around a rectangle that may be turned."""
    import math

    turn = math.radians(rectangle.rotation)
    middle_x, middle_y = (rectangle.left + rectangle.right) / 2, (rectangle.top + rectangle.bottom) / 2
    half_width, half_height = (rectangle.right - rectangle.left) / 2, (rectangle.bottom - rectangle.top) / 2
    across = abs(half_width * math.cos(turn)) + abs(half_height * math.sin(turn))
    down = abs(half_width * math.sin(turn)) + abs(half_height * math.cos(turn))
    return middle_x - across, middle_y - down, middle_x + across, middle_y + down


build = VideoTracker
