"""The evaluation plan in sentences, for the page and the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import plural
from .fold_models import NESTED, NO_HEAD, ONCE

if TYPE_CHECKING:
    from .plan import EvaluationPlan


def sentences_of(plan: EvaluationPlan) -> list[str]:
    """Reported rows, rows that rules are fitted on, and source of the 3D predictions."""
    facts, rows = plan.facts, len(plan.reported)
    three = facts.get("three_d", "3D codes")
    lines = [
        f"Results are for {plan.report_name}: {plural(rows, 'row')}, {facts['covered']} of them with {three}."
    ]
    if facts.get("heads_alone"):
        return [*lines, _heads_alone(plan)]
    lines += [_rules(plan), _head(plan)]
    if facts["declared"]:
        lines.append(f"2D predictions of the train split were declared out of fold {facts['declared']}.")
    return lines


def _heads_alone(plan: EvaluationPlan) -> str:
    facts = plan.facts
    if facts["train"]:
        return f"Heads are fitted on the {plural(facts['train'], 'row')} with codes of {plan.fit_name}."
    group = ", and on no row of its group" if facts["grouped"] else ""
    return f"Heads are cross-fitted in {plan.fit_name}: no row is predicted by a head fitted on it{group}."


def _rules(plan: EvaluationPlan) -> str:
    """Rows that rules are fitted on."""
    facts = plan.facts
    fitted = facts["calibration_covered"]
    partly = fitted < facts["calibration"]
    rules = "Rules are" if facts["rules_fit"] else "The rules have no fitted parameters; 2d-recalibrated is"
    if not facts["folded"]:
        rows = (
            f"the {fitted} of {plural(facts['calibration'], 'row')} with {facts['three_d']} of {plan.fit_name}"
            if partly
            else f"the {plural(fitted, 'row')} of {plan.fit_name}"
        )
        return f"{rules} fitted on {rows}."
    with_three = f", on the {plural(fitted, 'row')} with {facts['three_d']}" if partly else ""
    group = ", and on no row of its group" if facts["grouped"] else ""
    # Ready 3D predictions of one fold may come from a model that was fitted on the others.
    models = "rules" if plan.head_fitting == NO_HEAD else "parameters"
    return (
        f"{rules} cross-fitted in {plan.fit_name}{with_three}: "
        f"no row is predicted with {models} fitted on it{group}."
    )


def _head(plan: EvaluationPlan) -> str:
    """Source of the 3D predictions, and which of them rules are fitted on."""
    facts = plan.facts
    if plan.head_fitting == NO_HEAD:
        return "3D predictions come from a file: the rows on which their model was trained are unknown."
    if plan.head_fitting == ONCE:
        return (
            f"The head on the codes is fitted once, on the {plural(facts['train'], 'train row')} with codes."
        )
    if plan.head_fitting == NESTED:
        why = "No train rows are left for the head" if facts["has_train"] else "There is no train split"
        inner = "; rules are fitted on its inner out-of-fold predictions" if facts["rules_fit"] else ""
        return f"{why}: in each fold, the head is fitted on the other folds{inner}."
    if not facts["rules_fit"]:
        return f"The head on the codes is fitted on {plan.fit_name}."
    return (
        f"Rules are fitted on out-of-fold predictions of the head on {plan.fit_name}; for the reported rows, the "
        "head is refitted on all of them."
    )
