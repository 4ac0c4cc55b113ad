"""Selections of a run for page, terminal and LaTeX: values by name, and facts that follow from the record."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ..config import OBJECTIVES, FuseConfig
from ..evaluate.complementarity import MEASURES
from ..evaluate.figures import Figure
from ..evaluate.intervals import FEW_UNITS
from ..evaluate.metrics import LEADING, METRICS, better_by, metric_names
from ..evaluate.predictors import CONDITIONAL, INTERMEDIATE, NULL_INPUT, REAL, control_of, label_of, repeated
from .format import ON_COVERED
from .record import Run, seed_of
from .render import lines_of

Key = tuple[str, str]


def _listed(names: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


@dataclass(frozen=True)
class Entry:
    """A predictor of a run under one condition, with its marks."""

    name: str
    role: str
    condition: str
    fits: bool
    rows: str  # ``all``, ``covered``, or empty where it has no figures
    fitted: list[dict[str, Any]]
    repeats: int = 1  # cross-fittings, permutations or trainings

    @property
    def key(self) -> Key:
        return self.name, self.condition

    @property
    def label(self) -> str:
        """Name and condition, with a mark if it is measured on covered rows only."""
        return label_of(self.name, self.condition) + ON_COVERED * (self.rows == "covered")


@dataclass(frozen=True)
class View:
    """Selections of a run's figures.

    Attributes
    ----------
    run : Run
    """

    run: Run

    @property
    def record(self) -> dict[str, Any]:
        return self.run.record

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def task(self) -> str:
        return str(self.record["task"])

    @property
    def protocol(self) -> dict[str, Any]:
        return dict(self.record["protocol"])

    @property
    def references(self) -> list[str]:
        return list(self.record["references"])

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], Figure]:
        whole = self.run.figures[self.run.figures["repeat"].isna()]
        names = ("predictor", "condition", "rows", "metric", "label", "versus", "versus_condition")
        keys = whole[list(names)].itertuples(index=False, name=None)
        numbers = whole[list(Figure._fields)].itertuples(index=False, name=None)
        return {key: Figure(*line) for key, line in zip(keys, numbers, strict=True)}

    def figure(
        self,
        key: Key | str,
        metric: str,
        *,
        rows: str = "all",
        label: str = "",
        versus: Key | str = ("", ""),
    ) -> Figure | None:
        """One figure; names without a condition are of real codes. Where all rows are covered, ``covered`` is all."""
        name, condition = (key, REAL) if isinstance(key, str) else key
        other = (versus, REAL) if isinstance(versus, str) and versus else versus or ("", "")
        part = "all" if rows == "covered" and not self.partial else rows
        return self._lines.get((name, condition, part, metric, label, *other))

    def repeats(self, key: Key | str, metric: str, versus: Key | str = ("", "")) -> list[float]:
        """The value of each cross-fitting or training on all rows; empty if there is only one."""
        name, condition = (key, REAL) if isinstance(key, str) else key
        other = (versus, REAL) if isinstance(versus, str) and versus else versus or ("", "")
        of = self.run.figures
        chosen = of["repeat"].notna() & (of["rows"] == "all") & (of["metric"] == metric)
        for column, value in zip(
            ("predictor", "condition", "versus", "versus_condition"), (name, condition, *other), strict=True
        ):
            chosen &= of[column] == value
        return [float(value) for value in of.loc[chosen].sort_values("repeat")["value"]]

    @cached_property
    def entries(self) -> list[Entry]:
        """All predictors, in the order of tables: references, rules or heads, controls."""
        order = {"reference": 0, "rule": 1, "head": 1, "control": 2}
        entries = []
        for of in self.record["predictors"]:
            metric = metric_names(self.task)[0]
            key = (of["name"], of["condition"])
            parts = (part for part in ("all", "covered") if self.figure(key, metric, rows=part) is not None)
            entries.append(
                Entry(
                    of["name"],
                    of["role"],
                    of["condition"],
                    bool(of["fits"]),
                    next(parts, ""),
                    list(of["fitted"]),
                    int(of["repeats"]),
                )
            )
        return sorted(entries, key=lambda of: order.get(of.role, 3))

    def of_role(self, *roles: str) -> list[Entry]:
        return [of for of in self.entries if of.role in roles]

    def entry(self, key: Key | str) -> Entry | None:
        wanted = (key, REAL) if isinstance(key, str) else key
        return next((of for of in self.entries if of.key == wanted), None)

    def control(self, name: str) -> Key | None:
        """The control with permuted codes of a rule."""
        return control_of(name, (of.key for of in self.entries))

    @cached_property
    def seconds(self) -> list[Entry]:
        """Rules with a second 2D network in place of the 3D."""
        return [of for of in self.of_role("control") if of.condition.startswith("2d:")]

    @cached_property
    def beyond_both(self) -> list[Entry]:
        """Rules over two stacked 2D networks, with the 3D."""
        return [of for of in self.entries if self.entry((of.name, repeated(of.condition)))]

    @property
    def partial(self) -> bool:
        """Whether some reported rows have no codes."""
        return 0 < int(self.protocol["rows_covered"]) < int(self.protocol["rows_reported"])

    @property
    def intermediate(self) -> bool:
        """Whether the run is an intermediate fusion: codes with features of a network."""
        return bool(self.protocol["head_fitting"] == "intermediate")

    @property
    def has_2d(self) -> bool:
        """Whether the run has a 2D network; otherwise codes alone were evaluated."""
        return self.entry("2d") is not None or self.intermediate

    @property
    def grouped(self) -> bool:
        return self.protocol["groups_reported"] is not None

    @property
    def cross_fitted(self) -> bool:
        """Whether each reported row is predicted by models fitted on the other folds."""
        return len(self.protocol["fits"].get("rules", ())) > 1

    @property
    def three(self) -> str:
        """The 3D input: codes, or ready 3D predictions."""
        return "3D predictions" if self.protocol["head_fitting"] == "none" else "3D codes"

    @property
    def family(self) -> str:
        """The differences whose p-values are adjusted together."""
        figures = self.run.figures
        tested = figures[figures["p_adjusted"].notna() & figures["repeat"].isna()]
        metrics = [of.title for name, of in METRICS.items() if (tested["metric"] == name).any()]
        opponents = list(self.references)
        if self.has_2d:
            opponents += ["3d"] if self.entry("3d") else []
            opponents += ["its control"] if any(self.control(of.name) for of in self.of_role("rule")) else []
            opponents += ["itself with a second 2D network in place of the 3D"] if self.seconds else []
        each = "rule" if self.has_2d else "head"
        rows = ", on all rows and on the rows with 3D codes" if (tested["rows"] == "covered").any() else ""
        return (
            f"{len(tested)} differences: each {each} relative to {_listed(opponents)}, in {_listed(metrics)}"
            f"{rows}"
        )

    @property
    def units(self) -> int:
        """Number of rows or groups, which are resampled and exchanged."""
        return int(self.protocol["groups_reported"] if self.grouped else self.protocol["rows_reported"])

    @property
    def few(self) -> bool:
        """Whether there are too few rows or groups to interpret an interval."""
        return self.units <= FEW_UNITS

    @property
    def objective(self) -> str:
        """Objective of the rules: accuracy, balanced or logloss; rmse or ccc."""
        return str(self.record["config"].get("objective") or OBJECTIVES[self.task][0])

    @property
    def trainings(self) -> int:
        """Number of trainings of each module of an intermediate fusion; otherwise 1."""
        return len(self.record["config"].get("seeds") or [0])

    @property
    def leading(self) -> tuple[str, ...]:
        """The metrics whose differences are shown, that of the effect size first."""
        metrics = LEADING[self.task]
        if self.task == "va" and not self.intermediate and self.objective == "rmse":
            return tuple(reversed(metrics))
        return metrics

    @property
    def metrics(self) -> list[str]:
        """Metrics of tables."""
        return [name for name in metric_names(self.task) if METRICS[name].shown]

    @property
    def primary_rule(self) -> str:
        return INTERMEDIATE if self.intermediate else str((self.record["primary"] or {}).get("rule", ""))

    @property
    def primary_metric(self) -> str:
        late = self.record["primary"]
        return self.leading[0] if self.intermediate or late is None else str(late["metric"])

    @property
    def permutations(self) -> int:
        """Number of permutations over which the conditional control of the primary rule is averaged, else 1."""
        control = self.entry((self.primary_rule, CONDITIONAL))
        return 1 if control is None else control.repeats

    @property
    def effect_rule(self) -> str:
        """The rule of the effect size: ``selected``, which chooses on calibration rows, where it was run."""
        return "selected" if self.entry("selected") is not None else self.primary_rule

    @property
    def shown_rule(self) -> str | None:
        """The predictor whose confusion, reliability and gains per class are shown."""
        if self.has_2d and self.entry(self.effect_rule) is not None:
            return self.effect_rule
        return next(iter(self.ranked(self.leading[0])), None)

    @property
    def baseline(self) -> str | None:
        """Predictor with which the shown rule is compared: the 2D network fitted on the same rows, if there is one."""
        names = (NULL_INPUT, "2d-recalibrated", "2d", "prior")
        return next((name for name in names if self.entry(name) is not None), None)

    def ranked(self, metric: str) -> list[str]:
        """Rules and heads that predict every reported row, the best first."""
        figures = {of.name: self.figure(of.key, metric) for of in self.of_role("rule", "head")}
        values = {
            name: of.value for name, of in figures.items() if of is not None and math.isfinite(of.value)
        }
        return sorted(values, key=lambda name: -better_by(metric, values[name]))

    def best(self, metric: str) -> float:
        """The best figure of references, rules and heads."""
        usable = self.of_role("reference", "rule", "head")
        figures = [self.figure(of.key, metric) for of in usable]
        values = [of.value for of in figures if of is not None and math.isfinite(of.value)]
        return max(values, key=lambda value: better_by(metric, value), default=math.nan)

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """(first, second) single predictors whose complementarity was measured."""
        first = next(iter(MEASURES[self.task]))
        of = self.run.figures[self.run.figures["metric"] == first]
        return list(dict.fromkeys(of[["versus", "predictor"]].itertuples(index=False, name=None)))

    def pair(self, first: str, second: str) -> list[tuple[str, str, Figure]]:
        """(measure, label, figure) of a pair, on the covered rows."""
        labels = ("",) if self.task == "classes" else ("valence", "arousal")
        measures = []
        for label in labels:
            for measure in MEASURES[self.task]:
                figure = self.figure(second, measure, rows="covered", label=label, versus=first)
                if figure is not None:
                    measures.append((measure, label, figure))
        return measures

    @property
    def config(self) -> dict[str, Any]:
        """The options of the run; those that it does not name are the defaults."""
        return asdict(FuseConfig()) | self.record["config"]

    @property
    def seed(self) -> int:
        return seed_of(self.record)

    @cached_property
    def repeated(self) -> list[tuple[str, int]]:
        """Predictors that were cross-fitted several times, with the number of repeats."""
        if self.intermediate:
            return []
        return [
            (str(of["name"]), int(of["repeats"]))
            for of in self.record["predictors"]
            if of["role"] in ("reference", "rule") and of["repeats"] > 1
        ]

    @property
    def cross_fitted_once(self) -> list[str]:
        """Rules with fitted parameters that were cross-fitted once, where others were several times."""
        several = {name for name, _ in self.repeated}
        return [of.name for of in self.of_role("rule") if of.fits and of.name not in several]

    @property
    def in_folds(self) -> bool:
        """Whether rules are fitted in folds, so that each fold has its own fitted rules."""
        return len(self.protocol["fits"].get("rules", ())) > 1

    @property
    def head_rows(self) -> str:
        """Number of rows that the heads of the reported rows were fitted on; empty where it is unknown."""
        fits = self.protocol["fits"]
        heads = {head for rule in fits.get("rules", ()) for head in rule["heads_for_applying"]}
        counts = sorted({fits["heads"][head]["fitted_on"]["rows"] for head in heads})
        return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else ""

    @property
    def lines(self) -> list[str]:
        """Assumptions, and diagnostics as sentences; warnings first."""
        return lines_of(self.record["assumptions"], self.record["diagnostics"])

    @property
    def warnings(self) -> list[str]:
        """Conditions that weaken the run's results; likely leaks first."""
        lines = (*self.leaks, *(line for line in self.lines if line.startswith("WARNING")))
        return [line.removeprefix("WARNING ") for line in lines]

    @property
    def leaks(self) -> list[str]:
        """Warnings of the plan: models that may have been fitted on reported rows."""
        return [line for line in self.protocol["sentences"] if line.startswith("WARNING")]
