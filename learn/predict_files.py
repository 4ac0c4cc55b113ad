"""Predict files of new rows with a saved model (``ig3d predict``).

The rows need no labels. Rows that the model was fitted on are marked, because their predictions do not test the model.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError, PredictionsError, UsageError, plural
from ..features.align import find_rows
from ..features.atomic import replacing
from ..features.classes import parse_classes
from ..features.fusion_table import FusionTable
from ..features.inputs import Inputs
from ..features.join import load_table
from ..features.network_features import network_differences, network_of
from ..features.predictions import load_predictions
from ..features.samples import Split
from .model import FusionModel
from .predict import fitting_marks, predict
from .priors import FITTED, check_priors, corrected, difference_warning


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions of new rows by one rule of a model.

    Attributes
    ----------
    rule : str
    columns : names of the columns of ``values``: classes, or valence and arousal
    ids : (m,) str, sorted
    values : (m, k) float64 probabilities, or valence and arousal
    covered : (m,) bool
        Rows with 3D; the others are predicted from the 2D network alone.
    seen : (m,) str
        ``calibration`` for rows that the rule was fitted on, ``training`` for rows that the head was fitted on, else
        empty.
    task : ``classes`` or ``va``
    notes : tuple of str
        Assumptions, and warnings about the rows.
    shares : (k,) float64 class shares that the probabilities were corrected for; None without correction
    """

    rule: str
    columns: tuple[str, ...]
    ids: np.ndarray
    values: np.ndarray
    covered: np.ndarray
    seen: np.ndarray
    task: str
    notes: tuple[str, ...]
    shares: np.ndarray | None = None


def predict_files(
    model: FusionModel,
    two_d: str | Path,
    *,
    stores: Sequence[str | Path] = (),
    three_d: str | Path | None = None,
    ids: str | Path | None = None,
    classes: str | None = None,
    rule: str | None = None,
    priors: str | Path = FITTED,
    allow_missing: bool = False,
    force: bool = False,
    notify: Callable[[str], object] | None = None,
) -> Predicted:
    """Join files of new rows and fuse them.

    Parameters
    ----------
    model : FusionModel
    two_d : file of 2D predictions
    stores : stores of codes, for a model with a head
    three_d : file of 3D predictions, for a model without a head; joined to ``two_d`` by id
    ids, classes : ids of the rows and classes of the columns of ``two_d``, if the file does not have them
    rule : name of a rule of the model; by default ``selected``, else ``stack``, else the last
    priors : ``fitted``, ``uniform``, ``estimate``, or a file of class shares (:func:`~.priors.read_shares`)
        Class shares that the probabilities are corrected for.
    allow_missing, force : see :func:`~ig3d.features.join.load_table`
    notify : callable, optional
        Called before the files are joined with a warning if the model was fitted with other 2D outputs; without
        ``notify``, the warning is one of the notes.

    Raises
    ------
    ModelError : the files do not fit the model, or the model does not have the rule.
    PredictionsError : the files cannot be joined.
    UsageError : not exactly one of ``stores`` and ``three_d``; or ``priors`` cannot be applied.
    """
    shares = check_priors(model, priors)
    chosen = rule or model.preferred
    if bool(stores) == (three_d is not None):
        raise UsageError(
            f"predict: {'both' if stores else 'neither'} of --3d-store and --3d-logits; give one of them"
        )
    if (model.head is None) != (three_d is not None):
        needed, option = ("3D predictions", "--3d-logits") if model.head is None else ("codes", "--3d-store")
        raise ModelError(f"model: was fitted with {needed}; give them with {option}")
    early = _network_warnings(model, two_d)
    if notify is not None:
        for warning in early:
            notify(warning)
        early = []
    if three_d is not None:
        table = _table_of_predictions(model, Path(two_d), Path(three_d), ids, classes)
    else:
        inputs = Inputs(two_d, list(stores), ids=ids, classes=classes, task=model.task)
        blocks = ",".join(block.name for block in model.blocks)
        try:
            table = load_table(
                inputs,
                blocks=blocks,
                allow_missing=allow_missing,
                force=force,
                need_labels=False,
                classes=model.classes,
            )
        except UsageError as error:
            raise ModelError(f"model: needs a store with the code blocks {blocks}: {error}") from error
    values = predict(model, table, rules=(chosen,))[chosen]
    rows = np.flatnonzero(table.has_2d)
    if not len(rows):
        raise PredictionsError(
            f"{two_d}: no 2D predictions of samples of the store; give the store of these rows"
        )
    marks = fitting_marks(model, table.take(rows), chosen)
    values, notes = values[rows], _notes(table, rows, marks, chosen, model)
    if priors != FITTED:
        values, shares, notes_on_shares = corrected(model, table.take(rows), chosen, values, priors, shares)
        notes += notes_on_shares
    elif model.task == "classes":
        notes += difference_warning(model, table.take(rows), chosen, values)
    return Predicted(
        rule=chosen,
        columns=model.columns,
        ids=table.id[rows],
        values=np.exp(values) if model.task == "classes" else values,
        covered=table.covered[rows],
        seen=marks,
        task=model.task,
        notes=(*table.notes, *early, *notes),
        shares=shares,
    )


