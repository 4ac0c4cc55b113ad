"""Predictions of new rows by a fitted model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from ..errors import Ig3dError, ModelError, shorten
from ..features.fusion_table import FusionTable
from .conditions import as_predictions, columns_of
from .head_fits import scores_by
from .model import FusionModel
from .rules import RECALIBRATED


def predict(
    model: FusionModel, table: FusionTable, *, rules: tuple[str, ...] | None = None
) -> dict[str, np.ndarray]:
    """Fuse every row that has a 2D prediction.

    Parameters
    ----------
    model : FusionModel
    table : FusionTable of n rows; labels are not used
    rules : names of rules of the model; None for all

    Returns
    -------
    ``2d``, ``3d`` and each rule -> (n, k) log-probabilities or values in the order of the model's classes
        NaN in rows without a 2D prediction. A rule predicts rows without 3D as its reference does
        (:meth:`~.model.FusionModel.reference`).

    Raises
    ------
    ModelError : the table has another task, other classes or other code blocks than the model; the model does not have
        a rule; or the model is damaged or gives predictions that are not finite.
    """
    table = _as_model_expects(model, table)
    unknown = [name for name in rules or () if name not in model.rules]
    if unknown:
        raise ModelError(
            f"rule: the model has no rule {', '.join(unknown)}; choose among {', '.join(model.rules)}"
        )
    try:
        result = _fused(model, table, tuple(rules or model.rules))
    except (Ig3dError, ImportError, OSError, MemoryError):
        raise  # the cause is not the model
    except Exception as exc:  # parts of a damaged model can raise any error
        text = " ".join(str(exc).split())
        raise ModelError(
            f"model: its parts do not fit together ({type(exc).__name__}: {shorten(text, 200)}); fit the model again"
        ) from exc
    for name, values in result.items():
        rows = table.covered if name == "3d" else table.has_2d
        shape = (len(table), len(model.columns))
        if values.shape != shape or not _is_valid(values[rows], model.task):
            raise ModelError(f"model: {name} gives predictions that are not finite; fit the model again")
    return result


def _is_valid(values: np.ndarray, task: str) -> bool:
    """Whether (n, k) values are finite; for classes, also with probabilities of 0, whose logarithm is -inf."""
    finite = np.isfinite(values)
    if task == "va":
        return bool(finite.all())
    return bool((finite | (values == -np.inf)).all() and finite.any(axis=1).all())


def _fused(model: FusionModel, table: FusionTable, rules: tuple[str, ...]) -> dict[str, np.ndarray]:
    """``2d``, ``3d`` and each rule -> (n, k), as :func:`predict` returns them."""
    scores_3d = np.full(table.two_d.shape, np.nan)
    if table.three_d is not None:
        scores_3d = table.three_d
    elif table.codes is not None and table.covered.any():
        k = len(model.columns)
        scores_3d[table.covered] = scores_by(model.head, table.codes[table.covered], model.task, k)
    rows = np.flatnonzero(table.has_2d)
    columns = columns_of(table, rows, scores_3d[rows])
    covered = columns.covered
    plain = as_predictions(columns.scores_2d, model.task)
    fused = {}
    with threadpool_limits(1, user_api="blas"):
        recalibrated = model.rules[RECALIBRATED].apply(columns.without_3d()) if len(rows) else plain
        for name in rules:
            values = (recalibrated if model.reference(name) == RECALIBRATED else plain).copy()
            if name != RECALIBRATED and covered.any():
                values[covered] = model.rules[name].apply(columns.take(covered))
            fused[name] = values
    result = {"2d": _in_rows(plain, rows, len(table)), "3d": as_predictions(scores_3d, model.task)}
    return result | {name: _in_rows(values, rows, len(table)) for name, values in fused.items()}


def _in_rows(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """(n, k) array with values (m, k) in these m rows, NaN in the others."""
    result = np.full((n, values.shape[1]), np.nan)
    result[rows] = values
    return result


def fitting_marks(model: FusionModel, table: FusionTable, rule: str) -> np.ndarray:
    """(n,) str: ``calibration`` for rows that the rule was fitted on, else ``training`` for those of the head, else "".

    Rows are recognised by the content of their image, else by their id. A rule without fitted parameters was fitted on
    no row.
    """
    in_training = np.isin(table.content, model.trained)
    in_calibration = np.isin(table.content, model.calibration) & model.fits(rule)
    return np.where(in_calibration, "calibration", np.where(in_training, "training", ""))


def _as_model_expects(model: FusionModel, table: FusionTable) -> FusionTable:
    """The table with its classes in the order of the model.

    Raises
    ------
    ModelError : the table does not fit the model.
    """
    if table.task != model.task or set(table.classes) != set(model.classes):
        raise ModelError(
            f"model: predicts {model.task} ({', '.join(model.columns)}), but the table has {table.task} "
            f"({', '.join(table.columns)}); use a model of the same classes"
        )
    if (model.head is None) != (table.three_d is not None):
        needed, present = ("3D predictions", "codes") if model.head is None else ("codes", "3D predictions")
        raise ModelError(f"model: was fitted with {needed}, but the table has {present}; give {needed}")
    if table.blocks != model.blocks:
        needed, present = (
            ", ".join(f"{block.name} ({block.width}, {block.basis})" for block in blocks)
            for blocks in (model.blocks, table.blocks)
        )
        raise ModelError(
            f"model: needs the code blocks {needed}, but the store has {present}; extract with the same regressor"
        )
    if table.quality_columns != model.quality_columns:
        needed, present = (
            ", ".join(names) or "none" for names in (model.quality_columns, table.quality_columns)
        )
        raise ModelError(
            f"model: needs the quality columns {needed}, but the table has {present}; give the store as well"
        )
    if table.classes == model.classes:
        return table
    order = [table.classes.index(name) for name in model.classes]
    return replace(
        table,
        classes=model.classes,
        labels=np.where(table.labels >= 0, np.argsort(order)[table.labels], -1).astype(table.labels.dtype),
        two_d=table.two_d[:, order],
        three_d=None if table.three_d is None else table.three_d[:, order],
        others={},
    )
