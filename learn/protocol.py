"""Which rows are reported, and who is fitted on which rows: an object that the estimators cannot get around.

:func:`plan` reads the table's splits and groups, never a prediction's value, and returns a :class:`Protocol` whose
index arrays are all that fitting is given. It checks itself: no row is predicted by anything fitted on it, unless the
user asked for exactly that, which then marks every figure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ..errors import ProtocolError
from ..features.table import FusionTable
from ..features.values import Split
from .config import FuseConfig
from .folds import folds_of, strata_of

_EMPTY = np.zeros(0, np.intp)


@dataclass(frozen=True, slots=True)
class HeadFit:
    """One head: fitted on the codes of ``train``, asked for ``predict``; row indices of the table."""

    train: np.ndarray
    predict: np.ndarray


@dataclass(frozen=True, slots=True)
class FuserFit:
    """One set of fused rules: fitted on ``fit``, applied to ``apply``; row indices of the table.

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
        The refit on all calibration rows that is saved.
    final_head : number of the head that is saved, -1 when the 3D predictions are ready
    marked : bool
        Rules were fitted on the rows that are reported.
    left_out : int
        Reported or calibration rows without 2D prediction.
    sentences : tuple of str
        All of this for the reader.

    Raises
    ------
    ProtocolError : a row would be predicted by what was fitted on it.
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

    def __post_init__(self) -> None:
        applied = np.sort(np.concatenate([fuser.apply for fuser in self.fusers]))
        if not np.array_equal(applied, self.reported):
            raise ProtocolError(
                "protocol: expected every reported row to be predicted once, got another plan"
            )
        for fuser in self.fusers:
            if not self.marked and np.isin(fuser.apply, fuser.fit).any():
                raise ProtocolError(
                    "protocol: expected rules never to see the rows they are applied to, got some"
                )
        for fuser in (*self.fusers, self.final):
            for rows, heads in ((fuser.fit, fuser.heads_fit), (fuser.apply, fuser.heads_apply)):
                for number in heads:
                    head = self.heads[number]
                    if np.isin(np.intersect1d(head.predict, rows), head.train).any():
                        raise ProtocolError(
                            "protocol: expected heads never to predict rows they saw, got some"
                        )

    @property
    def calibration(self) -> np.ndarray:
        """Row indices that the saved rules are fitted on."""
        return self.final.fit


def plan(table: FusionTable, config: FuseConfig) -> Protocol:
    """Choose reported, calibration and training rows (docs/protocol.md).

    Raises
    ------
    ProtocolError : the rows do not allow it: no labels or 2D predictions where they are needed, too few groups.
    """
    usable = table.labelled & table.has_2d
    report_name, in_report, notes = _reported(table, usable, config)
    reported = np.flatnonzero(in_report & usable)
    needed = in_report & table.labelled
    calibration, fit_name = _calibration(table, usable, in_report, config)
    if calibration is not None:
        needed = needed | (table.split_mask(fit_name) & table.labelled)
    left_out = _left_out(table, needed, config, notes)
    _note_unlabelled(table, in_report, notes)
    _note_train(table, reported, config, notes)

    train = np.flatnonzero(table.split_mask("train") & table.labelled & table.covered & ~in_report)
    if table.three_d is not None:
        case = "ready"
    elif fit_name == "train":
        case = "out-of-fold"
    elif len(train):
        case = "once"
    else:
        case = "nested" if calibration is None else "out-of-fold"
    if calibration is None:
        drawn = _Drawn.of(table, reported, config, least=3 if case == "nested" else 2)
        fit_name = f"{drawn.count} folds of {report_name}"
        heads, fusers, final, final_head = _in_folds(table, reported, train, drawn, case)
        calibration = reported
        notes.extend(drawn.notes)
    else:
        heads, fusers, final, final_head = _apart(table, reported, calibration, train, case, config, notes)
    marked = config.fit_on == "reported"
    if marked:
        if case == "out-of-fold" and len(train):
            case = "once"
        heads, fusers, final, final_head, fit_name = _on_reported(
            table, reported, train, case, config, report_name
        )
    if table.grouped:
        _note_shared_groups(table, reported, calibration, heads, notes, marked)
    sentences = _sentences(table, case, report_name, fit_name, reported, final.fit, train, marked)
    return Protocol(
        case,
        report_name,
        fit_name,
        reported,
        heads,
        fusers,
        final,
        final_head,
        marked,
        left_out,
        (*sentences, *notes),
    )


