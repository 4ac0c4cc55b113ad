"""Heads: scikit-learn estimators that predict classes or valence-arousal from the codes alone.

``fit(X, y, groups=None)`` chooses its hyper-parameters on a held-out part of its rows, in whole groups.
A new built-in head is one file and a line of :data:`HEADS`. Heads of other packages are found by an entry point of the
group ``ig3d.heads`` or named as ``module:Class``. A head is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ...errors import UsageError
from ...features.installed import installed_plugins

# name -> task -> module:Class, imported on use
HEADS: Mapping[str, Mapping[str, str]] = {
    "gbm": {"classes": "gbm:GbmClassifier", "va": "gbm:GbmRegressor"},
    "linear": {"classes": "linear:LinearClassifier", "va": "linear:LinearRegressor"},
    "mlp": {"classes": "paper:MlpClassifier", "va": "paper:MlpRegressor"},
    "residual": {"classes": "paper:ResidualClassifier", "va": "paper:ResidualRegressor"},
}
# Classes of ig3d that a model file may contain, by the names that skops writes.
SAVED_TYPES = tuple(
    f"{__name__}.{target.replace(':', '.')}"
    for target in (
        *(target for kinds in HEADS.values() for target in kinds.values()),
        "custom:CustomClassifier",
        "custom:CustomRegressor",
    )
)


def names(task: str) -> tuple[str, ...]:
    """Names of the heads of a task, built-in ones first."""
    builtin = (name for name, kinds in HEADS.items() if task in kinds)
    return tuple(dict.fromkeys((*builtin, *installed_plugins("heads"))))


def custom_path(name: str) -> str:
    """``module:Class`` of a head from user code or another package; empty for the heads of ig3d."""
    if name in HEADS:
        return ""
    if ":" in name:
        return name
    return installed_plugins("heads").get(name, "")


def check_head(name: str) -> None:
    """Raise an error if no head of any task has this name; ``module:Class`` is not imported.

    Raises
    ------
    UsageError
    """
    if name not in HEADS and not custom_path(name):
        raise _unknown(name, *HEADS["gbm"])


def _unknown(name: str, *tasks: str) -> UsageError:
    known = dict.fromkeys(head for task in tasks for head in names(task))
    return UsageError(
        f"head: {name!r} is unknown; choose {', '.join(known)}, or module:Class of an estimator"
    )


def kind_of(name: str, task: str) -> type:
    """The class of a head of :data:`HEADS`.

    Raises
    ------
    UsageError : no head has this name.
    """
    if task not in HEADS.get(name, {}):
        raise _unknown(name, task)
    module, _, attribute = HEADS[name][task].partition(":")
    kind: type = getattr(import_module(f".{module}", __name__), attribute)
    return kind


def needs_of(name: str, task: str) -> str:
    """Optional package that a head needs; empty if none."""
    return "" if custom_path(name) else getattr(kind_of(name, task), "needs", "")


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
    """Construct a head.

    Parameters
    ----------
    name : str
        A name of :data:`HEADS` or of an entry point, or ``package.module:Class``.
    task : ``classes`` or ``va``
    seed : int
        Seed of all random numbers.
    jobs : int
        Threads; 0 for all cores.
    blocks : sequence of int
        Widths of the code blocks, in the order of the columns, for heads that mask codes block by block. By default
        all columns are one block.
    balanced : bool
        Whether classes have equal weight regardless of their number of rows.
    device : str
        Device on which ``mlp`` and ``residual`` are trained (:func:`~ig3d.features.device.choose_device`).

    Raises
    ------
    UsageError : no head has this name.
    """
    target = custom_path(name)
    if target:
        from .custom import custom_head

        return custom_head(target, task, seed=seed, jobs=jobs, balanced=balanced)
    head: Any = kind_of(name, task)()
    values = {
        "random_state": seed,
        "num_threads": jobs,  # 0: LightGBM takes all cores
        "blocks": tuple(blocks) or None,
        "class_weight": "balanced" if balanced else None,
        "device": device,
    }
    return head.set_params(**{key: value for key, value in values.items() if key in head.get_params()})


def code_hash(name: str) -> str:
    """Hash of the code of a custom head; empty for the heads of ig3d, whose code changes only with its version.

    Raises
    ------
    UsageError : the module or class does not exist.
    """
    target = custom_path(name)
    if not target:
        return ""
    from .custom import class_hash, import_estimator

    return class_hash(import_estimator(target))


def untrusted_types(head: Any) -> list[str]:
    """Types in a fitted head that a model file must not contain: classes of user code, or compiled classes."""
    from skops.io import dumps, get_untrusted_types

    return sorted(set(get_untrusted_types(data=dumps(head))) - set(SAVED_TYPES))
