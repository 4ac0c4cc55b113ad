"""Predictions of the reported rows: every predictor with all its repeats, at full precision, in one file.

``predictions.npz`` has ``ids``, ``truth``, ``covered``, ``classes``, optionally ``group``, and ``values`` of shape
(lines, rows, columns) with a line for each repeat of each predictor. ``predictor``, ``role``, ``condition``,
``trained``, ``fits`` and ``repeat`` describe the lines. Values are natural logarithms of probabilities, or valence and
arousal.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...features.predictions import VA
from .predictors import Predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedPredictions:
    """The reported rows and their predictions.

    Attributes
    ----------
    task, classes : ``classes`` or ``va``, and names of the classes
    ids : (n,) str, sorted: the reported rows
    truth : (n,) labels or (n, 2) targets
    covered : (n,) bool
        Rows with 3D codes or a ready 3D prediction.
    group_names : (n,) str, empty for a row without a group; None where there are no groups
    predictors : references, then rules or heads, each followed by its controls
    """

    task: str
    classes: tuple[str, ...]
    ids: np.ndarray
    truth: np.ndarray
    covered: np.ndarray
    group_names: np.ndarray | None = None
    predictors: tuple[Predictor, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the prediction columns."""
        return self.classes or VA

    @property
    def groups(self) -> np.ndarray | None:
        """(n,) int numbers of groups; a row without a group is a separate group. None if no row has one."""
        if self.group_names is None:
            return None
        # as FusionTable.group_codes
        names = np.asarray(self.group_names, str)
        keys = np.where(names != "", np.char.add("g:", names), np.char.add("i:", np.asarray(self.ids, str)))
        return np.unique(keys, return_inverse=True)[1].reshape(-1)


def predictions_npz(of: ReportedPredictions) -> bytes:
    """The content of ``predictions.npz``; the same predictions give the same bytes."""
    lines = [(each, number) for each in of.predictors for number in range(len(each.every))]
    arrays: dict[str, Any] = {
        "ids": np.asarray(of.ids, str),
        "classes": np.array(of.classes, str),
        "truth": of.truth,
        "covered": of.covered,
        **({} if of.group_names is None else {"group": np.asarray(of.group_names, str)}),
        "predictor": np.array([each.name for each, _ in lines]),
        "role": np.array([each.role for each, _ in lines]),
        "condition": np.array([each.condition for each, _ in lines]),
        "trained": np.array([each.trained for each, _ in lines]),
        "fits": np.array([each.fits for each, _ in lines]),
        "repeat": np.array([number for _, number in lines]),
        "values": np.array([each.every[number] for each, number in lines]),
    }
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def read_predictions(path: str | Path) -> ReportedPredictions:
    """Read ``predictions.npz``.

    Raises
    ------
    OSError : the file cannot be read.
    ValueError : the file is not one of :func:`predictions_npz`.
    """
    try:
        with Path(path).open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        keys = list(zip(arrays["predictor"].tolist(), arrays["condition"].tolist(), strict=True))
        values, n = arrays["values"].astype(np.float64), len(arrays["ids"])
        if values.shape[:2] != (len(keys), n) or any(len(arrays[name]) != n for name in ("truth", "covered")):
            raise ValueError("arrays of different lengths")
        predictors = []
        for key in dict.fromkeys(keys):
            first, *others = [line for line, of in enumerate(keys) if of == key]
            predictors.append(
                Predictor(
                    key[0],
                    str(arrays["role"][first]),
                    bool(arrays["fits"][first]),
                    values[first],
                    repeats=tuple(values[line] for line in others),
                    condition=key[1],
                    trained=bool(arrays["trained"][first]),
                )
            )
        classes = tuple(arrays["classes"].tolist())
        return ReportedPredictions(
            task="classes" if classes else "va",
            classes=classes,
            ids=arrays["ids"],
            truth=arrays["truth"],
            covered=arrays["covered"].astype(bool),
            group_names=arrays.get("group"),
            predictors=tuple(predictors),
        )
    except (KeyError, TypeError, EOFError, IndexError, zipfile.BadZipFile, zlib.error) as exc:
        raise ValueError(f"not the predictions of a run: {exc}") from exc
