"""Rare classes in folds; heads' scores that runs share; runs compared by ids and labels; choices on held-out rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_fusion import FAST, make_table

from ig3d.learn.evaluate.figures import figure
from ig3d.learn.folds import folds_of, held_out
from ig3d.learn.fuse import ScoreFolder, fuse_predictions
from ig3d.learn.heads import make_head
from ig3d.learn.report import compare, read_runs
from ig3d.learn.report.files import run_files, write_texts
from ig3d.learn.report.record import run_of
from ig3d.learn.rules import Columns, RuleSettings, make_rule
from ig3d.learn.rules.objective import inner_folds

QUICK = replace(FAST, rules=("weighted", "stack", "boost", "gate"), repeats=2)


def rule_of(result, name):
    return next(rule for rule in result.predictors if rule.name == name)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("grouped", [False, True])
def test_a_class_that_is_held_out_stays_among_the_fitted_rows_too(seed, grouped):
    rng = np.random.default_rng(seed)
    strata = np.where(rng.random(90) < 0.9, rng.integers(0, 2, 90), 2)
    strata[rng.choice(90, 2, replace=False)] = (3, 4)  # a class of one row each
    groups = rng.integers(0, 30, 90) if grouped else np.arange(90)
    groups[strata == 2] = 99 if grouped else groups[strata == 2]  # and one of one person
    held = held_out(strata, groups, 4, seed)
    assert 5 <= held.sum() <= 45
    assert set(strata[held]) <= set(strata[~held]) and set(strata) == set(strata[~held])
    assert not np.isin(groups[held], groups[~held]).any()


@pytest.mark.parametrize("seed", range(5))
def test_folds_of_classes_with_fewer_members_than_folds_hold_every_row_once(seed):
    rng = np.random.default_rng(seed)
    cases = {
        "few": np.array([0] * 40 + [1] * 3 + [2]),
        "all rare": np.arange(44) // 3,
        "one class": np.zeros(44, int),
    }
    for strata in cases.values():
        for groups in (np.arange(44), rng.integers(0, 9, 44), np.where(strata == 1, 100, np.arange(44))):
            fold = folds_of(strata, groups, 5, seed)
            assert set(fold) == set(range(5))
            assert all(len(set(fold[groups == group])) == 1 for group in groups)


@pytest.mark.parametrize(
    ("sizes", "strata", "seed"),
    [([3, 1, 2, 1, 4], "33320122323", 0), ([3, 3, 1, 2, 3], "111000133000", 1)],
)
def test_few_large_groups_leave_no_fold_empty_and_stay_whole(sizes, strata, seed):
    """Groups of which stratified folds leave one empty."""
    groups = np.repeat(np.arange(5), sizes)
    fold = folds_of(np.array(list(map(int, strata))), groups, 5, seed)
    assert set(fold) == set(range(5))
    assert all(len(set(fold[groups == group])) == 1 for group in groups)


def test_inner_folds_that_would_leave_one_class_only_are_not_drawn():
    y = np.array([0] * 40 + [1] * 8)
    groups = np.append(np.arange(40), np.full(8, 50))
    assert inner_folds(y, "classes", groups, 3, 0) is None  # all of class 1 is one person
    assert inner_folds(y, "classes", None, 3, 0) is not None
    # five rows or groups are too few to choose by, six are enough; in both tasks
    for task, few in (("classes", np.arange(60) % 2), ("va", np.linspace(-1, 1, 120).reshape(60, 2))):
        for count, drawn in ((5, False), (6, True)):
            assert (inner_folds(few, task, np.arange(60) // 2 % count, 3, 0) is not None) == drawn
            assert (inner_folds(few[:count], task, None, 3, 0) is not None) == drawn
    two = np.where(np.arange(48) < 44, 0, 1)
    fold = inner_folds(two, "classes", None, 3, 0)
    assert all(len(np.unique(two[fold != held])) == 2 for held in range(3))


@pytest.mark.parametrize("head", ["gbm", "linear"])
def test_a_class_of_one_person_keeps_its_2d_probability_in_the_fold_that_lacks_it(head):
    table = make_table(150, split=lambda row: -1, missing=0, grouped=True)
    codes = table.group_codes
    labels = np.where(table.labels == 2, 0, table.labels)
    person = codes == codes[20]
    labels[person] = 2
    table = replace(table, labels=labels.astype(np.int16))
    result = fuse_predictions(table, replace(QUICK, head=head, rules=("stack", "boost", "gate", "weighted")))
    given = np.exp(rule_of(result, "2d").values[person])
    for name in ("2d-recalibrated", "stack", "boost"):
        values = rule_of(result, name).values
        assert np.isfinite(values).all()
        assert np.allclose(np.exp(values[person])[:, 2], given[:, 2], atol=1e-9), name
        assert not np.allclose(np.exp(values[person])[:, :2], given[:, :2], atol=1e-4), name
    # a fold that has the class moves it
    others = np.exp(rule_of(result, "stack").values[~person])[:, 2]
    assert not np.allclose(others, np.exp(rule_of(result, "2d").values[~person])[:, 2], atol=1e-4)
    assert np.isfinite(rule_of(result, "gate").values).all()


def changed(table, what):
    rng = np.random.default_rng(5)
    if what == "labels":
        return replace(table, labels=((table.labels + 1) % 3).astype(np.int16))
    if what == "targets":
        return replace(table, targets=-table.targets)
    if what == "groups":
        return replace(table, group=np.array([f"q{g}" for g in rng.integers(0, 25, len(table))]))
    if what == "no groups":
        return replace(table, group=np.full(len(table), ""))
    # of the rows that a head learns from, or of those that it predicts; noise, which trees do not see through
    rows = table.split == 0 if what == "fitted codes" else table.split != 0
    noise = np.where(rows[:, None], rng.normal(size=table.codes.shape), 0)
    return replace(table, codes=np.float32(table.codes + noise))


@pytest.mark.parametrize("kept", ["dictionary", "folder"])
@pytest.mark.parametrize(
    ("task", "what"),
    [
        *(("classes", what) for what in ("labels", "groups", "no groups", "fitted codes", "predicted codes")),
        *(("va", what) for what in ("targets", "groups")),
    ],
)
def test_shared_heads_are_those_of_the_very_rows_labels_and_groups(tmp_path, task, what, kept):
    table = make_table(150, task=task, split=lambda row: row % 3, grouped=True, missing=0)
    other = changed(table, what)
    config = replace(QUICK, rules=("mean",), head="gbm", controls=False)
    heads = {} if kept == "dictionary" else ScoreFolder(tmp_path / "heads")
    fuse_predictions(table, config, score_cache=heads)
    warm, cold = fuse_predictions(other, config, score_cache=heads), fuse_predictions(other, config)
    for shared, fresh in zip(warm.predictors, cold.predictors, strict=True):
        assert np.array_equal(shared.values, fresh.values, equal_nan=True), shared.name
    again = fuse_predictions(table, config, score_cache=heads)
    assert np.array_equal(
        rule_of(again, "3d").values, rule_of(fuse_predictions(table, config), "3d").values, equal_nan=True
    )


def test_relabelled_data_is_as_accurate_from_shared_heads_as_without():
    table = make_table(240, missing=0, signal=2)
    config = replace(QUICK, rules=("mean",), head="gbm", controls=False)
    heads = {}
    for each in (table, changed(table, "labels")):
        result = fuse_predictions(each, config, score_cache=heads)
        assert figure(result.figures, "3d", "accuracy").value > 0.7


@pytest.fixture
def two_runs(tmp_path):
    """Two runs of one number of rows; the second is made from what is given."""

    def make(other):
        table = make_table(120, split=lambda row: 2, missing=0)
        for name, each, seed in (("a", table, 0), ("b", other(table), 1)):
            result = fuse_predictions(each, replace(QUICK, rules=("mean", "stack"), seed=seed))
            (tmp_path / name).mkdir()
            write_texts(tmp_path / name, run_files(run_of(result), result))
        return compare(read_runs([tmp_path / "a", tmp_path / "b"]))

    return make


def test_runs_on_the_same_rows_and_labels_are_compared(two_runs):
    assert len(two_runs(lambda table: table).differences)


def test_runs_of_as_many_other_rows_are_not_compared(two_runs):
    def other(table):
        ids = table.id.copy()
        ids[7] = "s/9007"
        return replace(table, id=ids)

    found = two_runs(other)
    assert not len(found.differences) and "119 of them the same" in found.remarks[0]


@pytest.mark.parametrize("wrong", [1, 40])
def test_runs_on_the_same_ids_with_other_labels_are_not_compared(two_runs, wrong):
    def other(table):
        labels = table.labels.copy()
        labels[:wrong] = (labels[:wrong] + 1) % 3
        return replace(table, labels=labels)

    found = two_runs(other)
    assert not len(found.differences) and f"the truth differs on {wrong} row" in found.remarks[0]


def test_differences_of_runs_are_those_of_their_figures(two_runs, tmp_path):
    found = two_runs(lambda table: table)
    first, other = (run.figures for run in read_runs([tmp_path / "a", tmp_path / "b"]))
    for line in found.differences.to_dict("records"):
        values = [figure(of, line["predictor"], line["metric"]).value for of in (other, first)]
        assert line["value"] == pytest.approx(values[0] - values[1], abs=1e-12)


# A choice on fitted rows would always choose the weakest penalty and the most rounds.


def noise(n=150, d=40, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, k, n), rng


@pytest.mark.parametrize("task", ["classes", "va"])
def test_heads_choose_the_strongest_penalty_and_few_rounds_on_noise(task):
    X, y, rng = noise()
    y = y if task == "classes" else rng.normal(0, 0.4, (len(y), 2))
    linear = make_head("linear", task, seed=0, jobs=1).fit(X, y)
    # on fitted rows the weakest: 0.1 and 1
    assert linear.C_ < 0.1 if task == "classes" else linear.alpha_ > 1
    trees = make_head("gbm", task, seed=0, jobs=1).fit(X, y)
    if task == "classes":
        assert trees.rounds_ < 60


@pytest.mark.parametrize("task", ["classes", "va"])
def test_rules_choose_the_strongest_penalty_and_no_trees_on_noise(task):
    codes, y, rng = noise(seed=1)
    k = 3 if task == "classes" else 2
    truth = np.eye(3)[y] if task == "classes" else rng.normal(0, 0.4, (len(y), 2))
    y = y if task == "classes" else truth
    two, three = truth + rng.normal(0, 0.5, (len(y), k)), rng.normal(0, 0.5, (len(y), k))
    columns = Columns(scores_2d=two, scores_3d=three, codes=codes, quality=codes[:, :6].astype(float))
    columns = replace(columns, quality_columns=tuple(f"quality:{i}" for i in range(6)))
    objective = {"classes": "accuracy", "va": "rmse"}[task]
    choices = RuleSettings(
        task=task, objective=objective, candidates=("mean", "stack"), options={"stack": {"codes": True}}
    )
    stack = make_rule("stack", choices).fit(columns, y)
    if task == "classes":
        assert stack.penalty_ * stack.weight_3d_**2 == pytest.approx(0.0001)
    else:
        assert stack.penalty_ / stack.weight_3d_**2 == pytest.approx(1000)
    assert stack.code_weight_ == 0.0
    boost = make_rule("boost", choices).fit(columns, y)
    assert not any(boost.trees_)
    gate = make_rule("gate", choices).fit(columns, y)
    assert gate.penalty_ >= 0.01
    best = make_rule("selected", choices).fit(columns, y)
    assert best.chosen_ != "mean"
