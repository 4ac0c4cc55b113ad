"""The paragraph for a paper says what the run did, and nothing that it did not."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from made_up_results import Page, made

from ig3d.learn.config import FuseConfig
from ig3d.learn.evaluate.predictors import Predictor
from ig3d.learn.report import record_of
from ig3d.learn.report.latex import table_tex
from ig3d.learn.report.methods import paragraph
from ig3d.learn.report.page import page_html
from ig3d.learn.report.record import Run
from ig3d.learn.report.verdict import verdict

OPTIONS = {
    "a weight per class": {"weights": "per-class"},
    "work on logits": {"on": "logits"},
    "calibrated by a temperature, fitted": {"calibrate": "temperature"},
    "a temperature and an offset per class": {"calibrate": "bias"},
    "for balanced accuracy (weighted by itself": {"objective": "balanced"},
    "for log loss": {"objective": "logloss"},
    "at most 50 of a fit": {"calibration_rows": 50},
    "the head linear on": {"head": "linear"},
    "the short set of code blocks": {"blocks": "short"},
}


@pytest.fixture(scope="module")
def result():
    return made()


def with_protocol(result, **changes):
    return replace(result, protocol=SimpleNamespace(**{**vars(result.protocol), **changes}))


def with_stack(result):
    """A rule stack beside weighted."""
    rules = [
        replace(rule, name=rule.name.replace("mean", "stack"), fits=rule.fits or rule.name == "mean")
        for rule in result.predictors
    ]
    figures = result.figures.replace({"predictor": {"mean": "stack"}})
    return replace(result, predictors=tuple(rules), figures=figures)


@pytest.mark.parametrize("said", OPTIONS)
def test_an_option_is_in_the_paragraph_where_it_was_used_and_nowhere_else(result, said):
    stacked = with_stack(result) if "balanced" in said else result
    config = FuseConfig(draws=200, **OPTIONS[said])
    assert said in paragraph(record_of(replace(stacked, config=config)))
    assert said not in paragraph(record_of(stacked))


def test_codes_in_the_stack_are_said_of_the_stack_only(result):
    config = FuseConfig(draws=200, stack_codes=True)
    stacked = with_stack(result)
    assert "stack (which sees the standardised codes" in paragraph(record_of(replace(stacked, config=config)))
    assert "standardised codes" not in paragraph(record_of(stacked))
    assert "standardised codes" not in paragraph(record_of(replace(result, config=config)))


def test_rules_rows_head_and_references_are_said_as_they_were(result):
    text = paragraph(record_of(result))
    assert "Fusion rules are mean and weighted; mean fits nothing." in text
    assert "fitted on val (100 rows), never on a row" in text
    assert "2d-recalibrated is a stack with the 3D columns left out, fitted on the same rows; 2d is" in text
    assert "fitted once, on 150 train rows with codes" in text
    assert (
        "The 30 reported rows without 3D codes take the 2D network's prediction, recalibrated where" in text
    )
    assert "every rule is repeated with the rows of the codes permuted" in text
    bare = [rule for rule in result.predictors if rule.role != "control"]
    assert "permuted" not in paragraph(record_of(replace(result, predictors=tuple(bare))))
    whole = replace(result, covered=np.ones(240, bool))
    assert "without 3D codes take" not in paragraph(record_of(whole))


def test_where_the_head_learnt_follows_the_case(result):
    fits = {
        "heads": [{"fitted_on": {"rows": rows}} for rows in (90, 140, 150)],
        "rules": [{"heads_here": [1]}, {"heads_here": [2]}],
    }
    folded = with_protocol(result, case="nested", fit_name="2 folds of the test split", record=lambda: fits)
    text = paragraph(record_of(folded))
    assert "in 2 folds of the test split (100 rows), each row fused by what the other folds fitted" in text
    grouped = replace(folded, group_names=(np.arange(240) // 4).astype(str))
    assert "(100 rows), which keep groups whole, each row" in paragraph(record_of(grouped))
    assert "fitted in each fold on the 140 to 150 rows with codes of the other folds" in text
    ready = paragraph(record_of(with_protocol(result, case="ready")))
    assert "with 3D predictions" in ready and "not known here" in ready and "head" not in ready


def test_a_leak_is_said_on_top_of_the_page_in_the_table_and_in_the_paragraph(result):
    leak = "WARNING 59 groups of the reported rows also stand among the calibration rows: figures are likely too good."
    record = record_of(with_protocol(result, sentences=("Reported: the test split.", leak)))
    page = page_html([Run("a", "a", record, {})])
    assert f'<p class="warn">{leak}</p>' in page[: page.index("Exploratory: every rule")]
    assert Page(page).open == []
    tex = table_tex(record)
    assert f"% {leak}\n" in tex and "\n% WARNING made up\n" in tex
    caption = tex[tex.index(r"\caption{") : tex.index(r"\label")]
    assert leak.removeprefix("WARNING ") in caption and "made up" not in caption
    assert leak.removeprefix("WARNING ") in paragraph(record)
    assert "% WARNING 59" not in table_tex(record_of(result))


def test_an_objective_that_is_not_the_metric_of_the_effect_is_said(result):
    def said(shown, **choices):
        config = replace(shown.config, **choices)
        return [
            line for line in verdict(record_of(replace(shown, config=config))) if "were fitted for" in line
        ]

    assert said(result) == [] and said(result, objective="accuracy") == []
    (line,) = said(result, objective="balanced")
    assert line.endswith("Rules were fitted for balanced accuracy.")
    assert said(made("va")) == said(made("va"), objective="ccc") == []
    fixed = replace(result, predictors=tuple(replace(of, fits=False) for of in result.predictors))
    assert said(fixed, objective="balanced") == []


def test_fitted_offsets_are_named_and_what_a_rule_does_not_see_is_left_out(result):
    one = {"temperature": 1.5, "offset": [0.25, -0.5, 0.25]}
    rules = [
        replace(rule, fitted=({"penalty": 0.1, "classes_seen": [0, 1, 2], "2d": one, "3d": one},))
        if rule.name in ("2d-recalibrated", "weighted")
        else rule
        for rule in result.predictors
    ]
    rules.append(
        Predictor(
            "weighted",
            "control",
            True,
            result.predictors[0].values,
            ({"w": [0.1, 0.2, 0.3]},),
            condition="2d:x",
        )
    )
    control = result.figures[result.figures["condition"] == "permuted"].assign(condition="2d:x")
    figures = pandas.concat([result.figures, control], ignore_index=True)
    text = page_html(
        [Run("a", "a", record_of(replace(result, predictors=tuple(rules), figures=figures)), {})]
    )
    fitted = text[text.index("All fitted values") :]
    rows = re.findall(r"<tr><th scope=\"row\">([^<]*)</th><td>([^<]*)</td><td>([^<]*)</td>", fitted)
    calibrated = {name: value for name, what, value in rows if what == "3d"}
    assert calibrated == {"weighted": "temperature 1.5; offset (happy 0.25; sad -0.5; anger 0.25)"}
    assert "happy 0.1; sad 0.2; anger 0.3" in fitted and "classes seen" not in fitted
