"""Checkpoints in the official layouts, filled with numbers that follow from a seed and each tensor's name.

``data/official_smirk.npz`` and ``data/official_emoca.npz`` hold the names and shapes of the official checkpoints, the
few tensors that no rule gives (statistics of batch norms, scales of the last layers), and what the official code gave
on two images with these numbers (``out/...``). The rules, for a tensor and the generator of its name:

- matrices and kernels: normal, with standard deviation sqrt(2 / numbers per output), times a stored scale per output
- the factor of a batch norm: uniform from 0.8 to 1.2; its offset: normal(0.7, 0.3); other offsets: normal(0, 0.05)
- counters: 1000
"""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
EMOCA_PLACE = "EMOCA_v2_lr_mse_20/detail/checkpoints/deca-epoch=10-val_loss/dataloader_idx_0=3.25521111.ckpt"


def pack(name: str) -> dict[str, np.ndarray]:
    """Stored data of a checkpoint: ``smirk`` or ``emoca``."""
    with np.load(DATA / f"official_{name}.npz") as stored:
        return dict(stored)


def made_up(name: str) -> dict[str, torch.Tensor]:
    """All tensors of the official checkpoint, by their official names."""
    stored = pack(name)
    shapes = {
        str(key): tuple(int(size) for size in str(shape).split("x") if size)
        for key, shape in zip(stored["keys"], stored["shapes"], strict=True)
    }
    return {key: torch.from_numpy(np.array(_tensor(key, shapes, stored))) for key in shapes}


def _tensor(key: str, shapes: dict[str, tuple[int, ...]], stored: dict[str, np.ndarray]) -> np.ndarray:
    if f"tensor/{key}" in stored:
        return stored[f"tensor/{key}"]
    shape, rng = shapes[key], _generator(int(stored["seed"]), key)
    if key.endswith("num_batches_tracked"):
        return np.array(1000, np.int64)
    if len(shape) > 1:
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        scale = stored.get(f"tensor/{key}.scale")
        return (values if scale is None else values * scale.reshape(-1, *[1] * (len(shape) - 1))).astype(
            np.float32
        )
    if key.endswith(".weight"):
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    beside_statistics = key.removesuffix("bias") + "running_mean" in shapes
    return rng.normal(*((0.7, 0.3) if beside_statistics else (0, 0.05)), shape).astype(np.float32)


def _generator(seed: int, *labels: str) -> np.random.Generator:
    digest = hashlib.sha256(repr((seed, *labels)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def write_smirk(folder: Path, changes: dict[str, torch.Tensor | None] | None = None) -> Path:
    """SMIRK's file: one flat dict, with a tensor of the generator, which codes do not need.

    ``changes`` replaces or adds tensors, or removes those that are None.
    """
    state = made_up("smirk") | {"smirk_generator.encoder1.enc1conv1.weight": torch.zeros(32, 6, 3, 3)}
    state = {key: value for key, value in (state | (changes or {})).items() if value is not None}
    return _save(state, folder / "SMIRK_em1.pt")


def write_emoca(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    """EMOCA's folder as it is unpacked: Lightning's file, which names classes of packages that are not there."""
    unneeded = {
        "deca.perceptual_loss.vgg.conv1_1.weight": torch.zeros(64, 3, 3, 3),
        "deca.render.faces": torch.zeros(1, 9976, 3, dtype=torch.int64),
        "deca.D_detail.l1.0.weight": torch.zeros(4, 181),
    }
    with _absent_class("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint") as callback:
        content = {
            "epoch": 10,
            "pytorch-lightning_version": "1.4.9",
            "state_dict": {**state, **unneeded},
            "callbacks": {callback: {"best_model_score": torch.tensor(3.25521111)}},
            "optimizer_states": [],
        }
        return _save(content, folder / EMOCA_PLACE)


def write_deca(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    """DECA's file: nested dicts in torch's format from before 1.6."""
    parts = {
        name: {
            key.removeprefix(f"deca.{name}."): value
            for key, value in state.items()
            if key.startswith(f"deca.{name}.")
        }
        for name in ("E_flame", "E_detail")
    }
    content = {**parts, "D_detail": {}, "opt": {}, "global_step": 12345, "batch_size": 6}
    return _save(content, folder / "deca_model.tar", _use_new_zipfile_serialization=False)


def _save(content: object, path: Path, **options: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, **options)
    return path


@contextmanager
def _absent_class(module: str, name: str) -> Iterator[type]:
    """A class that pickles under a name that nothing here can import afterwards."""
    parents = [module.rsplit(".", cut)[0] for cut in range(module.count(".") + 1)]
    made = [parent for parent in parents if parent not in sys.modules]
    for parent in made:
        sys.modules[parent] = types.ModuleType(parent)
    cls = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, cls)
    try:
        yield cls
    finally:
        for parent in made:
            del sys.modules[parent]
