"""Names, numbers and the questions of a record that every form of a report shares."""

from __future__ import annotations

from typing import Any

from ..config import OBJECTIVES
from ..evaluate.intervals import FEW_UNITS
from ..evaluate.metrics import LOWER_IS_BETTER, metric_names
from ..rules import RECALIBRATED
from .nested import difference_key

HEADS = {
    "accuracy": "acc",
    "balanced_accuracy": "bal",
    "macro_f1": "F1",
    "log_loss": "loss",
    "brier": "Brier",
    "rmse_valence": "RMSE V",
    "rmse_arousal": "RMSE A",
    "rmse_joint": "RMSE VA",
    "ccc_valence": "CCC V",
    "ccc_arousal": "CCC A",
    "ccc_joint": "CCC VA",
}
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "log_loss": "log loss",
    "brier": "Brier score",
    "rmse_valence": "RMSE of valence",
    "rmse_arousal": "RMSE of arousal",
    "rmse_joint": "RMSE of both",
    "ccc_valence": "CCC of valence",
    "ccc_arousal": "CCC of arousal",
    "ccc_joint": "CCC of both",
}
PERCENT = frozenset({"accuracy", "balanced_accuracy", "macro_f1"})
# The metrics of papers, whose differences are shown; those of valence and arousal by what rules are fitted for.
LEADING = {"classes": ("accuracy", "macro_f1"), "va": ("ccc_joint", "rmse_joint")}
# What rules are fitted for, in the words of the metrics.
FITTED_FOR = {
    "accuracy": "accuracy",
    "balanced": "balanced accuracy",
    "logloss": "log loss",
    "rmse": "RMSE",
    "ccc": "CCC",
}
LEVELS = (0.05, 0.01, 0.001)
MARKED, ON_COVERED = "†", "‡"
# Differences of a rule that are measured beside those to the references.
OPPONENTS = ("minus_control", "minus_3d")


def number(value: float | None, metric: str) -> str:
    """A figure as it stands in a table: per cent with two digits, else four."""
    if value is None:
        return "–"
    return f"{100 * value:.2f}" if metric in PERCENT else f"{value:.4f}"


def difference(value: float | None, metric: str) -> str:
    """A difference with its sign: points with one digit, else four."""
    if value is None:
        return "–"
    scale, digits = (100, 1) if metric in PERCENT else (1, 4)
    return f"{round(scale * value, digits) + 0.0:+.{digits}f}"  # adding zero turns a rounded -0.0 into 0.0


def bounds(figure: dict[str, Any] | None, metric: str) -> str:
    """``+1.4 [+0.6, +2.2]``; a dash where a difference, or its interval, is not defined."""
    if not figure or figure["value"] is None:
        return "–"
    value, low, high = (difference(figure[key], metric) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]" if figure["low"] is not None else f"{value} [–]"


def unit_of(metric: str) -> str:
    """What follows a difference in a sentence, with the space before it."""
    return " points of accuracy" if metric == "accuracy" else f" {TITLES[metric]}"


def stars(figure: dict[str, Any] | None, metric: str) -> str:
    """``*``, ``**``, ``***``: a gain whose adjusted p is below .05, .01, .001; none where it rounds to nothing."""
    if not figure or not better(figure, metric) or not float(difference(figure["value"], metric)):
        return ""
    return "*" * sum(figure["p_adjusted"] < level for level in LEVELS)


def leading(record: dict[str, Any]) -> tuple[str, ...]:
    """The metrics whose differences are shown, that of the effect size first."""
    metrics = LEADING[record["task"]]
    if record["task"] == "va" and not is_intermediate(record) and objective_of(record) == "rmse":
        return tuple(reversed(metrics))
    return metrics


def label(record: dict[str, Any], name: str) -> str:
    """A rule's name, with the mark of what was fitted on the reported rows."""
    return name + (MARKED if record["rules"][name]["fitted_on_reported"] else "")


def names_of(record: dict[str, Any], *kinds: str) -> list[str]:
    """Rules of some kinds, in the order of the table."""
    return [name for name, rule in record["rules"].items() if rule["kind"] in kinds]


def fitted_here(record: dict[str, Any]) -> str:
    """What is fitted on which rows, in words; only the reference is where no rule fits anything."""
    fit = any(record["rules"][name]["fits"] for name in names_of(record, "rule"))
    who = ("rules" if fit else RECALIBRATED) if has_2d(record) else "heads"
    return f"{who} fitted on {record['protocol']['fitted_on']}"


