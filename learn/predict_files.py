"""``ig3d predict``: a fitted model and files of new rows in, a table of predictions out.

The rows need no labels. Rows that the model was fitted on are marked: their predictions are no test of it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ModelError, PredictionsError, UsageError, plural
from ..features.align import find_rows
from ..features.atomic import replacing
from ..features.classes import parse_classes
from ..features.fusion_table import FusionTable
from ..features.inputs import Inputs
from ..features.join import load_table
from ..features.network_features import network_differences, network_of
from ..features.predictions import Predictions, load_predictions
from ..features.samples import Split
from .model import FusionModel
from .predict import predict, seen
from .priors import FITTED, check_priors, corrected, difference_warning


@dataclass(frozen=True, slots=True)
class Predicted:
    """New rows as one rule of a model fuses them.

    Attributes
    ----------
    rule : str
    columns : names of the columns of ``values``: classes, or valence and arousal
    ids : (m,) str, sorted
    values : (m, k) float64 probabilities, or valence and arousal
    covered : (m,) bool
        Rows with 3D; the others have the model's prediction from the 2D network alone.
    seen : (m,) str: ``calibration``, ``training`` or empty
    task : ``classes`` or ``va``
    notes : tuple of str
        Assumptions, and warnings about the rows.
    shares : (k,) float64 class shares that the probabilities were corrected for; None where they were not
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
) -> Predicted:
    """Join files of new rows and fuse them.

    Parameters
    ----------
    model : FusionModel
    two_d : 2D predictions
    stores : of codes, or
    three_d : ready 3D predictions, for a model of such; joined to ``two_d`` by id
    ids, classes : of the 2D rows and columns, where the file does not say
    rule : of the model; None takes ``best``, else ``stack``, else the last
    priors : ``fitted``, ``uniform``, ``estimate``, or a file of class shares (:func:`~.priors.read_shares`)
        Class shares that the probabilities are corrected for.
    allow_missing, force : see :func:`~ig3d.features.join.load_table`

    Raises
    ------
    ModelError : the files do not fit the model, or it has no such rule.
    PredictionsError : the files do not join.
    UsageError : ``priors`` for valence and arousal, for classes that the model was not fitted on, or no such shares.
    """
    shares = check_priors(model, priors)
    chosen = rule or model.preferred
    if bool(stores) == (three_d is not None):
        raise UsageError(
            f"predict: expected one of --3d-store and --3d-logits, got {'both' if stores else 'neither'}"
        )
    if (model.head is None) != (three_d is not None):
        raise ModelError(
            "model: expected "
            + (
                "--3d-logits, as it was fitted on,"
                if model.head is None
                else "--3d-store, whose codes it reads,"
            )
            + " got the other"
        )
    if three_d is not None:
        table = _ready_table(model, Path(two_d), Path(three_d), ids, classes)
    else:
        inputs = Inputs(two_d, list(stores), ids=ids, classes=classes, task=model.task)
        wanted = ",".join(block.name for block in model.blocks)
        try:
            table = load_table(
                inputs,
                blocks=wanted,
                allow_missing=allow_missing,
                force=force,
                need_labels=False,
                classes=model.classes,
            )
        except UsageError as error:
            raise ModelError(f"model: expected a store with the code blocks {wanted}: {error}") from error
    values = predict(model, table, rules=(chosen,))[chosen]
    rows = np.flatnonzero(table.has_2d)
    if not len(rows):
        raise PredictionsError(f"{two_d}: expected 2D predictions of samples of the store, got none")
    marks = seen(model, table.id[rows], chosen)
    values, notes = values[rows], _remarks(table, rows, marks, chosen, model)
    if priors != FITTED:
        values, shares, more = corrected(model, table.take(rows), chosen, values, priors, shares)
        notes += more
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
        notes=(*table.notes, *notes),
        shares=shares,
    )


