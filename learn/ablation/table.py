"""Table of the results of all cells of a study, with paired differences of each cell to the reference cell.

Holm's correction is over all rules of all cells, separately for each reference. Cells with equal predictions are
counted once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ...errors import UsageError, one_of
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

_REFERENCE = "reference cell"
_TESTED_ROLES = ("rule", "head")


@dataclass(frozen=True, slots=True)
class StudyTable:
    """Results of all cells of a study in one metric.

    Attributes
    ----------
    metric : str
    rule : rule whose differences are shown, or rules if cells differ in it; None if the cells have no rule
    rules : names of references and rules, in order, without controls
    references : names of the references within each cell; the first is that of the heat map
    figures : DataFrame
        Columns: ``cell`` (position of the cell in the study), one column for each factor, those of
        :func:`~..evaluate.figures.figures_of`, and ``versus_cell`` (position of the cell with which the cell is
        compared; empty for differences within a cell). A predictor is measured on all reported rows, or on the rows
        with 3D if it predicts no others. ``p_adjusted`` is corrected over the study.
    remarks : cells without a difference to the reference cell, with reasons; and cells with equal predictions
    warnings : warnings of the runs, with the cells concerned
    rule_of : position of a cell -> rule whose differences are shown
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
        """Name and condition of the control of the rule, with permuted codes; None if the cells have no control."""
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
        """Result of a predictor in a cell, or its difference to another predictor or cell; None if there is none."""
        lines = self._lines(cell, predictor, condition)
        if versus_cell is None:
            if versus_condition is None:
                versus_condition = REAL if versus else ""
            chosen = lines["versus_cell"].isna() & (lines["versus"] == versus)
            chosen &= lines["versus_condition"] == versus_condition
        else:
            chosen = (lines["versus_cell"] == versus_cell).fillna(value=False)
        for values in lines.loc[chosen, list(Figure._fields)].itertuples(index=False, name=None):
            return Figure(*values)
        return None

    def _lines(self, cell: int, predictor: str, condition: str) -> pd.DataFrame:
        """Lines of one predictor in a cell."""
        of = self.figures
        return of[(of["cell"] == cell) & (of["predictor"] == predictor) & (of["condition"] == condition)]

    def to_control(self, cell: int, predictor: str) -> Figure | None:
        """The difference of a rule to its control, which is the rule with permuted codes."""
        for condition in (CONDITIONAL, PERMUTED):
            figure = self.find(cell, predictor, versus=predictor, versus_condition=condition)
            if figure is not None:
                return figure
        return None

    def marks(self, cell: int, predictor: str, condition: str = REAL) -> str:
        """``‡`` if the predictor is measured on covered rows only, else empty."""
        lines = self._lines(cell, predictor, condition)
        rows = lines.loc[lines["versus"] == "", "rows"]
        return ON_COVERED if len(rows) and rows.iloc[0] == "covered" else ""

    def claim(self, cell: int, predictor: str) -> Figure | None:
        """The difference with the largest p, of those of a rule to every reference and to its control, for its stars.

        None if one of these differences is not a gain, or if none was tested.
        """
        differences = [
            *(self.find(cell, predictor, versus=name) for name in self.references),
            self.to_control(cell, predictor),
        ]
        tested = [figure for figure in differences if figure is not None and math.isfinite(figure.p_adjusted)]
        if not tested or any(better_by(self.metric, figure.value) <= 0 for figure in tested):
            return None
        return max(tested, key=lambda figure: figure.p_adjusted)


