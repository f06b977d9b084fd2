"""Small quantised TensorFlow Lite graphs with known answers; needs ai-edge-litert, which brings the format's schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Quantisation = tuple[float, int]
"""Scale and zero point: a byte stands for (byte - zero) * scale."""


def mean_colour(path: Path, *, kind: type, into: Quantisation, out: Quantisation, side: int = 8) -> Path:
    """The mean of each channel of a (1, side, side, 3) picture, (1, 3); both in bytes of a kind (int8, uint8)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    code = {np.int8: schema.TensorType.INT8, np.uint8: schema.TensorType.UINT8}[kind]

    def tensor(name: str, shape: list[int], kind: int, buffer: int, given: Quantisation | None) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, shape, kind, buffer
        if given is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [given[0]], [given[1]]
        return made

    axes = schema.BufferT()
    axes.data = np.frombuffer(np.array([1, 2], np.int32).tobytes(), np.uint8)
    mean, reducer = schema.OperatorT(), schema.ReducerOptionsT()
    reducer.keepDims = False
    mean.opcodeIndex, mean.inputs, mean.outputs = 0, [0, 1], [2]
    mean.builtinOptionsType, mean.builtinOptions = schema.BuiltinOptions.ReducerOptions, reducer
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("images", [1, side, side, 3], code, 1, into),
        tensor("axes", [2], schema.TensorType.INT32, 2, None),
        tensor("probabilities", [1, 3], code, 3, out),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [mean]
    operator = schema.OperatorCodeT()
    operator.builtinCode = operator.deprecatedBuiltinCode = schema.BuiltinOperator.MEAN
    operator.version = 2
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [operator], [graph]
    model.buffers = [schema.BufferT(), schema.BufferT(), axes, schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path
