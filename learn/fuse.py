"""One fusion run: table and choices in, measured predictions and a fitted model out.

plan -> heads -> references, rules and controls -> figures -> model. Nothing here decides which rows anything is fitted
on; the :class:`~.protocol.Protocol` does.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from ..errors import UsageError, some
from ..features.fusion_table import FusionTable
from ..features.groups import regrouped
from ..features.inputs import Inputs
from ..features.join import load_table
from .class_shares import shares_of
from .config import FITTED_METRICS, REPEATS, REPEATS_OF_HEADS, RULES, FuseConfig
from .copies import Copies, Repeat, as_predictions
from .diagnostics import check_figures, check_rows
from .evaluate.figures import figures_of
from .head_fits import FittedHeads, ScoreFolder, fit_heads
from .heads import foreign_in
from .model import FusionModel, settled
from .protocol import Protocol
from .protocol.plan import plan
from .result import Result
from .rules import NEEDS_CODES, RECALIBRATED, Choices, Rule

__all__ = ["FuseConfig", "FuseResult", "ScoreFolder", "fuse_files", "fuse_predictions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseResult(Result):
    """What a fusion run found; the model is None when it was not asked for."""

    protocol: Protocol
    config: FuseConfig
    model: FusionModel | None


def fuse_files(inputs: Inputs, config: FuseConfig | None = None) -> FuseResult:
    """Join files (:func:`~ig3d.features.join.load_table`) and fuse them."""
    config = config or FuseConfig()
    table = load_table(inputs, blocks=config.blocks, allow_missing=config.allow_missing, force=config.force)
    return fuse_predictions(table, config)


def fuse_predictions(
    table: FusionTable,
    config: FuseConfig | None = None,
    *,
    heads: MutableMapping[str, np.ndarray] | None = None,
) -> FuseResult:
    """Fuse 2D predictions with 3D codes or predictions, and measure what the 3D adds.

    Parameters
    ----------
    table : FusionTable
    config : FuseConfig, optional
    heads : cache of head scores that several runs share, optional
        A dictionary, or a :class:`~.head_fits.ScoreFolder`; changes no figure.

    Returns
    -------
    FuseResult
        The same for the same table and choices, whatever order the rows came in and however many threads ran.

    Raises
    ------
    ProtocolError : the rows do not allow it (docs/protocol.md).
    UsageError : a choice that the task or the table does not have.
    """
    config = config or FuseConfig()
    table = regrouped(table, config.groups)
    config, notes = _for_table(config, table)
    choices = _choices(config, table)
    start = time.perf_counter()
    protocol = plan(table, config)
    fitted = fit_heads(table, protocol, config, heads)
    repeats = _repeats(table, config, protocol, fitted, heads)
    after_heads = time.perf_counter()
    foreign = foreign_in(fitted.final) if ":" in config.head and fitted.final is not None else []
    if foreign:
        notes.append(
            f"WARNING no model is saved: the head {config.head} holds {some(foreign)}, which a model file may not."
        )
    primary = config.primary_rule()
    copies = Copies(table, repeats, config.rules, primary, choices, config.controls, config.permutations)
    # Sums on one thread: their last digits, and so the bytes of a result, do not depend on how many there are.
    with threadpool_limits(1, user_api="blas"):
        rules, final = copies.fitted(final=config.model and not foreign)
    after_rules = time.perf_counter()
    rows = protocol.reported
    groups = table.group_codes[rows] if table.grouped else None
    figures = figures_of(
        rules,
        table.truth[rows].astype(np.int64) if table.task == "classes" else table.truth[rows],
        table.covered[rows],
        groups,
        task=table.task,
        classes=table.classes,
        draws=config.draws,
        seed=config.seed,
        family=FITTED_METRICS[choices.objective],
        refined=(RECALIBRATED, "2d", primary),
    )
    after_figures = time.perf_counter()
    model = _model(copies, fitted, final) if final else None
    notes += check_rows(table, protocol, rules) + check_figures(
        figures, len(rows), table.task, choices.objective
    )
    notes.sort(key=lambda line: not line.startswith("WARNING"))  # what a reader must not miss comes first
    return FuseResult(
        task=table.task,
        classes=table.classes,
        ids=table.id[rows],
        truth=table.truth[rows],
        covered=table.covered[rows],
        predictors=rules,
        figures=figures,
        protocol=protocol,
        config=config,
        notes=tuple(notes),
        sources=dict(table.sources),
        model=model,
        seconds={
            "heads": after_heads - start,
            "rules": after_rules - after_heads,
            "intervals": after_figures - after_rules,
            "model": time.perf_counter() - after_figures,
        },
        group_names=table.group[rows] if table.grouped else None,
    )


def _repeats(
    table: FusionTable,
    config: FuseConfig,
    protocol: Protocol,
    heads: FittedHeads,
    cache: MutableMapping[str, np.ndarray] | None,
) -> tuple[Repeat, ...]:
    """The cross-fittings: one where rules are fitted on a split apart, else several with other folds."""
    found = [Repeat(protocol, heads.scores, config.seed)]
    if len(protocol.fusers) == 1:
        return tuple(found)
    nested = protocol.case == "nested"
    count = config.repeats or (REPEATS_OF_HEADS if nested else REPEATS)
    for number in range(1, count):
        seed = int(np.random.default_rng([config.seed, 2, number]).integers(2**32))
        again = replace(config, seed=seed, model=False)
        other = plan(table, again)
        scores = fit_heads(table, other, again, cache).scores if nested else heads.scores
        found.append(Repeat(other, scores, seed))
    return tuple(found)


def _for_table(config: FuseConfig, table: FusionTable) -> tuple[FuseConfig, list[str]]:
    """The configuration with the rules that the table allows, and the run's first notes."""
    notes = list(table.notes)
    impossible = {}
    if table.task == "va":
        impossible["product"] = "values of valence and arousal have no product that means anything"
        if config.calibrate != "none":
            raise UsageError(
                f"calibrate: expected none for valence and arousal, got {config.calibrate}; stack and boost start from "
                "recalibrated values as it is"
            )
    if table.codes is None:
        impossible |= dict.fromkeys(NEEDS_CODES, "ready 3D predictions come without codes")
        if config.stack_codes:
            raise UsageError(
                "stack-codes: expected a store of codes, got ready 3D predictions; leave the option out"
            )
    if config.primary in impossible:
        raise UsageError(f"primary: {config.primary} is not possible here: {impossible[config.primary]}")
    left = tuple(name for name in config.rules if name not in impossible)
    if not left:
        name = config.rules[0]
        raise UsageError(f"rules: expected some that this run can have, got {name} only: {impossible[name]}")
    notes += [f"Rule {name} is left out: {why}." for name, why in impossible.items() if name in config.rules]
    return replace(config, rules=left), notes


