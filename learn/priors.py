"""Correction of predicted probabilities for class shares other than those of the calibration rows.

References
----------
.. [1] Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities: a simple
   procedure, Neural Computation 14 (2002).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..errors import UsageError, listed, plural
from ..features.classes import canonical
from ..features.fusion_table import FusionTable
from ..features.predictions import log_softmax
from ..features.table_reader import read_table
from .class_shares import count_classes, describe_shares, difference_p
from .model import FusionModel

FITTED, UNIFORM, ESTIMATE = "fitted", "uniform", "estimate"
_ITERATIONS = 5_000
_TOLERANCE = 1e-7  # change of the estimated shares at which the iterations end
_ROWS_PER_CLASS = 10  # shares that are estimated from fewer rows are uncertain
_ROUNDING = 0.0101  # largest difference of a sum of shares from 1
_MAX_BYTES = 1 << 20  # of a JSON file
# A difference of class shares is reported if its p is below the first, and half the sum of absolute differences is at
# least the second.
_SIGNIFICANCE, _MIN_DIFFERENCE = 0.01, 0.05


def check_priors(model: FusionModel, priors: str | Path) -> np.ndarray | None:
    """(k,) class shares to correct for; None for no correction, or if they are estimated from the rows later.

    Raises
    ------
    UsageError : the model has no class shares, or none of a class; or the file of shares is invalid.
    """
    if priors == FITTED:
        return None
    if model.task == "va":
        raise UsageError(
            "priors: the model predicts valence and arousal, which have no class shares; leave the option out"
        )
    least = np.min([shares.implied for shares in model.shares.values()], axis=0)
    unseen = [name for name, share in zip(model.classes, least, strict=True) if not share]
    if unseen:
        raise UsageError(
            f"priors: the model was fitted on no row of class {listed(unseen)}, so that there is no share to correct; "
            "fit the model on rows of every class, or leave the option out"
        )
    k = len(model.classes)
    if priors == UNIFORM:
        return np.full(k, 1 / k)
    return None if priors == ESTIMATE else read_shares(priors, model.classes)


def corrected(
    model: FusionModel,
    table: FusionTable,
    rule: str,
    log_p: np.ndarray,
    priors: str | Path,
    shares: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Correct log-probabilities of a rule for other class shares.

    Parameters
    ----------
    model : FusionModel
    table : n rows with 2D predictions
    rule : name of a rule of the model
    log_p : (n, k) log-probabilities by that rule
    priors : ``uniform``, ``estimate``, or the file of ``shares``
    shares : (k,) class shares of :func:`check_priors`; None for ``estimate``

    Returns
    -------
    log_p : (n, k) corrected log-probabilities
    shares : (k,) class shares that they are corrected for
    notes : list of str

    Raises
    ------
    UsageError : a row is possible only for classes whose share is 0.
    """
    covered = table.covered[:, None]
    fitted, reference = model.shares[rule], model.shares[model.reference(rule)]
    implied = np.where(covered, fitted.implied, reference.implied)
    notes = []
    if priors == ESTIMATE:
        shares = estimated_shares(log_p, implied)
        if len(table) < _ROWS_PER_CLASS * len(shares):
            notes.append(
                f"WARNING class shares are estimated from {plural(len(table), 'row')} only, for "
                f"{plural(len(shares), 'class')}: they are uncertain."
            )
    assert shares is not None  # check_priors returns shares, except for an estimate
    with np.errstate(divide="ignore"):
        impossible = np.flatnonzero(~np.isfinite(log_p + np.log(shares)).any(axis=1))
    if len(impossible):
        raise UsageError(
            f"priors: {plural(len(impossible), 'row')} ({listed(table.id[impossible].tolist())}) can only be of "
            "classes whose share is 0; give these classes a share above 0"
        )
    origin = "estimated on these rows" if priors == ESTIMATE else str(priors)
    described = describe_shares(model.classes, shares, fitted.implied)
    notes.append(
        f"Probabilities are corrected for class shares ({origin}; in brackets, shares that {rule} was fitted for): "
        f"{described}."
    )
    return reweighted(log_p, implied, shares), shares, notes


def difference_warning(model: FusionModel, table: FusionTable, rule: str, log_p: np.ndarray) -> list[str]:
    """Warning that the predicted classes have other shares than on the calibration rows; empty without a difference.

    Rows with 3D are compared with the predictions of the rule on the calibration rows. Without such rows, the reference
    is compared.
    """
    rows, name = table.covered, rule
    if not rows.any():
        rows, name = np.ones(len(table), bool), model.reference(rule)
    before = model.shares[name].predicted
    now = count_classes(log_p[rows], table.group_codes[rows] if table.grouped else None)
    p = difference_p(before, now)
    if p >= _SIGNIFICANCE or np.abs(now.shares - before.shares).sum() / 2 < _MIN_DIFFERENCE:
        return []
    return [
        f"WARNING class shares of these predictions differ from those on the calibration rows (in brackets; p "
        f"{'< .001' if p < 1e-3 else f'= {p:.3f}'.replace('0.', '.')}): "
        f"{describe_shares(model.classes, now.shares, before.shares)}. Where classes are more or less frequent here, "
        f"--priors {ESTIMATE} corrects for it."
    ]


