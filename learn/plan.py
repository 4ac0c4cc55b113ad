"""The evaluation plan: which rows are reported, and which rows each head and each fold model is fitted on.

It is made before any prediction is looked at: splits, groups and labels of the table decide, never the value of a
prediction. :func:`plan_fusion` and :func:`plan_heads` make it, its index arrays are all that fitting is given, and it
checks itself: no row is predicted by a model that was fitted on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ProtocolError
from ..features.fusion_table import FusionTable, digest_of
from ..features.samples import Split
from .config import FuseConfig, HeadsConfig
from .fold_models import FoldModel, Folds, HeadFit, apart, fewer, in_folds, with_codes
from .rules import fits

__all__ = ["EvaluationPlan", "FoldModel", "HeadFit", "plan_fusion", "plan_heads"]

_EMPTY = np.zeros(0, np.intp)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """Rows of a run that are reported, and rows that its models are fitted on.

    Attributes
    ----------
    case : ``once``, ``nested``, ``out-of-fold``, ``ready`` or ``folds``
        Source of the 3D predictions; ``folds`` is a plan of heads alone.
    report_name, fit_name : str
        The reported rows, and the rows that models are fitted on: ``the test split``, ``5 folds of all rows``.
    reported : sorted row indices
    heads : the heads to fit; empty if the 3D predictions are ready
    fold_models : the cross-fitted models whose predictions are reported
    final : FoldModel
        The refit on all calibration rows with 3D that is saved.
    final_head : number of the head that is saved, -1 if the 3D predictions are ready
    facts : counts and choices for the text of the plan (:func:`ig3d.learn.plan_text.sentences_of`)
    notes : assumptions and warnings about the rows
    left_out : int
        Reported or calibration rows without 2D prediction.
    groups : (n,) int over all rows of the table
        Rows of one group are on one side of every fold.
    splits : (n,) int codes of :class:`~ig3d.features.samples.Split`
    ids : (n,) str

    Raises
    ------
    ProtocolError : a row would be predicted by a model that was fitted on it, or on its group within the same rows.
    """

    case: str
    report_name: str
    fit_name: str
    reported: np.ndarray
    heads: tuple[HeadFit, ...]
    fold_models: tuple[FoldModel, ...]
    final: FoldModel
    final_head: int
    groups: np.ndarray
    splits: np.ndarray
    ids: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: int = 0

    def __post_init__(self) -> None:
        applied = np.sort(np.concatenate([model.apply for model in self.fold_models]))
        if not np.array_equal(applied, self.reported):
            raise ProtocolError("plan: expected every reported row to be predicted once, got another plan")
        for model in self.fold_models:
            if self._meet(model.fit, model.apply):
                raise ProtocolError(
                    "plan: expected rules never to see the rows they are applied to, nor their groups, got some"
                )
        for model in (*self.fold_models, self.final):
            for rows, heads in ((model.fit, model.heads_fit), (model.apply, model.heads_apply)):
                for number in heads:
                    head = self.heads[number]
                    if self._meet(head.train, np.intersect1d(head.predict, rows)):
                        raise ProtocolError(
                            "plan: expected heads never to predict rows they saw, nor of their groups, got some"
                        )
        for model in self.fold_models:
            for number in model.heads_fit:
                if self._meet(self.heads[number].train, model.apply):
                    raise ProtocolError(
                        "plan: expected rules never to be fitted to predictions of heads that saw the rows they are "
                        "applied to, nor their groups, got some"
                    )

    def _meet(self, fitted: np.ndarray, predicted: np.ndarray) -> bool:
        """Whether rows are on both sides, or groups within one split or among rows that folds were drawn of.

        The dataset's own splits may share groups; a note reports it.
        """
        parts = 8 * self.groups + self.splits
        if np.isin(predicted, fitted).any() or np.isin(parts[predicted], parts[fitted]).any():
            return True
        return any(
            np.isin(
                self.groups[predicted[np.isin(predicted, drawn)]], self.groups[fitted[np.isin(fitted, drawn)]]
            ).any()
            for drawn in (self.reported, self.final.fit)
        )

    @property
    def calibration(self) -> np.ndarray:
        """Row indices that the saved rules are fitted on."""
        return self.final.fit

    @property
    def sentences(self) -> tuple[str, ...]:
        """The plan in words, and its notes."""
        from .plan_text import sentences_of

        return (*sentences_of(self), *self.notes)

    def record(self) -> dict[str, Any]:
        """Rows of each fit, for ``record.json``: counts, and SHA-256 of the sorted ids."""

        def rows(index: np.ndarray) -> dict[str, Any]:
            return {"rows": len(index), "ids_sha256": digest_of(self.ids[index])}

        return {
            "heads": [{"fitted_on": rows(head.train), "predicts": rows(head.predict)} for head in self.heads],
            "rules": [
                {
                    "fitted_on": rows(model.fit),
                    "heads_there": list(model.heads_fit),
                    "applied_to": rows(model.apply),
                    "heads_here": list(model.heads_apply),
                }
                for model in self.fold_models
            ],
        }


def plan_fusion(table: FusionTable, config: FuseConfig) -> EvaluationPlan:
    """Choose reported, calibration and training rows of a fusion (docs/protocol.md).

    Raises
    ------
    ProtocolError : the rows do not allow it: no labels or 2D predictions where they are needed, too few groups.
    """
    usable = table.labelled & table.has_2d
    declared = "the user" if config.two_d_out_of_fold else "their file" if table.two_d_out_of_fold else ""
    report_name, in_report, notes = _reported(table, usable, config.report)
    reported = np.flatnonzero(in_report & usable)
    needed = in_report & table.labelled
    calibration, fit_name = _calibration(table, usable, in_report, declared)
    if calibration is not None:
        needed = needed | (table.split_mask(fit_name) & table.labelled)
    left_out = _left_out(table, needed, config.allow_missing, notes)
    _note_unlabelled(table, in_report, notes)
    _note_train(table, reported, declared, notes)

    train = np.flatnonzero(table.split_mask("train") & table.labelled & table.covered & ~in_report)
    if table.three_d is not None:
        case = "ready"
    elif fit_name == "train":
        case = "out-of-fold"
    elif len(train):
        case = "once"
    else:
        case = "nested" if calibration is None else "out-of-fold"
    among = reported if calibration is None else calibration
    _check_some(with_codes(table, among), among)
    if calibration is None:
        folds = Folds.of(table, reported, config.folds, config.seed, least=3 if case == "nested" else 2)
        notes.extend(folds.notes)
        fit_name = f"{folds.count} folds of {report_name}"
        heads, models, final, final_head = in_folds(table, reported, train, folds, case)
    else:
        fitted = with_codes(table, calibration)
        heads, models, final, final_head = apart(table, reported, fitted, train, case, config, notes)
    for model in models:
        _check_some(model.fit, among)
    facts = {
        "three_d": "3D codes" if table.three_d is None else "3D predictions",
        "covered": int(table.covered[reported].sum()),
        "calibration": len(among),
        "calibration_covered": int(table.covered[among].sum()),
        "folded": calibration is None,
        "train": len(train),
        "has_train": bool(table.split_mask("train").any()),
        "grouped": table.grouped,
        "rules_fit": any(fits(name, config.calibrate) for name in config.rules),
        "declared": declared if fit_name == "train" else "",
    }
    if config.calibration_rows is not None:
        models = tuple(fewer(table, model, config.calibration_rows, config.seed) for model in models)
        final = fewer(table, final, config.calibration_rows, config.seed)
        notes.append(
            f"Rules are fitted on at most {config.calibration_rows} of these rows, drawn by the seed."
        )
    if table.grouped:
        _note_shared_groups(table, reported, _EMPTY if calibration is None else final.fit, heads, notes)
    return EvaluationPlan(
        case=case,
        report_name=report_name,
        fit_name=fit_name,
        reported=reported,
        heads=heads,
        fold_models=models,
        final=final,
        final_head=final_head,
        groups=table.group_codes,
        splits=table.split,
        ids=table.id,
        facts=facts,
        notes=tuple(notes),
        left_out=left_out,
    )


def plan_heads(table: FusionTable, config: HeadsConfig) -> EvaluationPlan:
    """Choose reported and training rows of heads alone (docs/heads.md).

    Raises
    ------
    ProtocolError : no labelled rows to report, none to learn from, or too few groups for folds.
    """
    name, mask, notes = _reported(table, table.labelled, config.report, two_d=False)
    reported = np.flatnonzero(mask & table.labelled)
    learnable = table.labelled & table.covered & ~mask
    _note_unlabelled(table, mask, notes)
    fit_name, train = "", _EMPTY
    for split in ("val", "train"):
        rows = np.flatnonzero(table.split_mask(split) & learnable)
        if len(rows):
            fit_name, train = f"the {split} split", rows
    if len(train):
        heads: tuple[HeadFit, ...] = (HeadFit(train, np.setdiff1d(np.flatnonzero(table.covered), train)),)
        models: tuple[FoldModel, ...] = (FoldModel(train, reported, (), (0,)),)
    else:
        folds = Folds.of(table, reported, config.folds, config.seed)
        fit_name = f"{folds.count} folds of {name}"
        heads = tuple(
            HeadFit(with_codes(table, folds.but(i)), with_codes(table, folds.rows_of(i)))
            for i in range(folds.count)
        )
        if not all(len(head.train) for head in heads):
            raise ProtocolError(
                "codes: expected rows with 3D codes to learn from, got none; look at the statuses with ig3d inspect"
            )
        models = tuple(FoldModel(head.train, folds.rows_of(i), (), (i,)) for i, head in enumerate(heads))
        notes += folds.notes
    if table.grouped:
        _note_shared_groups(table, reported, _EMPTY, heads, notes)
    covered = int(table.covered[reported].sum())
    if covered < len(reported):
        notes.append(
            f"{len(reported) - covered} of {len(reported)} reported rows have no 3D codes: every head predicts the "
            "prior there; figures of the rows with codes are in the files."
        )
    return EvaluationPlan(
        case="once" if len(train) else "folds",
        report_name=name,
        fit_name=fit_name,
        reported=reported,
        heads=heads,
        fold_models=models,
        final=FoldModel(train if len(train) else with_codes(table, reported), _EMPTY),
        final_head=-1,
        groups=table.group_codes,
        splits=table.split,
        ids=table.id,
        facts={"heads_alone": True, "covered": covered, "train": len(train), "grouped": table.grouped},
        notes=tuple(notes),
    )


def _reported(
    table: FusionTable, usable: np.ndarray, asked: str | None, *, two_d: bool = True
) -> tuple[str, np.ndarray, list[str]]:
    """Name and mask of the reported part, with notes on the choice.

    Parameters
    ----------
    usable : (n,) bool
        Labelled rows, with a 2D prediction if ``two_d``.
    """
    wanted = "a label and a 2D prediction" if two_d else "a label"
    every = np.ones(len(table), bool)
    if asked is not None:
        mask = every if asked == "all" else table.split_mask(asked)
        if not (mask & usable).any():
            counts = f"{int(mask.sum())} rows, {int((mask & table.labelled).sum())} with a label"
            counts += f", {int((mask & table.has_2d).sum())} with a prediction" if two_d else ""
            raise ProtocolError(f"report: expected rows of {asked} with {wanted}, got {counts}")
        return f"the {asked} split" if asked != "all" else "all rows", mask, []
    notes: list[str] = []
    for name in ("test", "val"):
        mask = table.split_mask(name)
        if (mask & usable).any():
            return f"the {name} split", mask, [*notes, f"Reported on {name}: assumed; --report chooses."]
        if (mask & table.labelled).any():
            notes.append(f"The {name} split has no 2D predictions and is not reported.")
    if not usable.any():
        counts = f"{int(table.labelled.sum())} with a label"
        counts += f", {int(table.has_2d.sum())} with a prediction, none with both" if two_d else ""
        raise ProtocolError(f"rows: expected some with {wanted}, got {counts} of {len(table)}")
    train, alone = table.split_mask("train"), table.split_mask("none")
    if (train.all() or alone.all()) or (not two_d and not (alone & usable).any()):
        note = "There is no test or val split to report; all rows are, by folds: assumed."
        return "all rows", every, [note]
    # A network is over-confident on its training rows: they are reported only on request.
    if not (alone & usable).any():
        raise ProtocolError(
            f"reported rows: expected 2D predictions outside of the train split, got {int(usable.sum())} labelled rows "
            "of the train split only; give those of another split, or report these all the same with --report train"
        )
    how = "by folds: assumed." if two_d else "assumed; --report chooses."
    return "rows of no split", alone, [*notes, f"Rows of no split are reported{',' if two_d else ':'} {how}"]


def _calibration(
    table: FusionTable, usable: np.ndarray, in_report: np.ndarray, declared: str
) -> tuple[np.ndarray | None, str]:
    """Rows that rules are fitted on apart from the reported ones, and their split; None for folds."""
    if declared:
        known = table.split_mask("train") & usable
        if not known.any() and declared == "the user":
            raise ProtocolError("2d-out-of-fold: expected labelled train rows with 2D predictions, got none")
        # Reported train rows leave none to fit on apart from them.
        if known.any() and not (known & in_report).any():
            return np.flatnonzero(known), "train"
    rows = np.flatnonzero(table.split_mask("val") & usable & ~in_report)
    return (rows, "val") if len(rows) else (None, "")


def _check_some(rows: np.ndarray, among: np.ndarray) -> None:
    """Refuse to fit rules on no rows."""
    if not len(rows):
        raise ProtocolError(
            f"codes: expected some among the {len(among)} rows that rules are fitted on, got none; look at the "
            "statuses with ig3d inspect"
        )


def _left_out(table: FusionTable, needed: np.ndarray, allowed: bool, notes: list[str]) -> int:
    """Number of needed rows without a 2D prediction; refused if they have codes, unless that was allowed."""
    missing = needed & ~table.has_2d
    coded = missing & table.covered
    if coded.any() and not allowed:
        numbers, counts = np.unique(table.split[coded], return_counts=True)
        each = ", ".join(
            f"{count} of {Split(split).name}" for split, count in zip(numbers, counts, strict=True)
        )
        raise ProtocolError(
            f"2D predictions: expected one for each of the {int(needed.sum())} reported and calibration rows, got "
            f"none for {int(coded.sum())} rows with codes ({each}: {', '.join(table.id[coded][:3].tolist())}); give "
            "them, or leave these rows out with --allow-missing"
        )
    count = int(missing.sum())
    if count:
        notes.append(
            f"{count} rows without a 2D prediction are left out of every figure ({int(coded.sum())} have codes)."
        )
    return count


def _note_shared_groups(
    table: FusionTable,
    reported: np.ndarray,
    calibration: np.ndarray,
    heads: tuple[HeadFit, ...],
    notes: list[str],
) -> None:
    """Note that the dataset's own splits have persons or videos on both sides.

    ``calibration`` are rows apart from the reported ones; none with folds, which keep groups whole.
    """
    groups = table.group_codes
    trained = np.unique(np.concatenate([head.train for head in heads])) if heads else _EMPTY
    trained = np.setdiff1d(trained, reported)
    for name, rows in (("calibration", calibration), ("training", trained)):
        shared = np.intersect1d(groups[rows], groups[reported])
        if len(shared):
            notes.append(
                f"WARNING {len(shared)} groups of the reported rows also stand among the {name} rows: the dataset's "
                "splits share them, and figures are likely too good."
            )


def _note_unlabelled(table: FusionTable, in_report: np.ndarray, notes: list[str]) -> None:
    """Note the number of reported rows without a label."""
    count = int((in_report & ~table.labelled).sum())
    if count:
        notes.append(f"Reported rows without a label, left out: {count}.")


def _note_train(table: FusionTable, reported: np.ndarray, declared: str, notes: list[str]) -> None:
    """Note that rows are reported on which the 2D network may have been trained."""
    count = int(table.split_mask("train")[reported].sum())
    if count and declared:
        notes.append(
            f"2D predictions of the {count} reported rows of the train split were declared out of fold by {declared}."
        )
    elif count:
        notes.append(
            f"WARNING {count} reported rows are of the train split: if the 2D network was trained on them its figures "
            "are too good; pass --2d-out-of-fold if its predictions are out of fold."
        )
