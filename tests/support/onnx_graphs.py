"""Small ONNX graphs with known answers, made on the spot: no weights are stored for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.parser
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import np_dtype_to_tensor_dtype

OPSET = 17


def constant_graph(
    path: Path,
    outputs: Mapping[str, np.ndarray],
    *,
    size: Sequence[int | str | None] = (64, 64),
    batch: int | str = 1,
    channels_last: bool = False,
    dtype: int = TensorProto.FLOAT,
    metadata: Mapping[str, str] | None = None,
    more_inputs: Mapping[str, tuple[int, Sequence[int | str]]] | None = None,
    batched: bool = True,
) -> Path:
    """A graph that gives the same outputs for any picture: each array for every picture of the batch.

    `size` is (height, width); `more_inputs` name -> (type, shape) are taken and ignored. Where not `batched`, the
    arrays are the outputs as they are.
    """
    shape = [batch, *size, 3] if channels_last else [batch, 3, *size]
    inputs = [helper.make_tensor_value_info("images", dtype, shape)]
    inputs += [helper.make_tensor_value_info(name, *kind) for name, kind in (more_inputs or {}).items()]
    nodes = [
        helper.make_node("Cast", ["images"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["as_float"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nought"]),  # (batch,), so that outputs follow the batch
    ]
    initial = [numpy_helper.from_array(np.float32(0), "zero")]
    infos = []
    for name, value in outputs.items():
        constant = value[None] if batched else value
        initial.append(numpy_helper.from_array(constant.astype(np.float32), f"{name}.value"))
        ones = np.array([-1] + [1] * value.ndim if batched else [-1], np.int64)
        initial.append(numpy_helper.from_array(ones, f"{name}.shape"))
        nodes += [
            helper.make_node("Reshape", ["nought", f"{name}.shape"], [f"{name}.nought"]),
            helper.make_node("Add", [f"{name}.value", f"{name}.nought"], [f"{name}.sum"]),
            helper.make_node("Cast", [f"{name}.sum"], [name], to=np_dtype_to_tensor_dtype(value.dtype)),
        ]
        sides = [batch, *value.shape] if batched else list(value.shape)
        infos.append(helper.make_tensor_value_info(name, np_dtype_to_tensor_dtype(value.dtype), sides))
    return _save(path, nodes, inputs, infos, initial, metadata)


def echo_graph(path: Path, *, size: tuple[int, int] = (8, 8), channels_last: bool = False) -> Path:
    """A graph that gives back its input (as `echo`): what does preparation do to a picture?"""
    shape = [1, *size, 3] if channels_last else [1, 3, *size]
    node = helper.make_node("Identity", ["images"], ["echo"])
    info = helper.make_tensor_value_info
    return _save(
        path, [node], [info("images", TensorProto.FLOAT, shape)], [info("echo", TensorProto.FLOAT, shape)], [], None
    )


def _save(path, nodes, inputs, outputs, initial, metadata):  # type: ignore[no-untyped-def]
    graph = helper.make_graph(nodes, "made", inputs, outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="tests")
    model.ir_version = 9
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, str(path))
    return path


def sam_pair(folder: Path, *, iou: Sequence[float] = (0.2, 0.9, 0.5, 0.3), low_resolution: bool = False) -> list[Path]:
    """An encoder and a decoder in the form of SAM's export, whose answers are known.

    The embedding is the mean of 4 x 4 pixels of a 64 x 64 input. Mask k is a disc of radius 4 (k + 1) input pixels
    around the first point, and empty if that point is not positive or a box's corner. At `low_resolution` masks are
    16 x 16, as of SAM 2; else they have the size of the frame, which lies at the top left of the input.
    """
    encoder = """<ir_version: 9, opset_import: ["": 17]>
    encoder (float[1, 3, 64, 64] image) => (float[1, 3, 16, 16] image_embeddings) {
        image_embeddings = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (image)
    }"""
    size = "side = Constant <value_ints = [16, 16]> ()  scale = Constant <value_float = 0.25> ()"
    extra, head = "", "float[1, 4, 16, 16] masks"
    if not low_resolution:
        extra, head = ", float[2] orig_im_size", "float[1, 4, h, w] masks"
        size = """side = Cast <to = 7> (orig_im_size)
        longest = ReduceMax <keepdims = 0> (orig_im_size)
        input = Constant <value_float = 64.0> ()
        scale = Div (longest, input)"""
    decoder = f"""<ir_version: 9, opset_import: ["": 17]>
    decoder (float[1, 3, 16, 16] image_embeddings, float[1, n, 2] point_coords, float[1, n] point_labels,
             float[1, 1, 16, 16] mask_input, float[1] has_mask_input{extra}) => ({head}, float[1, 4] iou_predictions)
    {{
        {size}
        none = Constant <value_int = 0> ()
        first = Constant <value_int = 1> ()
        half = Constant <value_float = 0.5> ()
        nought = Constant <value_float = 0.0> ()
        high = Gather (side, none)
        wide = Gather (side, first)
        down = Range (none, high, first)
        across = Range (none, wide, first)
        down_f = Cast <to = 1> (down)
        across_f = Cast <to = 1> (across)
        y = Add (down_f, half)
        x = Add (across_f, half)
        flat = Constant <value_ints = [-1, 2]> ()
        points = Reshape (point_coords, flat)
        point = Gather (points, none)
        scaled = Mul (point, scale)
        px = Gather (scaled, none)
        py = Gather (scaled, first)
        dx = Sub (x, px)
        dy = Sub (y, py)
        dx2 = Mul (dx, dx)
        dy2 = Mul (dy, dy)
        column = Constant <value_ints = [-1, 1]> ()
        dy2c = Reshape (dy2, column)
        away = Add (dx2, dy2c)
        radii = Constant <value_floats = [4.0, 8.0, 12.0, 16.0]> ()
        reach = Mul (radii, scale)
        reach2 = Mul (reach, reach)
        as_masks = Constant <value_ints = [1, 4, 1, 1]> ()
        reach4 = Reshape (reach2, as_masks)
        inside = Sub (reach4, away)
        all_labels = Constant <value_ints = [-1]> ()
        labels = Reshape (point_labels, all_labels)
        label = Gather (labels, none)
        wanted = Greater (label, nought)
        far = Constant <value_float = -1.0> ()
        seen = ReduceMean <keepdims = 0> (image_embeddings)
        unused = Mul (seen, nought)
        masks_raw = Where (wanted, inside, far)
        masks = Add (masks_raw, unused)
        opinion = Constant <value_floats = [{", ".join(map(str, iou))}]> ()
        row = Constant <value_ints = [1, 4]> ()
        iou_predictions = Reshape (opinion, row)
    }}"""
    return [_parsed(folder / "encoder.onnx", encoder), _parsed(folder / "decoder.onnx", decoder)]


def bare_encoder(path: Path, kind: str = "float") -> Path:
    """`sam_pair`'s encoder as samexporter writes it: one RGB picture of any (height, width, 3), prepared by the graph.

    It divides by 255 and puts bars of 0 to the right and below, up to 64 x 64.
    """
    text = f"""<ir_version: 9, opset_import: ["": 17]>
    encoder ({kind}[high, wide, 3] input_image) => (float[1, 3, 16, 16] image_embeddings) {{
        as_float = Cast <to = 1> (input_image)
        white = Constant <value_float = 255.0> ()
        scaled = Div (as_float, white)
        planes = Transpose <perm = [2, 0, 1]> (scaled)
        first = Constant <value_ints = [0]> ()
        picture = Unsqueeze (planes, first)
        sides = Shape <start = 2> (picture)
        whole = Constant <value_ints = [64, 64]> ()
        missing = Sub (whole, sides)
        before = Constant <value_ints = [0, 0, 0, 0, 0, 0]> ()
        bars = Concat <axis = 0> (before, missing)
        padded = Pad (picture, bars)
        image_embeddings = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (padded)
    }}"""
    return _parsed(path, text)


def cropping_decoder(path: Path) -> Path:
    """A decoder that answers as the one in CVAT's editor: the best mask's bytes, cropped to the object at (xtl, ytl),
    which are of no use here, and its logits of 16 x 16: a disc of 8 input pixels around the first point."""
    text = """<ir_version: 9, opset_import: ["": 17]>
    decoder (float[1, 3, 16, 16] image_embeddings, float[1, n, 2] point_coords, float[1, n] point_labels,
             float[1, 1, 16, 16] mask_input, float[1] has_mask_input, float[2] orig_im_size)
        => (uint8[1, 1, 2, 2] masks, float[1, 1, 16, 16] low_res_masks, int64[1] xtl, int64[1] ytl) {
        none = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        cells = Constant <value_int = 16> ()
        half = Constant <value_float = 0.5> ()
        size = Constant <value_float = 4.0> ()
        places = Range (none, cells, one)
        places_f = Cast <to = 1> (places)
        middles = Add (places_f, half)
        input = Mul (middles, size)
        flat = Constant <value_ints = [-1, 2]> ()
        points = Reshape (point_coords, flat)
        point = Gather (points, none)
        px = Gather (point, none)
        py = Gather (point, one)
        dx = Sub (input, px)
        dy = Sub (input, py)
        dx2 = Mul (dx, dx)
        dy2 = Mul (dy, dy)
        column = Constant <value_ints = [-1, 1]> ()
        dy2c = Reshape (dy2, column)
        away = Add (dx2, dy2c)
        reach = Constant <value_float = 64.0> ()
        inside = Sub (reach, away)
        shape = Constant <value_ints = [1, 1, 16, 16]> ()
        low_res_masks = Reshape (inside, shape)
        ones = Constant <value = uint8[1, 1, 2, 2] {1, 1, 1, 1}> ()
        masks = Identity (ones)
        xtl = Constant <value_ints = [117]> ()
        ytl = Constant <value_ints = [5]> ()
    }"""
    return _parsed(path, text)


def picky_graph(path: Path, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray, padded: bool) -> Path:
    """Finished detections for pictures with something white in them; for others none, or (`padded`) rows of zeros."""
    cut = """ kept = Mul (is_white, many)
        boxes = Slice (all_boxes, none, kept)
        labels = Slice (all_labels, none, kept)
        scores = Slice (all_scores, none, kept)"""
    zeros = """ factor = Cast <to = 1> (is_white)
        boxes = Mul (all_boxes, factor)
        labels = Mul (all_labels, is_white)
        scores = Mul (all_scores, factor)"""
    text = f"""<ir_version: 9, opset_import: ["": 17]>
    picky (float[1, 3, 64, 64] images) => (float[n, 4] boxes, int64[n] labels, float[n] scores) {{
        brightest = ReduceMax <keepdims = 0> (images)
        limit = Constant <value_float = 0.9> ()
        seen = Greater (brightest, limit)
        white = Cast <to = 7> (seen)
        one = Constant <value_ints = [1]> ()
        is_white = Reshape (white, one)
        many = Constant <value_ints = [{len(boxes)}]> ()
        none = Constant <value_ints = [0]> ()
        flat_boxes = Constant <value_floats = [{", ".join(map(str, boxes.ravel().tolist()))}]> ()
        rows = Constant <value_ints = [-1, 4]> ()
        all_boxes = Reshape (flat_boxes, rows)
        all_labels = Constant <value_ints = [{", ".join(map(str, labels.tolist()))}]> ()
        all_scores = Constant <value_floats = [{", ".join(map(str, scores.tolist()))}]> ()
       {zeros if padded else cut}
    }}"""
    return _parsed(path, text)


def bright_row(path: Path, factors: Sequence[float]) -> Path:
    """A row of numbers that grow with the brightest of the input's numbers."""
    text = f"""<ir_version: 9, opset_import: ["": 17]>
    bright (float[1, 3, 64, 64] images) => (float[1, {len(factors)}] out) {{
        brightest = ReduceMax <keepdims = 0> (images)
        each = Constant <value_floats = [{", ".join(map(str, factors))}]> ()
        grown = Mul (each, brightest)
        shape = Constant <value_ints = [1, {len(factors)}]> ()
        out = Reshape (grown, shape)
    }}"""
    return _parsed(path, text)


def _parsed(path: Path, text: str) -> Path:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
