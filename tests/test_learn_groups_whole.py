"""A grouped run shows whole groups in every fit and every fold, at every level: heads, rules, inner folds, plans."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from spy_groups import Recorder
from toy_fusion import CLASSES, FAST, make_table, store_of

from ig3d.errors import ProtocolError
from ig3d.features.fusion_table import digest_of
from ig3d.features.predictions import Predictions
from ig3d.learn.ablation import Study, run_study
from ig3d.learn.ablation.table import table_of
from ig3d.learn.config import FuseConfig
from ig3d.learn.evaluate.figures import figure, figures_of
from ig3d.learn.fuse import fuse_predictions
from ig3d.learn.plan import plan_fusion, plan_heads
from ig3d.learn.rules import Columns, stack
from ig3d.learn.train import HeadsConfig, train_heads

TRAIN, VAL, TEST, NONE = 0, 1, 2, -1


def grouped_table(splits, *, task="classes", n=150, seed=0, across=False, codes_only=(), **options):
    """Groups of 1 to 7 rows that do not lie side by side, within one split each, or across the splits."""
    rng = np.random.default_rng(seed)
    table = make_table(n, task=task, missing=0.05, seed=seed, **options)
    split = np.array([splits[row % len(splits)] for row in range(n)], np.int8)
    number = rng.integers(0, n // 4, n)
    group = np.array([f"p{g}" if across else f"p{s}-{g}" for s, g in zip(split, number, strict=True)])
    group[rng.random(n) < 0.1] = ""  # and some rows of no group
    two = table.two_d.copy()
    two[np.isin(split, codes_only) & (rng.random(n) < 0.3)] = np.nan
    return replace(table, split=split, group=group, two_d=two)


def pools(table):
    usable = table.labelled & table.covered
    return {"rule": usable & table.has_2d, "head": usable}


CASES = {
    "once": ((TRAIN, VAL, TEST, VAL), {}),
    "once, in folds": ((TRAIN, TEST), {}),
    "nested": ((NONE,), {}),
    "out of fold over val": ((VAL, TEST), {}),
    "declared out of fold": ((TRAIN, TRAIN, TEST), {"two_d_out_of_fold": True}),
    "some calibration rows": ((TRAIN, VAL, TEST, VAL), {"calibration_rows": 50}),
    "some calibration rows of folds": ((NONE,), {"calibration_rows": 60}),
}
QUICK = replace(FAST, rules=("weighted", "stack", "boost", "gate"), repeats=2)


def run(monkeypatch, table, config):
    recorder = Recorder(table).install(monkeypatch)
    result = fuse_predictions(table, config)
    recorder.check(pools(table))
    return recorder, result


@pytest.mark.parametrize(
    ("case", "task"), [*((case, "classes") for case in CASES), ("once", "va"), ("nested", "va")]
)
def test_every_fit_of_every_rule_sees_whole_groups(monkeypatch, case, task):
    splits, options = CASES[case]
    table = grouped_table(splits, task=task, other=True)
    recorder, result = run(monkeypatch, table, replace(QUICK, model=True, **options))
    for place in (
        *("rule weighted", "rule stack", "rule gate", "rule boost", "head linear", "linear: not held out"),
        *("stack: inner fold", "gate: inner fold", "stack: solver", "gate: solver", "boost: not held out"),
    ):
        assert recorder.fits[place], f"{place}: nothing was recorded"
    assert recorder.tested["stack"] and recorder.tested["gate"] and recorder.fits["boost: trees"]
    check_plan(table, result.plan)


@pytest.mark.parametrize("task", ["classes", "va"])
@pytest.mark.parametrize("case", ["once", "nested"])
def test_best_chooses_by_whole_groups_and_its_candidates_too(monkeypatch, case, task):
    splits, options = CASES[case]
    table = grouped_table(splits, task=task)
    rules = ("mean", "weighted", "stack", "gate", "selected")
    recorder, _ = run(monkeypatch, table, replace(QUICK, rules=rules, controls=False, **options))
    assert recorder.fits["selected: inner fold"] and recorder.tested["selected"]
    # the folds within the folds of selected: a stack sees two thirds of two thirds
    sizes = {len(rows) for rows in recorder.fits["stack: inner fold"]}
    largest = max(len(rows) for rows in recorder.fits["rule selected"])
    assert min(sizes) < 0.55 * largest


@pytest.mark.parametrize("calibrate", ["temperature"])
@pytest.mark.parametrize("case", ["once", "nested"])
def test_calibrated_rules_get_the_groups_of_their_rows(monkeypatch, case, calibrate):
    splits, options = CASES[case]
    table = grouped_table(splits)
    config = replace(
        QUICK,
        rules=("mean", "weighted", "stack", "gate"),
        calibrate=calibrate,
        rule_options={"weighted": {"per_class": True}},
        **options,
    )
    recorder, _ = run(monkeypatch, table, config)
    assert recorder.fits["rule calibrate"] and recorder.fits["stack: inner fold"]


def test_a_stack_of_codes_chooses_their_penalty_by_whole_groups(monkeypatch):
    table = grouped_table((NONE,))
    run(
        monkeypatch,
        table,
        replace(QUICK, rules=("stack",), rule_options={"stack": {"codes": True}}, controls=False),
    )


def test_rows_that_only_a_head_can_learn_from_keep_their_groups_out_of_the_folds(monkeypatch):
    """Train rows without a 2D prediction are in no fold; a head must not learn from those of a group it predicts."""
    table = grouped_table((TRAIN, TRAIN, TEST), codes_only=(TRAIN,))
    config = replace(QUICK, two_d_out_of_fold=True, allow_missing=True, rules=("mean",))
    recorder, result = run(monkeypatch, table, config)
    check_plan(table, result.plan)
    lone = np.flatnonzero(table.covered & ~table.has_2d & (table.split == TRAIN))
    assert len(lone) > 5 and all(np.isin(lone, rows).any() for rows in recorder.fits["head linear"])


def test_groups_across_the_splits_are_whole_where_all_rows_are_folded(monkeypatch):
    table = grouped_table((TRAIN, VAL, TEST), across=True)
    _, result = run(monkeypatch, table, replace(QUICK, report="all", rules=("stack", "gate")))
    check_plan(table, result.plan)


@pytest.mark.parametrize("task", ["classes", "va"])
@pytest.mark.parametrize("head", ["gbm", "linear", "mlp", "residual"])
def test_every_head_stops_and_chooses_on_whole_groups(monkeypatch, head, task):
    if head in ("mlp", "residual"):
        pytest.importorskip("torch")
        from ig3d.learn.heads import training

        seen = []

        def trained(recipe, X, truth, held, device, original=training.train):
            seen.append(held)
            quick = clone(recipe.head).set_params(epochs=1, width=8)
            return original(replace(recipe, head=quick), X, truth, held, device)

        monkeypatch.setattr(training, "train", trained)
        monkeypatch.setattr(
            training, "outputs_of", lambda recipe, weights, X, outputs: np.zeros((len(X), outputs))
        )
    table = grouped_table((NONE,), task=task)
    recorder = Recorder(table).install(monkeypatch)
    config = HeadsConfig(heads=(head,), folds=3, draws=100, jobs=1)
    train_heads(table, config)
    recorder.check(pools(table))
    name = "paper" if head in ("mlp", "residual") else head
    held = recorder.fits[f"{name}: not held out"]
    assert len(held) == 3 and len(recorder.fits[f"head {name}"]) == 3
    if name == "paper":
        assert [int((~part).sum()) for part in seen] == [len(rows) for rows in held]


@pytest.mark.parametrize("splits", [(NONE,), (TEST,), (VAL, TEST)])
def test_heads_alone_never_learn_from_the_groups_they_predict(splits):
    table = grouped_table(splits)
    protocol = plan_heads(table, FuseConfig(folds=4, objective=None))
    codes = table.group_codes
    for head in protocol.heads:
        asked = np.intersect1d(head.predict, protocol.reported)
        same = table.split[head.train][0] == table.split[asked][0]
        assert not same or not np.isin(codes[asked], codes[head.train]).any()


def check_plan(table, protocol):
    """Folds, heads and fusers keep groups apart, and a head predicts each row of a fuser once."""
    codes = table.group_codes
    splits = table.split

    def meet(one, other):
        return any(
            np.isin(codes[one[splits[one] == part]], codes[other[splits[other] == part]]).any()
            for part in np.unique(splits)
        )

    for fuser in protocol.fold_models:
        assert not meet(fuser.fit, fuser.apply)
        for rows, numbers in ((fuser.fit, fuser.heads_fit), (fuser.apply, fuser.heads_apply)):
            asked = np.zeros(len(table), int)
            for number in numbers:
                head = protocol.heads[number]
                there = np.intersect1d(head.predict, rows)
                asked[there] += 1
                assert not meet(head.train, there)
                if numbers is fuser.heads_fit:
                    assert not meet(head.train, fuser.apply)
            if numbers:
                assert (asked[rows[table.covered[rows]]] == 1).all()


def some_plan(case):
    splits, options = CASES[case]
    table = grouped_table(splits)
    return table, plan_fusion(table, replace(QUICK, **options))


def mates_in(table, rows):
    """Rows of the largest group among some rows."""
    codes = table.group_codes
    names, counts = np.unique(codes[rows], return_counts=True)
    assert counts.max() > 1
    return rows[codes[rows] == names[counts.argmax()]]


@pytest.mark.parametrize("case", ["nested", "once, in folds", "out of fold over val", "declared out of fold"])
def test_the_plans_guard_refuses_a_group_on_both_sides_of_a_head(case):
    table, protocol = some_plan(case)
    used = sorted(
        {number for fuser in protocol.fold_models for number in (*fuser.heads_fit, *fuser.heads_apply)}
    )
    checked = 0
    for number in used:
        head = protocol.heads[number]
        mates = mates_in(table, head.predict)
        # one row of the group is learnt from and no longer predicted: no row is on both sides
        leaky = replace(
            head,
            train=np.sort(np.append(head.train, mates[0])),
            predict=np.setdiff1d(head.predict, mates[:1]),
        )
        heads = tuple(leaky if place == number else other for place, other in enumerate(protocol.heads))
        with pytest.raises(ProtocolError, match="a head would predict rows"):
            replace(protocol, heads=heads)
        checked += 1
    assert checked == len(used) > 0


@pytest.mark.parametrize("case", ["nested", "once, in folds"])
def test_the_plans_guard_refuses_a_group_on_both_sides_of_the_rules(case):
    table, protocol = some_plan(case)
    for number, fuser in enumerate(protocol.fold_models):
        mates = mates_in(table, fuser.apply)
        # the row moves to another copy, which predicts it; its group stays here
        fusers = [replace(each, heads_fit=(), heads_apply=()) for each in protocol.fold_models]
        fuser, other = fusers[number], fusers[(number + 1) % len(fusers)]
        fusers[number] = replace(
            fuser, fit=np.sort(np.append(fuser.fit, mates[0])), apply=np.setdiff1d(fuser.apply, mates[:1])
        )
        place = (number + 1) % len(fusers)
        fusers[place] = replace(
            other, fit=np.setdiff1d(other.fit, mates), apply=np.sort(np.append(other.apply, mates[0]))
        )
        with pytest.raises(ProtocolError, match="rules would be applied to rows"):
            replace(protocol, fold_models=tuple(fusers))


def test_the_plans_guard_refuses_rules_fitted_to_heads_that_saw_their_rows_or_groups():
    """The inner predictions of a nested plan: a head may have seen neither the row nor the fold that is predicted."""
    table, protocol = some_plan("nested")
    fuser = protocol.fold_models[0]
    outer = tuple(range(len(protocol.heads) - 1 - len(protocol.fold_models), len(protocol.heads) - 1))
    swapped = replace(
        fuser, heads_fit=outer[1:]
    )  # each predicts its own fold soundly, and learnt from fold 0
    with pytest.raises(ProtocolError, match="predictions of a head that is fitted on the rows"):
        replace(protocol, fold_models=(swapped, *protocol.fold_models[1:]))
    # by its group alone
    number = fuser.heads_fit[0]
    head = protocol.heads[number]
    mates = mates_in(table, fuser.apply)
    head = replace(
        head, train=np.sort(np.append(head.train, mates[0])), predict=np.setdiff1d(head.predict, mates)
    )
    heads = tuple(head if place == number else other for place, other in enumerate(protocol.heads))
    with pytest.raises(ProtocolError, match="predictions of a head that is fitted on the rows"):
        replace(protocol, heads=heads)


def test_the_plans_guard_looks_at_groups_across_splits_where_all_rows_are_folded():
    table = grouped_table((TRAIN, VAL, TEST), across=True)
    protocol = plan_fusion(table, replace(QUICK, report="all"))
    codes, splits = table.group_codes, table.split
    fusers = [replace(each, heads_fit=(), heads_apply=()) for each in protocol.fold_models]
    apply = fusers[0].apply
    names = [
        code for code in np.unique(codes[apply]) if len(np.unique(splits[apply[codes[apply] == code]])) > 1
    ]
    mates = apply[codes[apply] == names[0]]
    moved = mates[splits[mates] == splits[mates[0]]]  # of one split; those of the others stay
    fusers[0] = replace(
        fusers[0],
        fit=np.sort(np.append(fusers[0].fit, moved[table.covered[moved]])),
        apply=np.setdiff1d(apply, moved),
    )
    fusers[1] = replace(
        fusers[1],
        fit=np.setdiff1d(fusers[1].fit, mates),
        apply=np.sort(np.append(fusers[1].apply, moved)),
    )
    assert np.isin(codes[fusers[0].fit], codes[mates]).any()
    with pytest.raises(ProtocolError, match="rules would be applied to rows"):
        replace(protocol, fold_models=tuple(fusers))


def test_the_plans_guard_looks_at_rows_that_are_in_no_fold():
    """Train rows without a 2D prediction are learnt from, but neither reported nor calibration rows."""
    table = grouped_table((TRAIN, TRAIN, TEST), codes_only=(TRAIN,))
    protocol = plan_fusion(table, replace(QUICK, two_d_out_of_fold=True, allow_missing=True))
    codes = table.group_codes
    lone = np.flatnonzero(table.covered & ~table.has_2d & (table.split == TRAIN))
    checked = 0
    for number in protocol.fold_models[0].heads_fit:
        head = protocol.heads[number]
        mates = lone[np.isin(codes[lone], codes[head.predict])]
        if not len(mates):
            continue
        leaky = replace(head, train=np.sort(np.append(head.train, mates[0])))
        heads = tuple(leaky if place == number else other for place, other in enumerate(protocol.heads))
        with pytest.raises(ProtocolError, match="a head would predict rows"):
            replace(protocol, heads=heads)
        checked += 1
    assert checked


def test_splits_of_a_dataset_may_share_groups_with_a_warning():
    table = grouped_table((TRAIN, VAL, TEST), across=True)
    sentences = plan_fusion(table, QUICK).sentences
    assert sum(line.startswith("WARNING") and "shared by the reported and" in line for line in sentences) == 2


class TakesGroups(LogisticRegression):
    """A user's head that notes the groups of every fit."""

    seen: ClassVar[list] = []

    def fit(self, X, y, groups=None):
        type(self).seen.append((np.array(X), groups))
        return super().fit(X, y)


