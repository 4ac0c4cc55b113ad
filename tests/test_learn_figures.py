"""The figures of a table: what each difference, test and part says, against one computation at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix, f1_score

from ig3d.learn.measures.figures import figures_of
from ig3d.learn.measures.results import RuleResult


def log_probabilities(labels, strength, seed, k=4):
    logits = np.random.default_rng(seed).normal(size=(len(labels), k))
    logits[np.arange(len(labels)), labels] += strength
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def table():
    """200 rows in 50 groups, 20 of them without 3D; two references, 3d, two rules, a control."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    covered = np.arange(200) % 10 > 0
    two, three = log_probabilities(labels, 1.0, 1), log_probabilities(labels, 0.8, 2)
    three[~covered] = np.nan
    fused = np.where(covered[:, None], two + np.nan_to_num(three), two)
    fused -= np.log(np.exp(fused).sum(axis=1, keepdims=True))
    rules = (
        RuleResult("2d", "reference", False, two),
        RuleResult("2d-recalibrated", "reference", True, log_probabilities(labels, 1.1, 3)),
        RuleResult("3d", "reference", False, three),
        RuleResult("product", "rule", False, fused),
        RuleResult("stack", "rule", True, log_probabilities(labels, 1.2, 4)),
        RuleResult("stack-permuted", "control", True, log_probabilities(labels, 1.0, 5)),
    )
    return rules, labels, covered, np.arange(200) // 4


def measured(table, *, groups=False, draws=400):
    rules, labels, covered, groups_of = table
    return figures_of(
        rules, labels, covered, groups_of if groups else None, task="classes", draws=draws, seed=0
    )


def test_recalls_confusion_and_calibration_of_every_rule(table):
    rules, labels, covered, _ = table
    figures = measured(table)
    for rule in rules:
        for part, rows in (("all", np.ones(200, bool)), ("covered", covered)):
            if rule.name == "3d" and part == "all":
                assert figures["3d"]["all"] is None
                continue
            got, said = figures[rule.name][part], rule.values[rows].argmax(axis=1)
            assert got["confusion"] == confusion_matrix(labels[rows], said).tolist()
            assert got["rows"] == rows.sum()
            for c, entry in enumerate(got["per_class"]):
                of_class = labels[rows] == c
                assert entry["support"] == of_class.sum()
                assert entry["recall"]["value"] == pytest.approx(np.mean(said[of_class] == c), abs=1e-9)
                assert entry["recall"]["low"] <= entry["recall"]["value"] <= entry["recall"]["high"]
            assert sum(of["rows"] for of in got["calibration"]["bins"]) == rows.sum()
    change = figures["stack"]["all"]["per_class"][2]["recall"]["minus_2d"]
    two, stack = (figures[name]["all"]["per_class"][2]["recall"]["value"] for name in ("2d", "stack"))
    assert change["value"] == pytest.approx(stack - two, abs=1e-9) and change["low"] <= change["value"]


def test_accuracy_of_rows_is_tested_by_mcnemar_and_of_groups_by_swaps(table):
    rules, labels, _, groups = table
    values = {rule.name: rule.values for rule in rules}
    right, other = (values[name].argmax(axis=1) == labels for name in ("stack", "2d"))
    entry = measured(table)["stack"]["all"]["accuracy"]["minus_2d"]
    gained, lost = int(np.sum(right & ~other)), int(np.sum(other & ~right))
    assert entry["p"] == pytest.approx(stats.binomtest(gained, gained + lost).pvalue, rel=1e-9)
    grouped = measured(table, groups=True, draws=4000)["stack"]["all"]["accuracy"]["minus_2d"]
    assert grouped["test"] == "swaps of groups"
    totals = np.bincount(groups, right.astype(float) - other)
    signs = np.random.default_rng(9).choice([-1, 1], (20_000, 50))
    expected = np.mean(np.abs(signs @ totals) >= abs(totals.sum()) - 1e-9)
    assert grouped["p"] == pytest.approx(expected, abs=0.03)


