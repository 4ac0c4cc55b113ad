"""Input that a fusion cannot use, or only just: one clear line, or a result that is sound and marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_fusion import FAST, make_table

from ig3d.errors import ProtocolError, UsageError
from ig3d.features.content import hash_ids
from ig3d.learn.config import DEFAULT_RULES
from ig3d.learn.evaluate.figures import figure
from ig3d.learn.fuse import FuseConfig, fuse_predictions
from ig3d.learn.model import parameters_hash
from ig3d.learn.report.latex import table_tex
from ig3d.learn.report.page import page_html
from ig3d.learn.report.record import run_of
from ig3d.learn.rules import RULES
from ig3d.learn.train import HeadsConfig, train_heads

QUICK = replace(FAST, rules=("mean", "weighted", "stack", "boost", "gate"))
EVERY = replace(QUICK, rules=DEFAULT_RULES)


def figures_of(result):
    """Every value of every rule over all rows it predicts."""
    of = result.figures
    metrics = ("accuracy", "log_loss") if result.task == "classes" else ("rmse_joint",)
    return of["value"][(of["rows"] == "all") & (of["versus"] == "") & of["metric"].isin(metrics)].to_numpy()


@pytest.mark.parametrize("task", ["classes", "va"])
def test_constant_2d_predictions_are_marked(task):
    table = make_table(120, task=task)
    result = fuse_predictions(replace(table, two_d=table.two_d * 0), EVERY)
    assert any("the 2d predictions are the same for every row" in note for note in result.lines)
    assert np.isfinite(figures_of(result)).all()


def test_constant_codes_are_marked():
    table = make_table(120)
    codes = np.where(np.isfinite(table.codes), 1, np.nan).astype(np.float32)
    result = fuse_predictions(replace(table, codes=codes), EVERY)
    assert any("the 3d predictions are the same for every row" in note for note in result.lines)
    assert np.isfinite(figures_of(result)).all()


def test_codes_all_missing_are_refused():
    for ready in (False, True):
        with pytest.raises(ProtocolError, match="rules are fitted on 120 rows, none with 3D codes"):
            fuse_predictions(make_table(missing=1.1, ready=ready), QUICK)


def test_few_rows_to_fit_on_are_warned_of_and_those_without_codes_do_not_count():
    """Relabelling rows without codes changes nothing, so they are no rows that anything was fitted on."""
    table = make_table(240, missing=0)
    calibration = np.flatnonzero(table.split == 1)
    codes = table.codes.copy()
    codes[calibration[10:]] = np.nan
    few = replace(table, codes=codes)
    labels = table.labels.copy()
    labels[calibration[10:]] = 0
    config = replace(QUICK, rules=("mean", "weighted", "stack", "gate"), model=True)
    result, other = fuse_predictions(few, config), fuse_predictions(replace(few, labels=labels), config)
    for mine, theirs in zip(result.predictors, other.predictors, strict=True):
        assert np.array_equal(mine.values, theirs.values, equal_nan=True), mine.name
    assert parameters_hash(result.model) == parameters_hash(other.model)
    assert set(result.model.calibration) == set(hash_ids(table.id[calibration[:10]]))
    warned = [note for note in result.lines if "fewer than 30 (10 for each of 3 classes)" in note]
    assert len(warned) == 1 and warned[0].startswith("WARNING rules are fitted on 10 rows only")
    assert (
        result.lines[0].startswith("WARNING") and result.plan.record()["rules"][0]["fitted_on"]["rows"] == 10
    )
    assert not any("10 for each of 3 classes" in note for note in fuse_predictions(table, config).lines)
    plain = fuse_predictions(few, replace(config, rules=("mean",)))
    assert any(note.startswith("WARNING 2d-recalibrated is fitted on 10 rows only") for note in plain.lines)
    for of, who in ((result, "rules"), (plain, "2d-recalibrated")):
        run = run_of(of)
        assert run.record["protocol"]["rows_calibration"] == 10
        for text in (page_html([run]), table_tex(run)):
            assert f"{who} fitted on the val split" in text


def test_no_codes_among_the_calibration_rows_are_refused():
    table = make_table()
    codes = table.codes.copy()
    codes[table.split == 1] = np.nan
    with pytest.raises(ProtocolError, match="rules are fitted on 120 rows, none with 3D codes"):
        fuse_predictions(replace(table, codes=codes), QUICK)


def test_2d_predictions_that_are_nan_everywhere_or_in_some_rows():
    table = make_table()
    with pytest.raises(ProtocolError, match="360 with a label, 0 with a prediction, none with both"):
        fuse_predictions(replace(table, two_d=table.two_d * np.nan), QUICK)
    two = table.two_d.copy()
    two[np.flatnonzero((table.split == 2) & table.covered)[:5]] = np.nan
    with pytest.raises(
        ProtocolError,
        match=r"5 of the 240 .* rows have codes, but no 2D prediction .*ig3d logits --like STORE.*--allow-missing",
    ):
        fuse_predictions(replace(table, two_d=two), QUICK)
    config = replace(QUICK, allow_missing=True, rules=("mean", "stack"))
    result = fuse_predictions(replace(table, two_d=two), config)
    assert len(result.ids) == 115 and result.plan.left_out == 5
    assert any("5 rows without a 2D prediction left out" in line for line in result.plan.sentences)


def test_one_class_only_is_refused_or_marked():
    table = make_table(120)
    with pytest.raises(ProtocolError, match=r"at least two classes; the class of .* rows is sad"):
        fuse_predictions(replace(table, labels=np.ones_like(table.labels)), QUICK)
    labels = np.where(table.split == 2, 1, table.labels).astype(np.int16)
    result = fuse_predictions(replace(table, labels=labels), QUICK)
    assert any('every reported row has class "sad"' in note for note in result.lines)
    labels = np.where(table.split == 1, 1, table.labels).astype(np.int16)
    result = fuse_predictions(
        replace(table, labels=labels), QUICK
    )  # nothing to tell apart where rules are fitted
    assert np.isfinite(figures_of(result)).all()
    assert any("No row on which rules are fitted has class happy, anger" in note for note in result.lines)


def test_a_class_absent_from_calibration_is_said_and_still_predicted():
    table = make_table(120)
    labels = np.where((table.split == 1) & (table.labels == 2), 0, table.labels).astype(np.int16)
    result = fuse_predictions(replace(table, labels=labels), replace(QUICK, calibrate="bias"))
    assert any("No row on which rules are fitted has class anger" in note for note in result.lines)
    assert all(np.isfinite(rule.values[rule.present]).all() for rule in result.predictors)
    assert result.predictors[0].values.shape == (40, 3)


def test_a_class_that_the_head_never_learns_gets_a_note():
    table = make_table(120)
    words = "No training row of the head has class anger: their 3D probability is near 0"
    labels = np.where((table.split == 0) & (table.labels == 2), 0, table.labels).astype(np.int16)
    incomplete = replace(table, labels=labels)
    quick = HeadsConfig(heads=("linear",), draws=100)
    assert [note for note in fuse_predictions(incomplete, QUICK).lines if note.startswith(words)]
    assert [note for note in train_heads(incomplete, quick).lines if note.startswith(words)]
    assert not [note for note in train_heads(table, quick).lines if "No training row" in note]
    once = np.where(np.arange(120) == np.flatnonzero(table.labels == 2)[0], 2, np.minimum(table.labels, 1))
    folds = replace(table, labels=once.astype(np.int16), split=np.full_like(table.split, -1))
    notes = [note for note in train_heads(folds, quick).lines if "has class anger" in note]
    assert len(notes) == 1 and notes[0].startswith("No training row of the head in some folds has class")


@pytest.mark.parametrize("task", ["classes", "va"])
def test_a_perfect_2d_network_stays_nearly_perfect(task):
    table = make_table(150, task=task)
    truth = np.eye(3)[table.labels] * 20 if task == "classes" else table.targets
    result = fuse_predictions(replace(table, two_d=truth), QUICK)
    if task == "va":
        assert figure(result.figures, "2d", "rmse_joint").value == pytest.approx(0, abs=1e-12)
        for name in ("weighted", "stack", "boost", "gate"):
            assert figure(result.figures, name, "rmse_joint").value < 0.02, name
        return
    assert figure(result.figures, "2d", "accuracy").value == 1
    for name in ("weighted", "stack", "boost", "gate"):
        assert figure(result.figures, name, "accuracy").value > 0.97, name


def test_a_2d_network_at_chance_is_replaced_by_the_3d():
    table = make_table(600, missing=0)
    chance = np.random.default_rng(8).normal(size=(600, 3))
    result = fuse_predictions(replace(table, two_d=chance), QUICK)
    three = figure(result.figures, "3d", "accuracy").value
    assert figure(result.figures, "2d", "accuracy").value < 0.45 and three > 0.7
    for name in ("weighted", "stack", "gate"):
        assert figure(result.figures, name, "accuracy").value > three - 0.08, name


def test_a_single_reported_row_and_fewer_rows_than_folds():
    table = make_table(120)
    test = np.flatnonzero((table.split == 2) & table.covered)
    one = fuse_predictions(table.take(np.r_[np.flatnonzero(table.split < 2), test[:1]]), EVERY)
    assert len(one.ids) == 1 and np.isnan(figure(one.figures, "stack", "accuracy").low)
    few = table.take(np.r_[np.flatnonzero(table.split == 0), test[:4]])
    result = fuse_predictions(few, replace(QUICK, folds=5))
    assert any("5 folds were requested; 4 are possible" in line for line in result.plan.sentences)
    assert np.isfinite(figures_of(result)).all()


def test_quality_that_is_not_known_stops_no_gate():
    table = make_table(120)
    config = replace(QUICK, rules=("gate",))
    unknown = fuse_predictions(replace(table, quality=table.quality * np.nan), config)
    without = fuse_predictions(replace(table, quality=None, quality_columns=()), config)
    gates = [next(rule for rule in each.predictors if rule.name == "gate") for each in (unknown, without)]
    assert np.allclose(gates[0].values, gates[1].values, atol=1e-9)


def test_what_needs_codes_is_left_out_of_ready_predictions_and_said():
    table = make_table(120, ready=True)
    result = fuse_predictions(table, QUICK)
    names = set(result.figures["predictor"])
    assert "boost" not in names and "gate" in names
    assert any(note.startswith("Rule boost is left out: it needs codes") for note in result.lines)
    with pytest.raises(UsageError, match=r"boost: it needs codes, but the 3D predictions are ready-made"):
        fuse_predictions(table, replace(QUICK, rules=("boost",)))
    with pytest.raises(UsageError, match=r"rule stack: the option stack\.codes needs codes"):
        fuse_predictions(table, replace(QUICK, rule_options={"stack": {"codes": True}}))


def test_choices_that_valence_and_arousal_do_not_have():
    table = make_table(120, task="va")
    with pytest.raises(UsageError, match="product: it is defined for classes only"):
        fuse_predictions(table, replace(QUICK, rules=("product",)))
    with pytest.raises(UsageError, match="calibrate: bias needs classes"):
        fuse_predictions(table, replace(QUICK, calibrate="bias"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": ("mean", "median")}, "rules: unknown rule median; choose among mean"),
        ({"on": "odds"}, "on: 'odds' does not exist; choose probabilities or logits"),
        ({"folds": "many"}, "folds: 'many' is not a whole number"),
        ({"calibrate": "platt"}, "calibrate: 'platt' does not exist; choose none, temperature or bias"),
        ({"folds": 1}, "folds: 1 is out of range; choose 2 to 1000"),
        ({"report": "dev"}, "report: 'dev' does not exist; choose train, val, test or all"),
    ],
)
def test_wrong_choices_are_usage_errors(options, message):
    with pytest.raises(UsageError, match=message):
        FuseConfig(**options)


def test_the_help_names_every_rule_and_the_default(ig3d):
    assert FuseConfig().rules == DEFAULT_RULES == tuple(name for name in RULES if name != "threshold")
    text = " ".join(ig3d("fuse", "--help").stdout.split())
    assert f"Fusion rules, separated by commas or repeated: {', '.join(RULES)}, or module:Class." in text
    assert "Default: all but threshold." in text
