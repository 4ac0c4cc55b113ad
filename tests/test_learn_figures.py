"""The table of figures: differences, tests and parts of the rows, against one computation at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix, f1_score

from ig3d.learn.evaluate.counts import confusion_table, reliability_table
from ig3d.learn.evaluate.figures import COLUMNS, KEYS, figure, figures_of
from ig3d.learn.evaluate.metrics import metric_names
from ig3d.learn.evaluate.predictors import Predictor


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
        Predictor("2d", "reference", False, two),
        Predictor("2d-recalibrated", "reference", True, log_probabilities(labels, 1.1, 3)),
        Predictor("3d", "reference", False, three),
        Predictor("product", "rule", False, fused),
        Predictor("stack", "rule", True, log_probabilities(labels, 1.2, 4)),
        Predictor("stack", "control", True, log_probabilities(labels, 1.0, 5), condition="permuted"),
    )
    return rules, labels, covered, np.arange(200) // 4


NAMES = ("a", "b", "c", "d")


def measured(table, *, groups=False, draws=400, family=()):
    rules, labels, covered, groups_of = table
    return figures_of(
        rules, labels, covered, groups_of if groups else None, task="classes", classes=NAMES, draws=draws, seed=0,
        family=family,
    )  # fmt: skip


def versus(figures, predictor, metric, rows="all", condition="real"):
    """Predictors that a predictor has differences to."""
    of = figures[(figures["predictor"] == predictor) & (figures["condition"] == condition)]
    of = of[(of["metric"] == metric) & (of["rows"] == rows) & (of["versus"] != "")]
    return set(of[["versus", "versus_condition"]].itertuples(index=False, name=None))


def test_the_table_is_tidy(table):
    figures = measured(table)
    assert tuple(figures.columns) == COLUMNS
    assert not figures.duplicated([*KEYS, "repeat"]).any()
    assert set(figures["role"]) == {"reference", "rule", "control"}
    assert set(figures["condition"]) == {"real", "permuted"}


def test_repeats_have_lines_of_their_own_and_the_figure_is_their_mean(table):
    rules, labels, _, _ = table
    values = tuple(log_probabilities(labels, 1.2, seed) for seed in (4, 8, 9))
    rule = Predictor("stack", "rule", True, values[0], repeats=values[1:])
    figures = measured(((*rules[:2], rule), *table[1:]))
    lines = figures[
        (figures["predictor"] == "stack") & (figures["metric"] == "accuracy") & (figures["rows"] == "all")
    ]
    for opponent, minus in (("", 0.0), ("2d", np.mean(rules[0].values.argmax(axis=1) == labels))):
        repeats = lines[(lines["versus"] == opponent) & lines["repeat"].notna()]
        assert list(repeats["repeat"]) == [0, 1, 2]
        expected = [np.mean(of.argmax(axis=1) == labels) - minus for of in values]
        assert repeats["value"].to_numpy() == pytest.approx(expected, abs=1e-12)
        mean = figure(figures, "stack", "accuracy", versus=opponent).value
        assert mean == pytest.approx(np.mean(expected), abs=1e-12)


def test_recalls_confusion_and_calibration_of_every_rule(table):
    rules, labels, covered, _ = table
    figures = measured(table)
    confusion = confusion_table(rules, labels, covered, NAMES)
    bins = reliability_table(rules, labels, covered)
    for rule in rules:
        for part, rows in (("all", np.ones(200, bool)), ("covered", covered)):
            if rule.name == "3d" and part == "all":
                assert figure(figures, "3d", "accuracy") is None
                continue
            predicted = rule.values[rows].argmax(axis=1)
            mine = [
                of[
                    (of["predictor"] == rule.name)
                    & (of["condition"] == rule.condition)
                    & (of["rows"] == part)
                ]
                for of in (confusion, bins)
            ]
            counts = mine[0].pivot(index="truth", columns="predicted", values="count")
            assert counts.to_numpy().tolist() == confusion_matrix(labels[rows], predicted).tolist()
            for c, name in enumerate(NAMES):
                of_class = labels[rows] == c
                got = figure(figures, rule.name, "recall", condition=rule.condition, rows=part, label=name)
                assert got.value == pytest.approx(np.mean(predicted[of_class] == c), abs=1e-9)
                assert got.low <= got.value <= got.high
            assert mine[1]["count"].sum() == rows.sum()
            ece = np.sum(mine[1]["count"] * np.abs(mine[1]["confidence"] - mine[1]["accuracy"])) / rows.sum()
            got = figure(figures, rule.name, "ece", condition=rule.condition, rows=part)
            assert got.value == pytest.approx(ece, abs=1e-12) and np.isnan(got.low)
    change = figure(figures, "stack", "recall", label="c", versus="2d")
    two, stack = (figure(figures, name, "recall", label="c").value for name in ("2d", "stack"))
    assert change.value == pytest.approx(stack - two, abs=1e-9) and change.low <= change.value


def test_accuracy_of_rows_is_tested_by_mcnemar_and_of_groups_by_swaps(table):
    rules, labels, _, groups = table
    values = {rule.name: rule.values for rule in rules if rule.condition == "real"}
    right, other = (values[name].argmax(axis=1) == labels for name in ("stack", "2d"))
    entry = figure(measured(table), "stack", "accuracy", versus="2d")
    gained, lost = int(np.sum(right & ~other)), int(np.sum(other & ~right))
    assert entry.p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue, rel=1e-9)
    grouped = figure(measured(table, groups=True, draws=4000), "stack", "accuracy", versus="2d")
    totals = np.bincount(groups, right.astype(float) - other)
    signs = np.random.default_rng(9).choice([-1, 1], (20_000, 50))
    expected = np.mean(np.abs(signs @ totals) >= abs(totals.sum()) - 1e-9)
    assert grouped.p == pytest.approx(expected, abs=0.03) and grouped.p != entry.p


@pytest.mark.parametrize("groups", [3, 5])
def test_no_p_of_few_groups_is_below_the_smallest_of_all_exchanges(groups):
    """With 100 random exchanges, fewer than expected may be as extreme."""
    labels = np.arange(60) % 4
    right = np.log(np.eye(4)[labels] * 0.6 + 0.1)
    two = right.copy()
    two[: 60 - groups] = np.roll(right, 1, axis=1)[: 60 - groups]
    rules = (Predictor("2d", "reference", False, two), Predictor("stack", "rule", True, right))
    p = []
    for seed in range(30):
        figures = figures_of(
            rules, labels, np.ones(60, bool), np.arange(60) % groups, task="classes", draws=100, seed=seed,
            family=("log_loss",),
        )  # fmt: skip
        of = figure(figures, "stack", "log_loss", versus="2d")
        p += [of.p, of.p_adjusted, figure(figures, "stack", "accuracy", versus="2d").p]
    assert min(p) == 2 / 2**groups


def test_macro_f1_is_tested_by_swapping_predictions(table):
    rules, labels, _, _ = table
    predicted = {rule.name: rule.values.argmax(axis=1) for rule in rules if rule.condition == "real"}
    entry = figure(measured(table, draws=2000), "stack", "macro_f1", versus="2d")

    def gap(first, second):
        return f1_score(labels, first, average="macro") - f1_score(labels, second, average="macro")

    observed, rng = gap(predicted["stack"], predicted["2d"]), np.random.default_rng(1)
    swapped = []
    for _ in range(150):
        swap = rng.random(200) < 0.5
        swapped.append(
            gap(
                np.where(swap, predicted["2d"], predicted["stack"]),
                np.where(swap, predicted["stack"], predicted["2d"]),
            )
        )
    assert entry.value == pytest.approx(observed, abs=1e-9)
    assert entry.p == pytest.approx(np.mean(np.abs(swapped) >= abs(observed)), abs=0.12)


def test_all_differences_of_a_family_are_adjusted_together(table):
    metrics = ("accuracy", "log_loss")
    figures = measured(table, groups=True, draws=2000, family=metrics)
    entries = [
        figure(figures, name, metric, versus=reference)
        for name in ("product", "stack")
        for metric in metrics
        for reference in ("2d", "2d-recalibrated")
    ]
    entries += [
        figure(figures, "stack", metric, versus="stack", versus_condition="permuted") for metric in metrics
    ]
    for of in entries:
        assert of.p <= of.p_adjusted <= min(1, len(entries) * max(of.p, 0.02))
    # nothing was fitted for macro-F1
    assert np.isnan(figure(figures, "stack", "macro_f1", versus="2d").p_adjusted)
    # References are tested but are no part of the family; controls are not tested.
    reference = figure(figures, "2d", "accuracy", versus="2d-recalibrated")
    assert reference.p >= 0 and np.isnan(reference.p_adjusted)
    assert np.isnan(figure(figures, "stack", "accuracy", condition="permuted", versus="2d").p)


def test_all_rows_and_covered_rows_are_one_family(table):
    rules, labels, _, groups = table
    everywhere = tuple(of for of in rules if of.name != "3d")
    few = np.arange(200) < 60

    def adjusted(covered):
        figures = measured((everywhere, labels, covered, groups), draws=1000, family=("accuracy", "log_loss"))
        return figures[(figures["rows"] == "all") & figures["p_adjusted"].notna()]["p_adjusted"].to_numpy()

    alone, both = (
        adjusted(np.ones(200, bool)),
        adjusted(few),
    )  # the same bootstrap samples of the same differences
    assert len(alone) == len(both) and (both >= alone).all() and (both > alone).any()


def test_without_a_family_each_difference_is_a_question_of_its_own(table):
    figures = measured(table, family=None)
    of = figure(figures, "stack", "macro_f1", versus="2d")
    assert of.p == of.p_adjusted


def test_a_twin_of_the_reference_differs_by_half_a_row_of_each_kind(table):
    """Poisson numbers of mean 1/2 are added to both sides: their difference has Skellam's distribution."""
    twin = Predictor("twin", "rule", False, table[0][0].values)
    metrics = ("accuracy", "macro_f1", "log_loss")
    figures = measured(((*table[0], twin), *table[1:]), draws=2000, family=metrics)
    for metric in metrics:
        got = figure(figures, "twin", metric, versus="2d")
        assert got.value == 0 and got.p == 1 and got.p_adjusted == 1
        if metric == "log_loss":
            assert (got.low, got.high) == pytest.approx((0, 0), abs=1e-12)
        elif metric == "accuracy":
            ends = stats.skellam.ppf([0.025, 0.975], 0.5, 0.5) / len(table[1])
            assert (got.low, got.high) == pytest.approx(tuple(ends), abs=1e-12)
        else:
            assert -0.05 < got.low < 0 < got.high < 0.05


