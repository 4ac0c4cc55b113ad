"""Properties of every fusion run: row order changes nothing, leaks show, noise is no gain, choices are counted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from toy_fusion import CLASSES, FAST, make_table

from ig3d.learn.config import DEFAULT_RULES
from ig3d.learn.evaluate.figures import figure
from ig3d.learn.evaluate.predictors import find
from ig3d.learn.evaluate.tables import table_csv
from ig3d.learn.fuse import ScoreFolder, fuse_predictions
from ig3d.learn.head_fits import fit_heads
from ig3d.learn.model import parameters_hash
from ig3d.learn.plan import plan_fusion
from ig3d.learn.report.record import json_text, run_of
from ig3d.learn.rules import stack

EVERY = replace(FAST, rules=DEFAULT_RULES)
# best fits every candidate several times over: without it, or with few candidates
EACH = replace(FAST, rules=tuple(name for name in DEFAULT_RULES if name != "selected"))
SELECTED = replace(FAST, rules=("mean", "stack", "selected"))


def rule_of(result, name, condition="real"):
    return find(result.predictors, name, condition)


def gain_of(result, name, metric="accuracy", condition="real"):
    return figure(result.figures, name, metric, condition=condition, versus="2d-recalibrated")


def bytes_of(result):
    values = b"".join(repr(rule.key).encode() + rule.values.tobytes() for rule in result.predictors)
    return (
        values,
        table_csv(result.figures),
        json_text(run_of(result).record),
        "" if result.model is None else parameters_hash(result.model),
    )


@pytest.mark.parametrize("task", ["classes", "va"])
def test_the_number_of_threads_changes_no_byte(task):
    table = make_table(90, task=task, split=lambda row: -1, grouped=True, other=True)
    found = []
    for jobs in (1, 3):
        stack._RECALIBRATED.clear()
        result = fuse_predictions(table, replace(EACH, model=True, jobs=jobs))
        found.append(bytes_of(replace(result, config=EACH)))
    assert found[0] == found[1]


@pytest.mark.parametrize("task", ["classes", "va"])
@pytest.mark.parametrize("split", [lambda row: row % 3, lambda row: -1], ids=["splits", "folds"])
def test_the_order_of_rows_changes_no_byte_of_any_rule(task, split):
    table = make_table(72, task=task, split=split, grouped=True, other=True)
    order = np.random.default_rng(3).permutation(len(table))
    shuffled = replace(
        table,
        **{
            name: getattr(table, name)[order]
            for name in ("id", "group", "split", "labels", "targets", "two_d", "codes", "quality")
        },
        others={name: values[order] for name, values in table.others.items()},
    )
    for config in (
        replace(EACH, model=True, rule_options={"stack": {"codes": True}, "weighted": {"per_class": True}}),
        replace(SELECTED, rules=("mean", "selected")),
    ):
        one, two = (bytes_of(fuse_predictions(each, config)) for each in (table, shuffled))
        assert one == two


def test_the_same_run_again_gives_the_same_bytes_and_another_seed_others():
    table = make_table(90)
    config = replace(EVERY, model=True, calibrate="bias")
    one, again = (bytes_of(fuse_predictions(table, config)) for _ in range(2))
    assert one == again
    other = bytes_of(fuse_predictions(table, replace(config, seed=1)))
    assert one[0] != other[0] and one[1] != other[1]


def test_a_rows_3d_never_reaches_another_row():
    """The leak of a batch's first row onto all others would show here."""
    table = make_table(90)
    before = fuse_predictions(table, EVERY)
    row = int(before.plan.reported[before.covered][11])
    codes, quality = table.codes.copy(), table.quality.copy()
    codes[row] += 5
    quality[row] += 1
    after = fuse_predictions(replace(table, codes=codes, quality=quality), EVERY)
    for old, new in zip(before.predictors, after.predictors, strict=True):
        moved = before.ids[~((old.values == new.values) | np.isnan(old.values)).all(axis=1)].tolist()
        if old.role == "control":  # a control gives each row the 3D of another
            assert table.id[row] not in moved and len(moved) <= 1
        elif old.name.startswith("2d"):
            assert moved == []
        else:
            # Of few rows boost may have kept no trees; it is the 2D network then.
            assert moved == [table.id[row]] or (old.name == "boost" and moved == []), old.name