def _table_of_predictions(
    model: FusionModel, two_d: Path, three_d: Path, ids: str | Path | None, classes: str | None
) -> FusionTable:
    """The rows of the 2D file, with the 3D predictions of equal ids."""

    def read(path: Path, **options: Any) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Ids (m,) and values (m, k) of a file, and notes."""
        predictions = load_predictions(path, more_classes=model.classes, task=model.task, **options)
        if predictions.ids is None:
            raise PredictionsError(f"{path}: has no ids, by which the rows are joined; save them in the file")
        values, notes = predictions.values, predictions.notes
        if model.task == "classes":
            values, note = predictions.scores_of(model.classes)
            notes = (*notes, note)
        return predictions.ids, values, notes

    ids_2d, scores_2d, notes_2d = read(
        two_d, ids_file=ids, classes=parse_classes(classes) if classes else None
    )
    ids_3d, scores_3d, notes_3d = read(three_d)
    rows_3d, _ = find_rows(ids_2d, ids_3d)
    has_3d = rows_3d >= 0
    if not has_3d.any():
        raise PredictionsError(
            f"{three_d}: has no id of {two_d.name} ({ids_3d[0]}, but there {ids_2d[0]}); give files with equal ids"
        )
    n = len(ids_2d)
    return FusionTable(
        task=model.task,
        classes=model.classes,
        id=ids_2d,
        group=np.full(n, "", dtype=str),
        split=np.full(n, Split.none, np.int8),
        labels=np.full(n, -1, np.int16),
        targets=np.full((n, 2), np.nan),
        two_d=scores_2d,
        three_d=np.where(has_3d[:, None], scores_3d[rows_3d], np.nan),
        notes=(*notes_2d, *notes_3d),
        two_d_network=network_of(two_d),
    )


def _network_warnings(model: FusionModel, two_d: str | Path) -> list[str]:
    """Warning if the model was fitted with another network, or with other input of it, than the file records."""
    differences = network_differences(model.network, network_of(two_d))
    if not differences:
        return []
    return [
        "WARNING the model was fitted with other 2D outputs than these: "
        f"{'; '.join(differences)}. Its rules are fitted to the scale and the errors of those outputs."
    ]


def _notes(
    table: FusionTable, rows: np.ndarray, marks: np.ndarray, rule: str, model: FusionModel
) -> list[str]:
    """Counts of the rows, and warnings about them."""
    fitted = "which has no fitted parameters"
    if model.fits(rule):
        fitted = f"fitted on {model.fitted_on}"
    notes = [f"{plural(len(rows), 'row')} fused by {rule}, {fitted}."]
    uncovered = int((~table.covered[rows]).sum())
    if uncovered:
        notes.append(f"{plural(uncovered, 'row')} without 3D: predicted from the 2D network alone.")
    left_out = len(table) - len(rows)
    if left_out:
        notes.append(f"{plural(left_out, 'sample')} without a 2D prediction: left out.")
    for mark, part in (("calibration", rule), ("training", "the head")):
        count = int((marks == mark).sum())
        if count:
            notes.append(
                f"WARNING {part} was fitted on {plural(count, 'row')} of these (column seen: {mark}); "
                "their predictions do not test the model."
            )
    return notes


def predicted_csv(predicted: Predicted) -> str:
    """CSV text with columns ``id, label, p_CLASS..., has_3d, seen``, or ``id, valence, arousal, has_3d, seen``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = predicted.task == "classes"
    names = [f"p_{name}" for name in predicted.columns] if classes else list(predicted.columns)
    writer.writerow(["id", *(["label"] if classes else []), *names, "has_3d", "seen"])
    labels = np.array(predicted.columns)[predicted.values.argmax(axis=1)]
    columns = [
        predicted.ids.tolist(),
        *([labels.tolist()] if classes else []),
        # Seven significant digits are more than the precision of a prediction.
        *np.char.mod("%.7g", predicted.values).T.tolist(),
        np.where(predicted.covered, "yes", "no").tolist(),
        predicted.seen.tolist(),
    ]
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def write_predicted(predicted: Predicted, out: str | Path) -> None:
    """Write :func:`predicted_csv`; an existing file is replaced only if writing succeeds."""
    with replacing(out) as temporary:
        temporary.write_text(predicted_csv(predicted), encoding="utf-8", newline="")
