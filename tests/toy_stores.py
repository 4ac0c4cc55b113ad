"""Small stores and predictions with known truth, for tests of joining and fusing."""

from __future__ import annotations

import numpy as np
from listed import Sample, table_of

from ig3d.features.classes import PRESETS
from ig3d.features.predictions import Predictions
from ig3d.features.samples import Split
from ig3d.features.store.format import StoreInfo
from ig3d.features.store.writer import StoreWriter
from ig3d.features.values import Block, Rows, Status

CLASSES = PRESETS["rafdb"]


def write_store(
    path,
    samples,
    *,
    classes=CLASSES,
    missing=(),
    regressor="toy",
    basis="toy-1",
    codes=None,
    faces=None,
    weights="",
    sets=None,
):
    """A store; rows in ``missing`` have no face.

    ``codes`` are blocks by name, by default one of two numbers and a camera; ``faces`` further columns of Rows.
    """
    n = len(samples)
    status = np.full(n, Status.ok, np.int8)
    status[list(missing)] = Status.no_face
    columns = {}
    if codes is None:
        codes = {"expression": np.arange(2 * n).reshape(n, 2), "camera": np.zeros((n, 3))}
        columns = {"expression": ("smile", "frown")}
    codes = {name: np.array(values, np.float32) for name, values in codes.items()}
    for values in codes.values():
        values[list(missing)] = np.nan
    blocks = {
        name: Block(values.shape[1], "1", basis, "numbers", columns.get(name, ()))
        for name, values in codes.items()
    }
    fields = {name: getattr(Rows.pending(n, {}), name) for name in Rows.__slots__}
    fields |= {"status": status, "codes": codes, **(faces or {})}
    info = StoreInfo(
        "toy",
        "/data/toy",
        classes,
        regressor={"name": regressor, "weights_sha256": weights, "sets": sets or {}},
    )
    with StoreWriter(path, info, table_of(samples, info.classes), blocks) as writer:
        writer.write(0, Rows(**fields))
    return path


def make_samples(n=210, *, k=7, split=lambda row: Split.test, name=None):
    """Samples in class folders ``test/<class number>/...``, sorted by id."""
    rng = np.random.default_rng(0)
    rows = [
        Sample(
            id=(name or (lambda row, label: f"test/{label + 1}/img_{row:04d}"))(row, row % k),
            path=(name or (lambda row, label: f"test/{label + 1}/img_{row:04d}"))(row, row % k) + ".jpg",
            label=row % k,
            split=split(row),
            valence=float(rng.uniform(-1, 1)),
            arousal=float(rng.uniform(-1, 1)),
        )
        for row in range(n)
    ]
    return sorted(rows, key=lambda sample: sample.id)


def good_logits(samples, *, accuracy=0.8, k=7):
    rng = np.random.default_rng(1)
    labels = np.array([sample.label for sample in samples])
    predicted = np.where(rng.random(len(labels)) < accuracy, labels, rng.integers(0, k, len(labels)))
    logits = rng.normal(size=(len(labels), k))
    logits[np.arange(len(labels)), predicted] += 8
    return logits


def save(path, logits, *, ids=None, classes=()):
    Predictions(logits, "logits", tuple(classes), None if ids is None else np.array(ids)).save(path)
    return path
