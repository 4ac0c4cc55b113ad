"""Evaluation plan of an intermediate fusion, and the codes of each condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import PredictionsError, ProtocolError, none_of, plural
from ...features.fusion_table import FusionTable
from ...features.samples import Split
from ..fold_models import FoldModel
from ..folds import held_out, strata_of
from ..plan import EvaluationPlan
from .config import IntermediateConfig

_NONE = np.zeros(0, np.intp)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModulePlan(EvaluationPlan):
    """Evaluation plan of an intermediate fusion; row indices are sorted.

    Attributes
    ----------
    task : ``classes``, ``va`` or ``both``
    train : rows on which weights are fitted
    validation : rows on which the epoch is chosen; none of them is reported
    predicted : rows with predictions: all outside of the train split
    """

    task: str
    train: np.ndarray
    validation: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(
        cls,
        table: FusionTable,
        task: str,
        *,
        train: np.ndarray = _NONE,
        validation: np.ndarray = _NONE,
        reported: np.ndarray = _NONE,
        predicted: np.ndarray,
        report_name: str = "",
        notes: tuple[str, ...] = (),
    ) -> ModulePlan:
        """Plan of one model, which is fitted on the train and validation rows and predicts the reported rows."""
        return cls(
            head_fitting="intermediate",
            report_name=report_name,
            fit_name="the train split",
            reported=reported,
            heads=(),
            fold_models=(FoldModel(np.union1d(train, validation), reported),),
            final_model=FoldModel(validation, _NONE),
            final_head_index=-1,
            groups=table.group_codes,
            splits=table.split,
            ids=table.id,
            notes=notes,
            task=task,
            train=train,
            validation=validation,
            predicted=predicted,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that are evaluated: with ``both``, classes and valence-arousal."""
        return ("classes", "va") if self.task == "both" else (self.task,)

    @property
    def sentences(self) -> tuple[str, ...]:
        return self.notes

    def record(self) -> dict[str, Any]:
        """The record of every plan, with numbers of train and validation rows, and the split of the latter."""
        from_val = bool((self.splits[self.validation] == Split.val).all())
        return EvaluationPlan.record(self) | {
            "train": len(self.train),
            "validation": len(self.validation),
            "validation_split": "val" if from_val else "train",
        }


def plan_modules(
    table: FusionTable, has_input: np.ndarray, config: IntermediateConfig, *, input_name: str
) -> ModulePlan:
    """Choose reported, train and validation rows.

    Parameters
    ----------
    table : n samples
    has_input : (n,) bool
        Samples with features (or with a readable image).
    config : IntermediateConfig
    input_name : str
        Input of a row, for messages: ``features``, ``an image``.

    Raises
    ------
    ProtocolError : there is no train split, or a split has too few rows.
    """
    task = config.task or table.task
    labelled = _labelled(table, task)
    in_train = table.split_mask("train")
    source = str(table.sources.get("3d", "store"))
    if not in_train.any():
        raise ProtocolError(
            f"{source}: {none_of(len(table), 'row', 'is')} of a train split, on which the module is fitted; extract "
            "with --split or a manifest"
        )
    usable = labelled & has_input
    if not (usable & in_train).any():
        raise ProtocolError(
            f"train rows: no labelled train row of {int((labelled & in_train).sum())} has {input_name}; write "
            "them for the train split too (ig3d logits --splits all)"
        )
    name = _reported(table, usable, config, input_name)
    reported = np.flatnonzero(usable & table.split_mask(name))
    notes = [] if config.report else [f"Reported split: {name} (default; change it with --report)."]
    rows = np.flatnonzero(usable & in_train)
    validation = np.flatnonzero(usable & table.split_mask("val")) if name != "val" else np.zeros(0, np.intp)
    if len(validation) >= 2:
        train, chosen_on = rows, "the val split"
    else:
        train, validation = _hold_out(table, rows, task, config)
        chosen_on = f"{len(validation)} of the train rows, by seed {config.seeds[0]}" + (
            ", in whole groups" if table.grouped else ""
        )
    _check_classes(table, train, task)
    notes.append(f"Fitted on {plural(len(train), 'train row')}; the epoch is chosen on {chosen_on}.")
    without = int((~table.covered[train]).sum())
    if without:
        notes.append(
            f"{plural(without, 'train row')} without codes; from them, the module learns to predict such rows."
        )
    shared = np.intersect1d(table.group_codes[rows], table.group_codes[reported])
    if table.grouped and len(shared):
        notes.append(
            f"WARNING {plural(len(shared), 'group')} (persons or videos) shared by the reported and the train rows: "
            "results are probably too optimistic."
        )
    return ModulePlan.of(
        table,
        task,
        train=train,
        validation=validation,
        reported=reported,
        predicted=np.flatnonzero(has_input & ~in_train),
        report_name=f"the {name} split",
        notes=tuple(notes),
    )


