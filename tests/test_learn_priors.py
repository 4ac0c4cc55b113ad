"""``ig3d predict`` on rows with other class shares: the warning, the correction, and its statistics on known truth."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from toy_fusion import CLASSES, make_table, store_of

import ig3d as package
from ig3d.errors import ModelError, UsageError
from ig3d.features.inputs import Inputs
from ig3d.features.join import load_table
from ig3d.features.predictions import Predictions, log_softmax
from ig3d.learn.class_shares import (
    ClassCounts,
    RuleShares,
    count_classes,
    describe_shares,
    difference_p,
    implied_shares,
)
from ig3d.learn.fuse import FuseConfig, fuse_files, fuse_predictions
from ig3d.learn.model import load_model, save_model
from ig3d.learn.predict import predict
from ig3d.learn.predict_files import predict_files
from ig3d.learn.priors import corrected, estimated_shares, read_shares, reweighted

FAST = FuseConfig(rules=("mean", "stack"), head="linear", draws=100, folds=3, jobs=1, controls=False)
SHARES = np.array([0.8, 0.15, 0.05])


def posteriors(shares, trained, n, seed):
    """Labels drawn with ``shares``, and exact log-probabilities of a Gaussian problem under the shares ``trained``."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), n, p=shares)
    x = rng.normal(size=(n, len(shares)))
    x[np.arange(n), labels] += 1.5
    return labels, log_softmax(1.5 * x + np.log(trained))


def shifted(n=600, *, seed=5, shares=SHARES, **options):
    """A table of new rows with these class shares, out of one with equal shares."""
    table = make_table(6 * n, seed=seed, quality=False, **options)
    chosen = [
        np.flatnonzero(table.labels == k)[:count] for k, count in enumerate((n * shares).round().astype(int))
    ]
    table = table.take(np.sort(np.concatenate(chosen)))
    return replace(table, id=np.array([f"new/{row:05d}" for row in range(len(table))]))


