"""Paths and options of the files of a fusion table; :func:`~.join.load_table` reads and joins the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ..errors import UsageError, plural

OnePath = str | PathLike[str]
Paths = OnePath | Sequence[OnePath] | None


@dataclass(frozen=True, slots=True, init=False)
class Inputs:
    """The files of a fusion run, and their options.

    Attributes
    ----------
    two_d : path or paths of 2D predictions
        The first is fused with the 3D; further 2D networks are controls.
    stores : path or paths of stores
        Stores of the same samples are joined by id. With stores of different samples, models are trained on all but the
        last, which is reported.
    three_d : path of 3D predictions, instead of stores
    labels : path of a table of labels by id
        Needed without a store; replaces the labels of a store.
    ids : path or paths
        Ids of the rows of 2D predictions that have none, one file for each file of ``two_d``.
    classes : text or texts
        Classes of the 2D columns: a preset, or names separated by commas; one text for all files, or one for each.
    task : ``classes`` or ``va``; None is the task of the files

    Raises
    ------
    UsageError : there is no 2D file, neither or both of stores and 3D predictions, or no labels.
    """

    two_d: tuple[Path, ...]
    stores: tuple[Path, ...]
    three_d: Path | None
    labels: Path | None
    ids: tuple[Path, ...]
    classes: tuple[str, ...]
    task: str | None

    def __init__(
        self,
        two_d: Paths,
        stores: Paths = None,
        *,
        three_d: OnePath | None = None,
        labels: OnePath | None = None,
        ids: Paths = None,
        classes: str | Sequence[str] | None = None,
        task: str | None = None,
    ) -> None:
        values = {
            "two_d": _paths(two_d),
            "stores": _paths(stores),
            "three_d": None if three_d is None else Path(three_d),
            "labels": None if labels is None else Path(labels),
            "ids": _paths(ids),
            "classes": (classes,) if isinstance(classes, str) else tuple(classes or ()),
            "task": task,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if self.task not in (None, "classes", "va"):
            raise UsageError(f"task: unknown task {self.task!r}; choose classes or va")
        if not self.two_d:
            raise UsageError("inputs: no 2D predictions; give a file with --2d-logits")
        if self.stores and self.three_d is not None:
            raise UsageError("inputs: --3d-store and --3d-logits exclude each other; omit one")
        if not self.stores and (self.three_d is None or self.labels is None):
            raise UsageError(
                "inputs: no 3D data; give --3d-store STORE, or --3d-logits FILE with --labels TABLE"
            )
        files = len(self.two_d)
        for option, count, allowed in (
            ("--2d-ids", len(self.ids), {0, files}),
            ("--2d-classes", len(self.classes), {0, 1, files}),
        ):
            if count not in allowed:
                counts = " or ".join(str(number) for number in sorted(allowed))
                raise UsageError(
                    f"inputs: {option} is given {count} times for {plural(files, '2D file')}; give it {counts} times"
                )

    def ids_of(self, file: int) -> Path | None:
        """File of ids of a 2D file, by the index of the 2D file; None without one."""
        return self.ids[file] if self.ids else None

    def classes_of(self, file: int) -> str | None:
        """Classes of a 2D file, by its index, as text; None without them."""
        if not self.classes:
            return None
        return self.classes[file if len(self.classes) > 1 else 0]


def _paths(paths: Paths) -> tuple[Path, ...]:
    if isinstance(paths, str | PathLike):
        return (Path(paths),)
    return tuple(Path(path) for path in paths or ())
