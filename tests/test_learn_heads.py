"""Heads: scikit-learn's conventions, accuracy, reproducibility, whole groups in early stopping, checks of user code."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from ig3d.errors import PredictionsError, Terminated, UsageError
from ig3d.learn.folds import held_out
from ig3d.learn.heads import make_head
from ig3d.learn.heads.gbm import GbmClassifier, GbmRegressor
from ig3d.learn.heads.linear import LinearClassifier, LinearRegressor

QUICK = ("gbm", "linear")  # the networks: test_learn_heads_paper.py


@parametrize_with_checks(
    [
        GbmClassifier(max_rounds=60),
        GbmRegressor(max_rounds=60),
        LinearClassifier(penalties=(0.1, 1.0)),
        LinearRegressor(),
    ]
)
def test_heads_pass_the_estimator_checks_of_scikit_learn(estimator, check):
    check(estimator)


def class_rows(n=300, k=3, d=6, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    X = rng.normal(size=(n, d)).astype(np.float32)
    X[np.arange(n), y] += 2
    return X, y


@pytest.mark.parametrize("name", QUICK)
def test_heads_predict_classes_reproducibly(name, capfd):
    X, y = class_rows()
    head = make_head(name, "classes", seed=0, jobs=1).fit(X[:200], y[:200])
    p = head.predict_proba(X[200:])
    assert np.mean(head.predict(X[200:]) == y[200:]) > 0.75
    assert p.shape == (100, 3) and np.allclose(p.sum(axis=1), 1)
    again = make_head(name, "classes", seed=0, jobs=1).fit(X[:200], y[:200])
    assert np.array_equal(again.predict_proba(X[200:]), p)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", QUICK)
def test_heads_predict_valence_and_arousal(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5))
    y = np.stack([X[:, 0] * 0.4, X[:, 1] * 0.3], axis=1) + rng.normal(0, 0.05, (400, 2))
    head = make_head(name, "va", seed=0, jobs=1).fit(X[:300], y[:300])
    predicted = head.predict(X[300:])
    assert predicted.shape == (100, 2)
    assert np.corrcoef(predicted[:, 0], y[300:, 0])[0, 1] > 0.9
    assert np.corrcoef(predicted[:, 1], y[300:, 1])[0, 1] > 0.9


def test_trees_do_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr("ig3d.learn.trees._CELLS_PER_THREAD", 1)
    X, y = class_rows()
    one, two = (GbmClassifier(max_rounds=4, num_threads=threads).fit(X, y) for threads in (1, 2))
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X))


@pytest.mark.parametrize("task", ["classes", "va"])
def test_linear_heads_do_not_depend_on_the_number_of_blas_threads(task):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 300))
    y = X[:, :2] + rng.normal(size=(1500, 2))
    y = y if task == "va" else (y[:, 0] > 0).astype(int) + 2 * (y[:, 1] > 0)
    kind = LinearRegressor if task == "va" else LinearClassifier
    predictions = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            head = kind().fit(X, y)
            predictions.append(head.predict(X) if task == "va" else head.predict_proba(X))
    assert np.array_equal(*predictions)


def test_trees_depend_on_the_seed():
    X, y = class_rows(11, d=40)  # too few rows to hold any out: only the trees use the seed
    first, other = (
        GbmClassifier(max_rounds=5, min_child_samples=1, random_state=seed).fit(X, y).predict_proba(X)
        for seed in (0, 1)
    )
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("n", [1, 4, 12])
@pytest.mark.parametrize("name", QUICK)
def test_heads_can_be_fitted_to_few_rows_and_to_one_class(name, n):
    X, y = class_rows(n)
    head = make_head(name, "classes", seed=0, jobs=1).fit(X, y)
    assert np.allclose(head.predict_proba(X[:1]).sum(), 1)
    single = make_head(name, "classes", seed=0, jobs=1).fit(X, y * 0 + 2)
    assert single.classes_.tolist() == [2] and single.predict(X).tolist() == [2] * n


def test_held_out_rows_are_whole_groups_and_leave_every_class_for_training():
    rng = np.random.default_rng(0)
    groups, strata = rng.integers(0, 40, 300), rng.integers(0, 3, 300)
    strata[groups == 7] = 3  # a class that occurs in one group only
    held = held_out(strata, groups, 6, 0)
    assert 0.05 < held.mean() < 0.4
    assert not set(groups[held]) & set(groups[~held])
    assert set(strata[~held]) == {0, 1, 2, 3}
    assert not held_out(strata[:8], None, 6, 0).any()


def test_unknown_head_is_refused_with_the_available_names():
    with pytest.raises(UsageError, match=r"head: 'forest' is unknown; choose gbm, linear"):
        make_head("forest", "classes", seed=0, jobs=1)


class TakesGroups(DummyClassifier):
    """A user's estimator whose ``fit`` accepts groups."""

    def fit(self, X, y, groups=None):
        self.groups_ = groups
        return super().fit(X, y)


def test_custom_head_gets_groups_seed_threads_and_class_weight_if_it_accepts_them():
    X, y = class_rows(60)
    head = make_head(f"{__name__}:TakesGroups", "classes", seed=5, jobs=1)
    groups = np.arange(60) // 2
    assert np.array_equal(head.fit(X, y, groups=groups).model_.groups_, groups)
    assert head.estimator.random_state == 5
    forest = make_head("sklearn.ensemble:ExtraTreesClassifier", "classes", seed=5, jobs=2, balanced=True)
    parameters = forest.estimator.get_params()
    names = ("random_state", "n_jobs", "class_weight")
    assert tuple(parameters[name] for name in names) == (5, 2, "balanced")