def saved(table, two, store, **options):
    Predictions(table.two_d, "logits", CLASSES, table.id).save(two)
    store_of(store, table, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model fitted on equal class shares; ``new`` has other shares, ``same`` the same."""
    folder = tmp_path_factory.mktemp("priors")
    saved(make_table(900, quality=False), folder / "fit.npz", folder / "fit.h5")
    save_model(fuse_files(Inputs(folder / "fit.npz", folder / "fit.h5"), FAST).model, folder / "model.skops")
    saved(shifted(), folder / "new.npz", folder / "new.h5", labelled=False)
    saved(shifted(shares=np.full(3, 1 / 3)), folder / "same.npz", folder / "same.h5", labelled=False)
    return folder


# --- statistics ---


@pytest.mark.parametrize("seed", range(5))
def test_em_estimates_known_shares_within_sampling_error(seed: int) -> None:
    trained, shares = np.array([0.2, 0.3, 0.5]), np.array([0.7, 0.2, 0.1])
    labels, log_p = posteriors(shares, trained, 2000, seed)
    estimate = estimated_shares(log_p, trained)
    # standard errors from the observed information, with the last share as one minus the others
    ratios = np.exp(log_p) / trained
    score = (ratios[:, :2] - ratios[:, 2:]) / (ratios @ estimate)[:, None]
    error = np.sqrt(np.diag(np.linalg.inv(score.T @ score)))
    assert (np.abs(estimate - shares)[:2] < 4 * error).all() and (error < 0.02).all()
    assert abs(estimate.sum() - 1) < 1e-9
    after = reweighted(log_p, trained, estimate)
    assert (after.argmax(1) == labels).mean() > (log_p.argmax(1) == labels).mean() + 0.03


def test_em_finds_the_greatest_likelihood() -> None:
    trained = np.array([0.2, 0.3, 0.5])
    _, log_p = posteriors(np.array([0.5, 0.45, 0.05]), trained, 300, 0)
    ratios = np.exp(log_p) / trained
    estimate = estimated_shares(log_p, trained)
    best = np.log(ratios @ estimate).sum()
    for other in np.random.default_rng(0).dirichlet(1 + 200 * estimate, 200):
        assert np.log(ratios @ other).sum() <= best + 1e-6


def test_implied_shares_are_those_that_probabilities_are_right_for() -> None:
    trained, shares = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    labels, log_p = posteriors(shares, trained, 20_000, 1)
    np.testing.assert_allclose(implied_shares(log_p, labels), trained, atol=0.02)
    labels, log_p = posteriors(shares, shares, 20_000, 2)
    np.testing.assert_allclose(implied_shares(log_p, labels), shares, atol=0.01)
    assert implied_shares(log_p[labels < 2], labels[labels < 2])[2] == 0


def test_the_test_is_pearsons_for_independent_rows() -> None:
    rng = np.random.default_rng(3)
    first, second = (np.log(rng.dirichlet(np.ones(4), n)) for n in (700, 400))
    parts = count_classes(first), count_classes(second)
    expected = chi2_contingency([part.counts for part in parts], correction=False).pvalue
    assert difference_p(*parts) == pytest.approx(expected, rel=0.02)
    # a class that neither has changes nothing
    wider = [count_classes(np.hstack([part, np.full((len(part), 1), -99.0)])) for part in (first, second)]
    assert difference_p(*wider) == pytest.approx(difference_p(*parts))


@pytest.mark.parametrize(("groups", "limit"), [(None, 0.03), (50, 0.03), (8, 0.06)])
def test_equal_shares_seldom_differ_also_where_rows_of_a_group_are_alike(groups, limit) -> None:
    rng = np.random.default_rng(4)
    shares = np.array([0.5, 0.25, 0.15, 0.1])

    def draw(n):
        if groups is None:
            return count_classes(np.eye(4)[rng.choice(4, n, p=shares)])
        group, own = rng.integers(0, groups, n), rng.dirichlet(5 * shares, groups)
        labels = (rng.random((n, 1)) > own[group].cumsum(1)).sum(1)
        return count_classes(np.eye(4)[np.minimum(labels, 3)], group)

    p = np.array([difference_p(draw(800), draw(500)) for _ in range(300)])
    assert (p < 0.01).mean() <= limit
    other = count_classes(np.eye(4)[rng.choice(4, 500, p=shares[::-1])])
    assert difference_p(draw(800), other) < 0.01


def test_one_group_cannot_be_compared() -> None:
    first = count_classes(np.eye(3)[np.arange(300) % 3])
    second = count_classes(np.eye(3)[np.zeros(300, int)], np.zeros(300, int))
    assert difference_p(first, second) == 1


# --- a saved model ---


def test_a_model_holds_the_shares_it_was_fitted_on(folder: Path) -> None:
    table = load_table(Inputs(folder / "fit.npz", folder / "fit.h5"))
    model = load_model(folder / "model.skops")
    assert set(model.shares) == {"2d", "2d-recalibrated", "mean", "stack"}
    fit = table.take((table.split == 1) & table.covered)
    expected = np.bincount(fit.labels, minlength=3) / len(fit)
    np.testing.assert_allclose(model.shares["stack"].implied, expected, atol=0.02)
    predicted = predict(model, fit)["stack"].argmax(1)
    assert model.shares["stack"].predicted.counts.tolist() == np.bincount(predicted, minlength=3).tolist()


def test_a_rule_fitted_to_equal_weights_of_classes_has_equal_shares() -> None:
    table = shifted(900, shares=np.array([0.6, 0.3, 0.1]), split=lambda row: row % 3)
    config = replace(FAST, rules=("stack",), objective="balanced")
    table = replace(table, split=np.arange(len(table), dtype=np.int8) % 3)
    balanced = fuse_predictions(table, config).model.shares["stack"].implied
    plain = fuse_predictions(table, replace(config, objective="accuracy")).model.shares["stack"].implied
    np.testing.assert_allclose(balanced, np.full(3, 1 / 3), atol=0.08)
    np.testing.assert_allclose(plain, [0.6, 0.3, 0.1], atol=0.05)


def test_uniform_is_the_formula_and_rows_without_3d_have_the_shares_of_their_reference(folder: Path) -> None:
    model = load_model(folder / "model.skops")
    files = {"two_d": folder / "new.npz", "stores": [folder / "new.h5"]}
    for rule, reference in (("stack", "2d-recalibrated"), ("mean", "2d")):
        plain, uniform = (
            predict_files(model, **files, rule=rule, priors=name) for name in ("fitted", "uniform")
        )
        assert plain.shares is None and (~plain.covered).any()
        implied = np.where(
            plain.covered[:, None], model.shares[rule].implied, model.shares[reference].implied
        )
        expected = plain.values / 3 / implied
        np.testing.assert_allclose(uniform.values, expected / expected.sum(axis=1, keepdims=True), rtol=1e-9)
        np.testing.assert_array_equal(uniform.shares, np.full(3, 1 / 3))


def test_the_estimate_is_near_the_truth_and_more_often_right(folder: Path) -> None:
    model = load_model(folder / "model.skops")
    files = {"two_d": folder / "new.npz", "stores": [folder / "new.h5"]}
    labels = shifted().labels
    plain, estimated = (predict_files(model, **files, priors=name) for name in ("fitted", "estimate"))
    np.testing.assert_allclose(estimated.shares, SHARES, atol=0.06)
    right = [(part.values.argmax(axis=1) == labels).mean() for part in (plain, estimated)]
    assert right[1] > right[0] + 0.02
    assert any("estimated on these rows" in note for note in estimated.notes)
    assert any("WARNING class shares of these predictions differ" in note for note in plain.notes)
    same = predict_files(model, folder / "same.npz", stores=[folder / "same.h5"])
    assert not any("class shares" in note for note in same.notes)


# --- the command ---


def test_the_example_of_the_docs(ig3d, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(package.__file__).resolve().parent
    lines = [line.strip() for line in (root / "docs/predict.md").read_text().splitlines()]
    example = next(line for line in lines if line.startswith("ig3d predict") and "--priors" in line)
    arguments = [
        folder / "model.skops" if part.endswith(".skops") else part for part in shlex.split(example)[1:]
    ]
    monkeypatch.chdir(folder)
    (folder / "shares.csv").write_text("class,share\nhappy,80\nsad,15\nanger,5\n")
    ended = ig3d(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert "Probabilities are corrected for class shares" in " ".join(ended.stderr.split())
    assert (folder / "p.csv").read_text().startswith("id,label,p_happy,p_sad,p_anger,has_3d,seen\n")


def test_small_shares_are_not_shown_with_an_exponent() -> None:
    text = describe_shares(CLASSES, np.array([0.7, 0.3, 2.5e-22]), np.array([0.5, 0, 0.5]))
    assert text == "anger <0.1 % (50 %), sad 30 % (0 %), happy 70 % (50 %)"


def test_the_warning_has_the_shares(ig3d, folder: Path) -> None:
    common = ("predict", folder / "model.skops", "--out", folder / "w.csv")
    ended = ig3d(*common, "--2d-logits", folder / "new.npz", "--3d-store", folder / "new.h5")
    assert ended.returncode == 0, ended.stderr
    text = " ".join(ended.stderr.split())
    counts = load_model(folder / "model.skops").shares["stack"].predicted.shares
    assert "WARNING class shares of these predictions differ" in text and "p < .001" in text
    assert f"({100 * counts[0]:.3g} %)" in text and "--priors estimate" in text
    before = (folder / "w.csv").read_text()
    ended = ig3d(
        *common, "--2d-logits", folder / "new.npz", "--3d-store", folder / "new.h5", "--priors", "fitted"
    )
    assert (folder / "w.csv").read_text() == before


def test_rows_that_can_only_be_of_a_class_without_a_share_are_refused(folder: Path) -> None:
    model, table = load_model(folder / "model.skops"), shifted(20)
    log_p = np.log(np.full((20, 3), 1 / 3))
    log_p[4] = 0, -np.inf, -np.inf
    with pytest.raises(
        UsageError, match=f"1 row \\({table.id[4]}\\) can only be of classes whose share is 0"
    ):
        corrected(model, table, "mean", log_p, "a.csv", np.array([0, 0.5, 0.5]))
    values, *_ = corrected(model, table, "mean", log_p, "a.csv", np.array([0.5, 0, 0.5]))
    assert np.exp(values)[4].tolist() == [1, 0, 0] and (np.exp(values)[:4, 1] == 0).all()


@pytest.mark.parametrize(
    ("implied", "counts", "effect"),
    [
        ([0.5, 0.6, 0.1], [1, 1, 1], 1.0),
        ([1.5, -0.5, 0.0], [1, 1, 1], 1.0),
        ([np.nan, 0.5, 0.5], [1, 1, 1], 1.0),
        ([0.5, 0.5], [1, 1], 1.0),
        ([0.2, 0.3, 0.5], [1, -1, 1], 1.0),
        ([0.2, 0.3, 0.5], [0, 0, 0], 1.0),
        ([0.2, 0.3, 0.5], [1, 1, 1], np.inf),
        ([0.2, 0.3, 0.5], [1, 1, 1], 0.0),
    ],
)
def test_models_with_damaged_shares_are_refused(
    folder: Path, tmp_path: Path, implied, counts, effect
) -> None:
    model = load_model(folder / "model.skops")
    bad = RuleShares(np.array(implied), ClassCounts(np.array(counts), 3, effect))
    for shares in ({**model.shares, "stack": bad}, {"stack": model.shares["stack"]}):
        save_model(replace(model, shares=shares), tmp_path / "bad.skops")
        with pytest.raises(ModelError, match="not a model, or is damaged"):
            load_model(tmp_path / "bad.skops")


def test_few_rows_are_an_uncertain_estimate(folder: Path, tmp_path: Path) -> None:
    few = shifted(20)
    saved(few, tmp_path / "few.npz", tmp_path / "few.h5", labelled=False)
    model = load_model(folder / "model.skops")
    predicted = predict_files(model, tmp_path / "few.npz", stores=[tmp_path / "few.h5"], priors="estimate")
    assert any("WARNING class shares are estimated from 20 rows only" in note for note in predicted.notes)


def test_files_of_shares(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Share;class\n30;Sadness\n60;happy\n10;anger\n")
    (tmp_path / "a.json").write_text(json.dumps({"happy": 6, "sad": 3, "angry": 1}))
    (tmp_path / "rounded.csv").write_text("class,share\nhappy,.33\nsad,.33\nanger,.33\n")
    np.testing.assert_allclose(read_shares(tmp_path / "rounded.csv", CLASSES), [1 / 3] * 3)
    (tmp_path / "large.json").write_text('{"happy": 1e308, "sad": 1e308, "anger": 0}')
    for name in ("a.csv", "a.json"):
        np.testing.assert_allclose(read_shares(tmp_path / name, CLASSES), [0.6, 0.3, 0.1])
    np.testing.assert_allclose(read_shares(tmp_path / "large.json", CLASSES), [0.5, 0.5, 0])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "class,share\nhappy,1\nsad,1\n", r"no share for classes \(anger\)"),
        ("a.csv", "class,share\nhappy,1\nsad,-1\nanger,1\n", r"not numbers of at least 0 \(sad -1\)"),
        ("a.csv", "class,share\nhappy,1\nsad,nan\nanger,1\n", "sad nan"),
        ("a.csv", "class,share\nhappy,1\nsad,\nanger,1\n", "not numbers of at least 0"),
        ("a.csv", "class,share\nhappy,0\nsad,0\nanger,0\n", "all shares in .* are 0"),
        ("a.csv", "class,share\nhappy,.5\nsad,.5\nanger,.4\n", r"sum to 1\.4; give shares that sum to 1 or 100"),
        ("a.csv", "class,share\nhappy,45.5\nsad,45.5\nanger,12\n", "sum to 103;"),
        ("a.csv", "class,share\nhappy,1\nsad,1\nanger,1\nfear,1\n", r"does not have \(fear\)"),
        ("a.csv", "class,share\nhappy,1\nsad,1\nanger,1\nangry,1\n", r"more than once \(anger\)"),
        ("a.csv", "name,number\nhappy,1\n", r"columns name, number; name two of them class and share"),
        ("a.csv", "", "empty"),
        ("a.json", '{"happy": 1, "sad": 1}', r"no share for classes \(anger\)"),
        ("a.json", '{"happy": 1, "happy": 2, "sad": 1, "anger": 1}', r"more than once \(happy\)"),
        ("a.json", '{"happy": 1, "sad": 1, "anger": Infinity}', "anger inf"),
        ("a.json", '{"happy": true, "sad": 1, "anger": [1]}', "happy True, anger"),
        ("a.json", "[1, 2, 3]", "not a JSON object"),
        ("a.json", "{" * 100_000, "not valid JSON"),
        ("a.json", "happy", "not valid JSON"),
        (None, "", "no file .*; choose fitted, uniform, estimate or a file of class shares"),
        ("x" * 300, None, "no file"),
    ],
)  # fmt: skip
def test_bad_files_of_shares_are_refused(tmp_path: Path, name, text, reason) -> None:
    path = tmp_path / (name or "none.csv")
    if name and text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=reason) as caught:
        read_shares(path, CLASSES)
    assert "\n" not in str(caught.value)


def test_valence_arousal_and_unseen_classes_are_refused_in_one_line(ig3d, folder, tmp_path) -> None:
    model = fuse_predictions(make_table(150, task="va", quality=False), FAST).model
    save_model(model, tmp_path / "va.skops")
    files = ("--2d-logits", folder / "new.npz", "--3d-store", folder / "new.h5", "--out", tmp_path / "p.csv")
    ended = ig3d("predict", tmp_path / "va.skops", *files, "--priors", "uniform")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "valence and arousal, which have no class shares" in ended.stderr
    table = make_table(450, quality=False)
    two = table.take((table.labels < 2) | (table.split != 1))
    save_model(fuse_predictions(two, FAST).model, tmp_path / "two.skops")
    ended = ig3d("predict", tmp_path / "two.skops", *files, "--priors", "estimate")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "fitted on no row of class anger" in ended.stderr
    ended = ig3d("predict", folder / "model.skops", *files, "--priors", "even")
    assert ended.returncode == 2 and "no file 'even'" in ended.stderr and not (tmp_path / "p.csv").exists()
