"""Solver of the fitted rules: penalised log loss of scaled scores, offsets and a linear correction.

Calibration, recalibration and stack have the same form: softmax(s base_1 + t base_2 + b + x W), with or without further
bases and features x. Optimisers that did not converge are stored as messages and reported with the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from ..products import product
from .objective import row_weights

Solution = tuple[np.ndarray, np.ndarray]  # scales (m,) of the bases, weights (1 + d, k) with offsets first
MAX_LOG_SCALE = float(np.log(50))  # scores are multiplied by a number between 1/50 and 50
_FLAT = 1e-3  # largest gradient of a mean loss at which an optimiser that stopped early counts as converged


def minimised(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    failures: list[str],
    *,
    bounds: Sequence[tuple[float | None, float | None]] | None = None,
    **options: Any,
) -> np.ndarray:
    """Minimum of a smooth function by L-BFGS-B; if it does not converge, the cause is added to ``failures``.

    Parameters
    ----------
    loss : function of (p,) parameters that returns a mean loss and its gradient (p,)
    start : (p,) float64
    failures : messages of optimisers that did not converge
    bounds : smallest and largest value of each parameter, optional
    options : options of :func:`scipy.optimize.minimize`
    """
    result = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    x, slope = np.asarray(result.x), np.asarray(result.jac)
    if bounds is not None:  # at a bound, ignore a gradient that points outside
        low = np.array([-np.inf if least is None else least for least, _ in bounds])
        high = np.array([np.inf if most is None else most for _, most in bounds])
        slope = np.where(((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0)), 0, slope)
    if not np.isfinite(result.fun) or not np.isfinite(x).all():
        failures.append("the loss is not finite")
    elif not result.success and np.abs(slope).max(initial=0) > _FLAT:
        failures.append(f"{' '.join(str(result.message).split())} after {result.nit} steps")
    return x


def corrected(x: np.ndarray, bases: np.ndarray, scales: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, k) scores: weighted sum of the bases (m, n, k), plus offsets weights[0] and x @ weights[1:]."""
    return np.tensordot(scales, bases, 1) + weights[0] + x @ weights[1:]


def logistic_correction(
    x: np.ndarray,
    bases: np.ndarray,
    y: np.ndarray,
    penalty: float,
    objective: str,
    failures: list[str],
    *,
    start: Solution | None = None,
    scale_pull: float = 1.0,
    offsets: bool = True,
    tolerance: float = 1e-9,
    flat: float = 1e-6,
) -> Solution:
    """Scales (m,) and (1 + d, k) weights, offsets first, with the smallest penalised log loss.

    Minimises, for softmax(s base_1 + t base_2 + b + x W), the summed log loss plus
    (||W||^2 / penalty + ||b||^2 + c ((log s)^2 + t^2)) / 2, where c is ``scale_pull``. The penalty of the offsets b has
    about the weight of one or two rows.

    Parameters
    ----------
    x : (n, d) float64, standardised; d may be 0
    bases : (m, n, k) log-probabilities, and further scores
    y : (n,) int labels below k
    penalty : float
    objective : ``balanced`` gives all classes equal weight
    failures : messages of optimisers that did not converge
    start : initial scales and weights; by default no correction
    scale_pull : penalty of the scales; 0 for none
    offsets : whether offsets are fitted; otherwise they are 0
    tolerance, flat : the search ends below this relative decrease of a step, or below this gradient
    """
    m, n, k = bases.shape
    rows, weights = np.arange(n), row_weights(y, "classes", objective)
    pull = np.full(x.shape[1] + 1, 1 / penalty)
    pull[0] = 1.0
    design = np.hstack([np.ones((n, 1)), x])
    # From here on arrays are (k, n), so that loops over classes read contiguous memory.
    across, bases = np.ascontiguousarray(design.T), np.ascontiguousarray(bases.transpose(0, 2, 1))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        w = parameters[m:].reshape(k, -1)
        scale = np.exp(parameters[0])
        logs = product(w, across)
        logs += scale * bases[0]
        for scale_of_base, base in zip(parameters[1:m], bases[1:], strict=True):
            logs += scale_of_base * base
        logs -= logs.max(axis=0)
        slope = np.exp(logs)
        total = slope.sum(axis=0)
        slope /= total
        slope[y, rows] -= 1
        slope *= weights
        pulled = pull * w
        value = (
            weights @ (np.log(total) - logs[y, rows])
            + ((pulled * w).sum() + scale_pull * (parameters[:m] ** 2).sum()) / 2
        )
        gradient = product(slope, design) + pulled
        scale_gradient = np.array([np.vdot(slope, base) for base in bases])
        scale_gradient[0] *= scale
        return value / n, np.concatenate([scale_gradient + scale_pull * parameters[:m], gradient.ravel()]) / n

    first = np.zeros(m + k * (x.shape[1] + 1))
    if start is not None:
        first[: len(start[0])] = [np.log(start[0][0]), *start[0][1:]]
        first[m:] = start[1].T.ravel()
    bounds: list[tuple[float | None, float | None]] = [(None, None)] * len(first)
    bounds[0] = (-MAX_LOG_SCALE, MAX_LOG_SCALE)
    if not offsets:
        bounds[m :: x.shape[1] + 1] = [(0.0, 0.0)] * k
    best = minimised(loss, first, failures, bounds=bounds, maxiter=500, gtol=flat, ftol=tolerance)
    scales = np.concatenate([[np.exp(best[0])], best[1:m]])
    return scales, np.ascontiguousarray(best[m:].reshape(k, -1).T)
