"""Smoothing over time within a video, for 2D predictions (as a control) and for exported codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import PredictionsError, UsageError, plural
from .align import align_columns
from .predictions import Predictions, load_predictions
from .store import CodeStore

# Weights of frames further away than this number of standard deviations are below 0.0004, and count as 0.
_REACH = 4.0


def smooth(values: np.ndarray, seconds: np.ndarray, video: np.ndarray, width: float) -> np.ndarray:
    """Average values over time with Gaussian weights, within each video.

    Parameters
    ----------
    values : (n, k)
        Rows with NaN are not used and not changed.
    seconds : (n,)
        Times of the rows; rows without a time (NaN) are not used and not changed.
    video : (n,)
        Video of each row; rows of different videos do not mix.
    width : float
        Standard deviation of the weights, seconds.

    Returns
    -------
    (n, k) float64

    Raises
    ------
    UsageError : the width is not a positive number.

    Examples
    --------
    >>> smooth(np.array([[0.0], [1.0], [0.0]]), np.arange(3.0), np.zeros(3), 0.5).round(2).ravel()
    array([0.12, 0.79, 0.12])
    """
    if not 0 < width < np.inf:
        raise UsageError(f"the smoothing width is {width:g} s; it must be a number above 0")
    result = np.array(values, np.float64)
    usable = np.flatnonzero(np.isfinite(result).all(axis=1) & np.isfinite(seconds))
    if not len(usable):
        return result
    _, codes = np.unique(video, return_inverse=True)
    order = usable[np.lexsort((seconds[usable], codes.reshape(-1)[usable]))]
    time, code, ordered = seconds[order], codes.reshape(-1)[order], result[order]
    total, weights = ordered.copy(), np.ones(len(order))
    for shift in range(1, len(order)):
        distance = time[shift:] - time[:-shift]
        near = (code[shift:] == code[:-shift]) & (distance <= _REACH * width)
        if not near.any():
            break
        weight = np.where(near, np.exp(-0.5 * (distance / width) ** 2), 0)
        total[shift:] += weight[:, None] * ordered[:-shift]
        total[:-shift] += weight[:, None] * ordered[shift:]
        weights[shift:] += weight
        weights[:-shift] += weight
    result[order] = total / weights[:, None]
    return result


def frames_of(store: CodeStore) -> tuple[np.ndarray, np.ndarray]:
    """(n,) seconds and (n,) videos of the rows of a store.

    Raises
    ------
    UsageError : the store has no frames of videos, or several faces of one frame: faces are not tracked, so that the
        rows of one person are unknown.
    """
    samples = store.samples
    if "time" not in samples or samples["time"].isna().all():
        raise UsageError(f"{store.path}: smoothing needs frames of videos, and the store has images only")
    paths = samples["path"][samples["time"].notna()]
    if several := paths[paths.duplicated()].nunique():
        raise UsageError(
            f"{store.path}: several faces in {plural(several, 'frame')}; faces are not tracked, so that smoothing "
            "would mix people; extract a store with --faces largest"
        )
    return samples["time"].to_numpy(np.float64), samples["path"].str.rpartition("#")[0].to_numpy(dtype="U")


def smooth_predictions(file: str | Path, store: str | Path, width: float) -> Predictions:
    """Predictions of a 2D network, smoothed over time within each video of a store.

    Logits, probabilities, or valence and arousal are averaged. The result is a control for fusion: a 2D network that is
    smooth over time, without codes.

    Parameters
    ----------
    file : path of predictions of frames, with ids
    store : path of a store of the same frames
    width : float
        Standard deviation of the Gaussian weights, seconds.

    Raises
    ------
    PredictionsError : the predictions have no ids, or cannot be aligned with the store.
    UsageError : the store has no videos or several faces of one frame, or the width is not a positive number.
    """
    predictions = load_predictions(file)
    with CodeStore(store) as opened:
        samples = opened.samples
        seconds, video = frames_of(opened)
    ids = predictions.id_columns or ({} if predictions.ids is None else {"ids": predictions.ids})
    aligned = align_columns(
        ids,
        predictions.other_columns,
        samples,
        source=Path(file).name,
        to=Path(store).name,
        allow_missing=True,
    )
    if aligned is None:
        raise PredictionsError(f"{file}: has no ids to match its rows to {store}; save it with ids")
    rows, _ = aligned
    matched = rows >= 0
    values = predictions.values.copy()
    values[matched] = smooth(values[matched], seconds[rows[matched]], video[rows[matched]], width)
    return replace(
        predictions,
        values=values,
        ids=samples["id"].to_numpy(dtype="U")[rows] if matched.all() else predictions.ids,
    )
