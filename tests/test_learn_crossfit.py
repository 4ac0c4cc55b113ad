"""Cross-fitting under conditions: two 2D networks together, failed optimisers, progress."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_fusion import make_table

from ig3d.features.samples import Split
from ig3d.learn.config import FuseConfig
from ig3d.learn.crossfit import not_converged
from ig3d.learn.evaluate.figures import figure
from ig3d.learn.evaluate.predictors import Predictor, find
from ig3d.learn.fuse import fuse_predictions
from ig3d.learn.report import run_of
from ig3d.learn.report.findings import findings_of
from ig3d.learn.report.page import page_html
from ig3d.learn.report.render import lines_of
from ig3d.learn.report.view import View

FAST = FuseConfig(
    rules=("stack",), head="linear", draws=200, folds=3, jobs=1, repeats=2, permutations=2, model=False
)
OVER = "2d+second"


def beyond(result):
    return figure(
        result.figures, "stack", "log_loss", condition=OVER, versus="2d-recalibrated", versus_condition=OVER
    )


@pytest.mark.parametrize("split", [lambda row: row % 3, lambda row: Split.none])
def test_codes_are_compared_with_both_2d_networks_together(split):
    table = make_table(300, other=True, split=split)
    result = fuse_predictions(table, FAST)
    rule, reference = (find(result.predictors, name, OVER) for name in ("stack", "2d-recalibrated"))
    losses = [
        np.mean([-of[np.arange(len(result.ids)), result.truth].mean() for of in each.every])
        for each in (rule, reference)
    ]
    found = beyond(result)
    (finding,) = (
        of for of in findings_of(View(run_of(result)))["exploratory"] if of["code"] == "beyond_both"
    )
    assert finding["shown"] and len(finding["comparisons"]) == 2
    assert found.value == pytest.approx(losses[0] - losses[1]) and found.high < 0 and found.p < 0.05
    # both networks together are better than one, and rows without 3D have the reference of the first
    alone = find(result.predictors, "2d-recalibrated")
    assert losses[1] < -alone.values[np.arange(len(result.ids)), result.truth].mean()
    assert np.array_equal(rule.values[~result.covered], alone.values[~result.covered])
    assert find(fuse_predictions(make_table(120), FAST).predictors, "stack", OVER) is None


def test_a_3d_prediction_that_repeats_the_second_network_adds_nothing_beyond_both():
    table = make_table(600, other=True, ready=True, missing=0)
    table = replace(table, three_d=0.4 * table.others["second"] + 0.3)
    result = fuse_predictions(table, FAST)
    over_one = figure(result.figures, "stack", "log_loss", versus="2d-recalibrated")
    assert over_one.high < -0.05  # it adds to the first network
    repeated = figure(
        result.figures,
        "stack",
        "log_loss",
        condition=OVER,
        versus="stack",
        versus_condition=f"{OVER} repeated",
    )
    assert abs(repeated.value) < 1e-9
    (found,) = (of for of in findings_of(View(run_of(result)))["exploratory"] if of["code"] == "beyond_both")
    assert not found["shown"] and found["condition"] == f"{OVER} repeated"


def test_optimisers_that_do_not_converge_are_reported_with_their_cause():
    fitted = ({"w": 0.5}, {"w": 0.5, "not_converged": ["STOP after 500 steps"]})
    of = Predictor("stack", "rule", True, np.zeros((3, 2)), fitted)
    (line,) = lines_of((), not_converged((of, replace(of, fitted=fitted[:1]))))
    assert line.startswith("WARNING stack: 1 optimisation did not converge (STOP after 500 steps)")


def test_progress_counts_heads_and_fold_models():
    steps = []
    fuse_predictions(
        make_table(90, split=lambda row: Split.none), FAST, progress=lambda *of: steps.append(of)
    )
    heads, rules = ([of for of in steps if of[0] == name] for name in ("heads", "rules"))
    assert [of[1] for of in heads] == list(range(heads[0][2] + 1))
    assert [of[1:] for of in rules if of[1] == int(of[1])] == [
        (done, 6) for done in range(1, 7)
    ]  # 2 times 3 folds


@pytest.mark.parametrize("head", ["gbm", "mlp"])
def test_progress_within_one_fold(head):
    if head == "mlp":
        pytest.importorskip("torch")
    steps = []
    table = make_table(150)
    others = {"second": table.two_d[:, ::-1]}
    config = replace(FAST, head=head, controls=True)
    fuse_predictions(replace(table, others=others), config, progress=lambda *of: steps.append(of))
    for name in ("heads", "rules"):
        done = [of[1] for of in steps if of[0] == name]
        (total,) = {of[2] for of in steps if of[0] == name}
        assert done == sorted(done) and done[-1] == total and len(done) > total + 3, (name, done)


def test_all_cross_fittings_have_equally_many_permutations_and_the_report_has_their_number():
    table = make_table(90, split=lambda row: Split.none)
    result = fuse_predictions(table, replace(FAST, permutations=3))
    assert len(find(result.predictors, "stack", "conditional").every) == 4
    page = page_html([run_of(result)])
    assert "its results are means over 4 permutations" in page and "(conditional) over 4 permutations" in page


def test_the_report_states_that_a_control_is_averaged_if_rules_are_fitted_on_another_split():
    result = fuse_predictions(make_table(120, split=lambda row: row % 3), FAST)
    assert not find(result.predictors, "stack").repeats
    page = page_html([run_of(result)])
    assert ", averaged over cross-fittings or permutations, are exchanged" in page
    assert "for accuracy, if neither predictor is averaged, they are from McNemar" in page