class OneColumn(Ridge):
    """A user's regressor of one output, which is fitted once per column."""

    seen: ClassVar[list] = []

    def fit(self, X, y, groups=None):
        assert np.ndim(y) == 1
        type(self).seen.append((np.array(X), groups))
        return super().fit(X, y)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = False
        return tags


@pytest.mark.parametrize(("kind", "task"), [(TakesGroups, "classes"), (OneColumn, "va")])
def test_a_users_head_gets_the_groups_of_its_rows(kind, task):
    table = grouped_table((NONE,), task=task)
    kind.seen.clear()
    fuse_predictions(table, replace(QUICK, rules=("mean",), head=f"{__name__}:{kind.__name__}"))
    recorder = Recorder(table)
    assert len(kind.seen) >= 6
    for X, groups in kind.seen:
        rows = recorder.rows_of_codes(X)
        assert np.array_equal(groups, table.group_codes[rows])
        recorder.fits["head linear"].append(rows)
    recorder.check(pools(table))


def test_rows_without_groups_stand_for_themselves(monkeypatch):
    """The other side: without groups folds are of rows, stratified, and nothing is kept together."""
    table = replace(grouped_table((NONE,)), group=np.full(150, ""))
    assert not table.grouped and len(np.unique(table.group_codes)) == 150
    recorder, result = run(monkeypatch, table, QUICK)
    assert recorder.fits["stack: inner fold"]
    for fuser in result.plan.fold_models:
        counts = np.bincount(table.labels[fuser.apply], minlength=3)
        assert np.abs(counts - np.bincount(table.labels) / 3).max() <= 1
    some = grouped_table((NONE,))
    alone = some.group_codes[some.group == ""]
    assert (
        len(np.unique(alone)) == len(alone) and not np.isin(alone, some.group_codes[some.group != ""]).any()
    )