def test_macro_f1_is_tested_by_swapping_predictions(table):
    rules, labels, _, _ = table
    said = {rule.name: rule.values.argmax(axis=1) for rule in rules if rule.name != "3d"}
    entry = measured(table, draws=2000)["stack"]["all"]["macro_f1"]["minus_2d"]

    def gap(first, second):
        return f1_score(labels, first, average="macro") - f1_score(labels, second, average="macro")

    observed, rng = gap(said["stack"], said["2d"]), np.random.default_rng(1)
    swapped = []
    for _ in range(150):
        swap = rng.random(200) < 0.5
        swapped.append(
            gap(np.where(swap, said["2d"], said["stack"]), np.where(swap, said["stack"], said["2d"]))
        )
    assert entry["value"] == pytest.approx(observed, abs=1e-9)
    assert entry["p"] == pytest.approx(np.mean(np.abs(swapped) >= abs(observed)), abs=0.12)


def test_all_differences_of_a_family_are_adjusted_together(table):
    rules, labels, covered, groups = table
    metrics = ("accuracy", "log_loss")
    figures = figures_of(rules, labels, covered, groups, task="classes", draws=2000, seed=0, family=metrics)
    entries = [
        figures[name]["all"][metric][key]
        for name in ("product", "stack")
        for metric in metrics
        for key in ("minus_2d", "minus_2d_recalibrated")
    ]
    entries += [figures["stack"]["all"][metric]["minus_control"] for metric in metrics]
    for of in entries:
        assert of["p"] <= of["p_adjusted"] <= min(1, len(entries) * max(of["p"], 0.02))
    assert "p_adjusted" not in figures["stack"]["all"]["macro_f1"]["minus_2d"]  # nothing was fitted for it
    # References are tested but are no part of the family; controls are not tested.
    assert "p" in figures["2d"]["all"]["accuracy"]["minus_2d_recalibrated"]
    assert "p_adjusted" not in figures["2d"]["all"]["accuracy"]["minus_2d_recalibrated"]
    assert "p" not in figures["stack-permuted"]["all"]["accuracy"]["minus_2d"]


def test_a_twin_of_the_reference_differs_by_nothing(table):
    rules, labels, covered, _ = table
    twin = RuleResult("twin", "rule", False, rules[0].values)
    entry = figures_of((*rules, twin), labels, covered, None, task="classes", draws=200, seed=0)["twin"][
        "all"
    ]
    for metric in ("accuracy", "macro_f1", "log_loss"):
        got = entry[metric]["minus_2d"]
        assert (got["value"], got["low"], got["high"]) == pytest.approx((0, 0, 0), abs=1e-12)
        assert got["p"] == 1 and got["p_adjusted"] == 1


def test_covered_rows_are_the_figures_of_those_rows_alone(table):
    rules, labels, covered, _ = table
    part = measured(table)["product"]["covered"]
    alone = figures_of(
        tuple(RuleResult(rule.name, rule.kind, rule.fits, rule.values[covered]) for rule in rules),
        labels[covered],
        np.ones(covered.sum(), bool),
        None,
        task="classes",
        draws=400,
        seed=0,
    )["product"]["all"]
    for metric in ("accuracy", "macro_f1", "log_loss", "brier"):
        assert part[metric]["value"] == pytest.approx(alone[metric]["value"], abs=1e-9)
        for end in ("low", "high"):
            assert part[metric][end] == pytest.approx(alone[metric][end], abs=0.03)
    assert part["accuracy"]["minus_2d"]["p"] == alone["accuracy"]["minus_2d"]["p"]