@pytest.mark.parametrize(("gained", "lost"), [(2, 0), (12, 4), (40, 30)])
def test_intervals_of_few_discordant_rows_are_those_of_agresti_and_min(gained, lost):
    """Their interval of paired proportions: one half is added to each of the four cells."""
    n, k = 1000, 3
    labels = np.arange(n) % k
    right, wrong = np.log(np.eye(k)[labels] * 0.8 + 0.1), np.log(np.eye(k)[(labels + 1) % k] * 0.8 + 0.1)
    first, second = right.copy(), right.copy()
    second[:gained], first[gained : gained + lost] = wrong[:gained], wrong[gained : gained + lost]
    predictors = (Predictor("2d", "reference", False, second), Predictor("stack", "rule", True, first))
    figures = figures_of(predictors, labels, np.ones(n, bool), None, task="classes", draws=10_000, seed=0)
    got = figure(figures, "stack", "accuracy", versus="2d")
    total = n + 2
    center = (gained - lost) / total
    spread = np.sqrt(gained + lost + 1 - (gained - lost) ** 2 / total) / total
    ends = center + stats.norm.ppf([0.025, 0.975]) * spread
    assert (got.low, got.high) == pytest.approx(tuple(ends), abs=1.1 / n)  # counts are whole numbers
    if (gained, lost) == (2, 0):
        assert got.low < 0


