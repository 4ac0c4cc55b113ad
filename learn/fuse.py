"""One fusion run: table and choices in, measured predictions and a fitted model out.

head -> 3D predictions by the protocol -> references, rules and controls -> figures -> model. Nothing here decides which
rows anything is fitted on; the :class:`~.protocol.Protocol` does.
"""

from __future__ import annotations

import re
import time
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import ProtocolError, UsageError
from ..features.inputs import Inputs
from ..features.join import load_table
from ..features.predictions import log_softmax
from ..features.table import FusionTable
from .config import FITTED_RULES, FuseConfig
from .figures import RuleResult, figures_of
from .fusion import make_rule, quietly
from .heads import make_head
from .metrics import LOWER_IS_BETTER
from .model import FusionModel, head_scores
from .plan import plan
from .protocol import FuserFit, HeadFit, Protocol

__all__ = ["FuseConfig", "FuseResult", "fuse_files", "fuse_predictions"]

RECALIBRATED = "2d-recalibrated"
CONTROL = "-permuted"
_FEW_ROWS = 100  # reported rows below which percentiles of the bootstrap are rough
# task -> metric -> objective that recalibration serves it with, and the loss from which it is clearly worse
_LOSSES = {
    "classes": {"accuracy": ("accuracy", 0.02)},
    "va": {"ccc_joint": ("ccc", 0.02), "rmse_joint": ("rmse", 0.01)},
}


