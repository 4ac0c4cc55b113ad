"""The heads keep scikit-learn's conventions, find a signal, and hold groups together when they stop or choose."""

from __future__ import annotations

from sklearn.utils.estimator_checks import parametrize_with_checks

from ig3d.learn.heads import (
    GbmClassifier,
    GbmRegressor,
    LinearClassifier,
    LinearRegressor,
)


@parametrize_with_checks(
    [
        GbmClassifier(max_rounds=60),
        GbmRegressor(max_rounds=60),
        LinearClassifier(penalties=(0.1, 1.0)),
        LinearRegressor(),
    ]
)
def test_heads_keep_the_conventions_of_scikit_learn(estimator, check):
    check(estimator)