def test_labels_of_reported_rows_reach_no_prediction_of_theirs():
    """Another truth for a reported row changes nothing that is predicted for it, folds or splits."""
    for split in (lambda row: row % 3, lambda row: -1):
        table = make_table(90, split=split)
        before = fuse_predictions(table, EVERY)
        row = int(before.plan.reported[before.covered][7])
        fold = next(fuser.apply for fuser in before.plan.fold_models if row in fuser.apply)
        labels = table.labels.copy()
        labels[row] = (labels[row] + 1) % 3
        changed = replace(table, labels=labels)
        # The folds are drawn by class: only where they stay the same is there something to compare.
        same = [fuser.apply.tolist() for fuser in plan_fusion(changed, EVERY).fold_models] == [
            fuser.apply.tolist() for fuser in before.plan.fold_models
        ]
        if split(0) == -1 and not same:
            continue
        after = fuse_predictions(changed, EVERY)
        where = np.searchsorted(before.plan.reported, fold)
        for old, new in zip(before.predictors, after.predictors, strict=True):
            assert np.array_equal(old.values[where], new.values[where], equal_nan=True), old.name


def test_a_wrong_prior_gains_by_recalibration_and_not_by_noise_given_as_3d():
    table = make_table(900, signal=0, strength=2, prior=3, missing=0)
    result = fuse_predictions(table, replace(FAST, rules=("stack", "boost")))
    recalibrated = figure(result.figures, "2d-recalibrated", "accuracy", versus="2d")
    assert recalibrated.low > 0.1
    for name in ("stack", "boost"):
        # A naive comparison would have called it a gain of the 3D.
        assert figure(result.figures, name, "accuracy", versus="2d").low > 0.1
        assert gain_of(result, name).low <= 0 <= gain_of(result, name).high
        assert gain_of(result, name).value < 0.02


def test_codes_that_tell_the_class_gain_and_permuted_ones_do_not():
    result = fuse_predictions(make_table(900), replace(FAST, rules=("weighted", "stack", "boost", "gate")))
    for name in ("stack", "boost"):
        assert gain_of(result, name).low > 0.03, name
        control = gain_of(result, name, condition="conditional" if name == "stack" else "permuted")
        assert control.low <= 0 <= control.high or control.high < 0, name
    for name in ("weighted", "gate"):  # these do not recalibrate: their controls stand against 2d
        assert figure(result.figures, name, "accuracy", versus="2d").low > 0.03
        control = figure(result.figures, name, "accuracy", condition="permuted", versus="2d")
        assert control.low <= 0 <= control.high or control.high < 0, name


def test_every_rule_has_its_control_next_to_it():
    plain = [rule.key for rule in fuse_predictions(make_table(90), EVERY).predictors]
    assert [name for name, _ in plain[:3]] == ["2d", "2d-recalibrated", "3d"]
    for name in DEFAULT_RULES:
        condition = "conditional" if name == "stack" else "permuted"  # of the primary rule
        assert plain[plain.index((name, "real")) + 1] == (name, condition)
    calibrated = fuse_predictions(make_table(90), replace(EACH, calibrate="temperature"))
    assert rule_of(calibrated, "mean", "permuted") is not None and rule_of(calibrated, "mean").fits
    none = fuse_predictions(make_table(90), replace(EACH, controls=False))
    assert not any(rule.role == "control" for rule in none.predictors)


def test_calibration_is_fitted_in_every_fold_and_recorded():
    table = make_table(180, split=lambda row: -1)
    result = fuse_predictions(replace(table, two_d=table.two_d * 3), replace(FAST, calibrate="bias"))
    fitted = rule_of(result, "mean").fitted
    assert len(fitted) == 3 and len({fold["2d"]["temperature"] for fold in fitted}) == 3
    assert all(fold["2d"]["temperature"] > 1.5 and len(fold["3d"]["offset"]) == 3 for fold in fitted)
    (entry,) = [
        of for of in run_of(result).record["predictors"] if (of["name"], of["condition"]) == ("mean", "real")
    ]
    assert [of["2d"]["temperature"] for of in entry["fitted"]] == pytest.approx(
        [fold["2d"]["temperature"] for fold in fitted]
    )


def test_best_chooses_in_every_fold_on_its_fitting_rows():
    table = make_table(150, split=lambda row: -1)
    result = fuse_predictions(table, replace(SELECTED, controls=False))
    best = rule_of(result, "selected")
    assert len(best.fitted) == 3
    for fuser, fitted in zip(result.plan.fold_models, best.fitted, strict=True):
        assert set(fitted["inner_accuracy"]) == {"2d-recalibrated", "mean", "stack"}
        where = np.searchsorted(result.plan.reported, fuser.apply)
        chosen = rule_of(result, fitted["chosen"]).values[where]
        with_3d = result.covered[where]
        assert np.array_equal(best.values[where][with_3d], chosen[with_3d])
    small = replace(FAST, rules=("selected",), controls=False)
    everything = fuse_predictions(make_table(45), small)  # named alone it chooses among all
    assert set(rule_of(everything, "selected").fitted[0]["inner_accuracy"]) >= {
        "weighted",
        "boost",
        "gate",
        "max",
    }


