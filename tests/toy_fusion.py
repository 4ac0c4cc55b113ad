"""Tables, stores and 2D predictions whose 3D codes tell the class by known strength, for tests of fusing."""

from __future__ import annotations

import numpy as np
from listed import Sample
from toy_stores import write_store

from ig3d.features.fusion_table import BlockUse, FusionTable
from ig3d.features.samples import Split
from ig3d.learn.config import FuseConfig

CLASSES = ("happy", "sad", "anger")


# Options of a small, fast run.
FAST = FuseConfig(
    rules=("mean", "weighted", "stack"),
    head="linear",
    draws=100,
    folds=3,
    jobs=1,
    model=False,
    repeats=1,
    permutations=2,
)


def make_table(
    n=360,
    *,
    task="classes",
    split=lambda row: row % 3,
    grouped=False,
    signal=1.0,
    strength=1.2,
    prior=0.0,
    missing=0.1,
    ready=False,
    other=False,
    quality=True,
    seed=0,
):
    """A table of three classes: codes tell the class by ``signal``, the 2D scores by ``strength``.

    ``prior`` is added to the 2D score of the first class; ``missing`` rows have no codes; ``other`` adds a second 2D
    network of independent errors.
    """
    rng = np.random.default_rng(seed)
    labels, targets = rng.integers(0, 3, n), np.clip(rng.normal(0, 0.45, (n, 2)), -1, 1)
    codes = rng.normal(size=(n, 8)).astype(np.float32)
    codes[np.arange(n), labels] += 2 * signal
    codes[:, 3:5] += 3 * signal * targets

    def network():
        if task == "va":
            return 0.6 * targets + rng.normal(0, 0.25, targets.shape)
        scores = rng.normal(size=(n, 3))
        scores[np.arange(n), labels] += strength
        return scores

    two, second, three = network(), network(), network()
    if task == "classes":
        two[:, 0] += prior
    gone = rng.random(n) < missing
    codes[gone], three[gone] = np.nan, np.nan
    return FusionTable(
        task=task,
        classes=CLASSES if task == "classes" else (),
        id=np.array([f"s/{row:04d}" for row in range(n)]),
        group=np.array([f"p{row // 4}" if grouped else "" for row in range(n)]),
        split=np.array([split(row) for row in range(n)], np.int8),
        labels=labels.astype(np.int16),
        targets=targets,
        two_d=two,
        codes=None if ready else codes,
        code_columns=() if ready else tuple(f"code:toy:{column}" for column in range(8)),
        blocks=() if ready else (BlockUse("toy", 8, "toy-1"),),
        three_d=three if ready else None,
        others={"second": second} if other else {},
        quality=rng.normal(size=(n, 2)) if quality else None,
        quality_columns=("quality:score", "quality:yaw") if quality else (),
    )


def store_of(path, table, *, labelled=True, classes=CLASSES, basis="toy-1", ids=None, digest=None):
    """A store with the codes of a table, and maybe without its labels; ``digest`` (n, 16) of the images, if known."""
    ids = table.id if ids is None else ids
    samples = [
        Sample(
            id=str(ids[row]),
            path=f"{ids[row]}.jpg",
            label=int(table.labels[row]) if labelled else -1,
            split=Split(int(table.split[row])),
            valence=float(table.targets[row, 0]) if labelled else float("nan"),
            arousal=float(table.targets[row, 1]) if labelled else float("nan"),
            group=str(table.group[row]),
        )
        for row in range(len(table))
    ]
    missing = np.flatnonzero(~table.covered)
    return write_store(
        path,
        samples,
        classes=classes,
        missing=missing,
        basis=basis,
        codes={"toy": table.codes.copy()},
        faces=None if digest is None else {"digest": digest},
    )