def _choices(config: FuseConfig, table: FusionTable) -> Choices:
    """What the rules are made by."""
    named = tuple(name for name in config.rules if name != "best")
    every, _ = _for_table(replace(config, rules=tuple(name for name in RULES if name != "best")), table)
    return Choices(
        task=table.task,
        objective=config.objective_for(table.task),
        on=config.on,
        weights=config.weights,
        stack_codes=config.stack_codes,
        calibrate=config.calibrate,
        seed=config.seed,
        threads=max(config.jobs, 0),
        candidates=named or every.rules,
    )


def _model(copies: Copies, heads: FittedHeads, rules: dict[str, Rule]) -> FusionModel:
    """What was refitted on all calibration rows."""
    table, protocol = copies.table, copies.protocol
    shares = {}
    if table.task == "classes":
        fit = protocol.final.fit
        columns = copies.columns(fit, protocol.final.heads_fit)
        with threadpool_limits(1, user_api="blas"):
            log_p = {"2d": as_predictions(columns.two, table.task)}
            log_p |= {
                name: rule.apply(columns.without_3d() if name == RECALIBRATED else columns)
                for name, rule in rules.items()
            }
            groups = table.group_codes[fit] if table.grouped else None
            shares = shares_of(log_p, table.labels[fit].astype(np.int64), groups)
    trained = protocol.heads[protocol.final_head].train if heads.final is not None else np.zeros(0, np.intp)
    return FusionModel(
        task=table.task,
        classes=table.classes,
        blocks=table.blocks,
        quality_columns=table.quality_columns,
        head=settled(heads.final),
        rules={name: settled(rule) for name, rule in rules.items()},
        calibrate=copies.choices.calibrate,
        trained_ids=table.id[trained],
        calibration_ids=table.id[protocol.calibration],
        fitted_on=protocol.fit_name,
        network=table.two_d_network,
        shares=shares,
    )
