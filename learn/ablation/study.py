"""Study: options that all cells share, and a grid of options that vary; read from YAML or made in Python.

Options have the names of those of ``ig3d fuse`` or ``ig3d fuse-features``. A factor is an option with several values,
or a new name whose values set several options at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from ...errors import UsageError, one_of, shorten
from .runners import PATHS, RUNNERS, option_names
from .yaml_reader import read_yaml

_KEYS = ("name", "run", "options", "grid", "metric", "rule", "reference")
_MAX_CELLS = 10_000
_MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a study.

    Attributes
    ----------
    labels : factor -> label of its value in this cell
    options : option -> value
    run : ``fuse`` or ``intermediate``
    """

    labels: Mapping[str, str]
    options: Mapping[str, Any]
    run: str = "fuse"

    @property
    def name(self) -> str:
        """The labels, such as ``expression, gbm``."""
        return ", ".join(self.labels.values()) or "the only run"


@dataclass(frozen=True, slots=True)
class Study:
    """Runs of a study and their comparison.

    Attributes
    ----------
    name : str
        Title of the table.
    options : option -> value, for all cells
    grid : factor -> label -> value
        Every combination of values is a cell. A value that is a mapping sets several options. Any other value sets the
        option of the name of the factor.
    run : ``fuse`` or ``intermediate``, for cells whose options do not set ``run``
        In a study of both kinds, a cell ignores common options that its kind of run does not have.
    metric : metric of the table; None is the first metric of the task
    rule : rule whose differences are shown, or run -> rule; None is ``stack``, or the first rule
    reference : factor -> label, for the cell with which the others are compared
        By default the first value of a factor.

    Raises
    ------
    UsageError : an option is unknown or set by two factors, a factor has no values, or the reference is not a cell.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run: str = "fuse"
    metric: str | None = None
    rule: str | Mapping[str, str] | None = None
    reference: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        runs = self.runs
        for run in runs:
            if run not in RUNNERS:
                raise UsageError(f"{self.name}: run: {run!r} does not exist; choose {one_of(RUNNERS)}")
        allowed = ["run", *dict.fromkeys(name for run in runs for name in option_names(run))]
        _check_options(self.options, allowed, self.name)
        cells = 1
        factor_of: dict[str, str] = {}
        for factor, values in self.grid.items():
            if not values:
                raise UsageError(
                    f"{self.name}: the factor {factor!r} has no values; write a list, or a mapping from label to value"
                )
            for value in values.values():
                _check_options(value if isinstance(value, Mapping) else {factor: value}, allowed, self.name)
            for option in _options_set_by(factor, values):
                if option in factor_of:
                    raise UsageError(
                        f"{self.name}: the factors {factor_of[option]!r} and {factor!r} both set {option}, so that a "
                        "cell would have only one of both values; set it in one factor"
                    )
                factor_of[option] = factor
            cells *= len(values)
        if cells > _MAX_CELLS:
            raise UsageError(
                f"{self.name}: the grid has {cells} cells, more than {_MAX_CELLS}; divide the study"
            )
        for factor, label in self.reference.items():
            if label not in self.grid.get(factor, {}):
                if factor not in self.grid:
                    wrong = (
                        f"the grid has no factor {factor!r} (its factors: {', '.join(self.grid) or 'none'})"
                    )
                else:
                    wrong = f"{factor!r} has no value {label!r} (its values: {', '.join(self.grid[factor])})"
                raise UsageError(f"{self.name}: reference: {wrong}")

    @property
    def runs(self) -> tuple[str, ...]:
        """Kinds of runs of the cells: ``fuse``, ``intermediate``, or both."""
        values = [
            value["run"]
            for values in self.grid.values()
            for value in values.values()
            if isinstance(value, Mapping) and "run" in value
        ]
        values += [run for run in self.grid.get("run", {}).values() if not isinstance(run, Mapping)]
        return tuple(dict.fromkeys(map(str, values))) or (str(self.options.get("run", self.run)),)

    def rule_of(self, run: str) -> str | None:
        """The rule whose differences are shown for cells of a kind of run; None for the default."""
        return self.rule.get(run) if isinstance(self.rule, Mapping) else self.rule

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All combinations of values; the values of the last factor vary first."""
        cells = []
        for labels in product(*self.grid.values()):
            options = dict(self.options)
            for (factor, values), label in zip(self.grid.items(), labels, strict=True):
                value = values[label]
                options |= value if isinstance(value, Mapping) else {factor: value}
            run = str(options.pop("run", self.run))
            if len(self.runs) > 1:
                allowed = option_names(run)
                options = {name: value for name, value in options.items() if name in allowed or ":" in name}
            cells.append(Cell(dict(zip(self.grid, labels, strict=True)), options, run))
        return tuple(cells)

    @property
    def reference_cell(self) -> int:
        """Index of the cell with which the others are compared."""
        labels = {
            factor: self.reference.get(factor, next(iter(values))) for factor, values in self.grid.items()
        }
        return next(position for position, cell in enumerate(self.cells) if cell.labels == labels)

    def with_options(self, options: Mapping[str, Any]) -> Study:
        """The study with further options for all cells; they replace options and factors of the same names.

        Raises
        ------
        UsageError : an option is unknown.
        """
        grid = {factor: values for factor, values in self.grid.items() if factor not in options}
        reference = {factor: label for factor, label in self.reference.items() if factor in grid}
        return replace(self, options={**self.options, **options}, grid=grid, reference=reference)


