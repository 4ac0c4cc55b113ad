"""Small ``.tflite`` files, written with the schema and without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import tflite

from ig3d.extract.tflite import OPTIONS

_TYPES = {kind.lower(): number for kind, number in vars(tflite.TensorType).items() if isinstance(number, int)}


class Maker:
    """A graph that is put together operator by operator; tensors are their indexes."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)
        self.tensors: list[int] = []
        self.buffers: list[int] = [self._buffer(None)]
        self.codes: list[int] = []
        self.operators: list[int] = []

    def tensor(
        self,
        shape: Sequence[int],
        value: np.ndarray | None = None,
        *,
        dtype: str = "float32",
        scale: Sequence[float] = (),
        zero_point: Sequence[int] = (),
        axis: int = 0,
        signature: Sequence[int] = (),
    ) -> int:
        b = self.builder
        where = 0
        if value is not None:
            dtype, where = value.dtype.name, len(self.buffers)
            self.buffers.append(self._buffer(value.tobytes()))
        name = b.CreateString(f"tensor {len(self.tensors)}")
        sizes = b.CreateNumpyVector(np.array(shape, np.int32))
        free = b.CreateNumpyVector(np.array(signature, np.int32)) if signature else None
        quantisation = None
        if scale:
            scales = b.CreateNumpyVector(np.array(scale, np.float32))
            zeros = b.CreateNumpyVector(np.array(zero_point or [0] * len(scale), np.int64))
            tflite.QuantizationParametersStart(b)
            tflite.QuantizationParametersAddScale(b, scales)
            tflite.QuantizationParametersAddZeroPoint(b, zeros)
            tflite.QuantizationParametersAddQuantizedDimension(b, axis)
            quantisation = tflite.QuantizationParametersEnd(b)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, sizes)
        tflite.TensorAddType(b, _TYPES[dtype])
        tflite.TensorAddBuffer(b, where)
        tflite.TensorAddName(b, name)
        if free is not None:
            tflite.TensorAddShapeSignature(b, free)
        if quantisation is not None:
            tflite.TensorAddQuantization(b, quantisation)
        self.tensors.append(tflite.TensorEnd(b))
        return len(self.tensors) - 1

    def constant(self, value: Any, dtype: Any = np.float32, **quantisation: Any) -> int:
        array = np.array(value, dtype)
        return self.tensor(array.shape, array, **quantisation)

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        *,
        custom: str = "",
        dtype: str = "float32",
        **options: Any,
    ) -> int:
        """An operator with one output of this shape; ``options`` have the schema's names."""
        output = self.tensor(shape, dtype=dtype)
        self.operators.append(self._operator(kind, inputs, [output], custom, options))
        return output

    def write(self, inputs: Sequence[int], outputs: Sequence[int], *, identifier: bytes = b"TFL3") -> bytes:
        b = self.builder
        parts = [b.CreateNumpyVector(np.array(indexes, np.int32)) for indexes in (inputs, outputs)]
        tensors, operators = self._vector(self.tensors), self._vector(self.operators)
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, tensors)
        tflite.SubGraphAddInputs(b, parts[0])
        tflite.SubGraphAddOutputs(b, parts[1])
        tflite.SubGraphAddOperators(b, operators)
        graphs = self._vector([tflite.SubGraphEnd(b)])
        codes, buffers = self._vector(self.codes), self._vector(self.buffers)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, codes)
        tflite.ModelAddSubgraphs(b, graphs)
        tflite.ModelAddBuffers(b, buffers)
        b.Finish(tflite.ModelEnd(b), identifier)
        return bytes(b.Output())

    def _buffer(self, content: bytes | None) -> int:
        b = self.builder
        data = None if content is None else b.CreateByteVector(content)
        tflite.BufferStart(b)
        if data is not None:
            tflite.BufferAddData(b, data)
        return int(tflite.BufferEnd(b))

    def _vector(self, offsets: Sequence[int]) -> int:
        b = self.builder
        b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return int(b.EndVector())

    def _operator(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], custom: str, options: dict[str, Any]
    ) -> int:
        b = self.builder
        number = getattr(tflite.BuiltinOperator, kind)
        text = b.CreateString(custom) if custom else None
        tflite.OperatorCodeStart(b)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(number, 127))
        tflite.OperatorCodeAddBuiltinCode(b, number)
        if text is not None:
            tflite.OperatorCodeAddCustomCode(b, text)
        self.codes.append(tflite.OperatorCodeEnd(b))
        table = None
        if kind in OPTIONS:
            name = OPTIONS[kind]
            vectors = {
                part: b.CreateNumpyVector(np.array(value, np.int32))
                for part, value in options.items()
                if isinstance(value, (list, tuple))
            }
            getattr(tflite, f"{name}Start")(b)
            for part, value in options.items():
                getattr(tflite, f"{name}Add{part}")(b, vectors.get(part, value))
            table = getattr(tflite, f"{name}End")(b)
        indexes = [b.CreateNumpyVector(np.array(part, np.int32)) for part in (inputs, outputs)]
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, len(self.codes) - 1)
        tflite.OperatorAddInputs(b, indexes[0])
        tflite.OperatorAddOutputs(b, indexes[1])
        if table is not None:
            tflite.OperatorAddBuiltinOptionsType(b, getattr(tflite.BuiltinOptions, OPTIONS[kind]))
            tflite.OperatorAddBuiltinOptions(b, table)
        return int(tflite.OperatorEnd(b))


def classifier(
    *, side: int = 8, channels: int = 3, classes: int = 7, softmax: bool = True, seed: int = 0
) -> bytes:
    """A convolution, a depthwise one with int8 weights, a mean, a dense layer; (1, side, side, channels) to classes."""
    rng = np.random.default_rng(seed)
    made = Maker()
    images = made.tensor([1, side, side, channels])
    kernels = made.constant(rng.normal(size=(4, 3, 3, channels)), np.float16)
    whole = made.op("DEQUANTIZE", [kernels], [4, 3, 3, channels])
    window = {"StrideH": 2, "StrideW": 2, "DilationHFactor": 1, "DilationWFactor": 1, "Padding": 0}
    first = made.op(
        "CONV_2D",
        [images, whole, made.constant(rng.normal(size=4))],
        [1, side // 2, side // 2, 4],
        **window,
        FusedActivationFunction=1,
    )
    depthwise = made.constant(
        rng.integers(-127, 128, (1, 3, 3, 4)), np.int8, scale=(0.01, 0.02, 0.015, 0.01), axis=3
    )
    second = made.op(
        "DEPTHWISE_CONV_2D",
        [first, depthwise, made.constant(np.zeros(4))],
        [1, side // 2, side // 2, 4],
        **{**window, "StrideH": 1, "StrideW": 1},
        DepthMultiplier=1,
    )
    pooled = made.op("MEAN", [second, made.constant([1, 2], np.int32)], [1, 4], KeepDims=False)
    dense = made.op(
        "FULLY_CONNECTED",
        [pooled, made.constant(rng.normal(size=(classes, 4))), made.constant(rng.normal(size=classes))],
        [1, classes],
    )
    result = made.op("SOFTMAX", [dense], [1, classes], Beta=1.0) if softmax else dense
    return made.write([images], [result])
