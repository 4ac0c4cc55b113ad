"""Benchmark of heads on codes: time of one fit on 12,000 rows of 358 columns and 8 classes.

The codes are synthetic: latent factors with noise, as many columns as SMIRK's full set. ``gbm`` is compared with a call
of LightGBM with the same settings, ``linear`` with separate fits of each penalty in double precision. The networks are
timed for one epoch, scaled to ten, because they are slow on the CPU.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ig3d.learn.folds import held_out
from ig3d.learn.heads import make_head

BLOCKS = (3, 300, 50, 2, 3)  # pose, shape, expression, eyelid, jaw


def rows_of(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 40))
    X = hidden @ rng.normal(size=(40, sum(BLOCKS))) + 2 * rng.normal(size=(n, sum(BLOCKS)))
    y = (hidden[:, :k] + rng.gumbel(size=(n, k)) * 0.7).argmax(axis=1)
    return X.astype(np.float32), y


def seconds(action: Callable[[], Any]) -> float:
    """CPU time, which depends little on other programs."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        action()
    return time.process_time() - start


def plain_lightgbm(X: np.ndarray, y: np.ndarray, k: int) -> None:
    """LightGBM with the settings and the validation rows of the head."""
    import lightgbm

    head = make_head("gbm", "classes", seed=0, jobs=1)
    held = held_out(y, None, 6, 0)
    names = ("learning_rate", "num_leaves", "min_child_samples", "feature_fraction", "reg_lambda", "max_bin")
    settings = {name: getattr(head, name) for name in names}
    settings |= {"objective": "multiclass", "num_class": k, "num_threads": 1, "verbosity": -1}
    training = lightgbm.Dataset(X[~held], y[~held], params={"max_bin": head.max_bin, "verbosity": -1})
    lightgbm.train(
        {**settings, "deterministic": True, "force_col_wise": True},
        training,
        num_boost_round=head.max_rounds,
        valid_sets=[lightgbm.Dataset(X[held], y[held], reference=training)],
        callbacks=[lightgbm.early_stopping(head.patience, verbose=False)],
    )


def plain_path(X: np.ndarray, y: np.ndarray) -> None:
    """Fit each penalty on three quarters of the rows, then the best on all rows, in double precision."""
    held = held_out(y, None, 4, 0)
    scaler = StandardScaler()
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1):
        model = LogisticRegression(C=penalty, max_iter=1000, tol=1e-3)
        model.fit(scaler.fit_transform(X[~held].astype(np.float64)), y[~held])
    LogisticRegression(C=1e-2, max_iter=1000, tol=1e-3).fit(scaler.fit_transform(X.astype(np.float64)), y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--networks", action="store_true", help="time one epoch of mlp and residual too")
    options = parser.parse_args()
    k = 8
    X, y = rows_of(options.rows, k, 0)
    print(f"{len(X)} rows, {X.shape[1]} columns, {k} classes, one thread")
    plain = seconds(lambda: plain_lightgbm(X, y, k))
    path = seconds(lambda: plain_path(X, y))
    times = {
        name: seconds(lambda name=name: make_head(name, "classes", seed=0, jobs=1).fit(X, y))
        for name in ("gbm", "linear")
    }
    print(f"plain LightGBM {plain:.1f} s, gbm {times['gbm']:.1f} s: {times['gbm'] / plain:.2f} of that")
    print(
        f"plain path {path:.1f} s, linear {times['linear']:.1f} s: {path / times['linear']:.1f} times as fast"
    )
    for name in ("mlp", "residual") if options.networks else ():
        head = make_head(name, "classes", seed=0, jobs=1, blocks=BLOCKS).set_params(epochs=1)
        epoch = seconds(lambda head=head: head.fit(X, y))
        print(f"{name}: one epoch {epoch:.1f} s, ten epochs {10 * epoch / times['gbm']:.1f} times gbm")


if __name__ == "__main__":
    main()