def test_no_difference_of_very_few_rows_is_greater_than_one_hundred_per_cent() -> None:
    labels = np.array([0, 1, 0, 1])
    right = np.log(np.eye(2)[labels] * 0.8 + 0.1)
    predictors = (Predictor("2d", "reference", False, right[::-1]), Predictor("stack", "rule", True, right))
    figures = figures_of(predictors, labels, np.ones(4, bool), None, task="classes", draws=500, seed=0)
    for metric in ("accuracy", "macro_f1", "balanced_accuracy"):
        got = figure(figures, "stack", metric, versus="2d")
        assert got.value == 1 and -1 <= got.low <= got.high == 1


def test_covered_rows_are_the_figures_of_those_rows_alone(table):
    rules, labels, covered, _ = table
    whole = measured(table)
    alone = figures_of(
        tuple(
            Predictor(rule.name, rule.role, rule.fits, rule.values[covered], condition=rule.condition)
            for rule in rules
        ),
        labels[covered],
        np.ones(covered.sum(), bool),
        None,
        task="classes",
        draws=400,
        seed=0,
    )
    assert set(alone["rows"]) == {"all"}  # nothing is written twice
    for metric in ("accuracy", "macro_f1", "log_loss", "brier"):
        got, expected = (
            figure(whole, "product", metric, rows="covered"),
            figure(alone, "product", metric),
        )
        assert got.value == pytest.approx(expected.value, abs=1e-9)
        assert got.low == pytest.approx(expected.low, abs=0.03)
        assert got.high == pytest.approx(expected.high, abs=0.03)
    got, expected = (
        figure(of, "product", "accuracy", rows=rows, versus="2d").p
        for of, rows in ((whole, "covered"), (alone, "all"))
    )
    assert got == expected


