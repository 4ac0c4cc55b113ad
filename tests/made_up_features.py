"""A store and a file of features whose truth is known: for tests of intermediate fusion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from listed import Sample, table_of

from ig3d.features.samples import Split
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status

CLASSES = ("neutral", "happy", "sad")


@dataclass(frozen=True)
class MadeUp:
    """Files that were written (a store, features with logits) and their true values."""

    store: Path
    features: Path
    labels: np.ndarray
    values: np.ndarray
    ids: np.ndarray


def thirds(n: int) -> list[Split]:
    return [(Split.train, Split.train, Split.val, Split.test)[row % 4] for row in range(n)]


def make(
    folder: Path,
    n: int = 320,
    *,
    shape: tuple[int, ...] = (6,),
    splits: list[Split] | None = None,
    missing: tuple[int, ...] = (),
    groups: bool = False,
    va: bool = False,
    code_seed: int = 1,
    rows: np.ndarray | None = None,
    network: str = "toy features 0",
    basis: str = "toy-1",
    labelled: bool = True,
) -> MadeUp:
    """Codes tell the class (block ``expression``) and the valence (block ``jaw``) clearly, features weakly.

    Another ``code_seed`` draws other codes for the same samples; ``rows`` of the features are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    values = rng.uniform(-0.8, 0.8, (n, 2))
    features = rng.normal(0, 1, (n, *shape)).astype(np.float32)
    weak = np.eye(shape[0])[labels] * 0.8
    weak[:, 3:5] += values
    features += weak.reshape(n, shape[0], *(1,) * (len(shape) - 1)).astype(np.float32)
    noise = np.random.default_rng(code_seed)
    codes = {
        "expression": noise.normal(0, 1, (n, 4)).astype(np.float32),
        "jaw": noise.normal(0, 0.2, (n, 3)).astype(np.float32),
    }
    codes["expression"][np.arange(n), labels] += 4
    codes["jaw"][:, :2] += values
    for block in codes.values():
        block[list(missing)] = np.nan
    status = np.full(n, Status.ok, np.int8)
    status[list(missing)] = Status.no_face
    splits = splits or thirds(n)
    samples = tuple(
        Sample(
            id=f"img_{row:04d}",
            path=f"img_{row:04d}.jpg",
            label=int(labels[row]) if labelled else -1,
            split=splits[row],
            valence=float(values[row, 0]) if va else float("nan"),
            arousal=float(values[row, 1]) if va else float("nan"),
            group=f"p{row // 4}" if groups else "",
        )
        for row in range(n)
    )
    blocks = {"expression": Block(4, "1", basis, "four"), "jaw": Block(3, "rad", basis, "three")}
    pending = Rows.pending(n, {})
    fields = {name: getattr(pending, name) for name in Rows.__slots__}
    digest = np.random.default_rng(9).integers(1, 255, (n, 16)).astype(np.uint8)
    with StoreWriter(
        folder / "3d.h5", StoreInfo("toy", "/data/toy", CLASSES), table_of(samples, CLASSES), blocks
    ) as writer:
        writer.write(0, Rows(**fields | {"status": status, "codes": codes, "digest": digest}))
    ids = np.array([sample.id for sample in samples])
    chosen = np.arange(n) if rows is None else rows
    order = rng.permutation(len(chosen))  # rows of a file come in any order
    chosen = chosen[order]
    pooled = features.reshape(n, shape[0], -1).mean(2)
    arrays = (
        {"va": np.clip(pooled[:, 3:5], -1, 1)}
        if va
        else {"logits": pooled[:, :3], "classes": np.array(CLASSES)}
    )
    if va:
        arrays |= {"logits": pooled[:, :3], "classes": np.array(CLASSES)}
    np.savez(
        folder / "features.npz",
        ids=ids[chosen],
        features=features[chosen].astype(np.float16 if len(shape) == 3 else np.float32),
        feature_network=np.array(network),
        **{name: array[chosen] if name != "classes" else array for name, array in arrays.items()},
    )
    return MadeUp(folder / "3d.h5", folder / "features.npz", labels, values, ids)
