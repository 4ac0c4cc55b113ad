"""The heads keep scikit-learn's conventions, find a signal, and hold groups together when they stop or choose."""

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
def test_heads_keep_the_conventions_of_scikit_learn(estimator, check):
    check(estimator)


def class_rows(n=300, k=3, d=6, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    X = rng.normal(size=(n, d)).astype(np.float32)
    X[np.arange(n), y] += 2
    return X, y


@pytest.mark.parametrize("name", QUICK)
def test_heads_find_classes_and_the_same_again(name, capfd):
    X, y = class_rows()
    head = make_head(name, "classes", seed=0, jobs=1).fit(X[:200], y[:200])
    p = head.predict_proba(X[200:])
    assert np.mean(head.predict(X[200:]) == y[200:]) > 0.75
    assert p.shape == (100, 3) and np.allclose(p.sum(axis=1), 1)
    again = make_head(name, "classes", seed=0, jobs=1).fit(X[:200], y[:200])
    assert np.array_equal(again.predict_proba(X[200:]), p)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", QUICK)
def test_heads_find_valence_and_arousal(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5))
    y = np.stack([X[:, 0] * 0.4, X[:, 1] * 0.3], axis=1) + rng.normal(0, 0.05, (400, 2))
    head = make_head(name, "va", seed=0, jobs=1).fit(X[:300], y[:300])
    predicted = head.predict(X[300:])
    assert predicted.shape == (100, 2)
    assert np.corrcoef(predicted[:, 0], y[300:, 0])[0, 1] > 0.9
    assert np.corrcoef(predicted[:, 1], y[300:, 1])[0, 1] > 0.9


def test_threads_change_no_number(monkeypatch):
    monkeypatch.setattr("ig3d.learn.trees._CELLS_PER_THREAD", 1)
    X, y = class_rows()
    one, two = (GbmClassifier(max_rounds=4, num_threads=threads).fit(X, y) for threads in (1, 2))
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X))


@pytest.mark.parametrize("task", ["classes", "va"])
def test_threads_of_blas_change_no_number_of_a_linear_head(task):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 300))
    y = X[:, :2] + rng.normal(size=(1500, 2))
    y = y if task == "va" else (y[:, 0] > 0).astype(int) + 2 * (y[:, 1] > 0)
    kind = LinearRegressor if task == "va" else LinearClassifier
    said = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            head = kind().fit(X, y)
            said.append(head.predict(X) if task == "va" else head.predict_proba(X))
    assert np.array_equal(*said)


def test_seeds_reach_the_trees():
    X, y = class_rows(11, d=40)  # too few rows to hold any out: only the trees draw
    first, other = (
        GbmClassifier(max_rounds=5, min_child_samples=1, random_state=seed).fit(X, y).predict_proba(X)
        for seed in (0, 1)
    )
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("n", [1, 4, 12])
@pytest.mark.parametrize("name", QUICK)
def test_few_rows_and_one_class_are_fitted_all_the_same(name, n):
    X, y = class_rows(n)
    head = make_head(name, "classes", seed=0, jobs=1).fit(X, y)
    assert np.allclose(head.predict_proba(X[:1]).sum(), 1)
    single = make_head(name, "classes", seed=0, jobs=1).fit(X, y * 0 + 2)
    assert single.classes_.tolist() == [2] and single.predict(X).tolist() == [2] * n


def test_groups_are_kept_whole_where_trees_stop_and_every_class_stays_to_learn_from():
    rng = np.random.default_rng(0)
    groups, strata = rng.integers(0, 40, 300), rng.integers(0, 3, 300)
    strata[groups == 7] = 3  # a class that one group alone has
    held = held_out(strata, groups, 6, 0)
    assert 0.05 < held.mean() < 0.4
    assert not set(groups[held]) & set(groups[~held])
    assert set(strata[~held]) == {0, 1, 2, 3}
    assert not held_out(strata[:8], None, 6, 0).any()


def test_unknown_heads_are_named():
    with pytest.raises(UsageError, match=r"expected one of gbm, linear.* got 'forest'"):
        make_head("forest", "classes", seed=0, jobs=1)


class TakesGroups(DummyClassifier):
    """An estimator of a user's own, whose ``fit`` has a place for groups."""

    def fit(self, X, y, groups=None):
        self.groups_ = groups
        return super().fit(X, y)


