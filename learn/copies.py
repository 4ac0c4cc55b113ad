"""The rules fitted and applied, copy by copy, on the rows that the plan gives each: references, rules and controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed

from ..features.predictions import log_probabilities
from ..features.table import FusionTable
from .measures.results import RuleResult
from .protocol import FuserFit, Protocol
from .rules import NEEDS_CODES, RECALIBRATED, Choices, Columns, Rule, fits, make_rule, quietly

PERMUTED = "-permuted"


@dataclass(frozen=True, slots=True)
class _Variant:
    """What stands on the 3D side of the rules of these names: the face, that of another row, another 2D network.

    Attributes
    ----------
    suffix : what is put behind a rule's name
    names, choices : the rules
    fit, rows : columns they are fitted to, and those rows of the table
    apply, there : columns they are applied to, and which rows of the copy these are
    """

    suffix: str
    names: tuple[str, ...]
    choices: Choices
    fit: Columns
    rows: np.ndarray
    apply: Columns
    there: np.ndarray


@dataclass(frozen=True, slots=True)
class _Found:
    """What one rule of one copy says.

    Attributes
    ----------
    name : with its suffix
    fits : whether it was fitted to 2D predictions
    rows : of the table, to which the copy is applied
    there : those of them that the rule says something of
    predicted : (n, k), n of them
    said : what was fitted
    """

    name: str
    fits: bool
    rows: np.ndarray
    there: np.ndarray
    predicted: np.ndarray
    said: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Copies:
    """Rules over a table.

    Attributes
    ----------
    table, protocol
    names : the rules, in the order of the table
    choices : what they are made by
    controls : whether every rule is repeated with permuted codes
    head_scores : (n, k) 3D scores by each head of the plan
    """

    table: FusionTable
    protocol: Protocol
    names: tuple[str, ...]
    choices: Choices
    controls: bool
    head_scores: tuple[np.ndarray, ...]

    def fitted(self, *, final: bool) -> tuple[tuple[RuleResult, ...], dict[str, Rule]]:
        """Every rule of every copy, in as many threads as were asked for: trees grow beside arithmetic.

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
        # One generator for the controls' permutations, another for the bootstrap: neither moves the other.
        random = np.random.default_rng([self.choices.seed, 1])
        names = (RECALIBRATED, *self.names) if final else ()
        calls = chain(self._finals(names, choices), self._copies(choices, random))
        done: list[Any] = quietly(Parallel(threads, prefer="threads", pre_dispatch="n_jobs"), calls)
        return self._results(done[len(names) :]), dict(zip(names, done, strict=False))

    def _finals(self, names: tuple[str, ...], choices: Choices) -> Iterator[Any]:
        if names:
            fuser = self.protocol.final
            columns = self.columns(fuser.fit, fuser.heads_fit)
            yield from (delayed(self._fitted)(name, choices, columns, fuser.fit) for name in names)

    def _copies(self, choices: Choices, random: np.random.Generator) -> Iterator[Any]:
        for fuser in self.protocol.fusers:
            for variant in self._variants(fuser, choices, random):
                yield from (delayed(self._one)(fuser, variant, name) for name in variant.names)

    def _results(self, every: list[_Found]) -> tuple[RuleResult, ...]:
        reported = self.protocol.reported
        values = self._given()
        fitted: dict[str, list[dict[str, Any]]] = {name: [] for name in values}
        for found in every:
            where = np.searchsorted(reported, found.rows)
            # Rows without 3D take the reference that had the same chances.
            fused = values[RECALIBRATED if found.fits else "2d"][where]
            fused[found.there] = found.predicted
            values.setdefault(found.name, np.full_like(values["2d"], np.nan))[where] = fused
            fitted.setdefault(found.name, []).extend([found.said] if found.said else [])
        order = [name for name in values if _kind(name) == "reference"]
        rest = [name for name in values if name not in order]
        order += [name for rule in self.names for name in rest if _rule_of(name) == rule]
        return tuple(
            RuleResult(name, _kind(name), bool(fitted[name]), values[name], tuple(fitted[name]))
            for name in order
        )

    def _given(self) -> dict[str, np.ndarray]:
        """The references for which nothing is fitted here, and room for the recalibrated one."""
        table, reported = self.table, self.protocol.reported
        plain = as_predictions(table.two_d[reported], table.task)
        three = np.full_like(plain, np.nan)
        for fuser in self.protocol.fusers:
            three[np.searchsorted(reported, fuser.apply)] = self.columns(fuser.apply, fuser.heads_apply).three
        given = {
            "2d": plain,
            RECALIBRATED: np.full_like(plain, np.nan),
            "3d": as_predictions(three, table.task),
        }
        return given | {
            f"2d:{name}": as_predictions(other[reported], table.task) for name, other in table.others.items()
        }

    def _one(self, fuser: FuserFit, variant: _Variant, name: str) -> _Found:
        rule = self._fitted(name, variant.choices, variant.fit, variant.rows)
        here = variant.there.any()
        predicted = rule.apply(variant.apply) if here else np.empty((0, len(self.table.columns)))
        fitted = fits(name, variant.choices.calibrate)
        return _Found(name + variant.suffix, fitted, fuser.apply, variant.there, predicted, rule.describe())

    def columns(self, rows: np.ndarray, heads: tuple[int, ...]) -> Columns:
        """What rules see of rows of the table; 3D scores each from the one head that was asked for it."""
        table = self.table
        if table.three_d is not None:
            three = table.three_d[rows]
        else:
            three = np.full((len(rows), len(table.columns)), np.nan)
            for number in heads:
                asked = np.isin(rows, self.protocol.heads[number].predict)
                three[asked] = self.head_scores[number][rows[asked]]
        return columns_of(table, rows, three)

    def _variants(self, fuser: FuserFit, choices: Choices, random: np.random.Generator) -> Iterator[_Variant]:
        fit, rows = self.columns(fuser.fit, fuser.heads_fit), fuser.fit
        apply = self.columns(fuser.apply, fuser.heads_apply)
        covered, everywhere = apply.covered, np.ones(len(apply), bool)
        yield _Variant("", (RECALIBRATED,), choices, fit, rows, apply.without_3d(), everywhere)
        yield _Variant("", self.names, choices, fit, rows, apply.take(covered), covered)
        fitted = tuple(name for name in self.names if fits(name, choices.calibrate))
        if self.controls:
            # of rules that fit nothing as well: a head brings the classes' shares whatever its codes
            mixed, shown = random.permutation(len(fit)), random.permutation(int(covered.sum()))
            there = apply.take(covered).permuted(shown)
            yield _Variant(PERMUTED, self.names, choices, fit.permuted(mixed), rows, there, covered)
        without = tuple(name for name in fitted if name not in NEEDS_CODES)
        candidates = tuple(name for name in choices.candidates if name not in NEEDS_CODES)
        choices = replace(choices, stack_codes=False, candidates=candidates)
        for name, other in self.table.others.items():
            known, there = np.isfinite(other[rows]).all(axis=1), np.isfinite(other[fuser.apply]).all(axis=1)
            there &= covered
            if known.any() and without:
                yield _Variant(
                    f"+{name}",
                    without,
                    choices,
                    replace(fit.take(known), three=other[rows[known]], codes=None),
                    rows[known],
                    replace(apply.take(there), three=other[fuser.apply[there]], codes=None),
                    there,
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


def _rule_of(name: str) -> str:
    """The rule that a control repeats."""
    return name.removesuffix(PERMUTED).partition("+")[0]


def _kind(name: str) -> str:
    if name in ("2d", RECALIBRATED, "3d") or name.startswith("2d:"):
        return "reference"
    return "control" if name.endswith(PERMUTED) or "+" in name else "rule"
