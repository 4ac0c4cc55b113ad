"""The page and the pictures of a run: whole, escaped, each with its own figures."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from made_up_results import HOSTILE, Page, made

from ig3d.learn.evaluate.figures import figure
from ig3d.learn.report import check_out, run_of, write_result
from ig3d.learn.report.latex import table_tex
from ig3d.learn.report.page import page_html
from ig3d.learn.report.plots import changes_svg, plot_result
from ig3d.learn.report.view import View


@pytest.fixture(scope="module")
def result():
    return made()


@pytest.fixture(scope="module")
def va():
    return made("va")


def test_the_page_is_one_whole_file_and_shows_the_figures(result):
    run = run_of(result, name="raf", command="ig3d fuse --2d-logits two.npz")
    page = Page(page_html([run]))
    text = " ".join("".join(page.text).split())
    assert page.open == [] and "script" not in page.tags and page.tags.count("svg") == 8
    assert not [
        value
        for name, value in page.attributes
        if name in ("src", "srcset") or (name == "href" and value[:1] != "#")
    ]
    assert not re.search(r"@import|url\((?!#)", "".join(page.text))
    assert "ig3d fuse --2d-logits two.npz" in text and "made up" in text
    assert f"{100 * figure(result.figures, 'mean', 'accuracy').value:.2f}" in text
    assert "0.3 (0.25 to 0.35 in 2 folds)" in text
    counts = run.tables["confusion.csv"]
    first = counts[(counts["predictor"] == "2d-recalibrated") & (counts["rows"] == "all")]["count"].iloc[0]
    assert ("title", f"{first:.4g} samples") in page.attributes


def test_the_answer_comes_first_then_the_effect_then_the_table_and_pictures(result):
    text = page_html([run_of(result)])
    order = [
        text.index(of)
        for of in (
            "<h2>Primary comparison", "<h2>Effect size", "<h2>Exploratory",
            "<h2>Differences relative to the references", "<h2>3D codes alone, and controls",
            "<h2>Confusion matrices: 2d-recalibrated and weighted",
            "<h2>Reliability: 2d-recalibrated and weighted", "<h2>Methods",
        )
    ]  # fmt: skip
    assert order == sorted(order)


def test_the_page_of_valence_and_arousal(va):
    page = Page(page_html([run_of(va)]))
    assert page.open == [] and page.tags.count("svg") == 7 and "Gain per dimension" in "".join(page.text)


def test_hostile_names_are_text_and_nothing_else():
    shown = made(classes=(HOSTILE, "sad"))
    shown = replace(shown, notes=(HOSTILE,), sources={HOSTILE: HOSTILE})
    run = run_of(shown, name=HOSTILE, command=HOSTILE)
    page = Page(page_html([run]))
    assert "script" not in page.tags and page.open == []
    assert sum(HOSTILE in text for text in page.text) >= 4
    run.record["protocol"] |= {"reported": HOSTILE, "fitted_on": HOSTILE}
    tex = table_tex(run)
    assert "\\input" not in tex and r"\textbackslash{}input\{/etc/passwd\}" in tex


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_plots_of_the_same_result_are_the_same_bytes(result, tmp_path, suffix):
    for name in ("a", "b"):
        plot_result(result, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("task", ["classes", "va"])
def test_each_panel_of_the_plot_shows_its_own_figures(task, result, va, tmp_path):
    shown = result if task == "classes" else va
    plot_result(shown, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    metrics = ("accuracy", "macro_f1") if task == "classes" else ("rmse_joint", "ccc_joint")
    printed = re.findall(r"<text[^>]*>(\d\d\.\d\d|-?\d\.\d{4})</text>", text)
    above = [("2d", "real"), ("mean", "real"), ("weighted", "real")]
    below = [("3d", "real"), ("weighted", "permuted")]
    expected = [
        f"{100 * value:.2f}" if task == "classes" else f"{value:.4f}"
        for keys in (above, below)
        for metric in metrics
        for name, condition in keys
        for value in [
            figure(
                shown.figures, name, metric, condition=condition, rows="covered" if name == "3d" else "all"
            ).value
        ]
    ]
    assert printed == expected
    assert re.search(r"<text[^>]*>weighted</text>", text) and re.search(r"<text[^>]*>3d‡</text>", text)


def rows_of(page):
    """The first table of a page whose lines are rules: names, then cells, as text."""
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", body, re.S)
    width = len(re.findall(r"<t[hd]", body.split("</tr>")[0]))
    texts = [re.sub(r"<[^>]+>", "", cell) for cell in cells]
    return [texts[start : start + width] for start in range(0, len(texts), width)]


def test_the_table_of_the_page_leaves_no_row_out(result):
    page = page_html([run_of(result, name="raf")])
    rows = rows_of(page[page.index("Exploratory: all predictors") :])
    names = ["2d", "2d-recalibrated", "3d‡", "mean", "weighted", "weighted (permuted)"]
    assert [row[0] for row in rows] == names
    assert "‡ on rows with 3D codes only" in page
    gain = figure(result.figures, "weighted", "accuracy", versus="2d-recalibrated")
    assert rows[4][1].startswith(f"{100 * gain.value:+.1f}**[".replace("-", "−"))
    own = figure(result.figures, "weighted", "accuracy")
    assert rows[4][4] == f"{100 * own.value:.2f}{100 * own.low:.2f}–{100 * own.high:.2f}"


def test_gains_per_class_are_to_every_reference(result, va):
    (picture,) = changes_svg(View(run_of(result)), "weighted")
    assert "vs. 2d-recalibrated" in picture and "vs. 2d<" in picture
    ccc, rmse = changes_svg(View(run_of(va)), "weighted")
    assert "joint CCC" in ccc and "RMSE" not in ccc and "joint RMSE" in rmse and "CCC" not in rmse


def test_an_earlier_run_that_is_replaced_is_said(result, tmp_path, capsys):
    write_result(result, tmp_path / "run")
    check_out(tmp_path / "run")  # an error may still follow: nothing is replaced yet
    assert capsys.readouterr().err == ""
    write_result(result, tmp_path / "run")
    assert "held an earlier run, which this one replaces" in capsys.readouterr().err