def test_a_given_estimator_gets_groups_seed_threads_and_weights_where_it_has_them():
    X, y = class_rows(60)
    head = make_head(f"{__name__}:TakesGroups", "classes", seed=5, jobs=1)
    groups = np.arange(60) // 2
    assert np.array_equal(head.fit(X, y, groups=groups).model_.groups_, groups)
    assert head.estimator.random_state == 5
    forest = make_head("sklearn.ensemble:ExtraTreesClassifier", "classes", seed=5, jobs=2, balanced=True)
    said = forest.estimator.get_params()
    assert (said["random_state"], said["n_jobs"], said["class_weight"]) == (5, 2, "balanced")


@pytest.mark.parametrize("place", ["sklearn.svm:LinearSVR", "sklearn.linear_model:LinearRegression"])
def test_a_given_regressor_predicts_both_columns_whether_it_takes_one_or_two(place):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5))
    y = np.stack([X[:, 0] * 0.4, X[:, 1] * 0.3], axis=1)
    predicted = make_head(place, "va", seed=0, jobs=1).fit(X[:150], y[:150]).predict(X[150:])
    assert predicted.shape == (50, 2)
    assert min(np.corrcoef(predicted[:, i], y[150:, i])[0, 1] for i in (0, 1)) > 0.95


class Odd(DummyClassifier):
    """A user's classifier whose answers are changed on their way out."""

    change = staticmethod(lambda p: p)

    def fit(self, X, y):
        super().fit(X, y)  # and forgets to return itself

    def predict_proba(self, X):
        return type(self).change(super().predict_proba(X))


def boom(p):
    raise ValueError("boom\n bang")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda p: np.where(np.arange(len(p))[:, None] < 7, np.nan, p),
            "expected finite probabilities of 3 classes for each row, got NaN in 7 of 60 rows; ",
        ),
        (lambda p: p / 0.0, "got infinity in 60 of 60 rows"),
        (lambda p: p[:, :2], r"of shape \(60, 3\), got \(60, 2\)"),
        (lambda p: p[:5], r"of shape \(60, 3\), got \(5, 3\)"),
        (lambda p: p / 2, r"rows sum to 1, got 60 of 60 rows that are not so \(the first sums to 0.5,"),
        (
            lambda p: np.tile([-0.2, 0.6, 0.6], (len(p), 1)),
            r"from 0 to 1 .* got 60 of 60 .* from -0.2 to 0.6",
        ),
        (boom, "ValueError: boom bang$"),
    ],
)
def test_what_a_given_classifier_answers_is_checked_and_told_with_its_name(monkeypatch, change, words):
    X, y = class_rows(60)
    head = make_head(f"{__name__}:Odd", "classes", seed=0, jobs=1).fit(X, y)
    assert np.allclose(head.predict_proba(X), np.bincount(y) / 60)
    monkeypatch.setattr(Odd, "change", staticmethod(change))
    with (
        pytest.raises(PredictionsError, match=f"^head {__name__}:Odd: .*{words}"),
        np.errstate(divide="ignore"),
    ):
        head.predict_proba(X)


@pytest.mark.parametrize("what", ["def f(:", "raise SystemExit(0)", "raise RuntimeError('no licence')"])
def test_what_a_users_module_raises_is_told_with_its_name(tmp_path, monkeypatch, what):
    (tmp_path / "odd_module.py").write_text(f"{what}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_module", raising=False)
    with pytest.raises(UsageError, match=r"got 'odd_module:Head' \((SyntaxError|SystemExit|RuntimeError): "):
        make_head("odd_module:Head", "classes", seed=0, jobs=1)


class OddRegressor(Ridge):
    """A user's regressor whose answers, or whose fit, go wrong."""

    change = staticmethod(lambda values: values)

    def fit(self, X, y):
        if len(X) == 3:
            raise RuntimeError("too few")
        if len(X) == 4:
            raise SystemExit(0)
        if len(X) == 5:
            raise Terminated(143)  # as a signal has it, which may come at any moment
        return super().fit(X, y)

    def predict(self, X):
        return type(self).change(super().predict(X))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v[:, 0], r"expected finite values for each row, of shape \(60, 2\), got \(60,\)"),
        (lambda v: v.T, r"got \(2, 60\)"),
        (lambda v: v * np.nan, "got NaN in 60 of 60 rows"),
    ],
)
def test_what_a_given_regressor_answers_is_checked_too(monkeypatch, change, words):
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


def test_the_linear_path_finds_what_each_penalty_by_itself_finds():
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


def test_ridge_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    for shape in ((60, 5), (20, 50)):
        X, Y = rng.normal(size=shape), rng.normal(size=(shape[0], 2))
        head = make_head("linear", "va", seed=0, jobs=1).fit(X, Y)
        scaled = (X - X.mean(axis=0)) / X.std(axis=0)
        assert np.allclose(head.predict(X), Ridge(alpha=head.alpha_).fit(scaled, Y).predict(scaled))
