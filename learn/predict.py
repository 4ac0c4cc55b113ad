"""Predictions of new rows by a fitted model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from ..errors import Ig3dError, ModelError, shorten
from ..features.fusion_table import FusionTable
from .conditions import as_predictions, columns_of
from .head_fits import scores_by
from .model import FusionModel, hashes_of
from .rules import RECALIBRATED


def predict(
    model: FusionModel, table: FusionTable, *, rules: tuple[str, ...] | None = None
) -> dict[str, np.ndarray]:
    """Fused predictions of every row with a 2D prediction.

    Parameters
    ----------
    model : FusionModel
    table : rows to fuse; labels are not looked at
    rules : names out of the model's; None for all

    Returns
    -------
    ``2d``, ``3d`` and each rule -> (n, k) log-probabilities or values in the order of the model's classes
        NaN in rows without a 2D prediction; rows without 3D as ``ig3d fuse`` has them.

    Raises
    ------
    ModelError : another task, other classes, codes of other blocks or another basis; no such rule; the model fails, or
        its predictions are not finite.
    """
    table = _fitting(model, table)
    unknown = [name for name in rules or () if name not in model.rules]
    if unknown:
        raise ModelError(f"rule: expected one of {', '.join(model.rules)}, got {', '.join(unknown)}")
    try:
        result = _fused(model, table, tuple(rules or model.rules))
    except (Ig3dError, ImportError, OSError, MemoryError):
        raise  # nothing that the model is to blame for
    except Exception as exc:  # the parts of a damaged model raise anything
        text = " ".join(str(exc).split())
        raise ModelError(
            f"model: its parts do not fit each other ({type(exc).__name__}: {shorten(text, 200)}); fit it again"
        ) from exc
    for name, values in result.items():
        rows = table.covered if name == "3d" else table.has_2d
        shape = (len(table), len(model.columns))
        # the logarithm of a probability of 0 is minus infinity
        sound = values.shape == shape and not (np.isnan(values[rows]) | (values[rows] == np.inf)).any()
        if sound and model.task == "classes":
            sound = bool(np.isfinite(values[rows]).any(axis=1).all())
        elif sound:
            sound = bool(np.isfinite(values[rows]).all())
        if not sound:
            raise ModelError(f"model: {name} gives predictions that are not finite; fit it again")
    return result


def _fused(model: FusionModel, table: FusionTable, rules: tuple[str, ...]) -> dict[str, np.ndarray]:
    """``2d``, ``3d`` and each rule -> (n, k), as :func:`predict` returns them."""
    two = table.two_d
    three = np.full(two.shape, np.nan)
    if table.three_d is not None:
        three = table.three_d
    elif table.codes is not None and table.covered.any():
        three[table.covered] = scores_by(model.head, table.codes[table.covered], model.task, two.shape[1])
    there = np.flatnonzero(table.has_2d)
    columns = columns_of(table, there, three[there])
    covered = columns.covered
    plain = np.full(two.shape, np.nan)
    plain[there] = as_predictions(two[there], model.task)
    result = {"2d": plain, "3d": as_predictions(three, model.task)}
    with threadpool_limits(1, user_api="blas"):
        reference = model.rules[RECALIBRATED].apply(columns.without_3d()) if len(there) else plain[there]
        for name in rules:
            rule = model.rules[name]
            fused = (reference if model.reference(name) == RECALIBRATED else plain[there]).copy()
            if name != RECALIBRATED and covered.any():
                fused[covered] = rule.apply(columns.take(covered))
            result[name] = np.full(two.shape, np.nan)
            result[name][there] = fused
    return result


def seen(model: FusionModel, ids: np.ndarray, rule: str) -> np.ndarray:
    """(n,) str: ``training`` for rows that the head was fitted on, ``calibration`` for those of the rule, else empty.

    A row that both were fitted on is of ``calibration``; a rule that fits nothing has seen none.
    """
    hashed = hashes_of(ids)
    trained, calibrated = (
        np.isin(hashed, hashes_of(known)) for known in (model.trained_ids, model.calibration_ids)
    )
    return np.where(calibrated & model.fits(rule), "calibration", np.where(trained, "training", ""))


def _fitting(model: FusionModel, table: FusionTable) -> FusionTable:
    """The table with its classes in the model's order; refused where it does not fit."""
    if table.task != model.task or set(table.classes) != set(model.classes):
        raise ModelError(
            f"model: expected {model.task} ({', '.join(model.columns)}), got {table.task} ({', '.join(table.columns)})"
        )
    if (model.head is None) != (table.three_d is not None):
        raise ModelError(
            "model: expected "
            + ("ready 3D predictions, got codes" if model.head is None else "codes, got ready 3D predictions")
        )
    if table.blocks != model.blocks:
        wanted, got = (
            ", ".join(f"{block.name} ({block.width}, {block.basis})" for block in blocks)
            for blocks in (model.blocks, table.blocks)
        )
        raise ModelError(
            f"model: expected the code blocks {wanted}, got {got}; extract with the same regressor"
        )
    if table.quality_columns != model.quality_columns:
        wanted, got = (", ".join(names) or "none" for names in (model.quality_columns, table.quality_columns))
        raise ModelError(
            f"model: expected the quality columns {wanted}, got {got}; give the store they come from"
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
