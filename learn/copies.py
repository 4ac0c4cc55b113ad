"""The rules fitted and applied, copy by copy, on the rows that the plan gives each: references, rules and controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ProtocolError
from ..features.predictions import log_softmax
from ..features.table import FusionTable
from .measures.results import RuleResult
from .protocol import FuserFit, Protocol
from .rules import NEEDS_CODES, RECALIBRATED, Choices, Columns, Rule, fits, make_rule, quietly

PERMUTED = "-permuted"
_Applied = dict[str, tuple[np.ndarray, dict[str, Any]]]  # name -> predictions, what was fitted


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

    def results(self) -> tuple[RuleResult, ...]:
        """References, then rules, each followed by its controls, over the reported rows."""
        reported = self.protocol.reported
        values: dict[str, np.ndarray] = {}
        fitted: dict[str, list[dict[str, Any]]] = {}
        # One generator for the controls' permutations, another for the bootstrap: neither moves the other.
        random = np.random.default_rng([self.choices.seed, 1])
        for fuser in self.protocol.fusers:
            where = np.searchsorted(reported, fuser.apply)
            for name, (predicted, said) in self._apply(fuser, random).items():
                empty = np.full((len(reported), len(self.table.columns)), np.nan)
                values.setdefault(name, empty)[where] = predicted
                fitted.setdefault(name, []).extend([said] if said else [])
        order = [name for name in values if _kind(name) == "reference"]
        rest = [name for name in values if name not in order]
        order += [name for rule in self.names for name in rest if _rule_of(name) == rule]
        return tuple(
            RuleResult(name, _kind(name), bool(fitted[name]), values[name], tuple(fitted[name]))
            for name in order
        )

    def final(self) -> dict[str, Rule]:
        """Every rule, fitted to all calibration rows."""
        fuser = self.protocol.final
        columns, rows = self._fitting(fuser, self.columns(fuser.fit, fuser.heads_fit))
        return {name: self._fitted(name, self.choices, columns, rows) for name in (RECALIBRATED, *self.names)}

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

    def _fitting(self, fuser: FuserFit, columns: Columns) -> tuple[Columns, np.ndarray]:
        """The columns that rules are fitted to, and their rows of the table."""
        covered = columns.covered
        if not covered.any():
            raise ProtocolError(
                f"codes: expected some among the {len(columns)} rows that rules are fitted on, got none; look at the "
                "statuses with ig3d inspect"
            )
        return columns.take(covered), fuser.fit[covered]

    def _variants(self, fuser: FuserFit, apply: Columns, random: np.random.Generator) -> Iterator[_Variant]:
        fit, rows = self._fitting(fuser, self.columns(fuser.fit, fuser.heads_fit))
        covered = apply.covered
        yield _Variant("", (RECALIBRATED, *self.names), self.choices, fit, rows, apply.take(covered), covered)
        fitted = tuple(name for name in self.names if fits(name, self.choices))
        if (
            self.controls
        ):  # of rules that fit nothing as well: a head brings the classes' shares whatever its codes
            mixed, shown = random.permutation(len(fit)), random.permutation(int(covered.sum()))
            there = apply.take(covered).permuted(shown)
            yield _Variant(PERMUTED, self.names, self.choices, fit.permuted(mixed), rows, there, covered)
        without = tuple(name for name in fitted if name not in NEEDS_CODES)
        candidates = tuple(name for name in self.choices.candidates if name not in NEEDS_CODES)
        choices = replace(self.choices, stack_codes=False, candidates=candidates)
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
        rule: Rule = quietly(make_rule(name, choices).fit, columns, y, groups=groups)
        return rule

    def _apply(self, fuser: FuserFit, random: np.random.Generator) -> _Applied:
        """name -> predictions of ``fuser.apply`` and what was fitted, for one copy."""
        columns = self.columns(fuser.apply, fuser.heads_apply)
        plain = as_predictions(columns.two, self.table.task)
        result: _Applied = {"2d": (plain, {})}
        for variant in self._variants(fuser, columns, random):
            for name in variant.names:
                rule = self._fitted(name, variant.choices, variant.fit, variant.rows)
                if name == RECALIBRATED:
                    result[name] = (recalibrated(rule, columns), rule.describe())
                    result["3d"] = (as_predictions(columns.three, self.table.task), {})
                    for other, scores in self.table.others.items():
                        result[f"2d:{other}"] = (as_predictions(scores[fuser.apply], self.table.task), {})
                    continue
                # Rows without 3D take the reference that had the same chances.
                fused = (result[RECALIBRATED][0] if fits(name, variant.choices) else plain).copy()
                if variant.there.any():
                    fused[variant.there] = rule.apply(variant.apply)
                result[name + variant.suffix] = (fused, rule.describe())
        return result


def columns_of(table: FusionTable, rows: np.ndarray, three: np.ndarray) -> Columns:
    """Columns of rows of a table, with these (len(rows), k) 3D scores."""
    return Columns(
        two=table.two_d[rows],
        three=three,
        codes=None if table.codes is None else table.codes[rows],
        quality=None if table.quality is None else table.quality[rows],
        quality_columns=table.quality_columns,
    )


def recalibrated(rule: Rule, columns: Columns) -> np.ndarray:
    """(n, k) predictions of the rule that has no 3D columns, also in rows without any."""
    return rule.apply(replace(columns, three=columns.two))


def as_predictions(scores: np.ndarray, task: str) -> np.ndarray:
    """(n, k) log-probabilities of scores; valence and arousal as they are."""
    return scores if task == "va" else log_softmax(scores)


def _rule_of(name: str) -> str:
    """The rule that a control repeats."""
    return name.removesuffix(PERMUTED).partition("+")[0]


def _kind(name: str) -> str:
    if name in ("2d", RECALIBRATED, "3d") or name.startswith("2d:"):
        return "reference"
    return "control" if name.endswith(PERMUTED) or "+" in name else "rule"
