"""Networks exported by torch.export (``.pt2``); layers cannot be accessed.

torch reads parts of such a file with pickle, which can run code: use only files from sources that you trust.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ...errors import ModelError
from ...features.atomic import file_sha256
from ..options import NetworkSpec
from .values import Opened

_BROKEN = (
    AttributeError, KeyError, OSError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip


def open_network(spec: NetworkSpec, device: torch.device) -> Opened:
    """Load the program and the shape of its input."""
    path = Path(spec.network)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of torch about old files
            program = torch.export.load(path)
    except _BROKEN as exc:
        reason = str(exc).strip().splitlines() or [type(exc).__name__]
        raise ModelError(f"{path}: torch.export cannot read this file: {reason[0][:160]}") from exc
    shape = _input_shape(path, program)
    fixed = isinstance(shape[-1], int)
    module = program.module().to(device)
    return Opened(
        call=module,
        name=path.name,
        sha256=file_sha256(path),
        input={"size": int(shape[-1])} if fixed else {},
        fixed=("size",) if fixed else (),
        channels=int(shape[1]),
        fixed_rows=shape[0] if isinstance(shape[0], int) else None,
    )


def _input_shape(path: Path, program: Any) -> tuple[Any, ...]:
    """Shape of the input: whole numbers for fixed sizes, symbols for others."""
    users = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in users]
    shapes = [tuple(getattr(node.meta.get("val"), "shape", ())) for node in nodes]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (1, 3):
        raise ModelError(
            f"{path}: the inputs have shapes {shapes}; export a program with one input (n, 3, h, w) or (n, 1, h, w)"
        )
    return shapes[0]
