"""Losses of all networks, for classes and for valence-arousal. Imports torch."""

from __future__ import annotations

import torch
from torch.nn import functional


def concordance(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Lin's concordance correlation coefficient of each column.

    Parameters
    ----------
    predicted, truth : (n, d) float tensors

    Returns
    -------
    (d,) float tensor in [-1, 1]; 0 where both columns are constant and equal.

    Notes
    -----
    2 cov(x, y) / (var x + var y + (mean x - mean y)²) with population (1/n) moments throughout, as Lin defines it.

    References
    ----------
    L. Lin, A concordance correlation coefficient to evaluate reproducibility, Biometrics 45 (1989).
    """
    mean_p, mean_t = predicted.mean(0), truth.mean(0)
    centred_p, centred_t = predicted - mean_p, truth - mean_t
    covariance = (centred_p * centred_t).mean(0)
    spread = centred_p.square().mean(0) + centred_t.square().mean(0) + (mean_p - mean_t).square()
    return 2 * covariance / spread.clamp_min(torch.finfo(spread.dtype).tiny)


def va_loss(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean squared error plus one minus the mean concordance."""
    return functional.mse_loss(predicted, truth) + 1 - concordance(predicted, truth).mean()


def class_loss(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy with label smoothing in [0, 1)."""
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
