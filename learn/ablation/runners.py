"""What makes a cell: options in, a folder of a run out. The options are those of the command of the same name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...features.atomic import file_sha256
from ...features.inputs import Inputs
from ...features.join import load_table
from ...features.store import CodeStore
from ..config import FuseConfig
from ..fuse import fuse_predictions
from ..head_fits import ScoreFolder
from ..heads import code_of
from ..intermediate.cell import OPTIONS as INTERMEDIATE_OPTIONS
from ..intermediate.cell import IntermediateCell
from ..report.files import run_files, write_texts
from ..report.record import run_of

# option -> name in Inputs
_INPUTS = {
    "2d-logits": "two_d",
    "3d-store": "stores",
    "3d-logits": "three_d",
    "labels": "labels",
    "2d-ids": "ids",
    "2d-classes": "classes",
    "task": "task",
}
PATHS = frozenset({"2d-logits", "3d-store", "3d-logits", "labels", "2d-ids", "features"})
# Of no meaning to a cell: how many threads it has, and whether a model is saved.
_NOT_OPTIONS = ("jobs", "model")
_CONFIG = {
    "2d-out-of-fold" if field.name == "two_d_out_of_fold" else field.name.replace("_", "-"): field
    for field in fields(FuseConfig)
    if field.name not in _NOT_OPTIONS
}


@dataclass(frozen=True, slots=True)
class FuseCell:
    """One late fusion."""

    inputs: Inputs
    config: FuseConfig
    head_code: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> FuseCell:
        """A cell of the options of ``ig3d fuse``.

        Raises
        ------
        UsageError : a value that the option cannot have, or files that lack.
        """
        inputs = {_INPUTS[name]: value for name, value in options.items() if name in _INPUTS}
        chosen = {
            _CONFIG[name].name: _value(name, value) for name, value in options.items() if name in _CONFIG
        }
        two_d = inputs.pop("two_d", None)
        if two_d is None:
            raise UsageError("2d-logits: expected a file of 2D predictions, got none; name it in options")
        config = FuseConfig(**chosen, model=False)
        return cls(Inputs(two_d, **inputs), config, code_of(config.head))

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read."""
        single = [path for path in (self.inputs.three_d, self.inputs.labels) if path is not None]
        return (*self.inputs.two_d, *self.inputs.stores, *self.inputs.ids, *single)

    def key(self, contents: Mapping[Path, str]) -> str:
        """What the result depends on, as text: the files' contents, every choice, the code of a head of the user's."""
        files = [contents[path] for path in self.files]
        choices = {name: value for name, value in asdict(self.config).items() if name not in _NOT_OPTIONS}
        choices["head"] += self.head_code
        return repr(
            (files, len(self.inputs.two_d), self.inputs.classes, self.inputs.task, sorted(choices.items()))
        )

    @property
    def rules(self) -> tuple[str, ...]:
        """What its record has figures of, controls and further 2D networks apart."""
        return ("2d", "2d-recalibrated", "3d", *self.config.rules)

    @property
    def shared(self) -> str:
        """Equal for cells that fit the same heads: one of them goes first and keeps the scores for the others."""
        config = self.config
        rows = (config.groups, config.seed, config.report, config.folds, config.fit_on)
        return repr((self.files, config.blocks, config.head, *rows))

    def write(self, folder: Path, heads: Path, threads: int) -> None:
        """Run it, and write its record and its predictions."""
        config = replace(self.config, jobs=threads)
        table = load_table(
            self.inputs, blocks=config.blocks, allow_missing=config.allow_missing, force=config.force
        )
        result = fuse_predictions(table, config, heads=ScoreFolder(heads))
        write_texts(folder, run_files(run_of(result), result))


AnyCell = FuseCell | IntermediateCell
RUNNERS: Mapping[str, Callable[[Mapping[str, Any]], AnyCell]] = {
    "fuse": FuseCell.of,
    "intermediate": IntermediateCell.of,
}


def options_of(run: str) -> list[str]:
    """Names of the options that cells of a kind have."""
    return [*INTERMEDIATE_OPTIONS] if run == "intermediate" else [*_INPUTS, *_CONFIG]


def content_of(path: Path) -> str:
    """What identifies a file's content: a store's own hash, else SHA-256 of the bytes.

    Raises
    ------
    UsageError : there is no such file.
    StoreError : a store of another version, or cut short.
    """
    if not path.is_file():
        raise UsageError(f"{path}: expected a file, found none; paths of a study are relative to it")
    if path.suffix in (".h5", ".hdf5"):
        with CodeStore(path) as store:
            return store.content_sha256
    return file_sha256(path)


def _value(name: str, value: Any) -> Any:
    """An option's value in the type that the configuration has."""
    default = _CONFIG[name].default
    if name == "calibration-rows" and value is None:
        return None
    if name == "calibration-rows":
        default = 0
    if name == "rules":
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise UsageError(f"rules: expected names in a list or by comma, got {value!r}")
        return tuple(str(part).strip() for part in parts if str(part).strip())
    if name == "blocks" and isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(default, bool) and not isinstance(value, bool):
        raise UsageError(f"{name}: expected true or false, got {value!r}")
    if isinstance(default, int) and not isinstance(default, bool) and type(value) is not int:
        raise UsageError(f"{name}: expected a whole number, got {value!r}")
    if name == "groups" and value is not None:
        default = ""
    if isinstance(default, str) and not isinstance(value, str):
        raise UsageError(f"{name}: expected a text, got {value!r}")
    return value