def table_of(result: StudyResult) -> StudyTable:
    """Table of all cells that did not fail.

    Raises
    ------
    UsageError : the cells are of different tasks, the metric is not one of the task, or no cell has the rule.
    """
    done = [(position, cell) for position, cell in enumerate(result.cells) if cell.run is not None]
    columns = ["cell", *factor_columns(result), *COLUMNS, "versus_cell"]
    if not done:
        return StudyTable("accuracy", None, (), (), pd.DataFrame(columns=columns), ())
    tasks = {cell.record["task"] for _, cell in done}
    if len(tasks) > 1:
        raise UsageError(
            f"{result.study.name}: has cells for classes and cells for valence-arousal; divide the study"
        )
    task = tasks.pop()
    metric = result.study.metric or LEADING[task][0]
    if metric not in metric_names(task):
        raise UsageError(
            f"metric: {metric!r} is not a metric of the task {task}; choose {one_of(metric_names(task))}"
        )
    predictions = {position: cell.predictions() for position, cell in done}
    within = [_within(result, position, metric) for position, _ in done]
    values = pd.concat(within, ignore_index=True)
    values = values[(values["versus"] == "") & (values["condition"] == REAL)]
    rules = list(dict.fromkeys(values["predictor"][values["role"].isin(_TESTED_ROLES)]))
    names = [*dict.fromkeys(values["predictor"][values["role"] == "reference"]), *rules]
    rule_of = {position: rule for position, _ in done if (rule := _rule_of(result, position, values))}
    for rule in rule_of.values():
        if rule not in names:
            raise UsageError(f"rule: no cell has the rule {rule!r}; choose among {', '.join(names)}")
    across, remarks = _across(result, metric, task, predictions, rule_of)
    figures = pd.concat([*within, *across], ignore_index=True)[columns].astype({"versus_cell": "Int64"})
    figures = figures.sort_values("cell", kind="stable", ignore_index=True)
    rule = " and ".join(dict.fromkeys(rule_of.values())) or None
    references = tuple(dict.fromkeys(name for _, cell in done for name in cell.record["references"]))
    same = same_cells(predictions)
    _correct(figures, same, result.study.reference_cell)
    cell_names = [cell.cell.name for cell in result.cells]
    for first in dict.fromkeys(same.values()):
        equal = ", ".join(cell_names[position] for position in same if same[position] == first)
        remarks.append(
            f"{equal}: the same predictions as {cell_names[first]}, and counted once in Holm's correction."
        )
    return StudyTable(
        metric, rule, tuple(names), references, figures, tuple(remarks), tuple(_warnings(result)), rule_of
    )


def _rule_of(result: StudyResult, position: int, values: pd.DataFrame) -> str | None:
    """The rule of a cell whose differences are shown: that of the study, else ``stack``, else the first."""
    rules = list(values["predictor"][(values["cell"] == position) & values["role"].isin(_TESTED_ROLES)])
    of_study = result.study.rule_of(result.study.cells[position].run)
    return of_study or ("stack" if "stack" in rules else next(iter(rules), None))


def factor_columns(result: StudyResult) -> dict[str, str]:
    """Name of the column -> factor; a factor with the name of another column gets a suffix."""
    taken = {*COLUMNS, "cell", "versus_cell", "error"}
    return {(f"{name} (factor)" if name in taken else name): name for name in result.study.grid}


def _labels(result: StudyResult, position: int) -> dict[str, str]:
    labels = result.cells[position].cell.labels
    return {column: labels[name] for column, name in factor_columns(result).items()}


def _within(result: StudyResult, position: int, metric: str) -> pd.DataFrame:
    """Lines of a cell in one metric; without the ``p_adjusted`` of its run."""
    run = result.cells[position].run
    assert run is not None  # the cell did not fail
    lines = run.figures[(run.figures["metric"] == metric) & run.figures["repeat"].isna()]
    on_all_rows = set(
        lines.loc[lines["rows"] == "all", ["predictor", "condition"]].itertuples(index=False, name=None)
    )
    keys = list(lines[["predictor", "condition"]].itertuples(index=False, name=None))
    part = np.array(["all" if key in on_all_rows else "covered" for key in keys], object)
    return lines[lines["rows"].to_numpy() == part].assign(
        p_adjusted=math.nan,
        cell=position,
        versus_cell=None,
        **_labels(result, position),
    )  # fmt: skip


def _across(
    result: StudyResult,
    metric: str,
    task: str,
    predictions: Mapping[int, ReportedPredictions],
    rule_of: Mapping[int, str],
) -> tuple[list[pd.DataFrame], list[str]]:
    """Differences of each predictor to that of the reference cell, and remarks on cells without differences.

    The rule of a cell is compared with the rule of the reference cell, even if these rules differ.
    """
    reference_cell = result.study.reference_cell
    others = [position for position in predictions if position != reference_cell]
    if not others:
        return [], []
    if reference_cell not in predictions:
        return [], [
            f"The reference cell {result.cells[reference_cell].cell.name} failed: no cell is compared with it."
        ]
    reference = predictions[reference_cell]
    reference_name = result.cells[reference_cell].cell.name
    remarks, paired = [], []
    for position in others:
        if reason := unlike(reference, predictions[position]):
            name = result.cells[position].cell.name
            remarks.append(f"{name} has no difference relative to {reference_name}: {reason}.")
        else:
            paired.append(position)
    record = result.cells[reference_cell].record
    tables = []
    for predictor in reference.predictors:
        if not predictor.present.all():
            continue
        compared: dict[int, Predictor] = {}
        for position in paired:
            rules = rule_of.get(reference_cell), rule_of.get(position)
            other = _compared_with(predictor, predictions[position].predictors, rules)
            if other is not None and other.present.all():
                compared[position] = other
        if not compared:
            continue
        figures = figures_of(
            (
                _renamed(predictor, _REFERENCE, "reference"),
                *(_renamed(other, str(position), "rule") for position, other in compared.items()),
            ),
            reference.truth,
            np.ones(len(reference.ids), bool),
            groups_of_runs(reference, *(predictions[position] for position in compared)),
            task=task,
            draws=record["config"]["draws"],
            seed=seed_of(record),
            references=(_REFERENCE,),
        )
        lines = figures[
            (figures["metric"] == metric) & (figures["versus"] == _REFERENCE) & figures["repeat"].isna()
        ]
        for line in lines.to_dict("records"):
            position = int(line["predictor"])
            line |= {
                "predictor": compared[position].name,
                "role": compared[position].role,
                "condition": predictor.condition,
                "versus": predictor.name,
                "versus_condition": predictor.condition,
                "cell": position,
                "versus_cell": reference_cell,
                **_labels(result, position),
            }
            tables.append(pd.DataFrame([line]))
    return tables, remarks