def reweighted(log_p: np.ndarray, implied: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(n, k) log-probabilities for other class shares: p * shares / implied, normalised.

    Parameters
    ----------
    log_p : (n, k) log-probabilities
    implied : (k,) or (n, k) class shares, above 0, for which they are calibrated
    shares : (k,) class shares; may contain 0
    """
    with np.errstate(divide="ignore"):
        return log_softmax(log_p - np.log(implied) + np.log(shares))


def estimated_shares(log_p: np.ndarray, implied: np.ndarray) -> np.ndarray:
    """(k,) most likely class shares of unlabelled rows, by the EM algorithm of Saerens et al. [1]_.

    It assumes that the images of a class have the same distribution in both sets of rows: only the shares differ.

    Parameters
    ----------
    log_p : (n, k) log-probabilities
    implied : (k,) or (n, k) class shares, above 0, for which they are calibrated
    """
    ratios = log_p - np.log(implied)
    ratios = np.exp(ratios - ratios.max(axis=1, keepdims=True))
    shares = np.broadcast_to(implied, log_p.shape).mean(axis=0)
    with threadpool_limits(1, user_api="blas"):  # the last digits do not depend on the number of threads
        for _ in range(_ITERATIONS):
            # mean of the new posteriors
            updated = shares * (ratios.T @ (1 / (ratios @ shares))) / len(ratios)
            change = np.abs(updated - shares).max()
            shares = updated
            if change < _TOLERANCE:
                break
    return shares


def read_shares(path: str | Path, classes: Sequence[str]) -> np.ndarray:
    """(k,) class shares of sum 1 from a CSV table with columns ``class`` and ``share``, or a JSON object.

    Numbers must sum to 1 or 100, but for rounding, or be counts: whole numbers, which are divided by their sum.

    Raises
    ------
    UsageError : the file does not exist or is invalid; a class is missing, unknown or repeated; or a share is invalid.
    """
    try:
        exists = Path(path).is_file()
    except OSError:  # a name that is too long
        exists = False
    if not exists:
        raise UsageError(
            f"priors: no file {str(path)!r}; choose {FITTED}, {UNIFORM}, {ESTIMATE} or a file of class shares"
        )
    pairs = _json_pairs(path) if str(path).lower().endswith(".json") else _csv_pairs(path)
    names = [canonical(name) for name, _ in pairs]
    negative = [f"{name} {value}" for name, value in pairs if not _is_share(value)]
    for problem, wrong in (
        ("classes that the model does not have", sorted(set(names) - set(classes))),
        ("classes more than once", sorted({name for name in names if names.count(name) > 1})),
        ("no share for classes", [name for name in classes if name not in names]),
        ("shares that are not numbers of at least 0", negative),
    ):
        if wrong:
            raise UsageError(
                f"priors: {path} has {problem} ({listed(wrong)}); give each of {', '.join(classes)} one share"
            )
    by_class = dict(zip(names, [float(value) for _, value in pairs], strict=True))
    shares = np.array([by_class[name] for name in classes])
    if not shares.any():
        raise UsageError(f"priors: all shares in {path} are 0; give some class a share above 0")
    total = sum(by_class.values())
    if (shares % 1).any() and min(abs(total - 1), abs(total / 100 - 1)) > _ROUNDING:
        raise UsageError(
            f"priors: the shares in {path} sum to {total:.4g}; give shares that sum to 1 or 100, or "
            "whole numbers as counts"
        )
    shares /= shares.max()  # the sum of large counts is finite
    return np.asarray(shares / shares.sum())


def _is_share(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and 0 <= float(value) < np.inf
    except (TypeError, ValueError, OverflowError):
        return False


def _csv_pairs(path: str | Path) -> list[tuple[str, Any]]:
    table, _ = read_table(path, error=UsageError)
    columns = {str(name).strip().lower(): name for name in table.columns}
    if not {"class", "share"} <= set(columns):
        raise UsageError(
            f"priors: {path} has the columns {listed(list(columns))}; name two of them class and share"
        )
    return list(zip(table[columns["class"]].astype(str), table[columns["share"]], strict=True))


def _json_pairs(path: str | Path) -> list[tuple[str, Any]]:
    try:
        with Path(path).open("rb") as handle:
            text = handle.read(_MAX_BYTES).decode("utf-8-sig")
        # Pairs instead of a dictionary, so that a repeated class is detected.
        content = json.loads(text, object_pairs_hook=tuple)
    except (OSError, ValueError, RecursionError) as exc:
        raise UsageError(f"priors: {path} is not valid JSON ({exc})") from exc
    if not isinstance(content, tuple):
        raise UsageError(f'priors: {path} is not a JSON object such as {{"happy": 0.3, "sad": 0.7}}')
    return list(content)
