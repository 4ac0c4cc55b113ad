"""3D alone: heads on the codes of a store, fitted and measured without a 2D network (the paper's "no fusion").

store -> table -> plan -> heads -> figures -> predictions. The rows are chosen as in a fusion run, and the same
:class:`~.plan.EvaluationPlan` stands between them and the heads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import PredictionsError, UsageError
from ..features.codes import read_codes
from ..features.fusion_table import FusionTable
from ..features.groups import regrouped
from ..features.join import Given
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
from .result import Result, figures_of_plan, reported_rows

PRIOR = "prior"
_RARE = 1e-6  # chance of a class that the training rows lack


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsResult(Result):
    """Result of heads on codes alone; its predictors are the prior, then the heads.

    A head answers with the training prior in rows without codes. Differences are to the prior and to the first head.

    Attributes
    ----------
    predictions : head -> its predictions of every row with codes that it was not fitted on, for ``ig3d fuse``
    """

    plan: EvaluationPlan
    config: HeadsConfig
    predictions: Mapping[str, Predictions]


def train_files(
    stores: str | Path | Sequence[str | Path],
    config: HeadsConfig | None = None,
    *,
    task: str | None = None,
    after_head: Callable[[str, float], object] | None = None,
) -> HeadsResult:
    """Read stores (:func:`~ig3d.features.codes.read_codes`), fit heads and measure them."""
    config = config or HeadsConfig()
    return train_heads(codes_table(stores, blocks=config.blocks, task=task), config, after_head=after_head)


def codes_table(
    stores: str | Path | Sequence[str | Path], *, blocks: str = "full", task: str | None = None
) -> FusionTable:
    """The table of stores alone: no row has a 2D prediction.

    Parameters
    ----------
    stores : one or several, as in :func:`~ig3d.features.codes.read_codes`
    blocks : which code blocks
    task : ``classes``, ``va``, or None for classes where there are some

    Raises
    ------
    UsageError : an unknown task or block.
    PredictionsError : no labels to measure by.
    StoreError : a store cannot be read.
    """
    if task not in (None, "classes", "va"):
        raise UsageError(f"task: expected classes or va, got {task!r}")
    paths = [stores] if isinstance(stores, str | Path) else stores
    samples, codes = read_codes([Path(path) for path in paths], blocks=blocks)
    given = Given(samples, codes.source, classes_of(samples), codes)
    has = {"classes": bool(samples["label"].notna().any()), "va": has_va(samples)}
    task = task or ("classes" if has["classes"] else "va")
    if not has[task]:
        other = next((name for name, there in has.items() if there), None)
        raise PredictionsError(
            f"{codes.source}: expected labels to measure by ({'classes' if task == 'classes' else ', '.join(VA)}), "
            "found none" + (f"; it has those of --task {other}" if other else "")
        )
    classes = given.classes if task == "classes" else ()
    labels = samples["label"].cat.codes.to_numpy(np.int16)
    return FusionTable(
        task=task,
        classes=classes,
        id=samples["id"].to_numpy(str),
        group=samples["group"].to_numpy(str),
        split=given.splits,
        labels=labels if classes else np.full_like(labels, -1),
        targets=given.targets,
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
    after_head: Callable[[str, float], object] | None = None,
) -> HeadsResult:
    """Fit heads on codes alone and measure them, all on the same rows and by the same draws.

    Parameters
    ----------
    table : with codes; 2D predictions are not looked at
    config : HeadsConfig, optional
    after_head : callable, optional
        Called with the name of each head when it is fitted, and the seconds that it took.

    Raises
    ------
    ProtocolError : the rows do not allow it.
    UsageError : a head there is not, or ``balanced`` without classes.
    MissingExtra : a head needs a package that is not installed.
    """
    config = config or HeadsConfig()
    if config.balanced and table.task == "va":
        raise UsageError("balanced: expected classes to weigh, got valence and arousal; leave it out")
    table = regrouped(table, config.groups)
    names, notes = _heads(config.heads, table.task)
    networks = any(needs_of(name, table.task) == "torch" for name in names)
    if table.task == "classes" and networks and np.isfinite(table.targets).all(axis=1).any():
        notes.append("Heads mlp and residual learn valence and arousal beside the classes, as in the paper.")
    plan = plan_heads(table, config)
    rows = plan.reported
    prior = _prior(table, plan)
    rules, predictions, seconds = [Predictor(PRIOR, "reference", False, prior[rows])], {}, {}
    for name in names:
        start = time.perf_counter()
        scores = fit_heads(table, plan, config.of_head(name)).scores
        seconds[name] = time.perf_counter() - start
        if after_head is not None:
            after_head(name, seconds[name])
        values = prior[rows]
        for model in plan.fold_models:
            found = scores[model.heads_apply[0]][model.apply]
            known = np.isfinite(found).all(axis=1)
            values[np.searchsorted(rows, model.apply[known])] = found[known]
        rules.append(Predictor(name, "head", False, values))
        predictions[name] = _predictions(table, plan, scores)
    groups = table.group_codes[rows] if table.grouped else None
    diagnostics = check_training_classes(table, plan) + check_groups(groups)
    figures = figures_of_plan(
        table,
        plan,
        tuple(rules),
        draws=config.draws,
        seed=config.seed,
        family=metric_names(table.task),
        references=(PRIOR, names[0]) if len(names) > 1 else (PRIOR,),
    )
    return HeadsResult(
        **reported_rows(table, plan),
        predictors=tuple(rules),
        figures=figures,
        config=replace(config, heads=names),
        notes=(*table.notes, *notes),
        diagnostics=tuple(diagnostics),
        predictions=predictions,
        seconds=seconds,
    )


def _heads(asked: tuple[str, ...], task: str) -> tuple[tuple[str, ...], list[str]]:
    """The heads that are asked for, with notes on those that are the user's own or cannot run here."""
    names: list[str] = []
    notes = []
    for name in asked:
        if name != "all":
            names.append(name)
            continue
        known = [known for known in HEADS if task in HEADS[known]]
        absent = {of for of in known if (package := needs_of(of, task)) and not find_spec(package)}
        names += [of for of in known if of not in absent]
        if absent:
            notes.append(
                f"Heads {', '.join(sorted(absent))} are left out: torch is not installed; pip install 'ig3d[networks]'."
            )
    for name in names:
        if custom_path(name):
            notes.append(f"Head {name} is a class of the user's own choice and runs as it is.")
        elif name not in head_names(task):
            raise UsageError(
                f"head: expected all, some of {', '.join(head_names(task))}, or module:Class of an estimator, got "
                f"{name!r}"
            )
    return tuple(dict.fromkeys(names)), notes