def _reported(
    table: FusionTable, usable: np.ndarray, config: FuseConfig
) -> tuple[str, np.ndarray, list[str]]:
    """Name and mask of the reported part, with notes on the choice."""
    if config.report is not None:
        name = config.report
        mask = np.ones(len(table), bool) if name == "all" else table.split_mask(name)
        if not (mask & usable).any():
            raise ProtocolError(
                f"report: expected rows of {name} with a label and a 2D prediction, got {int(mask.sum())} rows, "
                f"{int((mask & table.labelled).sum())} with a label, {int((mask & table.has_2d).sum())} with a "
                "prediction"
            )
        return f"the {name} split" if name != "all" else "all rows", mask, []
    notes: list[str] = []
    for name in ("test", "val"):
        mask = table.split_mask(name)
        if (mask & usable).any():
            return f"the {name} split", mask, [*notes, f"Reported on {name}: assumed; --report chooses."]
        if (mask & table.labelled).any():
            notes.append(f"The {name} split has no 2D predictions and is not reported.")
    if not usable.any():
        raise ProtocolError(
            f"rows: expected some with a label and a 2D prediction, got {int(table.labelled.sum())} with a label, "
            f"{int(table.has_2d.sum())} with a prediction, none with both"
        )
    train, alone = table.split_mask("train"), table.split_mask("none")
    if train.all() or alone.all():
        said = "There is no test or val split to report; all rows are, by folds: assumed."
        return "all rows", np.ones(len(table), bool), [said]
    # A network is over-confident on what it was trained on: such rows are reported only where that was asked for.
    if not (alone & usable).any():
        raise ProtocolError(
            f"reported rows: expected 2D predictions outside of the train split, got {int(usable.sum())} labelled rows "
            "of the train split only; give those of another split, or report these all the same with --report train"
        )
    return "rows of no split", alone, [*notes, "Rows of no split are reported, by folds: assumed."]


def _calibration(
    table: FusionTable, usable: np.ndarray, in_report: np.ndarray, config: FuseConfig
) -> tuple[np.ndarray | None, str]:
    """Rows that rules are fitted on apart from the reported ones, and their split; None for folds."""
    if config.two_d_out_of_fold:
        known = table.split_mask("train") & usable
        if not known.any():
            raise ProtocolError("2d-out-of-fold: expected labelled train rows with 2D predictions, got none")
        # Where the train rows themselves are reported, there are none to fit on apart from them.
        if not (known & in_report).any():
            return np.flatnonzero(known), "train"
    rows = np.flatnonzero(table.split_mask("val") & usable & ~in_report)
    return (rows, "val") if len(rows) else (None, "")


def _left_out(table: FusionTable, needed: np.ndarray, config: FuseConfig, notes: list[str]) -> int:
    """How many needed rows have no 2D prediction; refused where they have codes, unless that was allowed."""
    lacking = needed & ~table.has_2d
    with_codes = int((lacking & table.covered).sum())
    if with_codes and not config.allow_missing:
        raise ProtocolError(
            f"2D predictions: expected one for each of the {int(needed.sum())} reported and calibration rows, got "
            f"none for {with_codes} rows with codes "
            f"({', '.join(table.id[lacking & table.covered][:3].tolist())}); give them, or leave these rows out with "
            "--allow-missing"
        )
    count = int(lacking.sum())
    if count:
        notes.append(
            f"{count} rows without a 2D prediction are left out of every figure ({with_codes} have codes)."
        )
    return count


def _note_unlabelled(table: FusionTable, in_report: np.ndarray, notes: list[str]) -> None:
    count = int((in_report & ~table.labelled).sum())
    if count:
        notes.append(f"{count} rows of the reported part have no label and are left out.")