def test_a_second_2d_network_stands_beside_the_3d():
    table = make_table(240, other=True, missing=0.1)
    gone = np.random.default_rng(0).random(240) < 0.05
    second = np.where(gone[:, None], np.nan, table.others["second"])
    result = fuse_predictions(replace(table, others={"second": second}), EACH)
    assert [rule.name for rule in result.predictors][:4] == ["2d", "2d-recalibrated", "3d", "2d:second"]
    assert rule_of(result, "2d:second").role == "reference"
    beside = {rule.name: rule.role for rule in result.predictors if rule.condition == "2d:second"}
    assert beside.keys() >= {"weighted", "stack", "gate"} and set(beside.values()) == {"control"}
    assert not beside.keys() & {"boost", "mean"}
    # As by hand: the plain stack with the other network's scores where the 3D ones were, on the same rows.
    by_hand = fuse_predictions(
        replace(
            table,
            codes=None,
            code_columns=(),
            blocks=(),
            three_d=np.where(table.covered[:, None], second, np.nan),
            others={},
        ),
        replace(FAST, rules=("stack",)),
    )
    there = ~gone[by_hand.plan.reported] & result.covered
    assert np.allclose(
        rule_of(result, "stack", "2d:second").values[there],
        rule_of(by_hand, "stack").values[there],
        atol=1e-6,
    )
    reference = rule_of(result, "2d-recalibrated").values
    assert np.array_equal(rule_of(result, "stack", "2d:second").values[~there], reference[~there])


def test_the_record_has_the_rows_of_every_fit():
    table = make_table(180, split=lambda row: -1)
    protocol = plan_fusion(table, FAST)
    fits = json.loads(json_text(run_of(fuse_predictions(table, FAST)).record))["protocol"]["fits"]
    assert len(fits["rules"]) == 3 and len(fits["heads"]) == len(protocol.heads)
    for fuser, entry in zip(protocol.fold_models, fits["rules"], strict=True):
        assert entry["fitted_on"]["rows"] == len(fuser.fit)
        assert entry["applied_to"]["rows"] == len(fuser.apply)
        assert entry["heads_for_applying"] == list(fuser.heads_apply)
    assert len({entry["fitted_on"]["ids_sha256"] for entry in fits["rules"]}) == 3


class Counting(LogisticRegression):
    """A head of the user's that counts its fits."""

    fits = 0

    def fit(self, X, y, sample_weight=None):
        type(self).fits += 1
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("kept", ["dictionary", "folder"])
def test_runs_share_fitted_heads(tmp_path, kept):
    heads = {} if kept == "dictionary" else ScoreFolder(tmp_path / "heads")
    table = make_table(180, split=lambda row: -1)
    config = replace(FAST, head=f"{__name__}:Counting", rules=("mean",))
    Counting.fits = 0
    first = fuse_predictions(table, config, score_cache=heads)
    fitted = Counting.fits
    assert (
        fitted == 6 == len(heads)
    )  # of three folds three pairs and three singles; the last is for a model only
    again = fuse_predictions(table, replace(config, rules=("mean", "stack"), jobs=2), score_cache=heads)
    assert Counting.fits == fitted
    assert np.array_equal(first.predictors[2].values, again.predictors[2].values, equal_nan=True)
    fuse_predictions(table, replace(config, seed=1), score_cache=heads)
    assert Counting.fits == 2 * fitted
    codes = table.codes.copy()
    codes[np.flatnonzero(table.covered)[0]] += 1
    fuse_predictions(replace(table, codes=codes), config, score_cache=heads)
    assert Counting.fits == 3 * fitted
    if kept == "folder":  # a damaged file is fitted again, not believed
        for path in (tmp_path / "heads").glob("*.npy"):
            path.write_bytes(b"nothing")
        fuse_predictions(table, config, score_cache=ScoreFolder(tmp_path / "heads"))
        assert Counting.fits == 4 * fitted


def test_heads_are_fitted_on_the_rows_of_the_plan_alone():
    table = make_table(180)
    protocol = plan_fusion(table, FAST)
    before = fit_heads(table, protocol, FAST).scores[0]
    outside = np.setdiff1d(np.arange(180), protocol.heads[0].train)
    labels = table.labels.copy()
    labels[outside] = np.random.default_rng(1).integers(0, len(CLASSES), len(outside))
    after = fit_heads(replace(table, labels=labels), protocol, FAST).scores[0]
    assert np.array_equal(before, after, equal_nan=True)
