"""Cross-fitting: fit and apply references, rules and controls on the rows of the plan.

This is done for each condition: real codes, permuted codes, a second 2D network (:mod:`.conditions`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed

from ..features.fusion_table import FusionTable
from .conditions import Condition, as_predictions, columns_of, conditions_of
from .diagnostics import diagnostic
from .evaluate.predictors import REAL, Predictor
from .folds import rare_classes_allowed
from .plan import EvaluationPlan, FoldModel
from .rules import RECALIBRATED, Columns, Rule, RuleSettings, fits, kind_of, make_rule
from .rules.over_both import OverBoth

Progress = Callable[[str, int, int], object]  # step, done, total


@dataclass(frozen=True, slots=True)
class Repeat:
    """One cross-fitting of the rules.

    Attributes
    ----------
    plan : EvaluationPlan; all repeats report the same rows
    head_scores : (n, k) 3D scores by each head of the plan
    seed : seed of inner folds and permutations
    """

    plan: EvaluationPlan
    head_scores: tuple[np.ndarray, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class _RulePredictions:
    """Predictions of one rule of one fold model under one condition.

    Attributes
    ----------
    rule, condition, replicate : as in Condition
    repeat : index of the cross-fitting
    is_fitted : whether the rule has fitted parameters
    rows : (n,) rows of the table to which the fold model is applied
    has_prediction : (n,) bool
    predicted : (m, k) predictions of the m rows that have one
    parameters : fitted parameters
    """

    rule: str
    condition: str
    replicate: int
    repeat: int
    is_fitted: bool
    rows: np.ndarray
    has_prediction: np.ndarray
    predicted: np.ndarray
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Fits and applies all rules of a run by cross-fitting.

    Attributes
    ----------
    table : FusionTable
    repeats : at least one; the saved rules are fitted by the first
    rules : names of the rules, in the order of the report
    primary : rule of the primary comparison; its control has codes permuted among similar rows
    choices : options of the rules
    controls : whether every rule is repeated with permuted codes
    permutations : number of permutations of the conditional control, over all repeats
    progress : called after each fold model, optional
    """

    table: FusionTable
    repeats: tuple[Repeat, ...]
    rules: tuple[str, ...]
    primary: str
    choices: RuleSettings
    controls: bool
    permutations: int
    progress: Progress | None = None

    @property
    def plan(self) -> EvaluationPlan:
        """The plan of the first repeat."""
        return self.repeats[0].plan

    def fit_all(self, *, final: bool) -> tuple[tuple[Predictor, ...], dict[str, Rule]]:
        """Fit and apply every rule on every fold, in parallel threads.

        Parameters
        ----------
        final : bool
            Whether every rule is also fitted on all calibration rows.

        Returns
        -------
        predictors : references, then rules, each followed by its controls; predictions of the reported rows
        rules : name -> rule fitted on all calibration rows; empty without ``final``
        """
        # boost and its control train LightGBM at the same time, in each fold
        threads, trees = self.choices.threads or cpu_count(), 2 * len(self.plan.fold_models)
        choices = replace(self.choices, threads=max(1, threads // trees))
        names = (RECALIBRATED, *self.rules) if final else ()
        calls = chain(self._finals(names, choices), self._fold_models(choices))
        with rare_classes_allowed():
            done: list[Any] = Parallel(threads, prefer="threads", pre_dispatch="n_jobs")(calls)
        return self._predictors(done[len(names) :]), dict(zip(names, done, strict=False))

    def _finals(self, names: tuple[str, ...], choices: RuleSettings) -> Iterator[Any]:
        if names:
            model = self.plan.final
            columns = self.columns(model.fit, model.heads_fit)
            yield from (delayed(self._rule)(name, choices, columns, model.fit) for name in names)

    def _fold_models(self, choices: RuleSettings) -> Iterator[Any]:
        """Calls that fit and apply the rules of each fold model under each condition."""
        total, done = sum(len(repeat.plan.fold_models) for repeat in self.repeats), 0
        per_repeat = math.ceil(self.permutations / len(self.repeats)) if self.controls else 0
        for number, repeat in enumerate(self.repeats):
            rules = self.rules
            if number:
                rules = tuple(name for name in rules if kind_of(name).repeated or name == self.primary)
            # separate generators, so that one kind of permutation does not change the other
            random = np.random.default_rng([repeat.seed, 1]), np.random.default_rng([repeat.seed, 3])
            for model in repeat.plan.fold_models:
                conditions = conditions_of(
                    self.table,
                    model,
                    self.columns(model.fit, model.heads_fit, number),
                    self.columns(model.apply, model.heads_apply, number),
                    rules=rules,
                    primary=self.primary,
                    choices=replace(choices, seed=repeat.seed),
                    repeat=number,
                    permutations=range(number * per_repeat, (number + 1) * per_repeat),
                    permuted=self.controls and not number,
                    random=random,
                )
                for condition in conditions:
                    for name in condition.rules:
                        yield delayed(self._fused)(number, model, condition, name)
                done += 1
                if self.progress is not None:
                    self.progress("rules", done, total)

    def _fused(self, repeat: int, model: FoldModel, condition: Condition, name: str) -> _RulePredictions:
        rule = self._rule(
            name, condition.choices, condition.fit, condition.rows, over_both=condition.over_both
        )
        return _RulePredictions(
            rule=name,
            condition=condition.name,
            replicate=condition.replicate,
            repeat=repeat,
            is_fitted=fits(name, condition.choices.calibrate),
            rows=model.apply,
            has_prediction=condition.has_prediction,
            predicted=rule.apply(condition.apply)
            if condition.has_prediction.any()
            else np.empty((0, len(self.table.columns))),
            parameters=rule.describe() | ({"not_converged": causes} if (causes := rule.failures()) else {}),
        )

    def _rule(
        self, name: str, choices: RuleSettings, columns: Columns, rows: np.ndarray, *, over_both: bool = False
    ) -> Rule:
        """A rule fitted to columns of rows of the table."""
        y = self.table.truth[rows].astype(np.int64 if self.table.task == "classes" else np.float64)
        groups = self.table.group_codes[rows] if self.table.grouped else None
        rule = make_rule(name, choices)
        if over_both:
            rule = OverBoth(
                rule,
                make_rule("stack", replace(choices, calibrate="none", options={})),
                random_state=choices.seed,
            )
        return rule.fit(columns, y, groups=groups)

    def _predictors(self, every: list[_RulePredictions]) -> tuple[Predictor, ...]:
        """Predictions of all reported rows, from those of the fold models."""
        reported = self.plan.reported
        values: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        for number in range(len(self.repeats)):
            for name, array in self._references(number).items():
                values.setdefault((name, REAL), {})[number] = array
        references = list(values)
        fitted: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in values}
        all_nan = np.full_like(values["2d", REAL][0], np.nan)
        for fused in every:
            key = fused.rule, fused.condition
            where = np.searchsorted(reported, fused.rows)
            # Rows without 3D get the reference that is fitted on the same rows, or 2d if the rule is not fitted.
            array = values[RECALIBRATED if fused.is_fitted else "2d", REAL][fused.repeat][where]
            array[fused.has_prediction] = fused.predicted
            values.setdefault(key, {}).setdefault(fused.replicate, all_nan.copy())[where] = array
            parameters = fitted.setdefault(key, [])
            if fused.parameters and fused.replicate == 0:
                parameters.append(fused.parameters)
        names = (RECALIBRATED, *self.rules)
        order = references + [
            key for name in names for key in values if key[0] == name and key not in references
        ]
        predictors = []
        for key in order:
            first, *others = values[key].values()
            if all(np.array_equal(first, other, equal_nan=True) for other in others):
                others = []  # it does not depend on the folds
            name, condition = key
            role = "reference" if key in references else "rule" if condition == REAL else "control"
            predictors.append(
                Predictor(name, role, bool(fitted[key]), first, tuple(fitted[key]), tuple(others), condition)
            )
        return tuple(predictors)

    def _references(self, number: int) -> dict[str, np.ndarray]:
        """Predictions of the references that are not fitted; NaN for ``2d-recalibrated``, which is fitted later."""
        table, plan = self.table, self.repeats[number].plan
        plain = as_predictions(table.two_d[plan.reported], table.task)
        three = np.full_like(plain, np.nan)
        for model in plan.fold_models:
            columns = self.columns(model.apply, model.heads_apply, number)
            three[np.searchsorted(plan.reported, model.apply)] = columns.scores_3d
        others = {
            f"2d:{name}": as_predictions(other[plan.reported], table.task)
            for name, other in table.others.items()
        }
        return {
            "2d": plain,
            RECALIBRATED: np.full_like(plain, np.nan),
            "3d": as_predictions(three, table.task),
            **others,
        }

    def columns(self, rows: np.ndarray, heads: tuple[int, ...], repeat: int = 0) -> Columns:
        """Inputs of rules for rows of the table; each 3D score comes from the head that was fitted without the row."""
        table = self.table
        if table.three_d is not None:
            three = table.three_d[rows]
        else:
            three = np.full((len(rows), len(table.columns)), np.nan)
            for number in heads:
                predicted = np.isin(rows, self.repeats[repeat].plan.heads[number].predict)
                three[predicted] = self.repeats[repeat].head_scores[number][rows[predicted]]
        return columns_of(table, rows, three)


def not_converged(predictors: tuple[Predictor, ...]) -> list[dict[str, Any]]:
    """Diagnostics of optimisers that stopped before they converged."""
    found = []
    for of in predictors:
        causes = [cause for fitted in of.fitted for cause in fitted.get("not_converged", ())]
        if causes:
            values = {
                "predictor": of.name,
                "condition": of.condition,
                "count": len(causes),
                "cause": causes[0],
            }
            found.append(diagnostic("not_converged", **values))
    return found
