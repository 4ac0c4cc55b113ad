"""Runs of the cells of a study: each is made from options of a command, and writes the files of a run to a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
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
from ..heads import code_hash
from ..heads.custom import class_hash
from ..intermediate.cell import OPTIONS as INTERMEDIATE_OPTIONS
from ..intermediate.cell import IntermediateCell
from ..options import options_of
from ..report.files import run_files, write_texts
from ..report.record import run_of
from ..rules import RULES, kind_of, options_of_rule, rule_options

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
# Options of a run that are not options of a cell: the number of threads, and whether a model is saved.
_NOT_OPTIONS = ("jobs", "model")
_CONFIG = {option.name: option for option in options_of(FuseConfig, skip=(*_NOT_OPTIONS, "rule_options"))}


@dataclass(frozen=True, slots=True)
class FuseCell:
    """A late fusion, as of ``ig3d fuse``.

    Attributes
    ----------
    inputs : Inputs
    config : FuseConfig
    code : hash of the code of custom heads and rules; empty without these
    """

    inputs: Inputs
    config: FuseConfig
    code: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> FuseCell:
        """A cell of the options of ``ig3d fuse``.

        Raises
        ------
        UsageError : a value is invalid, or a required file is not named.
        """
        inputs = {_INPUTS[name]: value for name, value in options.items() if name in _INPUTS}
        if isinstance(options.get("blocks"), list):
            options = {**options, "blocks": ",".join(map(str, options["blocks"]))}
        chosen = {
            _CONFIG[name].parameter: _CONFIG[name].checked(value)
            for name, value in options.items()
            if name in _CONFIG
        }
        of_rules = rule_options({name: value for name, value in options.items() if "." in name})
        two_d = inputs.pop("two_d", None)
        if two_d is None:
            raise UsageError("2d-logits: no file of 2D predictions; name it in the options of the study")
        config = FuseConfig(**chosen, rule_options=of_rules, model=False)
        code = code_hash(config.head) + "".join(
            class_hash(kind_of(name)) for name in config.rules if name not in RULES
        )
        return cls(Inputs(two_d, **inputs), config, code)

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the files that are read."""
        single = [path for path in (self.inputs.three_d, self.inputs.labels) if path is not None]
        return (*self.inputs.two_d, *self.inputs.stores, *self.inputs.ids, *single)

    def key(self, contents: Mapping[Path, str]) -> str:
        """Text of everything that the result depends on: contents of files, options, and code of custom classes."""
        files = [contents[path] for path in self.files]
        choices = {name: value for name, value in asdict(self.config).items() if name not in _NOT_OPTIONS}
        choices["head"] += self.code
        return repr(
            (files, len(self.inputs.two_d), self.inputs.classes, self.inputs.task, sorted(choices.items()))
        )

    @property
    def rules(self) -> tuple[str, ...]:
        """Predictors of the run, without controls and further 2D networks."""
        return ("2d", "2d-recalibrated", "3d", *self.config.rules)

    @property
    def shared(self) -> str:
        """Text that is equal for cells that fit the same heads; one of these is run before the others."""
        config = self.config
        rows = (config.groups, config.seed, config.report, config.folds)
        return repr((self.files, config.blocks, config.head, *rows))

    def write(self, folder: Path, heads: Path, threads: int) -> None:
        """Run the fusion, and write record, figures and predictions to ``folder``; ``heads`` is the score cache."""
        config = replace(self.config, jobs=threads)
        table = load_table(
            self.inputs, blocks=config.blocks, allow_missing=config.allow_missing, force=config.force
        )
        result = fuse_predictions(table, config, score_cache=ScoreFolder(heads))
        write_texts(folder, run_files(run_of(result), result))


AnyCell = FuseCell | IntermediateCell
RUNNERS: Mapping[str, Callable[[Mapping[str, Any]], AnyCell]] = {
    "fuse": FuseCell.of,
    "intermediate": IntermediateCell.of,
}


def option_names(run: str) -> list[str]:
    """Names of the options of a kind of run."""
    if run == "intermediate":
        return [*INTERMEDIATE_OPTIONS]
    return [*_INPUTS, *_CONFIG, *(option.name for rule in RULES for option in options_of_rule(rule))]


def content_of(path: Path) -> str:
    """Hash of the content of a file: the stored hash of a store, else SHA-256 of the bytes.

    Raises
    ------
    UsageError : the file does not exist.
    StoreError : a store is of another version, or incomplete.
    """
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; paths in a study are relative to the folder of the study, and --2d-logits, "
            "--3d-store or --features replace them"
        )
    if path.suffix in (".h5", ".hdf5"):
        with CodeStore(path) as store:
            return store.content_sha256
    return file_sha256(path)