def _labelled(table: FusionTable, task: str) -> np.ndarray:
    """(n,) bool, rows with the labels of a task."""
    valued = np.isfinite(table.targets).all(axis=1)
    if task == "both" and not (valued & (table.labels >= 0)).any():
        raise ProtocolError(
            f"task both: no row has a class and valence and arousal (rows with a "
            f"class: {int((table.labels >= 0).sum())}, with both values: {int(valued.sum())}); choose classes or va"
        )
    if task == "both":
        return np.asarray(valued & (table.labels >= 0))
    return valued if task == "va" else np.asarray(table.labels >= 0)


def _reported(table: FusionTable, usable: np.ndarray, config: IntermediateConfig, input_name: str) -> str:
    for name in (config.report,) if config.report else ("test", "val"):
        if (usable & table.split_mask(name)).any():
            return name
    requested = config.report or "test or val"
    raise ProtocolError(
        f"reported rows: the {requested} split has no labelled rows with {input_name}; number by split: "
        + ", ".join(f"{part.name} {int((usable & (table.split == part)).sum())}" for part in Split)
    )


def _hold_out(
    table: FusionTable, rows: np.ndarray, task: str, config: IntermediateConfig
) -> tuple[np.ndarray, np.ndarray]:
    truth = table.targets[rows] if task == "va" else table.labels[rows]
    parts = max(2, round(1 / config.validation))
    held = held_out(
        strata_of(truth, "va" if task == "va" else "classes"),
        table.group_codes[rows] if table.grouped else None,
        parts,
        config.seeds[0],
    )
    if not held.any():
        raise ProtocolError(
            f"validation: at least {2 * parts} train rows or groups are needed, got "
            f"{plural(len(rows), 'row')} in {plural(len(np.unique(table.group_codes[rows])), 'group')}; add "
            "rows, or a val split that is not reported"
        )
    return rows[~held], rows[held]


def _check_classes(table: FusionTable, train: np.ndarray, task: str) -> None:
    if task != "va" and len(np.unique(table.labels[train])) < 2:
        raise ProtocolError(
            f"train rows: all have class {table.classes[int(table.labels[train[0]])]}; at least two classes are needed"
        )
    if not len(train) or not table.covered[train].any():
        raise PredictionsError(
            f"codes: no train row of {len(train)} has 3D codes; ig3d inspect shows the reasons"
        )


def codes_of(
    table: FusionTable, condition: str, parts: list[np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n, d) float32 of a condition, and (n,) bool: rows that have codes.

    Parameters
    ----------
    table : n samples
    condition : ``codes``, ``null-input`` (no row has codes), or ``permuted`` (codes are permuted among rows)
    parts : row indices within which codes are permuted: train, validation and other rows
    seed : seed of the permutation
    """
    codes = np.asarray(table.codes, np.float32)
    covered = table.covered
    if condition == "null-input":
        return codes, np.zeros(len(table), bool)
    if condition == "permuted":
        codes = codes.copy()
        random = np.random.default_rng([seed, 3])
        for part in parts:
            rows = part[covered[part]]
            codes[rows] = codes[rows[random.permutation(len(rows))]]
    return codes, covered