def _compared_with(
    predictor: Predictor, predictors: Sequence[Predictor], rules: tuple[str | None, str | None]
) -> Predictor | None:
    """The predictor of a cell that is compared with this predictor of the reference cell.

    ``rules`` are the rules of the reference cell and of the cell, which are compared with each other.
    """
    reference_rule, cell_rule = rules
    if predictor.key == (reference_rule, REAL):
        return find(predictors, cell_rule or predictor.name)
    if predictor.key == (cell_rule, REAL):
        return None  # the rule of the cell is already compared with the rule of the reference cell
    return find(predictors, *predictor.key)


def _renamed(predictor: Predictor, name: str, role: str) -> Predictor:
    return replace(predictor, name=name, role=role, condition=REAL, fits=True, fitted=())


def same_cells(predictions: Mapping[int, ReportedPredictions]) -> dict[int, int]:
    """Position of a cell -> position of the first cell with the same rows, predictors and values, if it is another."""
    same: dict[int, int] = {}
    for position, of_cell in predictions.items():
        for first in predictions:
            if first == position:
                break
            if first not in same and _equal(predictions[first], of_cell):
                same[position] = first
                break
    return same


def _equal(first: ReportedPredictions, second: ReportedPredictions) -> bool:
    """Whether two cells have the same rows, predictors and values."""
    keys = [[predictor.key for predictor in cell.predictors] for cell in (first, second)]
    if keys[0] != keys[1] or unlike(first, second):
        return False
    return all(
        len(mine.every) == len(other.every)
        and all(np.array_equal(*pair, equal_nan=True) for pair in zip(mine.every, other.every, strict=True))
        for mine, other in zip(first.predictors, second.predictors, strict=True)
    )


def _correct(figures: pd.DataFrame, same: Mapping[int, int], reference_cell: int) -> None:
    """Set ``p_adjusted`` by Holm's correction over the rules of all cells, for each kind of difference.

    Kinds are differences to each reference, to the control of a rule, and to the reference cell. Cells in ``same`` are
    not counted, and get the p of the cell that they repeat.
    """
    control = figures["versus_condition"].isin((PERMUTED, CONDITIONAL))
    across = figures["versus_cell"].notna()
    kind = figures["versus"].where(~control, "own control").where(~across, "reference cell")
    tested = figures["role"].isin(_TESTED_ROLES) & (figures["condition"] == REAL) & (figures["versus"] != "")
    tested &= figures["p"].notna()
    for name in dict.fromkeys(kind[tested]):
        of_kind = tested & (kind == name)
        counted = figures.index[of_kind & ~figures["cell"].isin(list(same))]
        figures.loc[counted, "p_adjusted"] = holm(figures.loc[counted, "p"].tolist())
        for position, first in same.items():
            if name == "reference cell" and first == reference_cell:
                continue
            for line in figures.index[of_kind & (figures["cell"] == position)]:
                same_predictor = figures["predictor"] == figures.at[line, "predictor"]
                original = figures.index[of_kind & (figures["cell"] == first) & same_predictor]
                if len(original):
                    figures.at[line, "p_adjusted"] = figures.at[original[0], "p_adjusted"]


def _warnings(result: StudyResult) -> list[str]:
    """Warnings of the runs, each once, with the names of its cells if it does not concern all of them."""
    cells_of: dict[str, list[str]] = {}
    for cell in result.cells:
        if cell.run is not None:
            lines = lines_of(cell.record["assumptions"], cell.record["diagnostics"])
            for line in (*lines, *cell.record["protocol"]["sentences"]):
                if line.startswith("WARNING"):
                    cells_of.setdefault(line, []).append(cell.cell.name)
    done = sum(cell.run is not None for cell in result.cells)
    return [
        line if len(cells) == done else f"{'; '.join(dict.fromkeys(cells))}: {line}"
        for line, cells in cells_of.items()
    ]
