"""Train and measure heads on codes alone, without a 2D network (the paper's "no fusion").

store -> table -> plan -> heads -> metrics and differences (``figures``) -> predictions. As in a fusion run, only the
:class:`~.plan.EvaluationPlan` decides on which rows heads are fitted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import PredictionsError, UsageError
from ..features.codes import read_codes
from ..features.fusion_table import FusionTable
from ..features.groups import regrouped
from ..features.join import SampleData
from ..features.labels import has_va
from ..features.predictions import VA, Predictions, log_softmax
from ..features.samples import classes_of
from .config import HeadsConfig
from .diagnostics import check_groups, check_training_classes
from .evaluate.metrics import metric_names
from .evaluate.predictors import Predictor
from .fold_models import IN_FOLDS
from .head_fits import fit_heads
from .heads import HEADS, custom_path, needs_of
from .heads import names as head_names
from .plan import EvaluationPlan, plan_heads
from .progress import Progress
from .result import Result, fields_of_plan, figures_of_plan

PRIOR = "prior"
_MIN_SHARE = 1e-6  # share of a class that has no training row


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsResult(Result):
    """Result of heads on codes alone.

    Predictors are the prior (class shares or means of the training rows), then the heads. Heads predict the prior in
    rows without codes. Differences are to the prior and to the first head.

    Attributes
    ----------
    predictions : head -> predictions of all rows with codes that the head was not fitted on, for ``ig3d fuse``
    """

    plan: EvaluationPlan
    config: HeadsConfig
    predictions: Mapping[str, Predictions]


def train_files(
    stores: str | Path | Sequence[str | Path],
    config: HeadsConfig | None = None,
    *,
    task: str | None = None,
    progress: Progress | None = None,
) -> HeadsResult:
    """Read stores (:func:`~ig3d.features.codes.read_codes`), fit heads and measure them."""
    config = config or HeadsConfig()
    return train_heads(codes_table(stores, blocks=config.blocks, task=task), config, progress=progress)


def codes_table(
    stores: str | Path | Sequence[str | Path], *, blocks: str = "full", task: str | None = None
) -> FusionTable:
    """Table of the samples and codes of stores; no row has a 2D prediction.

    Parameters
    ----------
    stores : path or paths, as in :func:`~ig3d.features.codes.read_codes`
    blocks : code blocks (:func:`~ig3d.features.blocks.choose_blocks`)
    task : ``classes`` or ``va``; None is classes if a sample has one

    Raises
    ------
    UsageError : the task or a block does not exist.
    PredictionsError : no sample has a label of the task.
    StoreError : a store cannot be read.
    """
    if task not in (None, "classes", "va"):
        raise UsageError(f"task: {task!r} is unknown; choose classes or va")
    paths = [stores] if isinstance(stores, str | Path) else stores
    samples, codes = read_codes([Path(path) for path in paths], blocks=blocks)
    data = SampleData(samples, codes.source, classes_of(samples), codes)
    has = {"classes": bool(samples["label"].notna().any()), "va": has_va(samples)}
    task = task or ("classes" if has["classes"] else "va")
    if not has[task]:
        other = next((name for name, present in has.items() if present), None)
        wanted = "classes" if task == "classes" else " and ".join(VA)
        reason = f"labels ({wanted})" if other else "labels of any kind"
        advice = (
            f"use --task {other}, whose labels it has" if other else "extract with a dataset that has labels"
        )
        raise PredictionsError(f"{codes.source}: has no {reason}, so nothing can be measured; {advice}")
    classes = data.classes if task == "classes" else ()
    labels = samples["label"].cat.codes.to_numpy(np.int16)
    return FusionTable(
        task=task,
        classes=classes,
        id=samples["id"].to_numpy(str),
        group=samples["group"].to_numpy(str),
        split=data.splits,
        labels=labels if classes else np.full_like(labels, -1),
        targets=data.targets,
        two_d=np.full((len(samples), len(classes or VA)), np.nan),
        codes=codes.values,
        code_columns=codes.columns,
        blocks=codes.blocks,
        notes=tuple(codes.notes),
        sources=codes.sources,
    )


def train_heads(
    table: FusionTable,
    config: HeadsConfig | None = None,
    *,
    progress: Progress | None = None,
) -> HeadsResult:
    """Fit heads on codes alone, and measure them on the same rows and bootstrap draws.

    Parameters
    ----------
    table : FusionTable with codes; 2D predictions are not used
    config : HeadsConfig, optional
    progress : function ``(head, done, total)`` of the fits of a head, optional

    Raises
    ------
    ProtocolError : no evaluation is possible with these rows.
    UsageError : a head does not exist, or ``balanced`` is set for valence and arousal.
    MissingExtra : a head needs a package that is not installed.
    """
    config = config or HeadsConfig()
    if config.balanced and table.task == "va":
        raise UsageError("balanced: needs classes, but the task is valence and arousal; leave the option out")
    table = regrouped(table, config.groups)
    names, notes = _heads(config.heads, table.task)
    networks = any(needs_of(name, table.task) == "torch" for name in names)
    if table.task == "classes" and networks and np.isfinite(table.targets).all(axis=1).any():
        notes.append("Heads mlp and residual also learn valence and arousal, as in the paper.")
    plan = plan_heads(table, config)
    rows = plan.reported
    prior = _prior(table, plan)
    predictors, predictions, seconds = [Predictor(PRIOR, "reference", False, prior[rows])], {}, {}
    for name in names:
        start = time.perf_counter()
        watch = partial(_advance, progress, name, len(plan.heads))
        scores = fit_heads(table, plan, config.of_head(name), progress=watch).scores
        seconds[name] = time.perf_counter() - start
        values = prior[rows]
        for model in plan.fold_models:
            predicted = scores[model.heads_apply[0]][model.apply]
            has_prediction = np.isfinite(predicted).all(axis=1)
            values[np.searchsorted(rows, model.apply[has_prediction])] = predicted[has_prediction]
        predictors.append(Predictor(name, "head", False, values))
        predictions[name] = _predictions(table, plan, scores)
    groups = table.group_codes[rows] if table.grouped else None
    diagnostics = check_training_classes(table, plan) + check_groups(groups)
    figures = figures_of_plan(
        table,
        plan,
        tuple(predictors),
        draws=config.draws,
        seed=config.seed,
        family=metric_names(table.task),
        references=(PRIOR, names[0]) if len(names) > 1 else (PRIOR,),
    )
    return HeadsResult(
        **fields_of_plan(table, plan),
        predictors=tuple(predictors),
        figures=figures,
        config=replace(config, heads=names),
        notes=(*table.notes, *notes),
        diagnostics=tuple(diagnostics),
        predictions=predictions,
        seconds=seconds,
    )


def _advance(progress: Progress | None, head: str, total: int, done: float) -> None:
    if progress is not None:
        progress(head, done, total)


def _heads(requested: tuple[str, ...], task: str) -> tuple[tuple[str, ...], list[str]]:
    """Names of the heads, ``all`` expanded; and notes on custom heads, and on heads whose package is not installed."""
    names: list[str] = []
    notes = []
    for name in requested:
        if name != "all":
            names.append(name)
            continue
        builtin = [head for head in HEADS if task in HEADS[head]]
        absent = [head for head in builtin if (package := needs_of(head, task)) and not find_spec(package)]
        names += [head for head in builtin if head not in absent]
        if absent:
            notes.append(
                f"Heads {', '.join(sorted(absent))} are left out: torch is not installed; pip install 'ig3d[networks]'."
            )
    for name in names:
        if custom_path(name):
            notes.append(f"Head {name} is a custom class.")
        elif name not in head_names(task):
            raise UsageError(
                f"head: {name!r} is unknown; choose all, some of {', '.join(head_names(task))}, or module:Class of an "
                "estimator"
            )
    return tuple(dict.fromkeys(names)), notes


def _prior(table: FusionTable, plan: EvaluationPlan) -> np.ndarray:
    """(n, k) prior of each row: log shares of the classes, or mean values, in the training rows of its fold model."""
    values = np.full((len(table), len(table.columns)), np.nan)
    for model in plan.fold_models:
        truth = table.truth[model.fit]
        if table.task == "va":
            values[model.apply] = truth.mean(axis=0)
        else:
            shares = np.bincount(truth.astype(np.intp), minlength=len(table.classes)) / len(truth)
            values[model.apply] = log_softmax(np.log(np.maximum(shares, _MIN_SHARE)))
    return values


def _predictions(table: FusionTable, plan: EvaluationPlan, scores: Sequence[np.ndarray]) -> Predictions:
    """Predictions of a head for all rows with codes that it was not fitted on."""
    values = np.full((len(table), len(table.columns)), np.nan)
    for head, predicted in zip(plan.heads, scores, strict=True):
        values[head.predict] = predicted[head.predict]
    has_prediction = np.isfinite(values).all(axis=1)
    classes = table.task == "classes"
    return Predictions(
        values=np.exp(values[has_prediction]) if classes else values[has_prediction],
        kind="probabilities" if classes else "va",
        columns=table.columns,
        ids=table.id[has_prediction],
        source="3D alone",
        out_of_fold=plan.head_fitting == IN_FOLDS,
    )


def write_predictions(result: HeadsResult, folder: str | Path) -> list[Path]:
    """Write ``predictions-HEAD.npz`` of each head, for ``ig3d fuse --3d-logits``; returns the paths."""
    written = []
    for name, predictions in result.predictions.items():
        path = Path(folder) / f"predictions-{name.replace(':', '.')}.npz"
        predictions.save(path)
        written.append(path)
    return written
