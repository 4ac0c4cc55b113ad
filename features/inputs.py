"""Which files a fusion table is made of, as the user named them; :func:`~.join.load_table` reads and joins them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ..errors import UsageError

OnePath = str | PathLike[str]
Paths = OnePath | Sequence[OnePath] | None


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files of a fusion run, and what the user says of them.

    Attributes
    ----------
    two_d : path or paths of 2D predictions
        The first is the network that the 3D is fused with, the others are its controls.
    stores : path or paths of stores
        Several of the same samples are joined by id; of other samples: trained on the first, reported on the last.
    three_d : path of ready 3D predictions, instead of stores
    labels : path of a table of truth by id
        Needed where there is no store; replaces the labels of one.
    ids : path or paths
        Ids of the rows of 2D predictions that come without, one file for each of ``two_d``.
    classes : text or texts
        What the 2D columns are: a preset or names by comma, one for all files or one for each.
    task : ``classes``, ``va``, or None for what is there

    Raises
    ------
    UsageError : no 2D file; neither or both of stores and ready predictions; no labels.
    """

    two_d: Paths
    stores: Paths = None
    three_d: OnePath | None = None
    labels: OnePath | None = None
    ids: Paths = None
    classes: str | Sequence[str] | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        for name in ("two_d", "stores", "ids"):
            object.__setattr__(self, name, _paths(getattr(self, name)))
        for name in ("three_d", "labels"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))
        classes = (self.classes,) if isinstance(self.classes, str) else tuple(self.classes or ())
        object.__setattr__(self, "classes", classes)
        if self.task not in (None, "classes", "va"):
            raise UsageError(f"task: expected classes or va, got {self.task!r}")
        if not self.two_d:
            raise UsageError("inputs: expected at least one file of 2D predictions, got none")
        if bool(self.stores) == (self.three_d is not None) or (not self.stores and self.labels is None):
            raise UsageError(
                "inputs: expected --3d-store STORE, or --3d-logits FILE with --labels TABLE, got another choice"
            )
        for option, given, allowed in (
            ("--2d-ids", len(self.ids), {0, len(self.two_d)}),
            ("--2d-classes", len(classes), {0, 1, len(self.two_d)}),
        ):
            if given not in allowed:
                counts = " or ".join(str(count) for count in sorted(allowed))
                raise UsageError(
                    f"inputs: expected {option} {counts} times for {len(self.two_d)} 2D files, got {given}"
                )


def _paths(given: Paths) -> tuple[Path, ...]:
    if isinstance(given, str | PathLike):
        return (Path(given),)
    return tuple(Path(path) for path in given or ())
