"""A study: options that all runs share, and a grid of options that vary; from YAML or made in Python.

Options are those of ``ig3d fuse``, by the same names. A factor is an option with several values, or a name of the
user's own whose values set several options at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from ...errors import UsageError, shorten
from .runners import PATHS, RUNNERS, option_names
from .yaml_reader import read_yaml

_KEYS = ("name", "run", "options", "grid", "metric", "rule", "reference")
_MOST_CELLS = 10_000
_MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a study.

    Attributes
    ----------
    labels : factor -> the label of its value here
    options : option -> value
    run : ``fuse`` or ``intermediate``
    """

    labels: Mapping[str, str]
    options: Mapping[str, Any]
    run: str = "fuse"

    @property
    def name(self) -> str:
        """``expression, gbm``: the labels in words."""
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
        Every combination is a cell. A value that is a mapping sets several options; any other sets the option that
        the factor is named after.
    run : ``fuse`` or ``intermediate``, for cells whose options do not set ``run``
        In a study of both, a cell takes those of the options for all cells that its run has.
    metric : what the table shows; None is the first of the task
    rule : rule whose differences are shown, or run -> rule; None is ``stack`` where there is one
    reference : factor -> label of the cell that the others are compared with; the first value of a factor left out

    Raises
    ------
    UsageError : unknown options, an empty factor, a reference that is no cell.
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
                raise UsageError(f"{self.name}: expected run: {' or '.join(RUNNERS)}, got {run!r}")
        known = ["run", *dict.fromkeys(name for run in runs for name in option_names(run))]
        _check_options(self.options, known, self.name)
        cells = 1
        for factor, values in self.grid.items():
            if not values:
                raise UsageError(
                    f"{self.name}: expected values of the factor {factor!r}, got none; give a list or label: value"
                )
            for value in values.values():
                _check_options(value if isinstance(value, Mapping) else {factor: value}, known, self.name)
            cells *= len(values)
        if cells > _MOST_CELLS:
            raise UsageError(
                f"{self.name}: expected at most {_MOST_CELLS} cells, got {cells}; part the study"
            )
        for factor, label in self.reference.items():
            if label not in self.grid.get(factor, {}):
                words = (
                    ", ".join(self.grid.get(factor, {}))
                    or f"a factor out of {', '.join(self.grid) or 'none'}"
                )
                raise UsageError(f"{self.name}: expected a reference among {words}, got {factor}: {label}")

    @property
    def runs(self) -> tuple[str, ...]:
        """The kinds of runs of its cells."""
        values = [
            value["run"]
            for values in self.grid.values()
            for value in values.values()
            if isinstance(value, Mapping) and "run" in value
        ]
        values += [run for run in self.grid.get("run", {}).values() if not isinstance(run, Mapping)]
        return tuple(dict.fromkeys(map(str, values))) or (str(self.options.get("run", self.run)),)

    def rule_of(self, run: str) -> str | None:
        """The rule whose differences are shown in cells of a run."""
        return self.rule.get(run) if isinstance(self.rule, Mapping) else self.rule

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All combinations, the last factor's values next to each other."""
        found = []
        for labels in product(*self.grid.values()):
            options = dict(self.options)
            for (factor, values), label in zip(self.grid.items(), labels, strict=True):
                value = values[label]
                options |= value if isinstance(value, Mapping) else {factor: value}
            run = str(options.pop("run", self.run))
            if len(self.runs) > 1:
                known = option_names(run)
                options = {name: value for name, value in options.items() if name in known or ":" in name}
            found.append(Cell(dict(zip(self.grid, labels, strict=True)), options, run))
        return tuple(found)

    @property
    def reference_cell(self) -> int:
        """Place of the cell that the others are compared with."""
        labels = {factor: self.reference.get(factor, next(iter(of))) for factor, of in self.grid.items()}
        return next(place for place, cell in enumerate(self.cells) if cell.labels == labels)

    def with_options(self, options: Mapping[str, Any]) -> Study:
        """The study with other options for all cells; a factor of that name is no factor any more.

        Raises
        ------
        UsageError : unknown options.
        """
        grid = {factor: values for factor, values in self.grid.items() if factor not in options}
        reference = {factor: label for factor, label in self.reference.items() if factor in grid}
        return replace(self, options={**self.options, **options}, grid=grid, reference=reference)


