"""The protocol in words: the sentences that are printed and stored with every result."""

from __future__ import annotations

import numpy as np

from ...features.fusion_table import FusionTable
from .rows import HeadFit

_EMPTY = np.zeros(0, np.intp)


def note_shared_groups(
    table: FusionTable,
    reported: np.ndarray,
    calibration: np.ndarray,
    heads: tuple[HeadFit, ...],
    notes: list[str],
) -> None:
    """Say where the dataset's own splits let a person or video stand on both sides.

    ``calibration`` are rows apart from the reported ones: none where these are folded, which keeps groups whole.
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


def sentences_of(
    table: FusionTable,
    case: str,
    *,
    report_name: str,
    fit_name: str,
    reported: np.ndarray,
    calibration: np.ndarray,
    train: np.ndarray,
    folded: bool,
    marked: bool,
    rules_fit: bool,
    declared: str,
) -> list[str]:
    """The protocol in words.

    Parameters
    ----------
    table, case, report_name, fit_name, reported : as :class:`~.rows.Protocol` has them
    calibration : row indices
        What is there to fit rules on, with 3D and without.
    train : row indices, what the head learns from
    folded : whether each reported row is fused by what was fitted on other folds of them
    marked : whether rules are fitted on the reported rows
    rules_fit : whether a rule fits anything; the recalibrated 2D network always does
    declared : who declared 2D predictions of the train split out of fold
    """
    what = "3D codes" if table.three_d is None else "3D predictions"
    covered, fitted = (int(table.covered[rows].sum()) for rows in (reported, calibration))
    lines = [f"Reported: {report_name}, {len(reported)} rows, {covered} of them with {what}."]
    some = fitted < len(calibration)
    rules = "Rules fitted" if rules_fit else "Rules fit nothing; 2d-recalibrated is fitted"
    if marked:
        who = "rules were" if rules_fit else "2d-recalibrated was"
        lines.append(
            f"MARKED †: {who} fitted on {fit_name}, the very rows that are reported. These figures flatter; they exist "
            "to reproduce papers."
        )
    elif folded:
        # Whoever made ready 3D predictions of one fold may have learnt from the others.
        apart = ("no row is fused by rules fitted on it", "each row is fused by parameters that never saw it")
        lines.append(
            f"{rules} on {fit_name}"
            + (f", on the {fitted} rows with {what}: " if some else ": ")
            + apart[table.three_d is None]
            + (", nor its group." if table.grouped else ".")
        )
    else:
        lines.append(
            f"{rules} on the {fit_name} split, "
            + (
                f"{fitted} of {len(calibration)} rows: the others have no {what}."
                if some
                else f"{fitted} rows."
            )
        )
    lines.append(_head_in_words(table, case, fit_name, len(train), marked=marked, rules_fit=rules_fit))
    if case == "out-of-fold" and fit_name == "train":
        lines.append(f"2D predictions of the train split were declared out of fold by {declared}.")
    return lines


def _head_in_words(
    table: FusionTable, case: str, fit_name: str, train: int, *, marked: bool, rules_fit: bool
) -> str:
    """Where the 3D predictions come from, and which of them rules are fitted to."""
    if case == "ready":
        return "3D predictions are taken as given: which rows they were learnt from is not known here."
    if case == "once":
        return f"The head on the codes was fitted once, on {train} train rows, and never refitted."
    there = table.split_mask("train").any()
    no_train = "No train rows are left for the head" if there else "There is no train split"
    if marked:
        return f"{no_train}: its predictions are out of fold, over folds of the reported rows."
    if case == "nested":
        inner = ", and the rules see its inner out-of-fold predictions" if rules_fit else ""
        return f"{no_train}: in each fold the head is fitted on the other folds{inner}."
    if not rules_fit:
        return f"The head on the codes was fitted on the {fit_name} rows."
    return (
        f"Rules see the head's out-of-fold predictions of the {fit_name} rows; for the reported rows the head is "
        "refitted on all of them."
    )


def note_unlabelled(table: FusionTable, in_report: np.ndarray, notes: list[str]) -> None:
    """Say how many rows of the reported part have no label."""
    count = int((in_report & ~table.labelled).sum())
    if count:
        notes.append(f"Reported rows without a label, left out: {count}.")


def note_train(table: FusionTable, reported: np.ndarray, declared: str, notes: list[str]) -> None:
    """Say that rows are reported on which the 2D network may have been trained."""
    count = int(table.split_mask("train")[reported].sum())
    if count and declared:
        notes.append(
            f"2D predictions of the {count} reported rows of the train split were declared out of fold by {declared}."
        )
    elif count:
        notes.append(
            f"WARNING {count} reported rows are of the train split: if the 2D network was trained on them its figures "
            "flatter; --2d-out-of-fold says they are out of fold."
        )
