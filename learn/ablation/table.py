"""The cells of a study in one table of figures, with the differences of every cell to one of them.

Holm's correction runs over all rules of all cells, for each reference apart: a study asks that many questions. Cells
with the same predictions ask one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ...errors import UsageError
from ..evaluate.figures import COLUMNS, Figure, figures_of
from ..evaluate.intervals import holm
from ..evaluate.metrics import LEADING, better_by, metric_names
from ..evaluate.predictions import ReportedPredictions
from ..evaluate.predictors import CONDITIONAL, PERMUTED, REAL, Predictor, control_of, find
from ..report.compare import groups_of_runs, unlike
from ..report.format import ON_COVERED
from ..report.record import seed_of
from ..report.render import lines_of
from .run import StudyResult

_WARNINGS = ("WARNING",)  # how a run's lines begin that a reader of one figure has to know
_REFERENCE = "reference cell"
_JUDGED = ("rule", "head")


@dataclass(frozen=True, slots=True)
class StudyTable:
    """All figures of a study in one metric.

    Attributes
    ----------
    metric : str
    rule : the rule whose differences are shown; None where the cells have none
    rules : names of references and rules, in order; controls apart
    references : names that rules are compared with within their cell; the first leads
    figures : DataFrame
        A column ``cell`` (place of the cell), one for each factor, those of the table of figures, ``versus_cell``
        (place of the cell that a difference is to, empty within a cell). Figures of all
        reported rows, or of the covered ones for a predictor of no others; ``p_adjusted`` is over the study.
    remarks : why some cells stand apart, and which are the same
    warnings : of the cells, each with the cells that it concerns
    rule_of : cell -> the rule whose differences are shown
    """

    metric: str
    rule: str | None
    rules: tuple[str, ...]
    references: tuple[str, ...]
    figures: pd.DataFrame
    remarks: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    rule_of: Mapping[int, str] = field(default_factory=dict)

    @property
    def control(self) -> tuple[str, str] | None:
        """Name and condition of the rule with permuted codes, where the cells have it."""
        keys = self.figures[["predictor", "condition"]].drop_duplicates().itertuples(index=False, name=None)
        return control_of(self.rule or "", keys)

    def find(
        self,
        cell: int,
        predictor: str,
        *,
        condition: str = REAL,
        versus: str = "",
        versus_condition: str | None = None,
        versus_cell: int | None = None,
    ) -> Figure | None:
        """A figure of a cell, or one of its differences; None where the cell has none."""
        of = self.figures
        under = (REAL if versus else "") if versus_condition is None else versus_condition
        chosen = (of["cell"] == cell) & (of["predictor"] == predictor) & (of["condition"] == condition)
        if versus_cell is None:
            chosen &= of["versus_cell"].isna() & (of["versus"] == versus) & (of["versus_condition"] == under)
        else:
            chosen &= (of["versus_cell"] == versus_cell).fillna(value=False)
        for line in of.loc[chosen, list(Figure._fields)].itertuples(index=False, name=None):
            return Figure(*line)
        return None

    def to_control(self, cell: int, predictor: str) -> Figure | None:
        """The difference of a rule to itself with permuted codes."""
        for condition in (CONDITIONAL, PERMUTED):
            found = self.find(cell, predictor, versus=predictor, versus_condition=condition)
            if found is not None:
                return found
        return None

    def marks(self, cell: int, predictor: str, condition: str = REAL) -> str:
        """``‡`` if it is measured on covered rows only."""
        of = self.figures
        chosen = (of["cell"] == cell) & (of["predictor"] == predictor) & (of["condition"] == condition)
        for line in of[chosen & (of["versus"] == "")].to_dict("records"):
            return ON_COVERED * (line["rows"] == "covered")
        return ""

    def claim(self, cell: int, predictor: str) -> Figure | None:
        """The least certain of a rule's gains over every reference and its own control, for its stars.

        None where one of these is no gain, or none was tested.
        """
        every = [
            *(self.find(cell, predictor, versus=name) for name in self.references),
            self.to_control(cell, predictor),
        ]
        found = [of for of in every if of is not None and math.isfinite(of.p_adjusted)]
        if not found or any(better_by(self.metric, of.value) <= 0 for of in found):
            return None
        return max(found, key=lambda of: of.p_adjusted)


def table_of(result: StudyResult) -> StudyTable:
    """Read the cells together.

    Raises
    ------
    UsageError : the metric is not one of the task, or no cell has the rule.
    """
    done = [(place, of) for place, of in enumerate(result.cells) if of.run is not None]
    columns = ["cell", *factor_columns(result), *COLUMNS, "versus_cell"]
    if not done:
        return StudyTable("accuracy", None, (), (), pd.DataFrame(columns=columns), ())
    tasks = {of.record["task"] for _, of in done}
    if len(tasks) > 1:
        raise UsageError(
            f"{result.study.name}: expected cells of one task, got classes and va; part the study"
        )
    task = tasks.pop()
    metric = result.study.metric or LEADING[task][0]
    if metric not in metric_names(task):
        raise UsageError(f"metric: expected one of {', '.join(metric_names(task))}, got {metric!r}")
    predictions = {place: of.predictions() for place, of in done}
    within = [_within(result, place, metric) for place, _ in done]
    own = pd.concat(within, ignore_index=True)
    own = own[(own["versus"] == "") & (own["condition"] == REAL)]
    rules = list(dict.fromkeys(own["predictor"][own["role"].isin(_JUDGED)]))
    names = [*dict.fromkeys(own["predictor"][own["role"] == "reference"]), *rules]
    rule_of = {place: rule for place, _ in done if (rule := _rule_of(result, place, own))}
    for rule in rule_of.values():
        if rule not in names:
            raise UsageError(f"rule: expected one of {', '.join(names)}, got {rule!r}")
    across, remarks = _across(result, metric, task, predictions, rule_of)
    figures = pd.concat([*within, *across], ignore_index=True)[columns].astype({"versus_cell": "Int64"})
    figures = figures.sort_values("cell", kind="stable", ignore_index=True)
    rule = " and ".join(dict.fromkeys(rule_of.values())) or None
    references = tuple(dict.fromkeys(name for _, of in done for name in of.record["references"]))
    same = same_cells(predictions)
    _correct(figures, same, result.study.reference_cell)
    names_of_cells = [of.cell.name for of in result.cells]
    remarks += [
        f"{', '.join(names_of_cells[place] for place in same if same[place] == first)}: the same predictions as "
        f"{names_of_cells[first]}, and counted once in Holm's correction."
        for first in dict.fromkeys(same.values())
    ]
    return StudyTable(
        metric, rule, tuple(names), references, figures, tuple(remarks), tuple(_warnings(result)), rule_of
    )


def _rule_of(result: StudyResult, place: int, own: pd.DataFrame) -> str | None:
    """The rule of a cell whose differences are shown: the study's, else ``stack``, else the first."""
    rules = list(own["predictor"][(own["cell"] == place) & own["role"].isin(_JUDGED)])
    named = result.study.rule_of(result.study.cells[place].run)
    return named or ("stack" if "stack" in rules else next(iter(rules), None))