def read_study(
    path: str | Path, options: Mapping[str, Any] | None = None, *, allow_code: bool = False
) -> Study:
    """Read a study from a YAML file; its paths are relative to the file.

    Parameters
    ----------
    path : YAML file
    options : option -> value, optional
        For all cells, in place of what the file has (:meth:`Study.with_options`).
    allow_code : bool
        Whether the file may name heads and rules as ``module:Class``, whose code is imported and run. A head or rule in
        ``options`` is the caller's own and always allowed.

    Raises
    ------
    UsageError : no file, not YAML, not a study (the message names the key), or a head that names code.
    """
    content = read_yaml(_text_of(Path(path)), where=str(path), wanted="a study in YAML (docs/ablation.md)")
    if not isinstance(content, dict):
        raise UsageError(
            f"{path}: expected a study with options and a grid, got no mapping; see docs/ablation.md"
        )
    odd = [str(key) for key in content if key not in _KEYS]
    if odd:
        raise UsageError(f"{path}: expected the keys {', '.join(_KEYS)}, got {', '.join(odd)}")
    for key in ("options", "grid", "reference"):
        if not isinstance(content.get(key) or {}, dict):
            raise UsageError(f"{path}: expected {key} to be a mapping, got {type(content[key]).__name__}")
    rule = content.get("rule")
    if isinstance(rule, dict):
        rule = {str(run): str(name) for run, name in rule.items()}
    elif not isinstance(rule or "", str):
        raise UsageError(f"{path}: expected rule to be a text, or a rule for each run, got {rule!r}")
    for key in ("name", "run", "metric"):
        if not isinstance(content.get(key) or "", str):
            raise UsageError(f"{path}: expected {key} to be a text, got {content[key]!r}")
    folder = Path(path).parent
    shared = {_text(key): value for key, value in (content.get("options") or {}).items()}
    grid = {
        _text(factor): _values(values, f"{path}: {factor}")
        for factor, values in (content.get("grid") or {}).items()
    }
    study = Study(
        name=content.get("name") or Path(path).stem,
        options=placed(shared, folder),
        grid={
            factor: {
                label: placed(value, folder)
                if isinstance(value, dict)
                else placed({factor: value}, folder)[factor]
                for label, value in values.items()
            }
            for factor, values in grid.items()
        },
        run=content.get("run") or "fuse",
        metric=content.get("metric"),
        rule=rule,
        reference={_text(factor): str(label) for factor, label in (content.get("reference") or {}).items()},
    )
    study = study.with_options(options) if options else study
    if not allow_code:
        _refuse_code(study, path, options or {})
    return study


def _text_of(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: expected a file with a study in YAML, got something else")
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(
                f"{path}: expected a study of at most {_MOST_BYTES:,} bytes, got {path.stat().st_size:,}"
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(
            f"{path}: expected a study in YAML, got {getattr(exc, 'strerror', '') or exc}"
        ) from exc


def _refuse_code(study: Study, path: str | Path, callers: Mapping[str, Any]) -> None:
    """Refuse heads and rules that are code outside of ig3d, unless the caller named them.

    Reading a file must not run any code.
    """
    for option in ("head", "rules", "primary"):
        for cell in study.cells:
            value = cell.options.get(option, "")
            named = value.split(",") if isinstance(value, str) else value
            listed = named if isinstance(named, list | tuple) else ()
            code = next((name for name in listed if isinstance(name, str) and ":" in name), None)
            if code is not None and value != callers.get(option):
                raise UsageError(
                    f"{path}: the study names the {'head' if option == 'head' else 'rule'} {shorten(code)!r}, which is "
                    "code outside of ig3d; if you trust the file and that code, run it with --allow-code"
                )
    for name in dict.fromkeys(name for cell in study.cells for name in cell.options):
        if ":" in name and name not in callers:
            raise UsageError(
                f"{path}: the option {shorten(name)!r} is one of a rule that is code outside of ig3d; if you trust the "
                "file and that code, run it with --allow-code"
            )


def _text(key: Any) -> str:
    """An option's name: YAML takes a bare ``on`` for a truth value."""
    return "on" if key is True else str(key)


def _values(given: Any, what: str) -> dict[str, Any]:
    """label -> value of a factor that is written as a list or as a mapping."""
    if isinstance(given, dict):
        return {str(label): _named(value) for label, value in given.items()}
    values = given if isinstance(given, list) else [given]
    labels = [_label(value) for value in values]
    if len(set(labels)) < len(labels):
        raise UsageError(f"{what}: expected different values, got some of them twice")
    return dict(zip(labels, values, strict=True))


def _named(value: Any) -> Any:
    return {_text(key): item for key, item in value.items()} if isinstance(value, dict) else value


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)


def placed(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options whose relative paths are those of a folder; ``~/`` is the user's home."""

    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(item) for item in value]
        if not isinstance(value, str):
            return value
        return str(folder / (Path(value).expanduser() if value.startswith("~/") else value))

    return {name: of(value) if name in PATHS else value for name, value in options.items()}


def _check_options(options: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in options:
        # options of a rule of the user's are checked when the rule is imported
        if name not in known and ":" not in str(name):
            near = get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise UsageError(f"{where}: expected options of the run, got {name!r}{hint}")