def shown_part(record: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A rule's figures: of all reported rows, or of those with 3D for one that predicts no others."""
    parts = record["results"][name]
    return parts["all"] or parts["covered"] or None


def label_in_full(record: dict[str, Any], name: str) -> str:
    """A rule's name with both marks: fitted on the reported rows, measured on those with 3D only."""
    return label(record, name) + ON_COVERED * (record["results"][name]["all"] is None)


def ordered(record: dict[str, Any]) -> list[str]:
    """References, then rules and heads, then controls."""
    return [*names_of(record, "reference"), *names_of(record, "rule", "head"), *names_of(record, "control")]


def to_reference(figures: dict[str, Any] | None, metric: str, reference: str) -> dict[str, Any] | None:
    """The difference of one part's figures to a reference, if there is one."""
    return figures[metric].get(difference_key(reference)) if figures else None


def better(figure: dict[str, Any] | None, metric: str) -> bool:
    """Whether a difference is on the better side by its adjusted p."""
    if not figure or figure["value"] is None or figure.get("p_adjusted") is None:
        return False
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return bool(sign * figure["value"] > 0 and figure["p_adjusted"] < LEVELS[0])


def to_control(record: dict[str, Any], name: str, metric: str) -> dict[str, Any] | None:
    """The difference of a rule to the same rule with permuted codes; None where that was not run."""
    part = record["results"][name]["all"]
    return part[metric].get("minus_control") if part else None


def ranked(record: dict[str, Any], metric: str) -> list[str]:
    """Rules and heads from the best figure to the worst, of those that predict every reported row."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    names = [name for name in names_of(record, "rule", "head") if record["results"][name]["all"]]
    values = {name: record["results"][name]["all"][metric]["value"] for name in names}
    return sorted(
        (name for name in names if values[name] is not None),
        key=lambda name: sign * values[name],
        reverse=True,
    )


def p_value(p: float | None) -> str:
    """A p-value with two digits, or what it is below; more where these would put it on the other side of a level."""
    if p is None:
        return "–"
    if p < 1e-4:
        return "< .0001"
    if p >= 1:
        return "1"
    # rounding may reach a level, but not pass one
    rounded = (f"{p:.{digits}g}" for digits in range(2, 18))
    said = next(text for text in rounded if p in LEVELS or float(text) not in LEVELS)
    return said.replace("0.", ".", 1)


def warnings_of(record: dict[str, Any]) -> list[str]:
    """What makes figures mean less than they seem to; what likely makes them too good leads."""
    return [line for line in (*leaks(record), *record["assumptions"]) if line.startswith("WARNING")]


def leaks(record: dict[str, Any]) -> list[str]:
    """Warnings of the protocol: who may have seen what of the reported rows."""
    return [line for line in record["protocol"]["sentences"] if line.startswith("WARNING")]


def leaks_in_words(record: dict[str, Any]) -> str:
    """The same as sentences of a text, without what to do about it; each after a space."""
    told = (line.removeprefix("WARNING ").partition("; ")[0].rstrip(".") for line in leaks(record))
    return "".join(f" {line[:1].upper()}{line[1:]}." for line in told)


def grouped(record: dict[str, Any]) -> bool:
    """Whether groups are resampled and swapped in place of rows."""
    return record["protocol"]["groups_reported"] is not None


def units(record: dict[str, Any]) -> int:
    """How many rows or groups are resampled and swapped."""
    protocol = record["protocol"]
    return int(protocol["groups_reported"] if grouped(record) else protocol["rows_reported"])


def few_units(record: dict[str, Any]) -> bool:
    """Whether intervals are over so few rows or groups that nothing is to be said of them."""
    return units(record) <= FEW_UNITS


def is_intermediate(record: dict[str, Any]) -> bool:
    """Whether the codes were joined to a network's features: an arm of the comparison is then a rule."""
    return bool(record["protocol"]["case"] == "intermediate")


def objective_of(record: dict[str, Any]) -> str:
    """What rules were fitted for: accuracy, balanced or logloss; rmse or ccc."""
    return str(record["config"].get("objective") or OBJECTIVES[record["task"]][0])


def trainings(record: dict[str, Any]) -> int:
    """How often each arm of an intermediate fusion was trained; 1 for all else."""
    return len(record["config"].get("seeds") or [0])


def over_seeds(figure: dict[str, Any] | None, metric: str) -> str:
    """``+9.1 … +12.3``: a difference in the training where it is least, and where it is most."""
    values = [value for value in (figure or {}).get("seeds", ()) if value is not None]
    if not values:
        return "–"
    return f"{difference(min(values), metric)} … {difference(max(values), metric)}"


def has_2d(record: dict[str, Any]) -> bool:
    """Whether there is a 2D network that something is added to; else codes alone were measured."""
    return "2d" in record["rules"]


def complementarity_of_record(record: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(first, second, measures) of every pair of single predictors."""
    return [
        (first, second, measures)
        for second, parts in record["results"].items()
        if parts["covered"]
        for first, measures in parts["covered"].get("complementarity", {}).items()
    ]


def measure(key: str, first: str, second: str) -> str:
    """A measure of :mod:`..evaluate.complementarity` in words, for a pair."""
    if key.startswith(("first_alone", "both_linear", "gain_linear", "error_correlation")):
        kind, _, part = key.rpartition("_")
        text = {
            "error_correlation": "correlation of the errors",
            "first_alone": f"least RMSE of {first}, recalibrated on these rows",
            "both_linear": f"least RMSE of {first} and {second}, linear on these rows",
            "gain_linear": f"the most that {second} can take off linearly",
        }[kind]
        return f"{part}: {text}"
    return {
        "both_right": "both right",
        "only_first": f"only {first} right",
        "only_second": f"only {second} right",
        "double_fault": "both wrong (double fault)",
        "disagreement": "one right, one wrong (disagreement)",
        "oracle": "at least one right (oracle)",
        "rescued": f"of the errors of {first}, {second} gets right",
        "phi": "correlation of being right (phi)",
        "yule_q": "Yule's Q of being right",
    }.get(key, key.replace("_", " "))


def metrics_of_record(record: dict[str, Any]) -> tuple[str, ...]:
    """Metrics of the record's task."""
    return metric_names(record["task"])
