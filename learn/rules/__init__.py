"""Fusion rules: scikit-learn-compatible estimators, one file each, found by name.

``fit(columns, y, groups=None)`` gets only the calibration rows and chooses its hyper-parameters on them.
``apply(columns)`` fuses each row independently of the others. Classes: the columns hold scores (logits or
log-probabilities), and the result is (n, k) log-probabilities. Valence and arousal: the result is (n, 2) values in [-1,
1].

A new rule is one file and a line of :data:`RULES`; an entry point of the group ``ig3d.rules`` or ``module:Class`` needs
no line. Keyword-only parameters of its constructor are its options (:mod:`ig3d.learn.options`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...errors import UsageError, absent
from ...features.installed import installed_plugins
from ..options import Option, options_of

if TYPE_CHECKING:
    from .base import Rule
    from .columns import Columns

__all__ = [
    "RECALIBRATED",
    "RULES",
    "SAVED_TYPES",
    "Columns",
    "Rule",
    "RuleSettings",
    "fits",
    "kind_of",
    "make_rule",
    "rule_options",
]

# name -> module:Class, imported on use; tables show rules in this order
RULES: Mapping[str, str] = {
    "mean": "fixed:Mean",
    "max": "fixed:Max",
    "min": "fixed:Min",
    "product": "fixed:Product",
    "weighted": "weighted:Weighted",
    "stack": "stack:Stack",
    "boost": "boost:Boost",
    "gate": "gate:Gate",
    "threshold": "threshold:Threshold",
    "selected": "selected:Selected",
}
RECALIBRATED = "2d-recalibrated"  # the stack without 3D columns
# Classes of ig3d that a model file may contain, by the names that skops writes.
SAVED_TYPES = tuple(
    f"{__name__}.{target.replace(':', '.')}"
    for target in (*RULES.values(), "calibrate:Calibrated", "calibrate:Calibration")
)
# Constructor parameters that the run sets; all others are options of the rule.
_SET_BY_RUN = ("task", "objective", "on", "random_state", "num_threads", "use_3d", "candidates")


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """Settings of a run that every rule gets; as in :class:`~ig3d.learn.config.FuseConfig`.

    Attributes
    ----------
    task : ``classes`` or ``va``
    objective : accuracy, balanced, logloss; rmse, ccc
    on, calibrate : as in the configuration
    options : rule -> parameter -> value
    seed : seed of inner folds and of trees
    threads : threads of LightGBM, 0 for all cores; results do not depend on it
    candidates : rules among which ``selected`` chooses
    """

    task: str
    objective: str
    on: str = "probabilities"
    calibrate: str = "none"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    threads: int = 1
    candidates: tuple[str, ...] = ()


def names() -> tuple[str, ...]:
    """Names of all rules, built-in ones first."""
    return tuple(dict.fromkeys((*RULES, *installed_plugins("rules"))))


def kind_of(name: str) -> type[Rule]:
    """The class of a rule: a name of :data:`RULES` or of an entry point, or ``module:Class``.

    Raises
    ------
    UsageError : no rule has this name.
    MissingExtra : it needs a package that is not installed.
    """
    from .base import Rule

    if name == RECALIBRATED:
        name = "stack"
    if name in RULES:
        module, _, attribute = RULES[name].partition(":")
        return getattr(import_module(f".{module}", __name__), attribute)
    target = name
    if ":" not in name:
        installed = installed_plugins("rules")
        if name not in installed:
            raise UsageError(
                f"rules: {name!r} is unknown; choose among {', '.join(names())}, or module:Class"
            )
        target = installed[name]
    module, _, attribute = target.partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        if isinstance(exc, ModuleNotFoundError) and not f"{module}.".startswith(f"{exc.name}."):
            raise absent(exc, wanted_by=f"rule {name}") from exc
        raise UsageError(
            f"rules: {target!r} cannot be imported ({exc}); check the name module:Class"
        ) from exc
    if not (isinstance(kind, type) and issubclass(kind, Rule)):
        raise UsageError(f"rules: {target!r} is not a subclass of ig3d.learn.rules.Rule; inherit from it")
    return kind


def options_of_rule(name: str) -> tuple[Option, ...]:
    """The options of a rule; named ``stack.codes`` on the command line and in study files."""
    return options_of(kind_of(name), skip=_SET_BY_RUN, prefix=f"{name}.")


def rule_options(values: Mapping[str, Any], *, text: bool = False) -> dict[str, dict[str, Any]]:
    """Checked options of rules: rule -> parameter -> value, from names such as ``stack.codes``.

    ``text`` converts values of the command line to numbers and truth values.

    Raises
    ------
    UsageError : the option does not exist, or the value is not allowed.
    """
    checked: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        rule = key.rpartition(".")[0]
        options = {option.name: option for option in (options_of_rule(rule) if rule else ())}
        if key not in options:
            allowed = [
                option.name for name in ([rule] if rule else RULES) for option in options_of_rule(name)
            ]
            raise UsageError(f"option of a rule: {key!r} is unknown; choose {', '.join(allowed) or 'none'}")
        option = options[key]
        checked.setdefault(rule, {})[option.parameter] = (
            option.parsed(value) if text else option.checked(value)
        )
    return checked


def make_rule(name: str, settings: RuleSettings) -> Rule:
    """Construct a rule by its name; with ``settings.calibrate``, a :class:`~.calibrate.Calibrated` rule.

    Raises
    ------
    UsageError : no rule has this name.
    """
    kind = kind_of(name)
    rule = kind(**settings.options.get(name, {}))
    parameters = rule.get_params(deep=False)
    values: dict[str, Any] = {
        "task": settings.task,
        "objective": settings.objective,
        "on": settings.on,
        "random_state": settings.seed,
        "num_threads": settings.threads,
        "use_3d": name != RECALIBRATED,
    }
    if "candidates" in parameters:
        # The recalibrated 2D network alone is a candidate too.
        candidates = (RECALIBRATED, *(other for other in settings.candidates if other != name))
        values["candidates"] = tuple((other, make_rule(other, settings)) for other in candidates)
    rule.set_params(**{key: value for key, value in values.items() if key in parameters})
    if settings.calibrate == "none" or "candidates" in parameters:
        return rule
    from .calibrate import Calibrated

    return Calibrated(rule, kind=settings.calibrate, objective=settings.objective)


def fits(name: str, calibrate: str) -> bool:
    """Whether a rule, or the calibration before it, is fitted to the calibration rows."""
    return kind_of(name).fits or calibrate != "none"


def __getattr__(name: str) -> Any:
    """``Rule`` and ``Columns`` are imported on use: they need scikit-learn and NumPy."""
    modules = {"Rule": ".base", "Columns": ".columns"}
    if name in modules:
        return getattr(import_module(modules[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
