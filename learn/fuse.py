"""One fusion run: fit and measure all predictors on a table, and assemble the model that is saved.

plan -> heads -> references, rules and controls -> metrics and differences (``figures``) -> model. Only the
:class:`~.plan.EvaluationPlan` decides on which rows models are fitted.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..errors import UsageError, plural
from ..features.fusion_table import FusionTable
from ..features.groups import regrouped
from ..features.inputs import Inputs
from ..features.join import load_table
from .class_shares import shares_of
from .conditions import as_predictions
from .config import DEFAULT_RULES, FITTED_METRICS, REPEATS, REPEATS_OF_HEADS, FuseConfig
from .crossfit import CrossFit, Repeat, not_converged
from .diagnostics import check_figures, check_rows, diagnostic
from .fold_models import NESTED
from .head_fits import FittedHeads, ScoreFolder, fit_heads
from .heads import custom_path, untrusted_types
from .model import FusionModel, hashes_of, without_threads
from .plan import EvaluationPlan, plan_fusion
from .progress import Progress
from .result import Result, fields_of_plan, figures_of_plan
from .rules import RECALIBRATED, RULES, Rule, RuleSettings, make_rule

__all__ = ["FuseConfig", "FuseResult", "ScoreFolder", "fuse_files", "fuse_predictions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseResult(Result):
    """Result of a fusion run.

    ``model`` is None if ``config.model`` is False, or if the head or a rule cannot be stored (then with a diagnostic).
    """

    plan: EvaluationPlan
    config: FuseConfig
    model: FusionModel | None


def fuse_files(
    inputs: Inputs, config: FuseConfig | None = None, *, progress: Progress | None = None
) -> FuseResult:
    """Join files (:func:`~ig3d.features.join.load_table`) and fuse them."""
    config = config or FuseConfig()
    if progress is not None:
        progress("read", 0, 1)
    table = load_table(inputs, blocks=config.blocks, allow_missing=config.allow_missing, force=config.force)
    if progress is not None:
        progress("read", 1, 1)
    return fuse_predictions(table, config, progress=progress)


def fuse_predictions(
    table: FusionTable,
    config: FuseConfig | None = None,
    *,
    score_cache: MutableMapping[str, np.ndarray] | None = None,
    progress: Progress | None = None,
) -> FuseResult:
    """Fuse 2D predictions with 3D codes or predictions, and measure what the 3D adds.

    Parameters
    ----------
    table : FusionTable
    config : FuseConfig, optional
    score_cache : cache of the scores of heads, shared by several runs, optional
        A dictionary, or a :class:`~.head_fits.ScoreFolder`; does not affect results.
    progress : function ``(step, done, total)``, optional
        ``done`` may be a fraction, such as 1.5 of 5.

    Returns
    -------
    FuseResult
        It does not depend on the order of the rows or on the number of threads.

    Raises
    ------
    ProtocolError : no evaluation is possible with these rows (docs/protocol.md).
    UsageError : an option is not available for this task or table.
    """
    config = config or FuseConfig()
    table = regrouped(table, config.groups)
    config, notes = _drop_unusable_rules(config, table)
    settings = _rule_settings(config, table)
    start = time.perf_counter()
    plan = plan_fusion(table, config)
    fitted, repeats = _repeats(table, config, plan, score_cache, progress)
    after_heads = time.perf_counter()
    diagnostics = []
    foreign = []
    if custom_path(config.head) and fitted.final_head is not None:
        foreign = untrusted_types(fitted.final_head)
    if foreign:
        diagnostics.append(diagnostic("model_not_saved_head", head=config.head, types=foreign))
    external = [name for name in config.rules if name not in RULES]
    if config.model and external:
        diagnostics.append(diagnostic("model_not_saved_rules", rules=external))
    primary = config.primary_rule()
    crossfit = CrossFit(
        table, repeats, config.rules, primary, settings, config.controls, config.permutations, progress
    )
    # BLAS runs on one thread, so that results have the same bytes with any number of threads.
    with threadpool_limits(1, user_api="blas"):
        predictors, final_rules = crossfit.fit_all(
            with_final_rules=config.model and not foreign and not external
        )
    after_rules = time.perf_counter()
    if progress is not None:
        progress("intervals", 0, 1)
    figures = figures_of_plan(
        table,
        plan,
        predictors,
        draws=config.draws,
        seed=config.seed,
        family=FITTED_METRICS[
            settings.objective
        ],  # p-values of differences in these metrics are adjusted together
        refined=(RECALIBRATED, "2d", primary),  # their log loss is split into refinement and calibration
    )
    if progress is not None:
        progress("intervals", 1, 1)
    after_figures = time.perf_counter()
    model = _model(crossfit, fitted.final_head, final_rules) if final_rules else None
    diagnostics += not_converged(predictors) + check_rows(table, plan, predictors)
    diagnostics += check_figures(figures, len(plan.reported), table.task, settings.objective)
    return FuseResult(
        **fields_of_plan(table, plan),
        predictors=predictors,
        figures=figures,
        config=config,
        notes=(*table.notes, *notes),
        diagnostics=tuple(diagnostics),
        model=model,
        seconds={
            "heads": after_heads - start,
            "rules": after_rules - after_heads,
            "figures": after_figures - after_rules,
            "model": time.perf_counter() - after_figures,
        },
    )


def _repeats(
    table: FusionTable,
    config: FuseConfig,
    plan: EvaluationPlan,
    score_cache: MutableMapping[str, np.ndarray] | None,
    progress: Progress | None,
) -> tuple[FittedHeads, tuple[Repeat, ...]]:
    """Heads of the plan, and the cross-fittings: one if rules are fitted on a separate split, else several.

    Each further cross-fitting has new folds. Heads are fitted again for it only if they depend on the folds (nested).
    """
    nested = plan.head_fitting == NESTED
    count = 1
    if len(plan.fold_models) > 1:
        count = config.repeats or (REPEATS_OF_HEADS if nested else REPEATS)
    total = len(plan.heads) * (count if nested else 1)

    def fit(plan: EvaluationPlan, config: FuseConfig, before: int = 0) -> FittedHeads:
        def advance(done: float) -> None:
            if progress is not None:
                progress("heads", before + done, total)

        return fit_heads(table, plan, config, score_cache, advance)

    if progress is not None:
        progress("heads", 0, total)
    fitted = fit(plan, config)
    repeats = [Repeat(plan, fitted.scores, config.seed)]
    for number in range(1, count):
        seed = int(np.random.default_rng([config.seed, 2, number]).integers(2**32))
        reseeded = replace(config, seed=seed, model=False)
        new_plan = plan_fusion(table, reseeded)
        scores = fit(new_plan, reseeded, number * len(plan.heads)).scores if nested else fitted.scores
        repeats.append(Repeat(new_plan, scores, seed))
    return fitted, tuple(repeats)


def _drop_unusable_rules(config: FuseConfig, table: FusionTable) -> tuple[FuseConfig, list[str]]:
    """The configuration without the rules that cannot be used on this table, and a note on each of these.

    Raises
    ------
    UsageError : an option needs classes; a rule that cannot be used is the primary rule or has options; or no rule can
        be used.
    """
    if table.task == "va" and config.calibrate != "none":
        raise UsageError(
            f"calibrate: {config.calibrate} needs classes, but the task is valence and arousal; use none (stack and "
            "boost already recalibrate)"
        )
    reasons = _reasons_unusable(config.rules, config, table)
    for name, reason in reasons.items():
        if name in config.rule_options:
            raise UsageError(f"rule {name}: {reason}")
    if config.primary in reasons:
        raise UsageError(f"primary: {config.primary} cannot be used: {reasons[config.primary]}")
    usable = tuple(name for name in config.rules if name not in reasons)
    if not usable:
        name = config.rules[0]
        raise UsageError(f"rules: none of the rules can be used; {name}: {reasons[name]}")
    notes = [f"Rule {name} is left out: {reason}." for name, reason in reasons.items()]
    return replace(config, rules=usable), notes


def _reasons_unusable(names: tuple[str, ...], config: FuseConfig, table: FusionTable) -> dict[str, str]:
    """Rule -> reason why it cannot be used on this table; usable rules are left out."""
    settings = RuleSettings(table.task, "", options=config.rule_options)
    reasons = {
        name: make_rule(name, settings).unusable(table.task, codes=table.codes is not None) for name in names
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _rule_settings(config: FuseConfig, table: FusionTable) -> RuleSettings:
    """Settings of the run that every rule gets."""
    candidates = tuple(name for name in config.rules if name != "selected")
    if not candidates:  # selected is the only rule of the run: it chooses among the default rules
        default = tuple(name for name in DEFAULT_RULES if name != "selected")
        reasons = _reasons_unusable(default, config, table)
        candidates = tuple(name for name in default if name not in reasons)
    return RuleSettings(
        task=table.task,
        objective=config.objective_for(table.task),
        on=config.on,
        calibrate=config.calibrate,
        options=config.rule_options,
        seed=config.seed,
        threads=config.jobs,
        candidates=candidates,
    )


def _model(crossfit: CrossFit, head: Any, rules: dict[str, Rule]) -> FusionModel:
    """The model to save: final head, rules fitted on the calibration rows, and their class shares on these rows."""
    table, plan = crossfit.table, crossfit.plan
    shares = {}
    if table.task == "classes":
        fit = plan.calibration
        columns = crossfit.columns(fit, plan.final_model.heads_fit)
        with threadpool_limits(1, user_api="blas"):
            log_p = {"2d": as_predictions(columns.scores_2d, table.task)}
            log_p |= {
                name: rule.apply(columns.without_3d() if name == RECALIBRATED else columns)
                for name, rule in rules.items()
            }
            groups = table.group_codes[fit] if table.grouped else None
            shares = shares_of(log_p, table.labels[fit].astype(np.int64), groups)
    trained = np.zeros(0, np.intp) if head is None else plan.heads[plan.final_head_index].train
    return FusionModel(
        task=table.task,
        classes=table.classes,
        blocks=table.blocks,
        quality_columns=table.quality_columns,
        head=without_threads(head),
        rules={name: without_threads(rule) for name, rule in rules.items()},
        calibrate=crossfit.settings.calibrate,
        trained=hashes_of(table, trained),
        calibration=hashes_of(table, plan.calibration),
        fitted_on=f"{plan.fit_name} ({plural(len(plan.calibration), 'row')})",
        network=table.two_d_network,
        shares=shares,
    )
