"""Cell of a study that is an intermediate fusion; the cell of a late fusion is in :mod:`ig3d.learn.ablation.runners`.

A cell trains each condition with one seed. It writes the same files as a run of late fusion, so that a study can
compare both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ..evaluate.predictors import INTERMEDIATE, NULL_INPUT
from ..report.files import run_files, write_texts
from ..report.record import run_of
from .config import IntermediateConfig
from .table import load_feature_table

# Options of ``ig3d fuse-features``: paths, and those of the configuration. A cell has one seed, the option ``seed``.
PATHS = frozenset({"features", "3d-store"})
_CONFIG = {
    field.name.replace("_", "-"): field.name
    for field in fields(IntermediateConfig)
    if field.name not in ("seeds", "controls", "mixed")
}
OPTIONS = (*sorted(PATHS), "blocks", "groups", "seed", *_CONFIG)


@dataclass(frozen=True, slots=True)
class IntermediateCell:
    """One intermediate fusion on features."""

    features: Path
    stores: tuple[Path, ...]
    blocks: str
    groups: str | None
    config: IntermediateConfig

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> IntermediateCell:
        """A cell of the options of ``ig3d fuse-features``.

        Raises
        ------
        UsageError : a file is missing, or an option has an impossible value.
        """
        missing = [name for name in sorted(PATHS) if name not in options]
        if missing:
            raise UsageError(f"{missing[0]}: no file; name it in the options of the study")
        chosen = {_CONFIG[name]: value for name, value in options.items() if name in _CONFIG}
        config = IntermediateConfig(**chosen, seeds=(int(options.get("seed", 0)),))
        if config.task == "both":
            raise UsageError("task: both is not supported in a study; choose classes or va")
        blocks = options.get("blocks", "full")
        blocks = ",".join(map(str, blocks)) if isinstance(blocks, list) else str(blocks)
        stores = options["3d-store"]
        stores = stores if isinstance(stores, list | tuple) else [stores]
        return cls(Path(options["features"]), tuple(map(Path, stores)), blocks, options.get("groups"), config)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that are read."""
        return (self.features, *self.stores)

    def key(self, contents: Mapping[Path, str]) -> str:
        """Text that identifies the result: contents of the files and all options."""
        return repr(
            (
                [contents[path] for path in self.files],
                self.blocks,
                self.groups,
                sorted(asdict(self.config).items()),
                version("torch"),
            )
        )

    @property
    def rules(self) -> tuple[str, ...]:
        """Predictors of the run, without controls."""
        return ("2d", NULL_INPUT, INTERMEDIATE)

    @property
    def shared(self) -> str:
        """Text that differs for all cells: they have no heads in common, so that all can run at the same time."""
        return repr(self)

    def write(self, folder: Path, heads: Path, threads: int) -> None:
        """Train and compare the conditions, and write the files of the run to ``folder``; ``heads`` is not used."""
        import torch

        from .results import results_of
        from .run import fuse_features

        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            features = load_feature_table(
                self.features, self.stores, blocks=self.blocks, groups=self.groups, task=self.config.task
            )
            (result,) = results_of(fuse_features(features, self.config))
        finally:
            torch.set_num_threads(before)
        write_texts(folder, run_files(run_of(result), result))