def factor_columns(result: StudyResult) -> dict[str, str]:
    """Column of each factor -> the factor."""
    taken = {*COLUMNS, "cell", "versus_cell", "error"}
    return {(f"{name} (factor)" if name in taken else name): name for name in result.study.grid}


def _labels(result: StudyResult, place: int) -> dict[str, str]:
    labels = result.cells[place].cell.labels
    return {column: labels[name] for column, name in factor_columns(result).items()}


def _within(result: StudyResult, place: int, metric: str) -> pd.DataFrame:
    """A cell's figures in one metric, without the correction over its own run."""
    run = result.cells[place].run
    assert run is not None  # of cells that were run
    every = run.figures[(run.figures["metric"] == metric) & run.figures["repeat"].isna()]
    whole = set(
        every.loc[every["rows"] == "all", ["predictor", "condition"]].itertuples(index=False, name=None)
    )
    keys = list(every[["predictor", "condition"]].itertuples(index=False, name=None))
    part = np.array(["all" if key in whole else "covered" for key in keys], object)
    return every[every["rows"].to_numpy() == part].assign(
        p_adjusted=math.nan,
        cell=place,
        versus_cell=None,
        **_labels(result, place),
    )  # fmt: skip


def _across(
    result: StudyResult,
    metric: str,
    task: str,
    predictions: Mapping[int, ReportedPredictions],
    rule_of: Mapping[int, str],
) -> tuple[list[pd.DataFrame], list[str]]:
    """Differences of each predictor to that of the reference cell, and why some cells have none.

    The rule of a cell is compared with the rule of the reference cell, also if these are different rules.
    """
    chief = result.study.reference_cell
    others = [place for place in predictions if place != chief]
    if not others:
        return [], []
    if chief not in predictions:
        return [], [f"The cells have no reference: {result.cells[chief].cell.name} failed."]
    first = predictions[chief]
    remarks, paired = [], []
    for place in others:
        if reason := unlike(first, predictions[place]):
            pair = (
                f"{result.cells[place].cell.name} has no paired difference to {result.cells[chief].cell.name}"
            )
            remarks.append(f"{pair}: {reason}.")
        else:
            paired.append(place)
    record = result.cells[chief].record
    tables = []
    for of in first.predictors:
        compared = {
            place: other
            for place in paired
            if (other := _partner(of, place, chief, predictions[place].predictors, rule_of)) is not None
            and other.present.all()
            and of.present.all()
        }
        if not compared:
            continue
        figures = figures_of(
            (
                _renamed(of, _REFERENCE, "reference"),
                *(_renamed(other, str(place), "rule") for place, other in compared.items()),
            ),
            first.truth,
            np.ones(len(first.ids), bool),
            groups_of_runs(first, *(predictions[place] for place in compared)),
            task=task,
            draws=record["config"]["draws"],
            seed=seed_of(record),
            references=(_REFERENCE,),
        )
        lines = figures[
            (figures["metric"] == metric) & (figures["versus"] == _REFERENCE) & figures["repeat"].isna()
        ]
        for line in lines.to_dict("records"):
            place = int(line["predictor"])
            line |= {
                "predictor": compared[place].name,
                "role": compared[place].role,
                "condition": of.condition,
                "versus": of.name,
                "versus_condition": of.condition,
                "cell": place,
                "versus_cell": chief,
                **_labels(result, place),
            }
            tables.append(pd.DataFrame([line]))
    return tables, remarks


