"""Which rows heads on codes alone are reported on, and which of them learn what: the plan of ``ig3d train``."""

from __future__ import annotations

import numpy as np

from ...errors import ProtocolError
from ...features.fusion_table import FusionTable
from ..config import FuseConfig
from .cross_fit import Drawn, with_codes
from .rows import FuserFit, HeadFit, Protocol
from .words import note_shared_groups, note_unlabelled

_EMPTY = np.zeros(0, np.intp)


def plan_heads(table: FusionTable, config: FuseConfig) -> Protocol:
    """Which rows are reported, and which head predicts which of them (docs/heads.md).

    Raises
    ------
    ProtocolError : no labelled rows to report, none to learn from, or too few groups for folds.
    """
    name, mask, notes = _reported(table, config.report)
    reported = np.flatnonzero(mask & table.labelled)
    learnable = table.labelled & table.covered & ~mask
    note_unlabelled(table, mask, notes)
    fit_name, train = next(
        (
            (f"the {split} split", rows)
            for split in ("train", "val")
            if len(rows := np.flatnonzero(table.split_mask(split) & learnable))
        ),
        ("", _EMPTY),
    )
    if len(train):
        asked = np.setdiff1d(np.flatnonzero(table.covered), train)
        heads: tuple[HeadFit, ...] = (HeadFit(train, asked),)
        fusers: tuple[FuserFit, ...] = (FuserFit(train, reported, (), (0,)),)
        said = f"Heads fitted on {fit_name}, {len(train)} rows with codes."
    else:
        drawn = Drawn.of(table, reported, config)
        folds = range(drawn.count)
        fit_name = f"{drawn.count} folds of {name}"
        heads = tuple(
            HeadFit(with_codes(table, drawn.but(i)), with_codes(table, drawn.of_fold(i))) for i in folds
        )
        if not all(len(head.train) for head in heads):
            raise ProtocolError(
                "codes: expected rows with 3D codes to learn from, got none; look at the statuses with ig3d inspect"
            )
        fusers = tuple(FuserFit(heads[i].train, drawn.of_fold(i), (), (i,)) for i in folds)
        said = f"Heads fitted on {fit_name}: each row is predicted by a head that never saw it" + (
            ", nor its group." if table.grouped else "."
        )
        notes += drawn.notes
    if table.grouped:
        note_shared_groups(table, reported, _EMPTY, heads, notes)
    covered = int(table.covered[reported].sum())
    if covered < len(reported):
        notes.append(
            f"{len(reported) - covered} of {len(reported)} reported rows have no 3D codes: every head answers with "
            "the prior there; figures of the rows with codes are in the files."
        )
    sentences = (f"Reported: {name}, {len(reported)} rows, {covered} of them with 3D codes.", said, *notes)
    return Protocol(
        case="once" if len(train) else "folds",
        report_name=name,
        fit_name=fit_name,
        reported=reported,
        heads=heads,
        fusers=fusers,
        final=FuserFit(train if len(train) else with_codes(table, reported), _EMPTY),
        final_head=-1,
        marked=False,
        left_out=0,
        sentences=sentences,
        groups=table.group_codes,
        splits=table.split,
        ids=table.id,
    )


def _reported(table: FusionTable, asked: str | None) -> tuple[str, np.ndarray, list[str]]:
    """Name and mask of the reported rows, with notes on the choice."""
    every = np.ones(len(table), bool)
    if asked is not None:
        mask = every if asked == "all" else table.split_mask(asked)
        if not (mask & table.labelled).any():
            raise ProtocolError(
                f"report: expected rows of {asked} with a label, got {int(mask.sum())} rows, none with a label"
            )
        return ("all rows" if asked == "all" else f"the {asked} split"), mask, []
    for name in ("test", "val"):
        mask = table.split_mask(name)
        if (mask & table.labelled).any():
            return f"the {name} split", mask, [f"Reported on {name}: assumed; --report chooses."]
    alone = table.split_mask("none")
    if (alone & table.labelled).any() and not alone.all():
        return "rows of no split", alone, ["Rows of no split are reported: assumed; --report chooses."]
    if not table.labelled.any():
        raise ProtocolError(f"rows: expected some with a label, got {len(table)} without")
    return "all rows", every, ["There is no test or val split to report; all rows are, by folds: assumed."]
