"""Heads: scikit-learn estimators that predict classes or valence-arousal from the codes alone.

``fit(X, y, groups=None)`` chooses its settings on a grouped part of the rows it is given, and on nothing else. A new
head is one file and a line of :data:`HEADS`; an entry point of the group ``ig3d.heads`` or ``module:Class`` needs no
line. A head is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ...errors import UsageError

# name -> task -> module:Class, imported on use
HEADS: Mapping[str, Mapping[str, str]] = {
    "gbm": {"classes": "gbm:GbmClassifier", "va": "gbm:GbmRegressor"},
    "linear": {"classes": "linear:LinearClassifier", "va": "linear:LinearRegressor"},
    "mlp": {"classes": "paper:MlpClassifier", "va": "paper:MlpRegressor"},
    "residual": {"classes": "paper:ResidualClassifier", "va": "paper:ResidualRegressor"},
}
# Names of our classes that a saved model may hold, as skops writes them.
TYPES = tuple(
    f"{__name__}.{target.replace(':', '.')}"
    for target in (
        *(target for kinds in HEADS.values() for target in kinds.values()),
        "given:GivenClassifier",
        "given:GivenRegressor",
    )
)


def names(task: str) -> tuple[str, ...]:
    """Names of the heads of a task, built-in ones first."""
    installed = sorted(point.name for point in entry_points(group="ig3d.heads"))
    return tuple(dict.fromkeys((*(name for name, kinds in HEADS.items() if task in kinds), *installed)))


def place_of(name: str) -> str:
    """``module:Class`` of a head of the user's or of another package; empty for those of ig3d."""
    if name in HEADS or ":" in name:
        return "" if name in HEADS else name
    return next((point.value for point in entry_points(group="ig3d.heads") if point.name == name), "")


def kind_of(name: str, task: str) -> type:
    """The class of a head of :data:`HEADS`.

    Raises
    ------
    UsageError : there is no such head.
    """
    if task not in HEADS.get(name, {}):
        raise UsageError(
            f"head: expected one of {', '.join(names(task))}, or module:Class of an estimator, got {name!r}"
        )
    module, _, attribute = HEADS[name][task].partition(":")
    kind: type = getattr(import_module(f".{module}", __name__), attribute)
    return kind


def needs_of(name: str, task: str) -> str:
    """Package that a head needs beside those of ig3d; empty if none."""
    return "" if place_of(name) else getattr(kind_of(name, task), "needs", "")


def make_head(
    name: str,
    task: str,
    *,
    seed: int,
    jobs: int,
    blocks: Sequence[int] = (),
    balanced: bool = False,
    device: str = "auto",
) -> Any:
    """A head by its name, or the user's own estimator at ``package.module:Class``.

    Parameters
    ----------
    name, task : a name of :data:`HEADS`, or ``module:Class``; ``classes`` or ``va``
    seed : int
        Of every draw.
    jobs : int
        Threads; 0 for all cores.
    blocks : widths of the code blocks, in the order of the columns
        For heads that mask codes block by block; by default all columns are one block.
    balanced : bool
        Whether classes weigh equally however many rows they have.
    device : str
        Where ``mlp`` and ``residual`` are trained (:func:`~ig3d.features.device.choose_device`).

    Raises
    ------
    UsageError : there is no such head.
    """
    place = place_of(name)
    if place:
        from .given import given_head

        return given_head(place, task, seed=seed, jobs=jobs, balanced=balanced)
    head: Any = kind_of(name, task)()
    offered = {
        "random_state": seed,
        "num_threads": jobs,  # 0: LightGBM takes all cores
        "blocks": tuple(blocks) or None,
        "class_weight": "balanced" if balanced else None,
        "device": device,
    }
    return head.set_params(**{key: value for key, value in offered.items() if key in head.get_params()})


def code_of(name: str) -> str:
    """Hash of the code of a head of the user's; empty for those of ig3d, which change with its version.

    Raises
    ------
    UsageError : there is no module or class of that name.
    """
    place = place_of(name)
    if not place:
        return ""
    from .given import code_at

    return code_at(place)


def foreign_in(head: Any) -> list[str]:
    """Types in a fitted head that a model file may not hold: a user's own classes, or compiled ones."""
    from skops.io import dumps, get_untrusted_types

    return sorted(set(get_untrusted_types(data=dumps(head))) - set(TYPES))
