"""Who is fitted on which rows: an object that the estimators cannot get around.

:func:`~.plan.plan` makes it; its index arrays are all that fitting is given. It checks itself: no row is predicted by
anything fitted on it, unless the user asked for exactly that, which then marks every figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ProtocolError
from ...features.fusion_table import digest_of


@dataclass(frozen=True, slots=True)
class HeadFit:
    """One head: fitted on the codes of ``train``, asked for ``predict``; row indices of the table."""

    train: np.ndarray
    predict: np.ndarray


@dataclass(frozen=True, slots=True)
class FuserFit:
    """One set of fused rules: fitted on ``fit``, which have 3D, applied to ``apply``; row indices of the table.

    ``heads_fit`` and ``heads_apply`` are numbers of the heads whose predictions stand on either side.
    """

    fit: np.ndarray
    apply: np.ndarray
    heads_fit: tuple[int, ...] = ()
    heads_apply: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Protocol:
    """The plan of a fusion run.

    Attributes
    ----------
    case : ``once``, ``nested``, ``out-of-fold`` or ``ready``
        How the 3D predictions come about.
    report_name, fit_name : str
        The reported and the calibration rows, in words.
    reported : sorted row indices
    heads : the heads to fit; none when the 3D predictions are ready
    fusers : the cross-fitted copies whose predictions are reported
    final : FuserFit
        The refit on all calibration rows with 3D that is saved.
    final_head : number of the head that is saved, -1 when the 3D predictions are ready
    marked : bool
        Rules were fitted on the rows that are reported.
    left_out : int
        Reported or calibration rows without 2D prediction.
    sentences : tuple of str
        All of this for the reader.
    groups : (n,) int over all rows of the table
        Rows of one group are on one side of every fold that was drawn.
    splits : (n,) int codes of :class:`~ig3d.features.samples.Split`
    ids : (n,) str

    Raises
    ------
    ProtocolError : a row would be predicted by what was fitted on it, or on its group within the same rows.
    """

    case: str
    report_name: str
    fit_name: str
    reported: np.ndarray
    heads: tuple[HeadFit, ...]
    fusers: tuple[FuserFit, ...]
    final: FuserFit
    final_head: int
    marked: bool
    left_out: int
    sentences: tuple[str, ...]
    groups: np.ndarray
    splits: np.ndarray
    ids: np.ndarray

    def __post_init__(self) -> None:
        applied = np.sort(np.concatenate([fuser.apply for fuser in self.fusers]))
        if not np.array_equal(applied, self.reported):
            raise ProtocolError(
                "protocol: expected every reported row to be predicted once, got another plan"
            )
        for fuser in self.fusers:
            if not self.marked and self._meet(fuser.fit, fuser.apply):
                raise ProtocolError(
                    "protocol: expected rules never to see the rows they are applied to, nor their groups, got some"
                )
        for fuser in (*self.fusers, self.final):
            for rows, heads in ((fuser.fit, fuser.heads_fit), (fuser.apply, fuser.heads_apply)):
                for number in heads:
                    head = self.heads[number]
                    if self._meet(head.train, np.intersect1d(head.predict, rows)):
                        raise ProtocolError(
                            "protocol: expected heads never to predict rows they saw, nor of their groups, got some"
                        )
        for fuser in () if self.marked else self.fusers:
            for number in fuser.heads_fit:
                if self._meet(self.heads[number].train, fuser.apply):
                    raise ProtocolError(
                        "protocol: expected rules never to be fitted to predictions of heads that saw the rows they "
                        "are applied to, nor their groups, got some"
                    )

    def _meet(self, fitted: np.ndarray, predicted: np.ndarray) -> bool:
        """Whether rows are on both sides, or groups within one split or among rows that folds were drawn of.

        The dataset's own splits may share groups; a sentence reports it.
        """
        parts = 8 * self.groups + self.splits
        if np.isin(predicted, fitted).any() or np.isin(parts[predicted], parts[fitted]).any():
            return True
        return any(
            np.isin(
                self.groups[predicted[np.isin(predicted, drawn)]], self.groups[fitted[np.isin(fitted, drawn)]]
            ).any()
            for drawn in (self.reported, self.final.fit)
        )

    @property
    def calibration(self) -> np.ndarray:
        """Row indices that the saved rules are fitted on."""
        return self.final.fit

    def record(self) -> dict[str, Any]:
        """What was fitted on which rows, for ``record.json``: counts, and SHA-256 of the sorted ids of each fit."""

        def rows(index: np.ndarray) -> dict[str, Any]:
            return {"rows": len(index), "ids_sha256": digest_of(self.ids[index])}

        return {
            "heads": [{"fitted_on": rows(head.train), "predicts": rows(head.predict)} for head in self.heads],
            "rules": [
                {
                    "fitted_on": rows(fuser.fit),
                    "heads_there": list(fuser.heads_fit),
                    "applied_to": rows(fuser.apply),
                    "heads_here": list(fuser.heads_apply),
                }
                for fuser in self.fusers
            ],
        }
