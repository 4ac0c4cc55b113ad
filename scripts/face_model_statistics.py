"""Statistical estimators of build_face_model.py: identity and expression in aligned points.

Each face is a row x = mean + identity of its person + expression + effect of its pose + rest. Expression is the part
that blendshape scores explain within persons. Identity is the part of the remainder that stays between photographs of
one person. Pose effects are the distortion that the landmark network adds when the head turns. The rest is the
network's noise and small changes of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh


def pose_terms(rotation: np.ndarray) -> np.ndarray:
    """(n, 5) terms of the network's distortion by pose: pitch and yaw, their squares and product (sines)."""
    pitch, yaw = rotation[:, 2, 1], rotation[:, 0, 2]
    return np.stack([pitch, yaw, pitch**2, yaw**2, pitch * yaw], axis=1)


def person_means(rows: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean row of each person and how many rows it has; persons are numbered from 0 without gaps."""
    count = np.bincount(person)
    order = np.argsort(person, kind="stable")
    total = np.add.reduceat(rows[order], np.r_[0, np.cumsum(count)[:-1]], axis=0)
    return total / count[:, None], count


def effects(x: np.ndarray, terms: np.ndarray, person: np.ndarray, *, ridge: float = 1e-4) -> np.ndarray:
    """Coefficients (t, d) of terms (n, t), by least squares within persons."""
    inner = terms - person_means(terms, person)[0][person]
    rest = x - person_means(x, person)[0][person]
    gram = inner.T @ inner
    return np.linalg.solve(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), inner.T @ rest)


def one_hot(label: np.ndarray, names: list[str]) -> np.ndarray:
    """(n, c) indicators; a label that is none of the names is a row of zeros."""
    return (label[:, None] == np.array(names)[None]).astype(float)


def principal(
    covariance: np.ndarray, k: int, *, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k largest axes of a covariance (d, d), in a metric that weighs coordinates (d,).

    Returns
    -------
    axes : (k, d)
        Change of a row for one standard deviation of each score: the covariance of row and score.
    scores : (d, k)
        Linear map from a row to its scores, which have variance 1 and do not correlate.
    """
    weights = np.ones(len(covariance)) if weights is None else weights
    values, vectors = np.linalg.eigh(covariance * np.outer(weights, weights))
    values, vectors = values[::-1], vectors[:, ::-1][:, :k]
    vectors = vectors * np.sign(vectors.sum(0))
    scores = weights[:, None] * vectors / np.sqrt(np.maximum(values[:k], 1e-30))
    return (covariance @ scores).T, scores


def centred(rows: np.ndarray) -> np.ndarray:
    """Rows less their mean."""
    return rows - rows.mean(0)


def within(rows: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(d, d) covariance of rows around their person's mean."""
    means, count = person_means(rows, person)
    inner = rows - means[person]
    return inner.T @ inner / (len(rows) - len(count))


def between(rows: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(d, d) covariance of the persons' expected rows: the moment estimator.

    The mean of a person's n rows holds 1/n of the covariance within persons, which is subtracted. Persons with more
    rows weigh more, up to twice as much.
    """
    means, count = person_means(rows, person)
    weight = count / (count + 1.0)
    weight /= weight.sum()
    apart = means - weight @ means
    total = (apart * weight[:, None]).T @ apart / (1 - (weight**2).sum())
    return total - (weight / count).sum() * within(rows, person)


def reliable(covariance: np.ndarray, noise: np.ndarray, k: int) -> np.ndarray:
    """(k, d) axes of a covariance (d, d) that exceed a noise covariance most: linear discriminant analysis.

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
        Expression codes of the rows by their blendshapes, not shrunken.
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

    Points are regressed on blendshape scores within persons. The covariance of the explained part gives the
    expression axes, found in a metric of ``weights`` (d,). Identity is the covariance between persons of the
    unexplained part. With W the covariance within persons (explained or not) and P the spread that pose effects add,
    the ks axes B of identity that exceed the noise W + P + floor most are kept. The posterior mean of codes with prior
    N(0, 1) is then basis (B B' + W + P + floor)^-1 x.

    Parameters
    ----------
    x : (n, d) rows, already less the mean face
    rotation : (n, 3, 3);  label : (n,);  person : (n,) int;  blendshapes : (n, b)
    ks, ke : numbers of shape and expression axes
    weights : (d,), optional
    ridge : penalty of the regression on blendshapes, relative to their variance within persons
    floor : variance added to each coordinate
    """
    poses = centred(pose_terms(rotation))
    known = np.concatenate([poses, centred(one_hot(label, sorted(set(label.tolist()))))], axis=1)
    turn = effects(x, known, person)[: poses.shape[1]]
    level = x - poses @ turn
    scores = centred(blendshapes)
    scores = scores - poses @ effects(scores, known, person)[: poses.shape[1]]
    scores /= np.sqrt(np.diag(within(scores, person)) + 1e-12)
    explained = scores @ effects(level, scores, person, ridge=ridge)
    noise = within(level, person) + turn.T @ np.cov(poses, rowvar=False) @ turn + floor * np.eye(x.shape[1])
    shape = reliable(between(level - explained, person), noise, ks)
    expression, to_codes = principal(within(explained, person), ke, weights=weights)
    encoder = np.linalg.solve(shape.T @ shape + noise, np.concatenate([shape, expression]).T).T
    return Components(shape, expression, encoder, explained @ to_codes)


def class_means(codes: np.ndarray, label: np.ndarray, person: np.ndarray, *, names: list[str]) -> np.ndarray:
    """(c, k) mean codes of each class; within a class each person counts once."""
    rows = []
    for name in names:
        inside = label == name
        who = np.unique(person[inside], return_inverse=True)[1]
        rows.append(person_means(codes[inside], who)[0].mean(0))
    return np.array(rows)
