"""Sentences about a run beside the primary answer: the 2D network, controls, further networks, complementarity."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..evaluate.intervals import LEVEL, chance_of
from ..evaluate.metrics import LOWER_IS_BETTER
from .arms import arms_remarks
from .findings import answers, effect_rule, primary_rule
from .nested import complementarity_words
from .words import (
    TITLES,
    better,
    bounds,
    complementarity_of_record,
    few_units,
    grouped,
    has_2d,
    is_intermediate,
    label,
    leading,
    names_of,
    number,
    p_value,
    ranked,
    to_reference,
    unit_of,
    units,
)


def verdict(record: dict[str, Any]) -> list[str]:
    """All that a run is said to show, in a sentence or two each; the first is the answer."""
    return [*answers(record), *remarks(record)]


def remarks(record: dict[str, Any]) -> list[str]:
    """What is said beside the primary answer and the effect size; of codes alone the answer first."""
    metric = leading(record)[0]
    answered = bool(answers(record))
    if not record["protocol"]["rows_covered"]:
        return [] if answered else ["No reported row has 3D: nothing was measured about it."]
    if units(record) == 1:
        if answered:
            return []
        what = "All reported rows are of one group" if grouped(record) else "One row is reported"
        return [f"{what}: there is no interval and no test, so nothing is said of what is added."]
    if is_intermediate(record):
        return [*arms_remarks(record), *_two_d(record)]
    pairs = complementarity_of_record(record)
    if names_of(record, "head"):
        best = next(iter(ranked(record, metric)), None)
        pairs = [pair for pair in pairs if best in pair[:2]]
        said = [_heads(record, metric)] if record["references"] else []
    elif record["references"]:
        said = [*_alone(record, metric), *_two_d(record), *_controls(record), *_second(record)]
    else:
        said = []
    return said + [complementarity_words(*pair, record["task"]) for pair in pairs[:3]]


def _alone(record: dict[str, Any], metric: str) -> list[str]:
    """Whether the rule of the effect size is better than the 3D alone as well."""
    name = effect_rule(record)
    if name not in record["rules"] or name == "3d":
        return []
    for part, where in (("all", ""), ("covered", " on the rows with 3D")):
        figures = record["results"][name][part]
        figure = figures[metric].get("minus_3d") if figures else None
        if figure and figure["low"] is not None:
            sign = -1 if metric in LOWER_IS_BETTER else 1
            ahead = all(sign * figure[key] > 0 for key in ("low", "high"))
            told = "is better than the 3D alone" if ahead else "is not better than the 3D alone beyond chance"
            return [f"{label(record, name)} {told}: {bounds(figure, metric)}{unit_of(metric)}{where}."]
    return []


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


def _controls(record: dict[str, Any]) -> list[str]:
    """Whether permuted codes gain over the references as well, in the metric of the primary comparison."""
    metric = record["primary"]["metric"]
    # A rule with another 2D network in place of the 3D (stack+NAME) is measured too, but promises no zero.
    controls = [name for name in names_of(record, "control") if "+" not in name]
    if not controls or few_units(record):
        return []
    off = [name for name in controls if _gains_by_interval(record, name, metric)]
    against = " and ".join(record["references"])
    if off:
        return [
            f"Controls (codes permuted) that lower or raise {TITLES[metric]} as a gain would, against {against}: "
            f"{', '.join(off)}. What they gain is not from the codes."
        ]
    if len(controls) == 1:
        return [f"The control (codes permuted) does not gain over {against}, as it should be."]
    return [f"Controls (codes permuted): none of {len(controls)} gains over {against}, as it should be."]


def _second(record: dict[str, Any]) -> list[str]:
    """What a further 2D network gains in place of the 3D, and how far the 3D is from it."""
    metric = record["primary"]["metric"]
    second = [name for name in names_of(record, "control") if "+" in name]
    gaining = [name for name in second if _gains_by_interval(record, name, metric)]
    gaining = [] if few_units(record) else gaining
    said = [f"A further 2D network in place of the 3D gains too: {', '.join(gaining)}."] if gaining else []
    rule = primary_rule(record)
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
        return f"{none} better than {prior} in {TITLES[metric]} beyond chance (adjusted p)."

    def said(names: list[str]) -> str:
        return " and ".join(
            f"{bounds(found[name], metric)} over {name} (adjusted p {p_value(found[name].get('p_adjusted'))})"
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
