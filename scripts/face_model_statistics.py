"""Estimators for build_face_model.py: identity and expression in aligned points.

The model of a face is x = mean + identity of the person + expression + pose effect + residual. Expression is the part
that blendshape scores explain within persons. Identity is the remaining part that the photographs of a person share.
The pose effect is the distortion by the landmark network when the head rotates. The residual is noise of the network
and small changes of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh


def pose_terms(rotation: np.ndarray) -> np.ndarray:
    """(n, 5) regressors of the pose effect: sines of pitch and yaw, their squares and their product."""
    pitch, yaw = rotation[:, 2, 1], rotation[:, 0, 2]
    return np.stack([pitch, yaw, pitch**2, yaw**2, pitch * yaw], axis=1)


def person_means(rows: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean row and number of rows of each person; persons are numbered from 0 without gaps."""
    count = np.bincount(person)
    order = np.argsort(person, kind="stable")
    total = np.add.reduceat(rows[order], np.r_[0, np.cumsum(count)[:-1]], axis=0)
    return total / count[:, None], count


def effects(x: np.ndarray, terms: np.ndarray, person: np.ndarray, *, ridge: float = 1e-4) -> np.ndarray:
    """Coefficients (t, d) of terms (n, t), by least squares within persons."""
    inner = terms - person_means(terms, person)[0][person]
    residual = x - person_means(x, person)[0][person]
    gram = inner.T @ inner
    return np.linalg.solve(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), inner.T @ residual)


def one_hot(label: np.ndarray, names: list[str]) -> np.ndarray:
    """(n, c) indicators; the row of a label that is not in ``names`` is zero."""
    return (label[:, None] == np.array(names)[None]).astype(float)


def principal(
    covariance: np.ndarray, k: int, *, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """First k principal axes of a covariance (d, d), with weights (d,) of the coordinates.

    Returns
    -------
    axes : (k, d)
        Change of a row for one standard deviation of each score: the covariance of row and score.
    scores : (d, k)
        Linear map from a row to its scores, which are uncorrelated and have variance 1.
    """
    weights = np.ones(len(covariance)) if weights is None else weights
    values, vectors = np.linalg.eigh(covariance * np.outer(weights, weights))
    values, vectors = values[::-1], vectors[:, ::-1][:, :k]
    vectors = vectors * np.sign(vectors.sum(0))
    scores = weights[:, None] * vectors / np.sqrt(np.maximum(values[:k], 1e-30))
    return (covariance @ scores).T, scores


def centred(rows: np.ndarray) -> np.ndarray:
    """Rows minus their mean."""
    return rows - rows.mean(0)


def within(rows: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(d, d) covariance of rows around the mean of their person."""
    means, count = person_means(rows, person)
    inner = rows - means[person]
    return inner.T @ inner / (len(rows) - len(count))


def between(rows: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(d, d) covariance of the persons' expected rows: the moment estimator.

    The covariance of means of n rows includes 1/n of the covariance within persons, which is subtracted. Persons with
    more rows have more weight, up to twice as much.
    """
    means, count = person_means(rows, person)
    weight = count / (count + 1.0)
    weight /= weight.sum()
    difference = means - weight @ means
    total = (difference * weight[:, None]).T @ difference / (1 - (weight**2).sum())
    return total - (weight / count).sum() * within(rows, person)


def reliable(covariance: np.ndarray, noise: np.ndarray, k: int) -> np.ndarray:
    """(k, d) axes of a covariance (d, d) with the largest ratio to a noise covariance (linear discriminant analysis).

    Each axis is the change of a row for one standard deviation of its score. In the metric of the noise the axes are
    orthogonal.
    """
    size = len(covariance)
    values, scores = eigh((covariance + covariance.T) / 2, noise, subset_by_index=[size - k, size - 1])
    scores = scores[:, ::-1] / np.sqrt(values[::-1])
    axes = (covariance @ scores).T
    return axes * np.sign(axes.sum(1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Components:
    """Result of :func:`components`; d = 3 x 478 coordinates.

    Attributes
    ----------
    shape_basis, expression_basis : (ks, d), (ke, d)
        Change of a row for one standard deviation of each code.
    encoder : (ks + ke, d)
        Linear map from a row to the posterior mean of its codes.
    expression : (n, ke)
        Expression codes of the rows from their blendshapes, without shrinkage.
    """

    shape_basis: np.ndarray
    expression_basis: np.ndarray
    encoder: np.ndarray
    expression: np.ndarray


def components(
    x: np.ndarray,
    rotation: np.ndarray,
    label: np.ndarray,
    person: np.ndarray,
    blendshapes: np.ndarray,
    *,
    ks: int,
    ke: int,
    weights: np.ndarray | None = None,
    ridge: float = 0.1,
    floor: float = 3e-7,
) -> Components:
    """Estimate bases and encoder.

    Points are regressed on blendshape scores within persons. The expression axes are the principal axes of the
    explained part, with ``weights`` (d,). Identity is the covariance between persons of the unexplained part. Let W be
    the covariance within persons (explained or not) and P that of pose effects. The ks axes B of identity with the
    largest ratio to the noise W + P + floor are kept. The posterior mean of codes with prior N(0, 1) is then
    basis (B B' + W + P + floor)^-1 x.

    Parameters
    ----------
    x : (n, d) rows minus the mean face
    rotation, label, person, blendshapes : (n, 3, 3), (n,), (n,) int, (n, b)
    ks, ke : numbers of shape and expression axes
    weights : (d,), optional
    ridge : penalty of the regression on blendshapes, relative to their variance within persons
    floor : variance added to each coordinate
    """
    poses = centred(pose_terms(rotation))
    covariates = np.concatenate([poses, centred(one_hot(label, sorted(set(label.tolist()))))], axis=1)
    pose_effects = effects(x, covariates, person)[: poses.shape[1]]
    corrected = x - poses @ pose_effects
    scores = centred(blendshapes)
    scores = scores - poses @ effects(scores, covariates, person)[: poses.shape[1]]
    scores /= np.sqrt(np.diag(within(scores, person)) + 1e-12)
    explained = scores @ effects(corrected, scores, person, ridge=ridge)
    pose_covariance = pose_effects.T @ np.cov(poses, rowvar=False) @ pose_effects
    noise = within(corrected, person) + pose_covariance + floor * np.eye(x.shape[1])
    shape = reliable(between(corrected - explained, person), noise, ks)
    expression, to_codes = principal(within(explained, person), ke, weights=weights)
    encoder = np.linalg.solve(shape.T @ shape + noise, np.concatenate([shape, expression]).T).T
    return Components(shape, expression, encoder, explained @ to_codes)


def class_means(codes: np.ndarray, label: np.ndarray, person: np.ndarray, *, names: list[str]) -> np.ndarray:
    """(c, k) mean codes of each class; within a class each person has the same weight."""
    rows = []
    for name in names:
        inside = label == name
        number = np.unique(person[inside], return_inverse=True)[1]
        rows.append(person_means(codes[inside], number)[0].mean(0))
    return np.array(rows)
