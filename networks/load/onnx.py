"""ONNX files, run by onnxruntime; they contain a graph of known operators and no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ModelError, require
from ...features.atomic import file_sha256
from ..options import NetworkSpec
from .values import BYTES, Opened

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Start a session, on the device if this onnxruntime supports it; channels may be first or last."""
    runtime = require("onnxruntime", wanted_by=spec.network)
    path = Path(spec.network)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors are raised as exceptions; warnings are of no use to the user
    available = runtime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in (*wanted, "CPUExecutionProvider") if name in available]
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
        images = session.get_inputs()
        names = [output.name for output in session.get_outputs()]
        _ = [(item.name, item.shape, item.type) for item in images]  # reads the descriptions, which may fail
    except Exception as exc:  # errors of onnxruntime have no common base, and messages may be no UTF-8
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        if "external" in reason:
            raise ModelError(
                f"{path}: the weights are in a separate .data file, which is missing; copy it to the same folder"
            ) from exc
        raise ModelError(f"{path}: onnxruntime cannot read this file: {reason[:160]}") from exc
    shape = list(images[0].shape) if images else []
    dtype = _DTYPES.get(images[0].type) if len(images) == 1 else None
    first = len(shape) == 4 and shape[1] in (1, 3)
    last = len(shape) == 4 and shape[3] in (1, 3)
    if dtype is None or first == last:
        raise ModelError(
            f"{path}: the inputs are {[(item.name, item.shape, item.type) for item in images]}; one input of floats or "
            "bytes (n, c, h, w) or (n, h, w, c) with 1 or 3 channels is needed"
        )
    channels = shape[3] if last else shape[1]

    def call(batch: torch.Tensor) -> dict[str, Any]:
        values = batch.permute(0, 2, 3, 1) if last else batch
        if dtype is np.uint8:
            values = values.round()
        outputs = session.run(
            names, {images[0].name: np.ascontiguousarray(values.cpu().numpy().astype(dtype))}
        )
        return {
            name: torch.from_numpy(np.asarray(output)) for name, output in zip(names, outputs, strict=True)
        }

    side = shape[1] if last else shape[2]
    fixed: dict[str, Any] = {"size": side} if isinstance(side, int) else {}
    if dtype is np.uint8:
        fixed |= {"mean": (0.0,) * 3, "std": BYTES}
    slow = device.type == "cuda" and "CUDAExecutionProvider" not in available
    return Opened(
        call=call,
        name=path.name,
        sha256=file_sha256(path),
        input=fixed,
        fixed=tuple(fixed),
        channels=channels,
        fixed_rows=shape[0] if isinstance(shape[0], int) else None,
        notes=("onnxruntime runs on the CPU, because it was installed without CUDA",) if slow else (),
    )