def read_study(
    path: str | Path, options: Mapping[str, Any] | None = None, *, allow_code: bool = False
) -> Study:
    """Read a study from a YAML file. Relative paths in the file start from its folder.

    Parameters
    ----------
    path : YAML file
    options : option -> value, optional
        Options for all cells, which replace those of the file (:meth:`Study.with_options`).
    allow_code : bool
        Whether the file may name heads and rules as ``module:Class``, whose code is imported and run. They are always
        allowed in ``options``, which come from the caller.

    Raises
    ------
    UsageError : the file does not exist or is not a study, or names code without ``allow_code``.
    """
    content = read_yaml(_text_of(Path(path)), source=str(path), content="a study in YAML (docs/ablation.md)")
    if not isinstance(content, dict):
        raise UsageError(f"{path}: is not a mapping with options and a grid; see docs/ablation.md")
    unknown = [str(key) for key in content if key not in _KEYS]
    if unknown:
        raise UsageError(
            f"{path}: the keys {', '.join(unknown)} do not exist; a study has {', '.join(_KEYS)}"
        )
    for key in ("options", "grid", "reference"):
        if not isinstance(content.get(key) or {}, dict):
            raise UsageError(
                f"{path}: {key} is a {type(content[key]).__name__}, not a mapping; see docs/ablation.md"
            )
    rule = content.get("rule")
    if isinstance(rule, dict):
        rule = {str(run): str(name) for run, name in rule.items()}
    elif not isinstance(rule or "", str):
        raise UsageError(f"{path}: rule: {rule!r} is neither a text nor a mapping from run to rule")
    for key in ("name", "run", "metric"):
        if not isinstance(content.get(key) or "", str):
            raise UsageError(f"{path}: {key}: {content[key]!r} is not a text")
    folder = Path(path).parent
    grid: dict[str, dict[str, Any]] = {}
    for key, values in (content.get("grid") or {}).items():
        factor = _option_name(key)
        grid[factor] = {
            label: relative_to_folder(value, folder)
            if isinstance(value, dict)
            else relative_to_folder({factor: value}, folder)[factor]
            for label, value in _values_of(values, f"{path}: {factor}").items()
        }
    study = Study(
        name=content.get("name") or Path(path).stem,
        options=relative_to_folder(_with_option_names(content.get("options") or {}), folder),
        grid=grid,
        run=content.get("run") or "fuse",
        metric=content.get("metric"),
        rule=rule,
        reference={
            _option_name(factor): str(label) for factor, label in (content.get("reference") or {}).items()
        },
    )
    study = study.with_options(options) if options else study
    if not allow_code:
        _refuse_code(study, path, options or {})
    return study