def _partner(
    of: Predictor, place: int, chief: int, predictors: Sequence[Predictor], rule_of: Mapping[int, str]
) -> Predictor | None:
    """The predictor of a cell that is compared with one of the reference cell."""
    rules = (rule_of.get(chief), rule_of.get(place))
    if of.key == (rules[0], REAL):
        return find(predictors, rules[1] or of.name)
    # another predictor of the name of the cell's rule is compared already
    return None if of.key == (rules[1], REAL) else find(predictors, *of.key)


def _renamed(of: Predictor, name: str, role: str) -> Predictor:
    return replace(of, name=name, role=role, condition=REAL, fits=True, fitted=())


def same_cells(predictions: Mapping[int, ReportedPredictions]) -> dict[int, int]:
    """Cell -> the first cell that predicts the very same rows by the very same rules with the very same values."""
    same: dict[int, int] = {}
    for place, mine in predictions.items():
        for first in predictions:
            if first == place:
                break
            if first not in same and _equal(predictions[first], mine):
                same[place] = first
                break
    return same


def _equal(one: ReportedPredictions, other: ReportedPredictions) -> bool:
    if [of.key for of in one.predictors] != [of.key for of in other.predictors] or unlike(one, other):
        return False
    return all(
        len(mine.every) == len(theirs.every)
        and all(np.array_equal(*pair, equal_nan=True) for pair in zip(mine.every, theirs.every, strict=True))
        for mine, theirs in zip(one.predictors, other.predictors, strict=True)
    )


def _correct(figures: pd.DataFrame, same: Mapping[int, int], chief: int) -> None:
    """Holm's correction of each kind of difference over the rules of all cells that are no repetition of another.

    Kinds are: to each reference, to a rule's own control, to the reference cell.
    """
    control = figures["versus_condition"].isin((PERMUTED, CONDITIONAL))
    across = figures["versus_cell"].notna()
    kind = figures["versus"].where(~control, "own control").where(~across, "reference cell")
    tested = figures["role"].isin(_JUDGED) & (figures["condition"] == REAL) & (figures["versus"] != "")
    tested &= figures["p"].notna()
    for name in dict.fromkeys(kind[tested]):
        chosen = figures.index[tested & (kind == name) & ~figures["cell"].isin(list(same))]
        figures.loc[chosen, "p_adjusted"] = holm(figures.loc[chosen, "p"].tolist())
        for place, first in same.items():
            if name == "reference cell" and first == chief:
                continue
            for index in figures.index[tested & (kind == name) & (figures["cell"] == place)]:
                twin = figures.index[
                    tested
                    & (kind == name)
                    & (figures["cell"] == first)
                    & (figures["predictor"] == figures.at[index, "predictor"])
                ]
                if len(twin):
                    figures.at[index, "p_adjusted"] = figures.at[twin[0], "p_adjusted"]


def _warnings(result: StudyResult) -> list[str]:
    """Warnings of the cells, each once, with the cells that it concerns."""
    found: dict[str, list[str]] = {}
    for of in result.cells:
        if of.run is not None:
            lines = lines_of(of.record["assumptions"], of.record["diagnostics"])
            for line in (*lines, *of.record["protocol"]["sentences"]):
                if line.startswith(_WARNINGS):
                    found.setdefault(line, []).append(of.cell.name)
    done = sum(of.run is not None for of in result.cells)
    return [
        line if len(cells) == done else f"{'; '.join(dict.fromkeys(cells))}: {line}"
        for line, cells in found.items()
    ]
