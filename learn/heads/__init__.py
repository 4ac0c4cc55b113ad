"""Heads: scikit-learn estimators that predict classes or valence-arousal from the codes alone.

``fit(X, y, groups=None)`` chooses what there is to choose on a grouped part of the rows it is given, and on nothing
else. One file per head, imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ...errors import UsageError

# task -> name -> "module:Class", imported on use
HEADS: Mapping[str, Mapping[str, str]] = {
    "classes": {
        "gbm": "ig3d.learn.heads.gbm:GbmClassifier",
        "linear": "ig3d.learn.heads.linear:LinearClassifier",
        "mlp": "ig3d.learn.heads.paper:MlpClassifier",
        "residual": "ig3d.learn.heads.paper:ResidualClassifier",
    },
    "va": {
        "gbm": "ig3d.learn.heads.gbm:GbmRegressor",
        "linear": "ig3d.learn.heads.linear:LinearRegressor",
        "mlp": "ig3d.learn.heads.paper:MlpRegressor",
        "residual": "ig3d.learn.heads.paper:ResidualRegressor",
    },
}
NEED_TORCH = frozenset({"mlp", "residual"})
# What a saved model may hold of ours: the heads by the names that skops writes.
TYPES = (
    *(place.replace(":", ".") for heads in HEADS.values() for place in heads.values()),
    "ig3d.learn.heads.given.GivenClassifier",
    "ig3d.learn.heads.given.GivenRegressor",
)


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
        Threads; 0 or -1 for all cores.
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
    if ":" in name:
        from .given import given_head

        return given_head(name, task, seed=seed, jobs=jobs, balanced=balanced)
    if name not in HEADS[task]:
        raise UsageError(
            f"head: expected one of {', '.join(HEADS[task])}, or module:Class of an estimator, got {name!r}"
        )
    module, _, attribute = HEADS[task][name].partition(":")
    head = getattr(import_module(module), attribute)()
    offered = {
        "random_state": seed,
        "num_threads": max(jobs, 0),  # 0: LightGBM takes all cores
        "blocks": tuple(blocks) or None,
        "class_weight": "balanced" if balanced else None,
        "device": device,
    }
    return head.set_params(**{key: value for key, value in offered.items() if key in head.get_params()})


def code_of(name: str) -> str:
    """What tells a head from an earlier one of the same name: a hash of the user's own code; nothing for ours.

    Ours change with the version of ig3d.

    Raises
    ------
    UsageError : there is no module or class of that name.
    """
    if ":" not in name:
        return ""
    from .given import code_at

    return code_at(name)


def foreign_in(head: Any) -> list[str]:
    """Types in a fitted head that a model file may not hold: of a user's own classes, or compiled ones."""
    from skops.io import dumps, get_untrusted_types

    return sorted(set(get_untrusted_types(data=dumps(head))) - set(TYPES))
