"""Check trees in LightGBM's text format before they are parsed: LightGBM's parser does not check its input."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

END = "end of trees\n"
_MAX_BYTES = 256 << 20
_HEAD = (
    *("version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx"),
    *("objective", "feature_names", "feature_infos", "tree_sizes"),
)
_INTEGER = r"-?\d{1,9}"
_FLOAT = r"-?\d{1,20}(?:\.\d{1,40})?(?:e[-+]?\d{1,3})?"
_INTEGERS, _FLOATS = (re.compile(f"(?:{number}(?: {number})*)?") for number in (_INTEGER, _FLOAT))
# Key of a tree -> pattern of its text, and number of values: one, one per split, or one per leaf.
_TREE = {
    "num_leaves": (_INTEGERS, "one"),
    "num_cat": (_INTEGERS, "one"),
    "split_feature": (_INTEGERS, "splits"),
    "split_gain": (_FLOATS, "splits"),
    "threshold": (_FLOATS, "splits"),
    "decision_type": (_INTEGERS, "splits"),
    "left_child": (_INTEGERS, "splits"),
    "right_child": (_INTEGERS, "splits"),
    "leaf_value": (_FLOATS, "leaves"),
    "leaf_weight": (_FLOATS, "leaves"),
    "leaf_count": (_INTEGERS, "leaves"),
    "internal_value": (_FLOATS, "splits"),
    "internal_weight": (_FLOATS, "splits"),
    "internal_count": (_INTEGERS, "splits"),
    "is_linear": (_INTEGERS, "one"),
    "shrinkage": (_FLOATS, "one"),
}
_MAY_BE_EMPTY = ("leaf_weight", "leaf_count")  # of a tree of one leaf
# Codes of numeric splits, which differ in the default side and in the kind of missing values.
_DECISIONS = (0, 2, 4, 6, 8, 10)


def check_text(text: Any) -> None:
    """Raise an error for a text that LightGBM would not write for trees with numeric splits.

    Every node and leaf must be reached once, and all values must be finite.

    Raises
    ------
    ValueError
    """
    if not isinstance(text, str) or not text.isascii() or len(text) > _MAX_BYTES:
        raise ValueError("trees are not LightGBM's text")
    head, separator, rest = text.partition("\n\n")
    body, ending, _ = rest.partition(f"\n{END}")
    if not head.startswith("tree\n") or not separator or not ending:
        raise ValueError("trees are not LightGBM's text, or are incomplete")
    values = _pairs(head.removeprefix("tree\n"), _HEAD)
    columns, per_round = _check_head(values)
    sizes = [int(size) for size in values["tree_sizes"].split(" ")]
    body += "\n"
    if min(sizes) < 1 or sum(sizes) != len(body) or len(sizes) % per_round:
        raise ValueError(
            f"trees have {len(body)} characters in {len(sizes)} trees, which is not what tree_sizes states"
        )
    start = 0
    for number, size in enumerate(sizes):
        _check_tree(body[start : start + size], number, columns)
        start += size


def _check_head(values: Mapping[str, str]) -> tuple[int, int]:
    """Number of columns of the codes, and number of trees per round, from the checked entries of the head."""
    for name in ("num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "tree_sizes"):
        if not values[name] or not _INTEGERS.fullmatch(values[name]):
            raise ValueError(f"{name} of the trees is {values[name][:40]!r}")
    classes, columns = int(values["num_class"]), int(values["max_feature_idx"]) + 1
    objective = "regression" if classes == 1 else f"multiclass num_class:{classes}"
    if classes < 1 or values["num_tree_per_iteration"] != values["num_class"] or columns < 1:
        raise ValueError("trees have an invalid number of classes or columns")
    if (
        values["version"] not in ("v3", "v4")
        or values["objective"] != objective
        or values["label_index"] != "0"
    ):
        raise ValueError(f"trees have the objective {values['objective'][:40]!r}, not {objective!r}")
    if values["feature_names"] != " ".join(f"Column_{column}" for column in range(columns)):
        raise ValueError("feature_names of the trees do not match max_feature_idx")
    infos = values["feature_infos"].split(" ")
    if len(infos) != columns or not all(re.fullmatch(rf"none|\[{_FLOAT}:{_FLOAT}\]", info) for info in infos):
        raise ValueError("feature_infos of the trees do not match max_feature_idx")
    return columns, classes


def _pairs(text: str, keys: tuple[str, ...]) -> dict[str, str]:
    """Key -> value of lines ``KEY=VALUE``, which must have exactly these keys."""
    lines = text.split("\n")
    pairs = dict(line.split("=", 1) for line in lines if "=" in line)
    if tuple(pairs) != keys or len(lines) != len(keys):
        raise ValueError("trees have other entries than LightGBM writes")
    return pairs


def _check_tree(text: str, number: int, columns: int) -> None:
    """Raise an error if the text of a tree is invalid; ``number`` is that of the tree, from 0."""
    first, _, rest = text.partition("\n")
    if first != f"Tree={number}" or not rest.endswith("\n\n\n"):
        raise ValueError(f"tree {number} does not begin and end as LightGBM writes it")
    pairs = _pairs(rest[:-3], tuple(_TREE))
    for name, (pattern, _) in _TREE.items():
        if not pattern.fullmatch(pairs[name]):
            raise ValueError(f"tree {number}: {name} is not numbers")
    values = {name: np.array(text.split(), np.float64) for name, text in pairs.items()}
    if len(values["num_leaves"]) != 1 or values["num_leaves"][0] < 1:
        raise ValueError(f"tree {number} has no leaves")
    leaves = int(values["num_leaves"][0])
    lengths = {"one": 1, "splits": leaves - 1, "leaves": leaves}
    for name, (_, kind) in _TREE.items():
        empty = leaves == 1 and name in _MAY_BE_EMPTY and not len(values[name])
        if len(values[name]) != lengths[kind] and not empty:
            raise ValueError(f"tree {number}: {name} has {len(values[name])} numbers, not {lengths[kind]}")
        if not np.isfinite(values[name]).all():
            raise ValueError(f"tree {number}: {name} is not finite")
    if values["num_cat"][0] or values["is_linear"][0]:
        raise ValueError(f"tree {number} has splits that are not numeric")
    if not np.isin(values["decision_type"], _DECISIONS).all():
        raise ValueError(f"tree {number} has an unknown decision type")
    features = values["split_feature"]
    if ((features < 0) | (features >= columns)).any():
        raise ValueError(f"tree {number} splits on a column outside 0 to {columns - 1}")
    children = np.concatenate([values["left_child"], values["right_child"]]).astype(np.int64)
    parents = np.tile(np.arange(leaves - 1), 2)
    # Each leaf (-1, -2, ...) and each node except the first is the child of exactly one node, which precedes it.
    if not np.array_equal(np.sort(children), [*range(-leaves, 0), *range(1, leaves - 1)][: len(children)]):
        raise ValueError(f"tree {number} does not reach every node once")
    if (children[children >= 0] <= parents[children >= 0]).any():
        raise ValueError(f"tree {number} has a cycle")


def texts_in(part: Any) -> Iterator[Any]:
    """Texts of trees in a fitted head or rule, and in its nested estimators."""
    if isinstance(part, list | tuple):
        for item in part:
            yield from texts_in(item)
    elif isinstance(part, dict):
        yield from texts_in(list(part.values()))
    elif type(part).__module__.startswith(f"{__name__.partition('.')[0]}."):
        for name, value in vars(part).items():
            if name == "trees_":
                yield from value if isinstance(value, list) else [value]
            else:
                yield from texts_in(value)