def _prior(table: FusionTable, plan: EvaluationPlan) -> np.ndarray:
    """(N, k) what the training rows of each fold say of any row: shares of the classes, or mean values."""
    values = np.full((len(table), len(table.columns)), np.nan)
    for model in plan.fold_models:
        truth = table.truth[model.fit]
        if table.task == "va":
            values[model.apply] = truth.mean(axis=0)
        else:
            share = np.bincount(truth.astype(np.intp), minlength=len(table.classes)) / len(truth)
            values[model.apply] = log_softmax(np.log(np.maximum(share, _RARE)))
    return values


def _predictions(table: FusionTable, plan: EvaluationPlan, scores: Sequence[np.ndarray]) -> Predictions:
    """Predictions of a head for every row that it was not fitted on."""
    values = np.full((len(table), len(table.columns)), np.nan)
    for head, found in zip(plan.heads, scores, strict=True):
        values[head.predict] = found[head.predict]
    known = np.isfinite(values).all(axis=1)
    classes = table.task == "classes"
    return Predictions(
        values=np.exp(values[known]) if classes else values[known],
        kind="probabilities" if classes else "va",
        columns=table.columns,
        ids=table.id[known],
        source="3D alone",
        out_of_fold=plan.head_fitting == IN_FOLDS,
    )


def write_predictions(result: HeadsResult, folder: str | Path) -> list[Path]:
    """Write ``predictions-HEAD.npz`` of every head, for ``ig3d fuse --3d-logits``; the paths."""
    written = []
    for name, predictions in result.predictions.items():
        path = Path(folder) / f"predictions-{name.replace(':', '.')}.npz"
        predictions.save(path)
        written.append(path)
    return written
