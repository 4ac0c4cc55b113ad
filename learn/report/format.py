"""Results as text: numbers, differences with intervals, p-values and marks."""

from __future__ import annotations

import math
from decimal import ROUND_DOWN, Decimal

from ..evaluate.figures import Figure
from ..evaluate.metrics import METRICS, better_by

LEVELS = (0.05, 0.01, 0.001)
ON_COVERED = "‡"
NOTHING = "–"
_ZERO = 1e-9  # ends of intervals below it are 0, but for rounding


def number(value: float, metric: str) -> str:
    """A metric value in a table: per cent with two digits, else four digits."""
    if not math.isfinite(value):
        return NOTHING
    return f"{100 * value:.2f}" if METRICS[metric].percent else f"{value:.4f}"


def difference(value: float, metric: str, *, sign: bool = True) -> str:
    """A difference with its sign: points with one digit, else four digits; no sign if it rounds to 0."""
    if not math.isfinite(value):
        return NOTHING
    scale, digits = (100, 1) if METRICS[metric].percent else (1, 4)
    rounded = round(scale * value, digits) + 0.0  # adding zero turns a rounded -0.0 into 0.0
    return f"{rounded:+.{digits}f}" if sign and rounded else f"{rounded:.{digits}f}"


def limit(value: float, metric: str, *, sign: bool = True) -> str:
    """End of an interval: a difference, with more digits if it is nearer to 0 than one unit of the last digit.

    ``+0.05`` and not ``+0.1`` or ``0.0``: 0.0 is an end that is 0.
    """
    scale, digits = (100, 1) if METRICS[metric].percent else (1, 4)
    scaled = scale * value
    if not _ZERO < abs(scaled) < 10.0**-digits:
        return difference(value, metric, sign=sign)
    exact = Decimal(f"{scaled:.9g}")
    shown = exact.quantize(Decimal(1).scaleb(exact.adjusted()), ROUND_DOWN)
    return f"{shown:+f}" if sign else f"{shown:f}"


def bound(value: float, metric: str) -> str:
    """End of an interval as an amount: ``5.2 points``."""
    return limit(value, metric, sign=False) + (" points" if METRICS[metric].percent else "")


def interval(figure: Figure | None, metric: str) -> str:
    """``+1.4 [+0.6, +2.2]``; a dash if a difference or its interval is not defined."""
    if figure is None or not math.isfinite(figure.value):
        return NOTHING
    value, low, high = difference(figure.value, metric), limit(figure.low, metric), limit(figure.high, metric)
    return f"{value} [{low}, {high}]" if math.isfinite(figure.low) else f"{value} [{NOTHING}]"


def verb(difference: float) -> str:
    """``raises`` or ``lowers``, by the sign of a difference."""
    return "raises" if difference > 0 else "lowers"


def size(figure: Figure, metric: str) -> str:
    """Size of a difference in the direction of its verb: ``0.1127 [0.0705, 0.1559]``, ``2.1 [-0.3, 4.5] points``."""
    ends = figure.low, figure.high
    low, high = ends if figure.value > 0 else (-ends[1], -ends[0])
    value = difference(abs(figure.value), metric, sign=False)
    low_text, high_text = (limit(of, metric, sign=False) for of in (low, high))
    text = f"{value} [{low_text}, {high_text}]" if math.isfinite(low) else f"{value} [{NOTHING}]"
    return text + (" points" if METRICS[metric].percent else "")


def change(figure: Figure | None, metric: str) -> str:
    """``lowers log loss by 0.1127 [0.0705, 0.1559]``; without a sign, so that the verb has the direction."""
    if figure is None or not math.isfinite(figure.value):
        return f"changes {METRICS[metric].title} by {NOTHING}"
    return f"{verb(figure.value)} {METRICS[metric].title} by {size(figure, metric)}"


def unit_of(metric: str) -> str:
    """``points of accuracy``, ``in joint RMSE``."""
    return f"{'points of' if METRICS[metric].percent else 'in'} {METRICS[metric].title}"


def is_better(figure: Figure | None, metric: str) -> bool:
    """Whether a difference is an improvement by its adjusted p and by its interval.

    The interval may include variation that the test does not, such as that between trainings.
    """
    if figure is None or not all(map(math.isfinite, (figure.value, figure.low, figure.p_adjusted))):
        return False
    nearest = min(better_by(metric, figure.low), better_by(metric, figure.high))
    return better_by(metric, figure.value) > 0 and nearest > 0 and figure.p_adjusted < LEVELS[0]


def stars(figure: Figure | None, metric: str) -> str:
    """``*``, ``**``, ``***``: a gain whose adjusted p is below .05, .01, .001; none if it rounds to 0."""
    if figure is None or not is_better(figure, metric) or not float(difference(figure.value, metric)):
        return ""
    return "*" * sum(figure.p_adjusted < level for level in LEVELS)


def p_is(p: float) -> str:
    """``p ≤ .0001``, ``p = .034``."""
    text = p_value(p)
    return f"p {text}" if text.startswith(("<", "≤")) else f"p = {text}"


def p_value(p: float) -> str:
    """A p-value with two digits; ``≤ .0001`` for the smallest of 10,000 exchanges, which is 1/10,001, and ``< .0001``.

    It has more digits if two would round it across a level.
    """
    if not math.isfinite(p):
        return NOTHING
    if p < 1e-4:
        return "≤ .0001" if p > 9.99e-5 else "< .0001"
    if p >= 1:
        return "1"
    # rounding may reach a level, but not pass it
    rounded = (f"{p:.{digits}g}" for digits in range(2, 18))
    text = next(text for text in rounded if p in LEVELS or float(text) not in LEVELS)
    return text.replace("0.", ".", 1)