@pytest.mark.parametrize("target", ["sklearn.svm:LinearSVR", "sklearn.linear_model:LinearRegression"])
def test_custom_regressor_predicts_two_columns_even_if_the_estimator_supports_one(target):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5))
    y = np.stack([X[:, 0] * 0.4, X[:, 1] * 0.3], axis=1)
    predicted = make_head(target, "va", seed=0, jobs=1).fit(X[:150], y[:150]).predict(X[150:])
    assert predicted.shape == (50, 2)
    assert min(np.corrcoef(predicted[:, i], y[150:, i])[0, 1] for i in (0, 1)) > 0.95


class Odd(DummyClassifier):
    """A user's classifier whose predictions a test can change."""

    change = staticmethod(lambda p: p)

    def fit(self, X, y):
        super().fit(X, y)  # does not return self, although scikit-learn requires it

    def predict_proba(self, X):
        return type(self).change(super().predict_proba(X))


def boom(p):
    raise ValueError("boom\n bang")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda p: np.where(np.arange(len(p))[:, None] < 7, np.nan, p),
            "probabilities of 3 classes have NaN in 7 of 60 rows; ",
        ),
        (lambda p: p / 0.0, "have infinity in 60 of 60 rows"),
        (lambda p: p[:, :2], r"shape \(60, 2\), not \(60, 3\)"),
        (lambda p: p[:5], r"shape \(5, 3\), not \(60, 3\)"),
        (lambda p: p / 2, r"no probabilities between 0 and 1 .* in 60 of 60 rows .* sum 0.5\)"),
        (
            lambda p: np.tile([-0.2, 0.6, 0.6], (len(p), 1)),
            r"no probabilities .* in 60 of 60 rows .* from -0.2 to 0.6",
        ),
        (boom, "ValueError: boom bang$"),
    ],
)
def test_predictions_of_a_custom_classifier_are_checked(monkeypatch, change, words):
    X, y = class_rows(60)
    head = make_head(f"{__name__}:Odd", "classes", seed=0, jobs=1).fit(X, y)
    assert np.allclose(head.predict_proba(X), np.bincount(y) / 60)
    monkeypatch.setattr(Odd, "change", staticmethod(change))
    with (
        pytest.raises(PredictionsError, match=f"^head {__name__}:Odd: .*{words}"),
        np.errstate(divide="ignore"),
    ):
        head.predict_proba(X)


@pytest.mark.parametrize("source", ["def f(:", "raise SystemExit(0)", "raise RuntimeError('no licence')"])
def test_error_while_importing_a_custom_head_names_the_head(tmp_path, monkeypatch, source):
    (tmp_path / "odd_module.py").write_text(f"{source}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_module", raising=False)
    with pytest.raises(
        UsageError, match=r"'odd_module:Head' cannot be .* \((SyntaxError|SystemExit|RuntimeError): "
    ):
        make_head("odd_module:Head", "classes", seed=0, jobs=1)


class OddRegressor(Ridge):
    """A user's regressor whose ``fit`` fails on few rows, and whose predictions a test can change."""

    change = staticmethod(lambda values: values)

    def fit(self, X, y):
        if len(X) == 3:
            raise RuntimeError("too few")
        if len(X) == 4:
            raise SystemExit(0)
        if len(X) == 5:
            raise Terminated(143)  # as on SIGTERM
        return super().fit(X, y)

    def predict(self, X):
        return type(self).change(super().predict(X))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v[:, 0], r"shape \(60,\), not \(60, 2\) for values"),
        (lambda v: v.T, r"have shape \(2, 60\)"),
        (lambda v: v * np.nan, "have NaN in 60 of 60 rows"),
    ],
)
def test_errors_and_predictions_of_a_custom_regressor_are_checked(monkeypatch, change, words):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 2))
    head = make_head(f"{__name__}:OddRegressor", "va", seed=0, jobs=1)
    with pytest.raises(PredictionsError, match=f"^head {__name__}:OddRegressor: RuntimeError: too few$"):
        head.fit(X[:3], y[:3])
    with pytest.raises(PredictionsError, match=f"^head {__name__}:OddRegressor: SystemExit: 0$"):
        head.fit(X[:4], y[:4])
    with pytest.raises(Terminated):
        head.fit(X[:5], y[:5])
    head.fit(X, y)
    assert head.predict(X).shape == (60, 2)
    monkeypatch.setattr(OddRegressor, "change", staticmethod(change))
    with pytest.raises(PredictionsError, match=f"^head {__name__}:OddRegressor: .*{words}"):
        head.predict(X)


def test_linear_classifier_chooses_the_penalty_with_the_least_held_out_loss():
    X, y = class_rows(600, d=30)
    head = LinearClassifier(tol=1e-5).fit(X, y)
    scaled = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float64)
    held = held_out(y, None, 4, 0)

    def loss(penalty):
        p = (
            LogisticRegression(C=penalty, max_iter=1000)
            .fit(scaled[~held], y[~held])
            .predict_proba(scaled[held])
        )
        return -np.log(p[np.arange(len(p)), y[held]]).mean()

    assert min((1e-4, 1e-3, 1e-2, 1e-1), key=loss) == head.C_
    twin = LogisticRegression(C=head.C_, max_iter=1000, tol=1e-6).fit(scaled, y)
    assert np.allclose(head.predict_proba(X), twin.predict_proba(scaled), atol=2e-3)


def test_linear_regressor_equals_ridge_of_scikit_learn():
    rng = np.random.default_rng(0)
    for shape in ((60, 5), (20, 50)):
        X, Y = rng.normal(size=shape), rng.normal(size=(shape[0], 2))
        head = make_head("linear", "va", seed=0, jobs=1).fit(X, Y)
        scaled = (X - X.mean(axis=0)) / X.std(axis=0)
        assert np.allclose(head.predict(X), Ridge(alpha=head.alpha_).fit(scaled, Y).predict(scaled))
