"""Benchmark of fusion, compared with LightGBM's training of the trees of the head, of ``boost`` and of its control.

Synthetic data of a typical size: a head on 12,000 rows of 358 codes, 4,000 reported rows of 8 classes in 5 folds, the
default rules with their controls, 10,000 draws, and the model. Then the same trees are trained again, alone, one after
the other and with all threads. The difference is the time of everything else.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np

from ig3d.features.fusion_table import BlockUse, FusionTable
from ig3d.learn.config import DEFAULT_RULES
from ig3d.learn.fuse import FuseConfig, fuse_predictions
from ig3d.learn.rules import stack
from ig3d.learn.trees import threads_for

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


def made_up(train: int, reported: int, codes: int, seed: int = 0) -> FusionTable:
    """Table whose codes predict the class slightly less well than its 2D predictions."""
    random = np.random.default_rng(seed)
    n, k = train + reported, len(CLASSES)
    labels = random.integers(0, k, n)
    values = random.normal(size=(n, codes)) + random.normal(size=(k, codes))[labels] * 0.08
    scores = random.normal(size=(n, k))
    scores[np.arange(n), labels] += 1.6
    return FusionTable(
        task="classes",
        classes=CLASSES,
        id=np.array([f"{row:06d}" for row in range(n)]),
        group=np.full(n, "", dtype=str),
        split=np.repeat(np.array([0, 1], np.int8), [train, reported]),
        labels=labels.astype(np.int16),
        targets=np.full((n, 2), np.nan),
        two_d=scores,
        codes=values.astype(np.float32),
        code_columns=tuple(f"code:made-up:{column}" for column in range(codes)),
        blocks=(BlockUse("made-up", codes, "made-up"),),
        quality=random.normal(size=(n, 2)),
        quality_columns=("quality:score", "quality:yaw"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=12_000)
    parser.add_argument("--reported", type=int, default=4_000)
    parser.add_argument("--codes", type=int, default=358)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--rules", default=",".join(DEFAULT_RULES))
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    train, again = lightgbm.train, list[Callable[[], object]]()

    def remembered(parameters: dict[str, Any], training: lightgbm.Dataset, **options: Any) -> Any:
        again.append(alone(parameters, training, options))
        return train(parameters, training, **options)

    lightgbm.train = remembered
    table = made_up(chosen.train, chosen.reported, chosen.codes)
    config = FuseConfig(rules=tuple(chosen.rules.split(",")), draws=chosen.draws, jobs=chosen.jobs)
    fusions, trees = [], []
    for _ in range(chosen.rounds):
        again.clear()
        stack._RECALIBRATED.clear()  # otherwise the next round would reuse the fits of this one
        lightgbm.train = remembered
        start = time.perf_counter()
        result = fuse_predictions(table, config)
        fusions.append(time.perf_counter() - start)
        lightgbm.train = train
        start = time.perf_counter()
        for grow in again:
            grow()
        trees.append(time.perf_counter() - start)
        steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in result.seconds.items())
        print(
            f"fusion {fusions[-1]:.1f} s ({steps}); its trees alone, {len(again)} trainings, {trees[-1]:.1f} s"
        )
    rest = np.subtract(fusions, trees)
    print(
        f"everything else: {np.median(rest):.1f} s, {sum(rest) / sum(trees):.2f} of LightGBM's training "
        f"({', '.join(f'{share:.2f}' for share in rest / trees)})"
    )


def alone(
    parameters: dict[str, Any], training: lightgbm.Dataset, options: dict[str, Any]
) -> Callable[[], object]:
    """Function that trains the same trees on the same data, with the useful number of threads."""
    held = options.pop("valid_sets", [])
    kept = [(one, one.data, one.label, one.weight, one.init_score) for one in (training, *held)]
    asked = {**parameters, "num_threads": threads_for(0, training.data.size)}

    def call() -> object:
        sets: list[lightgbm.Dataset] = []
        for one, data, label, weight, init in kept:
            sets.append(
                lightgbm.Dataset(
                    data,
                    label,
                    weight=weight,
                    init_score=init,
                    params=one.params,
                    reference=sets[0] if sets else None,
                )
            )
        return lightgbm.train(asked, sets[0], **{**options, "valid_sets": sets[1:] or None})

    if held:
        options["valid_sets"] = held
    return call


if __name__ == "__main__":
    main()