def _text_of(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: is not a file; give a study in YAML")
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(
                f"{path}: has {path.stat().st_size:,} bytes, more than the {_MAX_BYTES:,} of a study; divide the study"
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(
            f"{path}: cannot be read as a study in YAML: {getattr(exc, 'strerror', '') or exc}"
        ) from exc


def _refuse_code(study: Study, path: str | Path, callers: Mapping[str, Any]) -> None:
    """Raise an error if the file names heads or rules that are code outside of ig3d.

    Reading a file must not run code of others. ``callers`` are the options of the caller, who may name such code.
    """
    for option in ("head", "rules", "primary"):
        for cell in study.cells:
            value = cell.options.get(option, "")
            names = value.split(",") if isinstance(value, str) else value
            names = names if isinstance(names, list | tuple) else ()
            code = next((name for name in names if isinstance(name, str) and ":" in name), None)
            if code is not None and value != callers.get(option):
                raise UsageError(
                    f"{path}: the study names the {'head' if option == 'head' else 'rule'} {shorten(code)!r}, which is "
                    "code outside of ig3d; if you trust the file and that code, run it with --allow-code"
                )
    for name in dict.fromkeys(name for cell in study.cells for name in cell.options):
        if ":" in name and name not in callers:
            raise UsageError(
                f"{path}: the option {shorten(name)!r} belongs to a rule that is code outside of ig3d; if you trust "
                "the file and that code, run it with --allow-code"
            )


def _options_set_by(factor: str, values: Mapping[str, Any]) -> list[str]:
    """Names of the options that the values of a factor set."""
    sets = [value if isinstance(value, Mapping) else {factor: value} for value in values.values()]
    return list(dict.fromkeys(name for options in sets for name in options))


def _option_name(key: Any) -> str:
    """Name of an option from a key of YAML, which reads the word ``on`` as true."""
    return "on" if key is True else str(key)


def _with_option_names(options: Mapping[Any, Any]) -> dict[str, Any]:
    return {_option_name(key): value for key, value in options.items()}


def _values_of(content: Any, factor: str) -> dict[str, Any]:
    """Label -> value of a factor, which is written as a list or as a mapping."""
    if isinstance(content, dict):
        return {
            str(label): _with_option_names(value) if isinstance(value, dict) else value
            for label, value in content.items()
        }
    values = content if isinstance(content, list) else [content]
    labels = [_label(value) for value in values]
    if len(set(labels)) < len(labels):
        raise UsageError(f"{factor}: has equal values; remove the repeated ones")
    return dict(zip(labels, values, strict=True))


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)


def relative_to_folder(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options in which relative paths start from a folder, and ``~/`` is the home of the user."""

    def resolve(value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(item) for item in value]
        if not isinstance(value, str):
            return value
        return str(folder / (Path(value).expanduser() if value.startswith("~/") else value))

    return {name: resolve(value) if name in PATHS else value for name, value in options.items()}


def _check_options(options: Mapping[str, Any], allowed: Sequence[str], source: str) -> None:
    """Raise an error for options that do not exist."""
    for name in options:
        # Options of custom rules (module:Class.option) are checked when the rule is imported.
        if name not in allowed and ":" not in str(name):
            similar = get_close_matches(str(name), allowed, n=1)
            hint = f"did you mean {similar[0]}?" if similar else f"choose among {', '.join(allowed)}"
            if name in PATHS:
                files = [option for option in allowed if option in PATHS]
                hint = f"the files of this kind of run are {', '.join(files)}"
            raise UsageError(f"{source}: {name!r} is not an option; {hint}")
