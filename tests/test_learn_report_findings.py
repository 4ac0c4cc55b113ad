"""Findings: claims and effect sizes as data, and their sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up_results import made, with_predictors

from ig3d.learn.evaluate.figures import Figure, figure
from ig3d.learn.evaluate.predictors import Predictor, find
from ig3d.learn.report import run_of
from ig3d.learn.report.findings import findings_of
from ig3d.learn.report.format import stars
from ig3d.learn.report.render import flat, text_environment
from ig3d.learn.report.view import View


@pytest.fixture(scope="module")
def result():
    return made()


def findings(shown):
    return findings_of(View(run_of(shown)))


def sentences(shown):
    """Primary comparison, effect size, then all further findings, as sentences."""
    view = View(run_of(shown))
    found = findings_of(view)
    macros = text_environment().get_template("sentences.j2").module
    texts = []
    if found["primary"]:
        texts = [macros.primary(found["primary"])]
        if found["effect"]["metrics"]:
            texts.append(macros.effect(found["effect"], found["primary"]))
    texts += [macros.sentence(of) for of in (*found["exploratory"], *found["diagnostics"])]
    return [flat(text) for text in texts]


def coded(found, code):
    return [of for of in (*found["exploratory"], *found["diagnostics"]) if of["code"] == code]


def changed(shown, condition="real", **where):
    """A result in which some numbers of the table are others: ``numbers`` by column, the rest selects lines."""
    numbers = where.pop("numbers")
    figures = shown.figures.copy()
    chosen = (figures["condition"] == condition) & figures["repeat"].isna()
    for column, value in where.items():
        chosen &= figures[column] == value
    assert chosen.any()
    for column, value in numbers.items():
        figures.loc[chosen, column] = value
    return replace(shown, figures=figures)


def test_answer_and_effect_follow_from_the_figures(result):
    found, texts = findings(result), sentences(result)
    primary = found["primary"]
    gain = figure(result.figures, "weighted", "log_loss", versus="2d-recalibrated")
    assert primary["claim"] and primary["rule"] == "weighted" and primary["metric"] == "log_loss"
    assert primary["comparisons"][0]["value"] == gain.value
    assert texts[0].startswith(
        "The 3D codes carry information beyond a linear recalibration of the 2D predictions. "
        "The rule weighted lowers log loss by "
    )
    assert f"{-gain.value:.4f} [{-gain.high:.4f}, {-gain.low:.4f}] relative to 2d-recalibrated" in texts[0]
    assert texts[1].startswith("The rule weighted changes accuracy by +")
    assert "A significant gain in accuracy" in texts[1]
    (control,) = coded(found, "controls")
    assert control["gaining"] == [] and control["count"] == 1
    (pair,) = coded(found, "complementarity_classes")
    right = {
        of.name: of.values[result.covered].argmax(axis=1) == result.truth[result.covered]
        for of in result.predictors
        if of.name in ("2d", "3d")
    }
    assert pair["oracle"] == pytest.approx(np.mean(right["2d"] | right["3d"]), abs=1e-12)
    nothing = made(gain=0.0, seed=3)
    assert not findings(nothing)["primary"]["claim"]
    assert sentences(nothing)[0].startswith("It is not shown that the 3D codes carry information")
    assert (
        "No significant gain in accuracy or macro-F1 is shown (criterion: the unadjusted 95 % intervals"
        in sentences(nothing)[1]
    )


@pytest.mark.parametrize(
    ("versus", "condition"), [("2d", "real"), ("2d-recalibrated", "real"), ("weighted", "permuted")]
)
@pytest.mark.parametrize(
    "numbers", [{"p": 0.06}, {"high": 0.001}, {"value": -1e-9, "low": -2e-9, "high": -1e-10}, {"p": np.nan}]
)
def test_every_comparison_is_needed_for_a_claim(result, versus, condition, numbers):
    one = changed(
        result, predictor="weighted", metric="log_loss", rows="all", versus=versus, versus_condition=condition,
        numbers=numbers,
    )  # fmt: skip
    primary = findings(one)["primary"]
    assert not primary["claim"] and (primary["versus"], primary["condition"]) == (versus, condition)


@pytest.mark.parametrize("task", ["classes", "va"])
def test_gains_of_permuted_codes_are_not_from_the_3d(task):
    shown = made(task)
    weighted = find(shown.predictors, "weighted")
    equal = [
        replace(of, values=weighted.values) if of.role == "control" else of
        for of in shown.predictors
        if of.name != "mean"
    ]
    shown = with_predictors(shown, equal)
    primary = findings(shown)["primary"]
    assert not primary["claim"] and primary["condition"] == "permuted"
    assert [of["significant"] for of in primary["comparisons"]] == [True, True, False]
    texts = sentences(shown)
    assert "relative to weighted with permuted codes" in texts[0]
    noun = "gain" if task == "classes" else "improvement"
    assert f"It is not shown that this {noun} is due to the 3D codes." in texts[1]
    (control,) = coded(findings(shown), "controls")
    assert control["gaining"] == ["weighted (permuted)"]
    assert any("Gains of these rules may not be due to the codes." in text for text in texts)


def test_a_control_gains_only_where_its_intervals_to_all_references_do(result):
    one = changed(
        result, "permuted", metric="log_loss", rows="all", versus="2d", numbers={"low": -0.02, "high": -0.005}
    )
    one = changed(
        one, "permuted", metric="log_loss", rows="all", versus="2d-recalibrated",
        numbers={"low": -0.07, "high": 0.01},
    )  # fmt: skip
    assert coded(findings(one), "controls")[0]["gaining"] == []
    both = changed(
        one, "permuted", metric="log_loss", rows="all", versus="2d-recalibrated", numbers={"high": -0.01}
    )
    assert coded(findings(both), "controls")[0]["gaining"] == ["weighted (permuted)"]


def test_without_a_control_there_is_no_claim(result):
    bare = with_predictors(result, [of for of in result.predictors if of.role != "control"])
    primary = findings(bare)["primary"]
    assert not primary["claim"] and primary["reason"] == "no control was run"
    assert all(of["significant"] for of in primary["comparisons"])
    assert sentences(bare)[0].startswith("No claim is made that the 3D codes carry")


def test_best_is_the_effect_size_where_it_was_run(result):
    rng = np.random.default_rng(5)
    chosen = Predictor("selected", "rule", True, rng.normal(size=result.predictors[0].values.shape))
    shown = with_predictors(result, [*result.predictors, chosen])
    assert findings(shown)["effect"]["rule"] == "selected"
    assert (
        "The 3D codes are informative in log loss, but a significant loss in accuracy and macro-F1 is shown"
        in sentences(shown)[1]
    )


def test_the_objective_is_named_where_it_is_not_the_metric_of_the_effect(result):
    def other_objective(shown, **choices):
        return findings(replace(shown, config=replace(shown.config, **choices)))["effect"]["other_objective"]

    assert other_objective(result) is None and other_objective(result, objective="accuracy") is None
    assert other_objective(result, objective="balanced") == "balanced"
    assert other_objective(made("va")) is None and other_objective(made("va"), objective="ccc") is None
    fixed = replace(result, predictors=tuple(replace(of, fits=False) for of in result.predictors))
    assert other_objective(fixed, objective="balanced") is None


@pytest.mark.parametrize(
    ("low", "high", "gain", "text"),
    [
        (0.0004, 0.02, "shown", "A significant gain in accuracy and macro-F1 is shown"),
        (
            -0.01,
            0.02,
            "not shown",
            "but no significant gain in accuracy is shown, a significant gain in macro-F1 is shown",
        ),
        (
            -0.02,
            -0.01,
            "not shown",
            "but no significant gain in accuracy is shown, a significant gain in macro-F1 is shown",
        ),
        (np.nan, np.nan, None, "A significant gain in macro-F1 is shown"),
    ],
)
def test_a_gain_is_shown_only_where_the_intervals_to_all_references_lie_above_0(
    result, low, high, gain, text
):
    one = changed(
        result, predictor="weighted", metric="accuracy", rows="all", versus="2d",
        numbers={"low": low, "high": high},
    )  # fmt: skip
    found = findings(one)["effect"]["metrics"][0]
    assert found["gain"] == gain and found["differences"]["2d"]["low"] in (low, None)
    assert text in sentences(one)[1]


@pytest.mark.parametrize("task", ["classes", "va"])
def test_terminal_and_page_state_the_gain_in_the_same_words(task):
    view = View(run_of(made(task)))
    found = findings_of(view)
    macros = text_environment().get_template("sentences.j2").module
    texts = [flat(of(found["effect"], found["primary"])) for of in (macros.effect, macros.effect_lines)]
    statement = flat(macros.gain_statement(found["effect"], found["primary"]))
    criterion = flat(macros.criterion(found["effect"]))
    assert statement and all(f"{statement[1:]} ({criterion})" in text for text in texts)
    assert all(
        "to 2d-recalibrated and 2d" in criterion and "upper end of the 95 % interval of the" in text
        for text in texts
    )


def strong_3d(shown, *, guess_of_2d):
    """A 2D network that guesses, or is perfect, beside a strong 3D."""
    truth = np.eye(3)[shown.truth]
    rng = np.random.default_rng(1)
    strong = np.log(np.clip(0.9 * truth + 0.05, 1e-6, 1))
    guess = np.log(rng.dirichlet(np.ones(3), len(truth))) if guess_of_2d else strong
    three = np.where(shown.covered[:, None], strong, np.nan)
    return [
        Predictor("2d", "reference", False, guess),
        Predictor("2d-recalibrated", "reference", True, guess, ({"penalty": 0.1},)),
        Predictor("3d", "reference", False, three),
        Predictor("stack", "rule", True, np.where(shown.covered[:, None], strong, guess)),
        Predictor("stack", "control", True, guess, condition="permuted"),
    ]


def test_the_3d_alone_and_the_chance_of_the_2d_network(result):
    predictors = strong_3d(result, guess_of_2d=True)
    found = findings(with_predictors(result, predictors))
    (alone,) = coded(found, "better_than_3d_alone")
    assert alone["value"] == 0 and not alone["significant"] and alone["rows"] == "covered"
    assert alone["versus"] == "3d"
    assert coded(found, "2d_near_chance") or coded(found, "2d_at_chance")
    half = np.where(
        (np.arange(240) % 2)[:, None], predictors[2].values, np.roll(predictors[2].values, 1, axis=1)
    )
    weaker = [replace(of, values=half) if of.name == "3d" else of for of in predictors]
    assert coded(findings(with_predictors(result, weaker)), "better_than_3d_alone")[0]["significant"]
    perfect = with_predictors(result, strong_3d(result, guess_of_2d=False))
    assert coded(findings(perfect), "2d_perfect")
    assert "The 2D network is right in every row, so that no gain is possible." in sentences(perfect)


def test_without_3d_on_any_reported_row_there_is_no_claim(result):
    bare = [
        replace(of, values=of.values * np.nan) if of.name == "3d" else of
        for of in strong_3d(result, guess_of_2d=True)
    ]
    found = findings(with_predictors(result, bare, covered=np.zeros(240, bool)))
    assert (
        found["primary"]["reason"] == "no reported row has 3D codes" and found["primary"]["comparisons"] == []
    )
    assert found["exploratory"] == []


def test_a_second_2d_network_is_compared_with_the_3d(result):
    second = Predictor(
        "weighted", "control", True, result.predictors[0].values, ({"w": 0.1},), condition="2d:other"
    )
    shown = with_predictors(result, [*(of for of in result.predictors if of.name != "mean"), second])
    (network,) = coded(findings(shown), "second_network")
    gain = figure(shown.figures, "weighted", "log_loss", versus="weighted", versus_condition="2d:other")
    assert network["network"] == "2d:other" and network["value"] == gain.value
    assert any(text.startswith("With 2d:other in place of the 3D, weighted") for text in sentences(shown))


def test_the_best_head_is_named_and_not_the_first(result):
    values = {of.key: of.values for of in result.predictors}
    heads = (
        Predictor("prior", "reference", False, values["2d", "real"]),
        Predictor("gbm", "head", False, values["weighted", "permuted"]),
        Predictor("mlp", "head", False, values["weighted", "real"]),
    )
    shown = with_predictors(result, heads, references=("prior", "gbm"))
    found = findings(shown)
    assert found["primary"] is None and found["effect"] is None
    (best,) = coded(found, "best_head")
    assert best["head"] == "mlp" and [of["versus"] for of in best["comparisons"]] == ["prior", "gbm"]
    tested = shown.figures["p_adjusted"].notna() & shown.figures["repeat"].isna()
    text = f"{tested.sum()} differences: each head relative to prior and gbm, in accuracy, balanced accuracy, macro-F1"
    assert text in View(run_of(shown)).family
    assert sentences(shown)[0].startswith(
        "The head mlp, the best of 2 heads on the reported rows, raises accuracy by "
    )


def test_an_interval_that_ends_at_0_has_no_star():
    assert stars(Figure(0.02, 0.001, 0.04, 0.001, 0.002), "accuracy") == "**"
    assert stars(Figure(0.02, 0.0, 0.04, 0.001, 0.002), "accuracy") == ""
    assert stars(Figure(-0.02, -0.04, 0.0, 0.001, 0.002), "log_loss") == ""


def test_the_family_of_adjusted_p_values_is_described(result):
    second = Predictor(
        "weighted", "control", True, result.predictors[0].values, ({"w": 0.1},), condition="2d:other"
    )
    shown = with_predictors(result, [*result.predictors, second])
    tested = shown.figures["p_adjusted"].notna() & shown.figures["repeat"].isna()
    text = View(run_of(shown)).family
    assert text.startswith(
        f"{tested.sum()} differences: each rule relative to 2d-recalibrated, 2d, 3d, its control"
    )
    assert "itself with a second 2D network in place of the 3D" in text
    assert text.endswith("on all rows and on the rows with 3D codes")


def test_a_leak_leads_the_diagnostics(result):
    leak = (
        "WARNING 59 groups (persons or videos) shared by the reported and the calibration rows: results are too "
        "good."
    )
    protocol = type(result.plan)(**{**vars(result.plan), "sentences": ("Reported: the test split.", leak)})
    found = findings(replace(result, plan=protocol))
    assert [of["text"] for of in found["diagnostics"]] == [leak.removeprefix("WARNING "), "made up"]


def test_the_terminal_has_signed_differences_in_every_case(result):
    """The same form for a claim, a loss, and differences in both directions."""
    worse = changed(
        result,
        versus="2d",
        metric="log_loss",
        predictor="weighted",
        numbers={"value": 0.2, "low": 0.1, "high": 0.3},
    )
    for shown in (result, worse):
        primary = findings(shown)["primary"]
        macros = text_environment().get_template("sentences.j2").module
        lines = macros.evidence_lines(primary).splitlines()
        assert lines[0] == "  weighted: change in log loss (lower is better)"
        compared = [line for line in lines[1:] if " vs. " in line]
        assert compared and all(line.strip()[0] in "+-" for line in compared), lines
    assert "+0.2000 [+0.1000, +0.3000] vs. 2d" in lines[1]
