"""The evaluation plan: which rows are reported, and which rows each head and each fold model is fitted on.

It depends on splits, groups and labels of the table, never on the value of a prediction. :func:`plan_fusion` and
:func:`plan_heads` make it. Models are fitted by its index arrays only, and it checks itself: no row is predicted by a
model that was fitted on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ProtocolError, plural
from ..features.fusion_table import FusionTable, digest_of
from ..features.samples import Split
from .config import FuseConfig, HeadsConfig
from .fold_models import (
    IN_FOLDS,
    NESTED,
    NO_HEAD,
    ONCE,
    OUT_OF_FOLD,
    FoldModel,
    Folds,
    HeadFit,
    fit_in_folds,
    fit_on_split,
    subsample,
    with_codes,
)
from .rules import fits

__all__ = ["EvaluationPlan", "FoldModel", "HeadFit", "plan_fusion", "plan_heads"]

_EMPTY = np.zeros(0, np.intp)
# Ends of sentences: where the user declared that 2D predictions of train rows are out of fold.
_BY_OPTION, _BY_FILE = "with --2d-out-of-fold", "in their file"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """Rows of a run that are reported, and rows that its heads and rules are fitted on.

    Attributes
    ----------
    head_fitting : ``once``, ``nested``, ``out-of-fold``, ``none``, ``in folds`` or ``intermediate``
        How the head that predicts from the codes is fitted. ``once``: on the train rows. ``nested``: in each fold on
        the other folds, and in inner folds for the rows that rules are fitted on. ``out-of-fold``: on the rows that
        rules are fitted on, which it predicts out of fold. ``none``: the 3D predictions come from a file.
        ``in folds``: heads without rules, in each fold on the other folds. ``intermediate``: a module is trained
        instead of a head.
    report_name, fit_name : str
        The reported rows, and the rows that models are fitted on, for texts: ``the test split``,
        ``5 folds of all rows``.
    reported : sorted row indices
    heads : the heads to fit; empty if the 3D predictions come from a file
    fold_models : the cross-fitted models whose predictions are reported
    final_model : FoldModel
        The rules that are saved: fitted on the calibration rows with 3D, applied to no row.
    final_head_index : index of the head that is saved, -1 if there is none
    groups : (n,) int over all n rows of the table
        The rows of a group are in one fold.
    splits : (n,) int codes of :class:`~ig3d.features.samples.Split`
    ids : (n,) str
    facts : dict
        Counts and settings for the text of the plan (:func:`ig3d.learn.plan_text.sentences_of`): ``covered``, ``train``
        and ``grouped``. Heads alone: ``heads_alone``. Fusion: ``three_d``, ``calibration``, ``calibration_covered``,
        ``folded``, ``has_train``, ``rules_fit`` and ``declared``.
    notes : assumptions and warnings about the rows
    left_out : int
        Number of reported and calibration rows without a 2D prediction.

    Raises
    ------
    ProtocolError : a model would predict a row that it is fitted on, or a row of a group that it is fitted on, if both
        rows are of one split or both are cross-fitted.
    """

    head_fitting: str
    report_name: str
    fit_name: str
    reported: np.ndarray
    heads: tuple[HeadFit, ...]
    fold_models: tuple[FoldModel, ...]
    final_model: FoldModel
    final_head_index: int
    groups: np.ndarray
    splits: np.ndarray
    ids: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: int = 0

    def __post_init__(self) -> None:
        applied = np.sort(np.concatenate([model.apply for model in self.fold_models]))
        if not np.array_equal(applied, self.reported):
            raise ProtocolError(
                f"plan: {len(applied)} predictions for {len(self.reported)} reported rows, which need one each"
            )
        for model in self.fold_models:
            if self._leaks(model.fit, model.apply):
                raise ProtocolError(
                    "plan: rules would be applied to rows (or groups) that they are fitted on"
                )
        for model in (*self.fold_models, self.final_model):
            for rows, heads in ((model.fit, model.heads_fit), (model.apply, model.heads_apply)):
                for number in heads:
                    head = self.heads[number]
                    if self._leaks(head.train, np.intersect1d(head.predict, rows)):
                        raise ProtocolError(
                            "plan: a head would predict rows (or groups) that it is fitted on"
                        )
        for model in self.fold_models:
            for number in model.heads_fit:
                if self._leaks(self.heads[number].train, model.apply):
                    raise ProtocolError(
                        "plan: rules would be fitted on predictions of a head that is fitted on the rows (or groups) "
                        "they are applied to"
                    )

    def _leaks(self, fitted: np.ndarray, predicted: np.ndarray) -> bool:
        """Whether a fitted and a predicted row are the same, or of one group that must not be divided.

        Groups must not be divided within a split or within the cross-fitted rows. Different splits of the dataset may
        share groups; a note reports it.
        """
        # a number for each group in each split; split codes are below 8
        group_in_split = 8 * self.groups + self.splits
        if np.isin(predicted, fitted).any():
            return True
        if np.isin(group_in_split[predicted], group_in_split[fitted]).any():
            return True
        for cross_fitted in (self.reported, self.final_model.fit):
            fitted_part = fitted[np.isin(fitted, cross_fitted)]
            predicted_part = predicted[np.isin(predicted, cross_fitted)]
            if np.isin(self.groups[predicted_part], self.groups[fitted_part]).any():
                return True
        return False

    @property
    def calibration(self) -> np.ndarray:
        """Row indices that the saved rules are fitted on."""
        return self.final_model.fit

    @property
    def sentences(self) -> tuple[str, ...]:
        """The plan in words, and its notes."""
        from .plan_text import sentences_of

        return (*sentences_of(self), *self.notes)

    def record(self) -> dict[str, Any]:
        """Rows of each head and each fold model, for ``record.json``: counts, and SHA-256 of the ids."""

        def rows(index: np.ndarray) -> dict[str, Any]:
            return {"rows": len(index), "ids_sha256": digest_of(self.ids[index])}

        return {
            "heads": [{"fitted_on": rows(head.train), "predicts": rows(head.predict)} for head in self.heads],
            "rules": [
                {
                    "fitted_on": rows(model.fit),
                    "heads_for_fitting": list(model.heads_fit),
                    "applied_to": rows(model.apply),
                    "heads_for_applying": list(model.heads_apply),
                }
                for model in self.fold_models
            ],
        }


def plan_fusion(table: FusionTable, config: FuseConfig) -> EvaluationPlan:
    """Choose reported, calibration and training rows of a fusion (docs/protocol.md).

    Raises
    ------
    ProtocolError : no evaluation is possible: labels or 2D predictions are missing, or there are too few groups.
    """
    usable = table.labelled & table.has_2d
    if config.two_d_out_of_fold and table.two_d_training_rows:
        raise ProtocolError(
            f"2d-out-of-fold: {table.sources.get('2d', 'the 2D file')} records that the network was trained on the "
            f"images of {plural(table.two_d_training_rows, 'row')}, whose predictions are therefore not out of fold; "
            "leave out --2d-out-of-fold, or predict them with ig3d train-2d --out-of-fold"
        )
    declared = _BY_OPTION if config.two_d_out_of_fold else _BY_FILE if table.two_d_out_of_fold else ""
    report_name, report_part, notes = _part_to_report(table, usable, config.report)
    reported = np.flatnonzero(report_part & usable)
    needed = report_part & table.labelled
    separate, fit_split = _separate_calibration(table, usable, report_part, declared)
    if separate is not None:
        needed = needed | (table.split_mask(fit_split) & table.labelled)
    left_out = _left_out(table, needed, config.allow_missing, notes)
    _note_unlabelled(table, report_part, notes)
    _note_train(table, reported, declared, notes)

    train = np.flatnonzero(table.split_mask("train") & table.labelled & table.covered & ~report_part)
    if table.three_d is not None:
        head_fitting = NO_HEAD
    elif fit_split == "train":
        head_fitting = OUT_OF_FOLD
    elif len(train):
        head_fitting = ONCE
    else:
        head_fitting = NESTED if separate is None else OUT_OF_FOLD
    calibration = reported if separate is None else separate
    _require_rows(with_codes(table, calibration), calibration)
    if separate is None:
        least = 3 if head_fitting == NESTED else 2  # inner heads are fitted without two folds
        folds = Folds.of(table, reported, config.folds, config.seed, least=least)
        notes.extend(folds.notes)
        fit_name = f"{folds.count} folds of {report_name}"
        heads, models, final_model, final_head_index = fit_in_folds(
            table, reported, train, folds, head_fitting
        )
    else:
        fit_name = f"the {fit_split} split"
        heads, models, final_model, final_head_index = fit_on_split(
            table, reported, with_codes(table, separate), train, head_fitting, config, notes
        )
    for model in models:
        _require_rows(model.fit, calibration)
    facts = {
        "three_d": "3D codes" if table.three_d is None else "3D predictions",
        "covered": int(table.covered[reported].sum()),
        "calibration": len(calibration),
        "calibration_covered": int(table.covered[calibration].sum()),
        "folded": separate is None,
        "train": len(train),
        "has_train": bool(table.split_mask("train").any()),
        "grouped": table.grouped,
        "rules_fit": any(fits(name, config.calibrate) for name in config.rules),
        "declared": declared if fit_split == "train" else "",
    }
    if config.calibration_rows is not None:
        models = tuple(subsample(table, model, config.calibration_rows, config.seed) for model in models)
        final_model = subsample(table, final_model, config.calibration_rows, config.seed)
        notes.append(
            f"Rules are fitted on at most {config.calibration_rows} calibration rows, drawn at random with the seed."
        )
    if table.grouped:
        _note_shared_groups(table, reported, _EMPTY if separate is None else final_model.fit, heads, notes)
    return EvaluationPlan(
        head_fitting=head_fitting,
        report_name=report_name,
        fit_name=fit_name,
        reported=reported,
        heads=heads,
        fold_models=models,
        final_model=final_model,
        final_head_index=final_head_index,
        groups=table.group_codes,
        splits=table.split,
        ids=table.id,
        facts=facts,
        notes=tuple(notes),
        left_out=left_out,
    )


def plan_heads(table: FusionTable, config: HeadsConfig) -> EvaluationPlan:
    """Choose reported and training rows of heads without rules (docs/heads.md).

    Raises
    ------
    ProtocolError : no labelled rows to report, none to learn from, or too few groups for folds.
    """
    name, report_part, notes = _part_to_report(table, table.labelled, config.report, two_d=False)
    reported = np.flatnonzero(report_part & table.labelled)
    trainable = table.labelled & table.covered & ~report_part
    _note_unlabelled(table, report_part, notes)
    fit_name, train = "", _EMPTY
    for split in ("train", "val"):
        rows = np.flatnonzero(table.split_mask(split) & trainable)
        if len(rows):
            fit_name, train = f"the {split} split", rows
            break
    if len(train):
        heads: tuple[HeadFit, ...] = (HeadFit(train, np.setdiff1d(np.flatnonzero(table.covered), train)),)
        models: tuple[FoldModel, ...] = (FoldModel(train, reported, (), (0,)),)
    else:
        folds = Folds.of(table, reported, config.folds, config.seed)
        fit_name = f"{folds.count} folds of {name}"
        heads = tuple(
            HeadFit(with_codes(table, folds.rows_except(i)), with_codes(table, folds.rows_of(i)))
            for i in range(folds.count)
        )
        if not all(len(head.train) for head in heads):
            raise ProtocolError(
                "codes: no row has 3D codes to train a head on; check the status of the rows with ig3d inspect"
            )
        models = tuple(FoldModel(head.train, folds.rows_of(i), (), (i,)) for i, head in enumerate(heads))
        notes += folds.notes
    if table.grouped:
        _note_shared_groups(table, reported, _EMPTY, heads, notes)
    covered = int(table.covered[reported].sum())
    if covered < len(reported):
        notes.append(
            f"{len(reported) - covered} of {plural(len(reported), 'reported row')} without 3D codes: every head "
            "predicts the class shares (or means) of its training rows for them; figures.csv also has results of the "
            "rows with codes."
        )
    return EvaluationPlan(
        head_fitting=ONCE if len(train) else IN_FOLDS,
        report_name=name,
        fit_name=fit_name,
        reported=reported,
        heads=heads,
        fold_models=models,
        final_model=FoldModel(train if len(train) else with_codes(table, reported), _EMPTY),
        final_head_index=-1,
        groups=table.group_codes,
        splits=table.split,
        ids=table.id,
        facts={"heads_alone": True, "covered": covered, "train": len(train), "grouped": table.grouped},
        notes=tuple(notes),
    )


def _part_to_report(
    table: FusionTable, usable: np.ndarray, report: str | None, *, two_d: bool = True
) -> tuple[str, np.ndarray, list[str]]:
    """Part of the table to report: its name, a mask (n,) of all its rows, and notes on the choice.

    Parameters
    ----------
    table : FusionTable of n rows
    usable : (n,) bool
        Rows with a label, and with a 2D prediction if ``two_d``.
    report : split, or ``all``; by default test, else val, else the rows without a split, else all
    """
    required = "a label and a 2D prediction" if two_d else "a label"
    every_row = np.ones(len(table), bool)
    if report is not None:
        mask = every_row if report == "all" else table.split_mask(report)
        part = "all rows" if report == "all" else f"the {report} split"
        if not (mask & usable).any():
            counts = f"{plural(int(mask.sum()), 'row')}, {int((mask & table.labelled).sum())} with a label"
            counts += f", {int((mask & table.has_2d).sum())} with a prediction" if two_d else ""
            raise ProtocolError(f"report: {part} has no row with {required} ({counts})")
        return part, mask, []
    notes: list[str] = []
    for name in ("test", "val"):
        mask = table.split_mask(name)
        if (mask & usable).any():
            return (
                f"the {name} split",
                mask,
                [*notes, f"The {name} split is reported by default; --report changes this."],
            )
        if (mask & table.labelled).any():
            notes.append(f"The {name} split has no 2D predictions and is not reported.")
    if not usable.any():
        counts = f"{int(table.labelled.sum())} with a label"
        counts += f", {int(table.has_2d.sum())} with a prediction, none with both" if two_d else ""
        raise ProtocolError(f"rows: no row of {len(table)} has {required} ({counts})")
    train, unassigned = table.split_mask("train"), table.split_mask("none")
    without_splits = train.all() or unassigned.all()
    if without_splits or (not two_d and not (unassigned & usable).any()):
        reason = "There is no test or val split" if without_splits else "No test or val row has a label"
        return "all rows", every_row, [f"{reason}: all rows are reported by default, cross-fitted in folds."]
    # A network is over-confident on its training rows. Beside other rows, they are reported only on request.
    if not (unassigned & usable).any():
        raise ProtocolError(
            f"reported rows: {plural(int(usable.sum()), 'labelled row')} with a 2D prediction, only of the train "
            "split; give predictions of another split, or report these rows with --report train"
        )
    note = f"Rows without a split are reported by default{', cross-fitted in folds' if two_d else ''}."
    return "the rows without a split", unassigned, [*notes, f"{note} --report changes this."]


def _separate_calibration(
    table: FusionTable, usable: np.ndarray, report_part: np.ndarray, declared: str
) -> tuple[np.ndarray | None, str]:
    """Indices of calibration rows that are not reported, and their split; None and "" if rules are cross-fitted."""
    if declared:
        train = table.split_mask("train") & usable
        if not train.any() and declared == _BY_OPTION:
            raise ProtocolError(
                "2d-out-of-fold: no labelled train row has a 2D prediction; leave out --2d-out-of-fold"
            )
        if train.any() and not (train & report_part).any():
            return np.flatnonzero(train), "train"
    rows = np.flatnonzero(table.split_mask("val") & usable & ~report_part)
    return (rows, "val") if len(rows) else (None, "")


def _require_rows(rows: np.ndarray, calibration: np.ndarray) -> None:
    """Raise an error if there are no rows with 3D to fit rules on."""
    if not len(rows):
        raise ProtocolError(
            f"codes: rules are fitted on {plural(len(calibration), 'row')}, none with 3D codes; check their status "
            "with ig3d inspect"
        )


def _left_out(table: FusionTable, needed: np.ndarray, allowed: bool, notes: list[str]) -> int:
    """Number of needed rows without a 2D prediction, with a note on them.

    Raises
    ------
    ProtocolError : some of these rows have codes, and this is not ``allowed``.
    """
    missing = needed & ~table.has_2d
    with_3d = missing & table.covered
    if with_3d.any() and not allowed:
        numbers, counts = np.unique(table.split[with_3d], return_counts=True)
        each = ", ".join(
            f"{count} of {Split(split).name}" for split, count in zip(numbers, counts, strict=True)
        )
        raise ProtocolError(
            f"2D predictions: {int(with_3d.sum())} of the {int(needed.sum())} reported and calibration rows have "
            f"codes, but no 2D prediction ({each}: {', '.join(table.id[with_3d][:3].tolist())}); add the predictions "
            "(ig3d logits --like STORE), or leave these rows out with --allow-missing"
        )
    count = int(missing.sum())
    if count:
        notes.append(
            f"{plural(count, 'row')} without a 2D prediction left out of all results, {int(with_3d.sum())} of them "
            "with codes."
        )
    return count


def _note_shared_groups(
    table: FusionTable,
    reported: np.ndarray,
    calibration: np.ndarray,
    heads: tuple[HeadFit, ...],
    notes: list[str],
) -> None:
    """Note that persons or videos occur in several splits of the dataset.

    ``calibration`` are row indices of a separate split; empty if rules are cross-fitted, because folds do not divide
    groups.
    """
    groups = table.group_codes
    trained = np.unique(np.concatenate([head.train for head in heads])) if heads else _EMPTY
    trained = np.setdiff1d(trained, reported)
    for name, rows in (("calibration", calibration), ("training", trained)):
        shared = np.intersect1d(groups[rows], groups[reported])
        if len(shared):
            notes.append(
                f"WARNING {plural(len(shared), 'group')} (persons or videos) shared by the reported and the {name} "
                "rows: results are probably too optimistic."
            )


def _note_unlabelled(table: FusionTable, report_part: np.ndarray, notes: list[str]) -> None:
    """Note the number of reported rows without a label."""
    count = int((report_part & ~table.labelled).sum())
    if count:
        notes.append(f"{plural(count, 'reported row')} without a label left out.")


def _note_train(table: FusionTable, reported: np.ndarray, declared: str, notes: list[str]) -> None:
    """Note that rows are reported on which the 2D network may have been trained."""
    count = int(table.split_mask("train")[reported].sum())
    if count and declared:
        notes.append(
            f"2D predictions of the {plural(count, 'reported row')} of the train split were declared out of fold "
            f"{declared}."
        )
    elif count:
        notes.append(
            f"WARNING {plural(count, 'reported row')} of the train split: if the 2D network was trained on them, its "
            "results are too optimistic; pass --2d-out-of-fold if its predictions are out of fold."
        )
