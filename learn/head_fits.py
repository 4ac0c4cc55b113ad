"""The heads of a plan fitted, or their scores taken from a cache that several runs share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ProtocolError
from ..features.atomic import replacing
from ..features.fusion_table import FusionTable
from ..features.predictions import log_softmax
from .config import FuseConfig
from .heads import code_hash, make_head
from .plan import EvaluationPlan, HeadFit
from .versions import versions

# A head is never quite sure; what it has not seen keeps a chance.
_HEAD_FLOOR = 1e-6
# Options that change no number are not part of a key.
_NUMBERLESS = ("num_threads", "n_jobs", "thread_count", "device", "verbose", "verbosity")


@dataclass(frozen=True, slots=True)
class FittedHeads:
    """Scores of each head of a plan, and the head that is saved.

    Attributes
    ----------
    scores : one (n, k) array for each head, NaN in rows that it was not asked for
    final : scikit-learn estimator; None where no model is wanted or 3D predictions came ready
    """

    scores: tuple[np.ndarray, ...]
    final: Any


class ScoreFolder(MutableMapping[str, np.ndarray]):
    """Scores of heads in a folder, one ``.npy`` by key: a cache for runs in several processes or on several days.

    Parameters
    ----------
    folder : path, made where it is missing
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npy"

    def __getitem__(self, key: str) -> np.ndarray:
        try:
            return np.asarray(np.load(self._path(key), allow_pickle=False))
        except Exception:  # absent or damaged: it is computed again
            raise KeyError(key) from None

    def __setitem__(self, key: str, scores: np.ndarray) -> None:
        with replacing(self._path(key)) as temporary, temporary.open("wb") as handle:
            np.save(handle, scores, allow_pickle=False)  # whole or not at all: another process may be reading

    def __delitem__(self, key: str) -> None:
        self._path(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self._folder.glob("*.npy")) if not path.name.startswith("."))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def fit_heads(
    table: FusionTable,
    protocol: EvaluationPlan,
    config: FuseConfig,
    cache: MutableMapping[str, np.ndarray] | None = None,
    after_head: Callable[[], object] | None = None,
) -> FittedHeads:
    """Fit the heads of a plan, each on its training rows.

    Parameters
    ----------
    table : FusionTable
    protocol : the plan for it
    config : FuseConfig
    cache : key -> scores of the rows a head was asked for
        A dictionary, or a :class:`ScoreFolder`. What is in it is not fitted again; the head that is saved is.

    after_head : called after each head, optional

    Raises
    ------
    ProtocolError : no codes to learn from, or one class only.
    """
    scores, final = [], None
    for number, fit in enumerate(protocol.heads):
        saved = config.model and number == protocol.final_head
        head, found = _scores_of(table, fit, config, saved, cache)
        values = np.full((len(table), len(table.columns)), np.nan)
        values[fit.predict] = found
        scores.append(values)
        final = head if saved else final
        if after_head is not None:
            after_head()
    return FittedHeads(tuple(scores), final)


def _scores_of(
    table: FusionTable,
    fit: HeadFit,
    config: FuseConfig,
    saved: bool,
    cache: MutableMapping[str, np.ndarray] | None,
) -> tuple[Any, np.ndarray]:
    """The head where it had to be fitted, and its scores (m, k) of the rows it is asked for."""
    _check(table, fit)
    if not saved and not len(fit.predict):
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
    beside = _beside(head, table, fit.train)
    key = "" if cache is None else _key(table, fit, config, head, beside)
    if cache is not None and not saved:
        try:
            return None, cache[key]
        except KeyError:
            pass
    assert table.codes is not None  # checked above; for the type checker
    groups = table.group_codes[fit.train] if table.grouped else None
    head.fit(table.codes[fit.train], table.truth[fit.train], groups=groups, **beside)
    scores = np.empty((0, len(table.columns)))
    if len(fit.predict):
        scores = scores_by(head, table.codes[fit.predict], table.task, len(table.columns))
    if cache is not None:
        cache[key] = scores
    return head, scores


def _beside(head: Any, table: FusionTable, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Valence and arousal of the training rows, for a head that learns them beside the classes."""
    takes = "targets" in signature(head.fit).parameters
    known = np.isfinite(table.targets[rows]).all(axis=1)
    return {"targets": table.targets[rows]} if takes and known.any() else {}


def _check(table: FusionTable, fit: HeadFit) -> None:
    if table.codes is None:
        raise ProtocolError("protocol: expected codes for a head, got ready 3D predictions")
    if not len(fit.train):
        raise ProtocolError(
            "codes: expected rows with 3D codes to learn from, got none; look at the statuses with ig3d inspect"
        )
    truth = table.truth[fit.train]
    if table.task == "classes" and len(np.unique(truth)) < 2:
        raise ProtocolError(
            f"labels: expected at least two classes among the {len(truth)} rows a head learns from, got only "
            f"{table.classes[int(truth[0])]}"
        )


def _key(
    table: FusionTable, fit: HeadFit, config: FuseConfig, head: Any, beside: dict[str, np.ndarray]
) -> str:
    """Hash of everything that the scores depend on: contents of the rows, the head with its options, versions."""
    assert table.codes is not None
    settings = {
        name: value
        for name, value in sorted(head.get_params().items())
        if name.rpartition("__")[2] not in _NUMBERLESS and not hasattr(value, "get_params")
    }
    named = config.head + code_hash(config.head)
    digest = hashlib.sha256(
        repr((table.task, len(table.columns), named, config.seed, settings, versions())).encode()
    )
    groups = np.unique(table.group_codes[fit.train], return_inverse=True)[1] if table.grouped else np.zeros(0)
    arrays = (table.codes[fit.train], table.truth[fit.train], groups, table.codes[fit.predict])
    for array in (*arrays, *beside.values()):
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def scores_by(head: Any, codes: np.ndarray, task: str, k: int) -> np.ndarray:
    """(n, k) scores of a head: log-probabilities over all k classes, whichever it has seen; or values in [-1, 1]."""
    if task == "va":
        return np.clip(head.predict(codes), -1, 1)
    p = np.zeros((len(codes), k))
    p[:, np.asarray(head.classes_, np.intp)] = head.predict_proba(codes)
    return log_softmax(np.log(np.maximum(p, _HEAD_FLOOR)))
