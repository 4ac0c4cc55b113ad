"""An ONNX file, run as a whole by onnxruntime: a graph of known operators, in which no code can hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ModelError, require
from .state import digest_file
from .values import BYTES, NetworkSpec, Opened

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Start a session on the device, where this onnxruntime can; images may come first or last in channels."""
    runtime = require("onnxruntime", wanted_by=spec.network)
    path = Path(spec.network)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors come as exceptions; its warnings are not for the user
    known = runtime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in (*wanted, "CPUExecutionProvider") if name in known]
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
        images = session.get_inputs()
        names = [output.name for output in session.get_outputs()]
        _ = [(item.name, item.shape, item.type) for item in images]  # decoded here
    except Exception as exc:  # onnxruntime's own errors share no base, and its messages may be no UTF-8
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        if "external" in reason:
            raise ModelError(
                f"{path}: the weights are in another file, which is not beside it; copy the .data file there"
            ) from exc
        raise ModelError(f"{path}: expected an ONNX file, got: {reason[:160]}") from exc
    shape = list(images[0].shape) if images else []
    dtype = _DTYPES.get(images[0].type) if len(images) == 1 else None
    first = len(shape) == 4 and shape[1] in (1, 3)
    last = len(shape) == 4 and shape[3] in (1, 3)
    if dtype is None or first == last:
        raise ModelError(
            f"{path}: expected one input of floats or bytes (n, c, h, w) or (n, h, w, c), with 1 or 3 channels, "
            f"got {[(one.name, one.shape, one.type) for one in images]}"
        )
    channels = shape[3] if last else shape[1]

    def call(batch: torch.Tensor) -> dict[str, Any]:
        fed = batch.permute(0, 2, 3, 1) if last else batch
        if dtype is np.uint8:
            fed = fed.round()
        outputs = session.run(names, {images[0].name: np.ascontiguousarray(fed.cpu().numpy().astype(dtype))})
        return {name: torch.from_numpy(np.asarray(one)) for name, one in zip(names, outputs, strict=True)}

    side = shape[1] if last else shape[2]
    given: dict[str, Any] = {"size": side} if isinstance(side, int) else {}
    if dtype is np.uint8:
        given |= {"mean": (0.0,) * 3, "std": BYTES}
    slow = device.type == "cuda" and "CUDAExecutionProvider" not in known
    return Opened(
        call=call,
        name=path.name,
        sha256=digest_file(path),
        input=given,
        fixed=tuple(given),
        channels=channels,
        fixed_rows=shape[0] if isinstance(shape[0], int) else None,
        notes=("this onnxruntime runs on the processor: it was installed without CUDA",) if slow else (),
    )
