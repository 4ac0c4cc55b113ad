"""The evaluation plan in sentences, for the terminal, the page and the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .plan import EvaluationPlan


def sentences_of(plan: EvaluationPlan) -> list[str]:
    """Reported rows, rows that rules are fitted on, and source of the 3D predictions."""
    facts, rows = plan.facts, len(plan.reported)
    if facts.get("heads_alone"):
        return [
            f"Reported: {plan.report_name}, {rows} rows, {facts['covered']} of them with 3D codes.",
            f"Heads fitted on {plan.fit_name}, {facts['train']} rows with codes."
            if facts["train"]
            else f"Heads fitted on {plan.fit_name}: each row is predicted by a head that never saw it"
            + (", nor its group." if facts["grouped"] else "."),
        ]
    lines = [
        f"Reported: {plan.report_name}, {rows} rows, {facts['covered']} of them with {facts['three_d']}.",
        _rules(plan),
        _head(plan),
    ]
    if facts["declared"]:
        lines.append(f"2D predictions of the train split were declared out of fold by {facts['declared']}.")
    return lines


def _rules(plan: EvaluationPlan) -> str:
    """Rows that rules are fitted on."""
    facts = plan.facts
    fitted, partly = facts["calibration_covered"], facts["calibration_covered"] < facts["calibration"]
    rules = "Rules fitted" if facts["rules_fit"] else "Rules fit nothing; 2d-recalibrated is fitted"
    if not facts["folded"]:
        rows = (
            f"{fitted} of {facts['calibration']} rows: the others have no {facts['three_d']}."
            if partly
            else f"{fitted} rows."
        )
        return f"{rules} on the {plan.fit_name} split, {rows}"
    # Ready 3D predictions of one fold may come from a model that was fitted on the others.
    apart = (
        "no row is fused by rules fitted on it"
        if plan.case == "ready"
        else "each row is fused by parameters that never saw it"
    )
    rows = f", on the {fitted} rows with {facts['three_d']}: " if partly else ": "
    return f"{rules} on {plan.fit_name}{rows}{apart}{', nor its group' if facts['grouped'] else ''}."


def _head(plan: EvaluationPlan) -> str:
    """Source of the 3D predictions, and which of them rules are fitted to."""
    facts = plan.facts
    if plan.case == "ready":
        return "3D predictions are taken as given: which rows they were learnt from is not known here."
    if plan.case == "once":
        return f"The head on the codes was fitted once, on {facts['train']} train rows, and never refitted."
    if plan.case == "nested":
        why = "No train rows are left for the head" if facts["has_train"] else "There is no train split"
        inner = ", and the rules see its inner out-of-fold predictions" if facts["rules_fit"] else ""
        return f"{why}: in each fold the head is fitted on the other folds{inner}."
    if not facts["rules_fit"]:
        return f"The head on the codes was fitted on the {plan.fit_name} rows."
    return (
        f"Rules see the head's out-of-fold predictions of the {plan.fit_name} rows; for the reported rows the head is "
        "refitted on all of them."
    )
