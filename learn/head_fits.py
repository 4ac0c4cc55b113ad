"""Fit the heads of a plan, or take their scores from a cache that several runs share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ProtocolError, plural
from ..features.atomic import replacing
from ..features.fusion_table import FusionTable
from ..features.predictions import log_softmax
from .config import FuseConfig
from .heads import code_hash, make_head
from .plan import EvaluationPlan, HeadFit
from .progress import watching_fit
from .versions import versions

# Smallest probability of a class, also of classes that a head was not trained on.
_MIN_PROBABILITY = 1e-6
# Parameters of heads that do not affect scores, and so are not part of the key of the cache.
_WITHOUT_EFFECT = ("num_threads", "n_jobs", "thread_count", "device", "verbose", "verbosity")


@dataclass(frozen=True, slots=True)
class FittedHeads:
    """Scores of each head of a plan, and the head that is saved.

    Attributes
    ----------
    scores : (n, k) float64 for each head; NaN in rows that the plan does not predict with it
    final_head : scikit-learn estimator; None if no model is saved, or if the 3D predictions come from a file
    """

    scores: tuple[np.ndarray, ...]
    final_head: Any


class ScoreFolder(MutableMapping[str, np.ndarray]):
    """Cache of the scores of heads in a folder, one ``.npy`` file per key, for several processes and later runs.

    Parameters
    ----------
    folder : path; created if missing
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npy"

    def __getitem__(self, key: str) -> np.ndarray:
        try:
            return np.asarray(np.load(self._path(key), allow_pickle=False))
        except Exception:  # missing or damaged: the scores are computed again
            raise KeyError(key) from None

    def __setitem__(self, key: str, scores: np.ndarray) -> None:
        # renamed when complete: another process may be reading
        with replacing(self._path(key)) as temporary, temporary.open("wb") as handle:
            np.save(handle, scores, allow_pickle=False)

    def __delitem__(self, key: str) -> None:
        self._path(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self._folder.glob("*.npy")) if not path.name.startswith("."))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def fit_heads(
    table: FusionTable,
    plan: EvaluationPlan,
    config: FuseConfig,
    cache: MutableMapping[str, np.ndarray] | None = None,
    progress: Callable[[float], object] | None = None,
) -> FittedHeads:
    """Fit the heads of a plan, each on its training rows.

    Parameters
    ----------
    table : FusionTable
    plan : the plan for this table
    config : FuseConfig
    cache : key -> scores (m, k) of the m rows that a head predicts, optional
        A dictionary, or a :class:`ScoreFolder`. A head whose scores are in the cache is not fitted, except for the one
        that is saved.
    progress : called with the number of heads that are fitted, such as 1.5, optional

    Raises
    ------
    ProtocolError : a head has no training rows with codes, or they are all of one class.
    """
    scores, final_head = [], None
    progress = progress or (lambda done: None)
    for number, fit in enumerate(plan.heads):
        is_saved = config.model and number == plan.final_head_index
        with watching_fit(progress, number):
            head, predicted = _head_and_scores(table, fit, config, cache, is_saved=is_saved)
        values = np.full((len(table), len(table.columns)), np.nan)
        values[fit.predict] = predicted
        scores.append(values)
        if is_saved:
            final_head = head
        progress(number + 1)
    return FittedHeads(tuple(scores), final_head)


def _head_and_scores(
    table: FusionTable,
    fit: HeadFit,
    config: FuseConfig,
    cache: MutableMapping[str, np.ndarray] | None,
    *,
    is_saved: bool,
) -> tuple[Any, np.ndarray]:
    """The fitted head (None if its scores are cached), and its (m, k) scores of the rows that it predicts."""
    _check(table, fit)
    if not is_saved and not len(fit.predict):
        return None, np.empty((0, len(table.columns)))
    head = make_head(
        config.head,
        table.task,
        seed=config.seed,
        jobs=config.jobs,
        blocks=[block.width for block in table.blocks],
        balanced=config.objective == "balanced",
        device=config.device,
    )
    targets = _targets_of(head, table, fit.train)
    key = "" if cache is None else _key(table, fit, config, head, targets)
    if cache is not None and not is_saved:
        try:
            return None, cache[key]
        except KeyError:
            pass
    assert table.codes is not None  # by _check; for the type checker
    groups = table.group_codes[fit.train] if table.grouped else None
    head.fit(table.codes[fit.train], table.truth[fit.train], groups=groups, **targets)
    scores = np.empty((0, len(table.columns)))
    if len(fit.predict):
        scores = scores_by(head, table.codes[fit.predict], table.task, len(table.columns))
    if cache is not None:
        cache[key] = scores
    return head, scores


def _targets_of(head: Any, table: FusionTable, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Argument ``targets`` of ``head.fit``: valence and arousal of the training rows.

    Empty if the head does not learn them in addition to the classes, or if no row has them.
    """
    accepted = "targets" in signature(head.fit).parameters
    has_targets = np.isfinite(table.targets[rows]).all(axis=1)
    return {"targets": table.targets[rows]} if accepted and has_targets.any() else {}


def _check(table: FusionTable, fit: HeadFit) -> None:
    """Raise an error if a head cannot be fitted to its training rows."""
    if table.codes is None:
        raise ProtocolError("plan: a head needs codes, but the 3D predictions come from a file")
    if not len(fit.train):
        raise ProtocolError(
            "codes: no row has 3D codes to train a head on; check the status of the rows with ig3d inspect"
        )
    truth = table.truth[fit.train]
    if table.task == "classes" and len(np.unique(truth)) < 2:
        raise ProtocolError(
            f"labels: a head needs training rows of at least two classes; the class of {plural(len(truth), 'row')} is "
            f"{table.classes[int(truth[0])]}; add rows of other classes"
        )


def _key(
    table: FusionTable, fit: HeadFit, config: FuseConfig, head: Any, targets: dict[str, np.ndarray]
) -> str:
    """Hash of everything that affects the scores: data of the rows, the head with its options, and versions."""
    assert table.codes is not None
    settings = {
        name: value
        for name, value in sorted(head.get_params().items())
        if name.rpartition("__")[2] not in _WITHOUT_EFFECT and not hasattr(value, "get_params")
    }
    name_and_code = config.head + code_hash(config.head)
    digest = hashlib.sha256(
        repr((table.task, len(table.columns), name_and_code, config.seed, settings, versions())).encode()
    )
    groups = np.unique(table.group_codes[fit.train], return_inverse=True)[1] if table.grouped else np.zeros(0)
    arrays = (table.codes[fit.train], table.truth[fit.train], groups, table.codes[fit.predict])
    for array in (*arrays, *targets.values()):
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def scores_by(head: Any, codes: np.ndarray, task: str, k: int) -> np.ndarray:
    """(n, k) scores of a head: log-probabilities of all k classes, also of untrained ones; or values in [-1, 1]."""
    if task == "va":
        return np.clip(head.predict(codes), -1, 1)
    p = np.zeros((len(codes), k))
    p[:, np.asarray(head.classes_, np.intp)] = head.predict_proba(codes)
    return log_softmax(np.log(np.maximum(p, _MIN_PROBABILITY)))
