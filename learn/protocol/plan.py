"""Which rows are reported and which calibrate: the table's splits and groups decide, never a prediction's value."""

from __future__ import annotations

import numpy as np

from ...errors import ProtocolError
from ...features.fusion_table import FusionTable
from ...features.samples import Split
from ..config import FuseConfig
from ..rules import fits
from .cross_fit import Drawn, apart, fewer, in_folds, on_reported, with_codes
from .rows import Protocol
from .words import note_shared_groups, note_train, note_unlabelled, sentences_of

_EMPTY = np.zeros(0, np.intp)


def plan(table: FusionTable, config: FuseConfig) -> Protocol:
    """Choose reported, calibration and training rows (docs/protocol.md).

    Raises
    ------
    ProtocolError : the rows do not allow it: no labels or 2D predictions where they are needed, too few groups.
    """
    usable = table.labelled & table.has_2d
    declared = "the user" if config.two_d_out_of_fold else "their file" if table.two_d_out_of_fold else ""
    report_name, in_report, notes = _reported(table, usable, config)
    reported = np.flatnonzero(in_report & usable)
    needed = in_report & table.labelled
    calibration, fit_name = _calibration(table, usable, in_report, declared)
    if calibration is not None:
        needed = needed | (table.split_mask(fit_name) & table.labelled)
    left_out = _left_out(table, needed, config, notes)
    note_unlabelled(table, in_report, notes)
    note_train(table, reported, declared, notes)

    train = np.flatnonzero(table.split_mask("train") & table.labelled & table.covered & ~in_report)
    if table.three_d is not None:
        case = "ready"
    elif fit_name == "train":
        case = "out-of-fold"
    elif len(train):
        case = "once"
    else:
        case = "nested" if calibration is None else "out-of-fold"
    marked = config.fit_on == "reported"
    among = reported if calibration is None or marked else calibration
    _check_some(with_codes(table, among), among)
    if marked:
        if case == "out-of-fold" and len(train):
            case = "once"
        fit_name = f"{report_name} itself"
        heads, fusers, final, final_head = on_reported(table, reported, train, case, config, notes)
    elif calibration is None:
        drawn = Drawn.of(table, reported, config, least=3 if case == "nested" else 2)
        notes.extend(drawn.notes)
        fit_name = f"{drawn.count} folds of {report_name}"
        heads, fusers, final, final_head = in_folds(table, reported, train, drawn, case)
    else:
        heads, fusers, final, final_head = apart(
            table, reported, with_codes(table, calibration), train, case, config, notes
        )
    for fuser in fusers:
        _check_some(fuser.fit, among)
    sentences = sentences_of(
        table,
        case,
        report_name=report_name,
        fit_name=fit_name,
        reported=reported,
        calibration=among,
        folded=calibration is None and not marked,
        train=train,
        marked=marked,
        declared=declared,
        rules_fit=any(fits(name, config.calibrate) for name in config.rules),
    )
    if config.calibration_rows is not None:
        fusers = tuple(fewer(table, fuser, config.calibration_rows, config.seed) for fuser in fusers)
        final = fewer(table, final, config.calibration_rows, config.seed)
        notes.append(
            f"Rules are fitted on at most {config.calibration_rows} of these rows, drawn by the seed."
        )
    if table.grouped and not marked:
        note_shared_groups(table, reported, _EMPTY if calibration is None else final.fit, heads, notes)
    return Protocol(
        case,
        report_name,
        fit_name,
        reported,
        heads,
        fusers,
        final,
        final_head,
        marked,
        left_out,
        (*sentences, *notes),
        table.group_codes,
        table.split,
        table.id,
    )


def _reported(
    table: FusionTable, usable: np.ndarray, config: FuseConfig
) -> tuple[str, np.ndarray, list[str]]:
    """Name and mask of the reported part, with notes on the choice."""
    if config.report is not None:
        name = config.report
        mask = np.ones(len(table), bool) if name == "all" else table.split_mask(name)
        if not (mask & usable).any():
            raise ProtocolError(
                f"report: expected rows of {name} with a label and a 2D prediction, got {int(mask.sum())} rows, "
                f"{int((mask & table.labelled).sum())} with a label, {int((mask & table.has_2d).sum())} with a "
                "prediction"
            )
        return f"the {name} split" if name != "all" else "all rows", mask, []
    notes: list[str] = []
    for name in ("test", "val"):
        mask = table.split_mask(name)
        if (mask & usable).any():
            return f"the {name} split", mask, [*notes, f"Reported on {name}: assumed; --report chooses."]
        if (mask & table.labelled).any():
            notes.append(f"The {name} split has no 2D predictions and is not reported.")
    if not usable.any():
        raise ProtocolError(
            f"rows: expected some with a label and a 2D prediction, got {int(table.labelled.sum())} with a label, "
            f"{int(table.has_2d.sum())} with a prediction, none with both"
        )
    train, alone = table.split_mask("train"), table.split_mask("none")
    if train.all() or alone.all():
        said = "There is no test or val split to report; all rows are, by folds: assumed."
        return "all rows", np.ones(len(table), bool), [said]
    # A network is over-confident on what it was trained on: such rows are reported only where that was asked for.
    if not (alone & usable).any():
        raise ProtocolError(
            f"reported rows: expected 2D predictions outside of the train split, got {int(usable.sum())} labelled rows "
            "of the train split only; give those of another split, or report these all the same with --report train"
        )
    return "rows of no split", alone, [*notes, "Rows of no split are reported, by folds: assumed."]


def _calibration(
    table: FusionTable, usable: np.ndarray, in_report: np.ndarray, declared: str
) -> tuple[np.ndarray | None, str]:
    """Rows that rules are fitted on apart from the reported ones, and their split; None for folds."""
    if declared:
        known = table.split_mask("train") & usable
        if not known.any() and declared == "the user":
            raise ProtocolError("2d-out-of-fold: expected labelled train rows with 2D predictions, got none")
        # Where the train rows themselves are reported, there are none to fit on apart from them.
        if known.any() and not (known & in_report).any():
            return np.flatnonzero(known), "train"
    rows = np.flatnonzero(table.split_mask("val") & usable & ~in_report)
    return (rows, "val") if len(rows) else (None, "")


def _check_some(rows: np.ndarray, among: np.ndarray) -> None:
    """Refuse to fit rules on none of some rows."""
    if not len(rows):
        raise ProtocolError(
            f"codes: expected some among the {len(among)} rows that rules are fitted on, got none; look at the "
            "statuses with ig3d inspect"
        )


def _left_out(table: FusionTable, needed: np.ndarray, config: FuseConfig, notes: list[str]) -> int:
    """How many needed rows have no 2D prediction; refused where they have codes, unless that was allowed."""
    lacking = needed & ~table.has_2d
    coded = lacking & table.covered
    if coded.any() and not config.allow_missing:
        numbers, counts = np.unique(table.split[coded], return_counts=True)
        each = ", ".join(
            f"{count} of {Split(split).name}" for split, count in zip(numbers, counts, strict=True)
        )
        raise ProtocolError(
            f"2D predictions: expected one for each of the {int(needed.sum())} reported and calibration rows, got "
            f"none for {int(coded.sum())} rows with codes ({each}: {', '.join(table.id[coded][:3].tolist())}); give "
            "them, or leave these rows out with --allow-missing"
        )
    count = int(lacking.sum())
    if count:
        notes.append(
            f"{count} rows without a 2D prediction are left out of every figure ({int(coded.sum())} have codes)."
        )
    return count