def test_the_recalibrated_network_of_other_groups_is_fitted_anew(monkeypatch):
    """Its cache must tell runs apart that differ in their groups alone."""
    table = grouped_table((NONE,))
    other = replace(table, group=np.array([f"q{row // 9}" for row in range(len(table))]))
    for each in (table, other):
        stack._RECALIBRATED.clear()
        fuse_predictions(each, replace(QUICK, rules=("mean",)))
    warm = fuse_predictions(table, replace(QUICK, rules=("mean",))).predictors[1].values
    stack._RECALIBRATED.clear()
    y, groups = table.labels.astype(np.int64), table.group_codes
    columns = Columns(scores_2d=table.two_d, scores_3d=table.two_d)
    fits = []
    monkeypatch.setattr(stack.Stack, "_fit", lambda rule, *given: (fits.append(given), rule)[1])
    for these in (groups, groups, other.group_codes, None):
        stack.Stack(use_3d=False).fit(columns, y, groups=these)
    assert len(fits) == 3 and np.isfinite(warm).all()


@pytest.mark.parametrize("task", ["classes", "va"])
def test_figures_of_a_grouped_run_are_tested_by_groups(task):
    table = grouped_table((NONE,), task=task)
    result = fuse_predictions(table, replace(QUICK, rules=("stack",)))
    metric = {"classes": "accuracy", "va": "ccc_joint"}[task]
    heads = train_heads(table, HeadsConfig(heads=("linear",), folds=3, draws=100, jobs=1))
    for of, name, versus in ((result, "stack", "2d"), (heads, "linear", "prior")):
        by_rows, by_groups = (
            figure(
                figures_of(
                    of.predictors, of.truth.astype(int) if of.classes else of.truth, of.covered, groups,
                    task=task, draws=100, seed=0, references=(versus,),
                ),
                name,
                metric,
                versus=versus,
            )
            for groups in (None, of.groups)
        )  # fmt: skip
        written = figure(of.figures, name, metric, versus=versus)
        assert written.p == by_groups.p and written.low == by_groups.low != by_rows.low