def _note_train(table: FusionTable, reported: np.ndarray, config: FuseConfig, notes: list[str]) -> None:
    """Say that rows are reported on which the 2D network may have been trained."""
    count = int(table.split_mask("train")[reported].sum())
    if count and config.two_d_out_of_fold:
        notes.append(
            f"2D predictions of the {count} reported rows of the train split were declared out of fold by the user."
        )
    elif count:
        notes.append(
            f"WARNING {count} reported rows are of the train split: if the 2D network was trained on them its figures "
            "flatter; --2d-out-of-fold says they are out of fold."
        )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Folds of some rows: ``number`` (m,) aligned with ``rows``."""

    rows: np.ndarray
    number: np.ndarray
    count: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, table: FusionTable, rows: np.ndarray, config: FuseConfig, *, least: int = 2) -> _Drawn:
        groups = table.group_codes[rows]
        distinct = len(np.unique(groups))
        count = min(config.folds, distinct)
        if count < least:
            what = "groups" if table.grouped else "rows"
            raise ProtocolError(
                f"folds: expected at least {least}, from as many {what}, got {count} folds of {distinct} {what}; "
                "more rows, more folds, or a val split to fit on are needed"
            )
        number = folds_of(strata_of(table.truth[rows], table.task), groups, count, config.seed)
        notes = (
            () if count == config.folds else (f"{config.folds} folds were asked for; {count} are possible.",)
        )
        return cls(rows, number, count, notes)

    def of_fold(self, *folds: int) -> np.ndarray:
        return self.rows[np.isin(self.number, folds)]

    def but(self, *folds: int) -> np.ndarray:
        return self.rows[~np.isin(self.number, folds)]


_Plan = tuple[tuple[HeadFit, ...], tuple[FuserFit, ...], FuserFit, int]


def _with_codes(table: FusionTable, rows: np.ndarray) -> np.ndarray:
    return rows[table.covered[rows]]


def _in_folds(table: FusionTable, reported: np.ndarray, train: np.ndarray, drawn: _Drawn, case: str) -> _Plan:
    """Rules fitted on the other folds of the reported rows."""
    if case != "nested":
        heads: tuple[HeadFit, ...] = (HeadFit(train, _with_codes(table, reported)),) if case == "once" else ()
        used = (0,) if heads else ()
        fusers = tuple(FuserFit(drawn.but(i), drawn.of_fold(i), used, used) for i in range(drawn.count))
        return heads, fusers, FuserFit(reported, _EMPTY, used, used), 0 if heads else -1
    # A head fitted without folds i and j gives the inner out-of-fold predictions of j when i is applied to, and of i
    # when j is: half the fits of separate inner folds, and no fuser ever sees its own fold through a head.
    pairs = list(combinations(range(drawn.count), 2))
    heads = tuple(
        HeadFit(_with_codes(table, drawn.but(i, j)), _with_codes(table, drawn.of_fold(i, j)))
        for i, j in pairs
    ) + tuple(
        HeadFit(_with_codes(table, drawn.but(i)), _with_codes(table, drawn.of_fold(i)))
        for i in range(drawn.count)
    )
    outer = tuple(len(pairs) + i for i in range(drawn.count))
    fusers = tuple(
        FuserFit(
            drawn.but(i), drawn.of_fold(i), tuple(n for n, pair in enumerate(pairs) if i in pair), (outer[i],)
        )
        for i in range(drawn.count)
    )
    heads = (*heads, HeadFit(_with_codes(table, reported), _EMPTY))
    return heads, fusers, FuserFit(reported, _EMPTY, outer, ()), len(heads) - 1


def _apart(
    table: FusionTable,
    reported: np.ndarray,
    calibration: np.ndarray,
    train: np.ndarray,
    case: str,
    config: FuseConfig,
    notes: list[str],
) -> _Plan:
    """Rules fitted on rows of another split."""
    if case == "ready":
        return (), (FuserFit(calibration, reported),), FuserFit(calibration, _EMPTY), -1
    if case == "once":
        asked = _with_codes(table, np.sort(np.concatenate([calibration, reported])))
        final = FuserFit(calibration, _EMPTY, (0,), (0,))
        return (HeadFit(train, asked),), (FuserFit(calibration, reported, (0,), (0,)),), final, 0
    drawn = _Drawn.of(table, calibration, config)
    notes.extend(drawn.notes)
    # Train rows without a 2D prediction teach the head all the same; they are in no fold.
    rest = np.setdiff1d(train, calibration)
    heads = tuple(
        HeadFit(
            np.sort(
                np.concatenate([_with_codes(table, drawn.but(i)), _rest_for(table, rest, drawn.of_fold(i))])
            ),
            _with_codes(table, drawn.of_fold(i)),
        )
        for i in range(drawn.count)
    )
    last = HeadFit(
        np.sort(np.concatenate([_with_codes(table, calibration), rest])), _with_codes(table, reported)
    )
    inner, number = tuple(range(drawn.count)), drawn.count
    final = FuserFit(calibration, _EMPTY, inner, (number,))
    return (*heads, last), (FuserFit(calibration, reported, inner, (number,)),), final, number


def _rest_for(table: FusionTable, rest: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Train rows outside of all folds, less those of the groups in a fold."""
    groups = table.group_codes
    return rest[~np.isin(groups[rest], groups[fold])]


