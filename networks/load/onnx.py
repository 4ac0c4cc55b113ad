"""An ONNX file, run as a whole by onnxruntime: a graph of known operators, in which no code can hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ModelError, require
from .state import digest_file
from .values import NetworkSpec, Opened


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
    except Exception as exc:  # onnxruntime's own errors share no base
        if not type(exc).__module__.startswith("onnxruntime"):
            raise
        raise ModelError(f"{path}: expected an ONNX file, got: {str(exc).splitlines()[0][:160]}") from exc
    images = session.get_inputs()
    shape = list(images[0].shape) if images else []
    last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
    if len(images) != 1 or len(shape) != 4 or (shape[1] == 3) == last or "float" not in images[0].type:
        raise ModelError(
            f"{path}: expected one input of floats (n, 3, h, w) or (n, h, w, 3), got "
            f"{[(one.name, one.shape, one.type) for one in images]}"
        )
    names = [output.name for output in session.get_outputs()]
    dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}[
        images[0].type
    ]

    def call(batch: torch.Tensor) -> dict[str, Any]:
        fed = batch.permute(0, 2, 3, 1) if last else batch
        said = session.run(names, {images[0].name: np.ascontiguousarray(fed.cpu().numpy().astype(dtype))})
        return {name: torch.from_numpy(np.asarray(one)) for name, one in zip(names, said, strict=True)}

    side = shape[1] if last else shape[2]
    fixed = isinstance(side, int)
    slow = device.type == "cuda" and "CUDAExecutionProvider" not in known
    return Opened(
        call=call,
        name=path.name,
        sha256=digest_file(path),
        input={"size": side} if fixed else {},
        fixed_size=fixed,
        fixed_rows=shape[0] if isinstance(shape[0], int) else None,
        notes=("this onnxruntime runs on the processor: it was installed without CUDA",) if slow else (),
    )
