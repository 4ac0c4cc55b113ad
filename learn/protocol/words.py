"""The protocol in words: the sentences that are printed and stored with every result."""

from __future__ import annotations

import numpy as np

from ...features.table import FusionTable
from .rows import HeadFit

_EMPTY = np.zeros(0, np.intp)


def note_shared_groups(
    table: FusionTable,
    reported: np.ndarray,
    calibration: np.ndarray,
    heads: tuple[HeadFit, ...],
    notes: list[str],
    marked: bool,
) -> None:
    """Say where the dataset's own splits let a person or video stand on both sides."""
    groups = table.group_codes
    seen = {name for name, rows in (("calibration", calibration),) if not np.array_equal(rows, reported)}
    trained = np.unique(np.concatenate([head.train for head in heads])) if heads else _EMPTY
    trained = np.setdiff1d(trained, reported)
    for name, rows in (
        ("calibration", calibration if "calibration" in seen else _EMPTY),
        ("training", trained),
    ):
        shared = np.intersect1d(groups[rows], groups[reported])
        if len(shared) and not marked:
            notes.append(
                f"WARNING {len(shared)} groups of the reported rows also stand among the {name} rows: the dataset's "
                "splits share them, and figures are likely too good."
            )


def sentences_of(
    table: FusionTable,
    case: str,
    report_name: str,
    fit_name: str,
    reported: np.ndarray,
    calibration: np.ndarray,
    train: np.ndarray,
    marked: bool,
    declared: str,
) -> list[str]:
    """The protocol in words; ``declared`` says who declared 2D predictions of the train split out of fold."""
    covered = int(table.covered[reported].sum())
    lines = [
        f"Reported: {report_name}, {len(reported)} rows, {covered} of them with 3D "
        f"({'codes' if table.three_d is None else 'predictions'})."
    ]
    if marked:
        lines.append(
            f"MARKED †: rules were fitted on {fit_name}, the very rows that are reported. These figures flatter; "
            "they exist to reproduce papers."
        )
    elif np.array_equal(reported, calibration):
        lines.append(
            f"Rules fitted on {fit_name}: each row is fused by parameters that never saw it"
            + (", nor its group." if table.grouped else ".")
        )
    else:
        lines.append(f"Rules fitted on the {fit_name} split, {len(calibration)} rows.")
    no_train = (
        "No train rows are left for the head"
        if table.split_mask("train").any()
        else "There is no train split"
    )
    head = {
        "ready": "3D predictions are taken as given.",
        "once": f"The head on the codes was fitted once, on {len(train)} train rows, and never refitted.",
        "nested": f"{no_train}: in each fold the head is fitted on the other folds, and the rules see "
        "its inner out-of-fold predictions.",
        "out-of-fold": f"Rules see the head's out-of-fold predictions of the {fit_name} rows; for the reported rows "
        "the head is refitted on all of them.",
    }[case]
    if marked and case in ("nested", "out-of-fold"):
        head = f"{no_train}: its predictions are out of fold, over folds of the reported rows."
    lines.append(head)
    if case == "out-of-fold" and fit_name == "train":
        lines.append(f"2D predictions of the train split were declared out of fold by {declared}.")
    return lines


def note_unlabelled(table: FusionTable, in_report: np.ndarray, notes: list[str]) -> None:
    """Say how many rows of the reported part have no label."""
    count = int((in_report & ~table.labelled).sum())
    if count:
        notes.append(f"{count} rows of the reported part have no label and are left out.")


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