def _on_reported(
    table: FusionTable,
    reported: np.ndarray,
    train: np.ndarray,
    case: str,
    config: FuseConfig,
    report_name: str,
) -> tuple[tuple[HeadFit, ...], tuple[FuserFit, ...], FuserFit, int, str]:
    """Rules fitted on the rows they are reported on, as papers do; the heads still never saw them."""
    name = f"{report_name} itself"
    if case == "ready":
        fit = FuserFit(reported, reported)
        return (), (fit,), replace(fit, apply=_EMPTY), -1, name
    if len(train):
        fit = FuserFit(reported, reported, (0,), (0,))
        return (HeadFit(train, _with_codes(table, reported)),), (fit,), replace(fit, apply=_EMPTY), 0, name
    drawn = _Drawn.of(table, reported, config)
    heads = tuple(
        HeadFit(_with_codes(table, drawn.but(i)), _with_codes(table, drawn.of_fold(i)))
        for i in range(drawn.count)
    )
    inner = tuple(range(drawn.count))
    fit = FuserFit(reported, reported, inner, inner)
    last = HeadFit(_with_codes(table, reported), _EMPTY)
    return (*heads, last), (fit,), replace(fit, apply=_EMPTY, heads_apply=()), drawn.count, name


def _note_shared_groups(
    table: FusionTable,
    reported: np.ndarray,
    calibration: np.ndarray,
    heads: tuple[HeadFit, ...],
    notes: list[str],
    marked: bool,
) -> None:
    """Say where the dataset's own splits let a person or video stand on both sides."""
    groups = table.group_codes
    seen = {name for name, rows in (("calibration", calibration),) if not np.array_equal(rows, reported)}
    trained = np.unique(np.concatenate([head.train for head in heads])) if heads else _EMPTY
    trained = np.setdiff1d(trained, reported)
    for name, rows in (
        ("calibration", calibration if "calibration" in seen else _EMPTY),
        ("training", trained),
    ):
        shared = np.intersect1d(groups[rows], groups[reported])
        if len(shared) and not marked:
            notes.append(
                f"WARNING {len(shared)} groups of the reported rows also stand among the {name} rows: the dataset's "
                "splits share them, and figures are likely too good."
            )


def _sentences(
    table: FusionTable,
    case: str,
    report_name: str,
    fit_name: str,
    reported: np.ndarray,
    calibration: np.ndarray,
    train: np.ndarray,
    marked: bool,
) -> list[str]:
    """The protocol in words."""
    covered = int(table.covered[reported].sum())
    lines = [
        f"Reported: {report_name}, {len(reported)} rows, {covered} of them with 3D "
        f"({'codes' if table.three_d is None else 'predictions'})."
    ]
    if marked:
        lines.append(
            f"MARKED *: rules were fitted on {fit_name}, the very rows that are reported. These figures flatter; "
            "they exist to reproduce papers."
        )
    elif np.array_equal(reported, calibration):
        lines.append(
            f"Rules fitted on {fit_name}: each row is fused by parameters that never saw it"
            + (", nor its group." if table.grouped else ".")
        )
    else:
        lines.append(f"Rules fitted on the {fit_name} split, {len(calibration)} rows.")
    no_train = (
        "No train rows are left for the head"
        if table.split_mask("train").any()
        else "There is no train split"
    )
    head = {
        "ready": "3D predictions are taken as given.",
        "once": f"The head on the codes was fitted once, on {len(train)} train rows, and never refitted.",
        "nested": f"{no_train}: in each fold the head is fitted on the other folds, and the rules see "
        "its inner out-of-fold predictions.",
        "out-of-fold": f"Rules see the head's out-of-fold predictions of the {fit_name} rows; for the reported rows "
        "the head is refitted on all of them.",
    }[case]
    if marked and case in ("nested", "out-of-fold"):
        head = f"{no_train}: its predictions are out of fold, over folds of the reported rows."
    lines.append(head)
    if case == "out-of-fold" and fit_name == "train":
        lines.append("2D predictions of the train split were declared out of fold by the user.")
    return lines


def splits_in(table: FusionTable) -> dict[str, int]:
    """Rows by split, for the record."""
    return {split.name: int((table.split == split).sum()) for split in Split if (table.split == split).any()}
