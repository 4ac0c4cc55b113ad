"""The paragraph for a paper describes what the run did, and nothing that it did not."""

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
from ig3d.learn.report import run_of
from ig3d.learn.report.latex import table_tex
from ig3d.learn.report.page import page_html
from ig3d.learn.report.render import flat, text_environment
from ig3d.learn.report.view import View

OPTIONS = {
    "weighted has a weight per class.": {"rule_options": {"weighted": {"per_class": True}}},
    "combine logits": {"on": "logits"},
    "calibrated by a temperature, fitted": {"calibrate": "temperature"},
    "a temperature and an offset per class": {"calibrate": "bias"},
    "The objective is balanced accuracy, which": {"objective": "balanced"},
    "The objective is log loss.": {"objective": "logloss"},
    "each fit on at most 50 rows": {"calibration_rows": 50},
    "(head linear) on": {"head": "linear"},
    "the set “short” of code blocks": {"blocks": "short"},
}


def paragraph(shown):
    return flat(text_environment().get_template("methods.j2").module.paragraph(View(run_of(shown))))


@pytest.fixture(scope="module")
def result():
    return made()


def with_protocol(result, **changes):
    return replace(result, plan=SimpleNamespace(**{**vars(result.plan), **changes}))


def with_stack(result):
    """A rule stack beside weighted."""
    rules = [
        replace(rule, name=rule.name.replace("mean", "stack"), fits=rule.fits or rule.name == "mean")
        for rule in result.predictors
    ]
    figures = result.figures.replace({"predictor": {"mean": "stack"}})
    return replace(result, predictors=tuple(rules), figures=figures)


@pytest.mark.parametrize("text", OPTIONS)
def test_an_option_is_in_the_paragraph_where_it_was_used_and_nowhere_else(result, text):
    config = FuseConfig(draws=200, primary="weighted", **OPTIONS[text])
    assert text in paragraph(replace(result, config=config))
    assert text not in paragraph(result)


def test_codes_in_the_stack_are_named_with_the_stack_only(result):
    config = FuseConfig(draws=200, rule_options={"stack": {"codes": True}})
    stacked = with_stack(result)
    assert "stack also uses the standardised codes" in paragraph(replace(stacked, config=config))
    assert "standardised codes" not in paragraph(stacked)
    assert "standardised codes" not in paragraph(replace(result, config=config))


def test_rules_rows_head_and_references(result):
    text = paragraph(result)
    assert (
        "The fusion rules are mean (mean of the two probabilities) and weighted (weighted mean of the two"
        in text
    )
    assert "are fitted on val (100 rows), which are not reported" in text
    assert "2d-recalibrated is the 2D network recalibrated by the same penalised regression" in text
    assert "fitted once on the train rows (150 rows with codes)" in text
    assert "The 30 reported rows without 3D codes keep the prediction of the recalibrated 2D network" in text
    assert "the codes are permuted among rows with similar" in text
    bare = [of for of in result.predictors if of.role != "control"]
    assert "permuted" not in paragraph(replace(result, predictors=tuple(bare)))
    assert "without 3D codes keep" not in paragraph(replace(result, covered=np.ones(240, bool)))
    assert not re.search(r"[a-z]\.[A-Z]", text), "sentences are separated"


def test_the_paragraph_names_groups_and_tests():
    rows, grouped = (paragraph(made(groups=groups)) for groups in (None, np.arange(240) // 4))
    assert "bootstrap over 240 rows" in rows and "McNemar" in rows
    assert (
        "Poisson number (mean 1/2) is added" in rows and "200 exchanges, so that no p is below 1/201" in rows
    )
    assert "which weighted maximises directly." in rows and "threshold" not in rows
    assert "bootstrap over 60 groups" in grouped and "McNemar" not in grouped


def test_the_code_blocks_and_their_widths_are_named(result):
    sources = {"3d_regressor": "facemesh", "3d_blocks": "expression 30, pose 3"}
    text = "the set “full” of code blocks of facemesh (columns: expression 30, pose 3), fitted once"
    assert text in paragraph(replace(result, sources=sources))
    assert "the set “full” of code blocks, fitted once" in paragraph(result)


def test_the_rows_of_the_head_follow_the_case(result):
    fits = {
        "heads": [{"fitted_on": {"rows": rows}} for rows in (90, 140, 150)],
        "rules": [{"heads_for_applying": [1]}, {"heads_for_applying": [2]}],
    }
    folded = with_protocol(
        result, head_fitting="nested", fit_name="2 folds of the test split", record=lambda: fits
    )
    text = paragraph(folded)
    assert (
        "cross-fitted in 2 folds of the test split (100 rows), each row being fused with parameters fitted on the "
        "other folds" in text
    )
    grouped = replace(folded, group_names=(np.arange(240) // 4).astype(str))
    assert "(100 rows, in whole groups), each row" in paragraph(grouped)
    assert "fitted in each fold on the other folds" in text and "140 to 150 rows with codes" in text
    ready = paragraph(with_protocol(result, head_fitting="none"))
    assert "with 3D predictions" in ready and "unknown" in ready and "head" not in ready


def test_a_leak_is_on_the_page_in_the_table_and_in_the_paragraph(result):
    leak = "WARNING 59 groups (persons or videos) shared by the reported and the calibration rows: too good."
    shown = with_protocol(result, sentences=("Reported: the test split.", leak))
    text = leak.removeprefix("WARNING ")
    page = page_html([run_of(shown)])
    assert f'<p class="warn">{text}</p>' in page[: page.index("Exploratory: all predictors")]
    assert Page(page).open == []
    tex = table_tex(run_of(shown))
    assert f"% WARNING {text}\n" in tex and "% WARNING made up\n" in tex
    caption = tex[tex.index(r"\caption{") : tex.index(r"\label")]
    assert text in caption and "made up" not in caption
    assert text in paragraph(shown)
    assert "WARNING 59" not in table_tex(run_of(result))


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
    text = page_html([run_of(replace(result, predictors=tuple(rules), figures=figures))])
    fitted = text[text.index("All fitted parameters") :]
    rows = re.findall(r"<tr><th scope=\"row\">([^<]*)</th><td>([^<]*)</td><td>([^<]*)</td>", fitted)
    calibrated = {name: value for name, what, value in rows if what == "3d"}
    text = "temperature (scores are divided by it) 1.5; offset (happy 0.25; sad −0.5; anger 0.25)"
    assert calibrated == dict.fromkeys(("weighted", "weighted (permuted)"), text)
    assert "happy 0.1; sad 0.2; anger 0.3" in fitted and "classes seen" not in fitted
