"""Cross-fitting: fit and apply references, rules and controls on the rows of the plan.

This is done for each condition: real codes, permuted codes, a second 2D network (:mod:`.conditions`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
from .progress import Progress
from .rules import RECALIBRATED, Columns, Rule, RuleSettings, fits, kind_of, make_rule
from .rules.over_both import OverBoth


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
    rule, condition : names of the rule and of the condition
    replicate : index of the repeat or permutation, as in Condition
    repeat : index of the cross-fitting
    is_fitted : whether the rule has fitted parameters
    rows : (n,) rows of the table to which the fold model is applied
    has_prediction : (n,) bool
    predicted : (m, k) float64, predictions of the m rows that have one
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
    settings : RuleSettings
    controls : whether every rule is also fitted with permuted codes
    permutations : number of permutations of the conditional control, over all repeats
        Rounded up to a multiple of the repeats, so that all repeats have equally many.
    progress : called after each condition of a fold model, optional
    """

    table: FusionTable
    repeats: tuple[Repeat, ...]
    rules: tuple[str, ...]
    primary: str
    settings: RuleSettings
    controls: bool
    permutations: int
    progress: Progress | None = None

    @property
    def plan(self) -> EvaluationPlan:
        """The plan of the first repeat."""
        return self.repeats[0].plan

    def fit_all(self, *, with_final_rules: bool) -> tuple[tuple[Predictor, ...], dict[str, Rule]]:
        """Fit and apply every rule on every fold, in parallel threads.

        Parameters
        ----------
        with_final_rules : bool
            Whether every rule is also fitted on all calibration rows of the plan, to be saved.

        Returns
        -------
        predictors : references, then rules, each followed by its controls; predictions of the reported rows
        final_rules : name -> rule fitted on all calibration rows; empty without ``with_final_rules``
        """
        threads = self.settings.threads or cpu_count()
        # In each fold, boost and its control train LightGBM at the same time.
        trainings = 2 * len(self.plan.fold_models)
        settings = replace(self.settings, threads=max(1, threads // trainings))
        names = (RECALIBRATED, *self.rules) if with_final_rules else ()
        calls = chain(self._final_rule_calls(names, settings), self._fold_model_calls(settings))
        with rare_classes_allowed():
            done: list[Any] = Parallel(threads, prefer="threads", pre_dispatch="n_jobs")(calls)
        final_rules, predictions = done[: len(names)], done[len(names) :]
        return self._predictors(predictions), dict(zip(names, final_rules, strict=True))

    def _final_rule_calls(self, names: tuple[str, ...], settings: RuleSettings) -> Iterator[Any]:
        """Calls that fit each rule on all calibration rows."""
        if names:
            model = self.plan.final_model
            columns = self.columns(model.fit, model.heads_fit)
            yield from (delayed(self._fitted_rule)(name, settings, columns, model.fit) for name in names)

    def _fold_model_calls(self, settings: RuleSettings) -> Iterator[Any]:
        """Calls that fit and apply the rules of each fold model under each condition."""
        total, done = sum(len(repeat.plan.fold_models) for repeat in self.repeats), 0
        per_repeat = math.ceil(self.permutations / len(self.repeats)) if self.controls else 0
        for number, repeat in enumerate(self.repeats):
            rules = self.rules
            if number:
                rules = tuple(name for name in rules if kind_of(name).repeated or name == self.primary)
            # Separate generators, so that the number of permutations of one kind does not affect the other.
            random = np.random.default_rng([repeat.seed, 1]), np.random.default_rng([repeat.seed, 3])
            for model in repeat.plan.fold_models:
                conditions = conditions_of(
                    self.table,
                    model,
                    self.columns(model.fit, model.heads_fit, number),
                    self.columns(model.apply, model.heads_apply, number),
                    rules=rules,
                    primary=self.primary,
                    settings=replace(settings, seed=repeat.seed),
                    repeat=number,
                    permutations=range(number * per_repeat, (number + 1) * per_repeat),
                    permuted=self.controls and not number,
                    random=random,
                )
                calls, of_model = 0, self._calls_of_model(rules, per_repeat, permuted=not number)
                for condition in conditions:
                    for name in condition.rules:
                        yield delayed(self._rule_predictions)(number, model, condition, name)
                    calls += len(condition.rules)
                    if self.progress is not None:
                        self.progress("rules", done + min(calls / of_model, 1), total)
                done += 1

    def _calls_of_model(self, rules: tuple[str, ...], permutations: int, *, permuted: bool) -> int:
        """Number of rules that are fitted for a fold model over all conditions, for progress; an upper bound."""
        controls = len(rules) - 1 if self.controls and permuted else 0
        return 1 + len(rules) + controls + permutations + len(self.table.others) * (len(rules) + 3)

    def _rule_predictions(
        self, repeat: int, model: FoldModel, condition: Condition, name: str
    ) -> _RulePredictions:
        """Fit a rule under a condition, and apply it to the rows of the fold model."""
        rule = self._fitted_rule(
            name, condition.settings, condition.fit, condition.fit_rows, over_both=condition.over_both
        )
        predicted = np.empty((0, len(self.table.columns)))
        if condition.has_prediction.any():
            predicted = rule.apply(condition.apply)
        parameters = rule.describe()
        if causes := rule.failures():
            parameters = parameters | {"not_converged": causes}
        return _RulePredictions(
            rule=name,
            condition=condition.name,
            replicate=condition.replicate,
            repeat=repeat,
            is_fitted=fits(name, condition.settings.calibrate),
            rows=model.apply,
            has_prediction=condition.has_prediction,
            predicted=predicted,
            parameters=parameters,
        )

    def _fitted_rule(
        self,
        name: str,
        settings: RuleSettings,
        columns: Columns,
        rows: np.ndarray,
        *,
        over_both: bool = False,
    ) -> Rule:
        """A rule fitted to columns of rows of the table."""
        y = self.table.truth[rows].astype(np.int64 if self.table.task == "classes" else np.float64)
        groups = self.table.group_codes[rows] if self.table.grouped else None
        rule = make_rule(name, settings)
        if over_both:
            rule = OverBoth(
                rule,
                make_rule("stack", replace(settings, calibrate="none", options={})),
                random_state=settings.seed,
            )
        return rule.fit(columns, y, groups=groups)

    def _predictors(self, predictions: list[_RulePredictions]) -> tuple[Predictor, ...]:
        """Predictions of all reported rows, from those of the fold models."""
        reported = self.plan.reported
        # (predictor, condition) -> replicate -> (reported, k) predictions
        values: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        for number in range(len(self.repeats)):
            for name, array in self._references(number).items():
                values.setdefault((name, REAL), {})[number] = array
        references = list(values)
        parameters: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in values}
        all_nan = np.full_like(values["2d", REAL][0], np.nan)
        for part in predictions:
            key = part.rule, part.condition
            where = np.searchsorted(reported, part.rows)
            # Rows without a prediction get that of 2d-recalibrated, or of 2d if the rule is not fitted.
            array = values[RECALIBRATED if part.is_fitted else "2d", REAL][part.repeat][where]
            array[part.has_prediction] = part.predicted
            values.setdefault(key, {}).setdefault(part.replicate, all_nan.copy())[where] = array
            parameters.setdefault(key, [])
            if part.parameters and part.replicate == 0:
                parameters[key].append(part.parameters)
        names = (RECALIBRATED, *self.rules)
        order = references + [
            key for name in names for key in values if key[0] == name and key not in references
        ]
        predictors = []
        for key in order:
            first, *others = values[key].values()
            if all(np.array_equal(first, other, equal_nan=True) for other in others):
                others = []  # the predictions do not depend on the folds
            name, condition = key
            role = "reference" if key in references else "rule" if condition == REAL else "control"
            predictors.append(
                Predictor(
                    name,
                    role,
                    bool(parameters[key]),
                    first,
                    tuple(parameters[key]),
                    tuple(others),
                    condition,
                )
            )
        return tuple(predictors)

    def _references(self, repeat: int) -> dict[str, np.ndarray]:
        """Name -> (reported, k) predictions of the references of a repeat.

        ``2d-recalibrated`` is NaN: its predictions are filled in as those of a rule.
        """
        table, plan = self.table, self.repeats[repeat].plan
        plain = as_predictions(table.two_d[plan.reported], table.task)
        three = np.full_like(plain, np.nan)
        for model in plan.fold_models:
            columns = self.columns(model.apply, model.heads_apply, repeat)
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
        """Inputs of rules for rows of the table; 3D scores come from these heads of a repeat.

        Each row is predicted by the head whose ``predict`` contains it, which is fitted without the row.
        """
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
    diagnostics = []
    for predictor in predictors:
        causes = [cause for fitted in predictor.fitted for cause in fitted.get("not_converged", ())]
        if causes:
            diagnostics.append(
                diagnostic(
                    "not_converged",
                    predictor=predictor.name,
                    condition=predictor.condition,
                    count=len(causes),
                    cause=causes[0],
                )
            )
    return diagnostics
