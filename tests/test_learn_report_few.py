"""Of one row or group nothing is claimed; a network is at chance where it is, not where that is not known."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pandas
import pytest
from made_up_results import Page, made, with_predictors

from ig3d.learn.diagnostics import check_figures, check_groups
from ig3d.learn.evaluate.figures import COLUMNS, figure, figures_of
from ig3d.learn.evaluate.intervals import FEW_UNITS, chance_of
from ig3d.learn.evaluate.predictors import Predictor
from ig3d.learn.report import compare, read_runs, run_of, write_result
from ig3d.learn.report.findings import findings_of
from ig3d.learn.report.latex import table_tex
from ig3d.learn.report.page import page_html
from ig3d.learn.report.render import lines_of
from ig3d.learn.report.view import View


@pytest.mark.parametrize("task", ["classes", "va"])
def test_of_one_group_there_is_no_interval_no_test_and_nothing_said(task, tmp_path):
    shown = made(task, groups=np.zeros(240, int))
    run = run_of(shown)
    assert len(shown.figures) > 100
    assert shown.figures[["low", "high", "p", "p_adjusted"]].isna().all(axis=None)
    found = findings_of(View(run))
    assert found["primary"]["reason"] == "all reported rows are of one group" and found["exploratory"] == []
    page = page_html([run])
    assert "there are no intervals and no tests" in page and Page(page).open == []
    assert "One group allows no intervals and no tests." in table_tex(run)
    metric = "accuracy" if task == "classes" else "ccc_joint"
    assert (
        figure(shown.figures, "weighted", metric, versus="2d-recalibrated").value > 0.05
        and "[--]" in table_tex(run)
        and "nan" not in table_tex(run).lower()
    )
    write_result(shown, tmp_path / "one")
    write_result(made(task, seed=1, groups=np.zeros(240, int)), tmp_path / "two")
    paired = compare(read_runs([tmp_path / "one", tmp_path / "two"])).differences
    assert len(paired) and paired[["low", "high", "p_adjusted"]].isna().all(axis=None)


def test_one_row_is_as_one_group():
    rng = np.random.default_rng(0)
    values = np.log(rng.dirichlet(np.ones(3), 1))
    rules = (Predictor("2d", "reference", False, values), Predictor("mean", "rule", False, values[:, ::-1]))
    figures = figures_of(
        rules, np.array([1]), np.ones(1, bool), None, task="classes", draws=100, seed=0, references=("2d",)
    )
    assert np.isnan(figure(figures, "mean", "accuracy").low)
    difference = figure(figures, "mean", "accuracy", versus="2d")
    assert np.isfinite(difference.value) and np.isnan(difference[1:]).all()


def test_a_recall_of_one_row_has_no_interval_and_that_of_two_has():
    truth = np.array([0, 1, 1, *[2] * 60])
    values = np.log(np.random.default_rng(0).dirichlet(np.ones(3), len(truth)))
    values[1] = np.log([0.1, 0.8, 0.1])
    values[2] = np.log([0.8, 0.1, 0.1])
    rules = (Predictor("2d", "reference", False, values),)
    figures = figures_of(rules, truth, np.ones(63, bool), None, task="classes", draws=300, seed=0)
    one, two, many = (figure(figures, "2d", "recall", label=label) for label in "012")
    assert np.isfinite(one.value) and np.isnan(one.low)
    assert two[:3] == (0.5, 0.0, 1.0)
    assert many.low < many.value < many.high and np.isfinite(figure(figures, "2d", "accuracy").low)


@pytest.mark.parametrize("groups", [2, FEW_UNITS, FEW_UNITS + 1])
def test_of_few_groups_nothing_is_stated_from_intervals(groups):
    """With 100 exchanges, p of 5 groups may be below .05 by chance."""
    shown = made(groups=np.arange(240) % groups)
    weighted = (shown.figures["predictor"] == "weighted") & (shown.figures["versus"] != "")
    shown.figures.loc[weighted, "p"] = 0.01
    run, few = run_of(shown), groups <= FEW_UNITS
    found = findings_of(View(run))
    codes = {of["code"] for of in found["exploratory"]}
    assert ("controls" in codes) == ("better_than_3d_alone" in codes) == (not few)
    primary = found["primary"]
    assert primary["claim"] == (primary["reason"] is None) == (not few)
    assert (primary["upper_limit_of_gain"] is None) == few
    for of in found["effect"]["metrics"]:
        assert of["differences"]["2d"]["low"] > 0
        assert (of["gain"], of["upper_limit_of_gain"] is None) == ((None, True) if few else ("shown", False))
    page = page_html([run])
    assert (f"only {groups} groups are reported, and a claim needs at least 6" in page) == few
    assert ("significant gain" in page) == ("upper end of the 95 % interval" in page) == (not few)
    (note,) = lines_of((), check_groups(np.arange(240) % groups))
    assert ("not reliable" in note) == (groups <= FEW_UNITS)


def test_few_rows_are_counted_in_words():
    same = pandas.DataFrame(columns=COLUMNS)

    def note(n):
        return lines_of((), check_figures(same, n, "classes", "accuracy"))

    assert note(1) == ["WARNING only 1 row is reported: there is no interval and no test."]
    assert "only 5 rows are reported: intervals are not reliable" in note(5)[0]
    assert note(6) == ["WARNING only 6 rows are reported: intervals are approximate."] and not note(100)
    (one,) = lines_of((), check_groups(np.zeros(9)))
    assert one.startswith("WARNING all reported rows are of 1 group: there is no interval and no test")


def test_the_share_by_chance_is_that_of_answers_dealt_out_at_random():
    rng = np.random.default_rng(0)
    truth, predicted = rng.choice(3, 60, p=[0.6, 0.3, 0.1]), rng.choice(3, 60, p=[0.2, 0.3, 0.5])
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (truth, predicted), 1)
    share, p = chance_of(confusion)
    assert share == pytest.approx(
        np.mean([np.mean(truth == rng.permutation(predicted)) for _ in range(4000)]), abs=0.005
    )
    assert 0.01 < p < 1
    constant = np.array([[7, 0], [3, 0]])
    assert chance_of(constant)[0] == pytest.approx(0.7) and chance_of(constant)[1] > 0.5
    assert chance_of(np.diag([20, 20]))[1] == pytest.approx(0.5**40)


def with_answers(truth, answers, draws):
    """A 2D network of these answers, and a 3D one that is always right."""
    values = np.log(np.eye(3)[answers] * 0.8 + 0.1)
    right = np.log(np.eye(3)[truth] * 0.8 + 0.1)
    rules = (
        Predictor("2d", "reference", False, values),
        Predictor("2d-recalibrated", "reference", True, values),
        Predictor("3d", "reference", False, right),
        Predictor("mean", "rule", False, right),
    )
    n = len(truth)
    figures = figures_of(rules, truth, np.ones(n, bool), None, task="classes", draws=draws, seed=0)
    shown = made(n=n)
    return replace(shown, truth=truth, covered=np.ones(n, bool), predictors=rules, figures=figures)


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([0, 0, 1, 1, 1, 2, 2, 2, 0], ""),  # 6 of 9: p .042
        ([0, 1, 2, 1, 1, 0, 2, 0, 2], "2d_near_chance"),
        ([0, 1, 2, 1, 2, 0, 2, 0, 1], "2d_at_chance"),
        ([1, 2, 1, 2, 0, 2, 0, 1, 0], "2d_at_chance"),
        ([1] * 9, "2d_at_chance"),
    ],
)
def test_chance_is_found_where_it_is_known_and_no_draw_turns_it(answers, code):
    truth = np.repeat([0, 1, 2], 3)
    codes = set()
    for draws in (100, 300, 1000):
        found = findings_of(View(run_of(with_answers(truth, np.array(answers), draws))))
        codes.add(next((of["code"] for of in found["diagnostics"] if of["code"].startswith("2d_")), ""))
    assert codes == {code}


def test_values_below_no_concordance_are_at_chance():
    shown = made("va")
    rng = np.random.default_rng(3)

    def code(two):
        predictors = [
            replace(of, values=two) if of.role == "reference" and of.name != "3d" else of
            for of in shown.predictors
        ]
        found = findings_of(View(run_of(with_predictors(shown, predictors))))
        return next((of["code"] for of in found["diagnostics"] if of["code"].startswith("2d_")), "")

    assert code(-shown.truth) == "2d_at_chance"
    noise = rng.normal(size=shown.truth.shape)
    noise += (0.03 - np.mean(noise * shown.truth) / np.mean(shown.truth**2)) * shown.truth
    assert code(noise) == "2d_near_chance" and code(shown.truth * 0.9) == ""


def test_the_label_in_the_file_is_the_greatest_probability(tmp_path):
    """Where nine digits make a tie, and where even the probabilities are one number."""
    n = 400
    shown = made(n=n)
    winner, tied = np.arange(n) % 3, np.random.default_rng(0).uniform(0.34, 0.49, n)
    p = np.repeat(1 - 2 * tied[:, None], 3, axis=1)
    p[np.arange(n), winner] = p[np.arange(n), (winner + 1) % 3] = tied
    values = np.log(p)
    values[np.arange(n), winner] += np.where(np.arange(n) < n // 2, 1e-12, np.spacing(np.abs(np.log(tied))))
    mean = replace(shown.predictors[3], values=values)
    rules = (*shown.predictors[:3], mean)
    figures = figures_of(rules, shown.truth, shown.covered, None, task="classes", draws=100, seed=0)
    shown = replace(shown, predictors=rules, figures=figures)
    write_result(shown, tmp_path / "a")
    lines = list(csv.DictReader((tmp_path / "a" / "predictions.csv").read_text().splitlines()))
    names = [f"p_{name}" for name in shown.classes]
    for line in lines:
        p = [float(line[name]) for name in names]
        assert names[int(np.argmax(p))] == f"p_{line['label']}"
    assert [line["label"] for line in lines if line["predictor"] == "mean"] == [
        shown.classes[c] for c in winner
    ]
    accuracy = figure(read_runs([tmp_path / "a"])[0].figures, "mean", "accuracy").value
    assert accuracy == pytest.approx(np.mean(winner == shown.truth))
    assert not len(compare(read_runs([tmp_path / "a", tmp_path / "a"])).differences)  # read and checked
