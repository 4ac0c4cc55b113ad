"""What a run says in words: what a rule adds, whether that is from the 3D, and what its controls did.

record -> sentences, for the terminal and the page alike. A rule adds something where it is better than every reference
and than itself with permuted codes: what the same rule gains from codes of other faces is not from the 3D.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..measures.complementarity import complementarity_words
from ..measures.intervals import LEVEL, chance_of
from ..measures.metrics import LOWER_IS_BETTER
from ..measures.results import control_of
from .arms import arms_verdict
from .words import (
    FITTED_FOR,
    LEADING,
    MARKED,
    TITLES,
    beats_references,
    better,
    bounds,
    complementarity_of_record,
    few_units,
    gains,
    grouped,
    has_2d,
    is_intermediate,
    label,
    least_gain,
    names_of,
    number,
    objective_of,
    p_value,
    ranked,
    to_control,
    to_reference,
    unit_of,
    units,
)


def verdict(record: dict[str, Any]) -> list[str]:
    """What the run says, in a sentence or two each; the first is the answer."""
    metric = LEADING[record["task"]][0]
    if not record["protocol"]["rows_covered"]:
        return ["No reported row has 3D: nothing was measured about it."]
    if units(record) == 1:
        what = "All reported rows are of one group" if grouped(record) else "One row is reported"
        return [f"{what}: there is no interval and no test, so nothing is said of what is added."]
    if is_intermediate(record):
        return [*arms_verdict(record), *_two_d(record)]
    pairs = complementarity_of_record(record)
    if names_of(record, "head"):
        best = next(iter(ranked(record, metric)), None)
        pairs = [pair for pair in pairs if best in pair[:2]]
        said = [_heads(record, metric)] if record["references"] else []
    elif record["references"]:
        said = [
            *_answer(record, metric),
            *_objective(record, metric),
            *_two_d(record),
            *_controls(record, metric),
            *_second(record, metric),
        ]
    else:
        said = []
    return said + [complementarity_words(*pair, record["task"]) for pair in pairs[:3]]


def headline_rule(record: dict[str, Any]) -> str | None:
    """The rule that the answer is about: ``best`` where it was asked for, else the one that gains most."""
    metric = LEADING[record["task"]][0]
    names = ranked(record, metric)
    if "best" in names:
        return "best"
    for asked in (gains, beats_references):
        found = [name for name in names if asked(record, name, metric)]
        if found:
            return max(found, key=lambda name: abs(least_gain(record, name, metric)[1]["value"]))  # type: ignore[index]
    return None


def _answer(record: dict[str, Any], metric: str) -> list[str]:
    """What the rule of the headline adds, where it was picked, who else does, and what the 3D alone is worth."""
    names = ranked(record, metric)
    against = " and ".join(record["references"])
    chosen = headline_rule(record)
    marked = _marked(record)
    if chosen is None:
        who = (
            f"None of {len(names)} is"
            if len(names) > 1
            else f"{label(record, names[0])} is not"
            if names
            else ""
        )
        said = f"{who} better than {against} in {TITLES[metric]} beyond chance (Holm's correction)."
        return [said + marked] if names else []
    said = _of_rule(record, chosen, metric)
    if chosen == "best" and record["protocol"]["fitted_on_reported"]:
        said += " It was chosen on the reported rows."
    elif chosen == "best":
        said += " It was chosen on the rows that rules are fitted on, never on those it is measured on."
    elif len(names) > 1:
        said += f" {chosen} was picked out of {len(names)} rules on the reported rows, which flatters it."
    also = [label(record, name) for name in names if name != chosen and gains(record, name, metric)]
    if also:
        said += f" Also better: {', '.join(also)}."
    return [said + marked, *_alone(record, chosen, metric)]


def _marked(record: dict[str, Any]) -> str:
    return (
        f" {MARKED} fitted on the very rows that are reported."
        if record["protocol"]["fitted_on_reported"]
        else ""
    )


def _of_rule(record: dict[str, Any], name: str, metric: str) -> str:
    """Whether one rule adds something, and whether the codes brought it."""
    unit = unit_of(metric)
    told = label(record, name)
    found = least_gain(record, name, metric)
    if found is None:
        return f"{told} has no difference to {' and '.join(record['references'])}."
    reference, figure = found
    gain = f"{bounds(figure, metric)}{unit}"
    p = f"(Holm's p {p_value(figure.get('p_holm'))})"
    if not better(figure, metric):
        return f"{told} is not better than {reference} beyond chance: {gain} {p}."
    control = to_control(record, name, metric)
    if control is None and control_of(name, record["rules"]) is not None:
        return f"{told} gains {gain} over {reference} {p}; the record is of an earlier ig3d and lacks its control."
    if control is None:
        return (
            f"{told} adds {gain} to {reference} {p}. No control was run: nothing here says that the gain is from the "
            "3D."
        )
    over = f"{bounds(control, metric)} (Holm's p {p_value(control.get('p_holm'))})"
    if better(control, metric):
        return f"{told} adds {gain} to {reference} {p}, and {over} to itself with permuted codes."
    return (
        f"{told} gains {gain} over {reference} {p}, but no more than with permuted codes: the difference to those is "
        f"{over}. What it gains is not from the 3D."
    )


def _alone(record: dict[str, Any], name: str, metric: str) -> list[str]:
    """Whether the rule that adds something is better than the 3D alone as well."""
    if not gains(record, name, metric):
        return []
    for part, where in (("all", ""), ("covered", " on the rows with 3D")):
        figures = record["results"][name][part]
        figure = figures[metric].get("minus_3d") if figures else None
        if figure:
            told = "is better than the 3D alone too"
            if not better(figure, metric):
                told = "is not better than the 3D alone beyond chance"
            return [
                f"{label(record, name)} {told}: {bounds(figure, metric)}{unit_of(metric)}{where} "
                f"(Holm's p {p_value(figure.get('p_holm'))})."
            ]
    return []


def _objective(record: dict[str, Any], metric: str) -> list[str]:
    """That rules were fitted for another metric than the one that is spoken of."""
    objective = objective_of(record)
    fitted = any(record["rules"][name]["fits"] for name in names_of(record, "rule"))
    if metric.startswith(objective) or not fitted:
        return []
    return [f"All that is said here is of {TITLES[metric]}; rules were fitted for {FITTED_FOR[objective]}."]


def _two_d(record: dict[str, Any]) -> list[str]:
    """That the 2D network is at chance or cannot be told from it, or has nothing left to add to."""
    figures = record["results"]["2d"]["all"] if has_2d(record) else None
    if not figures:
        return []
    classes = record["task"] == "classes"
    if figures["accuracy"]["value"] == 1 if classes else figures["rmse_joint"]["value"] == 0:
        return ["The 2D network is right in every row: nothing can be added to it."]
    told = _chance_of_classes(figures) if classes else _chance_of_values(figures)
    if told is None:
        return []
    above, words = told
    if not above:
        return [f"The 2D network is at chance: {words}. What is added to it is what the 3D tells alone."]
    return [
        f"The 2D network cannot be told from chance on {figures['rows']} rows: {words}. What is added to it may be "
        "what the 3D tells alone."
    ]


def _chance_of_classes(figures: dict[str, Any]) -> tuple[bool, str] | None:
    """Whether answers are right more often than by chance, where that is not beyond doubt, and in words.

    Measured against the same answers dealt out at random, so that a network may be trained for accuracy or for recall.
    """
    confusion = np.array(figures["confusion"])
    share, p = chance_of(confusion)
    if p < 1 - LEVEL or (confusion.sum(axis=1) > 0).sum() < 2:
        return None
    mine = figures["accuracy"]["value"]
    dealt = f"where its answers dealt out at random are right in {100 * share:.2f} %"
    words = f"{number(mine, 'accuracy')} % right, {dealt}"
    return (True, f"{words} (p {p_value(p)})") if mine > share + 1e-9 else (False, words)


def _chance_of_values(figures: dict[str, Any]) -> tuple[bool, str] | None:
    """The same of valence and arousal: whether their CCC is above 0, where its interval is not."""
    ccc = figures["ccc_joint"]
    if ccc["value"] is None or (ccc["value"] > 0 and (ccc["low"] is None or ccc["low"] > 0)):
        return None
    value, low, high = (number(ccc[key], "ccc_joint") for key in ("value", "low", "high"))
    return (
        (True, f"its CCC is {value} [{low}, {high}]") if ccc["value"] > 0 else (False, f"its CCC is {value}")
    )


def _controls(record: dict[str, Any], metric: str) -> list[str]:
    """Whether permuted codes gain over the references as well."""
    # A rule with another 2D network in place of the 3D (stack+NAME) is measured too, but promises no zero.
    controls = [name for name in names_of(record, "control") if "+" not in name]
    if not controls or few_units(record):
        return []
    off = [name for name in controls if _gains_by_interval(record, name, metric)]
    against = " and ".join(record["references"])
    if off:
        return [
            f"Controls (codes permuted) that gain over {against} as well: {', '.join(off)}. What they gain, the codes "
            "did not bring."
        ]
    if len(controls) == 1:
        return [f"The control (codes permuted) does not gain over {against}, as it should be."]
    return [f"Controls (codes permuted): none of {len(controls)} gains over {against}, as it should be."]


def _second(record: dict[str, Any], metric: str) -> list[str]:
    """What a further 2D network gains in place of the 3D, and how far the 3D is from it."""
    second = [name for name in names_of(record, "control") if "+" in name]
    gaining = [name for name in second if _gains_by_interval(record, name, metric)]
    gaining = [] if few_units(record) else gaining
    said = [f"A further 2D network in place of the 3D gains too: {', '.join(gaining)}."] if gaining else []
    rule = headline_rule(record) or "stack"
    rule = rule if any(name.startswith(f"{rule}+") for name in second) else "stack"
    for name in second:
        figures = record["results"].get(rule, {}).get("all")
        figure = figures[metric].get(f"minus_{name}".replace("-", "_")) if figures else None
        if figure and name.startswith(f"{rule}+"):
            said.append(
                f"{label(record, rule)} minus {name} (the 3D minus that network in its place): {bounds(figure, metric)}"
                f"{unit_of(metric)} (p {p_value(figure.get('p'))})."
            )
    return said


def _heads(record: dict[str, Any], metric: str) -> str:
    """Codes alone: the best head, against what it was compared with."""
    names = ranked(record, metric)
    if not names:
        return "No head predicts every reported row."
    best = names[0]
    prior = record["references"][0]
    figures = record["results"][best]["all"][metric]
    found = {
        reference: figure
        for reference in record["references"]
        if reference != best and (figure := figures.get(f"minus_{reference}".replace("-", "_")))
    }
    if prior in found and not better(found[prior], metric):
        none = f"None of {len(names)} heads is" if len(names) > 1 else f"{best} is not"
        return f"{none} better than {prior} in {TITLES[metric]} beyond chance (Holm's correction)."

    def said(names: list[str]) -> str:
        return " and ".join(
            f"{bounds(found[name], metric)} over {name} (Holm's p {p_value(found[name].get('p_holm'))})"
            for name in names
        )

    ahead = [name for name in found if better(found[name], metric)]
    rest = [name for name in found if name not in ahead]
    picked = f", the best of {len(names)} heads on the reported rows," if len(names) > 1 else ""
    told = [f"gains {said(ahead)}"] if ahead or not rest else []
    told += [f"is not better than {' and '.join(rest)} beyond chance: {said(rest)}"] if rest else []
    return f"{best}{picked} {', but '.join(told)}: differences in {TITLES[metric]}."


def _gains_by_interval(record: dict[str, Any], name: str, metric: str) -> bool:
    """Whether the whole intervals of a rule's differences to every reference are on the better side."""
    part = record["results"][name]["all"]
    found = [to_reference(part, metric, reference) for reference in record["references"]]
    defined = [figure for figure in found if figure and figure["low"] is not None]
    side = (lambda of: of["high"] < 0) if metric in LOWER_IS_BETTER else (lambda of: of["low"] > 0)
    return bool(defined) and all(map(side, defined))
