"""What people get to read: terminal, CSV and LaTeX, from one record; several runs side by side."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from made_up_results import Page, made
from rich.console import Console

from ig3d.errors import RunError
from ig3d.learn.config import FuseConfig
from ig3d.learn.evaluate.figures import figure, figures_of
from ig3d.learn.evaluate.metrics import metric_names
from ig3d.learn.evaluate.predictors import Predictor, find, label_of
from ig3d.learn.report import (
    check_out,
    compare,
    print_comparison,
    print_result,
    read_run,
    read_runs,
    record_of,
    write_report,
    write_result,
)
from ig3d.learn.report.findings import findings_of
from ig3d.learn.report.format import interval
from ig3d.learn.report.latex import escape, table_tex
from ig3d.learn.report.page import page_html, paragraph
from ig3d.learn.report.record import Run, run_of
from ig3d.learn.report.verdict import verdict as findings
from ig3d.learn.report.words import p_value


@pytest.fixture(scope="module")
def result():
    return made()


@pytest.fixture(scope="module")
def va():
    return made("va")


def printed(result, width=80):
    console = Console(width=width, file=io.StringIO(), no_color=True)
    print_result(result, console)
    return console.file.getvalue()


@pytest.mark.parametrize("task", ["classes", "va"])
def test_the_terminal_is_whole_at_80_columns(task, result, va):
    shown = result if task == "classes" else va
    text = printed(shown)
    table = text[text.index("240 reported rows") : text.rindex("\n\n")]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80 and "…" not in table
    for line in (
        "joined by id",
        "Rules fitted on val",
        "3d (with 3D)",
        "conditional on the trained networks",
    ):
        assert line in text
    metric, scale = ("accuracy", 100) if task == "classes" else ("rmse_joint", 1)
    gain = figure(shown.figures, "weighted", metric, versus="2d-recalibrated")
    digits = 1 if scale == 100 else 4
    value, low, high = (f"{scale * end:+.{digits}f}" for end in gain[:3])
    assert f"{value} [{low}, {high}]**" in table
    assert "weighted-permuted" not in table and "The control (codes permuted) does not gain" in text


def test_a_terminal_that_is_too_narrow_loses_no_figure(result):
    narrow, wide = printed(result, 30), printed(result, 120)
    pattern = r"[+-][\d.]+ \[[^]]*\]|\d\d\.\d\d"
    assert re.findall(pattern, narrow) == re.findall(pattern, wide)


def test_what_is_said_follows_from_the_figures(result):
    record = record_of(result)
    primary, effect, *_, control, complement = findings(record)
    assert primary.startswith(
        "Primary: the 3D codes carry information that the 2D network does not have. Change in log loss"
    )
    assert re.match(
        r"Effect size: weighted \+\d+\.\d \[\+\d.* points of accuracy and .* macro-F1 over 2d", effect
    )
    assert "as it should be" in control
    right = {
        rule.name: rule.values[result.covered].argmax(axis=1) == result.truth[result.covered]
        for rule in result.predictors
        if rule.name in ("2d", "3d")
    }
    oracle = np.mean(right["2d"] | right["3d"])
    assert f"would reach {100 * oracle:.1f} %" in complement
    nothing = findings(record_of(made(gain=0.0, seed=3)))
    assert nothing[0].startswith("Primary: it is not shown that the 3D codes carry information")
    assert nothing[1].startswith("Effect size: no gain in accuracy can be shown: weighted ")


def test_a_p_is_on_the_side_of_the_level_that_it_says():
    told = {0.0502: ".0502", 0.04996: ".04996", 0.05: ".05", 0.0099999: ".0099999", 0.0010004: ".0010004"}
    told |= {0.034: ".034", 0.5: ".5", 0.123: ".12", 0.9999: "1", 1.0: "1", 5e-5: "< .0001"}
    assert {p: p_value(p) for p in told} == told


def test_a_head_gains_only_where_it_is_better_than_chance():
    shown = made(seed=1)
    record = json.loads(json.dumps(record_of(shown)))
    for name in ("mean", "weighted"):
        record["rules"][name]["kind"] = "head"
        figures = record["results"][name]["all"]["accuracy"]
        figures["minus_2d"].update(value=0.02, low=0.0, high=0.05, p=1.0, p_adjusted=1.0)
    (said, *_) = findings(record)
    assert " gains +" in said and "over 2d-recalibrated (adjusted p " in said
    assert ", but is not better than 2d beyond chance: +2.0 [+0.0, +5.0] over 2d (adjusted p 1)" in said


def test_a_control_that_gains_is_said():
    shown = made(seed=1)
    figures = shown.figures.copy()
    control = (
        (figures["condition"] == "permuted") & (figures["metric"] == "log_loss") & (figures["versus"] != "")
    )
    figures.loc[control, ["value", "low", "high"]] = (-0.05, -0.08, -0.02)
    assert any(
        "What they gain is not from the codes" in line
        for line in findings(record_of(replace(shown, figures=figures)))
    )


def with_rules(shown, rules):
    """A result over other rules, its figures measured anew."""
    figures = figures_of(
        rules, shown.truth, shown.covered, shown.groups, task=shown.task, classes=shown.classes, draws=200, seed=0,
        family=metric_names(shown.task),
    )  # fmt: skip
    names = [rule.name for rule in rules if rule.role == "rule" and rule.name != "best"]
    config = FuseConfig(draws=200, primary=names[-1]) if names else shown.config
    return replace(shown, predictors=tuple(rules), figures=figures, config=config)


def without_control(shown):
    return with_rules(shown, [rule for rule in shown.predictors if rule.role != "control"])


def with_equal_control(shown):
    """Permuted codes do just as well: what the rule gains is not from the codes."""
    rules = [rule for rule in shown.predictors if rule.name != "mean"]
    weighted = find(rules, "weighted")
    return with_rules(
        shown, [replace(rule, values=weighted.values) if rule.role == "control" else rule for rule in rules]
    )


@pytest.mark.parametrize("task", ["classes", "va"])
def test_what_permuted_codes_gain_as_well_is_not_from_the_3d(task):
    record = record_of(with_equal_control(made(task)))
    primary = findings_of(record)["primary"]
    assert not primary["claim"] and primary["versus"] == "weighted-permuted"
    assert [of["passes"] for of in primary["comparisons"]] == [True, True, False]
    said = findings(record)
    assert said[0].startswith("Primary: it is not shown ") and "against itself with permuted codes" in said[0]
    assert any("that this is from the 3D is not shown" in line for line in said)


def test_without_a_control_there_is_no_claim(result):
    found = findings_of(record_of(without_control(result)))["primary"]
    assert not found["claim"] and found["reason"] == "no control was run"
    assert all(of["passes"] for of in found["comparisons"])


def test_best_is_the_effect_size_where_it_was_run(result):
    rng = np.random.default_rng(5)
    chosen = Predictor("best", "rule", True, rng.normal(size=result.predictors[0].values.shape))
    record = record_of(with_rules(result, [*result.predictors, chosen]))
    said = findings(record)
    assert findings_of(record)["effect"]["rule"] == "best"
    assert "informative in log loss, but accuracy is worse: best -" in said[1]


def test_the_3d_alone_and_the_chance_of_the_2d_network_are_told():
    shown = made()
    truth = np.eye(3)[shown.truth]
    rng = np.random.default_rng(1)
    guess = np.log(rng.dirichlet(np.ones(3), len(truth)))
    strong = np.log(np.clip(0.9 * truth + 0.05, 1e-6, 1))
    three = np.where(shown.covered[:, None], strong, np.nan)
    rules = (
        Predictor("2d", "reference", False, guess),
        Predictor("2d-recalibrated", "reference", True, guess, ({"penalty": 0.1},)),
        Predictor("3d", "reference", False, three),
        Predictor("stack", "rule", True, np.where(shown.covered[:, None], strong, guess)),
        Predictor("stack", "control", True, guess, condition="permuted"),
    )
    record = record_of(with_rules(shown, rules))
    said = findings(record)
    assert record["references"] == ["2d-recalibrated", "2d"]
    assert "minus_3d" not in record["results"]["stack"]["all"]["accuracy"]
    assert record["results"]["stack"]["covered"]["accuracy"]["minus_3d"]["value"] == 0
    assert (
        "stack is not better than the 3D alone beyond chance: +0.0" in said[2]
        and "on the rows with 3D" in said[2]
    )
    assert "The 2D network cannot be told from chance on 240 rows: " in said[3]
    half_wrong = np.where((np.arange(len(truth)) % 2)[:, None], three, np.roll(three, 1, axis=1))
    weaker = [replace(rule, values=half_wrong) if rule.name == "3d" else rule for rule in rules]
    assert findings(record_of(with_rules(shown, weaker)))[2].startswith(
        "stack is better than the 3D alone: +"
    )
    perfect = [
        replace(rule, values=strong) if rule.role != "x" and rule.name != "3d" else rule for rule in rules
    ]
    assert any("right in every row" in line for line in findings(record_of(with_rules(shown, perfect))))
    bare = replace(shown, covered=np.zeros(len(truth), bool))
    bare = with_rules(
        bare, [replace(rule, values=three * np.nan) if rule.name == "3d" else rule for rule in rules]
    )
    (line,) = findings(record_of(bare))
    assert line.startswith("Primary: no claim ") and line.endswith(": no reported row has 3D.")


def test_a_second_2d_network_is_compared_with_the_3d(result):
    second = Predictor(
        "weighted", "control", True, result.predictors[0].values, ({"w": 0.1},), condition="2d:other"
    )
    record = record_of(with_rules(result, [*[r for r in result.predictors if r.name != "mean"], second]))
    figure = record["results"]["weighted"]["all"]["log_loss"]["minus_weighted+other"]
    assert any(
        "weighted minus weighted+other" in line and f"{figure['value']:+.4f} [" in line
        for line in findings(record)
    )


def test_the_best_head_is_named_and_not_the_first(result):
    values = {label_of(*rule.key): rule.values for rule in result.predictors}
    rules = (
        Predictor("prior", "reference", False, values["2d"]),
        Predictor("gbm", "head", False, values["weighted (permuted)"]),
        Predictor("mlp", "head", False, values["weighted"]),
    )
    figures = figures_of(
        rules,
        result.truth,
        result.covered,
        None,
        task="classes",
        draws=200,
        seed=0,
        references=("prior", "gbm"),
        family=metric_names("classes"),
    )
    said = findings(record_of(replace(result, predictors=rules, figures=figures)))
    assert said[0].startswith("mlp, the best of 2 heads on the reported rows, gains +")
    assert " over prior " in said[0] and " over gbm " in said[0]
    assert "mlp is right on" in said[1]


def test_the_record_is_read_back_and_the_same_command_gives_the_same_bytes(result, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_result(result, tmp_path / name / "run", command="ig3d fuse --2d-logits 'a b.npz'")
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "run").iterdir()}
        for name in ("one", "other")
    )
    assert first == second
    assert sorted(first) == [
        "confusion.csv",
        "figures.csv",
        "findings.json",
        "predictions.csv",
        "predictions.npz",
        "record.json",
        "reliability.csv",
        "report.html",
        "table.tex",
    ]
    run = read_run(tmp_path / "one" / "run")
    assert run.name == "run" and run.record == record_of(result, command="ig3d fuse --2d-logits 'a b.npz'")
    assert run.record["references"] == ["2d-recalibrated", "2d"]
    assert run.record["results"]["3d"]["covered"]["complementarity"]["2d"]["oracle"]["value"] > 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected the folder of a run with record.json in it, found none"),
        ("{", "a file that is none or damaged"),
        ("[1]", "got another file"),
        ('{"format": "ig3d-run", "format_version": 9}', "version 4, got ig3d-run version 9"),
        ('{"format": "ig3d-run", "format_version": 4}', "got none of assumptions"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "record.json").write_text(text)
    with pytest.raises(RunError, match=message):
        read_run(tmp_path)


def test_a_record_that_a_hand_changed_is_one_line(result, tmp_path, ig3d):
    write_result(result, tmp_path / "run")
    whole = json.loads((tmp_path / "run" / "record.json").read_text())

    figures = (tmp_path / "run" / "figures.csv").read_text()

    def said(change, table=figures):
        record = json.loads(json.dumps(whole))
        change(record)
        (tmp_path / "run" / "record.json").write_text(json.dumps(record))
        (tmp_path / "run" / "figures.csv").write_text(table)
        ended = ig3d("report", tmp_path / "run")
        assert ended.returncode == 1 and ended.stderr.count("\n") == 1
        return ended.stderr

    lines = figures.splitlines(keepends=True)
    own = next(line for line in lines if line.startswith("mean,rule,real,all,accuracy,,,,"))
    text = said(lambda of: None, figures.replace(own, own.replace("accuracy,,,,", "accuracy,,,,high", 1)))
    assert "could not convert string to float" in text and "make the run again" in text
    assert "no accuracy of mean (real), all rows" in said(lambda of: None, figures.replace(own, ""))
    assert "two lines of one figure" in said(lambda of: None, figures + own)
    gone = "figures of predictors that the record does not have"
    assert gone in said(lambda of: of["predictors"].pop(3))
    assert "protocol with case" in said(lambda of: of["protocol"].pop("rows_covered"))
    assert "protocol with case" in said(lambda of: of.update(protocol="none"))
    assert "among the predictors" in said(lambda of: of["references"].append("none"))


def test_only_results_of_ours_are_replaced(result, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    for write in (check_out, lambda out: write_report([run_of(result, name="a", folder=tmp_path)], out)):
        with pytest.raises(RunError, match=r"got report.html of something else"):
            write(tmp_path)
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 5 %", r"a\_b \& 5 \%"),
        ("{\\x}", r"\{\textbackslash{}x\}"),
        ("a\n\tb", "a b"),
        ("--out", "-{}-out"),
        ("a---b", "a-{}-{}-b"),
        ("日", "?"),
        ("é", "é"),
    ],
)
def test_escapes_for_latex(text, expected):
    assert escape(text) == expected


@pytest.mark.parametrize("task", ["classes", "va"])
def test_latex_shows_the_control_that_a_claim_rests_on(task, result, va):
    shown = result if task == "classes" else va
    record = record_of(shown)
    tex = table_tex(record)
    (line,) = [line for line in tex.splitlines() if line.startswith(r"\texttt{weighted} ")]
    (free,) = [line for line in tex.splitlines() if line.startswith(r"\texttt{mean} ")]
    metric, scale, digits = ("accuracy", 100, 1) if task == "classes" else ("rmse_joint", 1, 4)
    gain = figure(shown.figures, "weighted", metric, versus="weighted", versus_condition="permuted")
    ends = [f"{scale * end:+.{digits}f}".replace("0.", ".", digits == 4) for end in gain[:3]]
    value, low, high = (f"${end[0]}${end[1:]}" for end in ends)
    assert line.endswith(rf"{value} [{low}, {high}]\textsuperscript{{**}} \\")
    assert "\\emph{Control}" in tex
    assert free.endswith(r"& -- \\"), "no control was run of it"
    bare = table_tex(record_of(without_control(shown)))
    assert "ermuted" not in bare


@pytest.mark.parametrize("task", ["classes", "va"])
def test_the_page_shows_the_control_that_a_claim_rests_on(task, result, va):
    shown = result if task == "classes" else va
    metric = "accuracy" if task == "classes" else "rmse_joint"
    gain = figure(shown.figures, "weighted", metric, versus="weighted", versus_condition="permuted")
    shown_gain = interval(gain, metric).replace("-", "−")
    words = [
        word.strip() for word in Page(page_html([Run("a", "a", record_of(shown), {})])).text if word.strip()
    ]
    first = words.index("to control")
    row = words[words.index("weighted", first) :][: 12 if task == "classes" else 8]
    assert all(part in " ".join(row) for part in shown_gain.split(" ", 1))
    assert "to control" not in page_html([Run("a", "a", record_of(without_control(shown)), {})])


def test_the_latex_table_is_balanced_and_marks_the_best(result):
    tex = table_tex(record_of(result))
    body = tex[tex.index(r"\toprule") : tex.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    columns = re.search(r"begin\{tabular\}\{(\w+)\}", tex).group(1)
    assert {line.count("&") for line in lines} == {len(columns) - 1}
    assert tex.count("{") == tex.count("}") and not re.search(r"(?<!\\)[_%](?!\s*needs|\n)", body)
    for column, metric in enumerate(("accuracy", "balanced_accuracy", "macro_f1"), 1):
        usable = ("2d", "2d-recalibrated", "mean", "weighted")
        best = max(f"{100 * figure(result.figures, name, metric).value:.2f}" for name in usable)
        bold = {line.split("&")[column].strip() for line in lines if "textbf" in line.split("&")[column]}
        assert bold == {rf"\textbf{{{best}}}"}
    assert r"\textsuperscript{***}" in body or r"\textsuperscript{**}" in body
    # every row has as many columns as there are, spans counted whole
    for line in lines:
        assert line.count("&") == len(columns) - 1
    spanned = [int(of) for of in re.findall(r"multicolumn\{(\d)\}", body)]
    above = next(line for line in body.splitlines() if "multicolumn" in line)
    assert above.split(r"\\")[0].count("&") == len(columns) - 1 - sum(of - 1 for of in spanned)
    assert "240 rows (the test split)" in tex and r"\textsuperscript{\ddag}" in tex


def test_what_was_fitted_on_reported_rows_is_marked_everywhere():
    shown = made(marked=True)
    record = record_of(shown)
    assert "weighted†" in printed(shown) and "mean†" not in printed(shown)
    alone = with_rules(shown, [rule for rule in shown.predictors if rule.name != "mean"])
    assert "weighted was fitted on the reported rows" in findings(record_of(alone))[0]
    assert not [line for line in table_tex(record).splitlines() if "dag}" in line and "textbf" in line]
    assert r"\texttt{weighted}\textsuperscript{\dag}" in table_tex(record)
    assert "optimistic" in page_html([Run("a", "a", record, {})]) and "optimistic" in paragraph(record)


def test_the_paragraph_says_groups_and_tests():
    rows, grouped = (paragraph(record_of(made(groups=groups))) for groups in (None, np.arange(240) // 4))
    assert "bootstrap over 240 rows" in rows and "McNemar" in rows
    assert "bootstrap over 60 groups" in grouped and "McNemar" not in grouped


def test_runs_on_the_same_rows_are_paired(tmp_path):
    groups = np.arange(240) // 2
    for name, gain, seed in (("weak", 0.0, 1), ("strong", 2.0, 2)):
        write_result(made(gain=gain, seed=seed, groups=groups), tmp_path / name)
    runs = read_runs([tmp_path / "weak", tmp_path / "strong"])
    comparison = compare(runs)
    assert comparison.first == "weak" and not comparison.remarks
    lines = comparison.differences[comparison.differences["metric"] == "accuracy"].set_index("predictor")
    assert set(lines.index) == {"2d", "2d-recalibrated", "mean", "weighted"}
    expected = (
        figure(runs[1].figures, "mean", "accuracy").value - figure(runs[0].figures, "mean", "accuracy").value
    )
    assert lines.loc["mean", "value"] == pytest.approx(expected, abs=1e-12)
    assert lines.loc["mean", "low"] > 0 and lines.loc["mean", "p_adjusted"] < 0.05
    assert lines.loc["2d", "p"] > 0.05
    console = Console(width=80, file=io.StringIO(), no_color=True)
    print_comparison(comparison, console)
    text = console.file.getvalue()
    assert "Paired differences to weak" in text and max(map(len, text.splitlines()[:-1])) <= 80
    written = {path.name: path for path in write_report(runs, tmp_path / "both")}
    assert sorted(written) == ["differences.csv", "figures.csv", "report.html", "table.tex"]
    lines_of_mean = lines.loc["mean", "value"]
    lines = list(csv.DictReader(written["figures.csv"].read_text().splitlines()))
    assert {line["run"] for line in lines} == {"weak", "strong"}
    (line,) = [
        line
        for line in csv.DictReader(written["differences.csv"].read_text().splitlines())
        if (line["predictor"], line["metric"]) == ("mean", "accuracy")
    ]
    assert float(line["value"]) == lines_of_mean
    assert Page(written["report.html"].read_text()).open == []
    assert written["table.tex"].read_text().count(r"\begin{table*}") == 3
    write_report(runs, tmp_path / "both")  # its own files may be replaced


def test_equal_runs_are_said_to_be_equal(result, tmp_path):
    write_result(result, tmp_path / "run")
    runs = read_runs([tmp_path / "run", tmp_path / "run"])
    assert runs[1].name == f"{runs[0].name} (2)"
    comparison = compare(runs)
    assert not len(comparison.differences) and len(comparison.table["mean"]) == 2
    assert "predict the same by every rule that both have" in comparison.remarks[0]


@pytest.mark.parametrize("task", ["classes", "va"])
def test_predictions_of_another_run_are_refused(task, result, va, tmp_path, ig3d):
    write_result(result if task == "classes" else va, tmp_path / "run")
    write_result(made(task, seed=5), tmp_path / "other")
    file = tmp_path / "run" / "predictions.npz"
    with np.load(file) as read:
        arrays = dict(read)
    kept = arrays["predictor"] != "mean"
    rows = {name: arrays[name][:-3] for name in ("ids", "truth", "covered")}
    lines = ("predictor", "role", "condition", "trained", "fits", "repeat", "values")
    metric = "accuracy" if task == "classes" else "rmse_joint"
    for change, message in (
        (rows | {"values": arrays["values"][:, :-3]}, "it has 237 rows in place of 240"),
        ({name: arrays[name][kept] for name in lines}, "0 of 1 repeats of mean"),
        (None, f"{metric} "),
    ):
        if change is None:
            file.write_bytes((tmp_path / "other" / "predictions.npz").read_bytes())
        else:
            np.savez(file, **arrays | change)
        with pytest.raises(RunError, match=rf"run: predictions.npz is not that of record.json: .*{message}"):
            compare(read_runs([tmp_path / "other", tmp_path / "run"]))
    file.unlink()
    ended = ig3d("report", tmp_path / "run")
    assert ended.returncode == 0 and "predictions.npz: not there" in ended.stderr


def test_runs_on_other_rows_or_of_another_task_are_not_paired(tmp_path):
    write_result(made(), tmp_path / "a" / "run")
    write_result(made(n=200), tmp_path / "b" / "run")
    write_result(made("va"), tmp_path / "va")
    runs = read_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert runs[0].name != runs[1].name
    comparison = compare(runs)
    assert not len(comparison.differences)
    assert "they report 240 and 200 rows, 200 of them the same" in comparison.remarks[0]
    with pytest.raises(RunError, match="expected runs of one task, got classes and va"):
        compare(read_runs([tmp_path / "a" / "run", tmp_path / "va"]))
    (tmp_path / "b" / "run" / "predictions.npz").unlink()
    with pytest.raises(RunError, match="predictions of a run are expected"):
        compare(runs)


def test_the_report_command(ig3d, result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_result(result, tmp_path / "run", command="ig3d fuse")
    ended = ig3d("report", "run", "--out", "page")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.rstrip().endswith("page: figures.csv, report.html, table.tex")
    assert "2d-recalibrated" in ended.stdout and (tmp_path / "page" / "report.html").exists()
    assert ig3d("report", "run", "run").returncode == 0
    failed = ig3d("report", "nowhere")
    assert failed.returncode == 1 and "expected the folder of a run" in failed.stderr


def test_without_jinja_everything_else_is_written(result, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    names = [path.name for path in write_result(result, tmp_path / "run")]
    assert "report.html" not in names and "table.tex" in names
    assert "no report.html: report: needs the package 'jinja2'" in capsys.readouterr().err


def test_every_comparison_is_needed_for_a_claim(result):
    record = json.loads(json.dumps(record_of(result)))
    assert findings_of(record)["primary"]["claim"]
    figures = record["results"]["weighted"]["all"]["log_loss"]
    for key, name in (
        ("minus_2d", "2d"),
        ("minus_2d_recalibrated", "2d-recalibrated"),
        ("minus_control", "weighted-permuted"),
    ):
        for change in (
            {"p": 0.06},
            {"high": 0.001},
            {"value": -1e-9, "low": -2e-9, "high": -1e-10},
            {"p": None},
        ):
            kept = dict(figures[key])
            figures[key].update(change)
            found = findings_of(record)["primary"]
            assert not found["claim"] and found["versus"] == name
            figures[key] = kept
    assert findings_of(record)["primary"]["claim"]


def test_a_control_gains_only_where_its_intervals_to_all_references_do(result):
    record = json.loads(json.dumps(record_of(result)))
    figures = record["results"]["weighted-permuted"]["all"]["log_loss"]
    figures["minus_2d"].update(value=-0.01, low=-0.02, high=-0.005)
    figures["minus_2d_recalibrated"].update(value=-0.03, low=-0.07, high=0.01)
    assert any("does not gain" in line for line in findings(record))
    figures["minus_2d_recalibrated"].update(high=-0.01)
    assert any("What they gain is not from the codes" in line for line in findings(record))