def test_complementarity_is_of_single_predictors_on_covered_rows(table):
    rules, labels, covered, _ = table
    figures = measured(table)
    pairs = figures[figures["metric"] == "oracle"]
    assert pairs[["predictor", "versus", "rows"]].to_numpy().tolist() == [["3d", "2d", "covered"]]
    got = figure(figures, "3d", "oracle", rows="covered", versus="2d")
    right = [rule.values[covered].argmax(axis=1) == labels[covered] for rule in (rules[0], rules[2])]
    assert got.value == pytest.approx(np.mean(right[0] | right[1]), abs=1e-9)
    assert got.low < got.value < got.high


def test_other_references_and_a_prior(table):
    rules, labels, covered, _ = table
    prior = Predictor("prior", "reference", False, np.full((200, 4), np.log(0.25)))
    heads = tuple(Predictor(name, "head", False, rules[place].values) for name, place in (("a", 0), ("b", 4)))
    figures = figures_of(
        (prior, *heads), labels, covered, None, task="classes", draws=200, seed=0, references=("prior", "a"),
        family=metric_names("classes"),
    )  # fmt: skip
    assert figure(figures, "b", "accuracy", versus="a").p_adjusted >= 0
    assert figure(figures, "a", "accuracy", versus="prior").p_adjusted < 0.01
    # A predictor that is the same for every row cannot complement another.
    pairs = figures[figures["metric"] == "oracle"]
    assert pairs[["predictor", "versus"]].to_numpy().tolist() == [["b", "a"]]


def test_valence_arousal_tests_and_no_covered_row():
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, (150, 2))
    two, better = truth * 0.5 + rng.normal(0, 0.4, truth.shape), truth * 0.5 + rng.normal(0, 0.2, truth.shape)
    rules = (Predictor("2d", "reference", False, two), Predictor("stack", "rule", True, better))
    figures = figures_of(rules, truth, np.zeros(150, bool), None, task="va", draws=500, seed=0)
    assert set(figures["rows"]) == {"all"}
    for metric, sign in (("rmse_joint", -1), ("ccc_valence", 1), ("ccc_joint", 1)):
        got = figure(figures, "stack", metric, versus="2d")
        assert sign * got.value > 0 and got.p < 0.01


def test_a_rule_is_compared_with_its_own_control_and_with_the_3d_alone(table):
    rules, labels, covered, _ = table
    mixed = Predictor("product", "control", False, log_probabilities(labels, 0.9, 7), condition="permuted")
    other = Predictor("stack", "control", True, log_probabilities(labels, 1.1, 8), condition="2d:second")
    figures = measured(((*rules, mixed, other), *table[1:]), family=("accuracy",))
    right = {rule.key: rule.values.argmax(axis=1) == labels for rule in (*rules, mixed, other)}
    for rule in ("product", "stack"):
        found = figure(figures, rule, "accuracy", versus=rule, versus_condition="permuted")
        mine, control = right[rule, "real"], right[rule, "permuted"]
        assert found.value == pytest.approx(mine.mean() - control.mean(), abs=1e-9)
        assert found.low <= found.value <= found.high and found.p_adjusted >= found.p
        gained, lost = int(np.sum(mine & ~control)), int(np.sum(control & ~mine))
        assert found.p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue, rel=1e-9)
        assert ("3d", "real") not in versus(figures, rule, "accuracy")
        alone = figure(figures, rule, "accuracy", rows="covered", versus="3d")
        assert alone.value == pytest.approx(
            right[rule, "real"].mean(where=covered) - right["3d", "real"].mean(where=covered)
        )
        assert alone.p_adjusted >= alone.p
    beside = figure(figures, "stack", "accuracy", versus="stack", versus_condition="2d:second")
    expected = right["stack", "real"].mean() - right["stack", "2d:second"].mean()
    assert beside.value == pytest.approx(expected, abs=1e-9)
    references = {("2d", "real"), ("2d-recalibrated", "real")}
    for name, condition in (("2d", "real"), ("3d", "real"), ("stack", "permuted")):
        assert versus(figures, name, "accuracy", "covered", condition) <= references
