"""Where the time of a fusion goes: LightGBM's trees, of the head and of ``boost``, against everything else.

Made-up data of the field's size: a head on 12,000 rows of 358 codes, 4,000 reported rows of 8 classes in
5 folds, all rules with their controls, 10,000 draws, and the model. Prints seconds and the share of one run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np

from ig3d.features.table import BlockUse, FusionTable
from ig3d.learn.config import DEFAULT_RULES
from ig3d.learn.fuse import FuseConfig, fuse_predictions

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


def made_up(train: int, reported: int, codes: int, seed: int = 0) -> FusionTable:
    """A table whose codes tell the class a little less well than its 2D predictions."""
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
    parser.add_argument("--jobs", type=int, default=-1)
    chosen = parser.parse_args()
    clock: Callable[[], float] = time.perf_counter
    trees: list[float] = []
    train = lightgbm.train

    def timed(*arguments: Any, **options: Any) -> Any:
        start = clock()
        booster = train(*arguments, **options)
        trees.append(clock() - start)
        return booster

    lightgbm.train = timed
    table = made_up(chosen.train, chosen.reported, chosen.codes)
    config = FuseConfig(rules=tuple(chosen.rules.split(",")), draws=chosen.draws, jobs=chosen.jobs)
    start = clock()
    result = fuse_predictions(table, config)
    whole = clock() - start
    head, boost = trees[0], sum(trees[1:])
    rest = whole - head - boost
    print(f"LightGBM, the head          {head:7.1f} s")
    print(f"LightGBM, boost and control {boost:7.1f} s   in {len(trees) - 1} fits")
    print(f"everything else             {rest:7.1f} s   {rest / (head + boost):.2f} of LightGBM's")
    for step, seconds in result.seconds.items():
        print(f"  step {step:12s}         {seconds:7.1f} s")


if __name__ == "__main__":
    main()
