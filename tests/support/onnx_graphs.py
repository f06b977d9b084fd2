"""Small ONNX graphs with known answers, made on the spot: no weights are stored for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
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