@dataclass(frozen=True, slots=True)
class FuseResult:
    """What a fusion run found.

    Attributes
    ----------
    task, classes : of the table
    ids : (n,) str, sorted: the reported rows
    truth : (n,) labels or (n, 2) targets
    covered : (n,) bool
        Rows with 3D codes or a ready 3D prediction.
    rules : references, then rules, each fitted one followed by its control
    figures : rule -> ``all`` or ``covered`` -> metric -> value, low, high, differences
        See :func:`~.figures.figures_of`; None where a rule does not predict all rows.
    protocol : which rows were fitted and reported
    config : the choices
    notes : tuple of str
        What was assumed or is odd, for the user.
    sources : input -> what it was
    model : refitted on all calibration rows; None when it was not asked for
    seconds : step -> time it took; not part of any file
    """

    task: str
    classes: tuple[str, ...]
    ids: np.ndarray
    truth: np.ndarray
    covered: np.ndarray
    rules: tuple[RuleResult, ...]
    figures: dict[str, dict[str, Any]]
    protocol: Protocol
    config: FuseConfig
    notes: tuple[str, ...]
    sources: dict[str, str]
    model: FusionModel | None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the prediction columns."""
        return self.classes or ("valence", "arousal")


def fuse_files(inputs: Inputs, config: FuseConfig | None = None) -> FuseResult:
    """Join files (:func:`~ig3d.features.join.load_table`) and fuse them."""
    config = config or FuseConfig()
    table = load_table(inputs, blocks=config.blocks, allow_missing=config.allow_missing, force=config.force)
    return fuse_predictions(table, config)


def fuse_predictions(table: FusionTable, config: FuseConfig | None = None) -> FuseResult:
    """Fuse 2D predictions with 3D codes or predictions, and measure what the 3D adds.

    Parameters
    ----------
    table : FusionTable
    config : FuseConfig, optional

    Returns
    -------
    FuseResult
        The same for the same table and choices, whatever order the rows came in and however many threads ran.

    Raises
    ------
    ProtocolError : the rows do not allow it (docs/protocol.md).
    UsageError : a choice that the task does not have.
    """
    config = config or FuseConfig()
    objective = config.objective_for(table.task)
    notes = list(table.notes)
    if table.task == "va" and "product" in config.rules:
        left = tuple(name for name in config.rules if name != "product")
        if not left:
            raise UsageError("rules: expected some that valence and arousal have, got product only")
        config = replace(config, rules=left)
        notes.append(
            "Rule product is left out: values of valence and arousal have no product that means anything."
        )
    start = time.perf_counter()
    protocol = plan(table, config)
    heads = [_fit_head(table, fit, config) for fit in protocol.heads]
    after_heads = time.perf_counter()
    run = _Run(table, config, objective, protocol, tuple(scores for _, scores in heads))
    rules = run.results()
    after_rules = time.perf_counter()
    rows = protocol.reported
    figures = figures_of(
        rules,
        table.truth[rows].astype(np.int64) if table.task == "classes" else table.truth[rows],
        table.covered[rows],
        table.group_codes[rows] if table.grouped else None,
        task=table.task,
        draws=config.draws,
        seed=config.seed,
    )
    after_figures = time.perf_counter()
    model = (
        run.model(None if protocol.final_head < 0 else heads[protocol.final_head][0])
        if config.model
        else None
    )
    notes += _oddities(table, protocol, rules) + _weaknesses(figures, len(rows), table.task, objective)
    return FuseResult(
        task=table.task,
        classes=table.classes,
        ids=table.id[rows],
        truth=table.truth[rows],
        covered=table.covered[rows],
        rules=rules,
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
    )


def _fit_head(table: FusionTable, fit: HeadFit, config: FuseConfig) -> tuple[Any, np.ndarray]:
    """A fitted head, and its scores (n, k) of all rows, NaN where it was not asked."""
    if table.codes is None:
        raise ProtocolError("protocol: expected codes for a head, got ready 3D predictions")
    if not len(fit.train):
        raise ProtocolError(
            "codes: expected rows with 3D codes to learn from, got none; look at the statuses with ig3d inspect"
        )
    truth = table.truth[fit.train]
    if table.task == "classes" and len(np.unique(truth)) < 2:
        raise ProtocolError(
            f"labels: expected at least two classes among the {len(truth)} rows a head learns from, got only "
            f"{table.classes[int(truth[0])]}"
        )
    head = make_head(config.head, table.task, seed=config.seed, jobs=config.jobs)
    groups = table.group_codes[fit.train] if table.grouped else None
    quietly(head.fit, table.codes[fit.train], truth, groups=groups)
    scores = np.full((len(table), len(table.columns)), np.nan)
    if len(fit.predict):
        scores[fit.predict] = head_scores(head, table.codes[fit.predict], table.task, len(table.columns))
    return head, scores


@dataclass(frozen=True, slots=True)
class _Run:
    """Rules over the table, copy by copy."""

    table: FusionTable
    config: FuseConfig
    objective: str
    protocol: Protocol
    head_scores: tuple[np.ndarray, ...]

    @property
    def fitted_names(self) -> list[str]:
        return [RECALIBRATED, *(name for name in self.config.rules if name in FITTED_RULES)]

    def _rule(self, name: str) -> Any:
        config = self.config
        return make_rule(name, task=self.table.task, on=config.on, objective=self.objective, seed=config.seed)

    def three_d(self, rows: np.ndarray, heads: tuple[int, ...]) -> np.ndarray:
        """(len(rows), k) 3D scores of these rows, each from the one head that was asked for it; NaN uncovered."""
        if self.table.three_d is not None:
            return self.table.three_d[rows]
        scores = np.full((len(rows), len(self.table.columns)), np.nan)
        for number in heads:
            asked = np.isin(rows, self.protocol.heads[number].predict)
            scores[asked] = self.head_scores[number][rows[asked]]
        return scores

    def fit(self, fuser: FuserFit, permutation: np.random.Generator | None) -> dict[str, Any]:
        """Fitted rules by name; with their 3D rows permuted when a generator is given."""
        rows = fuser.fit
        three = self.three_d(rows, fuser.heads_fit)
        covered = np.isfinite(three).all(axis=1)
        if not covered.any():
            raise ProtocolError(
                f"codes: expected some among the {len(rows)} rows that rules are fitted on, got none; look at the "
                "statuses with ig3d inspect"
            )
        rows, three = rows[covered], three[covered]
        if permutation is not None:
            three = three[permutation.permutation(len(three))]
        X = np.hstack([self.table.two_d[rows], three])
        y = self.table.truth[rows].astype(np.int64 if self.table.task == "classes" else np.float64)
        groups = self.table.group_codes[rows] if self.table.grouped else None
        names = self.fitted_names if permutation is None else self.fitted_names[1:]
        return {name: quietly(self._rule(name).fit, X, y, groups=groups) for name in names}

    def results(self) -> tuple[RuleResult, ...]:
        """References, rules and controls over the reported rows."""
        table, config, reported = self.table, self.config, self.protocol.reported
        values: dict[str, np.ndarray] = {}
        fitted: dict[str, list[dict[str, Any]]] = {}
        # One generator for the controls' permutations, another for the bootstrap: neither moves the other.
        random = np.random.default_rng([config.seed, 1])
        for fuser in self.protocol.fusers:
            copies = self._apply(fuser, random)
            where = np.searchsorted(reported, fuser.apply)
            for name, (predicted, said) in copies.items():
                values.setdefault(name, np.full((len(reported), len(table.columns)), np.nan))[where] = (
                    predicted
                )
                fitted.setdefault(name, []).extend([said] if said else [])
        return tuple(
            RuleResult(name, _kind(name), bool(fitted[name]), array, tuple(fitted[name]))
            for name, array in values.items()
        )

    def _apply(
        self, fuser: FuserFit, random: np.random.Generator
    ) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
        """rule -> predictions of ``fuser.apply`` and what was fitted, for one copy."""
        rows = fuser.apply
        rules = self.fit(fuser, None)
        two, three = self.table.two_d[rows], self.three_d(rows, fuser.heads_apply)
        covered = np.isfinite(three).all(axis=1)
        plain = _as_predictions(two, self.table.task)
        recalibrated = rules[RECALIBRATED].apply(np.hstack([two, two]))  # it does not look at the second half
        result = {
            "2d": (plain, {}),
            RECALIBRATED: (recalibrated, rules[RECALIBRATED].describe()),
            "3d": (_as_predictions(three, self.table.task), {}),
        }
        controls: dict[str, Any] = {}
        shuffled = three.copy()
        if self.config.controls and len(self.fitted_names) > 1:
            controls = self.fit(fuser, random)
            shuffled[covered] = three[covered][random.permutation(int(covered.sum()))]
        for name in self.config.rules:
            rule = rules.get(name) or self._rule(name)
            fallback = recalibrated if name in rules else plain
            said = rules[name].describe() if name in rules else {}
            result[name] = (_fused(rule, two, three, covered, fallback), said)
            if name in controls:
                values = _fused(controls[name], two, shuffled, covered, recalibrated)
                result[name + CONTROL] = (values, controls[name].describe())
        return result

    def model(self, head: Any) -> FusionModel:
        """Everything refitted on all calibration rows."""
        table, protocol = self.table, self.protocol
        rules = self.fit(protocol.final, None)
        rules |= {name: self._rule(name) for name in self.config.rules if name not in rules}
        trained = protocol.heads[protocol.final_head].train if head is not None else np.zeros(0, np.intp)
        return FusionModel(
            task=table.task,
            classes=table.classes,
            blocks=table.blocks,
            head=_without_threads(head),
            rules=rules,
            seen_ids=table.id[np.union1d(protocol.calibration, trained)],
            calibration_ids=table.id[protocol.calibration],
            fitted_on=protocol.fit_name,
        )


def _without_threads(head: Any) -> Any:
    """The head without a trace of how many threads fitted it, so that a saved model is the same on any machine."""
    if not hasattr(head, "trees_"):
        return head
    settled = copy(head).set_params(num_threads=0)
    texts = [head.trees_] if isinstance(head.trees_, str) else head.trees_
    texts = [
        re.sub(r"^\[num_threads: \d+\]$", "[num_threads: 0]", text, flags=re.MULTILINE) for text in texts
    ]
    settled.trees_ = texts[0] if isinstance(head.trees_, str) else texts
    return settled


def _kind(name: str) -> str:
    if name in ("2d", RECALIBRATED, "3d"):
        return "reference"
    return "control" if name.endswith(CONTROL) else "rule"


def _as_predictions(scores: np.ndarray, task: str) -> np.ndarray:
    return scores if task == "va" else log_softmax(scores)


def _fused(
    rule: Any, two: np.ndarray, three: np.ndarray, covered: np.ndarray, fallback: np.ndarray
) -> np.ndarray:
    """The rule where there is 3D, row by row; the fallback elsewhere."""
    fused = fallback.copy()
    if covered.any():
        fused[covered] = rule.apply(np.hstack([two[covered], three[covered]]))
    return fused


def _oddities(table: FusionTable, protocol: Protocol, rules: tuple[RuleResult, ...]) -> list[str]:
    """What makes figures of these rows mean less than they seem to."""
    notes = []
    reported = protocol.reported
    uncovered = int((~table.covered[reported]).sum())
    if uncovered:
        notes.append(
            f"{uncovered} of {len(reported)} reported rows have no 3D: fitted rules take {RECALIBRATED} there, rules "
            "that fit nothing take 2d; 3d is measured on covered rows only."
        )
    if table.task == "classes":
        missing = np.setdiff1d(np.arange(len(table.classes)), table.labels[protocol.calibration])
        if len(missing):
            names = ", ".join(table.classes[index] for index in missing)
            notes.append(
                f"No calibration row is {names}: fitted rules keep the 2D probability of such classes."
            )
        present = np.unique(table.labels[reported])
        if len(present) == 1:
            notes.append(f"WARNING all reported rows are {table.classes[present[0]]}: accuracy says little.")
    for name in ("2d", "3d"):
        rule = next(rule for rule in rules if rule.name == name)
        values = rule.values[rule.present]
        if len(values) > 1 and (np.ptp(values, axis=0) < 1e-9).all():
            notes.append(f"WARNING the {name} predictions are the same for every row.")
    return notes


def _weaknesses(figures: dict[str, dict[str, Any]], n: int, task: str, objective: str) -> list[str]:
    """Where differences to the recalibrated network flatter, and where intervals are rough."""
    notes = []
    for metric, (served_by, least) in _LOSSES[task].items():
        given, mended = (figures[name]["all"][metric]["value"] for name in ("2d", RECALIBRATED))
        if given is None or mended is None:
            continue
        loss = mended - given if metric in LOWER_IS_BETTER else given - mended
        if loss <= least:
            continue
        below = "worse than" if metric in LOWER_IS_BETTER else "below"
        cause = (
            "too few rows to recalibrate on" if objective == served_by else f"it is fitted for {objective}"
        )
        words = f"{metric.replace('_', ' ')} {_told(mended, task)} against {_told(given, task)}"
        notes.append(
            f"WARNING {RECALIBRATED} is {below} 2d ({words}): {cause}; take the smaller of both differences."
        )
    if n < _FEW_ROWS:
        notes.append(f"Only {n} rows are reported: intervals of so few rows are rough.")
    return notes


def _told(value: float, task: str) -> str:
    return f"{100 * value:.1f} %" if task == "classes" else f"{value:.3f}"