def test_intermediate_fusion_stops_on_whole_groups_of_the_train_rows():
    from ig3d.learn.intermediate.config import IntermediateConfig
    from ig3d.learn.intermediate.plan import plan_modules

    for task in ("classes", "va"):
        table = grouped_table((TRAIN, TRAIN, TEST), task=task)
        rows = plan_modules(table, np.ones(len(table), bool), IntermediateConfig(), input_name="features")
        codes = table.group_codes
        assert len(rows.validation) > 5
        assert not np.isin(codes[rows.validation], codes[rows.train]).any()
        both = np.sort(np.concatenate([rows.train, rows.validation]))
        assert np.array_equal(both, np.flatnonzero(table.split == TRAIN))
        # the other side: the val split chooses where there is one, and no train row is lost
        table = grouped_table((TRAIN, VAL, TEST), task=task)
        rows = plan_modules(table, np.ones(len(table), bool), IntermediateConfig(), input_name="features")
        assert np.array_equal(rows.validation, np.flatnonzero(table.split == VAL))
        assert np.array_equal(rows.train, np.flatnonzero(table.split == TRAIN))


def test_a_cell_of_a_study_keeps_the_groups_of_its_store(tmp_path, monkeypatch):
    table = grouped_table((TEST,))
    store_of(tmp_path / "y.h5", table)
    Predictions(table.two_d, "logits", CLASSES, table.id).save(tmp_path / "x.npz")
    options = {"2d-logits": str(tmp_path / "x.npz"), "3d-store": str(tmp_path / "y.h5"), "head": "linear"}
    options |= {"rules": "stack", "draws": 200, "folds": 3, "repeats": 1, "permutations": 2}
    study = Study("toy", options, {"seed": {"a": 0, "b": 1}})
    result = run_study(study, tmp_path / "out", jobs=1)
    shown = table_of(result)
    for of in result.cells:
        assert of.record["protocol"]["groups_reported"] == len(np.unique(table.group_codes))
        sizes = [fit["fitted_on"]["ids_sha256"] for fit in of.record["protocol"]["fits"]["rules"]]
        config = FuseConfig(folds=3, repeats=1, seed=of.record["config"]["seed"])
        expected = [digest_of(table.id[fuser.fit]) for fuser in plan_fusion(table, config).fold_models]
        assert sizes == expected
    groups = result.cells[1].predictions().groups
    assert len(np.unique(groups)) == len(np.unique(table.group_codes))
    assert np.isfinite(shown.find(1, "stack", versus_cell=0).low)
