"""Cross-fitting: references, rules and controls fitted and applied on the rows that the plan gives each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed

from ..features.fusion_table import FusionTable
from ..features.predictions import log_probabilities
from .evaluate.predictors import CONDITIONAL, PERMUTED, REAL, Predictor
from .protocol import FuserFit, Protocol
from .rules import NEEDS_CODES, RECALIBRATED, Choices, Columns, Rule, fits, make_rule, quietly
from .rules.columns import centred

# Rules that are cross-fitted again with other folds; the primary rule is too.
REPEATED = ("weighted", "stack", "gate")
_SIMILAR = 8  # rows of a bin, at least


@dataclass(frozen=True, slots=True)
class Repeat:
    """One cross-fitting of the rules.

    Attributes
    ----------
    protocol : its plan; all repeats report the same rows
    head_scores : (n, k) 3D scores by each head of the plan
    seed : of inner folds and permutations
    """

    protocol: Protocol
    head_scores: tuple[np.ndarray, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class _Variant:
    """One condition: the codes as they are, permuted codes, or another 2D network in place of the 3D predictions.

    Attributes
    ----------
    condition : ``real``, ``permuted``, ``conditional``, or the name of a second 2D network
    names, choices : the rules
    fit, rows : columns they are fitted to, and those rows of the table
    apply, there : columns they are applied to, and which rows of the fold these are
    version : number of the predictions among those of the same name
    """

    condition: str
    names: tuple[str, ...]
    choices: Choices
    fit: Columns
    rows: np.ndarray
    apply: Columns
    there: np.ndarray
    version: int


@dataclass(frozen=True, slots=True)
class _Found:
    """Predictions of one fold model.

    Attributes
    ----------
    name, condition : of the rule
    version : as in _Variant
    repeat : number of the cross-fitting
    fits : whether it was fitted to 2D predictions
    rows : of the table, to which the fold model is applied
    there : those of them that have a prediction
    predicted : (n, k), n of them
    fitted : fitted parameters
    """

    name: str
    condition: str
    version: int
    repeat: int
    fits: bool
    rows: np.ndarray
    there: np.ndarray
    predicted: np.ndarray
    fitted: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Copies:
    """Rules over a table.

    Attributes
    ----------
    table
    repeats : at least one; the saved rules are fitted by the first
    names : the rules, in the order of the table
    primary : the rule that is compared with the conditional control
    choices : options of the rules
    controls : whether every rule is repeated with permuted codes
    permutations : of the conditional control, over all repeats
    """

    table: FusionTable
    repeats: tuple[Repeat, ...]
    names: tuple[str, ...]
    primary: str
    choices: Choices
    controls: bool
    permutations: int

    @property
    def protocol(self) -> Protocol:
        """The plan of the first repeat."""
        return self.repeats[0].protocol

    def fitted(self, *, final: bool) -> tuple[tuple[Predictor, ...], dict[str, Rule]]:
        """Every rule of every fold, in as many threads as were asked for: trees grow beside arithmetic.

        Parameters
        ----------
        final : bool
            Whether every rule is fitted to all calibration rows as well.

        Returns
        -------
        References, then rules, each followed by its controls, over the reported rows; and the rules for a model.
        """
        # boost and its control grow trees beside each other
        threads, trees = self.choices.threads or cpu_count(), 2 * len(self.protocol.fusers)
        choices = replace(self.choices, threads=max(1, threads // trees))
        names = (RECALIBRATED, *self.names) if final else ()
        calls = chain(self._finals(names, choices), self._copies(choices))
        done: list[Any] = quietly(Parallel(threads, prefer="threads", pre_dispatch="n_jobs"), calls)
        return self._results(done[len(names) :]), dict(zip(names, done, strict=False))

    def _finals(self, names: tuple[str, ...], choices: Choices) -> Iterator[Any]:
        if names:
            fuser = self.protocol.final
            columns = self.columns(fuser.fit, fuser.heads_fit)
            yield from (delayed(self._fitted)(name, choices, columns, fuser.fit) for name in names)

    def _copies(self, choices: Choices) -> Iterator[Any]:
        for number, repeat in enumerate(self.repeats):
            # Generators of their own for the controls' permutations: neither these nor the bootstrap move each other.
            random = np.random.default_rng([repeat.seed, 1]), np.random.default_rng([repeat.seed, 3])
            for fuser in repeat.protocol.fusers:
                for variant in self._variants(number, fuser, replace(choices, seed=repeat.seed), *random):
                    yield from (delayed(self._one)(number, fuser, variant, name) for name in variant.names)

    def _results(self, every: list[_Found]) -> tuple[Predictor, ...]:
        reported = self.protocol.reported
        values: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        for number in range(len(self.repeats)):
            for name, array in self._given(number).items():
                values.setdefault((name, REAL), {})[number] = array
        references = list(values)
        fitted: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in values}
        empty = np.full_like(values["2d", REAL][0], np.nan)
        for found in every:
            key = found.name, found.condition
            where = np.searchsorted(reported, found.rows)
            # Rows without 3D take the reference that had the same chances.
            fused = values[RECALIBRATED if found.fits else "2d", REAL][found.repeat][where]
            fused[found.there] = found.predicted
            values.setdefault(key, {}).setdefault(found.version, empty.copy())[where] = fused
            parameters = fitted.setdefault(key, [])
            if found.fitted and found.version == 0:
                parameters.append(found.fitted)
        order = references + [key for rule in self.names for key in values if key[0] == rule]
        results = []
        for key in order:
            first, *others = values[key].values()
            if all(np.array_equal(first, other, equal_nan=True) for other in others):
                others = []  # nothing in it depends on folds
            name, condition = key
            role = "reference" if key in references else "rule" if condition == REAL else "control"
            results.append(
                Predictor(name, role, bool(fitted[key]), first, tuple(fitted[key]), tuple(others), condition)
            )
        return tuple(results)

    def _given(self, number: int) -> dict[str, np.ndarray]:
        """The references for which nothing is fitted here, and room for the recalibrated one."""
        table, protocol = self.table, self.repeats[number].protocol
        reported = protocol.reported
        plain = as_predictions(table.two_d[reported], table.task)
        three = np.full_like(plain, np.nan)
        for fuser in protocol.fusers:
            found = self.columns(fuser.apply, fuser.heads_apply, number).three
            three[np.searchsorted(reported, fuser.apply)] = found
        given = {
            "2d": plain,
            RECALIBRATED: np.full_like(plain, np.nan),
            "3d": as_predictions(three, table.task),
        }
        return given | {
            f"2d:{name}": as_predictions(other[reported], table.task) for name, other in table.others.items()
        }

    def _one(self, number: int, fuser: FuserFit, variant: _Variant, name: str) -> _Found:
        rule = self._fitted(name, variant.choices, variant.fit, variant.rows)
        here = variant.there.any()
        predicted = rule.apply(variant.apply) if here else np.empty((0, len(self.table.columns)))
        fitted = fits(name, variant.choices.calibrate)
        return _Found(
            name,
            variant.condition,
            variant.version,
            number,
            fitted,
            fuser.apply,
            variant.there,
            predicted,
            rule.describe(),
        )

    def columns(self, rows: np.ndarray, heads: tuple[int, ...], repeat: int = 0) -> Columns:
        """Columns of rows of the table; 3D scores each from the one head that was asked for it."""
        table = self.table
        if table.three_d is not None:
            three = table.three_d[rows]
        else:
            three = np.full((len(rows), len(table.columns)), np.nan)
            for number in heads:
                asked = np.isin(rows, self.repeats[repeat].protocol.heads[number].predict)
                three[asked] = self.repeats[repeat].head_scores[number][rows[asked]]
        return columns_of(table, rows, three)

    def _variants(
        self,
        repeat: int,
        fuser: FuserFit,
        choices: Choices,
        plain: np.random.Generator,
        conditional: np.random.Generator,
    ) -> Iterator[_Variant]:
        fit, rows = self.columns(fuser.fit, fuser.heads_fit, repeat), fuser.fit
        apply = self.columns(fuser.apply, fuser.heads_apply, repeat)
        covered, everywhere = apply.covered, np.ones(len(apply), bool)
        names = self.names
        if repeat:
            names = tuple(name for name in names if name in (*REPEATED, self.primary))
        yield _Variant(REAL, (RECALIBRATED,), choices, fit, rows, apply.without_3d(), everywhere, repeat)
        yield _Variant(REAL, names, choices, fit, rows, apply.take(covered), covered, repeat)
        if self.controls:
            there = apply.take(covered)
            others = tuple(name for name in names if name != self.primary)
            if not repeat and others:
                # of rules that fit nothing as well: a head brings the classes' shares whatever its codes
                mixed = fit.permuted(plain.permutation(len(fit)))
                shown = there.permuted(plain.permutation(len(there)))
                yield _Variant(PERMUTED, others, choices, mixed, rows, shown, covered, 0)
            each = -(-self.permutations // len(self.repeats))
            for number in range(repeat * each, (repeat + 1) * each):
                mixed, shown = (_within_similar(of, conditional, self.table.task) for of in (fit, there))
                yield _Variant(CONDITIONAL, (self.primary,), choices, mixed, rows, shown, covered, number)
        fitted = tuple(name for name in names if fits(name, choices.calibrate))
        without = tuple(name for name in fitted if name not in NEEDS_CODES)
        candidates = tuple(name for name in choices.candidates if name not in NEEDS_CODES)
        choices = replace(choices, stack_codes=False, candidates=candidates)
        for name, other in self.table.others.items():
            known, there = np.isfinite(other[rows]).all(axis=1), np.isfinite(other[fuser.apply]).all(axis=1)
            there &= covered
            if known.any() and without:
                yield _Variant(
                    f"2d:{name}",
                    without,
                    choices,
                    replace(fit.take(known), three=other[rows[known]], codes=None),
                    rows[known],
                    replace(apply.take(there), three=other[fuser.apply[there]], codes=None),
                    there,
                    repeat,
                )

    def _fitted(self, name: str, choices: Choices, columns: Columns, rows: np.ndarray) -> Rule:
        y = self.table.truth[rows].astype(np.int64 if self.table.task == "classes" else np.float64)
        groups = self.table.group_codes[rows] if self.table.grouped else None
        return make_rule(name, choices).fit(columns, y, groups=groups)


def columns_of(table: FusionTable, rows: np.ndarray, three: np.ndarray) -> Columns:
    """Columns of rows of a table, with these (len(rows), k) 3D scores."""
    return Columns(
        two=table.two_d[rows],
        three=three,
        codes=None if table.codes is None else table.codes[rows],
        quality=None if table.quality is None else table.quality[rows],
        quality_columns=table.quality_columns,
    )


def as_predictions(scores: np.ndarray, task: str) -> np.ndarray:
    """(n, k) log-probabilities of scores, argmax kept; valence and arousal as they are."""
    return scores if task == "va" else log_probabilities(scores)


def _within_similar(columns: Columns, random: np.random.Generator, task: str) -> Columns:
    """Columns with the 3D permuted within bins of rows with similar 2D predictions."""
    two = columns.two if task == "va" else centred(columns.two)
    return columns.permuted(similar_order(two, random))


def similar_order(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(n,) random permutation of the rows of (n, k) values in which each row takes the place of a similar one.

    The rows are halved at the median of the column that varies most, again and again, down to bins of 8 to 15 rows;
    each bin is permuted in one cycle, so that no row stays where it is.
    """
    order, todo = np.arange(len(values)), [np.arange(len(values))]
    while todo:
        rows = todo.pop()
        if len(rows) < 2 * _SIMILAR:
            cycle = random.permutation(rows)
            order[cycle] = np.roll(cycle, 1)
            continue
        column = int(np.argmax(values[rows].std(axis=0)))
        rows = rows[np.argsort(values[rows, column], kind="stable")]
        todo += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return order
