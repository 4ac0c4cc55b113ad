"""What identity and expression change about a face: the estimators of build_face_model.py, arrays in, arrays out.

Each face is a row x = mean + identity of its person + effect of its class + effect of its pose + rest. Identity is what
stays between photographs of one person; class and rest together are expression (and the landmark detector's noise,
which changes between photographs just as expression does and cannot be told from it). Pose effects are what the
detector makes of one and the same face when the head turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def pose_terms(rotation: np.ndarray) -> np.ndarray:
    """(n, 5) what the detector's distortion may depend on: pitch and yaw, their squares and product (sines)."""
    pitch, yaw = rotation[:, 2, 1], rotation[:, 0, 2]
    return np.stack([pitch, yaw, pitch**2, yaw**2, pitch * yaw], axis=1)


def person_means(rows: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean row of each person and how many rows it has; persons are numbered from 0 without gaps."""
    count = np.bincount(person)
    order = np.argsort(person, kind="stable")
    total = np.add.reduceat(rows[order], np.r_[0, np.cumsum(count)[:-1]], axis=0)
    return total / count[:, None], count


def effects(x: np.ndarray, terms: np.ndarray, person: np.ndarray, *, ridge: float = 1e-4) -> np.ndarray:
    """Coefficients (t, d) of terms (n, t), by least squares within persons: who is photographed how plays no part."""
    inner = terms - person_means(terms, person)[0][person]
    rest = x - person_means(x, person)[0][person]
    gram = inner.T @ inner
    return np.linalg.solve(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), inner.T @ rest)


def one_hot(label: np.ndarray, names: list[str]) -> np.ndarray:
    """(n, c) indicators; a label that is none of the names is a row of zeros."""
    return (label[:, None] == np.array(names)[None]).astype(float)


def principal(
    covariance: np.ndarray, k: int, *, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k largest axes of a covariance (d, d), in a metric that weighs coordinates (d,).

    Returns
    -------
    axes : (k, d)
        What one standard deviation of each score does to a row: the covariance of row and score.
    scores : (d, k)
        Linear map from a row to its scores, which have variance 1 and do not correlate.
    values : (d,)
        All eigenvalues in the metric, falling.
    """
    weights = np.ones(len(covariance)) if weights is None else weights
    values, vectors = np.linalg.eigh(covariance * np.outer(weights, weights))
    values, vectors = values[::-1], vectors[:, ::-1][:, :k]
    vectors = vectors * np.sign(vectors.sum(0))
    scores = weights[:, None] * vectors / np.sqrt(np.maximum(values[:k], 1e-30))
    return (covariance @ scores).T, scores, values


@dataclass(frozen=True, slots=True)
class Components:
    """What :func:`components` found; d = 3 x 478 coordinates.

    Attributes
    ----------
    shape_basis, expression_basis : (ks, d), (ke, d)
        What one standard deviation of each code does to a row.
    expression_scores : (d, ke)
        Linear map from what is not identity about a row to its expression codes.
    encoder : (ks + ke, d)
        The linear map from a row to the posterior mean of its codes.
    rest : (d, d)
        Covariance within persons and classes.
    within_values, between_values : (d,)
        Eigenvalues of the two covariances, falling.
    """

    shape_basis: np.ndarray
    expression_basis: np.ndarray
    expression_scores: np.ndarray
    encoder: np.ndarray
    rest: np.ndarray
    within_values: np.ndarray
    between_values: np.ndarray


def components(
    x: np.ndarray,
    rotation: np.ndarray,
    label: np.ndarray,
    person: np.ndarray,
    *,
    ks: int,
    ke: int,
    weights: np.ndarray | None = None,
    floor: float = 3e-7,
) -> Components:
    """Estimate bases and encoder from rows x (n, d), already less the mean face.

    Within-person scatter W gives expression, its axes found in a metric of ``weights`` (d,). Between persons, the
    moment estimator: the covariance of the persons' mean rows (less class and pose effects) holds identity plus what
    is left of the rest after averaging n rows, which is taken off; its ks largest axes are B. The posterior mean of
    codes with prior N(0, 1) is then basis (B B' + W + P + floor)^-1 x, where P is the spread that pose effects add
    and all of W counts, not only its first ke axes: small directions that hardly change within a person are the ones
    that tell persons apart.
    """
    names = sorted(set(label.tolist()))
    terms = np.concatenate([pose_terms(rotation), one_hot(label, names)], axis=1)
    terms -= terms.mean(0)
    coefficient = effects(x, terms, person)
    poses = terms[:, :5]
    level = x - poses @ coefficient[:5]
    inner = level - person_means(level, person)[0][person]
    count = np.bincount(person)
    freedom = len(x) - len(count)
    within = inner.T @ inner / freedom
    neutral = level - terms[:, 5:] @ coefficient[5:]
    means = person_means(neutral, person)[0]
    rest = neutral - means[person]
    rest = rest.T @ rest / freedom
    weight = count / (count + 1.0)
    weight /= weight.sum()
    centred = means - weight @ means
    between = (centred * weight[:, None]).T @ centred / (1 - (weight**2).sum()) - (
        weight / count
    ).sum() * rest
    expression, scores, within_values = principal(within, ke, weights=weights)
    shape, _, between_values = principal(between, ks)
    turned = coefficient[:5].T @ np.cov(poses, rowvar=False) @ coefficient[:5]
    total = shape.T @ shape + within + turned + floor * np.eye(x.shape[1])
    basis = np.concatenate([shape, expression])
    encoder = np.linalg.solve(total, basis.T).T
    return Components(shape, expression, scores, encoder, rest, within_values, between_values)


def class_means(codes: np.ndarray, label: np.ndarray, person: np.ndarray, *, names: list[str]) -> np.ndarray:
    """(c, k) mean codes of each class; within a class each person counts once."""
    rows = []
    for name in names:
        inside = label == name
        who = np.unique(person[inside], return_inverse=True)[1]
        rows.append(person_means(codes[inside], who)[0].mean(0))
    return np.array(rows)