def test_complementarity_is_of_single_predictors_on_covered_rows(table):
    rules, labels, covered, _ = table
    figures = measured(table)
    assert list(figures["3d"]["covered"]["complementarity"]) == ["2d"]
    assert all("complementarity" not in (figures[name]["covered"]) for name in ("stack", "2d-recalibrated"))
    got = figures["3d"]["covered"]["complementarity"]["2d"]
    right = [rule.values[covered].argmax(axis=1) == labels[covered] for rule in (rules[0], rules[2])]
    assert got["oracle"]["value"] == pytest.approx(np.mean(right[0] | right[1]), abs=1e-9)
    assert got["oracle"]["low"] < got["oracle"]["value"] < got["oracle"]["high"]


def test_other_references_and_a_prior(table):
    rules, labels, covered, _ = table
    prior = RuleResult("prior", "reference", False, np.full((200, 4), np.log(0.25)))
    heads = tuple(
        RuleResult(name, "head", False, rules[place].values) for name, place in (("a", 0), ("b", 4))
    )
    figures = figures_of(
        (prior, *heads), labels, covered, None, task="classes", draws=200, seed=0, references=("prior", "a")
    )
    assert figures["b"]["all"]["accuracy"]["minus_a"]["p_adjusted"] is not None
    assert figures["a"]["all"]["accuracy"]["minus_prior"]["p_adjusted"] < 0.01
    # What says the same of every row is no predictor that could complement another.
    assert list(figures["b"]["covered"]["complementarity"]) == ["a"]


def test_valence_arousal_tests_and_no_covered_row():
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, (150, 2))
    two, better = truth * 0.5 + rng.normal(0, 0.4, truth.shape), truth * 0.5 + rng.normal(0, 0.2, truth.shape)
    rules = (RuleResult("2d", "reference", False, two), RuleResult("stack", "rule", True, better))
    figures = figures_of(rules, truth, np.zeros(150, bool), None, task="va", draws=500, seed=0)
    assert figures["stack"]["covered"] is None
    for metric, sign in (("rmse_joint", -1), ("ccc_valence", 1), ("ccc_joint", 1)):
        got = figures["stack"]["all"][metric]["minus_2d"]
        assert sign * got["value"] > 0 and got["p"] < 0.01 and got["test"] == "swaps of rows"


def test_a_rule_is_compared_with_its_own_control_and_with_the_3d_alone(table):
    rules, labels, covered, _ = table
    mixed = RuleResult("product-permuted", "control", False, log_probabilities(labels, 0.9, 7))
    other = RuleResult("stack+second", "control", True, log_probabilities(labels, 1.1, 8))
    figures = measured(((*rules, mixed, other), *table[1:]))
    right = {rule.name: rule.values.argmax(axis=1) == labels for rule in (*rules, mixed, other)}
    families = []
    for rule in ("product", "stack"):
        found = figures[rule]["all"]["accuracy"]["minus_control"]
        mine, control = right[rule], right[f"{rule}-permuted"]
        assert found["value"] == pytest.approx(mine.mean() - control.mean(), abs=1e-9)
        assert found["low"] <= found["value"] <= found["high"]
        gained, lost = int(np.sum(mine & ~control)), int(np.sum(control & ~mine))
        assert found["p"] == pytest.approx(stats.binomtest(gained, gained + lost).pvalue, rel=1e-9)
        families.append(found)
        assert "minus_3d" not in figures[rule]["all"]["accuracy"]
        alone = figures[rule]["covered"]["accuracy"]["minus_3d"]
        assert alone["value"] == pytest.approx(
            (right[rule].mean(where=covered)) - right["3d"].mean(where=covered)
        )
        assert alone["p_adjusted"] >= alone["p"]
    assert all(of["p_adjusted"] >= of["p"] for of in families)
    beside = figures["stack"]["all"]["accuracy"]["minus_stack+second"]
    assert beside["value"] == pytest.approx(right["stack"].mean() - right["stack+second"].mean(), abs=1e-9)
    assert not [
        key
        for name in ("2d", "3d", "stack-permuted")
        for key in figures[name]["covered"]["accuracy"]
        if key in ("minus_control", "minus_3d")
    ]