def _ready_table(
    model: FusionModel, two_d: Path, three_d: Path, ids: str | Path | None, classes: str | None
) -> FusionTable:
    """The rows of the 2D file with the 3D predictions of the same ids."""

    def read(path: Path, **options: object) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        read = load_predictions(path, known=model.classes, task=model.task, **options)  # type: ignore[arg-type]
        if read.ids is None:
            raise PredictionsError(f"{path}: expected ids to join the rows by, got none; save them with it")
        values, how = _columns(read, model)
        return np.asarray(read.ids), values, (*read.notes, *how)

    names, two, notes = read(two_d, ids_file=ids, classes=parse_classes(classes) if classes else None)
    others, ready, more = read(three_d)
    found, _ = find_rows(names, others)
    there = found >= 0
    if not there.any():
        raise PredictionsError(
            f"{three_d}: expected rows of the ids of {two_d.name} ({names[0]}), got none ({others[0]})"
        )
    n = len(names)
    return FusionTable(
        task=model.task,
        classes=model.classes,
        id=names,
        group=np.full(n, "", dtype=str),
        split=np.full(n, Split.none, np.int8),
        labels=np.full(n, -1, np.int16),
        targets=np.full((n, 2), np.nan),
        two_d=two,
        three_d=np.where(there[:, None], ready[found], np.nan),
        notes=(*notes, *more),
        two_d_network=network_of(two_d),
    )


def _columns(predictions: Predictions, model: FusionModel) -> tuple[np.ndarray, tuple[str, ...]]:
    if model.task == "va":
        return predictions.values, ()
    values, note = predictions.scores_of(model.classes)
    return values, (note,)


def _remarks(
    table: FusionTable, rows: np.ndarray, marks: np.ndarray, rule: str, model: FusionModel
) -> list[str]:
    """Counts of the rows, and warnings about them."""
    fitted = f"fitted on {model.fitted_on} ({plural(len(model.calibration_ids), 'row')})"
    notes = [
        f"{plural(len(rows), 'row')} fused by {rule}, {fitted if model.fits(rule) else 'which fits nothing'}."
    ]
    differences = network_differences(model.network, table.two_d_network)
    if differences:
        notes.append(
            "WARNING the model was fitted with other 2D outputs than these: "
            f"{'; '.join(differences)}. Its rules are fitted to the scale and the errors of the former."
        )
    bare = int((~table.covered[rows]).sum())
    if bare:
        notes.append(f"{plural(bare, 'row')} without 3D: predicted from the 2D network alone.")
    left_out = len(table) - len(rows)
    if left_out:
        notes.append(f"{plural(left_out, 'sample')} without a 2D prediction: left out.")
    for mark, whom in (("calibration", f"{rule} was"), ("training", "the head was")):
        count = int((marks == mark).sum())
        if count:
            notes.append(
                f"WARNING {whom} fitted on {plural(count, 'row')} of these (column seen: {mark}); "
                "their predictions are no test of the model."
            )
    return notes


def predicted_csv(predicted: Predicted) -> str:
    """``id, label, p_<class>..., has_3d, seen``; or ``id, valence, arousal, has_3d, seen``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = predicted.task == "classes"
    names = [f"p_{name}" for name in predicted.columns] if classes else list(predicted.columns)
    writer.writerow(["id", *(["label"] if classes else []), *names, "has_3d", "seen"])
    labels = np.array(predicted.columns)[predicted.values.argmax(axis=1)]
    columns = [
        predicted.ids.tolist(),
        *([labels.tolist()] if classes else []),
        # Seven significant digits are more than a prediction has.
        *np.char.mod("%.7g", predicted.values).T.tolist(),
        np.where(predicted.covered, "yes", "no").tolist(),
        predicted.seen.tolist(),
    ]
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def write_predicted(predicted: Predicted, out: str | Path) -> None:
    """Write :func:`predicted_csv`, all or nothing."""
    with replacing(out) as temporary:
        temporary.write_text(predicted_csv(predicted), encoding="utf-8", newline="")
