"""Rows that heads and rules are fitted on: the four cases, groups kept whole, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ig3d.errors import ProtocolError, UsageError
from ig3d.features.fusion_table import BlockUse, FusionTable
from ig3d.learn.config import FuseConfig
from ig3d.learn.folds import folds_of
from ig3d.learn.plan import FoldModel, HeadFit, plan_fusion

TRAIN, VAL, TEST = 0, 1, 2


def make_table(split, *, group=None, two_d=None, covered=None, ready=False, k=3):
    """A table of random rows with splits ``split`` (n,), 2D predictions everywhere by default."""
    n = len(split)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(n, k))
    scores[~(np.ones(n, bool) if two_d is None else two_d)] = np.nan
    codes = rng.normal(size=(n, 4)).astype(np.float32)
    codes[~(np.ones(n, bool) if covered is None else covered)] = np.nan
    return FusionTable(
        task="classes",
        classes=("happy", "sad", "anger")[:k],
        id=np.array([f"r{row:04d}" for row in range(n)]),
        group=np.full(n, "", dtype=str) if group is None else np.array([f"p{g}" for g in group]),
        split=np.asarray(split, np.int8),
        labels=rng.integers(0, k, n).astype(np.int16),
        targets=np.full((n, 2), np.nan),
        two_d=scores,
        codes=None if ready else codes,
        code_columns=() if ready else tuple(f"code:x:{c}" for c in range(4)),
        blocks=() if ready else (BlockUse("x", 4, "toy"),),
        three_d=rng.normal(size=(n, k)) if ready else None,
    )


def rows(table, split):
    return np.flatnonzero(table.split == split)


def test_train_val_test_is_fitted_once_on_val():
    table = make_table([TRAIN, VAL, TEST] * 20)
    protocol = plan_fusion(table, FuseConfig())
    assert protocol.head_fitting == "once" and protocol.fit_name == "the val split"
    assert np.array_equal(protocol.reported, rows(table, TEST))
    assert [head.train.tolist() for head in protocol.heads] == [rows(table, TRAIN).tolist()]
    assert len(protocol.fold_models) == 1
    assert np.array_equal(protocol.fold_models[0].fit, rows(table, VAL))


def test_fewer_calibration_rows_are_some_of_more_and_keep_groups_whole():
    groups = np.arange(240) // 4 % 40
    table = make_table([TRAIN, VAL, TEST, VAL] * 60, group=groups)
    sizes = {size: plan_fusion(table, FuseConfig(calibration_rows=size)) for size in (30, 60, 1000)}
    fits = {size: protocol.fold_models[0].fit for size, protocol in sizes.items()}
    assert 20 < len(fits[30]) <= 30
    assert set(fits[30]) < set(fits[60]) < set(rows(table, VAL)) == set(fits[1000])
    left = np.setdiff1d(rows(table, VAL), fits[30])
    assert not np.isin(groups[fits[30]], groups[left]).any()
    assert np.array_equal(sizes[30].calibration, fits[30])
    assert np.array_equal(sizes[30].heads[0].train, sizes[1000].heads[0].train)
    assert any("at most 30 calibration rows" in line for line in sizes[30].sentences)
    with pytest.raises(
        ProtocolError, match="calibration-rows: 1 is less than the first group drawn, of 2 rows"
    ):
        plan_fusion(table, FuseConfig(calibration_rows=1))
    with pytest.raises(UsageError, match="calibration-rows: 0 is out of range; choose at least 1"):
        FuseConfig(calibration_rows=0)


def test_fewer_calibration_rows_in_folds_never_hold_the_rows_they_are_applied_to():
    protocol = plan_fusion(make_table([TEST] * 90), FuseConfig(calibration_rows=20))
    assert all(
        len(fuser.fit) == 20 and not np.isin(fuser.fit, fuser.apply).any() for fuser in protocol.fold_models
    )
    assert any("no row is predicted with parameters fitted on it" in line for line in protocol.sentences)


def test_without_val_predictions_the_reported_rows_are_folded_and_the_head_is_not_refitted():
    split = np.array([TRAIN, VAL, TEST] * 20)
    table = make_table(split, two_d=split == TEST)
    protocol = plan_fusion(table, FuseConfig(folds=4))
    assert protocol.head_fitting == "once" and len(protocol.heads) == 1 and len(protocol.fold_models) == 4
    for fuser in protocol.fold_models:
        assert not np.isin(fuser.fit, fuser.apply).any()
        assert np.array_equal(np.sort(np.concatenate([fuser.fit, fuser.apply])), rows(table, TEST))


def test_val_is_reported_where_there_is_no_test():
    table = make_table([TRAIN, TRAIN, VAL] * 20)
    protocol = plan_fusion(table, FuseConfig())
    assert np.array_equal(protocol.reported, rows(table, VAL))
    assert protocol.fit_name == "5 folds of the val split"


def test_without_splits_heads_are_nested_and_never_see_what_they_predict():
    group = np.repeat(np.arange(20), 3)
    table = make_table([-1] * 60, group=group)
    protocol = plan_fusion(table, FuseConfig(folds=4))
    assert protocol.head_fitting == "nested" and len(protocol.heads) == 6 + 4 + 1
    for fuser in protocol.fold_models:
        assert not set(group[fuser.fit]) & set(group[fuser.apply])
        predicted = np.zeros(60, int)
        for number in fuser.heads_fit:
            head = protocol.heads[number]
            asked = np.intersect1d(head.predict, fuser.fit)
            predicted[asked] += 1
            # Neither its own rows nor a row of the fold that the rules are applied to.
            assert not set(group[head.train]) & (set(group[asked]) | set(group[fuser.apply]))
        assert (predicted[fuser.fit] == 1).all() and predicted.sum() == len(fuser.fit)
        (last,) = fuser.heads_apply
        assert np.array_equal(protocol.heads[last].train, fuser.fit)


def test_declared_out_of_fold_rules_are_fitted_on_train():
    table = make_table([TRAIN, TRAIN, TEST] * 20)
    protocol = plan_fusion(table, FuseConfig(two_d_out_of_fold=True, folds=3))
    assert protocol.head_fitting == "out-of-fold"
    (fuser,) = protocol.fold_models
    assert np.array_equal(fuser.fit, rows(table, TRAIN))
    assert len(fuser.heads_fit) == 3
    assert np.array_equal(protocol.heads[fuser.heads_apply[0]].train, rows(table, TRAIN))
    assert any("declared out of fold" in sentence for sentence in protocol.sentences)


def test_2d_predictions_of_train_are_not_used_undeclared():
    table = make_table([TRAIN, TRAIN, TEST] * 20)
    for fuser in plan_fusion(table, FuseConfig()).fold_models:
        assert not np.isin(fuser.fit, rows(table, TRAIN)).any()


def test_train_rows_are_reported_only_on_request_and_never_unwarned():
    split = np.array([TRAIN, TRAIN, TEST] * 20)
    with pytest.raises(ProtocolError, match=r"40 labelled rows .* only of the train split; .*--report train"):
        plan_fusion(make_table(split, two_d=split == TRAIN), FuseConfig())
    table = make_table(split)
    for report, start in (("train", "WARNING 40 reported rows"), ("all", "WARNING 40 reported rows")):
        protocol = plan_fusion(table, FuseConfig(report=report))
        text = " ".join(protocol.sentences)
        assert start in text and "--2d-out-of-fold" in text
        assert "There is no train split" not in text and "No train rows are left for the head" in text
        declared = plan_fusion(table, FuseConfig(report=report, two_d_out_of_fold=True))
        assert np.array_equal(declared.reported, protocol.reported)
        assert "WARNING" not in " ".join(declared.sentences) and "declared out of" in " ".join(
            declared.sentences
        )
    assert "WARNING" not in " ".join(plan_fusion(table, FuseConfig()).sentences)
    alone = plan_fusion(
        make_table([TRAIN] * 60), FuseConfig()
    )  # nothing else to report: reported, and warned of
    assert len(alone.reported) == 60 and "WARNING 60 reported rows" in " ".join(alone.sentences)


def test_rows_of_no_split_are_reported_before_those_of_train():
    split = np.array([TRAIN, -1, VAL] * 20)
    table = make_table(split, two_d=split != VAL)
    protocol = plan_fusion(table, FuseConfig())
    assert (
        np.array_equal(protocol.reported, rows(table, -1))
        and protocol.report_name == "the rows without a split"
    )
    text = " ".join(protocol.sentences)
    assert "There is no" not in text and "WARNING" not in text and "fitted once, on the 20 train rows" in text


def test_the_plan_names_a_single_row_in_the_singular():
    sentences = plan_fusion(make_table([TRAIN, VAL] * 20 + [TEST]), FuseConfig()).sentences
    assert sentences[0] == "Results are for the test split: 1 row, 1 of them with 3D codes."
    assert not any("1 rows" in sentence for sentence in sentences)


def test_ready_predictions_need_no_head():
    protocol = plan_fusion(make_table([TEST] * 40, ready=True), FuseConfig())
    assert protocol.head_fitting == "none" and protocol.heads == () and len(protocol.fold_models) == 5


def test_rows_with_codes_and_no_2d_prediction_are_refused_or_counted():
    split = np.array([TRAIN, VAL, TEST] * 20)
    have = np.ones(60, bool)
    have[[2, 5]] = False
    covered = np.ones(60, bool)
    covered[5] = False
    table = make_table(split, two_d=have, covered=covered)
    with pytest.raises(
        ProtocolError,
        match=r"1 of the 40 .* rows have codes, but no 2D prediction \(1 of test: r0002\); .*ig3d logits --like STORE",
    ):
        plan_fusion(table, FuseConfig())
    protocol = plan_fusion(table, FuseConfig(allow_missing=True))
    assert protocol.left_out == 2 and not np.isin([2, 5], protocol.reported).any()
    assert any("2 rows without a 2D prediction" in sentence for sentence in protocol.sentences)


def test_heads_learn_from_covered_train_rows_only():
    covered = np.arange(60) % 2 == 0
    table = make_table([TRAIN, VAL, TEST] * 20, covered=covered)
    protocol = plan_fusion(table, FuseConfig())
    assert covered[protocol.heads[0].train].all() and covered[protocol.heads[0].predict].all()
    assert not covered[protocol.reported].all()


def gappy(split, *, ready=False, every=3, **options):
    """A table of which one row in ``every`` has no codes, and these rows."""
    bare = np.arange(len(split)) % every == 1
    table = make_table(split, ready=ready, covered=None if ready else ~bare, **options)
    if ready:
        table = replace(table, three_d=np.where(bare[:, None], np.nan, table.three_d))
    return table, np.flatnonzero(bare)


CASES = {
    "once": ([TRAIN, VAL, TEST, VAL] * 20, FuseConfig()),
    "once in folds": ([TRAIN, TEST, TEST, TRAIN] * 20, FuseConfig()),
    "nested": ([-1] * 60, FuseConfig(folds=3)),
    "out-of-fold": ([VAL, TEST, VAL, TEST] * 20, FuseConfig()),
    "declared": ([TRAIN, TRAIN, TEST, TEST] * 20, FuseConfig(two_d_out_of_fold=True)),
}


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_rules_are_fitted_on_rows_with_codes_and_counted_so(case, ready):
    split, config = CASES[case]
    table, bare = gappy(split, ready=ready)
    protocol = plan_fusion(table, config)
    full = plan_fusion(make_table(split, ready=ready), config)
    for fuser in (*protocol.fold_models, protocol.final_model):
        assert len(fuser.fit) and not np.isin(bare, fuser.fit).any()
    assert np.array_equal(protocol.calibration, np.setdiff1d(full.calibration, bare))
    assert np.array_equal(protocol.reported, full.reported)  # rows without codes are reported all the same
    counted = [fit["fitted_on"]["rows"] for fit in protocol.record()["rules"]]
    assert counted == [int(table.covered[fuser.fit].sum()) for fuser in protocol.fold_models]
    sentence = next(line for line in protocol.sentences if "itted on" in line)
    rows, among = len(protocol.calibration), len(full.calibration)
    what = "3D predictions" if ready else "3D codes"
    if np.array_equal(full.calibration, full.reported):
        assert f"on the {rows} rows with {what}: " in sentence
    else:
        assert f"fitted on the {rows} of {among} rows with {what} of the " in sentence
    whole = next(line for line in full.sentences if "itted on" in line)
    assert "rows with" not in whole


def test_the_label_of_a_row_without_codes_changes_no_fold_of_what_is_fitted_apart():
    """Rows that are not used change no fold of the head and no draw of calibration rows."""
    table, bare = gappy([VAL, TEST, VAL, TEST] * 40)
    labels = table.labels.copy()
    labels[bare] = 0
    for config in (FuseConfig(), FuseConfig(calibration_rows=20)):
        one, other = plan_fusion(table, config), plan_fusion(replace(table, labels=labels), config)
        assert one.record() == other.record() and one.sentences == other.sentences


@pytest.mark.parametrize("split", [[TRAIN, VAL, TEST, VAL] * 60, [TEST] * 160])
def test_calibration_rows_are_drawn_among_rows_that_can_be_fitted_on(split):
    table, bare = gappy(split)
    fits = {size: plan_fusion(table, FuseConfig(calibration_rows=size)).fold_models for size in (10, 30)}
    for few, more in zip(fits[10], fits[30], strict=True):
        assert len(few.fit) == 10 and len(more.fit) == 30 and set(few.fit) < set(more.fit)
        assert not np.isin(bare, more.fit).any()


def test_rows_with_codes_of_which_there_are_none_in_a_fold_are_refused():
    covered = np.zeros(60, bool)
    covered[[1, 4]] = True
    split = np.array([TRAIN, TEST, TRAIN] * 20)
    table = make_table(split, covered=covered | (split == TRAIN), group=np.arange(60) // 6)
    with pytest.raises(ProtocolError, match="codes: rules are fitted on 20 rows, none with 3D codes"):
        plan_fusion(table, FuseConfig())  # both stand in one group: the rules of its fold have none


@pytest.mark.parametrize(("split", "where"), [([TRAIN, VAL, TEST] * 20, "val split"), ([-1] * 60, "5 folds")])
def test_where_rules_fit_nothing_only_the_recalibrated_network_is_said_to_be_fitted(split, where):
    table = make_table(split)
    for config, nothing in (
        (FuseConfig(rules=("mean", "max")), True),
        (FuseConfig(rules=("mean",), calibrate="bias"), False),
        (FuseConfig(rules=("mean", "weighted")), False),
    ):
        text = " ".join(plan_fusion(table, config).sentences)
        assert (
            "The rules have no fitted parameters; 2d-recalibrated is " in text
        ) == nothing and where in text
        assert ("Rules are " in text) == (not nothing)
        assert "rules are fitted on its" not in text or not nothing


def test_of_ready_predictions_only_what_is_known_is_said():
    """Those of one fold may have been learnt from the others: no row is reported as unseen."""
    text = " ".join(plan_fusion(make_table([TEST] * 40, ready=True), FuseConfig()).sentences)
    assert "no row is predicted with rules fitted on it." in text and "parameters" not in text
    assert "the rows on which their model was trained are unknown" in text


def test_splits_that_share_groups_are_pointed_out():
    table = make_table([TRAIN, VAL, TEST] * 20, group=np.arange(60) // 3)
    sentences = " ".join(plan_fusion(table, FuseConfig()).sentences)
    assert "20 groups (persons or videos) shared by the reported and the calibration rows" in sentences
    assert "reported and the training rows" in sentences


@pytest.mark.parametrize(
    ("table", "config", "message"),
    [
        (
            make_table([-1] * 2),
            FuseConfig(),
            "at least 3 are needed, but 2 rows can only be divided into 2 .--folds 5",
        ),
        (
            make_table([-1] * 30, group=[0] * 30),
            FuseConfig(),
            "at least 3 are needed, but 1 group can only be divided into 1 .--folds 5",
        ),
        (
            make_table([TEST] * 9, two_d=np.zeros(9, bool)),
            FuseConfig(),
            "9 with a label, 0 with a prediction",
        ),
        (make_table([TEST] * 9), FuseConfig(report="val"), "the val split has no row with a label"),
        (
            make_table([TEST] * 9),
            FuseConfig(two_d_out_of_fold=True),
            "no labelled train row has a 2D prediction",
        ),
    ],
)
def test_rows_that_do_not_allow_it_are_refused(table, config, message):
    with pytest.raises(ProtocolError, match=message):
        plan_fusion(table, config)


def test_fewer_rows_than_folds_make_fewer_folds_and_say_so():
    protocol = plan_fusion(make_table([-1] * 4), FuseConfig(folds=5))
    assert len(protocol.fold_models) == 4
    assert any("5 folds were requested; 4 are possible" in sentence for sentence in protocol.sentences)


def test_a_plan_that_leaks_cannot_be_made():
    protocol = plan_fusion(make_table([TRAIN, VAL, TEST] * 20), FuseConfig())
    everything = np.arange(60)
    with pytest.raises(ProtocolError, match="would be applied to rows"):
        replace(protocol, fold_models=(FoldModel(everything, protocol.reported, (0,), (0,)),))
    with pytest.raises(ProtocolError, match="would predict rows"):
        replace(protocol, heads=(HeadFit(everything, everything),))
    with pytest.raises(ProtocolError, match="20 predictions for 19 reported rows"):
        replace(protocol, reported=protocol.reported[1:])


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_groups_whole_and_classes_even(seed):
    rng = np.random.default_rng(seed)
    groups, strata = rng.integers(0, 60, 600), rng.integers(0, 4, 600)
    fold = folds_of(strata, groups, 5, seed)
    assert all(len(set(fold[groups == group])) == 1 for group in range(60))
    assert np.bincount(fold).min() > 80
    single = folds_of(strata, np.arange(600), 5, seed)
    for stratum in range(4):
        counts = np.bincount(single[strata == stratum], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(single, folds_of(strata, np.arange(600), 5, seed + 1))


def test_one_class_for_every_row_can_still_be_folded():
    assert sorted(np.bincount(folds_of(np.arange(7), np.arange(7), 5, 0))) == [1, 1, 1, 2, 2]
