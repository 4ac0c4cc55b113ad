"""Cross-fitting: references, rules and controls fitted and applied on the rows of the plan, for each condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed

from ..features.fusion_table import FusionTable
from .conditions import Condition, as_predictions, columns_of, conditions_of
from .evaluate.predictors import REAL, Predictor
from .folds import rare_classes_allowed
from .plan import EvaluationPlan, FoldModel
from .rules import RECALIBRATED, Choices, Columns, Rule, fits, kind_of, make_rule
from .rules.over_both import OverBoth

Progress = Callable[[str, int, int], object]  # step, done, total


@dataclass(frozen=True, slots=True)
class Repeat:
    """One cross-fitting of the rules.

    Attributes
    ----------
    plan : its plan; all repeats report the same rows
    head_scores : (n, k) 3D scores by each head of the plan
    seed : of inner folds and permutations
    """

    plan: EvaluationPlan
    head_scores: tuple[np.ndarray, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class _Fused:
    """Predictions of one rule of one fold model under one condition.

    Attributes
    ----------
    rule, condition, version : as in Condition
    repeat : number of the cross-fitting
    fits : whether it was fitted to 2D predictions
    rows : of the table, to which the fold model is applied
    there : those of them that have a prediction
    predicted : (n, k), n of them
    fitted : fitted parameters
    """

    rule: str
    condition: str
    version: int
    repeat: int
    fits: bool
    rows: np.ndarray
    there: np.ndarray
    predicted: np.ndarray
    fitted: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Rules of a run over a table.

    Attributes
    ----------
    table : FusionTable
    repeats : at least one; the saved rules are fitted by the first
    rules : their names, in the order of the table
    primary : the rule that is compared with the conditional control
    choices : options of the rules
    controls : whether every rule is repeated with permuted codes
    permutations : of the conditional control, over all repeats
    progress : called after each fold model, optional
    """

    table: FusionTable
    repeats: tuple[Repeat, ...]
    rules: tuple[str, ...]
    primary: str
    choices: Choices
    controls: bool
    permutations: int
    progress: Progress | None = None

    @property
    def plan(self) -> EvaluationPlan:
        """The plan of the first repeat."""
        return self.repeats[0].plan

    def fitted(self, *, final: bool) -> tuple[tuple[Predictor, ...], dict[str, Rule]]:
        """Every rule of every fold, in several threads: trees grow beside arithmetic.

        Parameters
        ----------
        final : bool
            Whether every rule is fitted to all calibration rows as well.

        Returns
        -------
        References, then rules, each followed by its controls, over the reported rows; and the rules for a model.
        """
        # boost and its control grow trees beside each other
        threads, trees = self.choices.threads or cpu_count(), 2 * len(self.plan.fold_models)
        choices = replace(self.choices, threads=max(1, threads // trees))
        names = (RECALIBRATED, *self.rules) if final else ()
        calls = chain(self._finals(names, choices), self._fold_models(choices))
        with rare_classes_allowed():
            done: list[Any] = Parallel(threads, prefer="threads", pre_dispatch="n_jobs")(calls)
        return self._predictors(done[len(names) :]), dict(zip(names, done, strict=False))

    def _finals(self, names: tuple[str, ...], choices: Choices) -> Iterator[Any]:
        if names:
            model = self.plan.final
            columns = self.columns(model.fit, model.heads_fit)
            yield from (delayed(self._rule)(name, choices, columns, model.fit) for name in names)

    def _fold_models(self, choices: Choices) -> Iterator[Any]:
        """Calls that fit and apply the rules of each fold model under each condition."""
        total, done = sum(len(repeat.plan.fold_models) for repeat in self.repeats), 0
        each = -(-self.permutations // len(self.repeats)) if self.controls else 0
        for number, repeat in enumerate(self.repeats):
            rules = self.rules
            if number:
                rules = tuple(name for name in rules if kind_of(name).repeated or name == self.primary)
            # separate generators: neither permutations nor the bootstrap change each other
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
                    permutations=range(number * each, (number + 1) * each),
                    permuted=self.controls and not number,
                    random=random,
                )
                for condition in conditions:
                    for name in condition.rules:
                        yield delayed(self._fused)(number, model, condition, name)
                done += 1
                if self.progress is not None:
                    self.progress("rules", done, total)

    def _fused(self, repeat: int, model: FoldModel, condition: Condition, name: str) -> _Fused:
        rule = self._rule(
            name, condition.choices, condition.fit, condition.rows, over_both=condition.over_both
        )
        some = condition.there.any()
        return _Fused(
            rule=name,
            condition=condition.name,
            version=condition.version,
            repeat=repeat,
            fits=fits(name, condition.choices.calibrate),
            rows=model.apply,
            there=condition.there,
            predicted=rule.apply(condition.apply) if some else np.empty((0, len(self.table.columns))),
            fitted=rule.describe() | ({"not_converged": causes} if (causes := rule.failures()) else {}),
        )

    def _rule(
        self, name: str, choices: Choices, columns: Columns, rows: np.ndarray, *, over_both: bool = False
    ) -> Rule:
        """A rule fitted to columns of rows of the table."""
        y = self.table.truth[rows].astype(np.int64 if self.table.task == "classes" else np.float64)
        groups = self.table.group_codes[rows] if self.table.grouped else None
        rule = make_rule("stack" if over_both and name == RECALIBRATED else name, choices)
        if over_both:
            rule = OverBoth(
                rule,
                make_rule("stack", replace(choices, calibrate="none", options={})),
                random_state=choices.seed,
            )
        return rule.fit(columns, y, groups=groups)

    def _predictors(self, every: list[_Fused]) -> tuple[Predictor, ...]:
        """Predictions of all reported rows, from those of the fold models."""
        reported = self.plan.reported
        values: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        for number in range(len(self.repeats)):
            for name, array in self._references(number).items():
                values.setdefault((name, REAL), {})[number] = array
        references = list(values)
        fitted: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in values}
        empty = np.full_like(values["2d", REAL][0], np.nan)
        for fused in every:
            key = fused.rule, fused.condition
            where = np.searchsorted(reported, fused.rows)
            # Rows without 3D take the reference that had the same chances.
            array = values[RECALIBRATED if fused.fits else "2d", REAL][fused.repeat][where]
            array[fused.there] = fused.predicted
            values.setdefault(key, {}).setdefault(fused.version, empty.copy())[where] = array
            parameters = fitted.setdefault(key, [])
            if fused.fitted and fused.version == 0:
                parameters.append(fused.fitted)
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
        """Predictions of the references that are not fitted, and an empty array for ``2d-recalibrated``."""
        table, plan = self.table, self.repeats[number].plan
        plain = as_predictions(table.two_d[plan.reported], table.task)
        three = np.full_like(plain, np.nan)
        for model in plan.fold_models:
            columns = self.columns(model.apply, model.heads_apply, number)
            three[np.searchsorted(plan.reported, model.apply)] = columns.three
        others = {
            f"2d:{name}": as_predictions(other[plan.reported], table.task)
            for name, other in table.others.items()
        }
        empty = np.full_like(plain, np.nan)
        return {"2d": plain, RECALIBRATED: empty, "3d": as_predictions(three, table.task), **others}

    def columns(self, rows: np.ndarray, heads: tuple[int, ...], repeat: int = 0) -> Columns:
        """Columns of rows of the table; each 3D score is of the head that predicts its row."""
        table = self.table
        if table.three_d is not None:
            three = table.three_d[rows]
        else:
            three = np.full((len(rows), len(table.columns)), np.nan)
            for number in heads:
                predicted = np.isin(rows, self.repeats[repeat].plan.heads[number].predict)
                three[predicted] = self.repeats[repeat].head_scores[number][rows[predicted]]
        return columns_of(table, rows, three)


def not_converged(predictors: tuple[Predictor, ...]) -> list[str]:
    """Warnings about optimisers that stopped before they converged."""
    lines = []
    for of in predictors:
        causes = [cause for fitted in of.fitted for cause in fitted.get("not_converged", ())]
        if causes:
            label = of.name if of.condition == REAL else f"{of.name} ({of.condition})"
            lines.append(
                f"WARNING {label}: {len(causes)} optimisations did not converge ({causes[0]}); its figures may change "
                "with small changes of the rows. Look for constant or duplicate 2D predictions."
            )
    return lines
